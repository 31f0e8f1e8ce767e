"""Where a view's weights come from: pieces of arrays and records, made small and checked."""

import numpy as np
import pytest
import torch

import attnviz as av
from attnviz.layers import MultiHeadAttention
from attnviz.seeing import AttentionRecord
from attnviz.views import source
from attnviz.views.source import (
    check_head,
    check_layers,
    check_one_size,
    compress,
    edges,
    shrink_columns,
    shrink_rows,
)


def rows_of_weights(*shape, seed=0):
    scores = np.random.default_rng(seed).normal(0, 2, shape)
    weights = np.exp(scores)
    return (weights / weights.sum(-1, keepdims=True)).astype("float32")


def record(heads=4, key_heads=4, n_queries=13, n_keys=13, batch=2, kind="self", **changes):
    torch.manual_seed(0)
    query, key = torch.randn(batch, heads, n_queries, 8), torch.randn(batch, key_heads, n_keys, 8)
    return AttentionRecord(0, 0, "block.attention", kind, query=query, key=key, **changes)


def largest_of_patches(matrix, n_rows, n_columns):
    """The largest of each patch, one after the other; patches begin at floor(n · i / parts)."""
    n, m = matrix.shape
    result = np.zeros((n_rows, n_columns), np.float32)
    for i in range(n_rows):
        for j in range(n_columns):
            rows = range(n * i // n_rows, n * (i + 1) // n_rows)
            columns = range(m * j // n_columns, m * (j + 1) // n_columns)
            result[i, j] = max(matrix[r, c] for r in rows for c in columns)
    return result


@pytest.fixture(params=[2**24, 100, 1])
def in_blocks(request, monkeypatch):
    """The weights are read all at once, some rows at a time, or row by row."""
    monkeypatch.setattr(source, "BLOCK", request.param)


SHAPES = [(1, 1), (7, 7), (13, 13), (16, 16), (5, 31), (31, 5), (1, 20), (20, 1), (23, 19)]


@pytest.mark.usefixtures("in_blocks")
class TestWindow:
    @pytest.mark.parametrize("shape", SHAPES)
    @pytest.mark.parametrize("size", [1, 3, 8, 100])
    def test_a_whole_head_keeps_the_largest_of_each_patch(self, shape, size):
        weights = rows_of_weights(2, *shape)
        (layer,) = check_layers([weights])
        cells, largest = layer.window(1, (0, shape[0]), (0, shape[1]), size)
        rows, columns = min(size, shape[0]), min(size, shape[1])
        assert cells.shape == (rows, columns)
        assert np.array_equal(cells, largest_of_patches(weights[1], rows, columns))
        assert np.array_equal(largest, largest_of_patches(weights[1], rows, 1)[:, 0])

    @pytest.mark.parametrize("queries", [(0, 1), (3, 10), (8, 13), (0, 13)])
    @pytest.mark.parametrize("keys", [(0, 1), (2, 11), (16, 17), (0, 17)])
    @pytest.mark.parametrize("size", [1, 4, 5, 20])
    def test_a_part_of_a_head(self, queries, keys, size):
        weights = rows_of_weights(3, 13, 17)
        (layer,) = check_layers([weights])
        cells, largest = layer.window(2, queries, keys, size)
        part = weights[2, slice(*queries), slice(*keys)]
        rows, columns = min(size, part.shape[0]), min(size, part.shape[1])
        assert np.array_equal(cells, largest_of_patches(part, rows, columns))
        # the largest of a row is that of all its keys, also of those outside the window
        of_all = largest_of_patches(weights[2, slice(*queries)], rows, 1)[:, 0]
        assert np.array_equal(largest, of_all)

    @pytest.mark.parametrize("key_heads", [4, 2, 1])  # grouped queries share keys
    @pytest.mark.parametrize("item", [0, 1])
    def test_of_a_record(self, key_heads, item):
        seen = record(key_heads=key_heads, n_keys=17)
        (layer,) = check_layers(seen, item)
        for head in range(4):
            cells, _ = layer.window(head, (2, 13), (1, 17), 5)
            part = seen.weights[item, head, 2:13, 1:17].numpy()
            assert np.allclose(cells, largest_of_patches(part, 5, 5), atol=1e-6)

    def test_of_a_causal_record(self):
        (layer,) = check_layers(record(is_causal=True))
        cells, _ = layer.window(0, (0, 13), (0, 13), 13)
        assert (np.triu(cells, 1) == 0).all()
        assert np.allclose(cells.sum(1), 1, atol=1e-6)

    def test_of_weights_that_the_model_wrote_out(self):
        weights = torch.from_numpy(rows_of_weights(2, 3, 9, 9)).bfloat16()
        seen = AttentionRecord(0, 0, "", "self", written_out=weights)
        (layer,) = check_layers(seen, item=1)
        cells, _ = layer.window(2, (0, 9), (0, 9), 9)
        assert np.array_equal(cells, weights[1, 2].float().numpy())


class TestRows:
    @pytest.mark.parametrize("heads", [slice(None), slice(1, 3), slice(3, 4), slice(0, None, 2)])
    @pytest.mark.parametrize("queries", [slice(None), slice(4, 9), slice(1, None, 3)])
    def test_some_heads_and_queries(self, heads, queries):
        seen = record(key_heads=2)
        wanted = seen.weights[1].numpy()
        for given in (seen, [wanted], [seen.weights[1]]):
            (layer,) = check_layers(given, item=int(given is seen))
            rows = layer.rows(heads, queries)
            assert rows.dtype == np.float32
            assert rows.flags.c_contiguous
            assert np.allclose(rows, wanted[heads, queries], atol=1e-6)

    @pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
    def test_tensors_of_any_kind(self, dtype):
        weights = torch.randn(2, 3, 5, 5).softmax(-1).to(dtype).requires_grad_()
        (layer,) = check_layers([weights], item=1)
        assert np.allclose(layer.rows(slice(None), slice(None)), weights[1].detach().float())

    def test_blocks_cover_the_queries_once(self, monkeypatch):
        monkeypatch.setattr(source, "BLOCK", 2 * 4 * 13)
        (layer,) = check_layers(record())
        found = list(layer.blocks(slice(None), 3, 12))
        assert [start for start, _ in found] == [3, 5, 7, 9, 11]
        rows = np.concatenate([block for _, block in found], 1)
        assert np.allclose(rows, layer.rows(slice(None), slice(3, 12)), atol=1e-6)

    def test_what_is_no_attention_is_named_with_its_head(self):
        bad = record()
        bad.query[0, 2, 5] = torch.nan
        (layer,) = check_layers(bad)
        layer.rows(slice(0, 2), slice(None))  # these heads are sound
        with pytest.raises(ValueError, match=r"finite, got nan.*\(head 2 of block\.attention\)"):
            layer.rows(slice(None), slice(None))
        with pytest.raises(ValueError, match=r"\(head 2 of"):
            layer.window(2, (0, 13), (0, 13), 4)

    def test_scores_are_no_weights(self):
        (layer,) = check_layers([np.ones((2, 3, 3))])
        with pytest.raises(ValueError, match=r"sum to 1.*sums to 3.*\(head 0 of a layer\)"):
            layer.rows(slice(None), slice(None))


class TestShrinking:
    @pytest.mark.parametrize("n", [1, 7, 16, 100, 513])
    @pytest.mark.parametrize("parts", [1, 2, 7, 16])
    def test_edges_cut_evenly(self, n, parts):
        if parts > n:
            return
        cut = edges(n, parts)
        assert (cut[0], cut[-1], len(cut)) == (0, n, parts + 1)
        assert {n // parts, -(-n // parts)} >= set(np.diff(cut))

    @pytest.mark.parametrize(("n", "size"), [(13, 5), (13, 13), (100, 7), (128, 64), (129, 64)])
    def test_rows_from_the_middle_of_a_sample(self, n, size):
        weights = rows_of_weights(2, n, 6)
        step = n // size
        places = np.arange(step // 2, n, step)
        small, first = shrink_rows(weights[:, places], places, n, size)
        assert first == 0
        assert small.shape == (2, size, 6)  # no patch was missed
        cut = edges(n, size)
        for i in range(size):
            here = [p for p in places if cut[i] <= p < cut[i + 1]]
            assert np.array_equal(small[:, i], weights[:, here].max(1))

    def test_rows_of_some_patches_say_which(self):
        weights = rows_of_weights(1, 20, 4)
        small, first = shrink_rows(weights[:, 9:17], np.arange(9, 17), 20, 5)
        assert first == 2
        assert np.array_equal(small[:, 0], weights[:, 9:12].max(1))
        assert np.array_equal(small[:, 1], weights[:, 12:16].max(1))
        assert np.array_equal(small[:, 2], weights[:, 16])

    @pytest.mark.parametrize("size", [1, 3, 5, 6])
    def test_columns(self, size):
        weights = rows_of_weights(2, 4, 6)
        small = shrink_columns(weights, size)
        for head in range(2):
            assert np.array_equal(small[head], largest_of_patches(weights[head], 4, size))

    def test_compressed_weights_are_wrong_by_at_most_4_thousandths(self):
        weights = np.linspace(0, 1, 100_001, dtype=np.float32)
        back = (np.frombuffer(compress(weights), np.uint8) / 255) ** 2
        assert abs(back - weights).max() <= 0.004
        assert back[0] == 0
        assert back[-1] == 1

    def test_a_weight_above_one_by_rounding_is_one(self):
        assert compress(np.array([1.015, -0.0], np.float32)) == bytes([255, 0])


class TestLayers:
    def test_of_a_capture(self):
        (layer,) = check_layers([record(n_keys=17, kind="cross")])
        assert (layer.name, layer.heads) == ("block.attention", 4)
        assert (layer.n_queries, layer.n_keys, layer.is_self) == (13, 17, False)
        assert check_layers(record())[0].is_self

    @pytest.mark.parametrize("wrap", [list, tuple])
    def test_of_arrays(self, wrap):
        layers = check_layers(wrap([rows_of_weights(2, 3, 5, 5), rows_of_weights(4, 5, 5)]))
        assert [layer.heads for layer in layers] == [3, 4]
        assert all(layer.is_self for layer in layers)
        assert not check_layers([rows_of_weights(3, 5, 6)])[0].is_self

    def test_of_nested_lists(self):
        (layer,) = check_layers([rows_of_weights(2, 3, 5, 5).tolist()], item=1)
        assert np.allclose(layer.rows(slice(None), slice(None)), rows_of_weights(2, 3, 5, 5)[1])

    def test_item_chooses_from_the_batch(self):
        weights = rows_of_weights(3, 2, 5, 5)
        for item in range(3):
            (layer,) = check_layers([weights], np.int64(item))
            assert np.array_equal(layer.rows(slice(None), slice(None)), weights[item])


GOOD = rows_of_weights(2, 3, 5, 5)
BAD = {
    "none": (None, TypeError, r"got None; models with fused attention.*attnviz\.capture"),
    "one array": (GOOD, TypeError, r"one array of shape \(2, 3, 5, 5\): write \[array\]"),
    "one tensor": (torch.ones(1, 1), TypeError, r"one array of shape \(1, 1\)"),
    "a string": ("model", TypeError, "got str"),
    "a number": (3, TypeError, "got int"),
    "a dict": ({0: GOOD}, TypeError, "got dict"),
    "nothing": ([], ValueError, "got none; models with fused attention"),
    "no weights": ((None, None), ValueError, r"got None for a layer; .* use attnviz\.capture"),
    "2-D": ([GOOD, GOOD[0, 0]], ValueError, r"got seen\[1\] with shape \(5, 5\)"),
    "5-D": ([GOOD[None]], ValueError, r"got seen\[0\] with shape \(1, 2, 3, 5, 5\)"),
    "no heads": ([GOOD[:, :0]], ValueError, r"with shape \(2, 0, 5, 5\)"),
    "text in a list": (["ab"], ValueError, r"got seen\[0\] with str"),
    "ragged": ([[[[0.5, 0.5], [1.0]]]], ValueError, r"seen\[0\] must be an array, got lists"),
}


class TestBadInput:
    @pytest.mark.parametrize("kind", BAD)
    def test_what_is_no_attention(self, kind):
        seen, error, message = BAD[kind]
        with pytest.raises(error, match=message):
            check_layers(seen)

    @pytest.mark.parametrize("seen", [[GOOD], record()], ids=["array", "record"])
    @pytest.mark.parametrize("item", [2, -1])
    def test_an_item_that_is_not_there(self, seen, item):
        with pytest.raises(IndexError, match=f"item must be between 0 and 1, got {item}"):
            check_layers(seen, item)

    def test_an_array_without_a_batch_has_one_item(self):
        with pytest.raises(IndexError, match=r"item must be 0 for seen\[0\].*got 1"):
            check_layers([GOOD[0]], 1)

    @pytest.mark.parametrize("item", [True, 1.0, "0", None])
    def test_an_item_that_is_no_number(self, item):
        with pytest.raises(TypeError, match="item must be a whole number, got"):
            check_layers([GOOD], item)

    def test_a_freed_record(self):
        seen = record()
        seen.free()
        with pytest.raises(RuntimeError, match="was freed"):
            check_layers(seen)

    def test_a_record_freed_later(self):
        seen = record()
        (layer,) = check_layers(seen)
        seen.free()
        with pytest.raises(RuntimeError, match="was freed"):
            layer.rows(slice(None), slice(None))

    def test_layers_of_different_sizes(self):
        layers = check_layers([GOOD, rows_of_weights(3, 4, 4)])
        with pytest.raises(ValueError, match=r"seen\[0\] has 5 × 5 and seen\[1\] 4 × 4"):
            check_one_size(layers)
        assert check_one_size(layers[:1]) == (5, 5)

    @pytest.mark.parametrize(
        "sizes",
        [
            [("self", 5, 5), ("cross", 5, 7), ("self", 5, 5)],  # a decoder
            [("self", 5, 5), ("self", 4, 4)],  # two towers
            [("self", 7, 7), ("self", 5, 5), ("cross", 5, 7)],  # an encoder and a decoder
            [("cross", 5, 7), ("cross", 5, 9)],
        ],
    )
    def test_the_records_that_an_error_advises_have_one_size(self, sizes):
        seen = [record(kind=kind, n_queries=n, n_keys=m) for kind, n, m in sizes]
        with pytest.raises(ValueError, match="choose some, such as") as error:
            check_one_size(check_layers(seen))
        chosen = eval(str(error.value).split("such as ")[1], {"seen": seen})
        assert chosen
        check_one_size(check_layers(chosen))

    @pytest.mark.parametrize("view", [av.heads, av.flow, av.overlay])
    def test_layers_of_two_passes_are_no_deeper_model(self, view):
        model = MultiHeadAttention(8, 2)
        with av.capture(model) as seen:
            for _ in range(2):
                model(torch.randn(1, 4, 8))
        about = np.zeros((32, 32)) if view is av.overlay else list("abcd")
        with pytest.raises(ValueError, match=r"2 forward passes \(0 to 1\): choose one") as error:
            view(seen, about)
        chosen = eval(str(error.value).split("such as ")[1], {"seen": seen})
        assert chosen == [seen[0]]
        view(chosen, about)

    def test_records_of_several_captures_go_together(self):
        assert len(check_layers([record(), record()])) == 2

    @pytest.mark.parametrize(
        ("head", "error"), [(3, ValueError), (-1, ValueError), (True, TypeError), (0.0, TypeError)]
    )
    def test_a_head_that_is_not_there(self, head, error):
        (layer,) = check_layers([GOOD])
        with pytest.raises(error, match="head must be"):
            check_head(layer, head)

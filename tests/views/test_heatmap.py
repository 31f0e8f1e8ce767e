"""The heatmap widget's Python side: what it sends, what it refuses, and its selection."""

import base64

import numpy as np
import pytest
import torch

import attnviz as av
from attnviz.seeing import AttentionRecord
from attnviz.views import heatmap as heatmap_module

TOKENS = ["[CLS]", "the", "cat", "[SEP]"]


def uniform(n_queries, n_keys):
    return np.full((n_queries, n_keys), 1 / n_keys)


@pytest.fixture
def view():
    return av.heatmap(uniform(4, 4), TOKENS)


class TestWhatIsSent:
    def test_the_exact_float32_values_row_by_row(self):
        weights = torch.randn(3, 5).softmax(-1)
        view = av.heatmap(weights, list("abc"), list("vwxyz"))
        assert view.cells["values"] == weights.numpy().astype("<f4").tobytes()
        assert np.array_equal(view.weights, weights.numpy())
        assert (view.query_tokens, view.key_tokens) == (list("abc"), list("vwxyz"))

    @pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
    def test_torch_tensors_of_any_kind(self, dtype):
        weights = torch.randn(4, 4).softmax(-1).to(dtype).requires_grad_()
        assert np.allclose(av.heatmap(weights, TOKENS).weights, weights.detach().float())

    def test_nested_lists(self):
        assert av.heatmap([[0.25, 0.75]], ["q"], ["a", "b"]).weights.tolist() == [[0.25, 0.75]]

    def test_a_row_of_zeros_is_a_query_that_may_see_nothing(self):
        assert av.heatmap(np.zeros((4, 4)), TOKENS).weights.max() == 0

    def test_rows_rounded_to_few_digits_still_count_as_one(self):
        assert av.heatmap(np.eye(4) * 1.015, TOKENS).weights.max() == np.float32(1.015)

    def test_title_and_colours(self):
        view = av.heatmap(uniform(4, 4), TOKENS, title="layer 2")
        assert view.title == "layer 2"
        assert len(view.palette) == 3 * 256

    def test_tokens_are_passed_on_as_they_are(self):
        odd = ["<b>", "$x$", "", "猫"]
        assert av.heatmap(uniform(4, 4), odd).key_tokens == odd

    def test_512_tokens_take_one_megabyte(self):
        view = av.heatmap(uniform(512, 512), [str(i) for i in range(512)])
        assert len(view.cells["values"]) == 512 * 512 * 4

    def test_the_saved_notebook_carries_a_picture(self, view):
        data, _ = view._repr_mimebundle_()
        assert base64.b64decode(data["image/png"]).startswith(b"\x89PNG")
        assert data["text/plain"] == "HeatmapView(4 queries × 4 keys)"
        assert "application/vnd.jupyter.widget-view+json" in data

    def test_the_saved_picture_is_of_the_same_matrix(self, monkeypatch):
        drawn = []
        whole = heatmap_module.heatmap_figure
        monkeypatch.setattr(
            heatmap_module, "heatmap_figure", lambda *a: drawn.append(a) or whole(*a)
        )
        av.heatmap([[0.25, 0.75]], ["q"], ["a", "b"], title="t")._repr_mimebundle_()
        weights, *labels = drawn[0]
        assert weights.tolist() == [[0.25, 0.75]]
        assert labels == [["q"], ["a", "b"], "t", ""]

    @pytest.mark.slow
    @pytest.mark.parametrize("token", ["猫", "x" * 300, "\ud800", ""])
    def test_no_token_spoils_the_saved_picture(self, token, recwarn):
        data, _ = av.heatmap(uniform(4, 4), [token] * 4)._repr_mimebundle_()
        assert base64.b64decode(data["image/png"]).startswith(b"\x89PNG")
        assert not recwarn.list

    def test_the_browser_side_needs_no_network(self, view):
        assert "http" not in view._esm
        assert "http" not in view._css


class TestUpdate:
    def test_another_matrix_in_the_same_place(self, view):
        view.update([[0.5, 0.5]], ["q"], ["a", "b"])
        assert view.weights.tolist() == [[0.5, 0.5]]
        assert view.key_tokens == ["a", "b"]

    def test_a_selection_that_still_fits_stays(self, view):
        view.selection = {"query": 2, "key": 1}
        view.update(uniform(3, 3), TOKENS[:3])
        assert (view.selection["query"], view.selection["key"]) == (2, 1)

    def test_a_selection_that_no_longer_fits_is_given_up(self, view):
        view.selection = {"layer": 5, "query": 3, "key": 1}
        view.update(uniform(3, 3), TOKENS[:3])
        assert view.selection == {"layer": 5, "head": None, "query": None, "key": None}

    def test_a_bad_matrix_changes_nothing(self, view):
        before = view.cells
        with pytest.raises(ValueError, match="sum to 1"):
            view.update(np.ones((3, 3)), TOKENS[:3])
        assert view.cells == before
        assert view.query_tokens == TOKENS


class TestSelection:
    def test_nothing_is_selected_at_first(self, view):
        assert view.selection == {"layer": None, "head": None, "query": None, "key": None}

    def test_numbers_of_numpy_become_plain_ones(self, view):
        view.selection = {"query": np.int64(2)}
        assert type(view.selection["query"]) is int

    def test_listeners_hear_of_it(self, view):
        heard = []
        view.observe(lambda change: heard.append(change["new"]["query"]), "selection")
        view.selection = {"query": np.int64(2)}
        assert heard == [2]

    @pytest.mark.parametrize(
        ("selection", "error", "message"),
        [
            ({"query": 4}, ValueError, r"selection\['query'\] must be between 0 and 3, got 4"),
            ({"key": -1}, ValueError, "between 0 and 3, got -1"),
            ({"layer": -1}, ValueError, r"selection\['layer'\] must be at least 0, got -1"),
            ({"query": 1.5}, TypeError, r"whole number or None, got 1\.5"),
            ({"query": True}, TypeError, "got True"),
            ({"row": 1, 2: 2}, ValueError, r"selection has \[2, 'row'\]"),
            ({"row": 1}, ValueError, r"selection has \['row'\], expected"),
        ],
    )
    def test_what_cannot_be_selected(self, view, selection, error, message):
        with pytest.raises(error, match=message):
            view.selection = selection
        assert view.selection["query"] is None


def a_record(heads=3, n=6, n_keys=None, batch=2):
    torch.manual_seed(0)
    query, key = torch.randn(batch, heads, n, 4), torch.randn(batch, heads, n_keys or n, 4)
    return AttentionRecord(0, 0, "block.attention", "self", query=query, key=key)


def names(n):
    return [f"t{i}" for i in range(n)]


def largest_of_patches(matrix, rows, columns):
    """The largest weight of each patch; patches begin at floor(n · i / parts)."""
    for axis, parts in [(0, rows), (1, columns)]:
        starts = np.arange(parts) * matrix.shape[axis] // parts
        matrix = np.maximum.reduceat(matrix, starts, axis=axis)
    return matrix


class TestOfARecord:
    @pytest.mark.parametrize("item", [0, 1])
    @pytest.mark.parametrize("head", [0, 2, np.int64(1)])
    def test_one_head_of_one_item(self, head, item):
        seen = a_record()
        view = av.heatmap(seen, names(6), head=head, item=item)
        wanted = seen.weights[item, head].numpy()
        assert np.allclose(view.weights, wanted, atol=1e-6)
        assert np.allclose(np.frombuffer(view.cells["values"], "<f4"), wanted.ravel(), atol=1e-6)

    def test_the_only_head_need_not_be_chosen(self):
        assert av.heatmap(a_record(heads=1), names(6)).weights.shape == (6, 6)

    def test_cross_attention(self):
        view = av.heatmap(a_record(n_keys=4), names(6), list("abcd"), head=1)
        assert (view.cells["rows"], view.cells["columns"]) == (6, 4)

    def test_update_shows_another_head(self):
        seen = a_record()
        view = av.heatmap(seen, names(6), head=0)
        view.update(seen, names(6), head=2, item=1)
        assert np.allclose(view.weights, seen.weights[1, 2], atol=1e-6)

    @pytest.mark.parametrize(
        ("which", "error", "message"),
        [
            ({}, ValueError, "this record has 3 heads: choose one with head=0"),
            ({"head": 3}, ValueError, "head must be between 0 and 2, got 3"),
            ({"head": -1}, ValueError, "head must be between 0 and 2, got -1"),
            ({"head": "1"}, TypeError, "head must be a whole number, got '1'"),
            ({"head": 1, "item": 2}, IndexError, "item must be between 0 and 1, got 2"),
            ({"head": 1, "item": 0.5}, TypeError, r"item must be a whole number, got 0\.5"),
        ],
    )
    def test_heads_and_items_that_are_not_there(self, which, error, message):
        with pytest.raises(error, match=message):
            av.heatmap(a_record(), names(6), **which)

    @pytest.mark.parametrize("which", [{"head": 0}, {"item": 1}])
    def test_a_matrix_has_neither(self, which):
        with pytest.raises(ValueError, match="belong to a captured record"):
            av.heatmap(uniform(4, 4), TOKENS, **which)

    def test_queries_that_are_nan(self):
        seen = a_record()
        seen.query[0, 1, 3] = torch.nan
        with pytest.raises(ValueError, match=r"weights must be finite.*head 1 of block\.attention"):
            av.heatmap(seen, names(6), head=1)

    def test_a_freed_record(self):
        seen = a_record(n=600)
        view = av.heatmap(seen, names(600), head=0)
        seen.free()
        with pytest.raises(RuntimeError, match="was freed"):
            view._answer({"row": 0})
        assert view.figure().axes  # what was sent is still there
        with pytest.raises(RuntimeError, match="was freed"):
            view.update(seen, names(600), head=0)


@pytest.fixture(scope="module", params=["matrix", "record"])
def long(request):
    """A view of 700 × 900 weights, and the weights."""
    seen = a_record(heads=1, n=700, n_keys=900, batch=1)
    weights = seen.weights[0, 0].numpy()
    given = seen if request.param == "record" else weights
    return av.heatmap(given, names(700), names(900)), weights


class TestLongTexts:
    """Above 512 queries or keys the page gets the largest of each patch, and asks for more."""

    @pytest.mark.parametrize(
        ("n", "n_keys"), [(513, 513), (1024, 1024), (700, 900), (3, 5000), (5000, 3), (512, 513)]
    )
    def test_at_most_512_cells_a_side(self, n, n_keys):
        weights = np.random.default_rng(0).random((n, n_keys), np.float32)
        weights /= weights.sum(1, keepdims=True)
        view = av.heatmap(weights, names(n), names(n_keys))
        rows, columns = min(n, 512), min(n_keys, 512)
        assert (view.cells["rows"], view.cells["columns"]) == (rows, columns)
        assert len(view.cells["values"]) == 4 * rows * columns
        cells = np.frombuffer(view.cells["values"], "<f4").reshape(rows, columns)
        assert np.array_equal(cells, largest_of_patches(weights, rows, columns))
        assert np.array_equal(view.weights, weights)

    @pytest.mark.parametrize(
        "window", [(0, 700, 0, 900), (0, 300, 0, 300), (123, 700, 77, 589), (5, 6, 899, 900)]
    )
    def test_a_closer_look(self, long, window):
        view, weights = long
        answer, (cells, largest) = view._answer({"window": list(window)})
        part = weights[window[0] : window[1], window[2] : window[3]]
        rows, columns = (min(n, 512) for n in part.shape)
        assert answer == {"rows": rows, "columns": columns}
        cells = np.frombuffer(cells, "<f4").reshape(rows, columns)
        assert np.allclose(cells, largest_of_patches(part, rows, columns), atol=1e-6)
        of_all = largest_of_patches(weights[window[0] : window[1]], rows, 1)[:, 0]
        assert np.allclose(np.frombuffer(largest, "<f4"), of_all, atol=1e-6)

    @pytest.mark.parametrize("query", [0, 350, 699])
    def test_a_row(self, long, query):
        view, weights = long
        answer, [row] = view._answer({"row": query})
        assert answer == {}
        assert np.allclose(np.frombuffer(row, "<f4"), weights[query], atol=1e-6)

    @pytest.mark.parametrize(
        ("question", "message"),
        [
            ({"row": 700}, "row must be between 0 and 699, got 700"),
            ({"row": -1}, "got -1"),
            ({"window": [0, 701, 0, 9]}, "window must lie within 700 queries × 900 keys, got"),
            ({"window": [-1, 9, 0, 9]}, "window must lie within"),
            ({"window": [9, 9, 0, 9]}, "window must lie within"),
            ({"window": [0, 9, 0, 901]}, "window must lie within"),
            ({"window": [0, 9, 5, 4]}, "window must lie within"),
            ({}, "this view has no answer to {}"),
        ],
    )
    def test_what_is_not_there(self, long, question, message):
        with pytest.raises(ValueError, match=message):
            long[0]._answer(question)

    def test_a_window_of_too_many_weights_is_refused_but_one_row_never(self, monkeypatch, long):
        view, weights = long
        monkeypatch.setattr(heatmap_module, "REACH", 10 * 900)
        assert view._answer({"window": [0, 10, 0, 900]})[0]["rows"] == 10
        with pytest.raises(ValueError, match="11 queries are too many for a closer look: zoom in"):
            view._answer({"window": [0, 11, 0, 5]})  # the softmax needs all the keys
        monkeypatch.setattr(heatmap_module, "REACH", 100)
        _, (cells, _) = view._answer({"window": [3, 4, 0, 9]})
        assert np.allclose(np.frombuffer(cells, "<f4"), weights[3, :9], atol=1e-6)

    @pytest.mark.slow
    def test_a_record_of_8192_tokens_sends_no_more(self):
        view = av.heatmap(a_record(heads=1, n=8192, batch=1), names(8192))
        assert len(view.cells["values"]) == 4 * 512 * 512
        assert repr(view) == "HeatmapView(8192 queries × 8192 keys)"

    @pytest.mark.slow
    def test_the_figure_has_labels_for_all_and_cells_for_patches(self, long):
        view, weights = long
        image = view.figure().axes[0].images[0]
        assert image.get_array().shape == (512, 512)
        assert image.get_extent() == [-0.5, 899.5, 699.5, -0.5]
        assert image.get_clim()[1] == pytest.approx(weights.max())


class TestColours:
    @pytest.mark.parametrize("scale", ["linear", "log", "row"])
    def test_three_scales(self, view, scale):
        view.scale = scale
        assert view.scale == scale

    def test_no_other_scale(self, view):
        with pytest.raises(Exception, match=r"'scale'.*'linear', 'log', 'row'.*'logarithmic'"):
            view.scale = "logarithmic"
        assert view.scale == "linear"

    @pytest.mark.parametrize("threshold", [0, 0.5, 1])
    def test_a_threshold_is_a_weight(self, view, threshold):
        view.threshold = threshold
        assert view.threshold == threshold

    @pytest.mark.parametrize("threshold", [-0.1, 1.5, float("nan")])
    def test_what_is_no_weight_is_no_threshold(self, view, threshold):
        with pytest.raises(ValueError, match=f"threshold must be between 0 and 1, got {threshold}"):
            view.threshold = threshold
        assert view.threshold == 0


BAD = {
    "three dimensions": (
        uniform(4, 4)[None],
        ValueError,
        r"got shape \(1, 4, 4\).*weights\[0, 5\]",
    ),
    "one dimension": (uniform(4, 4)[0], ValueError, r"n_keys\), got shape \(4,\)"),
    "empty": (np.zeros((0, 4)), ValueError, r"got shape \(0, 4\)"),
    "nan": (np.where(np.eye(4), np.nan, 0.25), ValueError, r"finite, got nan at \[0, 0\]"),
    "infinite": (np.where(np.eye(4), np.inf, 0.25), ValueError, r"finite, got inf at \[0, 0\]"),
    "negative": (np.eye(4) * 2 - uniform(4, 4), ValueError, r"got -0\.25 at \[0, 1\].*softmax"),
    "rows do not sum to one": (
        np.eye(4) * [1, 1, 1.7, 1],
        ValueError,
        r"row 2 sums to 1\.7 \(1 of",
    ),
    "sums beyond any number": (np.full((4, 4), 1e308), ValueError, "row 0 sums to inf"),
    "one beyond and one below": (np.tile([1e308, 1e308, -1e308], (3, 1)), ValueError, "negative"),
    "columns sum to one": (np.eye(4)[[0, 0, 1, 2]].T, ValueError, "row 0 sums to 2"),
    "text": ([["a"] * 4] * 4, TypeError, "weights must be real numbers, got .*U1"),
    "ragged": ([[0.5, 0.5], [1.0]], TypeError, "weights must be a matrix of numbers"),
    "complex tensor": (torch.eye(4) * 1j, TypeError, r"real numbers.*complex64"),
    "masked array": (np.ma.masked_less(np.eye(4), 0.5), TypeError, "must not be a masked array"),
    "hardly negative": (np.eye(4) + np.eye(4)[[1, 0, 2, 3]] * -0.001, ValueError, "negative"),
    "row a little off": (np.eye(4) * 1.03, ValueError, r"row 0 sums to 1\.03"),
    "complex": (uniform(4, 4) * 1j, TypeError, "complex128"),
}


@pytest.mark.parametrize("draw", [av.heatmap, av.plot_heatmap])
class TestBadInput:
    @pytest.mark.parametrize("kind", BAD)
    def test_what_is_no_attention_matrix(self, draw, kind):
        weights, error, message = BAD[kind]
        with pytest.raises(error, match=message):
            draw(weights, TOKENS)

    @pytest.mark.parametrize(
        ("labels", "error", "message"),
        [
            ((TOKENS[:3],), ValueError, "tokens must have one label for each of the 4.*got 3"),
            ((TOKENS, TOKENS[:3]), ValueError, "key_tokens must have.*4.*got 3"),
            (("four",), TypeError, "tokens must be a list of strings.*got str"),
            ((["a", "b", 3, "d"],), TypeError, "tokens must be a list of strings.*got one with 3"),
            ((None,), TypeError, "tokens must be a list of strings.*got NoneType"),
            ((set("abcd"),), TypeError, "got set"),
            ((TOKENS, {}), TypeError, "key_tokens must be a list of strings.*got dict"),
        ],
    )
    def test_labels_that_do_not_fit(self, draw, labels, error, message):
        with pytest.raises(error, match=message):
            draw(uniform(4, 4), *labels)

    def test_cross_attention_needs_labels_for_the_keys(self, draw):
        with pytest.raises(ValueError, match=r"shape \(4, 6\).*give key_tokens"):
            draw(uniform(4, 6), TOKENS)

"""The view of all heads, Python's side: what it sends and how much, what it answers and refuses."""

import json
from itertools import count, pairwise

import numpy as np
import pytest
import torch

from attnviz.seeing import AttentionRecord
from attnviz.views.heads import HeadsView, heads
from attnviz.views.measures import measures
from attnviz.views.thumbnails import BYTES, SAMPLED, SIDE

TOKENS = ["[CLS]", "the", "cat", "sat", "[SEP]"]
MEASURES = [
    *("previous token", "first token", "[SEP]", "itself", "entropy (bits)", "distance (tokens)"),
]


def dirichlet(*shape, seed=0):
    """Random weights in float32, rows summing to one; the last number is that of the keys."""
    *rows, n_keys = shape
    return np.random.default_rng(seed).dirichlet(np.ones(n_keys), rows).astype("<f4")


def names(n):
    return [f"t{i}" for i in range(n)]


def records(n_layers, n_heads, n, batch=1, n_keys=None, kind="self", size=0.1):
    """Captured layers of random queries and keys: of a small size, so that weights are even."""
    torch.manual_seed(0)

    def random(tokens):
        return size * torch.randn(batch, n_heads, tokens, 4)

    return [
        AttentionRecord(i, 0, f"layer.{i}", kind, query=random(n), key=random(n_keys or n))
        for i in range(n_layers)
    ]


def link(record, head, query, key, item=0):
    """Let a query of a head attend to one key with almost all its weight, and no other query so."""
    direction = torch.tensor([1.0, 0.0, 0.0, 0.0])
    record.key[item, head, :, 0] = 0
    record.key[item, head, key] = 50 * direction
    record.query[item, head, :, 0] = 0
    record.query[item, head, query] = direction


@pytest.fixture
def ask(monkeypatch):
    """A function that asks a view as a page does, and returns its answer and its bytes."""
    numbers = count()

    def ask(view, question):
        said = []
        monkeypatch.setattr(
            view, "send", lambda content, buffers=(): said.append((content, buffers))
        )
        number = next(numbers)
        view._handle_custom_msg(
            {"number": number, "question": json.loads(json.dumps(question))}, []
        )
        [(content, buffers)] = said
        assert content.pop("number") == number
        if "error" in content:
            raise RuntimeError(content["error"])
        return content["answer"], [bytes(b) for b in buffers]

    return ask


def thumbnails(view):
    """The thumbnails as the page draws them: (all heads, row, column)."""
    sent = view.thumbnails
    assert not sent["exact"]
    roots = np.frombuffer(sent["values"], np.uint8).reshape(-1, sent["rows"], sent["columns"])
    return (roots / 255) ** 2


def largest_of_patches(weights, rows, columns):
    """(head, query, key) → (head, row, column)"""
    for axis, parts in [(1, rows), (2, columns)]:
        n = weights.shape[axis]
        cut = [n * i // parts for i in range(parts + 1)]
        patches = [weights.take(range(a, b), axis).max(axis) for a, b in pairwise(cut)]
        weights = np.stack(patches, axis)
    return weights


def bytes_of(value):
    if isinstance(value, bytes):
        return len(value)
    if isinstance(value, dict):
        return sum(map(bytes_of, value.values()))
    if isinstance(value, list):
        return sum(map(bytes_of, value))
    return len(json.dumps(value))


@pytest.fixture(scope="module")
def weights():
    return [dirichlet(2, 3, 5, 5, seed=i) for i in range(4)]  # 4 layers, 2 items, 3 heads


@pytest.fixture
def view(weights):
    return heads(weights, TOKENS, title="all of them")


class TestWhatIsSent:
    def test_labels_and_sizes(self, view):
        assert view.query_tokens == view.key_tokens == TOKENS
        assert view.heads == [3, 3, 3, 3]
        assert view.names == ["", "", "", ""]
        assert view.title == "all of them"
        assert (view.order, view.sampled, view.measured_on) == ("layer and head", 1, 5)

    def test_short_texts_are_in_the_thumbnails_as_they_are(self, view, weights):
        wanted = np.concatenate([layer[0] for layer in weights])
        assert abs(thumbnails(view) - wanted).max() <= 0.004

    def test_the_first_head_is_open_and_exact(self, view, weights):
        assert view.selection == {"layer": 0, "head": 0, "query": None, "key": None}
        assert (view.cells["rows"], view.cells["columns"], view.cells["exact"]) == (5, 5, True)
        assert view.cells["values"] == weights[0][0, 0].tobytes()

    def test_captured_layers_have_names(self):
        assert heads(records(2, 3, 4), names(4)).names == ["layer.0", "layer.1"]

    @pytest.mark.parametrize("n", [SIDE - 1, SIDE, SIDE + 1, 100, 127, 130])
    def test_long_texts_keep_the_largest_of_each_patch(self, n):
        weights = dirichlet(2, n, n)
        side = min(n, SIDE)
        wanted = largest_of_patches(weights, side, side)
        assert abs(thumbnails(heads([weights], names(n))) - wanted).max() <= 0.004

    @pytest.mark.slow
    @pytest.mark.parametrize(
        ("n_layers", "n_heads", "n", "side"),
        [
            (2, 4, 16, 16),
            (6, 12, 64, SIDE),
            (12, 12, 128, SIDE),
            (12, 12, 512, SIDE),
            (12, 12, 2048, SAMPLED),
            (32, 32, 128, 18),
            (32, 32, 512, 18),
        ],
    )
    def test_no_more_than_two_megabytes_at_first(self, n_layers, n_heads, n, side):
        view = heads(records(n_layers, n_heads, n), names(n))
        state = view.get_state()
        assert len(state["thumbnails"]["values"]) == n_layers * n_heads * side * side <= BYTES
        assert bytes_of(state["cells"]) <= 4 * 512 * 512 + 50
        assert bytes_of(state["measured"]) <= 6 * 4 * n_layers * n_heads + 100
        assert bytes_of(state) < 2_000_000
        assert view.sampled == (1 if n_layers * n_heads * n * n <= 2**26 else n // side)
        assert bool(view.cells) == (n <= 512)

    def test_the_saved_notebook_carries_a_picture(self, view):
        data, _ = view._repr_mimebundle_()
        assert {"image/png", "application/vnd.jupyter.widget-view+json"} <= data.keys()
        assert data["text/plain"] == repr(view)

    def test_layers_may_have_other_numbers_of_heads(self, weights):
        view = heads([weights[0], weights[1][:, :1]], TOKENS)
        assert view.heads == [3, 1]
        wanted = np.concatenate([weights[0][0], weights[1][0, :1]])
        assert abs(thumbnails(view) - wanted).max() <= 0.004

    @pytest.mark.parametrize("item", [0, 1])
    def test_item_chooses_from_the_batch(self, weights, item):
        wanted = np.concatenate([layer[item] for layer in weights])
        assert abs(thumbnails(heads(weights, TOKENS, item=item)) - wanted).max() <= 0.004
        seen = records(2, 3, 4, batch=2)
        wanted = torch.cat([record.weights[item] for record in seen]).numpy()
        assert abs(thumbnails(heads(seen, names(4), item=item)) - wanted).max() <= 0.004


@pytest.fixture(scope="module")
def long():
    """72 million weights: more than are read at once. The link is at a query not looked at."""
    (record,) = records(1, 2, 6000, size=1.3)
    record.query[:, 1], record.key[:, 1] = 0.1 * record.query[:, 1], 0.1 * record.key[:, 1]
    link(record, 1, 1000, 4321)
    return record


class TestOneStrongLink:
    """It must not vanish among the few cells of a thumbnail, however long the text is."""

    @pytest.mark.parametrize(("query", "key"), [(0, 299), (150, 7), (299, 0), (133, 133)])
    def test_it_is_there_at_once_where_all_is_read(self, query, key):
        seen = records(2, 3, 300)
        link(seen[1], 2, query, key)
        strong = np.argwhere(thumbnails(heads(seen, names(300))) > 0.5)
        assert strong.tolist() == [[5, query * SIDE // 300, key * SIDE // 300]]

    @pytest.mark.slow
    def test_it_is_there_once_the_rest_was_read(self, long, ask):
        view = heads(long, names(6000))
        step, before = view.sampled, thumbnails(view)
        assert step == 6000 // SAMPLED
        assert before[1].max() < 0.1
        pieces, data = [], []
        for _ in range(100):
            answer, buffers = ask(view, {"refine": True})
            pieces.append(answer)
            data += buffers
            if answer["done"]:
                break
            assert answer["left"] > 0
        assert view.sampled == 1
        after = thumbnails(view)
        strong = np.argwhere(after[1] > 0.5)
        assert strong.tolist() == [[1000 * SAMPLED // 6000, 4321 * SAMPLED // 6000]]
        assert (after >= before).all()
        wanted = largest_of_patches(long.weights[0].numpy(), SAMPLED, SAMPLED)
        assert abs(255 * np.sqrt(after) - 255 * np.sqrt(wanted)).max() < 0.51  # to the last byte
        self.check_pieces(pieces, data, after)
        assert ask(view, {"refine": True}) == ({"done": True}, [])

    def check_pieces(self, pieces, data, whole):
        """Each row of each thumbnail came once, and what came is what is there in the end."""
        came = np.zeros(whole.shape[:2], int)
        assert len(pieces) == len(data) > 2
        assert [p["left"] for p in pieces] == list(range(len(pieces)))[::-1]
        for p, roots in zip(pieces, data, strict=True):
            here = slice(p["start"], p["start"] + p["heads"]), slice(p["first"], p["end"])
            came[here] += 1
            part = (np.frombuffer(roots, np.uint8) / 255) ** 2
            assert np.array_equal(whole[here], part.reshape(p["heads"], -1, whole.shape[2]))
        assert (came == 1).all()

    @pytest.mark.slow
    def test_a_saved_page_has_read_the_rest(self, long, tmp_path):
        view = heads(long, names(6000))
        view.save(tmp_path / "view.html")
        assert view.sampled == 1
        assert thumbnails(view).max() > 0.9
        assert (tmp_path / "view.html").stat().st_size < 3_000_000

    def test_the_figure_shows_it(self):
        seen = records(2, 3, 300)
        link(seen[0], 1, 17, 200)
        image = heads(seen, names(300)).figure().axes[0].images[0].get_array()
        assert np.nanmax(image) > 0.9

    @pytest.mark.slow
    def test_what_could_not_be_read_is_read_later(self, ask):
        seen = records(2, 2, 4200)
        view = heads(seen, names(4200))
        sound = seen[0].query.clone()
        seen[0].query[0, 0, 2] = torch.nan
        for _ in range(2):
            with pytest.raises(RuntimeError, match="finite"):
                ask(view, {"refine": True})
        seen[0].query.copy_(sound)
        while not ask(view, {"refine": True})[0]["done"]:
            pass
        wanted = np.concatenate(
            [largest_of_patches(r.weights[0].numpy(), SAMPLED, SAMPLED) for r in seen]
        )
        assert abs(thumbnails(view) - wanted).max() <= 0.004


class TestMeasures:
    def test_one_array_for_each_layer(self, view, weights):
        assert list(view.measures) == MEASURES
        for layer, given in enumerate(weights):
            wanted = measures(given[0], np.arange(5), TOKENS, same=True)
            for name in MEASURES:
                assert np.array_equal(view.measures[name][layer], wanted[name])

    def test_other_keys_than_queries_have_no_positions(self, weights):
        for view in (
            heads(weights, TOKENS, list("vwxyz")),
            heads(records(1, 2, 3, n_keys=5, kind="cross"), names(3), TOKENS),
            heads(records(1, 2, 5) + records(1, 2, 5, kind="cross"), TOKENS),
        ):
            assert not {"itself", "previous token", "distance (tokens)"} & view.measures.keys()

    @pytest.mark.parametrize("n", [1024, 2048])
    def test_of_long_texts_some_queries_are_measured(self, n):
        seen = records(12, 12, n)
        seen[3].key[0, 4, 0] = 0  # attends to the first token, from all queries
        seen[3].key[0, 4, 0, 0] = 1000
        seen[3].query[0, 4, :, 0] = 1
        view = heads(seen, names(n))
        assert 32 <= view.measured_on < n
        assert view.measures["first token"][3][4] > 0.9
        # even weights: log2 n bits, which a sample of the queries tells as well
        assert view.measures["entropy (bits)"][0] == pytest.approx([np.log2(n)] * 12, abs=0.1)


class TestAnOpenHead:
    @pytest.mark.parametrize("place", [(0, 0), (3, 2), (1, 1)])
    def test_it_is_exact(self, view, weights, ask, place):
        answer, [values] = ask(view, {"open": place})
        assert answer == {"rows": 5, "columns": 5, "exact": True}
        assert values == weights[place[0]][0, place[1]].tobytes()

    def test_of_a_long_text_it_is_the_largest_of_512_patches(self, ask):
        seen = records(2, 2, 1100)
        link(seen[1], 1, 700, 800)
        answer, [values] = ask(heads(seen, names(1100)), {"open": [1, 1]})
        assert answer == {"rows": 512, "columns": 512, "exact": True}
        cells = np.frombuffer(values, "<f4").reshape(512, 512)
        wanted = largest_of_patches(seen[1].weights[0, 1:].numpy(), 512, 512)[0]
        assert np.allclose(cells, wanted, atol=1e-6)

    @pytest.mark.slow
    @pytest.mark.parametrize("n", [1100, 1536])
    def test_of_a_very_long_one_it_is_a_sample_first(self, ask, monkeypatch, n):
        monkeypatch.setattr("attnviz.views.heads.REACH", 2**20)
        seen = records(2, 2, n, size=1)
        view, weights = heads(seen, names(n)), seen[1].weights[0, 1:].numpy()
        answer, [values] = ask(view, {"open": [1, 1]})
        step = n // 512
        assert answer == {"rows": 256, "columns": 256, "exact": False, "sampled": step}
        kept = np.zeros_like(weights)
        kept[:, step // 2 :: step] = weights[:, step // 2 :: step]
        wanted = largest_of_patches(kept, 256, 256)[0]
        assert wanted.max(1).min() > 0  # each row of patches has a query of its own
        cells = (np.frombuffer(values, np.uint8).reshape(256, 256) / 255) ** 2
        assert abs(cells - wanted).max() <= 0.004
        answer, [values] = ask(view, {"open": [1, 1], "whole": True})
        assert answer == {"rows": 512, "columns": 512, "exact": True}
        wanted = largest_of_patches(weights, 512, 512)[0]
        assert np.allclose(np.frombuffer(values, "<f4").reshape(512, 512), wanted, atol=1e-6)

    def test_a_closer_look_is_of_the_head_that_is_asked_for(self, ask):
        seen = records(2, 2, 1100)
        view = heads(seen, names(1100))
        wanted = seen[1].weights[0, 1].numpy()
        answer, [cells, largest] = ask(view, {"window": [100, 400, 600, 1100], "of": [1, 1]})
        assert answer == {"rows": 300, "columns": 500}
        cells = np.frombuffer(cells, "<f4").reshape(300, 500)
        assert np.allclose(cells, wanted[100:400, 600:1100], atol=1e-6)
        assert np.allclose(np.frombuffer(largest, "<f4"), wanted[100:400].max(1), atol=1e-6)
        _, [row] = ask(view, {"row": 1099, "of": [1, 1]})
        assert np.allclose(np.frombuffer(row, "<f4"), wanted[1099], atol=1e-6)

    @pytest.mark.parametrize(
        "question",
        [{"open": [0, 1]}, {"row": 3, "of": [0, 1]}, {"window": [0, 3, 0, 3], "of": [0, 1]}],
    )
    def test_a_freed_record_is_an_error_in_words(self, ask, question):
        seen = records(2, 2, 6)
        view = heads(seen, names(6))
        seen[0].free()
        with pytest.raises(RuntimeError, match=r"attention 0 \(layer\.0\) was freed: capture it"):
            ask(view, question)
        assert ask(view, {"open": [1, 1]})[0]["rows"] == 6  # the other layer is still there
        assert view.figure().axes

    @pytest.mark.parametrize("question", [{"open": [9, 0]}, {"open": [0, 9]}, {}, {"of": [0, 0]}])
    def test_what_cannot_be_answered_is_an_error_too(self, view, ask, question):
        with pytest.raises(RuntimeError, match=r"."):
            ask(view, question)

    def test_a_saved_page_answers_for_every_head(self, view, weights):
        for question, (answer, [values]) in view._page_answers():
            layer, head = question["open"]
            assert answer["exact"]
            assert values == weights[layer][0, head].tobytes()

    @pytest.mark.slow
    def test_a_saved_page_of_many_heads_holds_at_most_40_megabytes(self):
        view = heads(records(12, 12, 600), names(600))
        size, sides = 0, set()
        for _, (answer, [values]) in view._page_answers():
            size += len(values)
            sides.add((answer["rows"], answer["columns"], answer["exact"]))
        assert size <= 40_000_000
        assert sides == {(512, 512, False)}


class TestWhereWeightsComeFrom:
    def test_arrays_records_and_what_transformers_returns_are_alike(self, ask):
        from transformers import BertConfig, BertModel

        import attnviz as av

        torch.manual_seed(0)
        small = {"hidden_size": 32, "intermediate_size": 32, "num_attention_heads": 4}
        config = BertConfig(
            vocab_size=50, num_hidden_layers=3, attn_implementation="eager", **small
        )
        model = BertModel(config).eval()
        ids = torch.randint(50, (2, 7))
        with torch.no_grad(), av.capture(model) as seen:
            attentions = model(ids, output_attentions=True).attentions
        given = [seen, list(seen), attentions, [one.numpy() for one in attentions]]
        views = [heads(one, names(7), item=1) for one in given]
        for view in views[1:]:
            assert view.heads == [4, 4, 4]
            assert np.abs(thumbnails(view) - thumbnails(views[0])).max() <= 0.005
            for name, values in view.measures.items():
                assert np.allclose(values, views[0].measures[name], atol=1e-5)
            (_, [one]), (_, [other]) = (ask(v, {"open": [2, 3]}) for v in (view, views[0]))
            assert np.allclose(np.frombuffer(one, "<f4"), np.frombuffer(other, "<f4"), atol=1e-6)
        assert views[0].names == [record.path for record in seen]

    def test_a_single_record(self):
        (record,) = records(1, 3, 6)
        assert heads(record, names(6)).heads == [3]

    def test_grouped_queries(self, ask):
        (record,) = records(1, 6, 8)
        record.key = record.key[:, :2]
        _, [values] = ask(heads(record, names(8)), {"open": [0, 5]})
        assert np.allclose(np.frombuffer(values, "<f4"), record.weights[0, 5].flatten(), atol=1e-6)


class TestOrderAndSelection:
    @pytest.mark.parametrize("order", ["layer and head", *MEASURES])
    def test_any_measure_is_an_order(self, view, order):
        view.order = order
        assert view.order == order

    @pytest.mark.parametrize("order", ["entropy", "", "head"])
    def test_nothing_else_is(self, view, order):
        with pytest.raises(ValueError, match=rf"order must be one of \[.*'itself'.*got '{order}'"):
            view.order = order
        assert view.order == "layer and head"

    def test_a_measure_that_was_not_taken_is_no_order(self, weights):
        view = heads(weights, names(5))  # without [SEP]
        with pytest.raises(ValueError, match=r"order must be one of .*got '\[SEP\]'"):
            view.order = "[SEP]"

    @pytest.mark.parametrize("threshold", [-0.01, 1.01, float("nan"), float("inf")])
    def test_a_threshold_is_a_weight(self, view, threshold):
        with pytest.raises(ValueError, match="threshold must be between 0 and 1, got"):
            view.threshold = threshold
        assert view.threshold == 0

    def test_a_scale_is_one_of_three(self, view):
        with pytest.raises(Exception, match=r"'scale'.*'linear', 'log', 'row'"):
            view.scale = "square"

    def test_a_head_is_opened_from_python(self, view):
        view.selection = {"layer": np.int64(3), "head": 2, "query": 1}
        assert view.selection == {"layer": 3, "head": 2, "query": 1, "key": None}

    @pytest.mark.parametrize(
        ("selection", "message"),
        [
            ({"layer": 4}, r"selection\['layer'\] must be between 0 and 3, got 4"),
            ({"head": 3}, r"selection\['head'\] must be between 0 and 2, got 3"),
            ({"layer": 1, "head": 1}, r"selection\['head'\] must be between 0 and 0, got 1"),
            ({"query": 5}, r"selection\['query'\] must be between 0 and 4, got 5"),
            ({"key": -1}, r"selection\['key'\] must be between 0 and 4, got -1"),
        ],
    )
    def test_what_cannot_be_selected(self, weights, selection, message):
        view = heads([weights[0], weights[1][:, :1], *weights[2:]], TOKENS)
        before = view.selection
        with pytest.raises(ValueError, match=message):
            view.selection = selection
        assert view.selection == before


class TestBadInput:
    @pytest.mark.parametrize(
        ("seen", "error", "message"),
        [
            (None, TypeError, r"got None; .*use attnviz\.capture"),
            (dirichlet(2, 5, 5), TypeError, r"got one array of shape \(2, 5, 5\): write \[array\]"),
            ([], ValueError, "got none"),
            ([dirichlet(5, 5)], ValueError, r"seen\[0\] with shape \(5, 5\)"),
            ([dirichlet(2, 5, 5), dirichlet(2, 4, 4)], ValueError, r"seen\[1\] 4 × 4: choose some"),
            ([np.ones((1, 5, 5))], ValueError, r"sum to 1.*\(head 0 of a layer\)"),
            ([np.full((1, 5, 5), np.nan)], ValueError, "weights must be finite, got nan"),
        ],
    )
    def test_what_is_no_attention(self, seen, error, message):
        with pytest.raises(error, match=message):
            heads(seen, TOKENS)

    @pytest.mark.parametrize(
        ("labels", "error", "message"),
        [
            ((TOKENS[:4],), ValueError, "tokens must have one label for each of the 5.*got 4"),
            ((TOKENS, TOKENS[:4]), ValueError, "key_tokens must have"),
            (("abcde",), TypeError, "tokens must be a list of strings"),
            (([1, 2, 3, 4, 5],), TypeError, "got one with 1"),
        ],
    )
    def test_labels_that_do_not_fit(self, weights, labels, error, message):
        with pytest.raises(error, match=message):
            heads(weights, *labels)

    def test_cross_attention_needs_labels_for_the_keys(self):
        with pytest.raises(ValueError, match="give key_tokens"):
            heads([dirichlet(2, 4, 5)], TOKENS[:4])

    @pytest.mark.parametrize(
        ("item", "error"), [(2, IndexError), (-1, IndexError), ("a", TypeError)]
    )
    def test_an_item_that_is_not_there(self, weights, item, error):
        with pytest.raises(error, match="item must be"):
            heads(weights, TOKENS, item=item)

    def test_a_capture_that_was_freed(self):
        seen = records(2, 2, 5)
        seen[1].free()
        with pytest.raises(RuntimeError, match=r"layer\.1\) was freed"):
            heads(seen, TOKENS)


class TestPicture:
    def test_a_long_title_fits_above_few_heads(self):
        title = "Two heads: click the other one to open it"
        figure = heads([dirichlet(2, 9, 9)], names(9), title=title).figure()
        figure.draw_without_rendering()
        box = figure.axes[0].title.get_window_extent()
        assert box.x0 >= 0
        assert box.x1 <= figure.bbox.width

    def test_repr_is_short(self, view):
        assert repr(view) == "HeadsView(4 layers, 12 heads, 5 queries × 5 keys)"
        assert isinstance(view, HeadsView)

    def test_the_figure_has_a_row_for_each_layer(self, view, weights):
        ax = view.figure().axes[0]
        assert ax.get_title() == "all of them"
        assert (ax.get_xlabel(), ax.get_ylabel()) == ("head", "layer")
        assert [t.get_text() for t in ax.get_yticklabels()] == ["0", "1", "2", "3"]
        image = np.asarray(ax.images[0].get_array())
        for layer in range(4):
            for head in range(3):  # five cells and a gap of one
                part = image[layer * 6 : layer * 6 + 5, head * 6 : head * 6 + 5]
                assert np.allclose(part**2, weights[layer][0, head], atol=0.004)

    def test_no_open_figures_are_left_behind(self, view):
        from matplotlib import pyplot

        view.figure()
        assert pyplot.get_fignums() == []

    @pytest.mark.slow
    @pytest.mark.parametrize("ending", [".html", ".png", ".svg", ".pdf"])
    def test_it_can_be_saved(self, view, tmp_path, ending):
        view.save(tmp_path / f"view{ending}")
        assert (tmp_path / f"view{ending}").stat().st_size > 2000

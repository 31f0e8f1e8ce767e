"""The lines between two columns, Python's side: what is sent, what is answered, what is drawn."""

import json

import numpy as np
import pytest
import torch
from matplotlib.collections import LineCollection, PathCollection
from matplotlib.colors import to_hex, to_rgb

from attnviz.seeing import AttentionRecord
from attnviz.views import flow as flow_module
from attnviz.views.flow import COLORS, FlowView, flow

TOKENS = ["[CLS]", "the", "cat", "[SEP]", "it", "slept", "[SEP]"]
NOTHING = {"layer": 0, "head": None, "query": None, "key": None}


def names(n):
    return [f"t{i}" for i in range(n)]


def dirichlet(*shape, seed=0):
    """Random weights whose rows sum to one; the last number is that of the keys."""
    *rows, n_keys = shape
    return np.random.default_rng(seed).dirichlet(np.ones(n_keys), rows).astype("<f4")


def records(n_layers, n_heads, n, n_keys=None):
    torch.manual_seed(0)
    return [
        AttentionRecord(
            i,
            0,
            f"layer.{i}",
            "self",
            query=torch.randn(1, n_heads, n, 8),
            key=torch.randn(1, n_heads, n_keys or n, 8),
        )
        for i in range(n_layers)
    ]


def weights_in(part):
    return np.frombuffer(part["values"], "<u2").reshape(-1, part["rows"], part["columns"]) / 65535


def totals_in(part):
    return np.frombuffer(part["totals"], "<u2").reshape(-1, part["rows"]) / 65535


def bytes_of(value):
    if isinstance(value, dict | list):
        return sum(map(bytes_of, value.values() if isinstance(value, dict) else value))
    return len(value) if isinstance(value, bytes) else len(json.dumps(value))


def sent_bytes(view):
    return bytes_of({k: v for k, v in view.get_state().items() if not k.startswith("_")})


@pytest.fixture
def weights():
    return [dirichlet(2, 3, 7, 7, seed=i) for i in range(4)]  # 4 layers of 2 items, 3 heads


@pytest.fixture
def view(weights):
    return flow(weights, TOKENS)


@pytest.fixture
def long_view():
    return flow(records(3, 2, 700), names(700))


@pytest.fixture
def ask(monkeypatch):
    """A function that asks a view as a page does; it returns a part, as a page would keep it."""

    def ask(view, question):
        said = []
        monkeypatch.setattr(view, "send", lambda *message: said.append(message))
        view._handle_custom_msg({"number": 1, "question": question}, [])
        content, *buffers = said[0]
        if "error" in content:
            raise RuntimeError(content["error"])
        values, totals = buffers[0]
        return {**content["answer"], "values": values, "totals": totals}

    return ask


class TestWhatIsSent:
    def test_all_layers_of_a_short_text(self, view, weights):
        assert [part["layer"] for part in view.parts] == [0, 1, 2, 3]
        for part, layer in zip(view.parts, weights, strict=True):
            assert abs(weights_in(part) - layer[0]).max() < 1e-5
            assert totals_in(part) == pytest.approx(1, abs=1e-5)

    def test_another_item(self, weights):
        view = flow(weights, TOKENS, item=1)
        assert abs(weights_in(view.parts[2]) - weights[2][1]).max() < 1e-5

    def test_names_and_sizes(self):
        view = flow(records(2, 3, 5), names(5), title="two layers")
        layers = [{"name": f"layer.{i}", "heads": 3, "sinks": False} for i in range(2)]
        assert view.layers == layers
        assert (view.title, view.query_tokens, view.key_tokens) == ("two layers", *[names(5)] * 2)
        assert view.heads == [0, 1, 2]
        assert (view.threshold, view.links) == (0.05, "all")

    def test_layers_may_have_other_numbers_of_heads(self):
        view = flow([dirichlet(2, 4, 4), dirichlet(5, 4, 4)], names(4))
        assert [layer["heads"] for layer in view.layers] == [2, 5]
        assert view.heads == [0, 1, 2, 3, 4]
        assert [weights_in(part).shape[0] for part in view.parts] == [2, 5]

    def test_other_keys_than_queries(self):
        weights = dirichlet(2, 3, 5)
        view = flow([weights], list("abc"), list("vwxyz"))
        assert (view.query_tokens, view.key_tokens) == (list("abc"), list("vwxyz"))
        assert abs(weights_in(view.parts[0]) - weights).max() < 1e-5

    def test_weights_a_little_above_one_and_rows_of_zeros(self):
        view = flow([np.array([[[1.015, 0], [0, 0]]])], ["a", "b"])
        assert weights_in(view.parts[0]).tolist() == [[[1, 0], [0, 0]]]
        assert totals_in(view.parts[0]).tolist() == [[1, 0]]

    @pytest.mark.parametrize(("n", "whole"), [(91, True), (92, False)])
    def test_all_layers_travel_as_long_as_they_take_little(self, n, whole):
        view = flow(records(6, 12, n), names(n))  # 6 · 12 · 91² · 2 = 1.19 MB
        assert len(view.parts) == (6 if whole else 1)
        assert view.parts[0]["rows"] == (n if whole else 64)
        assert sent_bytes(view) < 1_300_000

    def test_of_a_long_text_only_what_is_in_sight(self, long_view):
        (part,) = long_view.parts
        place = {"layer": 0, "query": 0, "key": 0, "rows": 64, "columns": 64}
        assert {name: part[name] for name in place} == place
        wanted = long_view._layers[0].rows(slice(None), slice(0, 64))
        assert abs(weights_in(part) - wanted[:, :, :64]).max() < 1e-5
        assert totals_in(part) == pytest.approx(1, abs=1e-5)  # of all keys, not of those shown
        assert len(part["values"]) == 2 * 64 * 64 * 2

    @pytest.mark.slow
    def test_many_heads_and_tokens_stay_below_two_megabytes(self):
        assert sent_bytes(flow(records(2, 64, 5000), names(5000))) < 2_000_000

    def test_rows_that_are_not_in_sight_are_not_worked_out(self, monkeypatch):
        asked = []
        tile = AttentionRecord.tile
        monkeypatch.setattr(
            AttentionRecord, "tile", lambda *a: asked.append((a[0].index, a[1])) or tile(*a)
        )
        flow(records(3, 2, 700), names(700))
        assert asked == [(0, slice(0, 64))]

    def test_blocks_of_rows_are_put_together(self, monkeypatch):
        monkeypatch.setattr("attnviz.views.source.BLOCK", 5 * 3 * 100)  # five queries at a time
        weights = dirichlet(3, 100, 100)
        view = flow([weights], names(100))
        assert abs(weights_in(view.parts[0]) - weights).max() < 1e-5

    def test_the_browser_side_needs_no_network(self, view):
        assert "http" not in view._esm + view._css

    def test_every_rule_of_the_style_sheet_is_for_this_view(self, view):
        own = (flow_module.File(flow_module.__file__).parent / "static/flow.css").read_text()
        for line in own.splitlines():
            for selector in line.split("{")[0].split(","):
                assert selector.strip().startswith(".attnviz ")
                assert ".attnviz-flow" in selector

    def test_a_short_stable_name(self, view, long_view):
        assert repr(view) == "FlowView(4 layers, 3 heads, 7 queries × 7 keys)"
        assert repr(long_view) == "FlowView(3 layers, 2 heads, 700 queries × 700 keys)"
        assert isinstance(view, FlowView)


class TestColours:
    def luminance(self, color):
        channels = np.array(to_rgb(color))
        linear = np.where(
            channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4
        )
        return linear @ [0.2126, 0.7152, 0.0722]

    @pytest.mark.parametrize("paper", ["#ffffff", "#111111"])
    def test_each_can_be_seen_on_light_and_on_dark(self, paper):
        for color in COLORS:
            light, dark = sorted(map(self.luminance, (color, paper)), reverse=True)
            assert (light + 0.05) / (dark + 0.05) >= 3, color

    def test_sixteen_of_them_all_differ(self, view):
        assert view.colors == list(COLORS)
        assert len(set(COLORS)) == 16


class TestAnswers:
    def test_a_window_of_another_layer(self, long_view, ask):
        part = ask(long_view, {"layer": 2, "query": 600, "key": 30})
        assert (part["layer"], part["query"], part["key"]) == (2, 600, 30)
        assert (part["rows"], part["columns"]) == (64, 64)
        wanted = long_view._layers[2].rows(slice(None), slice(600, 664))[:, :, 30:94]
        assert abs(weights_in(part) - wanted).max() < 1e-5
        assert totals_in(part) == pytest.approx(1, abs=1e-5)

    def test_a_short_column_is_answered_whole(self, ask):
        view = flow(records(3, 8, 20, n_keys=3000), names(20), names(3000))
        part = ask(view, {"layer": 1, "query": 0, "key": 2936})
        assert (part["rows"], part["columns"]) == (20, 64)

    @pytest.mark.parametrize(
        ("question", "message"),
        [
            ({"layer": 3, "query": 0, "key": 0}, "layer must be between 0 and 2, got 3"),
            ({"layer": 0, "query": -1, "key": 0}, "query must be between 0 and 699, got -1"),
            ({"layer": 0, "query": 0, "key": 700}, "key must be between 0 and 699, got 700"),
            ({"row": 3}, "this view has no answer to"),
        ],
    )
    def test_what_is_not_there(self, long_view, ask, question, message):
        with pytest.raises(RuntimeError, match=message):
            ask(long_view, question)

    def test_a_freed_record_says_so(self, ask):
        seen = records(3, 2, 700)
        view = flow(seen, names(700))
        seen[1].free()
        with pytest.raises(RuntimeError, match=r"attention 1 \(layer.1\) was freed"):
            ask(view, {"layer": 1, "query": 0, "key": 0})


class TestSentences:
    def test_two_separators_make_two_sentences(self, view):
        assert view.sentences == [0, 0, 0, 0, 1, 1, 1]

    @pytest.mark.parametrize(
        "tokens", [["[CLS]", "a", "[SEP]"], ["a", "</s>", "b", "</s>"], ["a", "[SEP]", "[SEP]"]]
    )
    def test_without_two_sentences_there_is_nothing_to_choose(self, tokens):
        n = len(tokens)
        sides = [0, 0, 1] if tokens[-2:] == ["[SEP]", "[SEP]"] else []
        assert flow([dirichlet(1, n, n)], tokens).sentences == sides

    @pytest.mark.parametrize("kind", [list, tuple, np.array, torch.tensor])
    def test_given_ones(self, weights, kind):
        view = flow(weights, TOKENS, sentences=kind([0, 0, 1, 1, 1, 1, 0]))
        assert view.sentences == [0, 0, 1, 1, 1, 1, 0]
        assert type(view.sentences[0]) is int

    def test_all_the_same_is_one_sentence(self, weights):
        assert flow(weights, TOKENS, sentences=[0] * 7).sentences == []

    def test_other_keys_have_none(self):
        assert flow([dirichlet(1, 4, 2)], ["a", "[SEP]"] * 2, ["b", "c"]).sentences == []

    @pytest.mark.parametrize(
        ("sentences", "message"),
        [
            ([0, 1], r"one for each of the 7 tokens, got shape \(2,\)"),
            ([[0] * 7], r"got shape \(1, 7\)"),
            ([0, 1, 2, 0, 0, 0, 0], "sentences must be a list of 0 and 1.*got 2"),
            (["A"] * 7, "got 'A'"),
            ("AB", r"got shape \(\)"),
        ],
    )
    def test_bad_ones(self, weights, sentences, message):
        with pytest.raises(ValueError, match=message):
            flow(weights, TOKENS, sentences=sentences)

    def test_they_belong_to_self_attention(self):
        with pytest.raises(ValueError, match="key_tokens are other tokens: leave sentences out"):
            flow([dirichlet(1, 2, 2)], ["a", "b"], ["c", "d"], sentences=[0, 1])


class TestSelectionAndControls:
    def test_the_first_layer_is_shown_at_first(self, view):
        assert view.selection == NOTHING

    def test_a_selection_without_a_layer_keeps_it(self, view):
        view.selection = {"layer": 2}
        view.selection = {"query": np.int64(3)}
        assert view.selection == {**NOTHING, "layer": 2, "query": 3}

    @pytest.mark.parametrize(
        ("selection", "error", "message"),
        [
            ({"layer": 4}, ValueError, r"selection\['layer'\] must be between 0 and 3, got 4"),
            ({"head": 3}, ValueError, r"selection\['head'\] must be between 0 and 2, got 3"),
            ({"query": 7}, ValueError, r"selection\['query'\] must be between 0 and 6, got 7"),
            ({"key": "a"}, TypeError, r"selection\['key'\] must be a whole number or None"),
        ],
    )
    def test_what_cannot_be_selected(self, view, selection, error, message):
        with pytest.raises(error, match=message):
            view.selection = selection
        assert view.selection == NOTHING

    def test_a_head_that_this_layer_does_not_have(self):
        view = flow([dirichlet(2, 4, 4), dirichlet(5, 4, 4)], names(4))
        view.selection = {"layer": 1, "head": 4}
        with pytest.raises(ValueError, match=r"selection\['head'\] must be between 0 and 1, got 4"):
            view.selection = {"layer": 0, "head": 4}

    def test_heads_are_sorted_and_checked(self, view):
        view.heads = [2, 0, 2]
        assert view.heads == [0, 2]
        view.heads = []
        with pytest.raises(ValueError, match=r"heads must be between 0 and 2, got \[1, 3\]"):
            view.heads = [1, 3]

    def test_the_threshold_is_checked(self, view):
        with pytest.raises(ValueError, match=r"threshold must be between 0 and 1, got 1\.5"):
            view.threshold = 1.5

    def test_start_moves_one_column_or_both(self, long_view):
        long_view.start = {"query": np.int64(100)}
        assert long_view.start == {"query": 100, "key": 0}
        long_view.start = {"key": 50}
        assert long_view.start == {"query": 100, "key": 50}

    def test_a_column_is_always_full(self, long_view, view):
        long_view.start = {"query": 690, "key": 699}
        assert long_view.start == {"query": 636, "key": 636}
        view.start = {"query": 5}
        assert view.start == {"query": 0, "key": 0}

    @pytest.mark.parametrize(
        ("start", "error", "message"),
        [
            ({"query": 700}, ValueError, r"start\['query'\] must be between 0 and 699, got 700"),
            ({"key": -1}, ValueError, r"start\['key'\] must be between 0 and 699, got -1"),
            ({"key": 1.5}, TypeError, r"start\['key'\] must be a whole number, got 1.5"),
            ({"row": 1}, ValueError, r"start has \['row'\], expected query and key"),
        ],
    )
    def test_where_it_cannot_start(self, long_view, start, error, message):
        with pytest.raises(error, match=message):
            long_view.start = start


class TestBadInput:
    def test_layers_of_different_sizes(self):
        with pytest.raises(ValueError, match=r"seen\[0\] has 4 × 4 and seen\[1\] 5 × 5"):
            flow([dirichlet(1, 4, 4), dirichlet(1, 5, 5)], names(4))

    @pytest.mark.parametrize(
        ("arguments", "error", "message"),
        [
            ((None, TOKENS), TypeError, "seen must be a capture.*got None"),
            (([], TOKENS), ValueError, "got none; models with fused attention"),
            (([dirichlet(1, 4, 4)], TOKENS), ValueError, "tokens must have one label.*4.*got 7"),
            (([dirichlet(1, 7, 4)], TOKENS), ValueError, "give key_tokens"),
            (([dirichlet(1, 7, 7) * 2], TOKENS), ValueError, "must sum to 1.*head 0"),
        ],
    )
    def test_what_is_no_attention_or_no_label(self, arguments, error, message):
        with pytest.raises(error, match=message):
            flow(*arguments)

    def test_an_item_that_is_not_there(self, weights):
        with pytest.raises(IndexError, match="item must be between 0 and 1, got 2"):
            flow(weights, TOKENS, item=2)


def curves(view):
    """What a figure draws: (query, key, colour, opacity) of each line, the strongest first."""
    ax = view.figure().axes[0]
    (lines,) = [c for c in ax.collections if isinstance(c, PathCollection)]
    found = [
        (*np.rint(path.vertices[[0, -1], 1]).astype(int), to_hex(color[:3]), float(color[3]))
        for path, color in zip(lines.get_paths(), lines.get_edgecolors(), strict=True)
    ]
    return found[::-1]


def stubs(view):
    ax = view.figure().axes[0]
    (lines,) = [c for c in ax.collections if isinstance(c, LineCollection)]
    return [round(segment[0][1]) for segment in lines.get_segments()]


class TestFigure:
    def test_a_line_for_each_weight_from_the_threshold_on(self, view, weights):
        view.threshold = 0.2
        view.selection = {"layer": 2}
        heads, queries, keys = np.nonzero(weights[2][0] >= 0.2)
        wanted = {(q, k, COLORS[h]) for h, q, k in zip(heads, queries, keys, strict=True)}
        assert {(q, k, color) for q, k, color, _ in curves(view)} == wanted

    def test_stronger_lines_are_less_transparent_and_lie_on_top(self, view):
        opacities = [opacity for *_, opacity in curves(view)]
        assert opacities == sorted(opacities, reverse=True)
        assert opacities[0] == pytest.approx(view._cut(0, 0, 0)[0].max())

    def test_the_heads_that_are_shown(self, view):
        view.heads = [2]
        assert {color for _, _, color, _ in curves(view)} == {COLORS[2]}
        view.selection = {"head": 1}
        assert {color for _, _, color, _ in curves(view)} == {COLORS[1]}
        legend = view.figure().legends[0]
        assert [text.get_text() for text in legend.get_texts()] == ["1"]

    def test_no_head_at_all(self, view):
        view.heads = []
        assert curves(view) == []
        assert view.figure().legends[0].get_title().get_text() == "no head is shown"

    def test_a_pinned_token_alone(self, view):
        view.threshold = 0
        view.selection = {"query": 4}
        assert {query for query, *_ in curves(view)} == {4}
        view.selection = {"key": 5}
        assert {key for _, key, *_ in curves(view)} == {5}
        view.selection = {"query": 4, "key": 5}
        assert {(query, key) for query, key, *_ in curves(view)} == {(4, 5)}

    def test_links_between_sentences(self, view):
        view.threshold = 0
        view.links = "AB"
        assert {(query < 4, key < 4) for query, key, *_ in curves(view)} == {(True, False)}
        view.links = "BB"
        assert {(query < 4, key < 4) for query, key, *_ in curves(view)} == {(False, False)}

    @pytest.mark.slow
    def test_a_window_and_what_goes_outside_it(self, long_view):
        long_view.start = {"query": 600, "key": 0}
        long_view.selection = {"layer": 1}
        long_view.threshold = 0.01
        ax = long_view.figure().axes[0]
        texts = [text.get_text() for text in ax.texts]
        assert texts[:65] == ["query (attends)", *names(700)[600:664]]
        assert texts[65:] == ["key (is attended to)", *names(64)]
        wanted = long_view._layers[1].rows(slice(None), slice(600, 664))
        assert len(curves(long_view)) == (wanted[:, :, :64] >= 0.01).sum()
        assert stubs(long_view) == list(range(64))
        _, outside, _ = long_view._cut(1, 600, 0)
        assert outside == pytest.approx(wanted[:, :, 64:].sum(2), abs=1e-3)
        long_view.selection = {"query": 603}
        assert stubs(long_view) == [3]

    def test_no_stub_where_all_keys_are_in_sight(self, view):
        assert stubs(view) == []

    def test_the_window_of_a_short_text_is_cut_out_of_the_whole(self):
        weights = dirichlet(1, 100, 100)
        view = flow([weights], names(100))
        view.start = {"query": 36, "key": 10}
        assert view._cut(0, 36, 10)[0] == pytest.approx(weights[:, 36:, 10:74], abs=1e-5)

    def test_what_was_sent_can_be_drawn_after_the_record_is_freed(self, ask):
        seen = records(2, 2, 700)
        view = flow(seen, names(700))
        ask(view, {"layer": 1, "query": 64, "key": 64})
        for record in seen:
            record.free()
        view.figure()
        view.start, view.selection = {"query": 64, "key": 64}, {"layer": 1}
        view.figure()
        for other in ({"query": 65, "key": 64}, {"query": 64, "key": 65}):
            view.start = other
            with pytest.raises(RuntimeError, match="was freed"):
                view.figure()

    def test_title_names_the_layer(self, weights):
        view = flow(weights, TOKENS, title="a $title$")
        view.selection = {"layer": 3}
        assert view.figure().get_suptitle() == r"a \$title\$, layer 3"

    @pytest.mark.slow
    @pytest.mark.parametrize("token", ["猫", "x" * 300, "\ud800", "", "$x$", "<b>"])
    def test_no_token_spoils_the_picture(self, token, recwarn):
        data, _ = flow([dirichlet(2, 3, 3)], [token] * 3)._repr_mimebundle_()
        assert data["image/png"].startswith("iVBOR")
        assert data["text/plain"] == "FlowView(1 layers, 2 heads, 3 queries × 3 keys)"
        assert not recwarn.list

    def test_no_label_is_cut_off(self):
        figure = flow([dirichlet(2, 3, 3)], ["W" * 30, "i" * 30, "w"]).figure()
        figure.draw_without_rendering()
        for text in figure.axes[0].texts:
            box = text.get_window_extent()
            assert box.x0 >= 0
            assert box.x1 <= figure.bbox.width


class TestSaving:
    @pytest.mark.slow
    @pytest.mark.parametrize("kind", ["html", "png", "svg", "pdf"])
    def test_every_kind_of_file_and_again(self, view, tmp_path, kind):
        path = tmp_path / f"view.{kind}"
        view.save(path)
        view.save(path)
        begin = {"html": b"<!doctype", "png": b"\x89PNG", "svg": b"<?xml", "pdf": b"%PDF"}
        assert path.read_bytes().startswith(begin[kind])

    def test_a_foreign_file_stays(self, view, tmp_path):
        path = tmp_path / "mine.svg"
        path.write_text("mine")
        with pytest.raises(FileExistsError):
            view.save(path)
        assert path.read_text() == "mine"

    def test_lines_are_vectors(self, view, tmp_path):
        view.save(tmp_path / "a.svg")
        text = (tmp_path / "a.svg").read_text()
        assert "<image" not in text
        assert text.count("C ") >= len(curves(view))

    def test_a_page_holds_all_layers_that_fit(self):
        view = flow(records(2, 4, 300), names(300))  # 1.44 MB
        assert len(view.parts) == 1
        parts = view._page_state()["parts"]
        assert [(part["layer"], part["rows"]) for part in parts] == [(0, 300), (1, 300)]

    def test_a_page_of_a_short_text_needs_nothing_else(self, view):
        assert view._page_state() == {}

    def test_a_page_of_a_long_text_holds_the_window_at_hand_of_all_layers(self):
        view = flow(records(3, 4, 1200), names(1200))
        view.start = {"query": 500, "key": 10}
        parts = view._page_state()["parts"]
        places = [(p["layer"], p["query"], p["key"], p["rows"]) for p in parts]
        assert places == [(0, 500, 10, 64), (1, 500, 10, 64), (2, 500, 10, 64)]

    def test_with_very_many_heads_only_of_the_layer_at_hand(self):
        view = flow(records(40, 32, 128), names(128))
        view.selection = {"layer": 7}
        assert [part["layer"] for part in view._page_state()["parts"]] == [7]

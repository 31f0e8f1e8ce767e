"""The app's Python side: what it sends, what edits do, what it refuses, and what it saves."""

import base64
import json
import re
import sys

import numpy as np
import pytest
import torch
import traitlets

import attnviz as av
from attnviz.apps import ExploreView, explore
from attnviz.models import BertForSequenceClassification
from attnviz.views.figures import palette

MODULE = sys.modules["attnviz.apps.explore"]  # whose name is also the function's
TEXT = "the cat [MASK] on the mat"
OFF = {"layer": 1, "head": 2, "off": True}
HOT = {"layer": 0, "head": 1, "temperature": 3.0}
SINGLE = ["masked words", "token labels", "similarity", "classes", "next token", "grouped queries"]


@pytest.fixture
def view(make_ours):
    return explore(*make_ours(words=True), TEXT)


@pytest.fixture
def similar(make_ours):
    return explore(*make_ours(), "the cat sat", other="a dog saw")


def matrix(cells):
    """What `numbers` hold, as weights."""
    shape = cells["rows"], cells["columns"]
    if cells["exact"]:
        return np.frombuffer(cells["values"], "<f4").reshape(shape)
    return (np.frombuffer(cells["values"], np.uint8).reshape(shape) / 255.0) ** 2


def opened(view):
    """The open head before and after, as weights."""
    return matrix(view.opened["before"]), matrix(view.opened.get("after", view.opened["before"]))


def weights(model, ids, changes=None):
    """For each layer (head, query, key), without anything of the app."""
    with (
        torch.no_grad(),
        av.edit(model, changes or {(0, 0): lambda w: w}),
        av.capture(model) as seen,
    ):
        model(torch.tensor([ids]))
    return [record.weights[0].numpy() for record in seen]


def answer(view, question):
    """What the page hears when it asks."""
    heard = []
    view.send = lambda content, buffers=None: heard.append((content, buffers))
    view._handle_custom_msg({"number": "a", "question": question}, [])
    (content, buffers) = heard[0]
    assert content["number"] == "a"
    if "error" in content:
        return content["error"]
    return {
        n: {**p, "values": b} for (n, p), b in zip(content["answer"].items(), buffers, strict=False)
    }


class TestWhatIsSent:
    def test_tokens_layers_and_heads(self, view):
        assert view.tokens == ["[CLS]", "the", "cat", "[MASK]", "on", "the", "mat", "[SEP]"]
        assert view.heads == [3, 3]
        assert view.names == ["encoder.blocks.0.attention", "encoder.blocks.1.attention"]
        assert view.kind == "masked words"
        assert (view.problem, view.hint, view.live) == ("", "", True)
        assert (view.palette, view.diverging) == (palette(), palette("PuOr_r"))

    @pytest.mark.slow
    @pytest.mark.parametrize("kernel", ["sdpa", "eager"])
    @pytest.mark.parametrize("kind", SINGLE)
    def test_models_of_transformers(self, make, kind, kernel):
        model, tokenizer = make(kind, kernel)
        view = explore(model, tokenizer, "the cat [MASK]")
        assert view.heads == [4, 4]
        assert view.says
        assert view.kind == (kind if kind != "grouped queries" else "next token")
        view.edits = [OFF]
        assert view.problem == ""
        assert any(was != now for _, rows in view.says for _, was, now in rows)

    def test_the_open_head_exactly(self, view, make_ours):
        model, tokenizer = make_ours(words=True)
        whole = weights(model, tokenizer.encode(TEXT).ids)
        for layer in range(2):
            for head in range(3):
                view.selection = {"layer": layer, "head": head}
                sent = answer(view, {"open": [layer, head]})
                assert list(sent) == ["before"]  # and the same after no edits
                assert np.allclose(matrix(sent["before"]), whole[layer][head], atol=1e-6)

    def test_the_thumbnails_of_all_heads(self, view, make_ours):
        model, tokenizer = make_ours(words=True)
        whole = np.concatenate(weights(model, tokenizer.encode(TEXT).ids))
        sent = np.frombuffer(view.thumbnails["values"], np.uint8).reshape(6, 8, 8)
        assert np.abs((sent / 255.0) ** 2 - whole).max() < 0.004
        assert view.thumbnails["step"] == 1

    @pytest.mark.slow
    @pytest.mark.parametrize("n", [128, 399, 401, 512, 700])
    def test_at_most_two_megabytes_and_exact_up_to_400_tokens(self, make_ours, n):
        model, tokenizer = make_ours(max_len=1024, n_layers=3, n_heads=12)
        view = explore(model, tokenizer, "cat " * (n - 2), other="dog " * (n - 2))
        assert len(view.tokens) == n
        view.edits = [{"layer": 0, "head": h, "off": True} for h in range(12)]
        assert set(view.opened) == {"of", "before", "after"}
        assert sum(map(size, view.get_state(view.keys).values())) <= 2_000_000
        side = min(n, 512)
        for which in ("before", "after"):
            sent = view.opened[which]
            assert (sent["rows"], sent["columns"], sent["exact"]) == (side, side, n <= 400)

    def test_of_very_long_texts_the_thumbnails_are_a_sample(self, make_ours, monkeypatch):
        monkeypatch.setattr("attnviz.views.thumbnails.AT_ONCE", 1000)
        view = explore(*make_ours(max_len=300), "cat " * 200)
        assert view.thumbnails["step"] > 1

    def test_the_browser_side_needs_no_network(self):
        assert "http" not in ExploreView._esm
        assert "http" not in ExploreView._css
        assert "import " not in re.sub(r"//.*", "", ExploreView._esm)

    def test_every_rule_of_the_style_sheet_is_for_views_alone(self):
        rules = re.findall(r"^\s*([^{}@\n]+)\{", ExploreView._css, re.MULTILINE)
        assert len(rules) > 40
        for rule in rules:
            assert rule.startswith((".attnviz", "--"))

    def test_in_words(self, view):
        assert repr(view) == "ExploreView(Labeller: 2 layers, 6 heads)"


def size(value):
    """Bytes that a trait takes on its way, as JSON or as they are."""
    if isinstance(value, bytes):
        return len(value)
    if isinstance(value, dict):
        return sum(len(str(k)) + size(v) for k, v in value.items())
    if isinstance(value, str) and value == ExploreView._esm:
        return 0  # the code
    if isinstance(value, list | tuple):
        return sum(map(size, value))
    return len(json.dumps(value, default=str))


class TestText:
    def test_another_text(self, view):
        view.text = "a dog saw the cat"
        assert view.tokens == ["[CLS]", "a", "dog", "saw", "the", "cat", "[SEP]"]
        assert opened(view)[0].shape == (7, 7)
        assert view.thumbnails["rows"] == 7
        assert view.says == []
        assert view.hint == "Put [MASK] into the text to see what the model expects there."
        view.text = TEXT
        assert view.says
        assert view.hint == ""

    def test_one_message_for_the_whole_change(self, view, monkeypatch):
        sent = []
        monkeypatch.setattr(
            view,
            "send_state",
            lambda key=None: sent.append({*key} if isinstance(key, set) else {key}),
        )
        view.text = "a dog"
        together = {"tokens", "thumbnails", "opened", "says", "hint"}
        (message,) = [names for names in sent if together & names]
        assert together <= message

    def test_what_it_says_is_that_of_a_new_app(self, view, make_ours):
        view.text = "the [MASK] sat"
        view.edits = [OFF, HOT]
        other = explore(*make_ours(words=True), "the [MASK] sat")
        other.edits = [OFF, HOT]
        assert view.says == other.says
        assert view.opened == other.opened
        assert view.thumbnails == other.thumbnails

    @pytest.mark.parametrize(
        ("text", "problem"),
        [
            ("", "the text has no tokens: write something"),
            ("  \n", "the text has no tokens: write something"),
            ("cat " * 39, "the text has 41 tokens, but the model reads at most 40"),
        ],
    )
    def test_a_text_that_cannot_be_read_leaves_the_last_picture(self, view, text, problem):
        shown = "tokens", "names", "heads", "thumbnails", "opened", "says", "hint", "kind"
        before = [getattr(view, name) for name in shown]
        view.text = text
        assert view.problem == problem
        assert [getattr(view, name) for name in shown] == before
        assert "before" in answer(view, {"open": [1, 1]})
        view.figure()
        view.text = "a good one [MASK]"
        assert view.problem == ""
        assert view.tokens[1] == "a"

    def test_an_edit_during_a_problem_is_shown_with_the_next_good_text(self, view):
        view.text = ""
        view.edits = [OFF]
        assert view.problem
        view.text = TEXT
        assert view.problem == ""
        view.selection = {"layer": 1, "head": 2}
        assert not matrix(answer(view, {"open": [1, 2]})["after"]).any()

    def test_a_model_that_fails_is_a_problem_too(self, view, monkeypatch):
        def fail(*_):
            raise RuntimeError("out of memory")

        with monkeypatch.context() as patch:
            patch.setattr(view._model, "forward", fail)
            view.text = "a cat"
            assert view.problem == "out of memory"
        view.text = "a dog"
        assert view.problem == ""

    def test_an_error_without_words_is_named(self, view, monkeypatch):
        def fail(*_):
            raise KeyError

        monkeypatch.setattr(view._model, "forward", fail)
        view.text = "a cat"
        assert view.problem == "KeyError"

    def test_a_second_text(self, similar, make_ours):
        model, tokenizer = make_ours()

        def mean(text, changes=None):
            ids = torch.tensor([tokenizer.encode(text).ids])
            with torch.no_grad(), av.edit(model, changes or {(0, 0): lambda w: w}):
                return model(ids).last_hidden_state[0].mean(0)

        def cosine(one, other):
            return float(one @ other / one.norm() / other.norm())

        ((title, rows),) = similar.says
        assert title == "similarity (cosine) to"
        assert rows[0] == ("itself, unchanged", 1.0, pytest.approx(1))
        similar.edits = [OFF]
        ((_, rows),) = similar.says
        old, new = mean("the cat sat"), mean("the cat sat", similar.changes)
        assert rows[0][2] == pytest.approx(cosine(old, new), abs=1e-6)
        others = mean("a dog saw"), mean("a dog saw", similar.changes)
        assert rows[1][1] == pytest.approx(cosine(old, others[0]), abs=1e-6)
        assert rows[1][2] == pytest.approx(cosine(new, others[1]), abs=1e-6)
        assert rows[0][2] < 0.9999
        similar.other = "the cat sat"
        assert similar.says[0][1][1][1:] == pytest.approx((1, 1))
        similar.other = "   "
        assert len(similar.says[0][1]) == 1

    def test_a_second_text_that_is_too_long_is_named(self, similar):
        similar.other = "dog " * 40
        assert similar.problem == (
            "second text: the text has 42 tokens, but the model reads at most 40"
        )
        similar.text = "a"  # which is not shown, so its heads are not opened either
        assert similar.problem.startswith("second text")
        assert len(similar.tokens) == 5
        assert answer(similar, {"open": [0, 0]})["before"]["rows"] == 5
        similar.other = "dog"
        assert similar.problem == ""
        assert len(similar.tokens) == 3


class TestEdits:
    def test_predictions_are_those_of_the_edited_model(self, view, make_ours):
        view.edits = [OFF, HOT]
        model, tokenizer = make_ours(words=True)
        ids = torch.tensor([tokenizer.encode(TEXT).ids])
        with torch.no_grad():
            old = model(ids)[0, 3].softmax(-1)
            with av.edit(model, {(1, 2): av.off, (0, 1): av.temperature(3.0)}):
                new = model(ids)[0, 3].softmax(-1)
        ((_, rows),) = view.says
        for token, was, now in rows:
            i = tokenizer.token_to_id(token)
            assert (was, now) == pytest.approx((float(old[i]), float(new[i])), abs=1e-6)
        assert any(was != now for _, was, now in rows)

    def test_changes_are_for_edit(self, view, make_ours):
        view.edits = [OFF, HOT]
        assert list(view.changes) == [(1, 2), (0, 1)]
        model, tokenizer = make_ours(words=True)
        before, after = (
            weights(model, tokenizer.encode(TEXT).ids, changes) for changes in (None, view.changes)
        )
        for layer in range(2):
            for head in range(3):
                view.selection = {"layer": layer, "head": head}
                sent = answer(view, {"open": [layer, head]})
                for which, wanted in [("before", before), ("after", after)]:
                    found = matrix(sent.get(which, sent["before"]))
                    assert np.allclose(found, wanted[layer][head], atol=1e-6)

    def test_a_head_that_is_off_attends_to_nothing(self, view):
        view.selection = {"layer": 1, "head": 2}
        view.edits = [OFF]
        before, after = opened(view)
        assert before.sum() == pytest.approx(8, abs=1e-4)
        assert not after.any()
        small = np.frombuffer(view.thumbnails["values"], np.uint8).reshape(6, -1)
        assert [head.any() for head in small] == [True] * 5 + [False]

    def test_only_what_an_edit_reaches_is_sent_twice(self, view):
        view.edits = [OFF]  # in the last layer
        assert set(answer(view, {"open": [0, 0]})) == {"before"}
        assert set(answer(view, {"open": [1, 0]})) == {"before"}
        assert set(answer(view, {"open": [1, 2]})) == {"before", "after"}

    def test_a_temperature_sharpens_or_flattens(self, view):
        view.selection = {"layer": 0, "head": 1}
        for t, sharper in [(0.25, True), (4.0, False)]:
            view.edits = [{"layer": 0, "head": 1, "temperature": t}]
            before, after = opened(view)
            assert (after.max() > before.max()) is np.bool_(sharper)
            wanted = before ** (1 / t)
            assert np.allclose(after, wanted / wanted.sum(1, keepdims=True), atol=1e-5)

    def test_none_is_as_before(self, view):
        before = view.says, view.thumbnails
        view.edits = [OFF, HOT]
        assert (view.says, view.thumbnails) != before
        view.edits = []
        assert (view.says, view.thumbnails) == before
        assert view.changes == {}
        assert "after" not in view.opened

    def test_numbers_of_numpy_become_plain_ones(self, view):
        one = {"layer": np.int64(1), "head": np.int32(0), "temperature": np.float32(0.5)}
        view.edits = [one]
        assert view.edits == [{"layer": 1, "head": 0, "temperature": 0.5}]
        assert [type(x) for x in view.edits[0].values()] == [int, int, float]
        json.dumps(view.edits)

    @pytest.mark.slow
    @pytest.mark.parametrize(
        ("edits", "error", "message"),
        [
            ([{**OFF, "layer": 2}], ValueError, "layer of an edit must be between 0 and 1, got 2"),
            ([{**OFF, "layer": -1}], ValueError, "between 0 and 1, got -1"),
            ([{**OFF, "layer": 1.0}], TypeError, r"layer of an edit .* whole number, got 1\.0"),
            ([{**OFF, "layer": True}], TypeError, "layer of an edit .* whole number, got True"),
            ([{**OFF, "head": 3}], ValueError, "head of an edit must be between 0 and 2, got 3"),
            ([{**OFF, "head": -1}], ValueError, "head of an edit .* got -1"),
            ([{**OFF, "head": "1"}], TypeError, "head of an edit .* whole number, got '1'"),
            ([OFF, HOT, OFF], ValueError, r"edits name \(layer, head\) \(1, 2\) twice"),
            ([OFF, {**HOT, "layer": 1, "head": 2}], ValueError, "twice"),
            ([{**OFF, "off": False}], ValueError, '"off" of an edit must be True, got False'),
            ([{**OFF, "off": 1}], ValueError, '"off" of an edit must be True, got 1'),
            ([{**HOT, "temperature": 0}], ValueError, "must be positive and finite, got 0"),
            ([{**HOT, "temperature": -2.0}], ValueError, r"positive and finite, got -2\.0"),
            ([{**HOT, "temperature": float("nan")}], ValueError, "positive and finite, got nan"),
            ([{**HOT, "temperature": float("inf")}], ValueError, "positive and finite, got inf"),
            ([{**HOT, "temperature": True}], TypeError, "temperature .* a number, got True"),
            ([{**HOT, "temperature": "2"}], TypeError, "temperature .* a number, got '2'"),
            ([{**HOT, "temperature": None}], TypeError, "temperature .* a number, got None"),
            ([{**OFF, **HOT}], ValueError, "an edit must have layer, head, and .* got"),
            ([{"layer": 0, "head": 0}], ValueError, r"got \['head', 'layer'\]"),
            ([{**OFF, "colour": 3}], ValueError, r"got \['colour', 'head', 'layer', 'off'\]"),
            ([{**OFF, 3: 4}], ValueError, r"got \[3, 'head', 'layer', 'off'\]"),
            ([{}], ValueError, r"got \[\]"),
            (["off"], traitlets.TraitError, "edits"),
            ("off", traitlets.TraitError, "edits"),
            (None, traitlets.TraitError, "edits"),
        ],
    )
    def test_what_is_no_edit_changes_nothing(self, view, edits, error, message):
        view.edits = [HOT]
        before = view.says, view.opened, view.thumbnails, view.edits
        with pytest.raises(error, match=message):
            view.edits = edits
        assert (view.says, view.opened, view.thumbnails, view.edits) == before
        assert list(view.changes) == [(0, 1)]

    def test_the_model_is_left_as_it_was(self, make, tokenizers):
        model, tokenizer = make("masked words", hidden_dropout_prob=0.5)
        model.train()
        model.bert.encoder.layer[1].eval()
        modes = [module.training for module in model.modules()]
        state = torch.get_rng_state()
        parameters = [p.clone() for p in model.parameters()]
        view = explore(model, tokenizer, TEXT)
        view.edits = [OFF]
        view.text = ""
        view.text = "the [MASK] cat"
        answer(view, {"open": [1, 1]})
        assert [module.training for module in model.modules()] == modes
        assert torch.equal(torch.get_rng_state(), state)
        assert all(torch.equal(p, q) for p, q in zip(parameters, model.parameters(), strict=True))
        assert all(p.grad is None for p in model.parameters())
        assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


class TestQuestions:
    def test_alive(self, view):
        assert answer(view, {"alive": True}) == {}

    def test_a_closer_look_before_after_and_between(self, make_ours, monkeypatch):
        model, tokenizer = make_ours(max_len=700)
        text = "the cat sat on a mat " * 100
        view = explore(model, tokenizer, text)
        view.edits = [OFF]
        ids = tokenizer.encode(text).ids
        assert len(view.tokens) == 602
        old, new = (weights(model, ids, c)[1][2] for c in (None, view.changes))
        wanted = {"before": old, "after": new, "difference": new - old}
        for which, whole in wanted.items():
            question = {"of": [1, 2], "which": which}
            buffers = ask(view, {**question, "window": [500, 520, 30, 90]})
            found = np.frombuffer(buffers[0], "<f4").reshape(20, 60)
            assert np.allclose(found, whole[500:520, 30:90], atol=1e-6)
            (row,) = ask(view, {**question, "row": 17})
            assert np.allclose(np.frombuffer(row, "<f4"), whole[17], atol=1e-6)

    @pytest.mark.slow
    def test_the_difference_of_a_long_text_is_the_largest_change_of_each_patch(self, make_ours):
        model, tokenizer = make_ours(max_len=700)
        text = "the cat sat on a mat " * 100
        view = explore(model, tokenizer, text)
        view.edits = [{"layer": 0, "head": 1, "temperature": 0.5}]
        ids = tokenizer.encode(text).ids
        old, new = (weights(model, ids, c)[0][1] for c in (None, view.changes))
        sent = answer(view, {"of": [0, 1], "which": "difference", "whole": True})["whole"]
        assert (sent["rows"], sent["columns"], sent["exact"]) == (512, 512, True)
        edges = np.arange(513) * 602 // 512
        change = new - old
        wanted = np.zeros((512, 512))
        for i in range(512):
            for j in range(512):
                patch = change[edges[i] : edges[i + 1], edges[j] : edges[j + 1]]
                wanted[i, j] = patch.flat[np.abs(patch).argmax()]
        assert np.allclose(matrix(sent), wanted, atol=1e-6)
        assert wanted.min() < -0.0001 < 0.0001 < wanted.max()

    @pytest.mark.parametrize(
        "question",
        [
            {"open": [2, 0]},
            {"open": [0, 3]},
            {"open": [-1, 0]},
            {"open": [0, -1]},
            {"of": [9, 9], "which": "after", "row": 0},
            {"of": [0, 0], "which": "after", "row": 8},
            {"of": [0, 0], "which": "after", "row": -1},
            {"of": [0, 0], "which": "never", "row": 0},
            {"of": [0, 0], "which": "after", "window": [0, 9, 0, 8]},
            {"of": [0, 0], "which": "after"},
            {"nonsense": 1},
        ],
    )
    def test_what_has_no_answer(self, view, question):
        assert isinstance(answer(view, question), str)


def ask(view, question):
    return view._answer(question)[1]


class TestSelection:
    def test_at_first_a_head_is_open(self, view):
        assert view.selection == {"layer": 0, "head": 0, "query": None, "key": None}

    def test_a_head_stays_open_when_none_is_named(self, view):
        view.selection = {"layer": 1, "head": 2}
        view.selection = {"query": 3}
        assert view.selection == {"layer": 1, "head": 2, "query": 3, "key": None}
        view.selection = {"layer": 0}
        assert view.selection["head"] == 2

    def test_heads_are_counted_layer_by_layer(self, make_ours):
        model, tokenizer = make_ours()
        first = model.blocks[0].attention
        narrow = type(first)(24, 2)
        model.blocks[0].attention = narrow.eval()
        view = explore(model, tokenizer, TEXT)
        assert view.heads == [2, 3]
        view.selection = {"layer": 1, "head": 2}
        view.selection = {"layer": 0}
        assert view.selection["head"] == 1
        with pytest.raises(ValueError, match="between 0 and 1 in layer 0, got 2"):
            view.selection = {"layer": 0, "head": 2}
        assert view.selection["head"] == 1
        with pytest.raises(ValueError, match="head of an edit must be between 0 and 1, got 2"):
            view.edits = [{"layer": 0, "head": 2, "off": True}]
        view.edits = [{"layer": 1, "head": 2, "off": True}]
        assert view.problem == ""

    @pytest.mark.parametrize(
        ("selection", "error", "message"),
        [
            ({"layer": 2}, ValueError, r"selection\['layer'\] must be between 0 and 1, got 2"),
            ({"head": 3}, ValueError, r"selection\['head'\] must be between 0 and 2, got 3"),
            ({"query": 8}, ValueError, r"selection\['query'\] must be between 0 and 7, got 8"),
            ({"key": -1}, ValueError, r"selection\['key'\] must be between 0 and 7, got -1"),
            ({"layer": True}, TypeError, "got True"),
            ({"row": 1}, ValueError, r"selection has \['row'\]"),
        ],
    )
    def test_what_cannot_be_selected(self, view, selection, error, message):
        before = view.selection
        with pytest.raises(error, match=message):
            view.selection = selection
        assert view.selection == before

    def test_a_query_that_a_shorter_text_lacks_is_given_up(self, view):
        view.selection = {"layer": 1, "head": 2, "query": 7, "key": 2}
        view.text = "a [MASK]"
        assert view.selection == {"layer": 1, "head": 2, "query": None, "key": None}
        assert view.opened["of"] == [1, 2]

    def test_a_query_that_is_still_there_stays(self, view):
        view.selection = {"layer": 1, "head": 2, "query": 2, "key": 1}
        view.text = "a [MASK]"
        assert view.selection == {"layer": 1, "head": 2, "query": 2, "key": 1}

    def test_it_is_shared_with_another_view(self, view, make_ours):
        other = explore(*make_ours(words=True), TEXT)
        traitlets.link((view, "selection"), (other, "selection"))
        view.selection = {"layer": 1, "head": 1, "query": 4, "key": 0}
        assert other.selection == view.selection


@pytest.mark.slow
class TestSaving:
    def test_the_figure_is_of_the_selected_head_after_the_edits(self, view, monkeypatch, make_ours):
        drawn = []
        whole = MODULE.explore_figure
        monkeypatch.setattr(MODULE, "explore_figure", lambda *a: drawn.append(a) or whole(*a))
        view.edits = [OFF, HOT]
        view.selection = {"layer": 0, "head": 1}
        view.figure()
        view.title = "a $title$"
        view.selection = {"layer": 1, "head": 2}
        view.figure()
        model, tokenizer = make_ours(words=True)
        after = weights(model, tokenizer.encode(TEXT).ids, view.changes)
        assert np.allclose(drawn[0][0], after[0][1], atol=1e-6)
        assert drawn[0][1:] == (view.tokens, view.says, "layer 0, head 1", "")
        assert not drawn[1][0].any()
        assert drawn[1][3] == "a $title$"

    @pytest.mark.parametrize("kind", SINGLE)
    def test_a_picture_in_the_saved_notebook(self, make, kind, recwarn):
        view = explore(*make(kind), "the naïve [MASK] 猫 $x$ שלום")
        recwarn.clear()
        data, _ = view._repr_mimebundle_()
        assert base64.b64decode(data["image/png"]).startswith(b"\x89PNG")
        assert data["text/plain"] == repr(view)
        assert "application/vnd.jupyter.widget-view+json" in data
        assert not recwarn.list

    def test_each_list_of_what_it_says_has_its_title_and_bars(self, make):
        view = explore(*make("masked words"), "the [MASK] sat on the [MASK]")
        axes = view.figure().axes
        titles = [ax.get_title() for ax in axes]
        assert "token 2, [MASK]" in titles
        assert "token 6, [MASK]" in titles
        for (title, rows), ax in zip(view.says, [a for a in axes if a.containers], strict=True):
            assert ax.get_title() == title
            for column, bars in enumerate(ax.containers, 1):
                assert [bar.get_width() for bar in bars] == [row[column] for row in rows]

    def test_a_long_list_is_cut_and_says_so(self, make):
        view = explore(*make("token labels"), "cat " * 30)
        titles = [ax.get_title() for ax in view.figure().axes]
        n = len(view.says[0][1])
        assert f"label of each token (the first 16 of {n})" in titles

    @pytest.mark.parametrize("ending", ["png", "svg", "pdf"])
    def test_as_a_figure(self, view, tmp_path, ending):
        view.save(tmp_path / f"app.{ending}")
        assert (tmp_path / f"app.{ending}").stat().st_size > 1000

    def test_the_page_holds_every_head(self, view, tmp_path):
        view.edits = [OFF]
        view.selection = {"layer": 1, "head": 2}
        view.save(tmp_path / "app.html")
        state = saved_state(tmp_path / "app.html")
        assert state["state"]["live"] is False
        assert state["state"]["opened"]["of"] == [1, 2]
        questions = [question for question, _, _ in state["answers"]]
        assert questions == [{"open": [i, j]} for i in range(2) for j in range(3)]
        assert {tuple(sizes) for _, sizes, _ in state["answers"]} == {
            ("before",),
            ("before", "after"),
        }
        assert view.live is True

    @pytest.mark.parametrize(("room", "exact"), [(10_000_000, True), (20_000, False), (100, None)])
    def test_a_page_of_a_long_text_is_not_too_large(self, view, monkeypatch, room, exact):
        monkeypatch.setattr(MODULE, "PAGE", room)
        view.text = "cat " * 36
        view.edits = [{"layer": 0, "head": 0, "off": True}]
        answers = list(view._page_answers())
        assert sum(len(b) for _, (_, buffers) in answers for b in buffers) <= room
        assert [a[0]["before"]["exact"] for _, a in answers] == (
            [] if exact is None else [exact] * 6
        )


def saved_state(file):
    """What a saved page holds, read as strictly as a browser reads JSON."""
    found = re.search(r'id="state">(.*?)</script>', file.read_text(encoding="utf-8"), re.DOTALL)
    return json.loads(found[1], parse_constant=pytest.fail)


class TestNumbersThatAreNotFinite:
    @pytest.fixture
    def spoilt(self, make):
        """A function that makes the app for a model whose output holds one strange number."""

        def spoil(output, number):
            scores = getattr(output, "logits", None)
            scores = output.last_hidden_state if scores is None else scores
            scores.view(-1, scores.size(-1))[:, 0] = number

        def make_app(kind, number, **changes):
            model, tokenizer = make(kind, **changes)
            model.register_forward_hook(lambda *call: spoil(call[2], number))
            return explore(model, tokenizer, TEXT, other="a dog")

        return make_app

    @pytest.mark.parametrize("kind", SINGLE)
    def test_go_to_the_page_as_words(self, spoilt, kind, tmp_path):
        view = spoilt(kind, float("nan"))
        rows = [row for _, rows in view.says for row in rows]
        assert all(np.isnan(after) for *_, after in rows)
        view.save(tmp_path / "app.html")
        saved = saved_state(tmp_path / "app.html")["state"]
        for said in (view.get_state("says")["says"], saved["says"]):
            json.dumps(said, allow_nan=False)
            assert {after for _, rows in said for *_, after in rows} == {"nan"}

    @pytest.mark.slow
    @pytest.mark.parametrize("word", ["nan", "-inf"])
    def test_are_said_in_words_beside_the_bars(self, spoilt, word, recwarn):
        view = spoilt("classes", float(word), num_labels=1)
        recwarn.clear()
        figure = view.figure()
        figure.draw_without_rendering()
        assert not recwarn.list
        labels = [label.get_text() for ax in figure.axes for label in ax.get_yticklabels()]
        assert f"LABEL_0: {word} → {word}" in labels


class TestRefused:
    def test_no_tokenizer(self, make_ours):
        with pytest.raises(TypeError, match=r"tokenizer must be one of .*, got NoneType"):
            explore(make_ours()[0], None, TEXT)

    def test_no_model(self, tokenizers):
        with pytest.raises(TypeError, match=r"model must be a torch\.nn\.Module, got NoneType"):
            explore(None, tokenizers.bert, TEXT)

    @pytest.mark.parametrize("name", ["text", "other", "title"])
    def test_what_is_no_text(self, make_ours, name):
        texts = {"text": TEXT, name: ["the", "cat"]}
        with pytest.raises(TypeError, match=f"{name} must be a string, got list"):
            explore(*make_ours(), **texts)

    @pytest.mark.parametrize(
        ("text", "message"),
        [("", "no tokens: write something"), ("cat " * 40, "42 tokens, .* at most 40")],
    )
    def test_a_text_that_cannot_be_read(self, make_ours, text, message):
        with pytest.raises(ValueError, match=message):
            explore(*make_ours(), text)

    def test_a_second_text_that_is_too_long(self, make_ours):
        with pytest.raises(ValueError, match="second text: the text has 42 tokens"):
            explore(*make_ours(), TEXT, other="cat " * 40)

    @pytest.mark.parametrize("kind", ["t5", "marian", "bart"])
    def test_an_encoder_with_a_decoder(self, make, kind):
        model, tokenizer = make(kind)
        with pytest.raises(ValueError, match="is an encoder and a decoder, which read two texts"):
            explore(model, tokenizer, TEXT)
        view = explore(model.get_encoder(), tokenizer, TEXT)
        assert view.kind == "similarity"

    def test_attention_to_something_else_than_the_tokens(self, make_ours):
        class Looking(torch.nn.Module):
            def __init__(self):
                super().__init__()
                self.ids = torch.nn.Embedding(200, 8)
                self.attention = torch.nn.MultiheadAttention(8, 2, batch_first=True)

            def forward(self, input_ids):
                x = self.ids(input_ids)
                return self.attention(x, torch.ones(1, 3, 8), torch.ones(1, 3, 8))[0]

        with pytest.raises(ValueError, match="attention is 8 × 3 for 8 tokens: explore needs one"):
            explore(Looking().eval(), make_ours()[1], TEXT)

    def test_a_classifier_that_works_out_its_first_token_alone(self, make_ours):
        encoder, tokenizer = make_ours()
        model = BertForSequenceClassification(encoder, 3).eval()
        advice = (
            r"attention is 1 × 8 for 8 tokens in layer 1: explore needs .* "
            r"explore\(model\.encoder, tokenizer, text\)"
        )
        with pytest.raises(ValueError, match=advice):
            explore(model, tokenizer, TEXT)
        assert explore(model.encoder, tokenizer, TEXT).kind == "similarity"

    def test_the_public_name(self):
        assert av.explore is explore
        assert av.ExploreView is ExploreView

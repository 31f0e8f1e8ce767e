"""What a view refuses leaves no trace, whatever the view, the trait, and the way it came."""

import json
import re
from functools import cache

import ipywidgets
import numpy as np
import pytest
import torch
import traitlets
from tokenizers import Tokenizer, models, pre_tokenizers

import attnviz as av
from attnviz.lessons import predict
from attnviz.models import BertConfig, BertEncoder
from attnviz.views.page import strict
from attnviz.views.refusing import RefusingWidget

NAN, HALF = float("nan"), "\ud800"
TOKENS = list("abcde")


def weights(n=5, layers=2, heads=3):
    return [np.full((heads, n, n), 1 / n, np.float32) for _ in range(layers)]


@cache
def record(n=5, change=None, **call):
    """A captured record of three heads; change is made to its query."""

    class Attention(torch.nn.Module):
        def forward(self, x):
            query = x.clone()
            query[0, 0, 1, 0] = x[0, 0, 1, 0] if change is None else change
            return torch.nn.functional.scaled_dot_product_attention(query, x, x, **call)

    torch.manual_seed(0)
    model, x = Attention(), torch.randn(1, 3, n, 4)
    edited = {(0, 0): av.uniform} if change is not None or call else {(0, 0): lambda w: w}
    with av.edit(model, edited), av.capture(model) as seen:
        model(x)
    return seen[0]


class Letters:
    """A tokenizer of letters, which stumbles over one word."""

    def encode(self, text):
        if "boom" in text:
            raise RuntimeError("it went boom")
        ids = [ord(letter) for letter in text]
        places = [(i, i + 1) for i in range(len(text))]
        return type("Encoding", (), {"tokens": list(text), "ids": ids, "offsets": places})


@cache
def reader():
    """A model and its tokenizer."""
    words = ["[UNK]", "cat", "dog"]
    tokenizer = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    torch.manual_seed(0)
    sizes = {"vocab_size": 3, "d_model": 6, "n_layers": 2, "n_heads": 3, "d_ff": 6, "max_len": 9}
    return BertEncoder(BertConfig(**sizes)).eval(), tokenizer


def snapshots():
    return {0: weights(), 10: weights(), 20: weights()}


MAKE = {  # view: how one is made, with another title or other arguments
    "heatmap": lambda **more: av.heatmap(**{"weights": weights()[0][0], "tokens": TOKENS} | more),
    "heads": lambda **more: av.heads(**{"seen": weights(), "tokens": TOKENS} | more),
    "flow": lambda **more: av.flow(**{"seen": weights(80), "tokens": TOKENS * 16} | more),
    "scrubber": lambda **more: av.scrubber(**{"snapshots": snapshots(), "tokens": TOKENS} | more),
    "scores": lambda **more: av.scores(**{"record": record(), "tokens": TOKENS, "head": 1} | more),
    "overlay": lambda **more: av.overlay(
        **{"seen": weights(7), "image": np.zeros((6, 9), np.uint8), "patch": 3} | more
    ),
    "tokens": lambda **more: av.tokenizer(**{"tokenizers": Letters(), "text": "good"} | more),
    "explore": lambda **more: av.explore(*reader(), **{"text": "a cat saw a dog"} | more),
    "quiz": lambda **more: predict(
        **{"question": "Which?", "options": ["a", "b"], "answer": 1, "because": ""} | more
    ),
}
NUMBERS = [99, -1, 1.5, True, "1", [1]]
WHERE = [{"query": n} for n in NUMBERS] + [{"key": n} for n in NUMBERS]
WHERE += [{"nonsense": 1}, {3: 4}, 3, None, "query", [["query", 1]]]
HEAD = [{"layer": n} for n in NUMBERS] + [{"head": n} for n in NUMBERS] + WHERE
SHARE = [7, -0.1, NAN, float("inf"), True, "0.5", None, [0.5], 10**400]
CHOICE = ["x", "", 3, None, True, ["all"]]
TEXT = [3, None, ["a"], {"a": 1}]
EDITS = [{"layer": 9, "head": 0, "off": True}, {"layer": 0, "head": 0}, {}, 3, "off"]
EDITS += [{"layer": 0, "head": 0, "temperature": heat} for heat in (NAN, 0, "2", True, 10**400)]
WRITABLE = {  # view: trait: a value that is taken, and others that are refused
    "heatmap": {
        "selection": ({"query": 2, "key": 1}, WHERE),
        "threshold": (0.5, SHARE),
        "scale": ("log", CHOICE),
    },
    "heads": {
        "selection": ({"layer": 1, "head": 2, "query": 2, "key": 1}, HEAD),
        "threshold": (0.5, SHARE),
        "scale": ("log", CHOICE),
        "order": ("itself", CHOICE),
    },
    "flow": {
        "selection": ({"layer": 1, "head": 2, "query": 2, "key": 1}, HEAD),
        "threshold": (0.5, SHARE),
        "links": ("AB", CHOICE),
        "heads": ([0, 2], [[n] for n in NUMBERS] + [3, None, "0", {"0": 1}, [[]]]),
        "start": ({"query": 10, "key": 3}, WHERE[:4] + WHERE[5:]),
    },
    "scrubber": {
        "selection": ({"layer": 1, "head": 2, "query": 2, "key": 1}, HEAD),
        "threshold": (0.5, SHARE),
        "scale": ("log", CHOICE),
        "step": (10, [999, -1, 5, 10.0, "10", None, True, [10]]),
    },
    "scores": {"selection": ({"query": 2, "key": 1}, WHERE)},
    "overlay": {
        "selection": ({"layer": 1, "head": 2, "query": 2, "key": 1}, HEAD),
        "strength": (0.3, SHARE),
    },
    "tokens": {"selection": ({}, WHERE[-6:]), "text": ("fine", [*TEXT, HALF, "boom"])},
    "explore": {
        "selection": ({"layer": 1, "head": 2, "query": 2, "key": 1}, HEAD),
        "text": ("a dog saw a cat", TEXT),
        "other": ("a cat", TEXT),
        "edits": (
            [{"layer": 1, "head": 2, "off": True}],
            [[one] for one in EDITS] + [[{"layer": 0, "head": 0, "off": True}] * 2, 3, None, "off"],
        ),
    },
    "quiz": {"chosen": (1, [99, -1, 2, 1.5, True, "1", [0]])},
}
QUESTIONS = {  # view: what its page may ask
    "heatmap": [{"row": 2}, {"window": [0, 3, 1, 4]}],
    "heads": [
        {"refine": True},
        {"open": [1, 2]},
        {"open": [1, 2], "whole": True},
        {"row": 2, "of": [1, 2]},
        {"window": [0, 3, 1, 4], "of": [1, 2]},
    ],
    "flow": [{"layer": 1, "query": 3, "key": 2}],
    "scrubber": [
        {"open": [1, 2]},
        {"row": 2, "of": [1, 2], "at": 1},
        {"window": [0, 3, 1, 4], "of": [1, 2], "at": 1},
    ],
    "scores": [{"query": 2}, {"query": 2, "key": 1}],
    "overlay": [{"query": 3}],
    "tokens": [{"cut": "fine"}],
    "explore": [
        {"alive": True},
        {"open": [1, 2]},
        {"of": [1, 2], "which": "after", "row": 3},
        {"of": [1, 2], "which": "difference", "whole": True},
        {"of": [1, 2], "which": "before", "window": [0, 3, 1, 4]},
    ],
}
TRAITS = [(name, trait) for name, traits in WRITABLE.items() for trait in traits]


def by_page(view, trait, value):
    view.set_state({trait: value})


def by_page_after_others(view, trait, value):
    view.set_state({**others(view, trait), trait: value})


def held(view, trait, value):
    with view.hold_trait_notifications():
        for name, good in others(view, trait).items():
            setattr(view, name, good)
        setattr(view, trait, value)


WAYS = [setattr, held, by_page, by_page_after_others]


def others(view, trait):
    """The other traits of the view, with values that they would take."""
    traits = next(WRITABLE[name] for name, made in MADE.items() if isinstance(view, made))
    return {name: good for name, (good, _) in traits.items() if name != trait}


def all_of(view):
    """Everything that a view holds: what it sends, and what it keeps for itself."""
    return view.get_state(), {name: id(value) for name, value in vars(view).items()}


def widgets():
    return set(ipywidgets.widgets.widget._instances)


# anywidget derives a class of its own for every single widget
MADE = {name: type(make()).__mro__[1] for name, make in MAKE.items()}


class TestWhatMayChange:
    def test_no_widget_is_left_out(self):
        def kinds(of):
            for kind in of.__subclasses__():
                yield from [kind, *kinds(kind)]

        ours = (k for k in kinds(RefusingWidget) if k.__module__.startswith("attnviz."))
        drawn = {kind.__name__ for kind in ours if hasattr(kind, "_esm")}
        assert drawn == {kind.__name__ for kind in MADE.values()}

    @pytest.mark.parametrize("name", MAKE)
    def test_no_trait_is_left_out(self, name):
        assert MADE[name].class_traits(page=True).keys() == WRITABLE[name].keys()

    @pytest.mark.slow
    @pytest.mark.parametrize(("name", "trait"), TRAITS)
    @pytest.mark.parametrize("way", WAYS[:3])
    def test_good_values_are_taken(self, name, trait, way):
        view, (good, _) = MAKE[name](), WRITABLE[name][trait]
        way(view, trait, good)
        value = getattr(view, trait)
        assert value == good or (trait == "selection" and value.items() >= good.items())

    @pytest.mark.parametrize("name", MAKE)
    def test_the_rest_is_not_for_the_page(self, name):
        view = MAKE[name]()
        before = all_of(view)
        rest = set(view.keys) - WRITABLE[name].keys()
        rest -= {"layout", "tabbable", "tooltip", "_dom_classes", "_view_count"}
        assert {"_esm", "_model_name"} < rest
        for trait in rest:
            with pytest.raises(ValueError, match=f"the page cannot change {trait}: only Python"):
                view.set_state({trait: view.get_state()[trait]})
            assert all_of(view) == before


class TestRefused:
    @pytest.mark.slow
    @pytest.mark.parametrize("way", WAYS)
    @pytest.mark.parametrize(("name", "trait"), TRAITS)
    def test_nothing_has_changed(self, name, trait, way):
        view = MAKE[name]()
        for bad in WRITABLE[name][trait][1]:
            before = all_of(view)
            with pytest.raises((ValueError, TypeError)) as caught:
                way(view, trait, bad)
            assert all_of(view) == before, bad
            assert isinstance(caught.value, traitlets.TraitError)
            assert re.search("must|expected|half|boom|has|name|too large", str(caught.value)), bad

    @pytest.mark.slow
    @pytest.mark.parametrize(("name", "trait"), TRAITS)
    def test_what_stood_stands_after_another_good_value(self, name, trait):
        view, (good, bad) = MAKE[name](), WRITABLE[name][trait]
        setattr(view, trait, good)
        before = all_of(view)
        for value in bad:
            with pytest.raises((ValueError, TypeError)):
                view.set_state({trait: value})
            assert all_of(view) == before, value

    @pytest.mark.parametrize(
        ("name", "trait", "stands", "like"),
        [
            ("scrubber", "step", 0, False),
            ("heatmap", "threshold", 0.0, False),
            ("flow", "heads", [0, 1, 2], [0.0, True, 2]),
            ("flow", "start", {"query": 0, "key": 0}, {"query": 0.0, "key": False}),
            ("quiz", "chosen", 1, True),
        ],
    )
    def test_what_is_equal_to_what_stands_is_no_better(self, name, trait, stands, like):
        view = MAKE[name]()
        setattr(view, trait, stands)
        with pytest.raises(
            TypeError, match=r"must be (a whole number|whole numbers|between 0 and 1)"
        ):
            view.set_state({trait: like})
        assert str(getattr(view, trait)) == str(stands)

    @pytest.mark.parametrize(("name", "trait"), TRAITS)
    def test_the_page_is_told_what_stands(self, name, trait):
        view, sent = MAKE[name](), []
        view._send = lambda message, buffers=None: sent.append(message)
        with pytest.raises((ValueError, TypeError)):
            by_page_after_others(view, trait, WRITABLE[name][trait][1][0])
        echo, last = sent
        assert (echo["method"], last["method"]) == ("echo_update", "update")
        stands = view.get_state(echo["state"].keys())
        assert last["state"] == stands
        assert trait in stands

    @pytest.mark.parametrize("name", MAKE)
    def test_python_is_told_of_a_wrong_kind_whatever_the_trait(self, name):
        view = MAKE[name]()
        before = all_of(view)
        for trait in [t for t in view.keys if t not in ipywidgets.DOMWidget.class_trait_names()]:
            with pytest.raises((ValueError, TypeError), match=trait):
                setattr(view, trait, object())
        assert all_of(view) == before


class TestConstructors:
    @pytest.mark.parametrize(
        ("name", "argument", "value"),
        [
            *((name, "title", 3) for name in MAKE if name != "quiz"),
            ("heatmap", "weights", np.ones((5, 5))),
            ("heatmap", "tokens", TOKENS[:4]),
            ("heads", "seen", [np.ones((3, 5, 5))]),
            ("flow", "seen", [np.full((3, 80, 80), NAN)]),
            ("scrubber", "snapshots", {0: [np.ones((3, 5, 5))]}),
            ("scores", "head", 3),
            ("overlay", "patch", 4),
            ("overlay", "seen", [np.ones((3, 7, 7))]),
            ("tokens", "text", "boom"),
            ("tokens", "text", HALF),
            ("explore", "other", "cat " * 10),
            ("quiz", "answer", 2),
            ("quiz", "answer", "b"),
            ("quiz", "options", ["a"]),
            ("quiz", "options", [1, 2]),
            ("quiz", "question", 3),
        ],
    )
    def test_what_cannot_be_made_leaves_no_widget_behind(self, name, argument, value):
        before = widgets()
        with pytest.raises((ValueError, TypeError)):
            MAKE[name](**{argument: value})
        assert widgets() == before


class TestWhatFollows:
    """A selection may leave things open: the page's as well as Python's keeps what is shown."""

    @pytest.mark.parametrize("way", WAYS[:3])
    @pytest.mark.parametrize("name", ["flow", "explore"])
    def test_an_open_layer_stays(self, name, way):
        view = MAKE[name]()
        view.selection = {"layer": 1, "head": 2}
        way(view, "selection", {"query": 3})
        assert (view.selection["layer"], view.selection["query"]) == (1, 3)

    @pytest.mark.parametrize("way", [setattr, by_page])
    def test_a_column_stays_where_it_starts(self, way):
        view = MAKE["flow"]()
        view.start = {"key": 7}
        way(view, "start", {"query": 10})
        assert view.start == {"query": 10, "key": 7}

    def test_the_open_head_is_that_of_a_selection_that_was_taken(self):
        view = MAKE["scrubber"]()
        view.selection = {"layer": 1, "head": 2}
        with pytest.raises(ValueError, match="step must be"):
            view.set_state({"selection": {"layer": 0, "head": 1}, "step": 999})
        view.selection = {"query": 3}
        titles = [text.get_text() for text in view.figure().texts] + [view.figure().get_suptitle()]
        assert any("layer 1, head 2" in title for title in titles)

    def test_the_pieces_are_those_of_a_text_that_was_taken(self):
        view = MAKE["tokens"]()
        with pytest.raises(TypeError):
            view.set_state({"text": "other", "selection": 3})
        assert view.shown["cuts"][0]["tokens"] == list("good")


def wrong(question):
    """Questions that differ from one with an answer in a single place."""
    yield question | {"nonsense": 1}
    for name, value in question.items():
        yield {other: v for other, v in question.items() if other != name}
        if isinstance(value, list):
            yield from (question | {name: bad} for bad in (value[:-1], [*value, 0], 3, "01", None))
            for i in range(len(value)):
                for bad in (-1, 10**6, 0.5, True, None, "0", []):
                    yield question | {name: [*value[:i], bad, *value[i + 1 :]]}
        elif isinstance(value, int) and value is not True:
            yield from (question | {name: bad} for bad in (-1, 10**6, 0.5, True, "0", [0], None))
        else:
            yield from (question | {name: bad} for bad in (False, 3, None, [value]))


class TestQuestions:
    @pytest.mark.parametrize("name", QUESTIONS)
    def test_good_ones_are_answered(self, name):
        for question in QUESTIONS[name]:
            answer, buffers = MAKE[name]()._answer(question)
            json.dumps(answer, allow_nan=False)
            assert all(isinstance(b, bytes) for b in buffers)

    @pytest.mark.slow
    @pytest.mark.parametrize("name", QUESTIONS)
    def test_what_cannot_be_answered_is_said_clearly_and_changes_nothing(self, name):
        view, good = MAKE[name](), [*QUESTIONS[name], {"query": 2, "key": None}]
        clear = "no answer to|must be|must lie within|asked for as|expected a unicode string"
        bad = [{}, {"nonsense": 1}, 3, None, "open", ["open"]]
        bad += [b for q in QUESTIONS[name] for b in wrong(q) if b not in good]
        before = all_of(view)
        for question in bad:
            with pytest.raises((ValueError, TypeError)) as caught:
                view._answer(question)
            assert re.search(clear, str(caught.value)), question
            assert all_of(view) == before, question

    @pytest.mark.parametrize("name", QUESTIONS)
    def test_the_page_hears_of_it_even_without_a_number(self, name):
        view, said = MAKE[name](), []
        view.send = lambda content, buffers=None: said.append(content)
        view._handle_custom_msg({"question": 3}, [])
        assert said == [{"number": None, "error": "this view has no answer to 3"}]


def page_of(view, tmp_path):
    """The state in a saved page, read as strictly as a browser does."""

    def refuse(word):
        raise AssertionError(f"{word} is no JSON")

    view.save(tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    found = re.search(r'id="state">(.*?)</script>', text, re.DOTALL)
    return json.loads(found[1], parse_constant=refuse)


class TestNumbersThatAreNone:
    @pytest.mark.parametrize("name", QUESTIONS)
    def test_a_page_is_strict_json(self, name, tmp_path):
        assert page_of(MAKE[name](), tmp_path)["state"]["title"] == ""

    @pytest.mark.slow
    @pytest.mark.parametrize("number", [NAN, float("inf")])
    @pytest.mark.parametrize("how", ["change", "scale"])
    def test_scores_that_an_edit_hides(self, how, number, tmp_path):
        view = av.scores(record(**{how: number}), TOKENS, 0)
        view.selection = {"query": 1}
        assert view.row["changed"] == "edit"
        state = page_of(view, tmp_path)
        assert state["answers"][1][1]["log_sum"] == "nan"
        sent = view.get_state(["scale", "row"])
        json.dumps({"scale": sent["scale"], "row": sent["row"]["log_sum"]}, allow_nan=False)
        view.figure()

    def test_they_become_words_wherever_they_are(self):
        value = {"a": [NAN, 1.5, (np.float64("-inf"), "x", None)], "b": {"c": float("inf")}, "d": 3}
        wanted = {"a": ["nan", 1.5, ["-inf", "x", None]], "b": {"c": "inf"}, "d": 3}
        assert strict(value) == wanted

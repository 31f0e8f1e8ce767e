"""Every view with every kind of token: what travels is UTF-8, what is drawn can be seen."""

import io
import logging
import warnings
from types import SimpleNamespace
from xml.dom.minidom import parseString

import matplotlib
import numpy as np
import pytest
import torch
from jupyter_client.session import json_packer
from matplotlib.text import Text
from torch.nn.functional import scaled_dot_product_attention

import attnviz as av

matplotlib.use("agg")
TOKENS = [*("", " ", "\n", "\t", "\x00", "a\x1bb", "\x85", "\u200b", "\ufeff", "\ufffe", "\u202ex")]
TOKENS += ["\ud83d", "\ude00", "\ud83d\ude00", "\u0301", "猫", "नमस्ते", "\ue000", "$a$", "x" * 3000]
SEEN = ["∅", "␣", "↵", "⇥", "U+0000", "a‹U+001B›b", "U+0085", "U+200B", "U+FEFF", "U+FFFE"]
SEEN += ["‹U+202E›x", "U+D83D", "U+DE00"]
TITLE = "half \ud83d, \x07, \ufffe, 猫 and $"
N = len(TOKENS)
WEIGHTS = np.random.default_rng(0).dirichlet(np.ones(N), (2, N)).astype(np.float32)


def a_heatmap():
    return av.heatmap(WEIGHTS[0], TOKENS, title=TITLE)


def a_flow():
    return av.flow([WEIGHTS], TOKENS, title=TITLE)


def some_heads():
    return av.heads([WEIGHTS], TOKENS, title=TITLE)


def some_scores():
    class Attention(torch.nn.Module):
        def forward(self, x):
            return scaled_dot_product_attention(x, x, x)

    model = Attention()
    with av.capture(model) as seen:
        model(torch.eye(N)[None, None])
    return av.scores(seen[0], TOKENS, head=0, title=TITLE)


def a_scrubber():
    return av.scrubber({0: [WEIGHTS], 9: [WEIGHTS]}, TOKENS, title=TITLE)


def an_overlay():
    weights = np.full((2, N, 4), 0.25, np.float32)
    view = av.overlay([weights], np.zeros((8, 8), np.uint8), 4, tokens=TOKENS, title=TITLE)
    view.selection = {"query": 5}
    return view


def a_tokenizer():
    encoding = SimpleNamespace(ids=list(range(N)), tokens=TOKENS, offsets=[(0, 0)] * N)
    cutter = SimpleNamespace(encode=lambda _: encoding)
    return av.tokenizer({"half \ud83d": cutter, " ": cutter}, "a\x00\ufffe\n猫", title=TITLE)


VIEWS = [a_heatmap, a_flow, some_heads, some_scores, a_scrubber, an_overlay, a_tokenizer]


@pytest.fixture(params=VIEWS, ids=lambda make: make.__name__)
def view(request):
    return request.param()


def without_bytes(value):
    """What goes to the page as JSON."""
    if isinstance(value, dict):
        return {k: without_bytes(v) for k, v in value.items() if not isinstance(v, bytes)}
    return [without_bytes(v) for v in value] if isinstance(value, list) else value


def test_the_page_gets_utf8(view):
    state = without_bytes(view.get_state())
    json_packer(state)
    assert state["title"] == "half ‹U+D83D›, \x07, \ufffe, 猫 and $"
    assert view.title == TITLE


def test_so_does_every_message(view, monkeypatch):
    said = []
    monkeypatch.setattr(view.comm, "send", lambda data, buffers: said.append(data))
    view.title = "\ud83d"
    with pytest.raises(ValueError, match="only Python can"):
        view.set_state({"title": "\ude00"})  # what stands goes back to the page
    view.send({"error": "no \ud83d"})
    assert {message["method"] for message in said} == {"update", "custom"}
    json_packer(without_bytes(said))
    assert view.title == "\ud83d"


@pytest.mark.slow
def test_the_figure_is_valid_and_has_nothing_to_warn_of(view, caplog):
    file = io.BytesIO()
    with warnings.catch_warnings(), caplog.at_level(logging.WARNING, "matplotlib"):
        warnings.simplefilter("error")
        figure = view.figure()
        figure.savefig(file, format="svg")
    assert caplog.records == []
    parseString(file.getvalue())
    texts = [text.get_text() for text in figure.findobj(Text)]
    assert any("half ‹U+D83D›, ‹U+0007›, ‹U+FFFE›" in text for text in texts)
    assert max(map(len, texts)) < 120


def labels(view):
    """The words that stand for tokens in its figure."""
    figure = view.figure()
    return {text.get_text().split("  ")[-1] for text in figure.findobj(Text)}


@pytest.mark.parametrize("make", [a_heatmap, a_flow, a_tokenizer], ids=lambda make: make.__name__)
def test_the_figure_shows_each_token(make):
    assert set(SEEN) <= labels(make())


@pytest.mark.slow
def test_the_figure_shows_some_of_the_tokens():
    assert len(labels(a_scrubber()) & set(SEEN)) >= 6  # every second or third
    assert len(labels(some_scores()) & set(SEEN)) >= 3  # the strongest keys
    assert any("a‹U+001B›b: layer 0" in text for text in labels(an_overlay()))


@pytest.mark.slow
def test_what_is_saved_is_utf8_too(view, tmp_path):
    view.save(tmp_path / "view.html")
    page = (tmp_path / "view.html").read_text(encoding="utf-8")
    assert "<title>half ‹U+D83D›" in page
    json_packer(list(view._repr_mimebundle_()))

"""Views that are fed with what a model on a device gives: tensors, lists of them, and records."""

import numpy as np
import pytest
import torch
from torch import nn

import attnviz as av
from attnviz.models import BertConfig, BertEncoder, BertForPreTraining

pytestmark = pytest.mark.slow

TOKENS = list("abcdef")
IDS = torch.tensor([[2, 7, 4, 9, 3, 5]])


class Letters:
    """As much of a tokenizer of `tokenizers` as `explore` asks for."""

    def __init__(self):
        self.pieces = ["[PAD]", "[MASK]", *"abcdefghijklmnopqrstuvwxyz  "]

    def get_vocab_size(self):
        return len(self.pieces)

    def id_to_token(self, i):
        return self.pieces[i]

    def token_to_id(self, token):
        return self.pieces.index(token) if token in self.pieces else None

    def encode(self, text):
        ids = [self.pieces.index(letter.replace("_", "[MASK]")) for letter in text]
        return type("Encoding", (), {"ids": ids, "attention_mask": [1] * len(ids)})


@pytest.fixture
def weights(device):
    """(batch, head, query, key), in the graph of a model on the device."""
    scores = torch.randn(1, 2, 6, 6).to(device).requires_grad_()
    return scores.softmax(-1)


@pytest.fixture
def model(device):
    return BertForPreTraining(BertConfig(30, 16, 2, 2, 32, 12)).to(device).eval()


@pytest.fixture
def seen(model, device):
    with torch.no_grad(), av.capture(model) as seen:
        model(IDS.to(device))
    return seen


def on_the_cpu(thing):
    if isinstance(thing, torch.Tensor):
        return thing.detach().cpu()
    return [on_the_cpu(part) for part in thing]


def assert_shows_the_same(make, given, tmp_path):
    """A view of tensors shows what it shows of their copies on the CPU, live, saved and still."""
    view, same = make(given), make(on_the_cpu(given))
    left_out = ("_model_id", "_view_module_version")
    for name, value in same.get_state().items():
        if name not in left_out and not isinstance(value, str | None):
            assert view.get_state()[name] == value, name
    for ending in ("html", "svg"):
        view.save(tmp_path / f"view.{ending}")


WAYS = {
    "heatmap": lambda w: av.heatmap(w[0, 1], TOKENS),
    "heads": lambda w: av.heads([w, w], TOKENS),
    "flow": lambda w: av.flow([w], TOKENS),
    "overlay": lambda w: av.overlay([w], torch.rand(6, 4, generator=torch.Generator()), 2),
    "scrubber": lambda w: av.scrubber({1: [w], 5: [w]}, TOKENS),
}


class TestTensors:
    @pytest.mark.parametrize("way", WAYS)
    def test_of_a_device(self, weights, tmp_path, way):
        assert_shows_the_same(WAYS[way], weights, tmp_path)

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
    def test_of_lower_precision(self, weights, tmp_path, dtype):
        assert_shows_the_same(WAYS["heads"], weights.to(dtype), tmp_path)

    def test_in_lists(self, weights, tmp_path):
        assert_shows_the_same(lambda rows: av.heatmap(rows, TOKENS), [*weights[0, 0]], tmp_path)
        heads = [*weights[0]]
        assert_shows_the_same(lambda heads: av.heads([heads], TOKENS), heads, tmp_path)

    def test_as_losses_and_images(self, device, weights, tmp_path):
        losses = [torch.tensor(loss, device=device, requires_grad=True) for loss in (2.0, 1.0)]
        for given in (losses, torch.stack(losses)):
            assert_shows_the_same(
                lambda losses: av.scrubber({1: [weights]}, TOKENS, losses=losses), given, tmp_path
            )
        image = torch.rand(3, 6, 4).to(device)
        assert_shows_the_same(lambda image: av.overlay([weights], image, 2), image, tmp_path)

    def test_in_a_figure(self, weights):
        ax = av.plot_heatmap(weights[0, 0], TOKENS)
        assert ax.get_figure() is not None


class TestRecords:
    def test_of_a_model_on_the_device(self, seen, tmp_path):
        views = {
            "heatmap": av.heatmap(seen[0], TOKENS, head=1),
            "heads": av.heads(seen, TOKENS),
            "flow": av.flow(seen, TOKENS),
            "scores": av.scores(seen[0], TOKENS, head=1),
            "overlay": av.overlay(seen, np.zeros((6, 4)), 2),
            "scrubber": av.scrubber({1: seen, 2: seen}, TOKENS, losses=[2.0, 1.0]),
        }
        for name, view in views.items():
            view.save(tmp_path / f"{name}.html")
            view.save(tmp_path / f"{name}.png")
        views["heatmap"]._answer({"row": 3})
        views["scores"].selection = {"query": 4, "key": 2}
        views["heads"].selection = {"layer": 1, "head": 1}

    def test_of_edited_attention(self, model, device):
        with torch.no_grad(), av.edit(model, {(0, 1): av.temperature(2.0)}), av.capture(model) as s:
            model(IDS.to(device))
        assert av.scores(s[0], TOKENS, head=1).row["changed"] == "edit"


class TestExplore:
    def test_shows_edits_and_saves(self, model, tmp_path):
        view = av.explore(model, Letters(), "ab_de")
        assert view.problem == ""
        view.edits = [{"layer": 0, "head": 1, "off": True}]
        view.text = "xyz_w"
        assert view.problem == ""
        assert view.kind == "masked words"
        view.save(tmp_path / "explore.html")
        view.save(tmp_path / "explore.png")
        view._answer({"of": [0, 1], "which": "difference", "whole": True})

    def test_compares_two_texts(self, device):
        model = BertEncoder(BertConfig(30, 16, 2, 2, 32, 12)).to(device)
        view = av.explore(model, Letters(), "abcde", other="abxde")
        assert view.kind == "similarity"
        assert view.problem == ""

    @pytest.mark.parametrize("shape", ["classes", "token labels", "next token"])
    def test_reads_every_kind_of_output(self, device, shape):
        class Model(nn.Module):
            def __init__(self):
                super().__init__()
                self.encoder = BertEncoder(BertConfig(30, 16, 1, 2, 32, 12))
                self.answers = nn.Linear(16, 30 if shape == "next token" else 3)

            def forward(self, input_ids):
                states = self.encoder(input_ids).last_hidden_state
                states = states[:, 0] if shape == "classes" else states
                return type("Output", (), {"logits": self.answers(states)})

        letters = Letters()
        if shape == "next token":
            letters.token_to_id = lambda token: None
        view = av.explore(Model().to(device), letters, "abcde")
        assert (view.kind, view.problem) == (shape, "")

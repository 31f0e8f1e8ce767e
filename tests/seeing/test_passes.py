"""Where a pass begins: one call of the model, or its parts until one would attend again."""

import asyncio
from contextlib import suppress

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from transformers import (
    AlbertConfig,
    AlbertModel,
    CLIPConfig,
    CLIPModel,
    GPT2Config,
    GPT2LMHeadModel,
)

import attnviz as av
from attnviz.models import Transformer, TransformerConfig, beam_search


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.qkv = nn.Linear(8, 24)
        self.failure = None

    def forward(self, x, memory=None):
        q, k, v = (t.unflatten(-1, (2, 4)).transpose(1, 2) for t in self.qkv(x).chunk(3, -1))
        if memory is not None:
            k = v = memory.unflatten(-1, (2, 4)).transpose(1, 2)
        mixed = F.scaled_dot_product_attention(q, k, v)
        if self.failure is not None:
            raise self.failure
        return x + mixed.transpose(1, 2).flatten(2)


class WrittenOut(Attention):
    def forward(self, x):
        q, k, v = (t.unflatten(-1, (2, 4)).transpose(1, 2) for t in self.qkv(x).chunk(3, -1))
        return x + ((q @ k.mT / 2).softmax(-1) @ v).transpose(1, 2).flatten(2)


class Stack(nn.Module):
    """Three layers, or the same one three times, and ways to run them."""

    def __init__(self, kind=Attention, shared=False):
        super().__init__()
        self.layers = nn.ModuleList(kind() for _ in range(1 if shared else 3))
        self.norm = nn.LayerNorm(8)

    def forward(self, x):
        for i in range(3):
            x = self.layers[i % len(self.layers)](x)
        return self.norm(x)

    def features(self, x):
        for i in range(3):
            x = self.layers[i % len(self.layers)](x)
        return self.norm(x)

    def normed(self, x):
        return self.norm(x)

    def features_with_helper(self, x):
        for i in range(3):
            x = self.layers[i % len(self.layers)](x)
            self.normed(x)
        return self.normed(x)

    @torch.no_grad()
    def generate(self, x):
        for _ in range(3):
            x = torch.cat([x, self(x)[:, -1:]], 1)
        return x

    def generate_by_layers(self, x):
        for _ in range(3):
            y = x
            for layer in self.layers:
                y = layer(y)
            x = torch.cat([x, y[:, -1:]], 1)
        return x


def by_hand(model, x):
    for layer in model.layers:
        x = layer(x)
    return model.norm(x)


def by_forward(model, x):
    for layer in model.layers:
        x = layer.forward(x)
    return model.norm.forward(x)


WAYS = {
    "a call": lambda model, x: model(x),
    "forward": lambda model, x: model.forward(x),
    "a method": lambda model, x: model.features(x),
    "a method with a helper": lambda model, x: model.features_with_helper(x),
    "by hand": by_hand,
    "each layer's forward": by_forward,
}


@pytest.fixture
def x():
    torch.manual_seed(0)
    return torch.randn(1, 5, 8)


def places(seen):
    return [(r.pass_number, r.index) for r in seen]


ONE_PASS = [(0, 0), (0, 1), (0, 2)]


@pytest.mark.parametrize("kind", [Attention, WrittenOut])
@pytest.mark.parametrize("way", WAYS)
class TestEachWay:
    """Every way to run a model makes the same passes, and edits the same layers."""

    def test_is_one_pass(self, kind, way, x):
        model = Stack(kind)
        with av.capture(model) as seen:
            WAYS[way](model, x)
        assert [(*p, r.path) for p, r in zip(places(seen), seen, strict=True)] == [
            (0, i, f"layers.{i}") for i in range(3)
        ]
        assert {r.kind for r in seen} == {"self"}
        assert all(r.query is not None for r in seen)

    def test_twice_makes_two_passes(self, kind, way, x):
        model = Stack(kind)
        with av.capture(model) as seen:
            WAYS[way](model, x)
            WAYS[way](model, x)
        assert places(seen) == [(p, i) for p in (0, 1) for i in range(3)]

    def test_before_and_after_a_call(self, kind, way, x):
        model = Stack(kind)
        with av.capture(model) as seen:
            WAYS[way](model, x)
            model(x)
            WAYS[way](model, x)
        assert places(seen) == [(p, i) for p in (0, 1, 2) for i in range(3)]

    @pytest.mark.parametrize("layer", range(3))
    def test_an_edit_hits_the_layer_of_that_number(self, kind, way, x, layer):
        model = Stack(kind)
        with av.edit(model, {(layer, 1): av.off}):
            expected = model(x)
        with av.edit(model, {(layer, 1): av.off}):
            actual = WAYS[way](model, x)
        assert torch.equal(actual, expected)


class TestLayersThatShareTheirParameters:
    @pytest.mark.parametrize("way", ["a call", "forward", "a method", "a method with a helper"])
    def test_run_again_within_a_pass(self, way, x):
        model = Stack(shared=True)
        with av.capture(model) as seen:
            WAYS[way](model, x)
            WAYS[way](model, x)
        assert places(seen) == [(p, i) for p in (0, 1) for i in range(3)]

    def test_of_hugging_face(self):
        sizes = {"hidden_size": 16, "intermediate_size": 16, "num_attention_heads": 2}
        config = AlbertConfig(**sizes, embedding_size=8, num_hidden_layers=3, vocab_size=9)
        model, ids = AlbertModel(config).eval(), torch.arange(6)[None]
        with av.capture(model) as seen:
            model(ids)
            model.encoder(model.embeddings(ids))
            model.forward(ids)
        assert places(seen) == [(p, i) for p in (0, 1, 2) for i in range(3)]


class TestGeneration:
    @pytest.mark.parametrize("method", ["generate", "generate_by_layers"])
    def test_each_new_token_is_a_pass(self, method, x):
        model = Stack()
        with av.capture(model) as seen:
            getattr(model, method)(x)
        assert places(seen) == [(p, i) for p in range(3) for i in range(3)]
        assert [r.n_keys for r in seen[::3]] == [5, 6, 7]

    def test_by_a_part_that_generates_on_its_own(self):
        """Its own loop calls it, and not the model, with as many keys each time."""

        class Captioner(nn.Module):
            def __init__(self):
                super().__init__()
                sizes = {"n_embd": 8, "n_head": 2, "n_layer": 2, "vocab_size": 9}
                ends = {"bos_token_id": 0, "eos_token_id": None, "pad_token_id": 0}
                self.writer = GPT2LMHeadModel(GPT2Config(**sizes, **ends, n_positions=12)).eval()

            def caption(self, ids, **options):
                return self.writer.generate(ids, max_new_tokens=4, do_sample=False, **options)

        model = Captioner()
        for options in ({}, {"cache_implementation": "static"}):
            with av.capture(model) as seen:
                model.caption(torch.arange(1, 6)[None], **options)
            assert places(seen) == [(p, i) for p in range(4) for i in range(2)]

    def test_a_beam_search_makes_one_pass_of_the_encoder_and_the_first_step(self):
        torch.manual_seed(0)
        model = Transformer(TransformerConfig(20, 20, d_model=16, n_heads=2, d_ff=32))
        with av.capture(model) as seen:
            beam_search(model, torch.arange(3, 8), start=1, end=2, max_len=4)
        steps = {}
        for record in seen:
            steps.setdefault(record.pass_number, []).append(record.path.split(".")[0])
        assert steps.pop(0) == ["encoder"] * 2 + ["decoder"] * 4
        assert list(steps.values()) == [["decoder"] * 4] * 3


class TestTowers:
    def test_run_one_by_one_are_one_pass(self):
        towers = {"hidden_size": 16, "intermediate_size": 16, "num_attention_heads": 2}
        towers |= {"num_hidden_layers": 2}
        images = {**towers, "image_size": 4, "patch_size": 2}
        config = CLIPConfig(text_config={**towers, "vocab_size": 9}, vision_config=images)
        model = CLIPModel(config).eval()
        with av.capture(model) as seen, torch.no_grad():
            for _ in range(2):
                model.get_image_features(torch.randn(1, 3, 4, 4))
                model.get_text_features(torch.arange(5)[None])
        assert places(seen) == [(p, i) for p in (0, 1) for i in range(4)]


class Own(nn.Module):
    """A model whose own methods attend."""

    def __init__(self, written_out):
        super().__init__()
        self.written_out = written_out
        self.drop, self.soften = nn.Dropout(0.0), nn.Softmax(-1)

    def forward(self, q, k):
        return self.attend(q, k)

    def attend(self, q, k):
        if not self.written_out:
            return F.scaled_dot_product_attention(q, k, k)
        return self.drop(self.soften(q @ k.mT / 2)) @ k


@pytest.mark.parametrize("written_out", [False, True])
class TestMethodsThatAttendThemselves:
    def test_are_seen_under_their_module(self, written_out):
        model = Own(written_out)
        q, k = torch.randn(1, 5, 4), torch.randn(1, 7, 4)
        with av.capture(model) as seen:
            expected = model(q, k)
            actual = model.attend(q, k)
        assert [(r.pass_number, r.index, r.path, r.kind) for r in seen] == [
            (0, 0, "Own", "cross"), (1, 0, "Own", "cross"),
        ]  # fmt: skip
        assert torch.equal(actual, expected)
        assert torch.equal(seen[0].weights, seen[1].weights)

    def test_are_edited(self, written_out):
        model, q = Own(written_out), torch.randn(1, 5, 4)
        with av.edit(model, {0: av.only(3)}):
            edited = model.attend(q, q)
        torch.testing.assert_close(edited, q[:, 3:4].expand(1, 5, 4))

    def test_keys_given_to_a_method_are_cross_attention(self, written_out):
        model = Own(written_out)
        with av.capture(model) as seen:
            model.attend(torch.randn(1, 5, 4), torch.randn(1, 7, 4))
            assert seen[0].kind == "cross"


INTERRUPTIONS = [KeyboardInterrupt, SystemExit, asyncio.CancelledError, GeneratorExit, RuntimeError]


@pytest.mark.parametrize("interruption", INTERRUPTIONS)
@pytest.mark.parametrize("way", ["a call", "forward", "a method", "by hand"])
class TestInterruptions:
    """Torch calls no hook for what is no Exception."""

    def interrupted(self, model, way, x, interruption):
        model.layers[1].failure = interruption()
        with pytest.raises(interruption):
            WAYS[way](model, x)
        model.layers[1].failure = None

    def test_the_next_call_is_the_next_pass(self, interruption, way, x):
        model = Stack()
        with av.capture(model) as seen:
            self.interrupted(model, way, x, interruption)
            model(x)
            model.features(x)
        assert places(seen) == [
            (0, 0), (0, 1), *[(p, i) for p in (1, 2) for i in range(3)],
        ]  # fmt: skip
        assert [r.path for r in seen[2:]] == [f"layers.{i}" for i in range(3)] * 2

    def test_an_edit_hits_the_same_layer_after_it(self, interruption, way, x):
        model = Stack()
        with av.edit(model, {(1, 0): av.off}):
            expected = model(x)
        with av.edit(model, {(1, 0): av.off}):
            self.interrupted(model, way, x, interruption)
            assert torch.equal(model(x), expected)


class Stubborn(nn.Module):
    """It goes on when its first layer is interrupted."""

    def __init__(self):
        super().__init__()
        self.first, self.second = Attention(), Attention()

    def forward(self, x):
        with suppress(KeyboardInterrupt):
            x = self.first(x)
        return self.second(x)


class TestAnInterruptionThatTheModelCatches:
    def test_the_pass_goes_on(self, x):
        model = Stubborn()
        model.first.failure = KeyboardInterrupt()
        with av.capture(model) as seen:
            model(x)
            model(x)
        assert [(*p, r.path) for p, r in zip(places(seen), seen, strict=True)] == [
            (p, i, path) for p in (0, 1) for i, path in enumerate(["first", "second"])
        ]

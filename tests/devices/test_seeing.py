"""Capture and edit of models on a device, and all that records and the two give."""

import copy

import pytest
import torch
import torch.nn.functional as F
import transformers
from comparing import assert_same, assert_works
from torch import nn

import attnviz as av
from attnviz.layers import EncoderBlock, causal_mask
from attnviz.models import GPT, BertConfig, BertEncoder, GPTConfig, Transformer, TransformerConfig

pytestmark = pytest.mark.slow

IDS = torch.tensor([[2, 7, 4, 9, 3, 5], [2, 8, 3, 6, 1, 0]])


class Eager(nn.Module):
    """An attention that is written out, with a mask that is added, dropout and an einsum."""

    def __init__(self, product="matmul"):
        super().__init__()
        self.embedding, self.qkv = nn.Embedding(30, 16), nn.Linear(16, 48)
        self.product = product

    def forward(self, ids):
        q, k, v = (
            t.unflatten(-1, (4, 4)).transpose(1, 2)
            for t in self.qkv(self.embedding(ids)).chunk(3, -1)
        )
        mask = torch.zeros(6, 6, device=q.device).masked_fill(
            ~causal_mask(6, device=q.device), -torch.inf
        )
        if self.product == "einsum":
            weights = (torch.einsum("bhqd,bhkd->bhqk", q, k) / 2 + mask).softmax(-1)
            return torch.einsum("bhqk,bhkd->bqhd", F.dropout(weights, 0.0), v)
        scores = torch.baddbmm(mask.expand(8, 6, 6), q.flatten(0, 1), k.flatten(0, 1).mT, alpha=0.5)
        return scores.unflatten(0, (2, 4)).softmax(-1) @ v


class Fused(nn.Module):
    """torch's own call, causal and with keys that queries share."""

    def __init__(self):
        super().__init__()
        self.embedding, self.q, self.kv = nn.Embedding(30, 16), nn.Linear(16, 16), nn.Linear(16, 16)

    def forward(self, ids):
        x = self.embedding(ids)
        q = self.q(x).unflatten(-1, (4, 4)).transpose(1, 2)
        k, v = (t.unflatten(-1, (2, 4)).transpose(1, 2) for t in self.kv(x).chunk(2, -1))
        return F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)


class Torchs(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(30, 16)
        layer = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)

    def forward(self, ids):
        return self.encoder(self.embedding(ids), src_key_padding_mask=ids == 0)


class Ours(nn.Module):
    def __init__(self, need_weights):
        super().__init__()
        self.encoder = BertEncoder(BertConfig(30, 16, 2, 4, 32, 12))
        self.need_weights = need_weights

    def forward(self, ids):
        return self.encoder(ids, ids != 0, need_weights=self.need_weights).last_hidden_state


class Writing(nn.Module):
    def __init__(self):
        super().__init__()
        self.gpt = GPT(GPTConfig(30, 16, 2, 4, 32, 12))

    def forward(self, ids):
        return self.gpt(ids).logits


class Translating(nn.Module):
    def __init__(self):
        super().__init__()
        sizes = {"d_model": 16, "n_heads": 4, "n_layers": 1, "d_ff": 32}
        self.model = Transformer(TransformerConfig(30, 30, **sizes))

    def forward(self, ids):
        return self.model(ids, ids[:, :4]).logits


MODELS = {
    "fused": lambda: Ours(False),
    "weights returned": lambda: Ours(True),
    "causal, shared keys": Fused,
    "written out": Eager,
    "einsum": lambda: Eager("einsum"),
    "torch.nn": Torchs,
    "GPT": Writing,
    "cross-attention": Translating,
}


@pytest.fixture(params=MODELS)
def model(request):
    return MODELS[request.param]().eval()


def captured(model, ids, **options):
    with av.capture(model, **options) as seen:
        output = model(ids)
    return seen, output


def everything(model, ids):
    """What each method of each record gives."""
    with torch.no_grad():
        seen, output = captured(model, ids)
    found = [output]
    for record in seen:
        found += [(record.path, record.kind, record.query is None)]
        found += [record.query, record.key, record.mask, record.scale]
        found += [record.weights, record.row(-1), record.tile(slice(1, 4), slice(0, 3))]
        found += [record.overview(3), record.part(1, slice(1, 3)).weights, len(repr(record))]
    return found


def test_a_record_gives_the_same(device, model):
    assert_works(device, everything, model, (IDS,))


def test_the_output_is_the_model_s_own(device, model):
    there, ids = copy.deepcopy(model).to(device), IDS.to(device)
    with torch.no_grad():
        assert torch.equal(captured(there, ids)[1], there(ids))


def test_gradients_of_weights(device, model):
    def run(model, ids):
        seen, output = captured(model, ids, with_gradients=True)
        output.square().sum().backward()
        return [(record.weights.detach(), record.weights.grad) for record in seen]

    assert_works(device, run, model, (IDS,))


CHANGES = {
    "off": lambda weights: av.off,
    "uniform": lambda weights: av.uniform,
    "only": lambda weights: av.only(0),
    "temperature": lambda weights: av.temperature(0.5),
    "mask": lambda weights: av.mask(torch.tensor([True, True, False, True, True, True])),
    "own": lambda weights: lambda weights: weights.flip(-1),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("name", ["fused", "written out", "einsum", "torch.nn"])
def test_an_edit_changes_the_same(device, name, change):
    def run(model, ids):
        change_of = CHANGES[change](None)
        with av.edit(model, {(0, 1): change_of}), av.capture(model) as seen:
            output = model(ids)
        return output, [(record.weights, record.overview(2)) for record in seen]

    assert_works(device, run, MODELS[name]().eval(), (IDS,))


def test_an_edit_that_breaks_the_rules_is_refused(device):
    model = Ours(False).eval().to(device)
    with (
        pytest.raises(ValueError, match="rows that sum to 1"),
        av.edit(model, {0: lambda weights: weights * 0.5}),
    ):
        model(IDS.to(device))


@pytest.mark.parametrize("name", ["fused", "weights returned", "torch.nn"])
def test_rollout(device, name):
    def run(model, ids):
        with torch.no_grad():
            return av.rollout(captured(model, ids)[0])

    assert_works(device, run, MODELS[name]().eval(), (IDS,))


def test_freed_records_give_the_memory_back(device):
    seen, _ = captured(Ours(False).to(device), IDS.to(device))
    record = seen[0]
    seen.free()
    with pytest.raises(RuntimeError, match="freed"):
        record.weights  # noqa: B018


def test_of_a_model_that_is_trained_with_mixed_precision(device):
    block = EncoderBlock(16, 4, 32).to(device)
    x = torch.randn(2, 6, 16, device=device)
    with torch.autocast(device.type, torch.bfloat16), av.capture(block) as seen:
        block(x)
    assert seen[0].query.dtype == torch.bfloat16
    weights = seen[0].weights
    assert_same(weights.sum(-1), torch.ones(2, 4, 6), device)


MODELS_OF_OTHERS = {
    "BERT": lambda **sizes: transformers.BertModel(
        transformers.BertConfig(
            **sizes,
            hidden_size=16,
            num_hidden_layers=2,
            num_attention_heads=4,
            intermediate_size=32,
        )
    ),
    "GPT-2": lambda **sizes: transformers.GPT2Model(
        transformers.GPT2Config(**sizes, n_embd=16, n_layer=2, n_head=4)
    ),
    "Llama": lambda **sizes: transformers.LlamaModel(
        transformers.LlamaConfig(
            **sizes,
            hidden_size=16,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            intermediate_size=32,
        )
    ),
}


@pytest.mark.parametrize("kernel", ["sdpa", "eager"])
@pytest.mark.parametrize("name", MODELS_OF_OTHERS)
def test_models_of_transformers(device, name, kernel):
    model = MODELS_OF_OTHERS[name](vocab_size=30, attn_implementation=kernel).eval()

    def run(model, ids):
        with torch.no_grad(), av.edit(model, {(1, 2): av.off}), av.capture(model) as seen:
            states = model(ids).last_hidden_state
        return states, [(r.weights, r.query is None, r.overview(2)) for r in seen]

    assert_works(device, run, model, (IDS,))

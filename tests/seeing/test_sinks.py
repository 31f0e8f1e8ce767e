"""Attention of which a share goes to no key: what a capture sees of it, and what an edit changes.

The models of transformers are small and have random weights; the oracle is the attention that they
report themselves, which has no column for the sinks.
"""

import math
import os

import pytest
import torch
import torch.nn.functional as F
from torch import nn

os.environ["HF_HUB_OFFLINE"] = "1"  # read when transformers is imported

import transformers as hf

import attnviz as av
from attnviz.seeing import AttentionRecord

SMALL = {
    "vocab_size": 60, "hidden_size": 32, "num_attention_heads": 4, "num_key_value_heads": 2,
    "head_dim": 8, "num_hidden_layers": 2, "intermediate_size": 40, "pad_token_id": 0,
}  # fmt: skip
EXPERTS = SMALL | {"num_local_experts": 2, "num_experts_per_tok": 1, "sliding_window": 4}
MIMO = EXPERTS | {
    "v_head_dim": 8,
    "moe_intermediate_size": 8,
    "layer_types": ["full_attention", "sliding_attention"],  # only these have sinks
}
FAMILIES = {
    "gpt-oss": (hf.GptOssModel, lambda: hf.GptOssConfig(**EXPERTS), [True, True]),
    "MiMo": (hf.MiMoV2FlashModel, lambda: hf.MiMoV2FlashConfig(**MIMO), [False, True]),
    "Flint": (hf.FlintModel, lambda: hf.FlintConfig(**SMALL), [True, True]),
    "privacy filter": (
        hf.OpenAIPrivacyFilterModel,
        lambda: hf.OpenAIPrivacyFilterConfig(**EXPERTS, eos_token_id=1),
        [True, True],
    ),
}
IDS = torch.randint(5, 60, (2, 7), generator=torch.Generator().manual_seed(0))
REAL = torch.tensor([[1] * 7, [0, 0] + [1] * 5])


def family(name):
    kind, config, _ = FAMILIES[name]
    torch.manual_seed(0)
    model = kind._from_config(config(), attn_implementation="eager").eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    return model


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("name", FAMILIES)
class TestTransformers:
    def test_is_seen_as_the_model_reports_it(self, name, padded):
        model, inputs = family(name), {"input_ids": IDS}
        inputs |= {"attention_mask": REAL} if padded else {}
        with torch.no_grad():
            plain = model(**inputs, output_attentions=True)
            with av.capture(model) as seen:
                watched = model(**inputs)
        assert torch.equal(plain.last_hidden_state, watched.last_hidden_state)
        assert [record.sinks for record in seen] == FAMILIES[name][2]
        for record, weights in zip(seen, plain.attentions, strict=True):
            assert torch.equal(record.weights, weights)
            rest = (1 - weights.sum(-1)) * record.sinks
            torch.testing.assert_close(record.rest, rest.clamp(0), atol=1e-6, rtol=0)

    def test_what_the_keys_share_comes_from_query_and_key(self, name, padded):
        model = family(name)
        with torch.no_grad(), av.capture(model) as seen:
            model(IDS, attention_mask=REAL if padded else None)
        for record in seen:
            scores = (
                record.query
                @ record.key.repeat_interleave(record.heads // record.key.size(1), 1).mT
            )
            shares = (scores * record.scale + (0 if record.mask is None else record.mask)).softmax(
                -1
            )
            kept = 1 - record.rest[..., None]
            torch.testing.assert_close(record.weights, shares * kept, atol=1e-5, rtol=0)


CUTS = {
    "an index": lambda weights, n: weights[..., :n],
    "narrow": lambda weights, n: weights.narrow(-1, 0, n),
    "torch.narrow": lambda weights, n: torch.narrow(weights, 3, 0, n),
    "split": lambda weights, n: weights.split([n, weights.size(-1) - n], -1)[0],
    "tensor_split": lambda weights, n: weights.tensor_split([n], -1)[0],
    "cut, then cast": lambda weights, n: weights[..., :n].float(),
    "two cuts": lambda weights, n: weights[..., : n + 1][..., :n],
    "dropout, then cut": lambda weights, n: F.dropout(weights, 0.0)[..., :n],
}


class WithSinks(nn.Module):
    """Attention written out beside two learned scores, whose columns are cut off afterwards."""

    def __init__(self, cut="an index", sinks=2, dropout=0.0):
        super().__init__()
        self.cut, self.dropout = CUTS[cut], dropout
        self.sinks = nn.Parameter(torch.linspace(-1, 1, sinks))

    def forward(self, q, k, v):
        scores = q @ k.mT / q.size(-1) ** 0.5
        scores = scores.masked_fill(torch.ones(scores.shape[-2:]).triu(1).bool(), -torch.inf)
        beside = self.sinks.expand(*scores.shape[:-1], -1)
        weights = self.cut(torch.cat([scores, beside], -1).softmax(-1), k.size(-2))
        return F.dropout(weights, self.dropout, self.training) @ v


def qkv(seed=0):
    torch.manual_seed(seed)
    return tuple(torch.randn(2, 3, 6, 4, requires_grad=True) for _ in range(3))


def by_hand(q, k, sinks):
    """The weights, row by row, with the sinks in what the exponentials are divided by."""
    rows = torch.zeros(2, 3, 6, 6)
    for query in range(6):
        powers = (q[:, :, query, None] * k[:, :, : query + 1]).sum(-1).div(2).exp()
        rows[:, :, query, : query + 1] = powers / (powers.sum(-1, keepdim=True) + sinks.exp().sum())
    return rows


class TestACutAlongTheKeys:
    @pytest.mark.parametrize("cut", CUTS)
    def test_in_any_spelling_keeps_the_columns_of_the_keys(self, cut):
        model, (q, k, v) = WithSinks(cut), qkv()
        plain = model(q, k, v)
        with av.capture(model) as seen:
            assert torch.equal(model(q, k, v), plain)
        (record,) = seen
        assert record.sinks
        expected = by_hand(q, k, model.sinks).detach()
        torch.testing.assert_close(record.weights, expected)
        torch.testing.assert_close(record.rest, 1 - expected.sum(-1))
        assert "with sinks" in repr(record)

    def test_a_mask_over_keys_and_sinks_is_not_followed(self):
        class MaskedLater(nn.Module):
            def forward(self, q, k, v):
                scores = torch.cat([q @ k.mT, torch.ones(2, 3, 6, 1)], -1)
                return (scores + torch.linspace(-1, 1, 7)).softmax(-1)[..., :6] @ v

        model, (q, k, v) = MaskedLater(), qkv()
        with av.capture(model) as seen:
            model(q, k, v)
        powers = (q @ k.mT + torch.linspace(-1, 1, 7)[:6]).exp().detach()
        torch.testing.assert_close(
            seen[0].weights, powers / (powers.sum(-1, keepdim=True) + math.exp(2))
        )
        assert seen[0].query is None

    def test_softmax_off_by_one_puts_a_zero_before_the_scores(self):
        class OffByOne(nn.Module):
            def forward(self, q, k, v):
                return F.pad(q @ k.mT / 2, (1, 0)).softmax(-1)[..., 1:] @ v

        model, (q, k, v) = OffByOne(), qkv()
        plain = model(q, k, v)
        with av.capture(model) as seen:
            assert torch.equal(model(q, k, v), plain)
        powers = (q @ k.mT / 2).exp().detach()
        expected = powers / (1 + powers.sum(-1, keepdim=True))
        torch.testing.assert_close(seen[0].weights, expected)
        torch.testing.assert_close(seen[0].rest, 1 - expected.sum(-1))

    def test_gradients_reach_the_kept_columns(self):
        model, (q, k, v) = WithSinks(), qkv()
        with av.capture(model, with_gradients=True) as seen:
            model(q, k, v).sum().backward()
        expected = v.detach().sum(-1)[:, :, None].expand(2, 3, 6, 6)
        torch.testing.assert_close(seen[0].weights.grad, expected)
        assert seen[0].rest.requires_grad

    def test_parts_and_tiles_have_the_same_weights_and_rest(self):
        model = WithSinks()
        with av.capture(model) as seen:
            model(*qkv())
        (record,) = seen
        part = record.part(1, slice(1, 3))
        assert torch.equal(part.weights, record.weights[1:, 1:3])
        assert torch.equal(part.rest, record.rest[1:, 1:3])
        assert torch.equal(record.tile(slice(2, 4), slice(1, 5)), record.weights[:, :, 2:4, 1:5])
        assert torch.equal(record.overview(6), record.weights)

    def test_a_part_that_is_multiplied_too_is_no_sink(self):
        class TwoParts(nn.Module):
            def forward(self, q, k, v, prefix_k, prefix_v):
                scores = torch.cat([q @ prefix_k.mT, q @ k.mT], -1)
                weights = scores.softmax(-1)
                return weights[..., :2] @ prefix_v + weights[..., 2:] @ v

        q, k, v = qkv()
        model = TwoParts()
        with av.capture(model) as seen:
            model(q, k, v, k[:, :, :2], v[:, :, :2])
        assert not any(record.sinks for record in seen)


class TestRest:
    def test_is_zero_without_sinks_also_where_nothing_may_be_seen(self):
        mask = torch.ones(3, 3, dtype=torch.bool)
        mask[1] = False
        query = torch.randn(2, 4, 3, 8)
        record = AttentionRecord(0, 0, "attention", "self", query, query, mask)
        assert record.weights[:, :, 1].abs().max() == 0
        assert torch.equal(record.rest, torch.zeros(2, 4, 3))

    def test_is_float32_and_never_below_zero(self):
        weights = torch.tensor([[[[0.5, 0.5078125]]]], dtype=torch.bfloat16)
        record = AttentionRecord(0, 0, "", "self", written_out=weights, sinks=True)
        assert record.rest.dtype == torch.float32
        assert record.rest.item() == 0

    def test_is_all_of_a_row_that_the_keys_get_nothing_of(self):
        record = AttentionRecord(0, 0, "", "self", written_out=torch.zeros(1, 1, 2, 2), sinks=True)
        assert record.rest.tolist() == [[[1, 1]]]


CHANGES = {
    "off": av.off,
    "uniform": av.uniform,
    "only": av.only(0),
    "temperature": av.temperature(3.0),
    "mask": av.mask(torch.tensor([True, False, True, True, True, False])),
    "half": lambda weights: 0.5 * weights,
    "everything to the first key": lambda weights: torch.eye(6)[[0]].expand_as(weights),
}


class TestEdit:
    @pytest.mark.parametrize("name", CHANGES)
    def test_output_and_gradients_are_those_of_the_changed_weights(self, name):
        model, inputs = WithSinks(), qkv()
        with av.capture(model) as seen, av.edit(model, {(0, 1): CHANGES[name]}):
            mine = model(*inputs)
        weights = by_hand(*inputs[:2], model.sinks.detach())
        changed = torch.stack([weights[:, 0], CHANGES[name](weights[:, 1]), weights[:, 2]], 1)
        theirs = changed @ inputs[2]
        torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(seen[0].weights, changed.detach())
        torch.testing.assert_close(seen[0].rest, 1 - changed.detach().sum(-1))
        for a, b in zip(
            torch.autograd.grad(mine.square().sum(), inputs),
            torch.autograd.grad(theirs.square().sum(), inputs),
            strict=True,
        ):
            torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)

    def test_a_head_that_is_off_gives_all_to_no_key(self):
        model = WithSinks()
        with av.capture(model) as seen, av.edit(model, {(0, 2): av.off}):
            model(*qkv())
        assert torch.equal(seen[0].rest[:, 2], torch.ones(2, 6))

    def test_dropout_stays_on_the_changed_weights(self):
        torch.manual_seed(0)
        model = WithSinks(dropout=0.5).train()
        zeros, ones = torch.zeros(1, 1, 300, 300), torch.ones(1, 1, 300, 300)
        with av.edit(model, {0: lambda weights: weights * 0 + 1 / 600}):
            mixed = model(zeros, zeros, ones)
        assert mixed.std() > 0.01
        assert mixed.mean().item() == pytest.approx(0.5, abs=0.01)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda w: w + 1, r"at most 1 \(the rest goes to no key\), got one that sums to 6\.\d"),
            (lambda w: w - 1, r"at most 1 .* sums to -5"),
            (lambda w: w * torch.nan, "sums to nan"),
        ],
    )
    def test_refuses_rows_above_one_and_below_zero(self, change, message):
        model = WithSinks()
        with av.edit(model, {0: change}), pytest.raises(ValueError, match=message):
            model(*qkv())

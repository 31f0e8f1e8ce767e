"""Attention that is written out: the queries, keys, mask and scale behind its weights."""

import gc
import math

import pytest
import torch
import torch.nn.functional as F
import transformers as hf
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from written import Written

import attnviz as av
from attnviz.layers import MultiHeadAttention
from attnviz.models import BertConfig, BertEncoder
from attnviz.seeing.record import attention_weights

INF = math.inf


@pytest.fixture(autouse=True)
def _same_numbers():
    torch.manual_seed(0)


def weights_behind(record) -> Tensor:
    """The weights that a record's query, key, mask and scale give."""
    return attention_weights(record.query, record.key, record.mask, False, record.scale)


def assert_reproduced(record, atol=1e-6):
    batch, heads, n_queries, n_keys = record.weights.shape
    assert record.written_out is not None
    assert record.query.shape[:3] == (batch, heads, n_queries)
    assert (record.key.size(0), record.key.size(2)) == (batch, n_keys)
    assert heads % record.key.size(1) == 0
    assert isinstance(record.scale, float)
    if record.mask is not None:
        assert torch.broadcast_shapes(record.mask.shape, record.weights.shape) == (
            batch, heads, n_queries, n_keys,
        )  # fmt: skip
    torch.testing.assert_close(weights_behind(record), record.weights, atol=atol, rtol=0)


def assert_not_found(record):
    assert (record.query, record.key, record.mask) == (None, None, None)
    torch.testing.assert_close(record.weights.sum(-1), torch.ones(record.weights.shape[:-1]))


# --- transformers ---------------------------------------------------------------------------------

TEXT = torch.randint(3, 60, (3, 7), generator=torch.Generator().manual_seed(0))
REAL = torch.tensor([[1] * 7, [1] * 4 + [0] * 3, [0] * 2 + [1] * 5])  # padding right and left
BERT = {
    **{"vocab_size": 60, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4},
    "intermediate_size": 40,
}
T5 = {"vocab_size": 60, "d_model": 32, "d_kv": 8, "d_ff": 40, "num_layers": 2, "num_heads": 4}
IMAGES = {"pixel_values": torch.randn(3, 3, 16, 16, generator=torch.Generator().manual_seed(0))}
READ = {"input_ids": TEXT}
MODELS = {
    "bert": (hf.BertModel, hf.BertConfig(**BERT), READ),
    "distilbert": (
        hf.DistilBertModel,
        hf.DistilBertConfig(vocab_size=60, dim=32, n_layers=2, n_heads=4, hidden_dim=40),
        READ,
    ),
    "gpt2": (
        hf.GPT2Model,
        hf.GPT2Config(
            **{"vocab_size": 60, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 20},
            scale_attn_by_inverse_layer_idx=True,  # each layer has a scale of its own
            bos_token_id=0,
            eos_token_id=0,
        ),
        READ,
    ),
    "llama, with grouped queries": (
        hf.LlamaModel,
        hf.LlamaConfig(**BERT, num_key_value_heads=2),
        READ,
    ),
    "t5, with relative positions": (
        hf.T5Model,
        hf.T5Config(**T5, decoder_start_token_id=0),
        READ | {"decoder_input_ids": TEXT[:, :5]},
    ),
    "vit": (
        hf.ViTModel,
        hf.ViTConfig(
            **{k: v for k, v in BERT.items() if k != "vocab_size"}, image_size=16, patch_size=4
        ),
        IMAGES,
    ),
}
ON_WHAT = [(n, p) for n in MODELS for p in ("whole", "padded") if n != "vit" or p == "whole"]


def build(name: str, kernel: str, dtype=torch.float32) -> nn.Module:
    """A model with random weights, the same for each kernel, and attention with clear peaks."""
    kind, config, _ = MODELS[name]
    torch.manual_seed(0)
    model = kind._from_config(config, attn_implementation=kernel).eval()
    for parameter in model.parameters():
        if parameter.dim() > 1:
            nn.init.normal_(parameter, std=1 / math.sqrt(parameter[0].numel()))
    return model.to(dtype)


def captured(name: str, padding: str, kernel: str = "eager", dtype=torch.float32):
    model, inputs = build(name, kernel, dtype), MODELS[name][2]
    if padding == "padded":
        inputs = inputs | {"attention_mask": REAL}
    inputs = {k: t.to(dtype) if t.is_floating_point() else t for k, t in inputs.items()}
    with torch.no_grad(), av.capture(model) as seen:
        model(**inputs)
    return seen


class TestTransformers:
    @pytest.mark.parametrize(("name", "padding"), ON_WHAT)
    def test_what_is_found_gives_the_weights_again(self, name, padding):
        for record in captured(name, padding):
            assert_reproduced(record)
            assert record.weights.std() > 0.04  # clear peaks: a wrong scale or mask would show

    @pytest.mark.slow
    @pytest.mark.parametrize(("name", "padding"), ON_WHAT)
    def test_it_is_what_the_fused_kernel_is_given(self, name, padding):
        eager, fused = captured(name, padding), captured(name, padding, "sdpa")
        assert len(eager) == len(fused) > 0
        for ours, theirs in zip(eager, fused, strict=True):
            real = slice(None) if padding == "whole" else 0  # padding is no input to compare
            key = theirs.key.repeat_interleave(theirs.heads // theirs.key.size(1), 1)
            torch.testing.assert_close(ours.query[real], theirs.query[real], atol=1e-5, rtol=0)
            torch.testing.assert_close(ours.key[real], key[real], atol=1e-5, rtol=0)
            assert ours.scale == pytest.approx(theirs.scale)

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=["half", "bfloat16"])
    @pytest.mark.parametrize("name", MODELS)
    def test_in_less_precision_as_far_as_it_goes(self, name, dtype):
        for record in captured(name, "whole", dtype=dtype):
            assert_reproduced(record, atol=4 * torch.finfo(dtype).eps)
            assert record.query.dtype == dtype

    def test_float16_decides_nothing_in_rows_that_may_see_nothing(self):
        """Its smallest number leaves nothing of a score it is added to; in float32 it does."""
        for record in captured("gpt2", "padded", dtype=torch.float16):
            some = (record.mask > -1e4).any(-1).expand(3, 4, 7)
            assert not some.all()
            weights = weights_behind(record)[some]
            torch.testing.assert_close(weights, record.weights[some], atol=4e-3, rtol=0)

    @pytest.mark.parametrize("when", ["before", "after"])
    def test_what_was_rounded_around_the_softmax(self, when):
        def attend(q, k, v):
            if when == "before":
                return (q @ k.mT).bfloat16().float().softmax(-1) @ v
            return (q @ k.mT).softmax(-1).bfloat16() @ v.bfloat16()

        assert_reproduced(seen_in(attend, *qkv(3, 4)), atol=0.05)

    def test_where_precision_is_chosen_for_each_operation(self):
        model = build("bert", "eager")
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16), av.capture(model) as seen:
            model(TEXT)
        for record in seen:
            assert_reproduced(record, atol=0.02)

    def test_in_inference_mode(self):
        model = build("gpt2", "eager")
        with torch.inference_mode(), av.capture(model) as seen:
            model(TEXT, attention_mask=REAL)
        for record in seen:
            assert_reproduced(record)

    def test_a_bias_of_relative_positions_is_kept_once_for_all_layers(self):
        first, second = captured("t5, with relative positions", "whole")[:2]
        assert first.mask.shape == (1, 4, 7, 7)
        assert first.mask.data_ptr() == second.mask.data_ptr()

    def test_in_each_pass_of_a_generation(self):
        config = MODELS["llama, with grouped queries"][1]
        model = hf.LlamaForCausalLM._from_config(config, attn_implementation="eager").eval()
        with av.capture(model) as seen:
            options = {"max_new_tokens": 3, "min_new_tokens": 3, "do_sample": False}
            model.generate(TEXT, attention_mask=REAL[[0, 0, 2]], pad_token_id=0, **options)
        assert [(r.pass_number, r.index) for r in seen] == [
            (p, i) for p in range(3) for i in (0, 1)
        ]
        assert [r.query.size(2) for r in seen[::2]] == [7, 1, 1]
        for record in seen:
            assert_reproduced(record)


class TestTorchAndOurs:
    @pytest.mark.parametrize(
        "masks",
        [
            {},
            {"key_padding_mask": REAL == 0},
            {"attn_mask": torch.randn(7, 7)},
            {"attn_mask": torch.randn(12, 7, 7), "key_padding_mask": (1.0 - REAL) * -1e9},
        ],
        ids=["no mask", "padding", "numbers", "numbers for each head, and padding"],
    )
    def test_multi_head_attention_scales_its_queries_first(self, masks):
        model, x = nn.MultiheadAttention(16, 4, batch_first=True).eval(), 3 * torch.randn(3, 7, 16)
        with av.capture(model) as seen:
            model(x, x, x, need_weights=True, **masks)
        assert_reproduced(seen[0])
        assert seen[0].scale == 1
        projected = F.linear(x, model.in_proj_weight[:16]).unflatten(-1, (4, 4)).transpose(1, 2)
        torch.testing.assert_close(seen[0].query, projected / 2)

    def test_our_layers_fill_with_a_finite_number_and_put_zeros_where_nothing_is_seen(self):
        model = MultiHeadAttention(16, 4).eval()
        mask = torch.rand(3, 7, 7) > 0.5
        mask[1, 0] = False
        with av.capture(model) as seen:
            model(3 * torch.randn(3, 7, 16), None, mask, need_weights=True)
        assert_reproduced(seen[0])
        assert torch.equal(seen[0].mask, mask[:, None])
        assert seen[0].weights[1, :, 0].abs().max() == 0


# --- written by hand ------------------------------------------------------------------------------


def qkv(*lead: int, n_keys: int = 7, key_lead: tuple[int, ...] | None = None) -> list[Tensor]:
    """Queries (*lead, 5, 4), and as many keys and values, for clear peaks."""
    others = lead if key_lead is None else key_lead
    return [
        2 * torch.randn(*lead, 5, 4),
        *(2 * torch.randn(*others, n_keys, 4) for _ in range(2)),
    ]


def seen_in(attend, *args: Tensor):
    """What a capture sees of a function; that it changes nothing is checked on the way."""
    model = Written(attend)
    torch.manual_seed(1)
    with av.capture(model) as seen:
        watched = model(*(t.clone() for t in args))
    torch.manual_seed(1)
    assert torch.equal(watched, model(*args))
    (record,) = seen
    return record


def record_of(attend, *args: Tensor):
    """The same, for a function that must not run unseen."""
    with av.capture(model := Written(attend)) as seen:
        model(*args)
    (record,) = seen
    return record


MAY = torch.rand(5, 7, generator=torch.Generator().manual_seed(0)) > 0.4
MAY[:, 2] = True
BIAS = torch.randn(4, 5, 7, generator=torch.Generator().manual_seed(0))
HIDE = torch.zeros(5, 7).masked_fill(~MAY, -INF)
HALF = torch.tensor(0.5)


def in_place(q, k, v):
    scores = q @ k.mT
    scores *= 0.5
    scores += BIAS
    scores.masked_fill_(~MAY, -INF)
    return scores.softmax(-1) @ v


def by_einsum(scores: str, values: str, keys_first: bool = False):
    def attend(q, k, v):
        operands = (k, q) if keys_first else (q, k)
        return torch.einsum(values, (torch.einsum(scores, *operands) / 2 + 1).softmax(-1), v)

    return attend


def folded(q, k, v):
    q, k, v = (t.flatten(0, 1) for t in (q, k, v))
    scores = torch.bmm(q, k.transpose(1, 2)).view(3, 4, 5, 7) + HIDE
    return torch.bmm(scores.softmax(-1).view(12, 5, 7), v).view(3, 4, 5, 4)


def with_positions(q, k, v):
    scores = torch.empty(12, 5, 7)
    q, k, v = (t.flatten(0, 1) for t in (q, k, v))
    scores = torch.baddbmm(scores, q, k.mT, beta=0, alpha=0.5)
    return (scores.view(3, 4, 5, 7) + BIAS).softmax(-1) @ v.view(3, 4, 7, 4)


def with_alibi(q, k, v):
    slopes = torch.arange(12.0)[:, None, None] * torch.arange(7)  # (batch · heads, 1, key)
    scores = slopes.baddbmm(q.flatten(0, 1), k.flatten(0, 1).mT, beta=-0.1, alpha=0.5)
    return F.softmax(scores.view(3, 4, 5, 7).masked_fill(~MAY, -1e9), dim=-1) @ v


LATE = torch.arange(7) > 1
ADDED = BIAS[None]
ALLOWED = MAY[None, None]
SLOPES = -0.1 * (torch.arange(12.0).view(3, 4, 1, 1) * torch.arange(7))
SPELLINGS = {  # on (batch, heads, token, d_k), and the scale and mask that are to be found
    "divided": (
        lambda q, k, v: (q @ k.transpose(-2, -1) / math.sqrt(4)).softmax(-1) @ v,
        0.5,
        None,
    ),
    "multiplied": (lambda q, k, v: F.softmax(0.5 * torch.matmul(q, k.mT), -1) @ v, 0.5, None),
    "by a tensor": (lambda q, k, v: torch.softmax((q @ k.mT).mul(HALF), -1) @ v, 0.5, None),
    "by a tensor of one": (
        lambda q, k, v: (torch.div(q @ k.mT, torch.full((1, 1, 1), 2.0))).softmax(-1) @ v,
        0.5,
        None,
    ),
    "twice": (lambda q, k, v: (q @ k.mT * 2 / torch.tensor(4)).softmax(-1) @ v, 0.5, None),
    "queries scaled first": (lambda q, k, v: (q * 0.5 @ k.mT).softmax(-1) @ v, 1.0, None),
    "not scaled": (lambda q, k, v: (q @ k.mT).softmax(-1) @ v, 1.0, None),
    "turned round": (lambda q, k, v: (q @ k.mT * -1.5).softmax(-1) @ v, -1.5, None),
    "filled": (
        lambda q, k, v: (q @ k.mT / 2).masked_fill(~MAY, -INF).softmax(-1) @ v,
        0.5,
        ALLOWED,
    ),
    "filled by names, before it is scaled": (
        lambda q, k, v: (
            ((q @ k.mT).masked_fill(mask=~MAY, value=torch.finfo().min) / 2).softmax(-1) @ v
        ),
        0.5,
        ALLOWED,
    ),
    "filled twice": (
        lambda q, k, v: (
            (q @ k.mT / 2).masked_fill(~MAY, -1e4).masked_fill(~LATE, -1e9).softmax(-1) @ v
        ),
        0.5,
        ALLOWED & LATE,
    ),
    "chosen": (
        lambda q, k, v: torch.where(MAY, q @ k.mT / 2, -1e9).softmax(-1) @ v,
        0.5,
        ALLOWED,
    ),
    "chosen the other way round": (
        lambda q, k, v: torch.where(~MAY, torch.tensor(-INF), q @ k.mT / 2).softmax(-1) @ v,
        0.5,
        ALLOWED,
    ),
    "chosen by the scores' own method": (
        lambda q, k, v: (q @ k.mT / 2).where(MAY, torch.full((5, 7), -1e30)).softmax(-1) @ v,
        0.5,
        ALLOWED,
    ),
    "added": (lambda q, k, v: (q @ k.mT / 2 + HIDE).softmax(-1) @ v, 0.5, HIDE[None, None]),
    "added, in front": (lambda q, k, v: (BIAS + q @ k.mT / 2).softmax(-1) @ v, 0.5, ADDED),
    "taken away": (lambda q, k, v: (q @ k.mT / 2 - BIAS).softmax(-1) @ v, 0.5, -ADDED),
    "a mask of whole numbers added": (
        lambda q, k, v: (q @ k.mT / 2 + MAY).softmax(-1) @ v,
        0.5,
        ALLOWED.float(),
    ),
    "added twice": (
        lambda q, k, v: (q @ k.mT / 2 + BIAS + HIDE).softmax(-1) @ v,
        0.5,
        ADDED + HIDE,
    ),
    "added, then scaled": (lambda q, k, v: ((q @ k.mT + BIAS) / 2).softmax(-1) @ v, 0.5, ADDED / 2),
    "added and filled, in place": (in_place, 0.5, ADDED + HIDE),
    "a number added": (lambda q, k, v: (q @ k.mT / 2 - 3 + HALF).softmax(-1) @ v, 0.5, None),
    "cast": (
        lambda q, k, v: (
            (q.half() @ k.half().mT * 0.5)
            .float()
            .to(torch.float64)
            .contiguous()
            .softmax(-1)
            .float()
            @ v
        ),
        0.5,
        None,
    ),
    "with dropout": (
        lambda q, k, v: F.dropout((q @ k.mT / 2 + BIAS).softmax(-1), 0.5) @ v,
        0.5,
        ADDED,
    ),
    "heads folded into the batch and out again": (folded, 1.0, HIDE[None, None]),
    "baddbmm that adds nothing": (with_positions, 0.5, ADDED),
    "baddbmm that adds": (with_alibi, 0.5, torch.where(MAY, SLOPES, torch.finfo().min)),
    "einsum": (by_einsum("bhqd,bhkd->bhqk", "bhqk,bhkd->bhqd"), 0.5, None),
    "einsum of the keys first": (
        by_einsum("b h k d, b h q d -> b h q k", "bhqk,bhkd->bhqd", keys_first=True),
        0.5,
        None,
    ),
    "einsum in another order, with a mask for each head": (
        lambda q, k, v: torch.einsum(
            "qbhk,bhkd->bhqd",
            (torch.einsum("bhqd,bhkd->qbhk", q, k) + BIAS.transpose(0, 1)[:, None]).softmax(-1),
            v,
        ),
        1.0,
        ADDED,
    ),
    "einsum in another order": (by_einsum("bhqd,bhkd->qbhk", "qbhk,bhkd->bhqd"), 0.5, None),
}


class TestWrittenByHand:
    @pytest.mark.parametrize("name", SPELLINGS)
    def test_queries_keys_scale_and_mask_are_those_it_used(self, name):
        attend, scale, mask = SPELLINGS[name]
        q, k, v = qkv(3, 4)
        record = seen_in(attend, q, k, v)
        assert_reproduced(record, atol=1e-2 if name == "cast" else 1e-6)
        first = 0.5 if name == "queries scaled first" else 1
        torch.testing.assert_close(record.query.float(), q * first, atol=2e-3, rtol=0)
        torch.testing.assert_close(record.key.float(), k, atol=2e-3, rtol=0)
        assert record.scale == scale
        if mask is None:
            assert record.mask is None
        else:
            torch.testing.assert_close(record.mask.expand(3, 4, 5, 7), mask.expand(3, 4, 5, 7))

    @pytest.mark.parametrize("lead", [(), (3,), (3, 4), (2, 3, 4)], ids=len)
    def test_with_any_number_of_leading_dimensions(self, lead):
        def attend(q, k, v):
            scores = q @ k.transpose(-2, -1) / math.sqrt(q.size(-1))
            return scores.masked_fill(~MAY, -INF).softmax(-1) @ v

        q, k, v = qkv(*lead)
        record = seen_in(attend, q, k, v)
        assert_reproduced(record)
        assert torch.equal(record.query.reshape(q.shape), q)
        assert torch.equal(record.mask, MAY[None, None])

    def test_a_mask_for_each_item_when_heads_are_folded_into_the_batch(self):
        may = torch.rand(3, 1, 5, 7) > 0.3
        may[..., 0] = True

        def attend(q, k, v):
            scores = (q @ k.mT).masked_fill(~may, -INF).flatten(0, 1)
            return torch.bmm(scores.softmax(-1), v.flatten(0, 1))

        record = seen_in(attend, *qkv(3, 4))
        assert record.weights.shape == (12, 1, 5, 7)
        assert_reproduced(record)

    @pytest.mark.parametrize("key_lead", [(3, 1), (1, 4), (1, 1), (4,), ()])
    def test_keys_that_heads_or_items_share(self, key_lead):
        record = seen_in(lambda q, k, v: (q @ k.mT).softmax(-1) @ v, *qkv(3, 4, key_lead=key_lead))
        assert_reproduced(record)
        assert record.key.size(1) == (key_lead[-1] if key_lead else 1)

    @pytest.mark.parametrize("by", ["matmul", "einsum"])
    def test_groups_of_heads_that_share_a_key(self, by):
        may = torch.rand(3, 1, 1, 5, 7) > 0.3
        may[..., 0] = True

        def attend(q, k, v):  # (batch, key heads, heads of each, query, d_k), (…, 1, key, d_k)
            if by == "matmul":
                scores = q @ k.mT
            else:
                scores = torch.einsum("bkgqd,bksd->bkgqs", q, k[:, :, 0])
            return scores.masked_fill(~may, -INF).softmax(-1) @ v

        record = seen_in(attend, *qkv(3, 2, 4, key_lead=(3, 2, 1)))
        assert record.weights.shape == (6, 4, 5, 7)
        assert_reproduced(record)
        assert record.key.size(1) == 1

    def test_an_order_that_only_the_scores_tell(self):
        def attend(q, k, v):  # weights (batch, query, heads, key), values that all heads share
            return torch.einsum("bhqd,bhkd->bqhk", q, k).softmax(-1) @ v[:, :1]

        record = seen_in(attend, q := torch.randn(3, 4, 5, 4), *qkv(3, 4)[1:])
        assert_reproduced(record)
        assert torch.equal(record.query, q)

    @pytest.mark.parametrize("shape", [(1, 1), (1, 7), (5, 1), (2, 300), (300, 2)])
    def test_any_number_of_queries_and_keys(self, shape):
        q, k = torch.randn(3, 4, shape[0], 4), torch.randn(3, 4, shape[1], 4)
        bias = torch.randn(shape)
        assert_reproduced(seen_in(lambda q, k: (q @ k.mT / 2 + bias).softmax(-1) @ k, q, k))

    def test_learned_queries(self):
        class Pooling(nn.Module):
            def __init__(self):
                super().__init__()
                self.query = nn.Parameter(torch.randn(2, 4))

            def forward(self, x):
                return (self.query @ x.mT).softmax(-1) @ x

        with av.capture(model := Pooling()) as seen:
            model(torch.randn(3, 7, 4))
        assert_reproduced(seen[0])
        assert not seen[0].query.requires_grad


EMPTY = MAY.clone()
EMPTY[0] = False


class TestRowsThatMaySeeNothing:
    @pytest.mark.parametrize(
        ("fill", "is_bool"), [(-INF, True), (torch.finfo().min, False), (-1e4, False)]
    )
    def test_are_as_the_model_has_them(self, fill, is_bool):
        """Filled with -inf they are nan; with a number, uniform, and only numbers say so."""
        record = seen_in(
            lambda q, k, v: (q @ k.mT).masked_fill(~EMPTY, fill).softmax(-1).nan_to_num(0) @ v,
            *qkv(3, 4),
        )
        assert (record.mask.dtype == torch.bool) == is_bool
        assert_reproduced(record)

    def test_are_nan_if_the_model_leaves_them_so(self):
        record = record_of(
            lambda q, k, v: (q @ k.mT).masked_fill(~EMPTY, -INF).softmax(-1) @ v, *qkv(3, 4)
        )
        assert record.weights[:, :, 0].isnan().all()
        torch.testing.assert_close(weights_behind(record)[:, :, 1:], record.weights[:, :, 1:])
        assert torch.equal(record.mask, EMPTY[None, None])

    def test_are_compared_in_the_last_item_of_a_batch_too(self):
        may = torch.ones(9, 1, 5, 7).bool()
        may[-1, :, -1] = False
        record = seen_in(
            lambda q, k, v: (q @ k.mT).masked_fill(~may, -1e9).softmax(-1) @ v, *qkv(9, 4)
        )
        assert record.mask.dtype != torch.bool
        assert_reproduced(record)


def clamped_by_setting(q, k, v):
    scores = q @ k.mT
    scores[:, :, 1, 2] = 0
    return scores.softmax(-1) @ v


def changed_in_a_view(q, k, v):
    scores = q @ k.mT
    scores.view(12, 5, 7)[:, 1].mul_(0.9)
    return scores.softmax(-1) @ v


def capped_in_place(q, k, v):
    return (q @ k.mT / 10).tanh_().mul_(10).softmax(-1) @ v


def two_products(q, k, v):
    return (q @ k.mT / 2 + (q @ k.flip(-1).mT) * 2).softmax(-1) @ v


UNKNOWN = {
    "capped by tanh": lambda q, k, v: (torch.tanh(q @ k.mT / 10) * 10).softmax(-1) @ v,
    "capped in place": capped_in_place,
    "an element set": clamped_by_setting,
    "changed in a view": changed_in_a_view,
    "a scale for each head": lambda q, k, v: (
        (q @ k.mT * torch.arange(1.0, 5)[:, None, None]).softmax(-1) @ v
    ),
    "clamped": lambda q, k, v: (q @ k.mT).clamp(max=1.0).softmax(-1) @ v,
    "filled with a number that hides nothing": lambda q, k, v: (
        (q @ k.mT).masked_fill(~MAY, -1.0).softmax(-1) @ v
    ),
    "filled with different numbers": lambda q, k, v: (
        torch.where(MAY, q @ k.mT, BIAS * 1e6 - 1e8).softmax(-1) @ v
    ),
    "numbers minus scores": lambda q, k, v: (BIAS - q @ k.mT).softmax(-1) @ v,
    "a number over scores": lambda q, k, v: (2 / (q @ k.mT)).softmax(-1) @ v,
    "two products": two_products,
    "a sum with a factor": lambda q, k, v: torch.add(q @ k.mT, BIAS, alpha=2).softmax(-1) @ v,
    "scores dropped": lambda q, k, v: F.dropout(q @ k.mT, 0.5).softmax(-1) @ v,
    "another number of keys": lambda q, k, v: (
        torch.cat([q @ k.mT, torch.zeros(3, 4, 5, 1)], -1).softmax(-1) @ F.pad(v, (0, 0, 0, 1))
    ),
    "keys in another order": lambda q, k, v: (q @ k.mT).flip(-1).softmax(-1) @ v,
    "no product": lambda q, k, v: (
        (-torch.cdist(q, k)).softmax(-1) @ v
    ),
    "einsum of a diagonal": lambda q, k, v: (
        torch.einsum("bhqd,bhkdd->bhqk", q, k.diag_embed()).softmax(-1) @ v
    ),
    "einsum of three": lambda q, k, v: (
        torch.einsum("bhqd,bhkd,d->bhqk", q, k, torch.arange(4.0)).softmax(-1) @ v
    ),
    "einsum of other queries for each key": lambda q, k, v: (
        torch.einsum("bhqkd,bhkd->bhqk", q[:, :, :, None] * torch.ones(7, 4).cumsum(0), k)
        .softmax(-1) @ v
    ),
    "einsum in another order that is reshaped": lambda q, k, v: torch.einsum(
        "qbhk,bhkd->bhqd",
        (torch.einsum("bhqd,bhkd->qbhk", q, k).reshape(5, 3, 4, 7) + BIAS.transpose(0, 1)[:, None])
        .softmax(-1),
        v,
    ),
    "reshaped, rows and all": lambda q, k, v: (
        ((q @ k.mT).flatten(2) + torch.arange(35) / 35).unflatten(-1, (5, 7)).softmax(-1) @ v
    ),
    "einsum over two dimensions": lambda q, k, v: (
        torch.einsum("bhqde,bhkde->bhqk", q.unflatten(-1, (2, 2)), k.unflatten(-1, (2, 2)))
        .softmax(-1) @ v
    ),
    "einsum of positions": lambda q, k, v: (
        torch.einsum("bhqd,qkd->bhqk", q, torch.ones(5, 7, 4).cumsum(1)).softmax(-1) @ v
    ),
}  # fmt: skip


class TestWhatCannotBeFollowed:
    @pytest.mark.parametrize("name", UNKNOWN)
    def test_is_left_out_and_the_weights_stay_right(self, name):
        q, k, v = qkv(3, 4)
        record = seen_in(UNKNOWN[name], q, k, v)
        assert_not_found(record)
        torch.manual_seed(1)
        expected = UNKNOWN[name](q, k, torch.eye(7).expand(3, 4, 7, 7))  # a mix of unit vectors
        torch.testing.assert_close(record.weights[..., :7], expected)

    def test_a_mask_with_more_dimensions_than_the_scores(self):
        def attend(q, k, v):
            return (q @ k.mT + BIAS[None]).softmax(-1) @ v

        assert_not_found(seen_in(attend, *qkv(4)))

    def test_an_einsum_over_two_dimensions_of_any_size(self):
        def attend(x):
            return torch.einsum("bhqde,bhkde->bhqk", x, x).softmax(-1) @ x[..., 0]

        assert_not_found(seen_in(attend, torch.randn(3, 4, 2, 2, 2)))

    @pytest.mark.parametrize("how", ["set", "filled"])
    def test_is_left_out_even_if_it_shows_in_one_weight_of_many(self, how):
        def attend(q, k):
            scores = q @ k.mT
            if how == "set":
                scores[0, 0, 151, 2] = 0
            else:
                here = torch.zeros(300, 7).bool()
                here[151, 2] = True
                scores = scores.masked_fill(here, 0.0)
            return scores.softmax(-1) @ k

        assert_not_found(seen_in(attend, torch.randn(1, 1, 300, 4), torch.randn(1, 1, 7, 4)))

    def test_weights_that_were_changed_after_the_softmax(self):
        kept = torch.tensor([1.0, 0, 1, 1])[:, None, None]
        record = seen_in(lambda q, k, v: ((q @ k.mT).softmax(-1) * kept) @ v, *qkv(3, 4))
        assert record.query is None
        assert record.weights[:, 1].abs().max() == 0

    def test_positions_that_are_a_product_too_and_leave_in_another_form(self):
        """Scores of contents stay followed; those of positions become a mask of numbers."""

        def attend(q, k, v):
            scores = q @ k.mT
            positions = (q @ torch.ones(7, 4).cumsum(0).mT).flip(-1)
            return ((scores + positions) / 2).softmax(-1) @ v

        q, k, v = qkv(3, 4)
        record = seen_in(attend, q, k, v)
        assert_reproduced(record)
        assert torch.equal(record.key, k)
        assert record.mask.shape == (3, 4, 5, 7)


class TestFoundIsVerified:
    """What was followed must give the weights that were seen, or it is not told."""

    def attend(self, q, k, v):
        return (q @ k.mT / 2).masked_fill(~MAY, -INF).softmax(-1) @ v

    def test_a_wrong_scale(self, monkeypatch):
        from attnviz.seeing import trail

        assert seen_in(self.attend, *qkv(3, 4)).query is not None
        right = trail._times
        monkeypatch.setattr(trail, "_times", lambda scores, factor: right(scores, factor * 1.01))
        assert_not_found(seen_in(self.attend, *qkv(3, 4)))

    def test_a_wrong_mask(self, monkeypatch):
        from attnviz.seeing import scores

        right = scores.unrepeated
        monkeypatch.setattr("attnviz.seeing.trail.unrepeated", lambda mask: right(mask).roll(1, -1))
        assert_not_found(seen_in(self.attend, *qkv(3, 4)))

    @pytest.mark.parametrize("which", [0, 1], ids=["queries", "keys"])
    def test_queries_or_keys_that_were_changed_since(self, which):
        def attend(*qkv):
            scores = qkv[0] @ qkv[1].mT
            qkv[which].mul_(1.5)
            return scores.softmax(-1) @ qkv[2]

        assert_not_found(seen_in(attend, *qkv(3, 4)))

    def test_a_mask_that_was_changed_since(self):
        def attend(q, k, v):
            mask = BIAS.clone()
            scores = q @ k.mT + mask
            mask.zero_()
            return scores.softmax(-1) @ v

        assert_not_found(seen_in(attend, *qkv(3, 4)))


# --- what it costs --------------------------------------------------------------------------------


class TestMemory:
    def test_queries_and_keys_are_copies_of_their_own(self):
        def attend(x):
            q, k, v = x.chunk(3, -1)
            mixed = (q @ k.mT).softmax(-1) @ v
            x.zero_()
            return mixed

        record = seen_in(attend, torch.randn(3, 4, 7, 12))
        assert_reproduced(record)
        for tensor in (record.query, record.key):
            assert tensor.untyped_storage().nbytes() == tensor.numel() * 4

    def test_a_mask_is_a_copy_and_one_copy_serves_all_that_share_it(self):
        def attend(q, k, v):
            first = torch.where(MAY, q @ k.mT, -INF).softmax(-1) @ v
            second = torch.where(MAY[:], q @ k.mT, -INF).softmax(-1) @ v  # a view of its own
            return first + second

        with av.capture(model := Written(attend)) as seen:
            model(*qkv(3, 4))
        first, second = (record.mask for record in seen)
        assert first.data_ptr() == second.data_ptr() != MAY.data_ptr()
        assert torch.equal(first, MAY[None, None])

    def test_a_mask_that_repeats_itself_is_kept_once(self):
        hidden = (REAL == 0)[:, None, None].expand(3, 4, 5, 7)
        record = seen_in(
            lambda q, k, v: (q @ k.mT).masked_fill(hidden, -INF).softmax(-1) @ v, *qkv(3, 4)
        )
        assert record.mask.shape == (3, 1, 1, 7)
        assert record.mask.untyped_storage().nbytes() == 3 * 7
        numbers = torch.randn(3, 1, 1, 7).expand(3, 4, 5, 7)
        record = seen_in(lambda q, k, v: (q @ k.mT + numbers + numbers).softmax(-1) @ v, *qkv(3, 4))
        assert record.mask.untyped_storage().nbytes() == 3 * 7 * 4

    @pytest.mark.slow
    def test_nothing_outlives_a_pass(self):
        watched = []

        def attend(q, k, v):
            q, k = q * 1, k * 1
            scores = q @ k.mT
            mask = BIAS * 1
            weights = (scores / 2 + mask).softmax(-1)
            watched.extend(map(StorageWeakRef, map(Tensor.untyped_storage, (q, k, scores))))
            watched.extend(map(StorageWeakRef, map(Tensor.untyped_storage, (mask, weights))))
            return weights @ v, q @ k.mT  # the output keeps a product

        with av.capture(model := Written(attend)) as seen:
            output = model(*qkv(3, 4))
            gc.collect()
            assert [ref.expired() for ref in watched] == [True] * 4 + [False]
        assert len(output) == 2
        assert_reproduced(seen[0])
        seen.free()
        assert watched[4].expired()

    def test_queries_do_not_outlive_their_product(self):
        def attend(q, k, v):
            own = q * 1
            product, watched = own @ k.mT, StorageWeakRef(own.untyped_storage())
            del own
            assert not watched.expired()
            del product
            assert watched.expired()
            return (q @ k.mT).softmax(-1) @ v

        assert_reproduced(record_of(attend, *qkv(3, 4)))

    @pytest.mark.parametrize("order", ["bhqk", "qbhk"])
    def test_queries_are_let_go_when_their_weights_were_recorded(self, order):
        def attend(q, k, v):
            own = q * 1
            watched = StorageWeakRef(own.untyped_storage())
            weights = torch.einsum(f"bhqd,bhkd->{order}", own, k).softmax(-1)
            del own
            assert not watched.expired()
            mixed = torch.einsum(f"{order},bhkd->bhqd", weights, v)
            assert watched.expired()
            return mixed + weights.mean()

        assert_reproduced(record_of(attend, *qkv(3, 4)))

    def test_a_product_that_goes_elsewhere_is_not_followed_for_long(self):
        def attend(q, k, v):
            own = q * 1
            product, watched = own @ k.mT, StorageWeakRef(own.untyped_storage())
            del own
            for _ in range(100):
                v = v + 0.01
            assert watched.expired()
            return (q @ k.mT).softmax(-1) @ v + product.mean()

        assert_reproduced(record_of(attend, *qkv(3, 4)))

    def test_only_a_few_products_are_followed_at_once(self):
        def attend(q, k, v):
            products, watched = [], []
            for _ in range(10):
                own = q * 1
                products.append(own @ k.mT)
                watched.append(StorageWeakRef(own.untyped_storage()))
                del own
            assert [ref.expired() for ref in watched] == [True] * 6 + [False] * 4
            return products[-1].softmax(-1) @ v

        assert_reproduced(record_of(attend, *qkv(3, 4)))


class TestOthersStayAsTheyWere:
    def test_a_batch_of_nothing(self):
        record = seen_in(lambda q, k, v: (q @ k.mT / 2).softmax(-1) @ v, *qkv(0, 4))
        assert record.weights.shape == (0, 4, 5, 7)
        assert record.query is None

    def test_tensors_without_numbers(self):
        model = Written(lambda q, k, v: (q @ k.mT / 2).softmax(-1) @ v)
        with av.capture(model) as seen:
            model(*(t.to("meta") for t in qkv(3, 4)))
        assert seen[0].weights.is_meta
        assert seen[0].query is None

    def test_fused_attention_is_not_followed(self, monkeypatch):
        followed = []
        monkeypatch.setattr("attnviz.seeing.door.Trail.run", lambda *call: followed.append(call))
        model = BertEncoder(BertConfig(50, 32, 2, 4, 64, 300)).eval()
        with av.capture(model) as seen:
            model(torch.randint(50, (2, 7)))
        assert len(seen) == 2
        assert followed == []

    def test_edits_change_the_weights_and_not_what_made_them(self):
        model = Written(lambda q, k, v: (q @ k.mT / 2).softmax(-1) @ v)
        q, k, v = qkv(3, 4)
        with av.edit(model, {(0, 1): av.uniform}), av.capture(model) as seen:
            model(q, k, v)
        expected = (q @ k.mT / 2).softmax(-1)
        torch.testing.assert_close(weights_behind(seen[0]), expected)
        expected[:, 1] = 1 / 7
        torch.testing.assert_close(seen[0].weights, expected)

    def test_with_gradients(self):
        bias = BIAS.clone().requires_grad_()
        model = Written(lambda q, k, v: (q @ k.mT / 2 + bias).softmax(-1) @ v)
        q, k, v = (t.requires_grad_() for t in qkv(3, 4))
        with av.capture(model, with_gradients=True) as seen:
            output = model(q, k, v)
        output.backward(upstream := torch.randn(output.shape))
        record = seen[0]
        torch.testing.assert_close(record.weights.grad, upstream @ v.detach().mT)
        assert torch.equal(record.query, q.detach())
        assert not any(t.requires_grad for t in (record.query, record.key, record.mask))
        torch.testing.assert_close(weights_behind(record), record.weights.detach())

    def test_two_captures_find_the_same(self):
        model = nn.Sequential(Written(lambda x: (x @ x.mT / 2).softmax(-1) @ x))
        x = torch.randn(3, 4, 7, 4)
        with av.capture(model) as outer, av.capture(model[0]) as inner:
            model(x)
        for seen in (outer, inner):
            assert_reproduced(seen[0])
            assert torch.equal(seen[0].query, x)

    def test_a_model_that_fails_between_product_and_softmax(self):
        def attend(q, k, v):
            scores = q @ k.mT
            if v is None:
                raise RuntimeError("in the model")
            return scores.softmax(-1) @ v

        model = Written(attend)
        q, k, v = qkv(3, 4)
        with av.capture(model) as seen:
            with pytest.raises(RuntimeError, match="in the model"):
                model(q, k, None)
            model(q, k, v)
        assert [r.pass_number for r in seen] == [1]
        assert_reproduced(seen[0])


class TestPart:
    @pytest.mark.parametrize("key_heads", [1, 4])
    @pytest.mark.parametrize("heads", [slice(None), slice(1, 3), slice(3, 4)])
    def test_cuts_queries_keys_and_mask_like_the_weights(self, key_heads, heads):
        bias = torch.randn(3, 4, 5, 7)
        record = seen_in(
            lambda q, k, v: (q @ k.mT / 2 + bias).softmax(-1) @ v,
            *qkv(3, 4, key_lead=(3, key_heads)),
        )
        part = record.part(2, heads)
        assert_reproduced(part)
        assert torch.equal(part.weights, record.weights[2:, heads])
        assert torch.equal(part.query, record.query[2:, heads])

    def test_gives_everything_back(self):
        record = seen_in(lambda q, k, v: (q @ k.mT / 2 + BIAS).softmax(-1) @ v, *qkv(3, 4))
        record.free()
        assert (record.query, record.key, record.mask, record.written_out) == (None,) * 4
        with pytest.raises(RuntimeError, match="was freed"):
            _ = record.weights

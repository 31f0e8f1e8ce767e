"""Weights that a model writes out are seen and changed however they come to the values.

The oracle works the attention out by itself, on tensors whose sizes all differ.
"""

import math

import pytest
import torch
import torch.nn.functional as F
import transformers as hf
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from written import Written

import attnviz as av

BATCH, HEADS, QUERIES, KEYS, D_K, D_V = 2, 3, 5, 7, 4, 6
GATE = torch.rand(QUERIES, KEYS, generator=torch.Generator().manual_seed(0)) + 0.5
HIDE = torch.rand(QUERIES, KEYS, generator=torch.Generator().manual_seed(1)) > 0.7


def qkv(dtype: torch.dtype = torch.float32, *, grad: bool = True) -> list[Tensor]:
    generator = torch.Generator().manual_seed(3)
    sizes = (QUERIES, D_K), (KEYS, D_K), (KEYS, D_V)
    made = [2 * torch.randn(BATCH, HEADS, *size, generator=generator) for size in sizes]
    return [t.to(dtype).requires_grad_(grad) for t in made]


def softmax(q, k, dim=-1):
    return (q @ k.mT / math.sqrt(D_K)).softmax(dim)


def swap(weights: Tensor) -> Tensor:
    """A change that no head is left the same by, and that keeps its rows' sums."""
    return weights.flip(-1)


MIX = torch.rand(HEADS, HEADS, generator=torch.Generator().manual_seed(2))


# --- products -------------------------------------------------------------------------------------


def matrix_by_matrix(multiply):
    """Attention to the values of each head of each item by itself, as a matrix."""

    def attend(q, k, v):
        weights = softmax(q, k)
        places = [(b, h) for b in range(BATCH) for h in range(HEADS)]
        mixed = [multiply(weights[b, h], v[b, h]) for b, h in places]
        return torch.stack(mixed).view(BATCH, HEADS, QUERIES, D_V)

    return attend


def folded(multiply):
    def attend(q, k, v):
        q, k, v = (t.flatten(0, 1) for t in (q, k, v))
        weights = softmax(q, k).view(BATCH, HEADS, QUERIES, KEYS)
        return multiply(weights.view(-1, QUERIES, KEYS), v).unflatten(0, (BATCH, HEADS))

    return attend


def summed_by_hand(q, k, v):
    return (softmax(q, k)[..., None] * v[:, :, None]).sum(-2)


def summed_with_values_first(q, k, v):
    return torch.sum(torch.mul(v.unsqueeze(2), softmax(q, k).unsqueeze(-1)), dim=3)


PRODUCTS = {
    "@": lambda q, k, v: softmax(q, k) @ v,
    "keywords": lambda q, k, v: torch.matmul(other=v, input=softmax(q, k)),
    "second operand, transposed": lambda q, k, v: (v.mT @ softmax(q, k).mT).mT,
    "second operand, made transposed": lambda q, k, v: (
        (v.mT @ (k @ q.mT / math.sqrt(D_K)).softmax(-2)).mT
    ),
    "bmm": folded(torch.bmm),
    "bmm by keyword": folded(lambda w, v: torch.bmm(w, mat2=v)),
    "baddbmm": folded(lambda w, v: torch.baddbmm(torch.zeros(1, 1, 1, dtype=v.dtype), w, v)),
    "einsum": lambda q, k, v: torch.einsum("bhqk,bhkd->bhqd", softmax(q, k), v),
    "einsum, values first": lambda q, k, v: torch.einsum("bhkd,bhqk->bhqd", v, softmax(q, k)),
    "einsum, dots": lambda q, k, v: torch.einsum("...qk,...kd->...qd", softmax(q, k), v),
    "einsum, dots and no arrow": lambda q, k, v: (
        torch.einsum("...yk,...kz", softmax(q, k), v)
    ),
    "einsum of three": lambda q, k, v: torch.einsum(
        "bhqk,bhkd,q->bhqd", softmax(q, k), v, torch.ones(QUERIES, dtype=v.dtype)
    ),
    "einsum of lists": lambda q, k, v: torch.einsum(
        softmax(q, k), [0, 1, 2, 3], v, [0, 1, 3, 4], [0, 1, 2, 4]
    ),
    "einsum of a list": lambda q, k, v: torch.einsum("bhqk,bhkd->bhqd", [softmax(q, k), v]),
    "einsum, heads last": lambda q, k, v: torch.einsum(
        "bqkh,bhkd->bhqd",
        (torch.einsum("bhqd,bhkd->bqkh", q, k) / math.sqrt(D_K)).softmax(2),
        v,
    ),
    "einsum, keys before queries": lambda q, k, v: torch.einsum(
        "bkqh,bhkd->bhqd",
        (torch.einsum("bhqd,bhkd->bkqh", q, k) / math.sqrt(D_K)).softmax(1),
        v,
    ),
    "multiplied and summed": summed_by_hand,
    "multiplied and summed, values first": summed_with_values_first,
}  # fmt: skip
OF_MATRICES = {  # each head of each item by itself
    "mm": torch.mm,
    "addmm": lambda w, v: torch.addmm(torch.zeros(D_V, dtype=v.dtype), w, v),
    "linear": lambda w, v: F.linear(w, v.mT),
    "linear, weights second": lambda w, v: F.linear(v.mT, w).mT,
    "inner": lambda w, v: torch.inner(w, v.mT),
    "tensordot": lambda w, v: torch.tensordot(w, v, 1),
    "tensordot, dimensions named": lambda w, v: torch.tensordot(v, w, dims=([0], [1])).mT,
}

OF_MATRICES = {name: matrix_by_matrix(multiply) for name, multiply in OF_MATRICES.items()}

# --- on the way -----------------------------------------------------------------------------------


def head_by_head(q, k, v):
    weights = softmax(q, k)
    return torch.stack([weights[:, h] @ v[:, h] for h in range(HEADS)], 1)


def unbound(q, k, v):
    pairs = zip(softmax(q, k).unbind(1), v.unbind(1), strict=True)
    return torch.stack([w @ value for w, value in pairs], 1)


def keys_in_parts(cut):
    def attend(q, k, v):
        weights = softmax(q, k)
        ends = range(0, KEYS, 4), range(4, KEYS + 4, 4)
        parts = zip(cut(weights), *ends, strict=True)
        return sum(w @ v[:, :, start:end] for w, start, end in parts)

    return attend


def queries_in_parts(q, k, v):
    weights = softmax(q, k)
    return torch.cat([weights[:, :, :2] @ v, weights[:, :, 2:] @ v], 2)


def softmaxes_joined(q, k, v):
    weights = [softmax(q[:, h], k[:, h]) for h in range(HEADS)]
    return torch.stack(weights, dim=1) @ v


def softmaxes_of_query_blocks(q, k, v):
    return torch.cat([softmax(q[:, :, :2], k), softmax(q[:, :, 2:], k)], 2) @ v


def softmaxes_set(q, k, v):
    weights = torch.zeros(BATCH, HEADS, QUERIES, KEYS, dtype=q.dtype)
    for h in range(HEADS):
        weights[:, h] = softmax(q[:, h], k[:, h])
    return weights @ v


def by_hand(q, k, v):
    scores = q @ k.mT / math.sqrt(D_K)
    numbers = (scores - scores.max(-1, keepdim=True).values).exp()
    return numbers / numbers.sum(-1, keepdim=True) @ v


def by_hand_without_the_largest(q, k, v):
    numbers = torch.exp(q @ k.mT / math.sqrt(D_K))
    return torch.matmul(numbers.div(numbers.sum(dim=-1).unsqueeze(-1)), v)


def by_the_logarithm_of_the_sum(q, k, v):
    scores = q @ k.mT / math.sqrt(D_K)
    return torch.exp(scores - torch.logsumexp(scores, dim=-1, keepdim=True)) @ v


WAYS = {
    "by the logarithm of the sum": by_the_logarithm_of_the_sum,
    "head by head": head_by_head,
    "unbound": unbound,
    "keys split": keys_in_parts(lambda w: w.split(4, -1)),
    "keys chunked": keys_in_parts(lambda w: torch.chunk(w, 2, dim=3)),
    "keys narrowed": keys_in_parts(lambda w: (w.narrow(-1, 0, 4), w.narrow(3, 4, 3))),
    "keys sliced": keys_in_parts(lambda w: (w[..., :4], w[..., 4:])),
    "queries sliced": queries_in_parts,
    "softmaxes stacked": softmaxes_joined,
    "softmaxes in blocks": softmaxes_of_query_blocks,
    "softmaxes set": softmaxes_set,
    "permuted": lambda q, k, v: (
        softmax(q, k).permute(0, 2, 1, 3).transpose(1, 2) @ v
    ),
    "heads first": lambda q, k, v: (
        (softmax(q, k).movedim(1, 0) @ v.movedim(1, 0)).swapaxes(0, 1)
    ),
    "batch and heads made one and two": lambda q, k, v: (
        softmax(q, k).reshape(-1, QUERIES, KEYS).contiguous().view(BATCH, HEADS, QUERIES, KEYS) @ v
    ),
    "cast": lambda q, k, v: (softmax(q, k).double() @ v.double()).to(v.dtype),
    "cast in the softmax": lambda q, k, v: (
        F.softmax(q @ k.mT / math.sqrt(D_K), dim=-1, dtype=torch.float32).to(v.dtype) @ v
    ),
    "logarithms": lambda q, k, v: (q @ k.mT / math.sqrt(D_K)).log_softmax(-1).exp() @ v,
    "a module": lambda q, k, v: nn.Softmax(dim=-1)(q @ k.mT / math.sqrt(D_K)) @ v,
    "keys before queries": lambda q, k, v: (
        (q @ k.mT / math.sqrt(D_K)).mT.softmax(-2).mT @ v
    ),
    "a dimension for the values": lambda q, k, v: (
        (softmax(q, k)[..., None, :] @ v[:, :, None]).squeeze(-2)
    ),
    "by hand": by_hand,
    "by hand, without the largest": by_hand_without_the_largest,
}  # fmt: skip

# --- weights that are not those of the softmax alone ----------------------------------------------


def hidden(weights):
    return weights.masked_fill(HIDE, 0.0)


def shared_out(weights):
    return weights / weights.sum(-1, keepdim=True)


def scores(q, k):
    return q @ k.mT / math.sqrt(D_K)


def with_sink(q, k):
    """The softmax with one more column, which has no value."""
    sink = torch.ones(BATCH, HEADS, QUERIES, 1, dtype=q.dtype)
    return torch.cat([scores(q, k), sink], -1).softmax(-1)


def gated_in_place(q, k, v):
    weights = softmax(q, k) * 1
    weights *= GATE.to(q.dtype)
    return weights.masked_fill_(HIDE, 0) @ v


def dropped_of_nothing(q, k, v):
    return F.dropout(hidden(softmax(q, k)), 0.0, training=True) @ v


def slots(q, k, v):
    """Queries compete for keys; then each shares itself out among those that it got."""
    weights = softmax(q, k, -2) + 1e-3
    return torch.einsum("bhkd,bhqk->bhqd", v, weights / weights.sum(dim=-1, keepdim=True))


OTHERS = {  # how they meet the values, and what they are
    "hidden": (lambda q, k, v: hidden(softmax(q, k)) @ v, lambda q, k: hidden(softmax(q, k))),
    "renormalised": (
        lambda q, k, v: shared_out(hidden(softmax(q, k))) @ v,
        lambda q, k: shared_out(hidden(softmax(q, k))),
    ),
    "gated": (
        lambda q, k, v: (softmax(q, k) * GATE.to(q.dtype)) @ v,
        lambda q, k: softmax(q, k) * GATE.to(q.dtype),
    ),
    "gated and hidden, in place": (
        gated_in_place,
        lambda q, k: hidden(softmax(q, k) * GATE.to(q.dtype)),
    ),
    "dropped of nothing": (dropped_of_nothing, lambda q, k: hidden(softmax(q, k))),
    "heads mixed": (
        lambda q, k, v: torch.einsum("bhqk,hg->bgqk", softmax(q, k), MIX.to(q.dtype)) @ v,
        lambda q, k: torch.einsum("bhqk,hg->bgqk", softmax(q, k), MIX.to(q.dtype)),
    ),
    "heads mixed by a layer": (
        lambda q, k, v: (
            F.linear(softmax(q, k).permute(0, 2, 3, 1), MIX.to(q.dtype)).permute(0, 3, 1, 2) @ v
        ),
        lambda q, k: torch.einsum("bhqk,gh->bgqk", softmax(q, k), MIX.to(q.dtype)),
    ),
    "the mean of the heads": (
        lambda q, k, v: softmax(q, k).mean(1, keepdim=True) @ v,
        lambda q, k: softmax(q, k).mean(1, keepdim=True),
    ),
    "a sink sliced off": (
        lambda q, k, v: with_sink(q, k)[..., :-1] @ v,
        lambda q, k: with_sink(q, k)[..., :-1],
    ),
    "a sink narrowed off": (
        lambda q, k, v: torch.narrow(with_sink(q, k), -1, 0, KEYS).to(v.dtype) @ v,
        lambda q, k: with_sink(q, k)[..., :-1],
    ),
    "sigmoid": (
        lambda q, k, v: torch.sigmoid(scores(q, k) - 1) @ v,
        lambda q, k: (scores(q, k) - 1).sigmoid(),
    ),
    "relu, over the number of keys": (
        lambda q, k, v: F.relu(scores(q, k)) / KEYS @ v,
        lambda q, k: F.relu(scores(q, k)) / KEYS,
    ),
    "relu squared": (
        lambda q, k, v: torch.einsum("...qk,...kd->...qd", scores(q, k).relu_() ** 2 / KEYS, v),
        lambda q, k: scores(q, k).relu() ** 2 / KEYS,
    ),
    "slots": (slots, lambda q, k: shared_out(softmax(q, k, -2) + 1e-3)),
}


def tolerance(dtype: torch.dtype) -> dict[str, float]:
    return {"atol": 1e-5, "rtol": 1e-5} if dtype == torch.float32 else {"atol": 0.1, "rtol": 0.05}


ALL = {name: (attend, softmax) for name, attend in (PRODUCTS | OF_MATRICES | WAYS).items()} | OTHERS
DTYPES = pytest.mark.parametrize(
    "dtype",
    [
        pytest.param(torch.float32, id="f32"),
        pytest.param(torch.bfloat16, id="bf16", marks=pytest.mark.slow),
    ],
)
SPELLINGS = pytest.mark.parametrize("name", ALL)


@SPELLINGS
@DTYPES
class TestEachSpelling:
    def test_is_seen_and_the_output_stays_bit_for_bit(self, name, dtype):
        (attend, expected), (q, k, v) = ALL[name], qkv(dtype)
        model = Written(attend)
        plain = model(q, k, v)
        with av.capture(model) as seen:
            watched = model(q, k, v)
        assert torch.equal(watched, plain)
        assert len(seen) == 1
        torch.testing.assert_close(seen[0].weights, expected(q, k).float(), **tolerance(dtype))

    def test_an_edit_is_what_it_is_when_worked_out_by_hand(self, name, dtype):
        (attend, expected), (q, k, v) = ALL[name], qkv(dtype)
        model = Written(attend)
        with av.edit(model, {(0, 0): swap}):
            edited = model(q, k, v)
        weights = expected(q, k)
        weights = torch.cat([swap(weights[:, :1]), weights[:, 1:]], 1)
        torch.testing.assert_close(edited, weights @ v, **tolerance(dtype))

    def test_the_gradient_of_the_weights_is_there(self, name, dtype):
        (attend, expected), (q, k, v) = ALL[name], qkv(dtype)
        model = Written(attend)
        with av.capture(model, with_gradients=True) as seen:
            output = model(q, k, v)
        weights = expected(q, k).detach().requires_grad_()
        upstream = torch.randn(output.shape, dtype=dtype)
        output.backward(upstream)
        (weights @ v.detach()).backward(upstream)
        assert q.grad.abs().sum() > 0
        theirs = seen[0].weights.grad.float()
        torch.testing.assert_close(theirs, weights.grad.float(), **tolerance(dtype))


def seen_in(attend, *args: Tensor) -> list:
    """What a capture sees of a function, if anything; that it changes nothing is checked."""
    model, other = Written(attend), Written(softmax)
    run = nn.ModuleList([model])
    run.forward = lambda *args: (other(*args[:2]) @ args[2], model(*args))
    plain = model(*args)
    with av.capture(run) as seen:
        assert torch.equal(run(*args)[1], plain)
    return seen[1:]


class TestSeveralLayers:
    def test_each_is_seen_where_each_has_its_own_spelling(self):
        class Block(nn.Module):
            def __init__(self, mix):
                super().__init__()
                self.mix, self.project = mix, nn.Linear(D_K, D_K)

            def forward(self, x):
                x = self.project(x)
                return self.mix((x @ x.mT / 2).softmax(-1), x)

        model = nn.Sequential(
            Block(lambda w, v: w @ v),
            Block(lambda w, v: (v.mT @ w.mT).mT),
            Block(lambda w, v: (w[..., None] * v[:, None]).sum(2)),
        )
        x = torch.randn(BATCH, QUERIES, D_K)
        with av.capture(model) as seen:
            model(x)
        assert [(r.index, r.path) for r in seen] == [(0, "0"), (1, "1"), (2, "2")]
        for record, block in zip(seen, model, strict=True):
            projected = block.project(x)
            weights = (projected @ projected.mT / 2).softmax(-1)
            torch.testing.assert_close(record.weights[:, 0], weights)
            x = block(x)

    @pytest.mark.slow
    @pytest.mark.parametrize("n_global", [0, 1, 2])
    def test_longformer_with_tokens_that_all_see(self, n_global):
        config = hf.LongformerConfig(
            **{"vocab_size": 60, "hidden_size": 32, "num_hidden_layers": 2, "attention_window": 4},
            **{"num_attention_heads": 4, "intermediate_size": 40, "max_position_embeddings": 40},
        )
        model = hf.LongformerModel(config).eval()
        everywhere = torch.zeros(BATCH, 16).long()
        everywhere[:, :n_global] = 1
        inputs = {"input_ids": torch.arange(32).view(2, 16), "global_attention_mask": everywhere}
        with torch.no_grad():
            plain = model(**inputs, output_attentions=True)
            with av.capture(model) as seen:
                output = model(**inputs)
            with av.edit(model, {i: lambda w: w for i in range(len(seen))}):
                edited = model(**inputs)
        assert torch.equal(output[0], plain[0])
        torch.testing.assert_close(edited[0], plain[0])
        local = [record for record in seen if record.n_keys < 16]
        assert (len(local), len(seen) - len(local)) == (2, 2 if n_global else 0)
        for record, expected in zip(local, plain.attentions, strict=True):
            rows = slice(n_global, None)  # the model reports none of the others'
            assert torch.equal(record.weights[:, :, rows], expected[:, :, rows])
        others = [record for record in seen if record.n_keys == 16]
        for record, expected in zip(others, plain.get("global_attentions") or (), strict=True):
            assert torch.equal(record.weights.view(BATCH, 4, n_global, 16), expected.mT)


class TestWhatIsNoAttention:
    @pytest.mark.parametrize("inference", [False, True])
    @pytest.mark.parametrize("activation", [F.relu, torch.sigmoid])
    def test_layers_that_are_written_as_products(self, activation, inference):
        class Layers(nn.Module):
            def __init__(self):
                super().__init__()
                self.first, self.second = (nn.Parameter(torch.randn(4, 4)) for _ in range(2))

            def forward(self, x):
                x = torch.matmul(activation(x @ self.first), self.second)
                return activation(x @ self.second.T) @ self.first.T

        with (
            torch.inference_mode(inference),
            pytest.raises(ValueError, match="no attention was seen"),
            av.capture(model := Layers()),
        ):
            model(torch.randn(2, 5, 4))

    @pytest.mark.parametrize(
        "attend",
        [
            lambda q, k, v: (
                (F.linear(q, GATE[:, :D_K]).softmax(-1)[..., None] * q[..., :1, None]).sum(-2)
            ),
            lambda q, k, v: (q * (q.softmax(-2))).sum(-2),
            lambda q, k, v: q.softmax(-1) * q,
            lambda q, k, v: -(softmax(q, k) * softmax(q, k).log()).sum(-1),
            lambda q, k, v: F.linear(q.softmax(-1), nn.Parameter(torch.ones(3, D_K))),
            lambda q, k, v: k.softmax(-2).mT @ v,
            lambda q, k, v: softmax(q, k).mT @ q,
            lambda q, k, v: scores(q, k).exp() @ v,
        ],
        ids=[
            "experts mixed", "pooling by gates", "a gate", "an entropy", "a layer after it",
            "linear attention", "the other way round", "not normalised",
        ],
    )  # fmt: skip
    def test_a_softmax_that_meets_no_values(self, attend):
        assert seen_in(attend, *qkv(grad=False)) == []


class TestEdits:
    def test_are_refused_where_keys_are_chosen_by_their_weights(self):
        def attend(q, k, v):
            best, places = softmax(q, k).topk(3)
            chosen = v[:, :, None].expand(-1, -1, QUERIES, -1, -1)
            places = places[..., None].expand(-1, -1, -1, -1, D_V)
            return (best[..., None, :] @ chosen.gather(3, places)).squeeze(-2)

        model, (q, k, v) = nn.Sequential(), qkv()
        model.add_module("chooser", Written(attend))
        with av.capture(model) as seen:
            model.chooser(q, k, v)
        torch.testing.assert_close(seen[0].weights, softmax(q, k))
        with (
            pytest.raises(ValueError, match=r"attention 0 \(chooser\) cannot be changed: topk"),
            av.edit(model, {0: av.off}),
        ):
            model.chooser(q, k, v)

    @pytest.mark.parametrize("in_place", [False, True])
    @pytest.mark.parametrize(
        "then",
        [
            lambda w: w,
            lambda w: w.double().float(),
            lambda w: w.mul_(2.0) / 2,
            lambda w: w.view(-1, QUERIES, KEYS)[:].view(BATCH, HEADS, QUERIES, KEYS),
        ],
        ids=["at once", "cast", "scaled in place", "reshaped"],
    )
    def test_keep_what_dropout_chose(self, in_place, then):
        def attend(q, k, v):
            return then(F.dropout(softmax(q, k) * 1, 0.5, inplace=in_place)) @ v

        model, (q, k, v) = Written(attend), qkv()
        torch.manual_seed(0)
        kept = F.dropout(torch.ones(BATCH, HEADS, QUERIES, KEYS), 0.5)
        torch.manual_seed(0)
        with torch.no_grad(), av.capture(model) as seen, av.edit(model, {0: av.uniform}):
            edited = model(q, k, v)
        torch.testing.assert_close(edited, kept / KEYS @ v)
        torch.testing.assert_close(seen[0].weights, torch.full_like(kept, 1 / KEYS))

    def test_reach_a_product_that_is_written_where_the_model_says(self):
        def attend(q, k, v):
            out = torch.empty(BATCH, HEADS, QUERIES, D_V)
            torch.matmul(softmax(q, k), v, out=out)
            return out

        model, (q, k, v) = Written(attend), qkv(grad=False)
        with av.capture(model) as seen:
            assert torch.equal(model(q, k, v), softmax(q, k) @ v)
        torch.testing.assert_close(seen[0].weights, softmax(q, k))
        with av.edit(model, {0: swap}):
            torch.testing.assert_close(model(q, k, v), swap(softmax(q, k)) @ v)

    def test_are_refused_where_a_step_wrote_over_what_it_was_given(self):
        def attend(q, k, v):
            gate = torch.ones(BATCH, HEADS, QUERIES, 4)
            weights = softmax(q, k)
            return gate.mul_(weights[..., :4]) @ v[:, :, :4] + weights[..., 4:] @ v[:, :, 4:]

        model, (q, k, v) = Written(attend), qkv(grad=False)
        with av.capture(model) as seen:
            model(q, k, v)
        torch.testing.assert_close(seen[0].weights, softmax(q, k))
        with pytest.raises(ValueError, match="cannot be changed: mul"), av.edit(model, {0: swap}):
            model(q, k, v)

    def test_ask_the_change_once_for_weights_that_are_used_twice(self):
        calls = []

        def change(weights):
            calls.append(weights.shape)
            return weights.flip(-1)

        def attend(q, k, v):
            weights = softmax(q, k)
            return weights @ v + torch.cat([w @ v for w in weights.split(2, 2)], 2)

        model, (q, k, v) = Written(attend), qkv()
        with av.edit(model, {(0, 0): change}):
            edited = model(q, k, v)
        torch.testing.assert_close(edited[:, 0], 2 * (softmax(q, k).flip(-1) @ v)[:, 0])
        assert len(calls) == 1

    @pytest.mark.parametrize("name", ["keys sliced", "head by head", "keys before queries"])
    def test_leave_heads_that_are_not_named_bit_for_bit(self, name):
        model, (q, k, v) = Written(WAYS[name]), qkv()
        plain = model(q, k, v)
        with av.edit(model, {(0, 1): av.uniform}):
            edited = model(q, k, v)
        assert torch.equal(edited[:, [0, 2]], plain[:, [0, 2]])


class TestMemory:
    @pytest.mark.parametrize("training", [False, True])
    def test_weights_are_let_go_when_the_model_lets_them_go(self, training):
        alive = []

        def attend(q, k, v):
            weights = softmax(q, k)
            weights = F.dropout(hidden(weights), 0.1, training)
            mixed = weights[:, :, :2] @ v, shared_out(weights)[:, :, 2:] @ v
            alive.append(StorageWeakRef(weights.untyped_storage()))
            return torch.cat(mixed, 2)

        class Twice(nn.Module):
            def __init__(self):
                super().__init__()
                self.layer = Written(attend)
                self.layer.scale = nn.Parameter(torch.ones(1))  # it decides on its own kind

            def forward(self, *args):
                first = self.layer(*args)
                assert alive[-1].expired()
                return first + self.layer(*args)

        with torch.no_grad(), av.capture(model := Twice(), layers=[1]) as seen:
            model(*qkv())
        assert len(seen) == 1

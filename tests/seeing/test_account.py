"""Below torch's functions, all spellings of attention are the same few operators."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from attnviz.seeing.account import Account
from attnviz.seeing.origins import attends_to_itself


class Attention(nn.Module):
    """Two heads, from one sequence to another, by a function of queries, keys and values."""

    def __init__(self, mix, heads=2, width=6):
        super().__init__()
        self.mix, self.heads = mix, heads
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))

    def forward(self, x, memory):
        made = ((self.query, x), (self.key, memory), (self.value, memory))
        return self.mix(*(p(t).unflatten(-1, (self.heads, -1)).transpose(1, 2) for p, t in made))


def account_of(model, *inputs, inference=False):
    account = Account([*model.parameters(), *model.buffers()], lambda: "here")
    with torch.inference_mode(inference), account:
        model(*inputs)
    return account


def x(seed=0, tokens=5, width=6):
    return torch.randn(2, tokens, width, generator=torch.Generator().manual_seed(seed))


def by_hand(scores):
    numbers = (scores - scores.amax(-1, keepdim=True)).exp()
    return numbers / numbers.sum(-1, keepdim=True)


def with_a_sink(scores):
    sink = torch.zeros_like(scores[..., :1])
    return torch.cat([scores, sink], -1).softmax(-1)[..., :-1]


def in_parts(scores):
    weights = torch.empty_like(scores)
    weights[..., :2, :] = scores[..., :2, :].softmax(-1)
    weights[..., 2:, :] = scores[..., 2:, :].softmax(-1)
    return weights


WEIGHTS = {
    "softmax": lambda s: s.softmax(-1),
    "log_softmax": lambda s: s.log_softmax(-1).exp(),
    "by hand": by_hand,
    "sigmoid": torch.sigmoid,
    "relu": lambda s: s.relu() / s.size(-1),
    "in place": lambda s: s.clone().sigmoid_(),
    "dropout": lambda s: F.dropout(s.softmax(-1), 0.5),
    "a sink": with_a_sink,
    "another precision": lambda s: s.double().softmax(-1).float(),
    "a mask": lambda s: s.masked_fill(torch.ones(5, 5).triu(1).bool(), -1e9).softmax(-1),
    "an added mask": lambda s: (s + torch.zeros(1, 1, 5, 5)).softmax(-1),
    "heads that talk": lambda s: torch.einsum("bhqk,hg->bgqk", s, torch.eye(2)).softmax(-1),
    "written into another tensor": in_parts,
}
PRODUCTS = {
    "matmul": lambda w, v: w @ v,
    "transposed": lambda w, v: (v.mT @ w.mT).mT,
    "einsum": lambda w, v: torch.einsum("bhqk,bhkd->bqhd", w, v),
    "bmm": lambda w, v: torch.bmm(w.flatten(0, 1), v.flatten(0, 1)),
    "baddbmm": lambda w, v: torch.baddbmm(torch.zeros(1), w.flatten(0, 1), v.flatten(0, 1)),
    "multiply and sum": lambda w, v: (w[..., None] * v[:, :, None]).sum(-2),
    "one by one": lambda w, v: torch.stack([w[:, h] @ v[:, h] for h in range(2)], 1),
    "linear": lambda w, v: F.linear(w[0, 0], v[0, 0].mT),
}


class TestWeights:
    @pytest.mark.parametrize("inference", [False, True])
    @pytest.mark.parametrize("weights", WEIGHTS.values(), ids=WEIGHTS)
    def test_are_known_however_they_are_made(self, weights, inference):
        model = Attention(lambda q, k, v: weights(q @ k.mT / 3) @ v)
        made = account_of(model, x(), x(1), inference=inference).weights
        assert made
        assert all(w.of_products and w.over_places and w.met for w in made)

    @pytest.mark.parametrize("inference", [False, True])
    @pytest.mark.parametrize("product", PRODUCTS.values(), ids=PRODUCTS)
    def test_meet_values_in_any_product(self, product, inference):
        model = Attention(lambda q, k, v: product((q @ k.mT).softmax(-1), v))
        (made,) = account_of(model, x(), x(1), inference=inference).weights
        assert made.met

    @pytest.mark.parametrize(
        "mix",
        [
            F.scaled_dot_product_attention,
            lambda q, k, v: F.scaled_dot_product_attention(q, k, v, dropout_p=0.1),
        ],
    )
    def test_inside_a_fused_kernel_are_one_attention(self, mix):
        (made,) = account_of(Attention(mix), x(), x(1)).weights
        assert made.met

    def test_that_are_only_returned_meet_nothing(self):
        (made,) = account_of(Attention(lambda q, k, v: (q @ k.mT).softmax(-1)), x(), x(1)).weights
        assert not made.met

    def test_that_are_multiplied_with_other_weights(self):
        def mix(q, k, v):
            first, second = (q @ k.mT).softmax(-1), (k @ k.mT).softmax(-1)
            return first @ second @ v

        assert [w.mixed for w in account_of(Attention(mix), x(), x(1)).weights] == [True, True]


class TestWhatIsNoAttentionOfTokens:
    def test_channels_to_channels(self):
        def mix(q, k, v):
            return (v @ (q.mT @ k).softmax(-1)).mT

        (made,) = account_of(Attention(mix), x(), x()).weights
        assert not made.over_places

    def test_feature_maps_of_linear_attention(self):
        def mix(q, k, v):
            return q.softmax(-1) @ (k.softmax(-2).mT @ v)

        assert not any(w.of_products for w in account_of(Attention(mix), x(), x()).weights)

    @pytest.mark.parametrize("activation", [torch.relu, torch.sigmoid, torch.exp])
    def test_activations_of_a_feed_forward_network_and_its_classes(self, activation):
        class Network(nn.Sequential):
            def forward(self, x):
                return self[1](activation(self[0](x))).softmax(-1) @ torch.randn(9, 3)

        model = Network(nn.Linear(6, 8), nn.Linear(8, 9))
        assert not any(w.of_products for w in account_of(model, x()).weights)

    def test_activations_after_an_attention(self):
        layers = nn.Linear(3, 3)

        def mix(q, k, v):
            return layers(layers((q @ k.mT).softmax(-1) @ v).relu()).sigmoid()

        model = Attention(mix)
        model.layers = layers
        assert len(account_of(model, x(), x()).weights) == 1


class TestSelfAndCross:
    def kinds(self, model, *inputs):
        return [
            "self" if attends_to_itself(w.query, w.key) else "cross"
            for w in account_of(model, *inputs).weights
        ]

    def written_out(self, q, k, v):
        return (q @ k.mT).softmax(-1) @ v

    def test_by_where_the_keys_come_from(self):
        model = Attention(self.written_out)
        tokens = x()
        assert self.kinds(model, tokens, tokens) == ["self"]
        assert self.kinds(model, tokens, x(1)) == ["cross"]
        assert self.kinds(model, tokens, torch.cat([x(1), tokens], 1)) == ["cross"]

    def test_keys_from_before_and_now_are_of_the_same_tokens(self):
        class Cached(Attention):
            def forward(self, x, past):
                return super().forward(x, torch.cat([past, x], 1))

        assert self.kinds(Cached(self.written_out), x(tokens=1), x(1)) == ["self"]

    def test_other_arguments_make_no_difference(self):
        class Rotated(Attention):
            def forward(self, x, cos, sin):
                turned = x * cos + x.flip(-1) * sin
                return super().forward(turned, turned)

        assert self.kinds(Rotated(self.written_out), x(), x(1), x(2)) == ["self"]

    @pytest.mark.parametrize("same", [False, True])
    def test_an_encoder_and_a_decoder(self, same):
        """Also where both are given the same tokens: the decoder's have gone another way."""
        model = nn.Transformer(6, 2, 2, 2, 12, batch_first=True)
        model.train()
        source = x()
        kinds = self.kinds(model, source, source if same else x(1))
        assert kinds == ["self"] * 2 + ["self", "cross"] * 2

    def test_learned_queries_attend_across_and_then_to_themselves(self):
        class Latents(nn.Module):
            def __init__(self, mix):
                super().__init__()
                self.latents = nn.Parameter(torch.randn(1, 3, 6))
                self.across, self.within = Attention(mix), Attention(mix)

            def forward(self, x):
                latents = self.across(self.latents.expand(len(x), -1, -1), x)
                latents = latents.transpose(1, 2).flatten(2)
                return self.within(latents, latents)

        assert self.kinds(Latents(self.written_out), x()) == ["cross", "self"]


def test_the_output_is_the_same_bit_for_bit():
    model = Attention(lambda q, k, v: by_hand(q @ k.mT) @ v)
    wanted = model(x(), x(1))
    with Account(model.parameters(), lambda: ""):
        got = model(x(), x(1))
    assert torch.equal(wanted, got)
    wanted.sum().backward()
    gradients = [p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    got.sum().backward()
    assert all(torch.equal(p.grad, g) for p, g in zip(model.parameters(), gradients, strict=True))


def test_it_forgets_tensors_with_the_model():
    model = Attention(lambda q, k, v: (q @ k.mT).softmax(-1) @ v)
    account = account_of(model, x(), x(1))
    assert len(account._known) <= len(list(model.parameters()))

"""What looks like attention is recorded, or told by module and reason; edits are refused."""

import warnings

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import attnviz as av


class Attention(nn.Module):
    """Two heads of attention to one's own tokens, by a function of queries, keys and values."""

    def __init__(self, mix):
        super().__init__()
        self.mix, self.qkv = mix, nn.Linear(6, 18)

    def forward(self, x):
        q, k, v = self.qkv(x).unflatten(-1, (3, 2, 3)).permute(2, 0, 3, 1, 4)
        return self.mix(q, k, v).transpose(1, 2).flatten(2)


def of(*mixes):
    """A model of layers, each with its own way to attend."""
    torch.manual_seed(0)
    return nn.Sequential(*map(Attention, mixes)).eval()


def x(tokens=5):
    return torch.randn(2, tokens, 6, generator=torch.Generator().manual_seed(1))


def seen_one(q, k, v):
    return F.scaled_dot_product_attention(q, k, v)


@torch.library.custom_op("attnviz_tests::flash_attention", mutates_args=())
def a_kernel(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return (q @ k.mT).softmax(-1) @ v


@torch.library.custom_op("attnviz_tests::my_attn", mutates_args=())
def another_kernel(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return torch.sigmoid(q @ k.mT) @ v


def scripted(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return torch.matmul(torch.softmax(torch.matmul(q, k.transpose(-2, -1)), -1), v)


def sparse(q, k, v):
    """Sparsemax: the scores' projection onto what sums to one (Martins & Astudillo 2016)."""
    scores = q @ k.mT
    ordered, _ = scores.sort(-1, descending=True)
    steps = torch.arange(1, scores.size(-1) + 1)
    kept = 1 + steps * ordered > ordered.cumsum(-1)
    n = kept.sum(-1, keepdim=True)
    threshold = (ordered.cumsum(-1).gather(-1, n - 1) - 1) / n
    return (scores - threshold).clamp(min=0) @ v


def softplus(q, k, v):
    return F.softplus(q @ k.mT) @ v


def of_landmarks(q, k, v):
    """Nyström: weights, and other weights, before the values (Xiong et al. 2021)."""
    few_q, few_k = q[:, :, ::2], k[:, :, ::2]
    left, middle = (q @ few_k.mT).softmax(-1), (few_q @ few_k.mT).softmax(-1)
    return left @ torch.linalg.pinv(middle) @ ((few_q @ k.mT).softmax(-1) @ v)


MISSED = {
    "a kernel": (a_kernel, "computed by flash_attention"),
    "another kernel": (another_kernel, "computed by my_attn"),
    "sparsemax": (sparse, "clamp"),
    "softplus": (softplus, "softplus"),
}


class TestWhatIsMissed:
    @pytest.mark.parametrize(("mix", "reason"), MISSED.values(), ids=MISSED)
    def test_is_told_by_module_and_reason(self, mix, reason):
        model = of(seen_one, mix)
        with (
            pytest.warns(UserWarning, match=rf"without being seen\. 1: .*{reason}"),
            av.capture(model) as seen,
        ):
            model(x())
        assert [r.path for r in seen] == ["0"]

    @pytest.mark.parametrize("mix", [a_kernel, sparse])
    def test_is_told_in_each_block_and_not_only_in_the_first(self, mix):
        model = of(seen_one, mix)
        for _ in range(3):
            with pytest.warns(UserWarning, match="without being seen"), av.capture(model):
                model(x())

    @pytest.mark.filterwarnings("ignore:`torch.jit.script`")
    @pytest.mark.slow
    def test_attention_in_a_scripted_function(self):
        model = of(seen_one, torch.jit.script(scripted))
        with (
            pytest.warns(UserWarning, match="1: what its softmax makes meets the values"),
            av.capture(model),
        ):
            model(x())

    def test_weights_that_meet_other_weights(self):
        model = of(seen_one, of_landmarks)
        with (
            pytest.warns(UserWarning, match="1: its weights are multiplied with other weights"),
            av.capture(model) as seen,
        ):
            model(x())
        assert [(r.path, r.n_queries, r.n_keys) for r in seen] == [("0", 5, 5), ("1", 3, 5)]

    def test_in_a_branch_that_runs_for_the_first_time(self):
        """An account is kept of a pass of a new kind, and of modules that did not run before."""

        class Branches(nn.Module):
            def __init__(self):
                super().__init__()
                self.layers = of(seen_one, sparse)

            def forward(self, x):
                return self.layers(x) if x[0, 0, 0] > 0 else self.layers[0](x)

        model, tokens = Branches(), x()
        tokens[0, 0, 0] = -1
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            for _ in range(2):
                with av.capture(model):
                    model(tokens)
        tokens[0, 0, 0] = 1
        with pytest.warns(UserWarning, match=r"layers\.1: "), av.capture(model):
            model(tokens)

    def test_after_a_setting_was_changed(self):
        model = of(seen_one, seen_one)
        with av.capture(model):
            model(x())
        model[1].mix = sparse
        with pytest.warns(UserWarning, match="1: "), av.capture(model):
            model(x())


def test_a_single_key_hides_no_later_attention():
    """Its weights are multiplied with the values without a sum, and are no weights from then on."""

    def of_one_key(q, k, v):
        k, v = k.mean(2, keepdim=True), v.mean(2, keepdim=True)
        return (q @ k.mT).softmax(-1) * v

    def written_out(q, k, v):
        return (q @ k.mT).softmax(-1) @ v

    model = of(of_one_key, written_out, written_out)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with av.capture(model) as seen:
            model(x())
    assert [r.path for r in seen][-2:] == ["1", "2"]


def test_products_in_other_layers_are_no_scores_later():
    """As in state-space layers, whose products go on as features through norms and projections."""

    class StateSpace(nn.Module):
        def __init__(self):
            super().__init__()
            self.into, self.out = nn.Linear(6, 18), nn.Linear(6, 6)

        def forward(self, x):
            b, c, values = self.into(x).chunk(3, -1)
            mixed = (c @ b.mT).tril() @ values
            return x + self.out(F.layer_norm(F.silu(mixed), (6,)))

    model = nn.Sequential(StateSpace(), *of(seen_one, seen_one))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with av.capture(model) as seen:
            model(x())
    assert [(r.path, r.kind) for r in seen] == [("1", "self"), ("2", "self")]


class TestEdits:
    @pytest.mark.parametrize("mix", [a_kernel, sparse, of_landmarks])
    def test_of_numbered_layers_are_refused(self, mix):
        model = of(mix, seen_one)
        with (
            pytest.raises(ValueError, match=r"counts layers, but 0 attends .* by the path"),
            av.edit(model, {0: av.off}),
        ):
            model(x())

    def test_by_name_are_right(self):
        model = of(sparse, seen_one)
        with av.edit(model, {"1": av.off}):
            output = model(x())
        assert torch.equal(output, torch.zeros_like(output))


NO_ATTENTION = {
    "linear attention": lambda q, k, v: q.softmax(-1) @ (k.softmax(-2).mT @ v),
    "linear attention of other features": lambda q, k, v: (F.elu(q) + 1) @ ((F.elu(k) + 1).mT @ v),
    "scores without a softmax": lambda q, k, v: (q @ k.mT).tril() @ v / q.size(-2),
    "channels": lambda q, k, v: v @ (q.mT @ k).softmax(-1),
    "features that are gated": lambda q, k, v: v * torch.sigmoid(q),
}


@pytest.mark.parametrize("mix", NO_ATTENTION.values(), ids=NO_ATTENTION)
def test_what_is_no_attention_of_tokens_is_no_record_and_no_alarm(mix):
    model = of(seen_one, mix)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with av.capture(model) as seen:
            model(x())
    assert [r.path for r in seen] == ["0"]


class TestHeads:
    """Heads are where a projection's features went, in whatever order a model has them."""

    def before_the_batch(self, q, k, v):
        q, k, v = (t.transpose(0, 1).flatten(0, 1) for t in (q, k, v))
        return ((q @ k.mT).softmax(-1) @ v).unflatten(0, (2, -1)).transpose(0, 1)

    def fused_before_the_batch(self, q, k, v):
        q, k, v = (t.transpose(0, 1) for t in (q, k, v))
        return F.scaled_dot_product_attention(q, k, v, scale=1).transpose(0, 1)

    def folded(self, q, k, v):
        q, k, v = (t.flatten(0, 1) for t in (q, k, v))
        return F.scaled_dot_product_attention(q, k, v, scale=1).unflatten(0, (-1, 2))

    def in_place(self, q, k, v):
        return F.scaled_dot_product_attention(q, k, v, scale=1)

    @pytest.mark.parametrize("way", ["before_the_batch", "fused_before_the_batch", "folded"])
    def test_are_found_and_changed(self, way):
        model, plain = of(getattr(self, way)), of(self.in_place)
        tokens = torch.cat([x(), x().flip(1), x() * 2])[:3]
        change = {(0, 1): lambda weights: weights.roll(1, -1)}
        with av.capture(model) as seen, av.capture(plain) as expected:
            outputs = model(tokens), plain(tokens)
        torch.testing.assert_close(*outputs)
        assert seen[0].weights.shape == (3, 2, 5, 5)
        torch.testing.assert_close(seen[0].weights, expected[0].weights)
        with av.edit(model, change), av.edit(plain, change):
            torch.testing.assert_close(model(tokens), plain(tokens))


def test_blocks_of_edit_on_a_part_and_on_the_whole_are_refused():
    model = of(seen_one, seen_one)
    for first, second in ((model, model[0]), (model[0], model)):
        with av.edit(first, {0: av.off}):
            with (
                pytest.raises(ValueError, match="open both on the same model"),
                av.capture(second),
            ):
                pass
            model(x())

"""What one pass has taught of a model holds for the next of its kind, and for no other."""

import enum
import gc
import threading
import warnings
import weakref
from contextlib import nullcontext

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import attnviz as av


def x(seed=0, items=2, tokens=5):
    return torch.randn(items, tokens, 8, generator=torch.Generator().manual_seed(seed))


def attention():
    return nn.MultiheadAttention(8, 2, batch_first=True)


def kinds(seen):
    return [record.kind for record in seen]


class TestTheSecondPass:
    """Of a kind, without an account, tells what the first told."""

    def twice(self, model, *inputs):
        seen = []
        for _ in range(2):
            with av.capture(model) as records:
                model(*inputs)
            seen.append([(r.path, r.kind, r.batch_size, r.heads) for r in records])
        assert seen[0] == seen[1]
        return seen[0]

    def test_where_a_module_attends_along_one_dimension_and_then_another(self):
        class Axial(nn.Module):
            def __init__(self):
                super().__init__()
                self.attend = attention()

            def forward(self, x):
                x = self.attend(x, x, x)[0]
                turned = x.transpose(0, 1)
                return self.attend(turned, turned, turned)[0]

        rows, columns = self.twice(Axial(), x(items=3))
        assert (rows[2:], columns[2:]) == ((3, 2), (5, 2))

    def test_where_a_module_attends_to_itself_and_then_across(self):
        class Shared(nn.Module):
            def __init__(self):
                super().__init__()
                self.attend = attention()

            def forward(self, x, memory):
                x = self.attend(x, x, x)[0]
                return self.attend(x, memory, memory)[0]

        assert [kind for _, kind, *_ in self.twice(Shared(), x(), x(1))] == ["self", "cross"]


class TestAnotherKind:
    def test_the_same_tensor_given_twice(self):
        model, tokens = attention(), x()
        for key, kind in ((tokens, "self"), (x(1), "cross"), (tokens, "self")):
            with av.capture(model) as seen:
                model(tokens, key, key)
            assert kinds(seen) == [kind]

    class Choice(enum.Enum):
        SEEN = 0
        UNSEEN = 1

    class Either(nn.Module):
        """Attention that is seen, or by softplus, depending on a setting."""

        def __init__(self):
            super().__init__()
            self.project, self.settings, self.number = nn.Linear(8, 8), {"softplus": False}, -1
            self.inner = nn.Dropout(0.0)

        def forward(self, x, how=None):
            q = self.project(x)
            softplus = self.settings["softplus"] or self.number == -2 or self.inner.training
            if softplus or (how and how.value):
                return F.softplus(q @ q.mT) @ q
            return F.scaled_dot_product_attention(q, q, q)

    @pytest.mark.parametrize(
        ("change", "how"),
        [
            (lambda layer: layer.settings.update(softplus=True), None),
            (lambda layer: setattr(layer, "number", -2), None),
            (lambda layer: layer.inner.train(), None),
            (lambda layer: None, Choice.UNSEEN),
        ],
        ids=["in a dict", "a number", "training", "an argument"],
    )
    def test_a_setting(self, change, how):
        layer = self.Either().eval()
        model = nn.ModuleList([layer, attention()])
        model.forward = lambda x, how: model[1](*[model[0](x, how)] * 3)
        with warnings.catch_warnings(), av.capture(model):
            warnings.simplefilter("error")
            model(x(), how and self.Choice.SEEN)
        change(layer)
        with pytest.warns(UserWarning, match="0: what its softplus makes"), av.capture(model):
            model(x(), how)

    def test_a_pass_that_failed_before_it_attended(self):
        class Late(self.Either):
            def forward(self, x):
                if x[0, 0, 1] > 0:
                    raise RuntimeError("in the model")
                return super().forward(x)

        class Branches(nn.Module):
            def __init__(self):
                super().__init__()
                self.first, self.late = attention(), Late()
                self.late.number = -2

            def forward(self, x):
                return self.late(x) if x[0, 0, 0] > 0 else self.first(x, x, x)[0]

        model, tokens = Branches(), x()
        for branch, fails in ((-1, -1), (1, 1)):
            tokens[0, 0, :2] = torch.tensor([branch, fails])
            with av.capture(model):
                model(x() * 0)
                with pytest.raises(RuntimeError, match="model") if fails > 0 else nullcontext():
                    model(tokens)
        tokens[0, 0, :2] = torch.tensor([1, -1])
        with pytest.warns(UserWarning, match="late: what its softplus makes"), av.capture(model):
            [model(given) for given in (x() * 0, tokens)]


def wrapped(model):
    forward = model.forward
    model.forward = lambda *given: forward(*given)


@pytest.mark.parametrize(
    "hold",
    [
        lambda model: None,
        wrapped,
        lambda model: setattr(model, "forward", model.forward),
        lambda model: setattr(model.self_attn, "owner", {model: 0}),
    ],
    ids=["not at all", "by a wrapper", "by its own method", "as a key"],
)
def test_what_is_known_of_a_model_does_not_keep_it(hold):
    """Also where the model's settings and functions lead back to it."""
    model = nn.TransformerEncoderLayer(8, 2, 8, batch_first=True)
    hold(model)
    with av.capture(model):
        model(x())
    watched = weakref.ref(model)
    del model
    gc.collect()
    assert watched() is None


class TestOutputs:
    """Stay as they are to the last bit, also where functions arrive whole below torch's."""

    @pytest.mark.parametrize("width", [8, 64, 96])
    @pytest.mark.parametrize("kind", ["attention", "encoder", "after a recurrent layer"])
    def test_in_inference_mode(self, kind, width):
        torch.manual_seed(0)
        model = nn.MultiheadAttention(width, 2, batch_first=True)
        if kind == "encoder":
            model = nn.TransformerEncoderLayer(width, 2, 2 * width, batch_first=True)
        tokens, outputs = torch.randn(2, 17, width), []
        recurrent = nn.LSTM(width, width) if "recurrent" in kind else lambda x: (x, None)
        with torch.inference_mode():
            for capture in (False, True, True):
                torch.manual_seed(1)
                with av.capture(model) if capture else warnings.catch_warnings():
                    made = recurrent(tokens.transpose(0, 1))[0].transpose(0, 1)
                    made = model(made) if kind == "encoder" else model(made, tokens, tokens)[0]
                outputs.append(made)
        assert torch.equal(outputs[0], outputs[1])
        assert torch.equal(outputs[0], outputs[2])

    def test_a_layer_that_keeps_something_runs_once(self):
        class WithCache(nn.MultiheadAttention):
            def forward(self, x):
                self.cache = [*getattr(self, "cache", []), x]
                tokens = torch.cat(self.cache, 1)
                return super().forward(x, tokens, tokens, need_weights=False)[0]

        model = WithCache(8, 2, batch_first=True).eval()
        with torch.no_grad(), av.capture(model) as seen:
            for i in range(3):
                model(x()[:, i : i + 1])
        assert [record.n_keys for record in seen] == [1, 2, 3]


class TestWeightsThatAreNoData:
    def alone(self, model, run):
        """No attention but the first layer's is seen, and there is no alarm."""
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with av.capture(model) as seen:
                run()
        assert kinds(seen) == ["self"]

    class Network(nn.Module):
        def __init__(self, change=lambda layer: layer):
            super().__init__()
            self.attend = attention()
            self.further = nn.Sequential(
                change(nn.Linear(8, 16)), nn.ReLU(), change(nn.Linear(16, 8))
            )

        def forward(self, x):
            return self.further(self.attend(x, x, x)[0])

    def test_cast_before(self):
        model, tokens = self.Network(), x()
        with torch.autocast("cpu", torch.bfloat16):
            model(tokens)
            self.alone(model, lambda: model(tokens))

    def test_divided_by_their_norm(self):
        model = self.Network(nn.utils.parametrizations.spectral_norm).eval()
        self.alone(model, lambda: model(x()))


class TestHeads:
    def of(self, model, tokens=None):
        with av.capture(model) as seen:
            model(x() if tokens is None else tokens)
        return seen[0].batch_size, seen[0].heads

    def test_cut_from_the_features_and_joined_along_the_batch(self):
        class Joined(nn.Module):
            def __init__(self):
                super().__init__()
                self.qkv = nn.ModuleList(nn.Linear(8, 8) for _ in range(3))

            def forward(self, x):
                q, k, v = (torch.cat(p(x).chunk(2, -1), 0) for p in self.qkv)
                return torch.cat(((q @ k.mT).softmax(-1) @ v).chunk(2, 0), -1)

        assert self.of(Joined(), x(items=3)) == (3, 2)

    def test_each_with_a_projection_of_its_own_before_the_batch(self):
        class Each(nn.Module):
            def __init__(self):
                super().__init__()
                self.qkv = nn.ParameterList(torch.randn(3, 8, 4) for _ in range(3))

            def forward(self, x):
                q, k, v = (torch.einsum("bnd,hde->hbne", x, w) for w in self.qkv)
                return ((q @ k.mT).softmax(-1) @ v).permute(1, 2, 0, 3).flatten(2)

        model, tokens = Each(), x()
        assert self.of(model) == (2, 3)
        with av.edit(model, {(0, 1): av.off}):
            off = model(tokens).unflatten(-1, (3, 4)).abs().amax((0, 1, 3)) == 0
        assert off.tolist() == [False, True, False]

    @pytest.mark.parametrize(
        ("query", "key", "grouped", "sizes"),
        [
            ((1, 2, 5, 8), (3, 2, 7, 8), False, (3, 2, 5, 7)),
            ((2, 5, 8), (3, 2, 7, 8), False, (3, 2, 5, 7)),
            ((4, 5, 8), (2, 7, 8), True, (1, 4, 5, 7)),
        ],
    )
    def test_of_fused_attention_that_broadcasts(self, query, key, grouped, sizes):
        class Fused(nn.Module):
            def forward(self, q, k):
                return F.scaled_dot_product_attention(q, k, k, enable_gqa=grouped)

        model, query, key = Fused(), torch.randn(query), torch.randn(key)
        plain = model(query, key)
        with av.capture(model) as seen:
            assert torch.equal(model(query, key), plain)
        assert seen[0].weights.shape == sizes
        with av.edit(model, {(0, 1): av.off}):
            changed = (model(query, key) != plain).any(-1).any(-1)
        assert changed.reshape(-1, sizes[1]).any(0).tolist() == [i == 1 for i in range(sizes[1])]


def test_layers_that_take_their_sizes_from_what_they_are_given():
    model = nn.Sequential(nn.LazyLinear(8), nn.TransformerEncoderLayer(8, 2, 8, batch_first=True))
    with av.capture(model) as seen:
        model(x())
    assert kinds(seen) == ["self"]


def test_parts_of_a_pass_that_run_in_another_thread_are_told():
    class Split(nn.Module):
        def __init__(self):
            super().__init__()
            self.there, self.here = attention(), attention()

        def forward(self, x):
            thread = threading.Thread(target=lambda: self.there(x, x, x))
            thread.start()
            thread.join()
            return self.here(x, x, x)[0]

    model = Split()
    with pytest.warns(UserWarning, match="there: it ran in the thread"), av.capture(model) as seen:
        model(x())
    assert [record.path for record in seen] == ["here"]
    with pytest.raises(ValueError, match="counts layers, but there"), av.edit(model, {0: av.off}):
        model(x())

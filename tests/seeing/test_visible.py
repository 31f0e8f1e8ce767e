"""What cannot be seen is refused: where it is, and what to do instead, which then works."""

import re
import warnings

import pytest
import torch
import torch.nn.functional as F
import transformers as hf
from torch import Tensor, nn
from torch.nn.attention.flex_attention import flex_attention
from transformers.integrations.sdpa_attention import sdpa_attention_forward

import attnviz as av

pytestmark = pytest.mark.filterwarnings("ignore")  # torch's own, about what it does not compile


class Attention(nn.Module):
    """Attention of two heads of width 4, fused or written out."""

    def __init__(self, fused: bool = True):
        super().__init__()
        self.fused = fused
        self.projections = nn.ModuleList([nn.Linear(8, 8) for _ in range(3)])

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        if self.fused:
            return F.scaled_dot_product_attention(q, k, v)
        return (q @ k.mT / 2).softmax(-1) @ v

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (p(x).unflatten(-1, (2, 4)).transpose(1, 2) for p in self.projections)
        return self.attend(q, k, v).transpose(1, 2).flatten(-2)


class Flex(Attention):
    def attend(self, q, k, v):
        return flex_attention(q, k, v)


def two_layers(second: nn.Module | None = None) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(Attention(), Attention() if second is None else second).eval()


def compiled(function):
    return torch.compile(function, backend="eager")


def model_compiled():
    model = two_layers()
    model.compile(backend="eager")
    return model


def layer_compiled():
    model = two_layers()
    model[1].compile(backend="eager")
    return model


def layer_wrapped():
    return two_layers(compiled(Attention()))


def forward_compiled():
    model = two_layers()
    model.forward = compiled(model.forward)
    return model


def forward_decorated():
    class Decorated(Attention):
        forward = compiled(Attention.forward)

    return two_layers(Decorated())


def function_inside():
    layer = Attention()
    layer.attend = compiled(F.scaled_dot_product_attention)
    return two_layers(layer)


UP_FRONT = {
    "the model": (model_compiled, "Sequential"),
    "a layer": (layer_compiled, "1"),
    "a layer, wrapped": (layer_wrapped, "1"),
    "its forward": (forward_compiled, "Sequential"),
    "a layer's forward, by a decorator": (forward_decorated, "1"),
}
X = torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(0))


def seen_in(model: nn.Module, run=None) -> tuple[Tensor, list]:
    with torch.no_grad(), av.capture(model) as seen:
        output = (run or model)(X)
    return output, list(seen)


@pytest.mark.slow
class TestCompiled:
    @pytest.mark.parametrize("how", UP_FRONT)
    def test_code_is_refused_before_it_runs(self, how):
        make, path = UP_FRONT[how]
        message = rf"inside compiled code cannot be seen \({path}\).*set_stance\(\"force_eager\"\)"
        model = make()
        for watch in (av.capture(model), av.edit(model, {0: av.off})):
            with pytest.raises(ValueError, match=message):
                watch.__enter__()

    def test_a_function_in_a_layer_is_refused_when_it_runs(self):
        with pytest.raises(ValueError, match=r"compiled code cannot be seen \(1\).*force_eager"):
            seen_in(function_inside())

    def test_code_around_the_model_is_refused_when_it_runs(self):
        model = two_layers()
        with pytest.raises(ValueError, match=r"compiled code cannot be seen.*force_eager"):
            seen_in(model, compiled(lambda x: model(x)))

    @pytest.mark.parametrize("make", [function_inside, *(make for make, _ in UP_FRONT.values())])
    def test_the_remedy_works(self, make):
        model = make()
        with torch.compiler.set_stance("force_eager"):
            plain = model(X)
            output, seen = seen_in(model)
            with av.edit(model, {1: av.off}):
                edited = model(X)
        assert torch.equal(output, plain)
        assert len(seen) == 2
        assert not edited.any()

    def test_code_that_is_never_compiled_is_seen(self):
        model = two_layers()
        model[1].forward = torch.compiler.disable(model[1].forward)
        assert len(seen_in(model)[1]) == 2

    def test_an_error_of_the_model_itself_stays_as_it_is(self):
        class Failing(Attention):
            def attend(self, q, k, v):
                raise AssertionError("in the model")

        with pytest.raises(AssertionError, match="in the model"):
            seen_in(two_layers(Failing()))


@pytest.mark.slow
class TestFlexAttention:
    @pytest.mark.parametrize("stance", ["default", "force_eager"])
    def test_is_refused_with_its_place(self, stance):
        message = r'F\.scaled_dot_product_attention.*attn_implementation="sdpa".*called in 1$'
        with torch.compiler.set_stance(stance), pytest.raises(ValueError, match=message):
            seen_in(two_layers(Flex()))


class TestOtherForms:
    @pytest.mark.slow
    def test_an_exported_model(self):
        exported = torch.export.export(Attention(), (X,)).module()
        with pytest.raises(ValueError, match=r"exported model cannot be seen.*before torch.export"):
            av.capture(nn.Sequential(exported)).__enter__()

    def test_a_graph_of_torchs_functions_is_seen(self):
        model = torch.fx.symbolic_trace(Attention())
        output, seen = seen_in(model)
        assert torch.equal(output, model(X))
        assert len(seen) == 1

    @pytest.mark.parametrize("kernel", ["flash_attention_3", "flex_attention", "paged|sdpa", "a/b"])
    def test_kernels_that_are_no_python(self, kernel):
        model = two_layers()
        model[1].config = hf.GPT2Config()
        model[1].config._attn_implementation_internal = kernel
        message = rf"{re.escape(repr(kernel))} cannot be seen \(1\).*set_attn_implementation"
        with pytest.raises(ValueError, match=message):
            av.capture(model).__enter__()

    def test_a_function_that_was_registered_with_transformers_is_seen(self):
        def attend(*args, **kwargs):
            return sdpa_attention_forward(*args, **kwargs)

        hf.AttentionInterface.register("of_our_own", attend)
        config = hf.LlamaConfig(
            **{"num_hidden_layers": 2, "hidden_size": 8, "num_attention_heads": 2},
            **{"intermediate_size": 8, "vocab_size": 9},
        )
        model = hf.LlamaModel._from_config(config, attn_implementation="of_our_own").eval()
        ids = torch.arange(5)[None]
        plain = model(ids).last_hidden_state
        with av.capture(model) as seen:
            assert torch.equal(model(ids).last_hidden_state, plain)
        assert len(seen) == 2


class TestNestedTensors:
    @pytest.mark.parametrize("gradients", [False, True])
    def test_are_refused_with_place_and_remedy(self, gradients):
        items = [torch.randn(3, 8), torch.randn(5, 8)]
        model, x = two_layers(), torch.nested.nested_tensor(items, layout=torch.jagged)
        message = r"nested tensors cannot be seen \(0\): pad the sequences"
        with torch.set_grad_enabled(gradients):
            assert model(x).is_nested
            with pytest.raises(ValueError, match=message), av.capture(model):
                model(x)

    def test_padded_as_the_remedy_says_they_are_seen(self):
        items = [torch.randn(3, 8), torch.randn(5, 8)]
        nested = torch.nested.nested_tensor(items, layout=torch.jagged)
        with av.capture(model := two_layers()) as seen:
            model(nested.to_padded_tensor(0.0))
        assert seen[0].weights.shape == (2, 2, 5, 5)


@pytest.mark.parametrize("fused", [False, True])
class TestVmap:
    def test_items_that_run_at_once_are_more_of_a_batch(self, fused):
        torch.manual_seed(0)
        model, x = Attention(fused).eval(), torch.randn(4, 2, 5, 8)
        with torch.no_grad(), warnings.catch_warnings():
            plain = torch.vmap(model)(x)
            with av.capture(model) as seen:
                output = torch.vmap(model)(x)
            with av.capture(model) as expected:
                model(x.flatten(0, 1))
        assert torch.equal(output, plain)
        torch.testing.assert_close(seen[0].weights, expected[0].weights)

    def test_also_along_another_dimension_and_twice(self, fused):
        model, x = Attention(fused).eval(), torch.randn(3, 2, 4, 5, 8)
        with torch.no_grad():
            with av.capture(model) as seen:
                torch.vmap(torch.vmap(model), in_dims=1)(x)
            with av.capture(model) as expected:
                model(x.transpose(0, 1).flatten(0, 2))
        torch.testing.assert_close(seen[0].weights, expected[0].weights)

    def test_is_not_changed_nor_seen_with_gradients(self, fused):
        model, x = nn.Sequential(Attention(fused)), torch.randn(4, 2, 5, 8)
        for watch in (av.edit(model, {0: av.off}), av.capture(model, with_gradients=True)):
            with pytest.raises(ValueError, match=r"torch.vmap can be seen, but.*\(0\)"), watch:
                torch.vmap(model)(x)

    def test_gradients_by_functions_are_no_obstacle(self, fused):
        model, x = Attention(fused), torch.randn(2, 5, 8)
        parameters = dict(model.named_parameters())

        def loss(parameters):
            return torch.func.functional_call(model, parameters, (x,)).square().sum()

        plain = torch.func.grad(loss)(parameters)
        with av.capture(model) as seen:
            watched = torch.func.grad(loss)(parameters)
        assert all(torch.equal(watched[name], plain[name]) for name in plain)
        torch.testing.assert_close(seen[0].weights.sum(-1), torch.ones(2, 2, 5))

"""Parts that run a second time in backward(): as they ran at first, and unseen."""

import gc
import threading
import weakref

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint, checkpoint_sequential
from transformers import BertConfig, BertModel, GPT2Config, GPT2Model, LlamaConfig, LlamaModel

import attnviz as av
from attnviz.seeing import recomputing


class Fused(nn.Module):
    def __init__(self):
        super().__init__()
        self.qkv, self.out = nn.Linear(8, 24), nn.Linear(8, 8)

    def attend(self, q, k, v):
        return F.scaled_dot_product_attention(q, k, v)

    def forward(self, x):
        q, k, v = (t.unflatten(-1, (2, 4)).transpose(1, 2) for t in self.qkv(x).chunk(3, -1))
        return x + self.out(self.attend(q, k, v).transpose(1, 2).flatten(2)).tanh()


class WrittenOut(Fused):
    def attend(self, q, k, v):
        return F.dropout((q @ k.mT / 2).softmax(-1), 0.2, self.training) @ v


def plainly(layers, x):
    for layer in layers:
        x = layer(x)
    return x


def each(reentrant):
    def run(layers, x):
        for layer in layers:
            x = checkpoint(layer, x, use_reentrant=reentrant)
        return x

    return run


def together(reentrant):
    return lambda layers, x: checkpoint(plainly, layers, x, use_reentrant=reentrant)


def one_in_another(reentrant):
    return lambda layers, x: checkpoint(each(reentrant), layers, x, use_reentrant=reentrant)


def in_segments(reentrant):
    return lambda layers, x: checkpoint_sequential(
        list(layers), 2, x, use_reentrant=reentrant
    )  # the last runs but once


def of_a_method(reentrant):
    def run(layers, x):
        for layer in layers:
            x = checkpoint(layer.forward, x, use_reentrant=reentrant)
        return x

    return run


WAYS = [each, together, one_in_another, in_segments, of_a_method]


class Stack(nn.Module):
    def __init__(self, kind=Fused, shared=False):
        super().__init__()
        torch.manual_seed(0)
        layers = [kind() for _ in range(3)]
        self.layers = nn.ModuleList([layers[0]] * 3 if shared else layers)
        self.run = plainly

    def forward(self, x):
        return self.run(self.layers, x)


@pytest.fixture
def x():
    torch.manual_seed(1)
    return torch.randn(1, 5, 8, requires_grad=True)


def gradients(model, x, backward_inside=True, changes=None, **options):
    """Of the input and the parameters; and the records."""
    model.zero_grad()
    x.grad = None
    torch.manual_seed(2)
    with av.capture(model, **options) as seen, av.edit(model, changes or {(1, 0): av.uniform}):
        loss = model(x).square().sum()
        if backward_inside:
            loss.backward()
    if not backward_inside:
        loss.backward()
    return [x.grad, *(p.grad for p in model.parameters())], seen


def assert_same(actual, expected):
    for a, b in zip(actual, expected, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")
@pytest.mark.parametrize("inside", [False, True])
@pytest.mark.parametrize("kind", [Fused, WrittenOut])
@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("way", WAYS)
class TestCheckpointing:
    def test_gradients_are_those_of_the_edited_model(self, way, reentrant, kind, inside, x):
        model = Stack(kind)
        plain = [p.clone() for p in gradients(model, x, inside)[0]]
        model.run = way(reentrant)
        again, seen = gradients(model, x, inside)
        assert_same(again, plain)
        assert [(r.pass_number, r.index) for r in seen] == [(0, 0), (0, 1), (0, 2)]

    def test_weights_in_the_graph_have_their_gradients(self, way, reentrant, kind, inside, x):
        model = Stack(kind)
        _, seen = gradients(model, x, inside, with_gradients=True)
        model.run = way(reentrant)
        _, again = gradients(model, x, inside, with_gradients=True)
        assert_same([r.weights.grad for r in again], [r.weights.grad for r in seen])
        assert_same([r.weights for r in again], [r.weights for r in seen])


@pytest.mark.parametrize("reentrant", [False, True])
class TestWhichOneRunsAgain:
    def test_layers_that_share_their_parameters(self, reentrant, x):
        model = Stack(shared=True)
        changes = {(0, 0): av.off, (2, 1): av.uniform}
        plain = [p.clone() for p in gradients(model, x, changes=changes)[0]]
        model.run = each(reentrant)
        assert_same(gradients(model, x, changes=changes)[0], plain)

    @pytest.mark.parametrize("inside", [False, True])
    def test_an_edited_pass_beside_others(self, reentrant, inside, x):
        """The graphs of all of them run backward at once, in an order of their own."""
        model, others = Stack(), []

        def run():
            before = model(x)
            with av.edit(model, {0: av.off}):
                one = model(x)
            with av.edit(model, {0: av.uniform}):
                other = model(x)
            loss = (before * one - other * model(x)).sum()
            if inside:
                with av.edit(model, {1: av.only(0)}):
                    model(x)
                    return torch.autograd.backward(loss)
            return loss.backward()

        for model.run in (plainly, each(reentrant)):
            x.grad = None
            run()
            others.append(x.grad)
        assert_same(others[:1], others[1:])

    def test_several_backward_passes(self, reentrant, x):
        model, grads = Stack(), []
        for model.run in (plainly, each(reentrant)):
            x.grad = None
            with av.capture(model, with_gradients=True) as seen, av.edit(model, {0: av.uniform}):
                output = model(x)
            output.sum().backward(retain_graph=True)
            output.square().sum().backward()
            grads.append([x.grad, *(r.weights.grad for r in seen)])
        assert_same(*grads)

    def test_backward_in_another_thread(self, reentrant, x):
        model, grads = Stack(), []
        for model.run in (plainly, each(reentrant)):
            x.grad = None
            with av.capture(model) as seen, av.edit(model, {(1, 0): av.off}):
                thread = threading.Thread(target=model(x).sum().backward)
                thread.start()
                thread.join()
            grads.append([x.grad])
            assert len(seen) == 3
        assert_same(*grads)


@pytest.mark.parametrize("inside", [False, True])
@pytest.mark.parametrize("reentrant", [False, True])
def test_a_function_within_a_method_that_attends_itself(reentrant, inside, x):
    class Own(nn.Module):
        checkpointed = False

        def forward(self, x):
            def attend(x):
                return F.scaled_dot_product_attention(x, x, x)

            for _ in range(2):
                x = (
                    checkpoint(attend, x, use_reentrant=reentrant)
                    if self.checkpointed
                    else attend(x)
                )
            return x

    model, grads = Own(), []
    for model.checkpointed in (False, True):
        grads.append([gradients(model, x, inside, {1: av.temperature(3.0)})[0][0]])
    assert_same(*grads)


def test_gradients_asked_for_by_grad(x):
    model, grads = Stack(), []
    for model.run in (plainly, each(False)):
        with av.capture(model) as seen, av.edit(model, {(1, 0): av.off}):
            output = model(x).sum()
            inside = torch.autograd.grad(output, x, retain_graph=True)
        grads.append([*inside, *torch.autograd.grad(output, x)])
        assert len(seen) == 3
    assert_same(*grads)


SIZES = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 3, "vocab_size": 9}
SIZES |= {"num_attention_heads": 2}
HUGGING_FACE = {
    "bert": (BertModel, BertConfig(**SIZES)),
    "gpt2": (GPT2Model, GPT2Config(n_embd=16, n_head=2, n_layer=3, vocab_size=9, n_positions=8)),
    "llama": (LlamaModel, LlamaConfig(**SIZES, num_key_value_heads=1)),
}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*gradient_checkpointing_enable")
@pytest.mark.parametrize("inside", [False, True])
@pytest.mark.parametrize("kernel", ["eager", "sdpa"])
@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("name", HUGGING_FACE)
def test_models_of_hugging_face(name, reentrant, kernel, inside):
    kind, config = HUGGING_FACE[name]
    torch.manual_seed(0)
    model = kind._from_config(config, attn_implementation=kernel).train()
    grads = []
    for checkpointed in (False, True):
        if checkpointed:
            model.gradient_checkpointing_enable({"use_reentrant": reentrant})
            model.enable_input_require_grads()
        model.zero_grad()
        torch.manual_seed(1)
        with av.capture(model) as seen, av.edit(model, {(1, 0): av.uniform, (2, 1): av.off}):
            loss = model(torch.arange(6)[None], use_cache=False).last_hidden_state.square().sum()
            if inside:
                loss.backward()
        if not inside:
            loss.backward()
        grads.append([p.grad.clone() for p in model.parameters() if p.grad is not None])
        assert [(r.pass_number, r.index) for r in seen] == [(0, 0), (0, 1), (0, 2)]
    assert_same(*grads)


class Reversed(torch.autograd.Function):
    """Runs its layer again in backward, by itself."""

    @staticmethod
    def forward(ctx, layer, x):
        ctx.layer = layer
        ctx.save_for_backward(x)
        return layer(x)

    @staticmethod
    def backward(ctx, grad):
        x = ctx.saved_tensors[0].detach().requires_grad_()
        with torch.enable_grad():
            ctx.layer(x).backward(grad)
        return None, x.grad


class TestOtherFunctionsThatRunAgain:
    @pytest.fixture
    def model(self):
        model = Stack()
        model.run = lambda layers, x: Reversed.apply(layers[1], layers[0](x))
        return model

    def test_are_seen_once(self, model, x):
        with av.capture(model) as seen:
            model(x).sum().backward()
        assert [(r.pass_number, r.path) for r in seen] == [(0, "layers.0"), (0, "layers.1")]

    def test_are_not_edited_where_gradients_would_be_wrong(self, model, x):
        message = r"layers\.1 attends inside an autograd function.*under torch\.no_grad\(\)"
        with pytest.raises(ValueError, match=message), av.edit(model, {1: av.off}):
            model(x)

    def test_are_edited_without_gradients(self, model, x):
        with torch.no_grad(), av.edit(model, {1: av.off}):
            edited = model(x)
            model.run = lambda layers, x: layers[1](layers[0](x))
            torch.testing.assert_close(edited, model(x))

    def test_other_layers_are_edited(self, model, x):
        with av.edit(model, {0: av.off}):
            model(x).sum().backward()
        assert x.grad is not None


def test_a_part_that_attends_otherwise_when_it_runs_again_is_refused(x):
    model = Stack()
    model.run = each(True)
    with av.edit(model, {0: av.off}):
        output = model(x)
    model.layers[0].attend = lambda q, k, v: model.layers[1](x)[:, None, :, :4].expand(1, 2, 5, 4)
    with pytest.raises(RuntimeError, match=r"can follow: layers\.1 attends when activation"):
        output.sum().backward()


@pytest.mark.parametrize("reentrant", [False, True])
def test_a_torch_that_keeps_it_otherwise_is_refused(reentrant, x, monkeypatch):
    name = "run_function" if reentrant else "recompute_fn"
    monkeypatch.setattr(recomputing, "hasattr", lambda thing, it: it != name, raising=False)
    model = Stack()
    model.run = each(reentrant)
    with av.capture(model) as seen:  # it changes nothing, so there is nothing to follow
        model(x).sum().backward()
    assert len(seen) == 3
    with pytest.raises(RuntimeError, match="switch it off meanwhile"), av.edit(model, {0: av.off}):
        model(x)


@pytest.mark.slow
@pytest.mark.parametrize("reentrant", [False, True])
def test_a_graph_keeps_no_records(reentrant, x):
    model = Stack()
    model.run = each(reentrant)
    with av.capture(model) as seen, av.edit(model, {0: av.off}):
        output = model(x)
    kept = [weakref.ref(record) for record in seen]
    del seen
    gc.collect()
    assert not any(ref() for ref in kept)
    output.sum().backward()

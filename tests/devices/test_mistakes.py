"""Device mistakes are found: on the device itself, and planted in the package."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import attnviz as av
from attnviz.layers import causal_mask
from attnviz.models import GPT, GPTConfig, Transformer, TransformerConfig, generate


class TestTheDevice:
    def test_tensors_of_two_devices_do_not_meet(self, device):
        there, here = torch.ones(3, 3, device=device), torch.ones(3, 3)
        for meet in (torch.add, torch.matmul, F.linear, lambda a, b: a.masked_fill(b > 0, 0.0)):
            with pytest.raises(RuntimeError, match="device"):
                meet(there, here)
        with pytest.raises(RuntimeError):
            torch.cat([there, here])
        with pytest.raises(RuntimeError):
            here.add_(there)
        with pytest.raises(RuntimeError):
            here[torch.tensor([0, 1], device=device)]

    def test_a_number_and_places_may_be_on_the_cpu(self, device):
        there = torch.arange(3, device=device)
        assert (there + torch.tensor(1)).tolist() == [1, 2, 3]
        assert there[torch.tensor([2, 0])].tolist() == [2, 0]
        there[torch.tensor([True, False, False])] = 7
        assert there.tolist() == [7, 1, 2]

    def test_numpy_cannot_read_it(self, device):
        with pytest.raises(TypeError, match=r"Use Tensor\.cpu"):
            torch.ones(3, device=device).numpy()

    def test_it_draws_with_numbers_of_its_own(self, device):
        torch.manual_seed(0)
        once = torch.rand(3, device=device)
        here = torch.rand(3)
        torch.manual_seed(0)
        assert torch.equal(torch.rand(3), here)
        assert torch.equal(torch.rand(3, device=device), once)
        with pytest.raises(RuntimeError, match="generator"):
            torch.rand(3, device=device).multinomial(1, generator=torch.Generator())

    def test_views_share_what_they_hold(self, device):
        x = torch.zeros(2, 3, device=device)
        x.mT[1].add_(1)
        x.unsqueeze_(0)
        assert x.shape == (1, 2, 3)
        assert x[0].tolist() == [[0, 1, 0], [0, 1, 0]]


def translate(device):
    sizes = {"d_model": 8, "n_heads": 2, "n_layers": 1, "d_ff": 8, "max_len": 6}
    model = Transformer(TransformerConfig(5, 5, **sizes)).to(device)
    ids = torch.tensor([[1, 2, 3]], device=device)
    model(ids, ids).logits.sum().backward()


def write(device):
    model = GPT(GPTConfig(5, 8, 1, 2, 8, 6)).to(device)
    generate(model, torch.tensor([[1, 2, 3]], device=device), 2)


def draw(device):
    av.heads([torch.rand(1, 2, 3, 3, device=device).softmax(-1)], list("abc"))


def read(device):
    with av.capture(module := nn.MultiheadAttention(8, 2, batch_first=True).to(device)) as seen:
        x = torch.rand(1, 3, 8, device=device)
        module(x, x, x, attn_mask=~causal_mask(3, device=device))
    av.rollout(seen)


def mask_here(n, n_keys=None, device=None):
    return causal_mask(n, n_keys)


def plain_attribute(module, name, tensor, persistent=True):
    object.__setattr__(module, name, tensor)


def eye_here(n, device=None, eye=torch.eye):
    return eye(n)


MISTAKES = {  # what is planted: what runs, what is replaced, and by what
    "a mask on the CPU": (translate, "attnviz.models.transformer.causal_mask", mask_here),
    "a mask for a cache on the CPU": (write, "attnviz.models.gpt.causal_mask", mask_here),
    "a buffer not registered": (translate, "torch.nn.Module.register_buffer", plain_attribute),
    ".numpy() on the device": (draw, "attnviz.views.source.to_array", lambda t: t.numpy()),
    "a new tensor on the CPU": (read, "torch.eye", eye_here),
}


@pytest.mark.slow
@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_planted_mistake_is_found(device, monkeypatch, mistake):
    run, place, planted = MISTAKES[mistake]
    run(device)
    monkeypatch.setattr(place, planted)
    with pytest.raises((RuntimeError, TypeError), match=r"device|numpy"):
        run(device)

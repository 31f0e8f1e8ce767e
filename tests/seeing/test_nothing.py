"""A block that saw nothing says why, and what helps."""

import asyncio
import copy
import threading

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.attention.flex_attention import flex_attention

import attnviz as av


class Fused(nn.Module):
    def forward(self, q):
        return F.scaled_dot_product_attention(q, q, q)


class Flex(nn.Module):
    """As in a model that compiled it, but too small to be worth it here."""

    def forward(self, q):
        return flex_attention(q, q, q)


@pytest.fixture
def q():
    return torch.randn(1, 2, 16, 16)


BLOCKS = {
    "capture": av.capture,
    "edit": lambda model: av.edit(model, {0: av.off}),
}


@pytest.fixture(params=BLOCKS)
def block(request):
    return BLOCKS[request.param]


def test_nothing_ran(block, q):
    model = nn.Sequential(Fused())
    message = "no attention was seen: the model did not run inside the block: run this very model"
    with pytest.raises(ValueError, match=message), block(model):
        copy.deepcopy(model)(q)


def test_it_ran_in_another_thread(block, q):
    model = nn.Sequential(Fused())
    thread = threading.Thread(target=model, args=(q,), name="side")

    def run():
        with block(model):
            thread.start()
            thread.join()

    with pytest.raises(ValueError, match=r"ran in the thread 'side', .*open the block there"):
        run()


def test_asyncio_ran_it_in_another_thread(block, q):
    model = nn.Sequential(Fused())

    async def work():
        with block(model):
            await asyncio.to_thread(model, q)

    with pytest.raises(ValueError, match=r"ran in the thread '.+', where the block does not hear"):
        asyncio.run(work())


def test_it_ran_in_another_task(block, q):
    model = nn.Sequential(Fused())

    async def work():
        async def beside():
            await asyncio.sleep(0)
            model(q)

        task = asyncio.create_task(beside())  # before the block, so not a part of it
        with block(model):
            await task

    with pytest.raises(ValueError, match="ran in another asynchronous task, where the block"):
        asyncio.run(work())


def test_nothing_like_attention(block, q):
    model = nn.Sequential(nn.Linear(16, 16), nn.Softmax(-1))
    with (
        pytest.raises(ValueError, match="the model ran, but computed nothing like attention"),
        block(model),
    ):
        model(q)


def test_flex_attention(block, q, monkeypatch):
    model = nn.Sequential(Flex())
    monkeypatch.setitem(globals(), "flex_attention", compiled_flex_attention)
    with (
        pytest.raises(ValueError, match=r"ran, but 0 uses flex_attention.*use F\.scaled"),
        block(model),
    ):
        model(q)


def compiled_flex_attention(q, k, v):
    return q


compiled_flex_attention.__name__ = "flex_attention"

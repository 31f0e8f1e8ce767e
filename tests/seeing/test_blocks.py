"""Blocks may end in any order, in tasks and generators, and leave nothing behind."""

import asyncio
import gc
import threading
from contextlib import ExitStack, contextmanager

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.overrides import _get_current_function_mode_stack as modes

import attnviz as av
from attnviz.seeing.door import Door


class Model(nn.Module):
    """Two layers of attention without parameters."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(Layer() for _ in range(2))

    def forward(self, x):
        for layer in self.layers:
            x = layer(x)
        return x


class Layer(nn.Module):
    def forward(self, x):
        return x + F.scaled_dot_product_attention(x, x, x)


class Own(TorchFunctionMode):
    """A mode of the user's own."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        return func(*args, **(kwargs or {}))


@pytest.fixture
def model():
    return Model()


@pytest.fixture
def x():
    torch.manual_seed(0)
    return torch.randn(1, 2, 5, 4)


@pytest.fixture(autouse=True)
def nothing_is_left_behind(model, x):
    plain = model(x)
    yield
    assert torch.equal(model(x), plain)
    assert not modes()
    assert not nn.modules.module._global_forward_pre_hooks
    assert not nn.modules.module._global_forward_hooks


ORDERS = [(0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)]


class TestOrder:
    @pytest.mark.parametrize("order", ORDERS)
    def test_blocks_of_one_model_end_in_any_order(self, model, x, order):
        blocks = [av.capture(model), av.edit(model, {0: av.off}), av.capture(model)]
        seen = [block.__enter__() for block in blocks]
        expected = [0, None, 0]
        for ended in order:
            model(x)
            edited = 1 not in order[: order.index(ended)]
            for i in {0, 2} - set(order[: order.index(ended)]):
                expected[i] += 2
                assert len(seen[i]) == expected[i]
                assert bool(seen[i][-2].weights.any()) != edited
            blocks[ended].__exit__(None, None, None)

    @pytest.mark.parametrize("order", ORDERS)
    @pytest.mark.parametrize("between", [Own, lambda: torch.device("cpu")])
    def test_blocks_of_other_models_and_other_modes(self, model, x, order, between):
        other = Model()
        blocks = [av.capture(model), av.capture(other), av.edit(other, {0: av.off})]
        seen = [block.__enter__() for block in blocks]
        with between():
            own = [mode for mode in modes() if not isinstance(mode, Door)]
            model(x)
            other(x)
            for ended in order:
                blocks[ended].__exit__(None, None, None)
            assert modes() == own
        assert (len(seen[0]), len(seen[1])) == (2, 2)

    def test_a_mode_that_takes_the_blocks_away_is_named(self, model, x):
        mode = Own()
        mode.__enter__()
        block = av.capture(model)
        block.__enter__()
        model(x)
        mode.__exit__(None, None, None)  # it takes what is on top
        with pytest.raises(RuntimeError, match="lost sight of the model, as another torch"):
            block.__exit__(None, None, None)
        mode.__exit__(None, None, None)

    def test_an_error_in_the_block_is_not_hidden_by_another(self, model):
        with pytest.raises(ZeroDivisionError), av.capture(model), av.edit(model, {7: av.off}):
            raise ZeroDivisionError


class TestTasks:
    def test_see_only_their_own(self, model):
        async def work(n):
            with av.capture(model) as seen:
                for _ in range(3):
                    await asyncio.sleep(0)
                    model(torch.randn(1, 1, n, 4))
                await asyncio.sleep(0)
            return [(r.pass_number, r.index, r.n_keys) for r in seen]

        async def all_together():
            return await asyncio.gather(*(work(n) for n in (3, 4, 5)))

        for n, places in zip((3, 4, 5), asyncio.run(all_together()), strict=True):
            assert places == [(p, i, n) for p in range(3) for i in range(2)]

    def test_edit_only_their_own(self, model, x):
        plain = model(x)

        async def work(changes):
            with av.edit(model, changes):
                await asyncio.sleep(0)
                first = model(x)
                await asyncio.sleep(0)
                assert torch.equal(model(x), first)
            return first

        async def all_together():
            return await asyncio.gather(work({0: av.off}), work({0: av.uniform}), unedited())

        async def unedited():
            await asyncio.sleep(0)
            return model(x)

        one, two, none = asyncio.run(all_together())
        assert torch.equal(none, plain)
        assert not torch.equal(one, two)

    def test_parts_of_passes_do_not_mix(self, model, x):
        async def work():
            with av.capture(model) as seen:
                y = x
                for layer in model.layers:
                    await asyncio.sleep(0)
                    y = layer(y)
            return [(r.pass_number, r.index) for r in seen]

        async def both():
            return await asyncio.gather(work(), work())

        assert asyncio.run(both()) == [[(0, 0), (0, 1)]] * 2

    def test_a_block_around_tasks_hears_them_all(self, model, x):
        async def edited():
            with av.edit(model, {0: av.off}), av.capture(model) as seen:
                await asyncio.sleep(0)
                model(x)
                await asyncio.sleep(0)
            return len(seen)

        async def plain():
            await asyncio.sleep(0)
            model(x)

        async def main():
            with av.capture(model) as seen:
                inner, _ = await asyncio.gather(edited(), plain())
            return inner, seen

        inner, seen = asyncio.run(main())
        assert inner == 2
        assert sorted((r.pass_number, r.index) for r in seen) == [(0, 0), (0, 1), (1, 0), (1, 1)]
        assert sorted(bool(r.weights.any()) for r in seen) == [False, True, True, True]

    def test_a_cancelled_task_leaves_nothing(self, model, x):
        async def work():
            with av.capture(model):
                model(x)
                await asyncio.sleep(10)

        async def main():
            task = asyncio.create_task(work())
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            with av.capture(model) as seen:
                model(x)
            return seen

        assert [r.pass_number for r in asyncio.run(main())] == [0, 0]


class TestGenerators:
    def test_interleaved(self, model):
        def captures(n):
            with av.capture(model) as seen:
                model(torch.randn(1, 1, n, 4))
                yield
                yield [r.n_keys for r in seen]

        one, two = captures(3), captures(4)
        next(one), next(two)
        assert next(one) == [3, 3, 4, 4]  # a generator is part of what runs it
        one.close()
        assert next(two) == [4, 4]
        two.close()

    def test_that_is_never_finished(self, model, x):
        def unfinished():
            with av.capture(model):
                model(x)
                yield

        next(unfinished())
        gc.collect()

    def test_as_a_context_of_its_own(self, model, x):
        @contextmanager
        def silenced():
            with av.edit(model, {0: av.off, 1: av.off}):
                yield

        with silenced():
            assert torch.equal(model(x), x)

    def test_in_a_stack_of_contexts(self, model, x):
        with ExitStack() as stack:
            seen = stack.enter_context(av.capture(model))
            stack.enter_context(av.edit(model, {0: av.off}))
            model(x)
        assert not seen[0].weights.any()


def in_a_thread(work):
    """The result or the error of what runs in a thread of its own, named."""
    outcome = []

    def run():
        try:
            outcome.append(work())
        except BaseException as error:
            outcome.append(error)

    thread = threading.Thread(target=run, name="side")
    thread.start()
    thread.join()
    return outcome[0]


class TestThreads:
    def test_a_block_that_ends_in_another_thread_says_so(self, model, x):
        block = av.capture(model)
        block.__enter__()
        model(x)
        error = in_a_thread(lambda: block.__exit__(None, None, None))
        assert isinstance(error, RuntimeError)
        assert "ended in another thread than it began in" in str(error)
        assert "the whole block inside the function" in str(error)
        with av.capture(model) as seen:  # and nothing of it hears this
            model(x)
        assert len(seen) == 2

    def test_a_generator_that_is_closed_in_another_thread(self, model, x):
        def captures():
            with av.edit(model, {0: av.off}):
                yield model(x)

        generator = captures()
        next(generator)
        error = in_a_thread(generator.close)
        assert isinstance(error, RuntimeError)
        assert "ended in another thread" in str(error)
        with av.capture(model) as seen:
            model(x)
        assert seen[0].weights.any()

    def test_blocks_of_two_threads_end_in_any_order(self, model, x):
        began, ended = threading.Event(), threading.Event()

        def work():
            with av.capture(model) as seen:
                began.set()
                ended.wait()
                model(x)
            return len(seen)

        results = []
        thread = threading.Thread(target=lambda: results.append(work()))
        with av.capture(model) as seen:
            thread.start()
            began.wait()
            model(x)
        ended.set()
        thread.join()
        assert (results, len(seen)) == ([2], 2)

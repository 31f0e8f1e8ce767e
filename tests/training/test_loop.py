"""The training loop on problems so small that one knows what must come out."""

import math
import signal
import threading
import time
from collections import namedtuple
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from attnviz.training import train, warmup_linear
from attnviz.training.loop import _moved

NAN = float("nan")


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


@pytest.fixture
def clock(monkeypatch):
    """A clock for the loop that is set by hand."""
    clock = SimpleNamespace(now=50.0, perf_counter=lambda: clock.now)
    monkeypatch.setattr("attnviz.training.loop.time", clock)
    return clock


def nothing(step):
    """A batch for losses that need none."""


def a_number(value=0.0, lr=2.0):
    """A model of one number, which each step makes smaller by one."""
    model = nn.Linear(1, 1, bias=False)
    nn.init.constant_(model.weight, value)
    return model, torch.optim.SGD(model.parameters(), lr=lr)


def half(model, _):
    """A loss that is half the number."""
    return model.weight.sum() / 2


class TestLearning:
    def test_it_finds_the_least_squares_solution(self):
        x, y = torch.randn(40, 3), torch.randn(40, 1)
        wanted = torch.linalg.lstsq(x, y).solution
        model = nn.Linear(3, 1, bias=False)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.2)
        history = train(
            model,
            lambda step: (x, y),
            lambda model, batch: (model(batch[0]) - batch[1]).square().mean(),
            optimizer,
            steps=200,
            clip=None,
            show=False,
        )
        torch.testing.assert_close(model.weight, wanted.T, atol=1e-5, rtol=0)
        least = (x @ wanted - y).square().mean().item()
        assert history.losses[0] > least + 0.1
        assert history.losses[-1] == pytest.approx(least, abs=1e-5)

    def test_the_history_has_every_step(self):
        model, optimizer = a_number(3.0)
        history = train(model, nothing, half, optimizer, steps=4, show=False)
        assert history.losses == [1.5, 1, 0.5, 0]  # each before its step
        assert history.step == 4
        assert len(history.seconds) == 4
        assert history.seconds == sorted(history.seconds)
        assert history.elapsed == history.seconds[-1] > 0

    def test_batches_are_asked_for_by_the_number_of_the_step(self):
        model, optimizer = a_number()
        asked = []
        train(model, asked.append, half, optimizer, steps=5, show=False)
        assert asked == [0, 1, 2, 3, 4]

    def test_gradients_of_one_step_do_not_reach_the_next(self):
        model, optimizer = a_number()
        model.weight.grad = torch.full((1, 1), 7.0)  # from an earlier backward
        train(model, nothing, half, optimizer, steps=3, show=False)
        assert model.weight.item() == -3

    def test_it_tells_after_each_step(self):
        (model, optimizer), told = a_number(), []
        train(
            model, nothing, half, optimizer, steps=3, show=False,
            after_step=lambda step, m: told.append((step, m is model, m.weight.item())),
        )  # fmt: skip
        assert told == [(1, True, -1), (2, True, -2), (3, True, -3)]

    def test_a_model_that_was_evaluated_after_a_step_goes_on_training(self):
        (model, optimizer), modes = a_number(), []

        def loss(model, batch):
            modes.append(model.training)
            return half(model, batch)

        model.eval()
        train(
            model, nothing, loss, optimizer, steps=3, show=False,
            after_step=lambda step, m: m.eval(),
        )  # fmt: skip
        assert modes == [True] * 3

    def test_it_works_in_a_thread(self):
        (model, optimizer), histories = a_number(), []
        before = signal.getsignal(signal.SIGINT)
        thread = threading.Thread(
            target=lambda: histories.append(
                train(model, nothing, half, optimizer, steps=3, show=True)
            )
        )
        thread.start()
        thread.join()
        assert histories[0].step == 3
        assert signal.getsignal(signal.SIGINT) is before


class TestEnd:
    def test_after_so_many_seconds_of_training(self, clock):
        model, optimizer = a_number()

        def quarter(step, model):
            clock.now += 0.25

        history = train(
            model, nothing, half, optimizer, seconds=1.0, show=False, after_step=quarter
        )
        assert history.step == 4

    def test_seconds_are_counted_on_after_an_interruption_but_not_during_it(self, clock, tmp_path):
        model, optimizer = a_number()

        def loss(model, batch):
            clock.now += 0.25
            if model.weight == -1:
                signal.raise_signal(signal.SIGINT)
            return half(model, batch)

        options = {"seconds": 1.0, "show": False, "checkpoint": tmp_path / "c"}
        first = train(model, nothing, loss, optimizer, **options)
        assert first.seconds == [0.25, 0.5]
        clock.now += 1000
        history = train(model, nothing, loss, optimizer, **options)
        assert history.seconds == [0.25, 0.5, 0.75, 1.0]

    @pytest.mark.parametrize("given", [{}, {"steps": 3, "seconds": 1.0}])
    def test_it_is_given_by_steps_or_by_seconds(self, given):
        model, optimizer = a_number()
        with pytest.raises(ValueError, match="give either steps or seconds, got steps="):
            train(model, nothing, half, optimizer, **given, show=False)
        assert model.weight == 0

    @pytest.mark.parametrize(
        "given", [{"steps": 0}, {"steps": -1}, {"seconds": 0.0}, {"seconds": NAN}]
    )
    def test_it_must_be_after_the_beginning(self, given):
        ((name, value),) = given.items()
        model, optimizer = a_number()
        with pytest.raises(ValueError, match=f"{name} must be positive, got {value}"):
            train(model, nothing, half, optimizer, **given, show=False)


class TestLearningRate:
    def make(self):
        model = nn.Sequential(nn.Linear(1, 1), nn.Linear(1, 1))
        groups = [
            {"params": part.parameters(), "lr": lr}
            for part, lr in zip(model, (0.5, 0.02), strict=True)
        ]
        return model, torch.optim.SGD(groups)

    def rates(self, optimizer):
        return [group["lr"] for group in optimizer.param_groups]

    def loss(self, model, batch):
        return model(torch.ones(1, 1)).square().sum()

    def test_a_schedule_scales_that_of_each_group(self):
        (model, optimizer), seen = self.make(), []
        train(
            model, nothing, self.loss, optimizer, steps=8, show=False,
            schedule=warmup_linear(0.25),
            after_step=lambda *_: seen.append(self.rates(optimizer)),
        )  # fmt: skip
        factors = [0, 0.5, 1, 5 / 6, 4 / 6, 3 / 6, 2 / 6, 1 / 6]  # at 0/8, 1/8, …, 7/8
        for (a, b), factor in zip(seen, factors, strict=True):
            assert a == pytest.approx(0.5 * factor)
            assert b == pytest.approx(0.02 * factor)

    def test_without_a_schedule_it_is_constant(self):
        (model, optimizer), seen = self.make(), []
        train(
            model, nothing, self.loss, optimizer, steps=3, show=False,
            after_step=lambda *_: seen.append(self.rates(optimizer)),
        )  # fmt: skip
        assert seen == [[0.5, 0.02]] * 3

    def test_with_seconds_the_schedule_follows_the_clock(self, clock):
        (model, optimizer), seen = self.make(), []

        def after_step(step, model):
            seen.append(self.rates(optimizer)[0])
            clock.now += 0.2

        train(
            model, nothing, self.loss, optimizer, seconds=1.0, show=False,
            schedule=lambda progress: progress, after_step=after_step,
        )  # fmt: skip
        assert seen == pytest.approx([0, 0.1, 0.2, 0.3, 0.4])

    def test_it_is_what_it_was_at_the_end(self):
        model, optimizer = self.make()
        keys = [set(group) for group in optimizer.param_groups]
        train(model, nothing, self.loss, optimizer, steps=3, show=False, schedule=warmup_linear())
        assert self.rates(optimizer) == [0.5, 0.02]
        assert [set(group) for group in optimizer.param_groups] == keys

    def test_it_is_what_it_was_also_after_an_error_and_can_then_be_made_smaller(self):
        model, optimizer = self.make()
        with pytest.raises(ValueError, match="a smaller learning rate may help"):
            train(
                model, nothing, lambda *_: torch.tensor(NAN), optimizer, steps=3, show=False,
                schedule=lambda progress: 0.1,
            )  # fmt: skip
        assert self.rates(optimizer) == [0.5, 0.02]
        optimizer.param_groups[0]["lr"], seen = 0.25, []
        train(
            model, nothing, self.loss, optimizer, steps=1, show=False,
            after_step=lambda *_: seen.append(self.rates(optimizer)),
        )  # fmt: skip
        assert seen == [[0.25, 0.02]]


class TestClipping:
    @pytest.mark.parametrize(
        ("clip", "slope", "moved"),
        [(1.0, 100, 1), (3.0, 100, 3), (None, 100, 100), (1.0, 0.5, 0.5)],
    )
    def test_a_gradient_that_is_too_long_is_shortened(self, clip, slope, moved):
        model, optimizer = a_number(lr=1.0)
        train(
            model, nothing, lambda m, _: slope * m.weight.sum(), optimizer,
            steps=1, clip=clip, show=False,
        )  # fmt: skip
        assert model.weight.item() == pytest.approx(-moved, rel=1e-5)

    def test_it_is_one_unless_told_otherwise(self):
        model, optimizer = a_number(lr=1.0)
        train(model, nothing, lambda m, _: 100 * m.weight.sum(), optimizer, steps=1, show=False)
        assert model.weight.item() == pytest.approx(-1)

    def test_directions_are_kept(self):
        model = nn.Linear(2, 1, bias=False)
        nn.init.zeros_(model.weight)
        train(
            model, nothing, lambda m, _: (m.weight * torch.tensor([30.0, 40.0])).sum(),
            torch.optim.SGD(model.parameters(), lr=1.0), steps=1, show=False,
        )  # fmt: skip
        torch.testing.assert_close(model.weight.data, torch.tensor([[-0.6, -0.8]]))


class TestBfloat16:
    @pytest.mark.parametrize("bf16", [False, True])
    def test_the_loss_is_computed_in_it_and_weights_stay_float32(self, bf16):
        model, seen = nn.Linear(4, 4), []

        def loss(model, batch):
            out = model(batch)
            seen.append((out.dtype, torch.is_autocast_enabled("cpu")))
            return out.float().square().mean()

        train(
            model, lambda step: torch.randn(2, 4), loss,
            torch.optim.AdamW(model.parameters()), steps=2, bf16=bf16, show=False,
        )  # fmt: skip
        assert seen == [(torch.bfloat16 if bf16 else torch.float32, bf16)] * 2
        assert model.weight.dtype == model.weight.grad.dtype == torch.float32


class TestNoNumber:
    @pytest.mark.parametrize("value", [NAN, math.inf])
    def test_a_loss_that_is_none_stops_before_the_weights_change(self, value, tmp_path):
        (model, optimizer), path = a_number(0.5), tmp_path / "c"
        kept = []

        def loss(model, step):
            if step < 3:
                return half(model, step)
            kept.append(path.read_bytes())
            return half(model, step) * value

        with pytest.raises(ValueError, match=r"the loss became -?(nan|inf) at step 3: a smaller"):
            train(
                model, lambda step: step, loss, optimizer, steps=9, show=False,
                checkpoint=path, save_every=0,
            )  # fmt: skip
        assert model.weight.item() == 0.5 - 3
        assert path.read_bytes() == kept[0]
        assert torch.load(path)["state"]["losses"] == [0.25, -0.25, -0.75]

    @pytest.mark.parametrize("clip", [1.0, None])
    def test_a_gradient_that_is_none_stops_before_the_weights_change(self, clip):
        model, optimizer = a_number(4.0)

        def loss(model, step):  # at step 2 the root of zero, whose slope is infinite
            return half(model, step) if step < 2 else (model.weight * 0).sqrt().sum()

        with pytest.raises(ValueError, match="the gradient became nan at step 2"):
            train(model, lambda step: step, loss, optimizer, steps=5, clip=clip, show=False)
        assert model.weight.item() == 2


class TestBatches:
    def test_all_tensors_move_and_everything_stays_in_its_place(self):
        Pair = namedtuple("Pair", "x y")
        a = torch.ones(2)
        batch = {"pair": Pair(a, [a, "text"]), "more": (a, None, 3)}
        moved = _moved(batch, torch.device("meta"))
        assert type(moved["pair"]) is Pair
        assert moved["pair"].x.is_meta
        assert type(moved["pair"].y) is list
        assert moved["pair"].y[0].is_meta
        assert moved["pair"].y[1] == "text"
        assert type(moved["more"]) is tuple
        assert moved["more"][0].is_meta
        assert moved["more"][1:] == (None, 3)

    def test_they_move_to_where_the_model_is(self, monkeypatch):
        (model, optimizer), asked = a_number(), []
        monkeypatch.setattr(
            "attnviz.training.loop._moved", lambda batch, device: asked.append((batch, device))
        )
        train(model, lambda step: step, half, optimizer, steps=2, show=False)
        assert asked == [(0, torch.device("cpu")), (1, torch.device("cpu"))]


class TestProgress:
    def run(self, show, loss=half, **end):
        model, optimizer = a_number(3.0)
        train(model, nothing, loss, optimizer, show=show, **end)

    def test_it_can_be_silent(self, capfd):
        self.run(False, steps=3)
        assert capfd.readouterr() == ("", "")

    def test_a_bar_says_how_far_it_is_and_the_loss(self, capfd):
        self.run(True, steps=3)
        said = capfd.readouterr().err
        assert "3/3" in said
        assert "loss=0.500" in said

    @pytest.mark.slow
    def test_the_bar_moves_once_a_second(self, capfd):
        def loss(model, batch):
            time.sleep(0.02)
            return half(model, batch)

        self.run(True, loss, steps=30)  # 0.6 seconds: the bar at the start and at the end
        assert capfd.readouterr().err.count("\r") <= 4

    def test_with_seconds_the_bar_counts_them(self, capfd, clock):
        def loss(model, batch):
            clock.now += 1.5
            return half(model, batch)

        self.run(True, loss, seconds=4)
        assert "4/4 s" in capfd.readouterr().err  # and not 4.5


@pytest.fixture
def ctrl_c():
    """Python's own answer to Ctrl-C, also where pytest runs in the background and ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("ctrl_c")
class TestInterruption:
    def interrupted_at(self, number, times=1, **options):
        model, optimizer = a_number()

        def loss(model, step):
            if step == number:
                for _ in range(times):
                    signal.raise_signal(signal.SIGINT)  # in the middle of a step
            return half(model, step)

        before = signal.getsignal(signal.SIGINT)
        try:
            history = train(
                model, lambda step: step, loss, optimizer, steps=9, show=False, **options
            )
        except KeyboardInterrupt:
            history = None
        assert signal.getsignal(signal.SIGINT) is before
        assert optimizer.param_groups[0]["lr"] == 2
        return model, history

    def test_the_step_at_hand_is_finished(self):
        model, history = self.interrupted_at(4)
        assert history.losses == [0, -0.5, -1, -1.5, -2]
        assert model.weight.item() == -5

    def test_and_saved(self, tmp_path):
        self.interrupted_at(4, checkpoint=tmp_path / "c", save_every=1000)
        saved = torch.load(tmp_path / "c")
        assert saved["model"]["weight"].item() == -5
        assert saved["state"]["losses"] == [0, -0.5, -1, -1.5, -2]

    def test_the_second_one_does_not_wait_and_leaves_the_step_undone(self, tmp_path):
        model, history = self.interrupted_at(
            4, times=2, checkpoint=tmp_path / "c", save_every=0, schedule=lambda progress: 1.0
        )
        assert history is None
        assert model.weight.item() == -4
        saved = torch.load(tmp_path / "c")
        assert saved["model"]["weight"].item() == -4
        assert saved["state"]["losses"] == [0, -0.5, -1, -1.5]

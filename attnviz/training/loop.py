"""The training loop: batch, loss, gradient, step, again; interrupted and resumed without loss."""

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import inf, isfinite
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from attnviz.training import checkpoint as checkpoints
from attnviz.training import processes
from attnviz.training.plot import LivePlot
from attnviz.training.schedules import Schedule

# Seconds between two looks of the bar. Each sends three messages to a notebook, and a client that
# reads them only when a cell has ended, such as nbval, loses all beyond some two thousand.
_LOOK_EVERY = 1.0


@dataclass
class History:
    """What happened in training.

    losses, seconds: for each step its loss, and the seconds of training until its end, without
    those between an interruption and the resumption.
    interrupted: whether Ctrl-C ended it before its time.
    """

    losses: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    interrupted: bool = False

    def kept(self) -> dict[str, list[float]]:
        """What a checkpoint keeps of it."""
        return {"losses": [*self.losses], "seconds": [*self.seconds]}

    @property
    def step(self) -> int:
        """How many steps were done."""
        return len(self.losses)

    @property
    def elapsed(self) -> float:
        """Seconds of training."""
        return self.seconds[-1] if self.seconds else 0.0


def train(
    model: nn.Module,
    batch_of: Callable[[int], Any],
    loss_of: Callable[[nn.Module, Any], Tensor],
    optimizer: torch.optim.Optimizer,
    *,
    steps: int | None = None,
    seconds: float | None = None,
    schedule: Schedule | None = None,
    clip: float | None = 1.0,
    accumulate: int = 1,
    bf16: bool = False,
    checkpoint: str | Path | None = None,
    save_every: float = 30.0,
    origin: dict[str, Any] | None = None,
    after_step: Callable[[int, nn.Module], None] | None = None,
    history: History | None = None,
    show: bool = True,
    marks: dict[str, float] | None = None,
) -> History:
    """Train a model for a number of steps or of seconds.

    model:     on the device where it is to be trained.
    batch_of:  from the number of a step (from 0) to its batch: tensors in tuples, lists or dicts,
               which are moved to the model's device. The same step must always give the same batch;
               then a training that was resumed ends like one that was never interrupted.
    loss_of:   from the model and a batch to the loss, a scalar to be made small.
    steps, seconds: when to end; one of the two. Seconds count training alone, over all resumptions.
    schedule:  factor of the learning rate by progress (0 to 1); constant when not given.
    clip:      the largest norm of the gradient; longer ones are shortened. None leaves them.
    accumulate: of so many batches the mean gradient makes one step; batch_of is then asked for
               batches 0 to accumulate · steps - 1.
    bf16:      compute the loss in bfloat16 where that is safe (autocast); weights stay float32.
    checkpoint: a file that is written every save_every seconds, at the end and on an interruption
               (Ctrl-C, or the kernel's stop button), and from which training goes on when it is
               there. A folder that is missing is made.
    origin:    what the batches come from, by name, such as a seed and a hash of the data; a
               checkpoint with another origin is refused.
    after_step: called after each step with the steps done so far and the model.
    history:   is filled while training, for after_step to look into; a fresh one when not given.
    show:      a progress bar, and in a notebook a live plot of the loss.
    marks:     losses to compare with, such as that of guessing, by name: dotted lines in the plot.
    Where torch.distributed connects several processes, each calls this with the same model wrapped
    in DistributedDataParallel and its own share of the batches; all steps are then made together,
    the losses are means over the processes, the clock is the first one's, and it alone writes the
    checkpoint and shows progress.
    Returns the history of all steps. An interruption ends it after the step at hand. The learning
    rates are then what they were; the model is left in training mode.
    Raises ValueError when not exactly one of steps and seconds is given, when several processes
    train a model that is not wrapped, when the loss or its
    gradient is no number any more (before the weights take harm), or for a file that is no
    checkpoint of this model, optimizer and origin; OSError for one that cannot be written.
    """
    _check_end(steps, seconds)
    if accumulate < 1:
        raise ValueError(f"accumulate must be at least 1, got {accumulate}")
    processes.check_wrapped(model)
    device = next(model.parameters()).device
    path = None if checkpoint is None else Path(checkpoint)
    history = History() if history is None else history
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)  # fail now rather than after the training
        checkpoints.check(path)
        if path.exists():
            done = checkpoints.load(path, model, optimizer, origin)
            history.losses[:], history.seconds[:] = done["losses"], done["seconds"]
    begun = time.perf_counter() - history.elapsed
    saved, stopped, history.interrupted = history.elapsed, False, False

    def progress() -> float:
        if steps:
            return min(1.0, history.step / steps)
        return min(1.0, processes.of_the_first(time.perf_counter() - begun, device) / seconds)

    with (
        _full_rates_kept(optimizer),
        _Progress(show and processes.is_first(), history, steps, seconds, marks) as told,
        _interruption() as interrupted,
    ):
        while progress() < 1:
            if stopped:
                history.interrupted = True
                break
            for group in optimizer.param_groups:
                factor = 1.0 if schedule is None else schedule(progress())
                group["lr"] = group["full_lr"] * factor
            first = history.step * accumulate
            batches = (_moved(batch_of(first + i), device) for i in range(accumulate))
            model.train()  # each time, as after_step may have evaluated it
            loss = _step(model, batches, accumulate, loss_of, optimizer, clip, bf16, history.step)
            loss, elapsed, stopped = processes.agree(
                loss, time.perf_counter() - begun, interrupted.is_set(), device
            )
            history.losses.append(loss)
            history.seconds.append(elapsed)
            if after_step is not None:
                after_step(history.step, model)
            told.step(history)
            if path is not None and elapsed - saved > save_every:
                checkpoints.save(path, model, optimizer, history.kept(), origin)
                saved = elapsed
        if path is not None:
            checkpoints.save(path, model, optimizer, history.kept(), origin)
    return history


def _step(
    model: nn.Module,
    batches: Iterator[Any],
    n_batches: int,
    loss_of: Callable[[nn.Module, Any], Tensor],
    optimizer: torch.optim.Optimizer,
    clip: float | None,
    bf16: bool,
    number: int,
) -> float:
    """One step of training with the mean gradient of the batches; returns their mean loss."""
    device = next(model.parameters()).device
    optimizer.zero_grad(set_to_none=True)
    value = 0.0
    for i, batch in enumerate(batches):
        with processes.apart(model, apart=i < n_batches - 1):
            with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
                loss = loss_of(model, batch) / n_batches
            part = loss.item()
            _check_finite("loss", part, number)
            value += part
            loss.backward()
    norm = nn.utils.clip_grad_norm_(model.parameters(), inf if clip is None else clip)
    _check_finite("gradient", norm.item(), number)
    optimizer.step()
    return value


def _check_finite(name: str, value: float, number: int) -> None:
    if not isfinite(value):
        raise ValueError(
            f"the {name} became {value} at step {number}: a smaller learning rate may help"
        )


def _check_end(steps: int | None, seconds: float | None) -> None:
    if (steps is None) == (seconds is None):
        raise ValueError(f"give either steps or seconds, got steps={steps}, seconds={seconds}")
    for name, value in [("steps", steps), ("seconds", seconds)]:
        if value is not None and not value > 0:
            raise ValueError(f"{name} must be positive, got {value}")


def _moved(batch: Any, device: torch.device) -> Any:
    """A batch with all its tensors on the device."""
    if isinstance(batch, Tensor):
        return batch.to(device)
    if isinstance(batch, dict):
        return {name: _moved(part, device) for name, part in batch.items()}
    if isinstance(batch, list | tuple):
        parts = [_moved(part, device) for part in batch]
        return type(batch)(*parts) if hasattr(batch, "_fields") else type(batch)(parts)
    return batch


class _Progress:
    """A bar and a plot, or nothing."""

    def __init__(
        self,
        show: bool,
        history: History,
        steps: int | None,
        seconds: float | None,
        marks: dict[str, float] | None,
    ):
        self._by_time, self._history = steps is None, history
        self._plot = LivePlot(show, marks)
        form = "{l_bar}{bar}| {n:.0f}/{total:.0f} s{postfix}" if self._by_time else None
        self._bar = tqdm(
            total=seconds or steps,
            initial=history.elapsed if self._by_time else history.step,
            unit="s" if self._by_time else "step",
            bar_format=form,
            mininterval=_LOOK_EVERY,
            disable=not show,
        )

    def __enter__(self) -> "_Progress":
        return self

    def step(self, history: History) -> None:
        done = min(self._bar.total, history.elapsed) - self._bar.n if self._by_time else 1
        self._bar.set_postfix(loss=f"{history.losses[-1]:.3f}", refresh=False)
        self._bar.update(done)
        self._plot.show(history)

    def __exit__(self, *_: object) -> None:
        self._bar.close()
        self._plot.close(self._history)


@contextmanager
def _full_rates_kept(optimizer: torch.optim.Optimizer) -> Iterator[None]:
    """Keep the learning rates beside what a schedule makes of them, and put them back at the end.

    They are kept in the optimizer, and so in its checkpoints.
    """
    for group in optimizer.param_groups:
        group.setdefault("full_lr", group["lr"])
    try:
        yield
    finally:
        for group in optimizer.param_groups:
            group["lr"] = group.pop("full_lr")


@contextmanager
def _interruption() -> Iterator[threading.Event]:
    """An event that is set by the first Ctrl-C, so that a step is never left half done.

    The second one interrupts at once. Outside the main thread, where Python hears of no signals,
    the event is never set.
    """
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return
    before = signal.getsignal(signal.SIGINT)

    def ask(*_: object) -> None:
        signal.signal(signal.SIGINT, before)
        asked.set()

    signal.signal(signal.SIGINT, ask)
    try:
        yield asked
    finally:
        signal.signal(signal.SIGINT, before)

"""One architecture, built, given something to read, and judged, within a limit of time."""

import signal
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves
from transformers import PreTrainedModel

from . import others
from .build import build, configs, model_class, with_peaks
from .inputs import Inputs, adapted, recipes
from .judge import Verdict, judge, returned_attentions, same

KERNELS = ("eager", "sdpa")
LIMIT = 100  # seconds of this process's own time for one architecture
_NAN = "its output is nan"
_KERNELS_AGREE = 1e-2
_RETRIES = 3  # with other numbers of tokens for an image


class NotBuilt(Exception):
    """There is no small model of this architecture, or nothing was found that it reads."""


def attempt(name: str) -> list[Verdict]:
    """The rows of one architecture; where it could not be built, one row that says why."""
    start = time.process_time()
    try:
        with _limited(LIMIT), warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            rows = list(_of_library(name) if name in others.BUILDERS else _of_transformers(name))
    except Exception as error:
        rows = [Verdict(name, verdict="not built", why=_short(error))]
    for row in rows:
        row.seconds = round((time.process_time() - start) / len(rows), 1)
    return rows


def _of_library(name: str) -> Iterator[Verdict]:
    torch.manual_seed(0)
    model, inputs = others.BUILDERS[name]()
    model = with_peaks(model.eval())
    row = Verdict(name)
    judge(model, lambda: model(*inputs[0], **inputs[1]), row, {})
    yield row


def _of_transformers(name: str) -> Iterator[Verdict]:
    kind = model_class(name)
    model, inputs = _first_that_runs(name, kind)
    config, peaks = model.config, model.peaks
    first = None
    returned: dict[str, list[Tensor]] = {}
    for kernel in KERNELS:
        try:
            model = build(kind, config, kernel, peaks)
        except (ValueError, ImportError):  # this architecture does not have the kernel
            continue
        if kernel == "eager":
            returned = _returned(model, inputs)
        row = Verdict(name, kernel)
        run = _pass(model, inputs)
        first = run() if first is None else first
        if not same(first, run(), _KERNELS_AGREE):
            row.notes.append("its two kernels compute different things")
            returned = {}
        judge(model, run, row, returned)
        yield row


def _first_that_runs(name: str, kind: type[PreTrainedModel]) -> tuple[nn.Module, Inputs]:
    """The smallest model and the most of inputs with which a pass runs and gives numbers."""
    errors: list[str] = []
    for config in _attempts(lambda: configs(name), errors):
        for peaks in (True, False):
            if not peaks and _NAN not in errors:
                continue
            for model in _attempts(lambda p=peaks, c=config: [_built(kind, c, p)], errors):
                for inputs in recipes(model):
                    fitting = _fitting(model, inputs, errors)
                    if fitting is not None:
                        return model, fitting
    raise NotBuilt(errors[0] if errors else "no recipe for its inputs")


def _built(kind: type[PreTrainedModel], config: Any, peaks: bool) -> nn.Module:
    """The model with the first kernel that it has."""
    for kernel in KERNELS:
        try:
            model = build(kind, config, kernel, peaks)
            break
        except ValueError as error:
            if kernel == KERNELS[-1] or "implementation" not in str(error):
                raise
    model.peaks = peaks
    return model


def _attempts(make: Callable[[], Any], errors: list[str]) -> Iterator[Any]:
    """What can be made, up to the first that cannot."""
    try:
        yield from make()
    except TimeoutError:
        raise
    except Exception as error:
        errors.append(_short(error))


def _fitting(model: nn.Module, inputs: Inputs, errors: list[str]) -> Inputs | None:
    """The inputs, or the same with more tokens for an image, if a pass runs with them."""
    for _ in range(_RETRIES):
        try:
            output = _pass(model, inputs)()
        except TimeoutError:
            raise
        except Exception as error:
            errors.append(f"{', '.join(inputs)}: {_short(error)}")
            inputs = adapted(model, inputs, str(error))
            if inputs is None:
                return None
            continue
        numbers = [t for t in tree_leaves(output) if isinstance(t, Tensor)]
        if not any(t.isnan().any() for t in numbers if t.is_floating_point()):
            return inputs
        errors.append(_NAN)
        return None
    return None


def _pass(model: nn.Module, inputs: Inputs, **options: Any) -> Callable[[], Any]:
    def run() -> Any:
        torch.manual_seed(0)
        copies = {k: v.clone() if isinstance(v, Tensor) else v for k, v in inputs.items()}
        return model(**copies, **options)

    return run


def _returned(model: nn.Module, inputs: Inputs) -> dict[str, list[Tensor]]:
    """The attentions that an eager model returns when asked."""
    try:
        return returned_attentions(_pass(model, inputs, output_attentions=True)())
    except TimeoutError:
        raise
    except Exception:
        return {}


@contextmanager
def _limited(seconds: float) -> Iterator[None]:
    """Raise TimeoutError when this process has worked for so long."""

    def stop(*_: Any) -> None:
        raise TimeoutError(f"takes more than {seconds} seconds")

    before = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def _short(error: Exception) -> str:
    message = " ".join(str(error).split())
    return f"{type(error).__name__}: {message}"[:160]

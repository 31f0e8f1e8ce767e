"""Numbers and names that a reader brings, checked in one place: refusals of a kind sound alike."""

import math
import operator
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from numbers import Real


def whole_or_none(value: object) -> int | None:
    """A whole number as Python's int, from an int, one of NumPy's or a tensor of one; else None.

    A bool is none, and a float is none even where it has no fraction.
    """
    if type(value) is int or type(value).__name__ == "SymInt":  # a size, while torch makes a graph
        return value
    if isinstance(value, bool) or getattr(value, "ndim", 0):
        return None
    if "bool" in str(getattr(value, "dtype", "")):
        return None
    try:
        return operator.index(value)
    except (TypeError, RuntimeError):  # the latter where a tensor holds no values
        return None


def check_whole(
    name: str,
    value: object,
    least: int | None = None,
    most: int | None = None,
    wanted: str = "a whole number",
) -> int:
    """Return a whole number as Python's int, or raise.

    name: the argument's, for the message.   least, most: the bounds, if there are any.
    wanted: what it must be, for the message.
    Raises TypeError for what is no whole number, ValueError for one beyond the bounds.
    """
    number = whole_or_none(value)
    if number is None:
        raise TypeError(f"{name} must be {wanted}, got {_said(value)}")
    if (least is not None and number < least) or (most is not None and number > most):
        bounds = f"at least {least}" if most is None else f"between {least} and {most}"
        raise ValueError(f"{name} must be {bounds}, got {number}")
    return number


def check_fields(
    config: object, names: Iterable[str], check: Callable[[str, object], object]
) -> None:
    """Put fields of a frozen dataclass through a check, and keep what it returns."""
    for name in names:
        object.__setattr__(config, name, check(name, getattr(config, name)))


def check_number(name: str, value: object, wanted: str, fits: Callable[[float], bool]) -> float:
    """Return a number as Python's, or raise.

    wanted: what it must be, for the message.   fits: whether it is that; never true of nan.
    Raises TypeError for what is no number, or a bool, ValueError for one that does not fit.
    """
    if type(value) not in (int, float):
        value = _number(name, value, wanted)
    if not fits(value):
        raise ValueError(f"{name} must be {wanted}, got {value}")
    return value


def check_rate(name: str, value: object) -> float:
    """Return a probability with which something is dropped, 0 or more and below 1, or raise."""
    return check_number(name, value, "in [0, 1)", lambda p: 0 <= p < 1)


def check_share(name: str, value: object) -> float:
    """Return a share from 0 to 1, or raise."""
    return check_number(name, value, "between 0 and 1", lambda p: 0 <= p <= 1)


def check_positive(name: str, value: object) -> float:
    """Return a finite number above 0, or raise."""
    return check_number(name, value, "positive and finite", lambda x: 0 < x < math.inf)


def check_at_least_0(name: str, value: object) -> float:
    """Return a finite number that is not negative, or raise."""
    return check_number(name, value, "at least 0 and finite", lambda x: 0 <= x < math.inf)


def check_one_of(name: str, value: object, wanted: Sequence[str]) -> None:
    """Raise ValueError for what is none of the wanted names."""
    if not isinstance(value, str) or value not in wanted:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, wanted))}, got {value!r}")


def check_kind(name: str, given: object, kind: type) -> None:
    """Raise TypeError for what is not of a class."""
    if not isinstance(given, kind):
        raise TypeError(f"{name} must be of the class {kind.__name__}, got {type(given).__name__}")


def _number(name: str, value: object, wanted: str) -> float:
    if getattr(value, "ndim", None) == 0:  # NumPy's, or a tensor
        with suppress(RuntimeError):  # where a tensor holds no value
            value = value.item()
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name} must be {wanted}, got {_said(value)}")
    return float(value)


def _said(value: object) -> str:
    return f"{value!r} ({type(value).__name__})"

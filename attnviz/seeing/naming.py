"""Modules named by their paths, such as "encoder.layer.2.attention"."""

from collections.abc import Iterable
from difflib import get_close_matches


def within(path: str, inner: str) -> bool:
    """Whether a module is the one at a path, or inside it."""
    return inner == path or inner.startswith(path + ".")


def nearest(path: str, known: Iterable[str]) -> str:
    """The end of a message on a path that is not among those known, naming the most alike."""
    known = list(dict.fromkeys(known))
    alike = get_close_matches(path, known, 3, cutoff=0.0) if len(known) > 3 else known
    return f"; the nearest are {', '.join(map(repr, alike))}" if alike else ""

"""Text as a reader can see it: what has no shape of its own gets one. visible.js does the same."""

import re
from typing import Any
from unicodedata import category

EMPTY = "∅"
_MARKS = {" ": "␣", "\n": "↵", "\t": "⇥"}
_SPACES = r"\xa0\u1680\u2000-\u200a\u202f\u205f\u3000"  # all but the usual one
_JOINERS = (  # they shape what stands before them: an emoji's colour, a ligature, a flag
    r"\u034f\u180b-\u180d\u180f\u200c\u200d\ufe00-\ufe0f\U000e0020-\U000e007f\U000e0100-\U000e01ef"
)
_HIDDEN = (  # controls, formats, fillers, an empty Braille cell, halves of characters, joiners
    r"\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u115f\u1160\u17b4\u17b5\u180e\u200b-\u200f\u2028-\u202e"
    r"\u2060-\u206f\u2800\u3164\ud800-\udfff\ufeff\uffa0\ufff0-\ufffb\U0001bca0-\U0001bca3"
    rf"\U0001d173-\U0001d17a\U000e0000-\U000e0fff{_JOINERS}"
)
_SEEN = rf"[^ \n\t{_SPACES}{_HIDDEN}]"
_GAP = rf"[ {_SPACES}](?={_SEEN})"
_STAYS = rf"(?<={_SEEN})(?:[{_JOINERS}]+(?:{_GAP})?|{_GAP})"
_UNSEEN = re.compile(rf"({_STAYS})|([ \n\t])|[{_SPACES}{_HIDDEN}]+")
_BROKEN = re.compile(rf"({_STAYS})|[{_HIDDEN}]+")
_NUMBER = re.compile(r"[ ‹]?U\+[0-9A-F]{4,6}")
_HALVES = re.compile(r"[\ud800-\udfff]+")


def visible(text: str) -> str:
    """A label in which everything can be seen: "␣", "↵", "⇥", "∅" for nothing, "U+200B".

    What stays as it is: a single space inside, what joins or colours the signs of an emoji, a flag
    or a script. A mark that begins the text, such as an accent, stands on a circle.
    """
    text = _UNSEEN.sub(_show, _pair(text)) or EMPTY
    return f"◌{text}" if category(text[0])[0] == "M" else text


def readable(text: str) -> str:
    """Words in which controls, halves of characters and the like can be seen; spaces stay."""
    return _BROKEN.sub(lambda found: found[1] or _number(found), _pair(text))


def is_joiner(sign: str) -> bool:
    """Whether a sign is unseen by itself, and shapes the one before it."""
    return re.fullmatch(f"[{_JOINERS}]", sign) is not None


def by_number(run: str, text: str) -> str:
    """Characters by their numbers: "U+4E2D" where they are all of a text, or else "‹U+4E2D›"."""
    said = " ".join(f"U+{ord(character):04X}" for character in run)
    return said if run == text else f"‹{said}›"


def shorten(text: str, most: int) -> str:
    """At most so many characters, the last of them "…" where some are left out; no cut number."""
    if len(text) <= most:
        return text
    numbers = _NUMBER.finditer(text, 0, most + 8)
    cut = next((n.start() for n in numbers if n.start() < most - 1 < n.end()), most - 1)
    return f"{text[:cut]}…"


def sendable(value: Any) -> Any:
    """What goes to a page, with halves of characters by their numbers: all text is UTF-8 there.

    value: what JSON can hold, and bytes.
    """
    if isinstance(value, str):
        return value if value.isascii() else _HALVES.sub(_number, _pair(value))
    if isinstance(value, dict):
        return {sendable(name): sendable(inner) for name, inner in value.items()}
    return [sendable(inner) for inner in value] if isinstance(value, list | tuple) else value


def _pair(text: str) -> str:
    """The text with halves that stand side by side made whole, as JavaScript reads them."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")


def _show(found: re.Match) -> str:
    return found[1] or _MARKS.get(found[2]) or _number(found)


def _number(found: re.Match) -> str:
    return by_number(found[0], found.string)

"""Words in a matplotlib figure, in any script: in a font that has their signs, or by numbers."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import accumulate, groupby
from textwrap import wrap
from unicodedata import category, east_asian_width

import matplotlib
from matplotlib.artist import Artist
from matplotlib.font_manager import FontProperties, fontManager, get_font
from matplotlib.text import Text

from attnviz.views.visible import by_number, is_joiner, readable, shorten, visible

FALLBACKS = (  # what systems have; only outlines, as matplotlib draws none of the coloured emoji
    *("DejaVu Sans", "Noto Sans", "Segoe UI", "Arial Unicode MS", "FreeSans"),
    *("Noto Sans CJK JP", "Noto Sans CJK SC", "Source Han Sans", "WenQuanYi Zen Hei"),
    *("Droid Sans Fallback", "Hiragino Sans", "Hiragino Sans GB", "PingFang SC"),
    *("Apple SD Gothic Neo", "Yu Gothic", "MS Gothic", "Microsoft YaHei", "Malgun Gothic"),
    *("Noto Sans Arabic", "Geeza Pro", "Noto Sans Hebrew"),
    *("Noto Sans Thai", "Thonburi", "Leelawadee UI", "Noto Sans Khmer", "Noto Sans Myanmar"),
    *("Noto Sans Devanagari", "Kohinoor Devanagari", "Lohit Devanagari", "Nirmala UI"),
    *("Noto Sans Bengali", "Noto Sans Tamil", "Noto Sans Telugu", "Noto Sans Ethiopic"),
    *("Noto Sans Georgian", "Noto Sans Armenian", "Noto Sans Symbols", "Noto Sans Symbols 2"),
    *("Noto Emoji", "Symbola", "Segoe UI Symbol", "Segoe UI Emoji", "Apple Symbols", "Unifont"),
)


def plain(text: str) -> str:
    """Words as matplotlib can draw them: no formula between dollars, "U+4E2D" where no font is."""
    return _without_formulas(_written(readable(text).replace("\t", " ")))


def label(token: str, most: int) -> str:
    """A token as matplotlib can draw it, all of it visible, in at most so many `letters`."""
    text = _written(visible(token))
    if letters(text) > most:
        kept = sum(width < most for width in accumulate(map(letters, text)))
        text = shorten(text, kept + 1)
    return _without_formulas(text)


def letters(text: str) -> int:
    """How many letters wide a text is: Chinese signs and emoji take the room of two, marks none."""
    signs = [sign for sign in text.replace(r"\$", "$") if category(sign) not in ("Mn", "Me", "Cf")]
    return sum(1 + (east_asian_width(sign) in "WF") for sign in signs)


def fold(text: str, most: int) -> list[str]:
    """A text in lines of at most so many `letters`, with all its spaces; one line for no text."""
    spread = "".join(sign + "\0" * (letters(sign) - 1) for sign in text)
    lines = wrap(spread, most, drop_whitespace=False)
    return [line.replace("\0", "") for line in lines] or [""]


def in_lines(text: str, most: int) -> str:
    """Words as `plain` returns them, in lines of at most so many `letters`."""
    lines = [fold(line, most) for line in plain(text).splitlines()]
    return "\n".join(line.strip() for some in lines for line in some)


def dress(*artists: Artist) -> None:
    """Give each text of these artists the fonts for signs that its own font lacks.

    A figure is dressed once its words, as `plain` or `label` returns them, stand in it.
    """
    for text in {text for artist in artists for text in artist.findobj(Text)}:
        own, signs = text.get_fontproperties(), _signs(text.get_text())
        homes = filter(None, _homes(signs, own).values())
        text.set_family(list(dict.fromkeys([*own.get_family(), *homes])))


def _without_formulas(text: str) -> str:
    return text.replace("$", r"\$")


def _written(text: str) -> str:
    """The text with the signs that no font has by their numbers."""
    homes = _homes(_signs(text), FontProperties())
    lacking = {sign for sign, home in homes.items() if home is None}
    text = "".join(sign for sign in text if sign not in lacking or not is_joiner(sign))
    runs = [(lacks, "".join(run)) for lacks, run in groupby(text, lacking.__contains__)]
    return "".join(by_number(run, text) if lacks else run for lacks, run in runs)


def _signs(text: str) -> list[str]:
    """What a font might lack, each once."""
    return [] if text.isascii() else [sign for sign in dict.fromkeys(text) if not sign.isascii()]


def _homes(signs: Sequence[str], own: FontProperties) -> dict[str, str | None]:
    """For each sign the first font that has it: the text's, the reader's, another that is there."""
    if not signs:
        return {}
    there = {font.name for font in fontManager.ttflist}
    usual = matplotlib.rcParams["font.family"]
    families = [*own.get_family(), *usual, *(name for name in FALLBACKS if name in there)]
    with _quiet():
        return {sign: _home(sign, families, own) for sign in signs}


def _home(sign: str, families: Sequence[str], properties: FontProperties) -> str | None:
    """The first of the families that has a sign, or None."""
    for family in families:
        one = properties.copy()
        one.set_family(family)
        with suppress(ValueError):  # it is not there
            font = get_font(fontManager.findfont(one, fallback_to_default=False))
            if font.get_char_index(ord(sign)):
                return family
    return None


@contextmanager
def _quiet() -> Iterator[None]:
    """Let matplotlib not complain that a font which is asked for one sign has no bold face."""
    logger = logging.getLogger("matplotlib.font_manager")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)

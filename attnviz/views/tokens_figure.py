"""A text and its pieces as a matplotlib figure."""

from textwrap import wrap
from typing import Any
from unicodedata import east_asian_width

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from attnviz.views.figures import plain

_WIDTH, _LINE, _SIZE = 9.6, 0.32, 9.5  # inches: all, the height of a line; points: the letters
_LETTER = 0.603 * _SIZE / 72  # inches: a letter of DejaVu Sans Mono
_GAP, _PAD = 0.07, 0.09  # inches: between two pieces, around one
_LINES = 8  # of one tokenizer
_LONGEST = 48  # letters of a piece
_TINTS = ("#bfdcec", "#f9e7bf", "#bfe6dc", "#f2dde9")  # blue, orange, green, purple, pale
_SHOWN = str.maketrans({" ": "␣", "\n": "↵", "\t": "⇥"})


def tokens_figure(text: str, shown: dict[str, Any], title: str) -> Figure:
    """Draw what `TokensView` shows: the text, and the pieces of each tokenizer in lines.

    shown: as in `TokensView`.
    """
    laid = [_lay_out(cut) for cut in shown["cuts"]]
    quoted = wrap(text[:1000], int(_WIDTH / _LETTER) - 4, drop_whitespace=False)[:4] or [""]
    if sum(map(len, quoted)) < len(text.rstrip()):
        quoted[-1] = quoted[-1][:-1] + "…"
    n_lines = len(quoted) + sum(1.3 + max(len(lines), 1) for lines, _ in laid) + 0.6
    above = 0.4 * bool(title)
    figure = Figure(figsize=(_WIDTH, above + _LINE * n_lines))
    ax = figure.add_axes((0, 0, 1, 1))
    ax.set(xlim=(0, _WIDTH), ylim=(_LINE * n_lines, -above))
    ax.set_axis_off()
    if title:
        ax.text(0.1, -above / 2, plain(title), fontsize=11, va="center")
    y = 0.5 * _LINE
    for line in quoted:
        _write(ax, 0.1, y, line.replace("\n", " "))
        y += _LINE
    for cut, (lines, left) in zip(shown["cuts"], laid, strict=True):
        y += 0.3 * _LINE
        more = f", {left} of them not drawn" if left else ""
        name = f"{cut['name']}: " if cut["name"] else ""
        unknown = f", {cut['unknown']} unknown" if cut["unknown"] else ""
        said = f"{name}{cut['n']} pieces{unknown}{more}"
        ax.text(0.1, y, plain(said), fontsize=_SIZE, va="center", weight="bold")
        y += _LINE
        for line in lines:
            for x, label, kind, i in line:
                _draw_piece(ax, x, y, label, kind, i)
            y += _LINE
        y += _LINE * (not lines)
    return figure


def _lay_out(cut: dict[str, Any]) -> tuple[list[list[tuple[float, str, int, int]]], int]:
    """The pieces in lines, (x, label, kind, number) each, and how many are left out."""
    lines, x = [], _WIDTH
    for i, (token, kind) in enumerate(zip(cut["tokens"], cut["kinds"], strict=True)):
        label = token.translate(_SHOWN)
        label = label if len(label) <= _LONGEST else label[: _LONGEST - 1] + "…"
        wide = _wide(label)
        if x + wide + 2 * _PAD > _WIDTH - 0.1:
            if len(lines) == _LINES:
                return lines, cut["n"] - i
            lines.append([])
            x = 0.1
        lines[-1].append((x + _PAD, label, kind, i))
        x += wide + 2 * _PAD + _GAP
    return lines, cut["n"] - len(cut["tokens"])


def _wide(label: str) -> float:
    """Inches; Chinese and the like take two letters' room."""
    return _LETTER * max(1, sum(1 + (east_asian_width(c) in "WF") for c in label))


def _draw_piece(ax: Axes, x: float, y: float, label: str, kind: int, i: int) -> None:
    look = {"facecolor": _TINTS[i % len(_TINTS)], "edgecolor": "#888", "linewidth": 0.6}
    if kind == 1:
        look |= {"facecolor": "none", "linestyle": (0, (2, 2))}
    if kind == 2:
        look |= {"facecolor": "#fff", "edgecolor": "#c1440e", "linewidth": 1.6}
    _write(ax, x, y, label, bbox={"boxstyle": "round,pad=0.35", **look})


def _write(ax: Axes, x: float, y: float, text: str, **look: object) -> None:
    ax.text(x, y, plain(text), fontsize=_SIZE, family="DejaVu Sans Mono", va="center", **look)

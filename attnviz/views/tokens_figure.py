"""A text and its pieces as a matplotlib figure."""

from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from attnviz.views.writing import dress, fold, label, letters, plain

_WIDTH, _LINE, _SIZE = 9.6, 0.32, 9.5  # inches: all, the height of a line; points: the letters
_LETTER = 0.603 * _SIZE / 72  # inches: a letter of DejaVu Sans Mono
_GAP, _PAD = 0.07, 0.09  # inches: between two pieces, around one
_LINES = 8  # of one tokenizer
_LONGEST = 48  # letters of a piece
_TINTS = ("#bfdcec", "#f9e7bf", "#bfe6dc", "#f2dde9")  # blue, orange, green, purple, pale


def tokens_figure(text: str, shown: dict[str, Any], title: str) -> Figure:
    """Draw what `TokensView` shows: the text, and the pieces of each tokenizer in lines.

    shown: as in `TokensView`.
    """
    laid = [_lay_out(cut) for cut in shown["cuts"]]
    quoted = _quote(text)
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
        _write(ax, 0.1, y, line)
        y += _LINE
    for cut, (lines, left) in zip(shown["cuts"], laid, strict=True):
        y += 0.3 * _LINE
        more = f", {left} of them not drawn" if left else ""
        name = f"{label(cut['name'], _LONGEST)}: " if cut["name"] else ""
        unknown = f", {cut['unknown']} unknown" if cut["unknown"] else ""
        count = f"{name}{cut['n']} pieces{unknown}{more}"
        ax.text(0.1, y, count, fontsize=_SIZE, va="center", weight="bold")
        y += _LINE
        for line in lines:
            for x, said, kind, i in line:
                _draw_piece(ax, x, y, said, kind, i)
            y += _LINE
        y += _LINE * (not lines)
    dress(figure)
    return figure


def _quote(text: str) -> list[str]:
    """The beginning of the text in lines."""
    begun = plain(text[:1000].replace("\n", " "))
    lines = fold(begun, int(_WIDTH / _LETTER) - 4)
    if len(lines) > 4 or len(text) > 1000:
        lines = lines[:4]
        lines[-1] = f"{lines[-1][:-1]}…"
    return lines


def _lay_out(cut: dict[str, Any]) -> tuple[list[list[tuple[float, str, int, int]]], int]:
    """The pieces in lines, (x, label, kind, number) each, and how many are left out."""
    lines, x = [], _WIDTH
    for i, (token, kind) in enumerate(zip(cut["tokens"], cut["kinds"], strict=True)):
        said = label(token, _LONGEST)
        wide = _LETTER * letters(said)
        if x + wide + 2 * _PAD > _WIDTH - 0.1:
            if len(lines) == _LINES:
                return lines, cut["n"] - i
            lines.append([])
            x = 0.1
        lines[-1].append((x + _PAD, said, kind, i))
        x += wide + 2 * _PAD + _GAP
    return lines, cut["n"] - len(cut["tokens"])


def _draw_piece(ax: Axes, x: float, y: float, said: str, kind: int, i: int) -> None:
    look = {"facecolor": _TINTS[i % len(_TINTS)], "edgecolor": "#888", "linewidth": 0.6}
    if kind == 1:
        look |= {"facecolor": "none", "linestyle": (0, (2, 2))}
    if kind == 2:
        look |= {"facecolor": "#fff", "edgecolor": "#c1440e", "linewidth": 1.6}
    _write(ax, x, y, said, bbox={"boxstyle": "round,pad=0.35", **look})


def _write(ax: Axes, x: float, y: float, text: str, **look: object) -> None:
    ax.text(x, y, text, fontsize=_SIZE, family="DejaVu Sans Mono", va="center", **look)

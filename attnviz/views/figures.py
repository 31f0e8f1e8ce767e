"""Attention as matplotlib figures, for papers and print, and figures that can be read aloud."""

import base64
import io
from collections.abc import Sequence
from html import escape
from math import ceil, isfinite

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from attnviz.views.inputs import check_labels, check_weights
from attnviz.views.visible import sendable
from attnviz.views.writing import dress, in_lines, label, letters, plain

COLOR_MAP = "viridis"  # perceptually uniform, and safe for colour-blind readers
DIVERGING = "PuOr_r"  # from less to more, safe for colour-blind readers too
_CELL, _LABEL, _MOST = 0.24, 0.17, 7.0  # inches: a cell, the height of a label, the longer side
_LETTER, _SMALL, _LINE = 0.1, 0.075, 0.2  # inches: a letter of a title, of a label; a title's line
_LONGEST = 24  # characters of a label
_THUMBNAIL = 16  # queries and keys of a head among many
_PAIR = (("before", -0.2, "#b5b5b5"), ("after", 0.2, "#31688e"))  # name, place, colour of a bar
_BARS = 16  # of what a model says, in one list


def palette(name: str = COLOR_MAP) -> bytes:
    """The 256 colours of a colour map, from no attention to the most, three bytes each."""
    return matplotlib.colormaps[name](np.arange(256), bytes=True)[:, :3].tobytes()


def plot_heatmap(
    weights: ArrayLike,
    tokens: Sequence[str],
    key_tokens: Sequence[str] | None = None,
    *,
    title: str = "",
    ax: Axes | None = None,
) -> Axes:
    """Draw one attention matrix with matplotlib, in the look of the `heatmap` widget.

    Arguments and errors as in `heatmap`.
    ax: the axes to draw into; a new figure of a fitting size when not given.
    Returns the axes.
    """
    matrix = check_weights(weights)
    queries, keys = check_labels(matrix.shape, tokens, key_tokens)
    if ax is None:
        from matplotlib import pyplot  # only here, where pyplot's bookkeeping is wanted

        size, said = _fit(queries, keys, title)
        _, ax = pyplot.subplots(figsize=size, layout="constrained")
        return _draw(ax, matrix, queries, keys, said)
    return _draw(ax, matrix, queries, keys, plain(title))


def heatmap_figure(
    cells: np.ndarray, queries: Sequence[str], keys: Sequence[str], title: str = "", rest: str = ""
) -> Figure:
    """The picture of `plot_heatmap`, made without touching pyplot.

    cells: (rows, columns), as many as queries and keys or fewer, each for a patch of them.
    rest: how much goes to no key, in words.
    """
    size, said = _fit(queries, keys, title)
    figure = Figure(figsize=size, layout="constrained")
    _draw(figure.add_subplot(), cells, queries, keys, said, rest)
    return figure


def heads_figure(layers: Sequence[np.ndarray], title: str = "") -> Figure:
    """All heads as thumbnails, a row for each layer.

    layers: for each layer (head, row, column), every head of the same size.
    """
    layers = [_at_most(heads, _THUMBNAIL) for heads in layers]
    most = max(len(heads) for heads in layers)
    rows, columns = layers[0].shape[1:]
    gap = max(1, round(0.08 * max(rows, columns)))
    mosaic = np.full((len(layers) * (rows + gap), most * (columns + gap)), np.nan, np.float32)
    for i, heads in enumerate(layers):
        for j, head in enumerate(heads):
            y, x = i * (rows + gap), j * (columns + gap)
            mosaic[y : y + rows, x : x + columns] = np.sqrt(head)
    side = min(0.55, _MOST / max(most, len(layers)))
    title = in_lines(title, int(_MOST / _LETTER))
    widest = max(map(letters, title.split("\n")))
    wide = max(side * most + 1.2, _LETTER * widest)  # room for the title of few heads
    high = side * len(layers) + 1.1 + _LINE * title.count("\n")
    figure = Figure(figsize=(wide, high), layout="constrained")
    ax = figure.add_subplot(box_aspect=len(layers) / most)
    limits = {"vmin": 0, "vmax": np.nanmax(mosaic) or 1}
    ax.imshow(mosaic, cmap=COLOR_MAP, aspect="auto", interpolation="nearest", **limits)
    every = ceil(0.25 / side)
    ax.set_xticks([j * (columns + gap) + columns / 2 for j in range(0, most, every)])
    ax.set_xticklabels(range(0, most, every), fontsize=9)
    ax.set_yticks([i * (rows + gap) + rows / 2 for i in range(0, len(layers), every)])
    ax.set_yticklabels(range(0, len(layers), every), fontsize=9)
    ax.xaxis.tick_top()
    ax.xaxis.set_label_position("top")
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    ax.set(xlabel="head", ylabel="layer", title=title)
    dress(ax.title)
    return figure


def explore_figure(
    cells: np.ndarray,
    tokens: Sequence[str],
    says: Sequence[tuple[str, Sequence[tuple[str, float, float]]]],
    title: str,
    rest: str = "",
) -> Figure:
    """A head, and beside it what the model says before (light) and after (dark) its edits.

    cells: (rows, columns), as for `heatmap_figure`.   says: titles with rows (what, before, after).
    rest: how much goes to no key, in words.
    """
    wide, high = _figure_size(tokens, tokens)
    size = (wide + 3.4, max(high, 2.6, 1.8 * len(says)))
    figure = Figure(figsize=size, layout="constrained")
    grid = figure.add_gridspec(max(1, len(says)), 2, width_ratios=(wide, 3.4))
    _draw(figure.add_subplot(grid[:, 0]), cells, tokens, tokens, plain(title), rest)
    for i, (what, rows) in enumerate(says):
        names = _draw_bars(figure.add_subplot(grid[i, 1]), what, rows)
        if i == 0:
            figure.legend(handles=names, loc="outside lower right", ncols=2, frameon=False)
    dress(figure)
    return figure


def _draw_bars(ax: Axes, title: str, rows: Sequence[tuple[str, float, float]]) -> list:
    """Numbers before and after, a pair of bars for each row; returns what a legend names."""
    some = rows[:_BARS]
    places = np.arange(len(some))
    bars = [
        ax.barh(places + shift, [_bar(row[column]) for row in some], 0.36, color=color, label=name)
        for column, (name, shift, color) in enumerate(_PAIR, 1)
    ]
    ax.set_yticks(places, [_name_row(*row) for row in some], fontsize=9)
    ax.set_ylim(len(some) - 0.4, -0.6)
    left_out = f" (the first {_BARS} of {len(rows)})" if len(rows) > _BARS else ""
    ax.set_title(plain(title) + left_out, fontsize=10)
    ax.locator_params(axis="x", nbins=4)
    ax.tick_params(axis="x", labelsize=9)
    ax.spines[["top", "right"]].set_visible(False)
    return bars


def _bar(number: float) -> float:
    """How long a number's bar is: one that is not finite has none."""
    return number if isfinite(number) else 0


def _name_row(what: str, before: float, after: float) -> str:
    """What a pair of bars is; numbers that have no bar are said in words."""
    bars = isfinite(before) and isfinite(after)
    name = label(what, _LONGEST)
    return name if bars else f"{name}: {before:.3g} → {after:.3g}"


def _draw(
    ax: Axes,
    cells: np.ndarray,
    queries: Sequence[str],
    keys: Sequence[str],
    title: str,
    rest: str = "",
) -> Axes:
    square = len(queries) == len(keys)
    image = ax.imshow(
        cells,
        cmap=COLOR_MAP,
        aspect="equal" if square else "auto",
        extent=(-0.5, len(keys) - 0.5, len(queries) - 0.5, -0.5),
        vmin=0,
        vmax=cells.max() or 1,
    )
    room = ax.get_window_extent()
    wide, high = room.width / len(keys), room.height / len(queries)
    wide, high = (min(wide, high),) * 2 if square else (wide, high)
    _label_axis(ax.yaxis, queries, high / ax.get_figure().dpi)
    _label_axis(ax.xaxis, keys, wide / ax.get_figure().dpi)
    ax.xaxis.tick_top()
    ax.xaxis.set_label_position("top")
    ax.tick_params(axis="x", labelrotation=90)
    ax.tick_params(length=0, labelsize=9)
    said = f"key (is attended to); {rest}" if rest else "key (is attended to)"
    ax.set(xlabel=said, ylabel="query (attends)", title=title)
    bar = ax.get_figure().colorbar(image, ax=ax, shrink=0.6, aspect=30, pad=0.03)
    bar.set_label("attention weight", fontsize=9)
    bar.ax.tick_params(labelsize=9)
    bar.outline.set_visible(False)
    ax.spines[:].set_visible(False)
    dress(ax.title, ax.xaxis, ax.yaxis)
    return ax


def show(figure: Figure, caption: str, alt: str) -> None:
    """Display a matplotlib figure with a caption below it and a description for screen readers.

    JupyterLab drops alternative text given as metadata, so the figure goes into the page as HTML.

    figure:  the figure; it is closed, so that it is not shown a second time.
    caption: what to see in it, one or two sentences.
    alt:     what it looks like, for a reader who cannot see it.
    Raises ValueError when caption or alt is empty.
    """
    from IPython.display import display
    from matplotlib import pyplot

    for name, text in [("caption", caption), ("alt", alt)]:
        if not text.strip():
            raise ValueError(f"{name} must say something about the figure, got {text!r}")
    width = round(figure.get_figwidth() * 96)
    html = (
        f'<figure style="margin:0.5em 0"><img alt="{escape(alt)}" width="{width}" '
        f'style="max-width:100%;background:#fff;border-radius:6px" '
        f'src="data:image/png;base64,{png(figure, dpi=150)}"/>'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )
    pyplot.close(figure)
    display(sendable({"text/html": html, "text/plain": f"[figure] {caption}"}), raw=True)


def _at_most(heads: np.ndarray, size: int) -> np.ndarray:
    """Heads of at most size × size cells, (head, row, column): the largest of each patch."""
    for axis in (1, 2):
        n = heads.shape[axis]
        if n > size:
            heads = np.maximum.reduceat(heads, np.arange(size) * n // size, axis=axis)
    return heads


def _label_axis(axis: matplotlib.axis.Axis, tokens: Sequence[str], cell: float) -> None:
    """Label an axis with tokens, leaving some out where they would overlap; cell in inches."""
    step = ceil(_LABEL / cell)
    axis.set_ticks(range(0, len(tokens), step), [label(t, _LONGEST) for t in tokens[::step]])


def _fit(
    queries: Sequence[str], keys: Sequence[str], title: str
) -> tuple[tuple[float, float], str]:
    """The size of a figure with a title, in inches, and the title in lines that fit into it."""
    wide, high = _figure_size(queries, keys)
    said = in_lines(title, int((wide - 1.4) / _LETTER))  # it stands over the matrix, not the middle
    return (wide, high + _LINE * said.count("\n")), said


def _figure_size(queries: Sequence[str], keys: Sequence[str]) -> tuple[float, float]:
    """Width and height in inches, with room for the labels and the colour bar."""
    high, wide = (min(_CELL * len(tokens), _MOST) for tokens in (queries, keys))
    longest = (max(tokens, key=len) for tokens in (queries, keys))
    beside, above = (letters(label(token, _LONGEST)) for token in longest)
    return (wide + 2.8 + _SMALL * max(0, beside - 9), high + 1.8 + _SMALL * max(0, above - 9))


def png(figure: Figure, dpi: int) -> str:
    """The figure as a PNG in base64; dpi in dots per inch."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi)
    return base64.b64encode(buffer.getvalue()).decode()

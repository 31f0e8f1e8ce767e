"""A head at several training steps, and the loss, as a matplotlib figure."""

from collections.abc import Sequence
from math import ceil

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from attnviz.views.figures import COLOR_MAP
from attnviz.views.writing import dress, in_lines, label, letters

MOST = 6  # steps in a row
_WIDTH, _CELL, _LABEL = 10.8, 0.2, 0.16  # inches: all matrices, a cell, the height of a label
_LONGEST = 16  # characters of a label
_CURVE, _MARK = "#31688e", "#777"


def scrubber_figure(
    cells: NDArray[np.float32],
    steps: Sequence[int],
    labels: tuple[Sequence[str], Sequence[str]],
    losses: NDArray[np.float64],
    title: str,
) -> Figure:
    """Draw a head at up to six steps in the same colours, and the loss below, if there is one.

    cells: (step, row, column), one for each of the steps.   labels: of the queries and the keys.
    """
    some = np.unique(np.linspace(0, len(steps) - 1, min(MOST, len(steps))).round().astype(int))
    queries, keys = labels
    most = min(3.2, _WIDTH / len(some))
    wide, high = (min(most, max(1.2, _CELL * len(tokens))) for tokens in (keys, queries))
    longest = [letters(label(max(tokens, key=len), _LONGEST)) * 0.075 for tokens in labels]
    below = 1.9 if len(losses) else 0
    width = max(wide * len(some) + longest[0] + 1.5, 4.5)
    size = (width, high + longest[1] + 1.1 + below)
    figure = Figure(figsize=size, layout="constrained")
    figure.get_layout_engine().set(h_pad=0.08)  # so that the title stands apart from the steps'
    tops = figure
    if len(losses):
        tops, bottom = figure.subfigures(2, 1, height_ratios=(size[1] - below, below))
        _draw_losses(bottom.add_subplot(), losses, [steps[i] for i in some], steps[-1])
    axes = tops.subplots(1, len(some), squeeze=False)[0]
    for ax, i in zip(axes, some, strict=True):
        image = ax.imshow(
            cells[i],
            cmap=COLOR_MAP,
            aspect="equal" if len(queries) == len(keys) else "auto",
            extent=(-0.5, len(keys) - 0.5, len(queries) - 0.5, -0.5),
            interpolation="nearest",
            vmin=0,
            vmax=cells.max() or 1,
        )
        _label_axis(ax, "x", keys, wide)
        _label_axis(ax, "y", queries if ax is axes[0] else (), high)
        ax.xaxis.tick_top()
        ax.tick_params(length=0, labelsize=8)
        ax.tick_params(axis="x", labelrotation=90)
        ax.spines[:].set_visible(False)
        ax.set_title(f"step {steps[i]}", fontsize=10)
    axes[0].set_ylabel("query (attends)", fontsize=9)
    axes[0].set_xlabel("key (is attended to)", fontsize=9)
    bar = tops.colorbar(image, ax=list(axes), shrink=0.8, aspect=20, pad=0.01)
    bar.set_label("attention weight", fontsize=9)
    bar.ax.tick_params(labelsize=8)
    bar.outline.set_visible(False)
    tops.suptitle(in_lines(title, int(11 * width)), fontsize=11)
    dress(figure)
    return figure


def _label_axis(ax: Axes, axis: str, tokens: Sequence[str], room: float) -> None:
    """Label an axis with tokens, leaving some out where they would overlap; room in inches."""
    step = ceil(_LABEL * len(tokens) / room) or 1
    ax.set(**{f"{axis}ticks": range(0, len(tokens), step)})
    ax.set(**{f"{axis}ticklabels": [label(token, _LONGEST) for token in tokens[::step]]})


def _draw_losses(ax: Axes, losses: NDArray[np.float64], marked: Sequence[int], last: int) -> None:
    """The loss of each step, with a line at each of the steps that are drawn above."""
    ax.plot(np.arange(len(losses)) + 1, losses, color=_CURVE, linewidth=1)
    for step in marked:
        ax.axvline(step, color=_MARK, linewidth=0.8, linestyle=(0, (2, 2)))
        if 0 < step <= len(losses):
            ax.plot(step, losses[step - 1], "o", color=_CURVE, markersize=4)
    end = max(last, len(losses))
    ax.set_xlim(-0.01 * end, 1.01 * end)
    ax.xaxis.set_major_locator(MaxNLocator(8, steps=[1, 2, 5, 10], integer=True))
    ax.yaxis.set_major_locator(MaxNLocator(4))
    ax.set_xlabel("training steps", fontsize=9)
    ax.set_ylabel("loss", fontsize=9)
    ax.tick_params(labelsize=8)
    ax.spines[["top", "right"]].set_visible(False)

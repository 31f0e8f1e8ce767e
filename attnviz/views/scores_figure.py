"""One query's attention taken apart, as a matplotlib figure."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure
from numpy.typing import NDArray

from attnviz.views.scores_row import ScoreRow
from attnviz.views.writing import dress, label, plain

PLUS, MINUS = "#0072b2", "#d55e00"  # told apart by colour-blind readers, on white and on black
_VECTORS, _NUMBER, _LINE = 3.2, 0.75, 0.34  # inches: a column of vectors, one of numbers, a row
_LONGEST = 16  # characters of a label


def scores_figure(
    row: ScoreRow, query: str, keys: Sequence[str], scale: float, title: str
) -> Figure:
    """Draw a query and all keys of a row: vectors as bars, and the numbers that they lead to.

    query: its token.   keys: the tokens of the row's keys.   scale: of the scores.
    """
    columns = _columns(row, scale)
    widths = [_VECTORS, _VECTORS, _NUMBER * len(columns)]
    size = (sum(widths) + 1.8, _LINE * len(keys) + 1.3)
    figure = Figure(figsize=size, layout="constrained")
    left, middle, right = figure.subplots(1, 3, sharey=True, width_ratios=widths)
    _bars(left, row.q[None], 0)
    _bars(left, row.k, 1)
    _bars(middle, row.k * row.q, 1)
    left.set_title("query q, and below it the keys k", fontsize=9)
    middle.set_title("q ∘ k: their products, one by one", fontsize=9)
    labels = [f"query {row.query}  {label(query, _LONGEST)}"]
    labels += [f"{k}  {label(token, _LONGEST)}" for k, token in zip(row.keys, keys, strict=True)]
    left.set_yticks(range(len(labels)), labels)
    left.set_ylim(len(labels) - 0.4, -0.6)
    _write(right, columns)
    figure.suptitle(plain(title), fontsize=11, wrap=True)
    dress(figure)
    return figure


def _columns(row: ScoreRow, scale: float) -> dict[str, list[str]]:
    """The columns of numbers: a name, and a text for each key."""
    masked = row.bias == -np.inf
    columns = {
        "q·k": [f"{x:.2f}" for x in row.dots],
        f"× {scale:.3g}": [f"{x:.2f}" for x in row.dots * scale],
    }
    if row.bias.any():
        bias = [f"{x:.2f}" for x in row.bias]
        columns["+ bias"] = ["masked" if m else b for m, b in zip(masked, bias, strict=True)]
    if row.changed:
        columns["softmax"] = [f"{x:.3f}" for x in row.softmax]
    columns["edited" if row.changed == "edit" else "weight"] = [f"{x:.3f}" for x in row.weights]
    return columns


def _bars(ax: Axes, vectors: NDArray, first: int) -> None:
    """Draw vectors (n, d_k), each as a row of bars from a middle line, up for positive numbers.

    first: the line of the first of them.
    """
    most = float(np.abs(vectors).max()) or 1.0
    n, d = vectors.shape
    places = np.add.outer(np.zeros(n), np.arange(d))
    middle = np.add.outer(np.arange(first, first + n), np.zeros(d))
    with np.errstate(invalid="ignore"):  # an infinite number has no bar; it is written beside it
        end = middle - 0.45 * vectors / most
    corners = [(places, middle), (places, end), (places + 0.8, end), (places + 0.8, middle)]
    corners = np.stack([np.stack(corner, -1) for corner in corners], -2)  # (n, d_k, corner, 2)
    colors = np.where(vectors > 0, PLUS, MINUS)
    ax.add_collection(PolyCollection(corners.reshape(-1, 4, 2), facecolors=colors.ravel()))
    ax.hlines(middle[:, 0], 0, d, color="#999", linewidth=0.5)
    ax.set_xlim(-0.5, d + 0.5)
    ax.set_xticks([])
    ax.tick_params(length=0, labelsize=9)
    ax.spines[:].set_visible(False)


def _write(ax: Axes, columns: dict[str, list[str]]) -> None:
    """Write columns of numbers, their names in the query's line."""
    ax.set_axis_off()
    ax.set_xlim(0, len(columns))
    for i, (name, numbers) in enumerate(columns.items(), 1):
        ax.text(i, 0, name, ha="right", va="center", fontsize=9, weight="bold")
        for y, number in enumerate(numbers, 1):
            ax.text(i, y, number.replace("-", "−"), ha="right", va="center", fontsize=9)

"""The loss while it falls, drawn below a notebook's cell."""

import base64
import io
import sys
import time
from html import escape
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from attnviz.training.loop import History

_EVERY = 2.0  # seconds between two pictures, at least
_SHARE = 0.02  # of the time that pictures may take from the training
_POINTS = 400  # of the curve


class LivePlot:
    """A picture of the loss that is renewed every few seconds; nothing outside a notebook.

    wanted: False for no picture at all.
    marks:  losses to compare with, by name: each gets a dotted line.
    """

    def __init__(self, wanted: bool, marks: dict[str, float] | None = None):
        self._handle, self._marks = None, marks or {}
        self._next = time.perf_counter() + _EVERY
        self._wanted = wanted and "ipykernel" in sys.modules

    def show(self, history: "History") -> None:
        """Renew the picture when it is time."""
        if self._wanted and time.perf_counter() > self._next:
            self._draw(history)

    def close(self, history: "History") -> None:
        """Show the end of the curve, if any of it was shown."""
        if self._handle is not None:
            self._draw(history)

    def _draw(self, history: "History") -> None:
        from IPython.display import display

        begun = time.perf_counter()
        data = {
            "text/html": _html(history, self._marks),
            "text/plain": "[figure] the loss while training",
        }
        if self._handle is None:
            self._handle = display(data, raw=True, display_id=True)
        else:
            self._handle.update(data, raw=True)
        taken = time.perf_counter() - begun
        self._next = begun + max(_EVERY, taken / _SHARE)


def _html(history: "History", marks: dict[str, float]) -> str:
    """A curve of the loss, in grey each step and in colour the mean of the last ones."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 2.4), layout="constrained")
    ax = figure.add_subplot()
    losses, n = np.array(history.losses), len(history.losses)
    first = np.maximum(0, np.arange(n) - max(1, n // 50))  # of those that a mean is taken of
    sums = np.concatenate([[0], losses.cumsum()])
    smooth = (sums[1:] - sums[first]) / (np.arange(n) + 1 - first)
    some = np.linspace(0, n - 1, min(n, _POINTS)).astype(int)
    ax.plot(some + 1, losses[some], color="#b0b0b0", linewidth=0.8)
    ax.plot(some + 1, smooth[some], color="#31688e")
    ax.set(xlabel="step", ylabel="loss")
    for name, loss in marks.items():
        ax.axhline(loss, color="gray", linestyle=":")
        ax.annotate(
            name, (1, loss), (0, 2), ("axes fraction", "data"), "offset points",
            ha="right", va="bottom", fontsize=8,
        )  # fmt: skip
    low, high = min(0, smooth.min()), max(0, smooth.max(), *marks.values())
    ax.set_ylim(low * 1.05, high * 1.1 if low < high else 1)
    ax.spines[["top", "right"]].set_visible(False)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    alt = f"Loss over {n} training steps, from {smooth[0]:.2f} to {smooth[-1]:.2f}."
    alt += "".join(f" Dotted: {escape(name)}, {loss:.2f}." for name, loss in marks.items())
    return (
        f'<img alt="{alt}" width="620" style="max-width:100%;background:#fff;border-radius:6px" '
        f'src="data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"/>'
    )

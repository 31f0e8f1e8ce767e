"""What a check says of an exercise, in words and, where it helps, in a picture."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from html import escape
from typing import Any, Literal

import numpy as np
from IPython.display import display

_LOOKS = {  # status: mark and colour
    "passed": ("✓", "#2e7d32"),
    "not yet": ("…", "#9e6a03"),
    "wrong": ("✗", "#c62828"),
    "hint": ("→", "#1565c0"),
}


@dataclass(frozen=True, repr=False)
class Verdict:
    """The outcome of a check.

    name: the exercise.   status: "passed", "not yet" (still a stub), "wrong", or "hint".
    reason: one or two sentences.   yours, right: the results on the first input that differs.
    attempt, reference: the reader's function and the package's.
    """

    name: str
    status: Literal["passed", "not yet", "wrong", "hint"]
    reason: str
    yours: Any = None
    right: Any = None
    attempt: Callable | None = None
    reference: Callable | None = None

    def __bool__(self) -> bool:
        return self.status == "passed"

    def use(self) -> Callable:
        """Show this verdict, and give the function that the lesson goes on with.

        Returns the reader's function where it passed, otherwise the package's.
        Raises RuntimeError for a verdict that has none, such as one that was stored.
        """
        if self.attempt is None or self.reference is None:
            again = f"call check.{self.name}({self.name}).use() again"
            raise RuntimeError(f"this verdict on {self.name} holds no function: {again}")
        goes_on = "with yours" if self else "with the package's until yours passes"
        display(replace(self, reason=f"{self.reason} The lesson goes on {goes_on}."))
        return self.attempt if self else self.reference

    def __reduce__(self) -> tuple:
        """Stored without the functions, which a reader's cell may have made anew by then."""
        return Verdict, (self.name, self.status, self.reason, self.yours, self.right)

    def __repr__(self) -> str:
        mark, _ = _LOOKS[self.status]
        return f"{mark} {self.name}, {self.status}: {self.reason}"

    def _repr_html_(self) -> str:
        mark, color = _LOOKS[self.status]
        return (
            f'<div style="border-left:4px solid {color};padding:2px 10px">'
            f"<b>{mark} {escape(self.name)}, {self.status}:</b> {escape(self.reason)}"
            f"{self._picture()}</div>"
        )

    def _picture(self) -> str:
        """Yours beside the right one, when both are matrices that can be compared."""
        pair = _matrices(self.yours, self.right)
        if pair is None:
            return ""
        from matplotlib.figure import Figure

        from attnviz.views.figures import COLOR_MAP, png

        figure = Figure(figsize=(5, 2.6), layout="constrained")
        finite = np.concatenate([m[np.isfinite(m)] for m in pair])
        limits = {"vmin": finite.min(), "vmax": finite.max()}
        axes = figure.subplots(1, 2)
        for ax, matrix, title in zip(axes, pair, ["yours", "right"], strict=True):
            image = ax.imshow(matrix, cmap=COLOR_MAP, **limits)
            ax.set_title(title, fontsize=10)
            ax.set_xticks([])
            ax.set_yticks([])
        figure.colorbar(image, ax=axes, shrink=0.8)
        return (
            '<br/><img alt="your result beside the right one, on the same colour scale" width="400"'
            ' style="background:#fff;border-radius:6px;margin-top:6px"'
            f' src="data:image/png;base64,{png(figure, dpi=120)}"/>'
        )


def _matrices(yours: Any, right: Any) -> tuple[np.ndarray, np.ndarray] | None:
    """Both results as matrices, of a batch the item that differs most; None if there are none."""
    for result in (yours, right):
        if not isinstance(result, np.ndarray) or result.ndim < 2 or not result.size:
            return None
    yours, right = (r.reshape(-1, *r.shape[-2:]).astype(float) for r in (yours, right))
    item = 0
    if yours.shape == right.shape:
        item = int(np.nan_to_num(abs(yours - right), nan=np.inf).max(axis=(1, 2)).argmax())
    pair = yours[item], right[item]
    return pair if all(np.isfinite(matrix).any() for matrix in pair) else None

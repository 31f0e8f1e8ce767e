"""One attention matrix, close up: a widget to point at, and a picture where no widget can live."""

from collections.abc import Sequence
from pathlib import Path

import anywidget
import numpy as np
import traitlets
from numpy.typing import ArrayLike

from attnviz.views.figures import heatmap_png, palette
from attnviz.views.inputs import check_labels, check_weights

_HERE = Path(__file__).parent
_NOTHING = {"layer": None, "head": None, "query": None, "key": None}


class HeatmapView(anywidget.AnyWidget):
    """The live view that `heatmap` returns.

    selection: dict of layer, head, query and key, each a number or None. A click in the picture
    sets query and key; assigning a new dict from Python (of some or all of the four) moves the
    mark in the picture. Layer and head are the caller's to use, so that several views can share
    one selection with `traitlets.link`.
    """

    _esm = _HERE / "heatmap.js"
    _css = _HERE / "static" / "heatmap.css"

    query_tokens = traitlets.List(traitlets.Unicode()).tag(sync=True)
    key_tokens = traitlets.List(traitlets.Unicode()).tag(sync=True)
    cells = traitlets.Bytes().tag(sync=True)  # float32, little endian, (query, key)
    palette = traitlets.Bytes().tag(sync=True)  # 256 colours, 3 bytes each
    title = traitlets.Unicode().tag(sync=True)
    selection = traitlets.Dict(default_value=_NOTHING).tag(sync=True)

    def __init__(
        self,
        weights: ArrayLike,
        tokens: Sequence[str],
        key_tokens: Sequence[str] | None = None,
        title: str = "",
    ):
        super().__init__(palette=palette(), title=title)
        self.update(weights, tokens, key_tokens)

    def update(
        self, weights: ArrayLike, tokens: Sequence[str], key_tokens: Sequence[str] | None = None
    ) -> None:
        """Show another matrix in the same place; arguments and errors as in `heatmap`.

        A selected cell that the new matrix does not have is given up.
        """
        matrix = check_weights(weights)
        queries, keys = check_labels(matrix, tokens, key_tokens)
        with self.hold_sync():  # one message, so that the picture changes once
            self.query_tokens, self.key_tokens = queries, keys
            self.cells = matrix.astype("<f4").tobytes()
            if any((self.selection[a] or 0) >= n for a, n in self._sizes().items()):
                self.selection = {**self.selection, "query": None, "key": None}

    @property
    def weights(self) -> np.ndarray:
        """The matrix that is shown, float32 (n_queries, n_keys)."""
        shape = tuple(self._sizes().values())
        return np.frombuffer(self.cells, dtype="<f4").reshape(shape)

    def _sizes(self) -> dict[str, int]:
        return {"query": len(self.query_tokens), "key": len(self.key_tokens)}

    @traitlets.validate("selection")
    def _check_selection(self, proposal: traitlets.Bunch) -> dict[str, int | None]:
        selection = {**_NOTHING, **proposal["value"]}
        if unknown := selection.keys() - _NOTHING:
            raise ValueError(f"selection has {sorted(unknown, key=str)}, expected {list(_NOTHING)}")
        sizes = self._sizes()
        for axis, index in selection.items():
            if index is None:
                continue
            if isinstance(index, bool) or not isinstance(index, int | np.integer):
                raise TypeError(
                    f"selection[{axis!r}] must be a whole number or None, got {index!r}"
                )
            last = sizes[axis] - 1 if axis in sizes else None
            if index < 0 or (last is not None and index > last):
                wanted = "at least 0" if last is None else f"between 0 and {last}"
                raise ValueError(f"selection[{axis!r}] must be {wanted}, got {index}")
            selection[axis] = int(index)
        return selection

    def __repr__(self) -> str:
        queries, keys = self._sizes().values()
        return f"HeatmapView({queries} queries × {keys} keys)"

    def _repr_mimebundle_(self, **kwargs: object) -> tuple[dict, dict]:
        data, metadata = super()._repr_mimebundle_(**kwargs)
        data["image/png"] = heatmap_png(
            self.weights, self.query_tokens, self.key_tokens, self.title
        )
        return data, metadata


def heatmap(
    weights: ArrayLike,
    tokens: Sequence[str],
    key_tokens: Sequence[str] | None = None,
    *,
    title: str = "",
) -> HeatmapView:
    """Draw one attention matrix as a live picture: point, click, or walk with the arrow keys.

    weights:    (n_queries, n_keys), rows summing to one; an array, a nested list or a torch tensor.
    tokens:     labels of the queries, and of the keys too when key_tokens is not given.
    key_tokens: labels of the keys, for cross-attention.
    title:      a line above the picture.
    Returns the widget; its `selection` follows the clicks, its `update` shows another matrix.
    Raises ValueError or TypeError for weights that are no attention matrix, or labels of a wrong
    number.
    """
    return HeatmapView(weights, tokens, key_tokens, title)

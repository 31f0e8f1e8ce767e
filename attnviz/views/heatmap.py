"""One attention matrix, close up: a widget to point at, and a picture where no widget can live."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import traitlets
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from attnviz.checks import check_share, check_whole
from attnviz.views.bundle import module, style
from attnviz.views.figures import heatmap_figure
from attnviz.views.inputs import (
    check_index,
    check_labels,
    check_weights,
)
from attnviz.views.no_key import on_average
from attnviz.views.refusing import validate
from attnviz.views.source import (
    Layer,
    check_head,
    check_layers,
    compress,
    shrink_columns,
    shrink_rows,
)
from attnviz.views.view import Answer, View

SIDE = 512  # queries and keys sent at first, and with each closer look: 1 MB of float32
PAGE_SIDE = 2048  # and in a saved page, where nobody can be asked: 4 MB of one byte each
REACH = 2**24  # weights worked out for one closer look


class ColouredView(View):
    """A view of a matrix whose colours can be chosen, on the page and from Python."""

    scale = traitlets.Enum(["linear", "log", "row"], "linear").tag(sync=True, page=True)
    threshold = traitlets.TraitType(0.0).tag(sync=True, page=True)  # checked below

    @validate("threshold")
    def _check_threshold(self, proposal: traitlets.Bunch) -> float:
        return check_share("threshold", proposal["value"])


class HeatmapView(ColouredView):
    """The live view that `heatmap` returns.

    selection: dict of layer, head, query and key, each a number or None. A click in the picture
    sets query and key; assigning a new dict from Python (of some or all of the four) moves the
    mark in the picture. Layer and head are the caller's to use, so that several views can share
    one selection with `traitlets.link`.
    scale: how weights become colours: "linear", "log" (four powers of ten) or "row" (each row's
    largest weight gets the last colour).
    threshold: smaller weights are left blank.
    """

    _esm = module(Path(__file__).with_name("heatmap.js"))
    _css = style("view", "matrix")

    query_tokens = traitlets.List(traitlets.Unicode()).tag(sync=True)
    key_tokens = traitlets.List(traitlets.Unicode()).tag(sync=True)
    cells = traitlets.Dict().tag(sync=True)  # of numbers(): at most SIDE × SIDE, and the rest

    def __init__(
        self,
        weights: ArrayLike,
        tokens: Sequence[str],
        key_tokens: Sequence[str] | None = None,
        title: str = "",
        head: int | None = None,
        item: int = 0,
    ):
        super().__init__(title=title, **self._look_at(weights, tokens, key_tokens, head, item))

    def update(
        self,
        weights: ArrayLike,
        tokens: Sequence[str],
        key_tokens: Sequence[str] | None = None,
        *,
        head: int | None = None,
        item: int = 0,
    ) -> None:
        """Show another matrix in the same place; arguments and errors as in `heatmap`.

        A selected cell that the new matrix does not have is given up.
        """
        shown = self._look_at(weights, tokens, key_tokens, head, item)
        with self.hold_sync():  # one message, so that the picture changes once
            for name, value in shown.items():
                setattr(self, name, value)
            self._give_up_what_is_gone()

    def _look_at(
        self,
        weights: ArrayLike,
        tokens: Sequence[str],
        key_tokens: Sequence[str] | None,
        head: int | None,
        item: int,
    ) -> dict[str, Any]:
        """Take one matrix; returns the traits that show it."""
        layer, head = _one_head(weights, head, item)
        queries, keys = check_labels((layer.n_queries, layer.n_keys), tokens, key_tokens)
        cells = overview(layer, head, SIDE)
        self._layer, self._head = layer, head  # all is well with it
        return {"query_tokens": queries, "key_tokens": keys, "cells": cells}

    @property
    def weights(self) -> np.ndarray:
        """The matrix that is shown, float32 (n_queries, n_keys), in full size."""
        return self._layer.rows(slice(self._head, self._head + 1), slice(None))[0]

    def figure(self) -> Figure:
        """The picture as a matplotlib figure, with at most 512 × 512 cells."""
        said = on_average(as_rest(self.cells))
        return heatmap_figure(
            as_matrix(self.cells), self.query_tokens, self.key_tokens, self.title, said
        )

    def _sizes(self) -> dict[str, int]:
        return {"query": len(self.query_tokens), "key": len(self.key_tokens)}

    def _answer(self, question: dict[str, Any]) -> Answer:
        return closer_look(self._layer, self._head, question)

    def _page_state(self) -> dict[str, Any]:
        if max(self._sizes().values()) <= SIDE:
            return {}
        return {"cells": overview(self._layer, self._head, PAGE_SIDE, exact=False)}

    def __repr__(self) -> str:
        queries, keys = self._sizes().values()
        return f"HeatmapView({queries} queries × {keys} keys)"


def overview(layer: Layer, head: int, side: int, *, exact: bool = True) -> dict[str, Any]:
    """One whole head as `numbers`, at most side × side: the largest weight of each patch."""
    whole = (0, layer.n_queries), (0, layer.n_keys)
    rest = layer.rest(head) if layer.sinks else None
    return numbers(layer.window(head, *whole, side)[0], exact=exact, rest=rest)


def sample(layer: Layer, head: int, side: int, step: int) -> dict[str, Any]:
    """As `overview`, of one query in `step`, at least one of each patch: small and soon there."""
    places = np.arange(step // 2, layer.n_queries, step)
    rows = layer.rows(slice(head, head + 1), slice(step // 2, None, step))
    rows, _ = shrink_rows(rows, places, layer.n_queries, min(side, layer.n_queries))
    return numbers(shrink_columns(rows[0], min(side, layer.n_keys)), exact=False)


def numbers(
    matrix: np.ndarray, *, exact: bool = True, rest: np.ndarray | None = None
) -> dict[str, Any]:
    """A matrix as it goes to the page: float32, or roots of one byte each (see `compress`).

    rest: what of each query's attention goes to no key, (query,); it stands behind the cells.
    """
    sent = matrix if rest is None else np.append(matrix, rest)
    values = sent.astype("<f4").tobytes() if exact else compress(sent)
    return {"rows": matrix.shape[0], "columns": matrix.shape[1], "exact": exact, "values": values}


def as_answer(cells: dict[str, Any]) -> Answer:
    """What `numbers` gave, as the answer to a page's question."""
    return {k: v for k, v in cells.items() if k != "values"}, [cells["values"]]


def as_matrix(cells: dict[str, Any]) -> np.ndarray:
    """What exact `numbers` hold, float32 (rows, columns)."""
    shape = cells["rows"], cells["columns"]
    return np.frombuffer(cells["values"], "<f4", shape[0] * shape[1]).reshape(shape)


def as_rest(cells: dict[str, Any]) -> np.ndarray:
    """What of each query goes to no key, as exact `numbers` hold it, (query,); empty for none."""
    return np.frombuffer(cells["values"], "<f4")[cells["rows"] * cells["columns"] :]


def closer_look(layer: Layer, head: int, question: dict[str, Any]) -> Answer:
    """Answer a page's question about one head: a row, or a window of queries and keys.

    question: {"row": query} or {"window": [first query, end, first key, end]}.
    Raises TypeError or ValueError for a row or a window that is not there or too large, or what is
    no question.
    """
    match question:
        case {"row": query, **more} if not more:
            query = check_index("row", query, layer.n_queries)
            row = layer.rows(slice(head, head + 1), slice(query, query + 1))[0, 0]
            return {}, [row.astype("<f4").tobytes()]
        case {"window": corners, **more} if not more:
            queries, keys = _check_window(layer, corners)
            cells, largest = layer.window(head, queries, keys, SIDE)
            size = {"rows": cells.shape[0], "columns": cells.shape[1]}
            return size, [cells.astype("<f4").tobytes(), largest.astype("<f4").tobytes()]
    raise ValueError(f"this view has no answer to {question!r}")


def _check_window(layer: Layer, corners: object) -> tuple[tuple[int, int], tuple[int, int]]:
    """The first query and the end, and the first key and the end, or TypeError or ValueError."""
    if not isinstance(corners, list | tuple) or len(corners) != 4:
        raise ValueError(f"window must be [first query, end, first key, end], got {corners!r}")
    first, end, first_key, end_key = (check_whole("a border of window", x) for x in corners)
    if not (0 <= first < end <= layer.n_queries and 0 <= first_key < end_key <= layer.n_keys):
        raise ValueError(
            f"window must lie within {layer.n_queries} queries × {layer.n_keys} keys, got {corners}"
        )
    if (end - first) * layer.n_keys > max(REACH, layer.n_keys):
        raise ValueError(f"{end - first} queries are too many for a closer look: zoom in further")
    return (first, end), (first_key, end_key)


def _one_head(weights: ArrayLike, head: int | None, item: int) -> tuple[Layer, int]:
    """The layer and the head that are meant by a matrix, or by a record and a head."""
    if hasattr(weights, "part"):
        (layer,) = check_layers(weights, item)
        if head is None and layer.heads > 1:
            raise ValueError(f"this record has {layer.heads} heads: choose one with head=0")
        return layer, check_head(layer, head or 0)
    if head is not None or item != 0:
        raise ValueError("head and item belong to a captured record, but weights is a matrix")
    matrix = check_weights(weights)
    layer = Layer("", 1, *matrix.shape, lambda heads, rows: matrix[None][heads, rows], False)
    return layer, 0


def heatmap(
    weights: ArrayLike,
    tokens: Sequence[str],
    key_tokens: Sequence[str] | None = None,
    *,
    head: int | None = None,
    item: int = 0,
    title: str = "",
) -> HeatmapView:
    """Draw one attention matrix as a live picture: point, click, zoom, or walk with the arrow keys.

    weights:    (n_queries, n_keys), rows summing to one; an array, a nested list or a torch tensor;
                or a captured record, of which one head is worked out piece by piece, so that 8,192
                tokens open as fast as 512. Only of a record a share may go to no key (sinks): it
                is said for each query.
    tokens:     labels of the queries, and of the keys too when key_tokens is not given.
    key_tokens: labels of the keys, for cross-attention.
    head, item: which head of a record, and which item of its batch.
    title:      a line above the picture.
    Up to 512 × 512 weights are sent as they are (1 MB); of more, the largest of each patch, and the
    single weights when the reader zooms in.
    Returns the widget; its `selection` follows the clicks, its `update` shows another matrix, its
    `save` writes a page or a figure.
    Raises ValueError or TypeError for weights that are no attention matrix, or labels of a wrong
    number; IndexError for an item that is not in the batch.
    """
    return HeatmapView(weights, tokens, key_tokens, title, head, item)

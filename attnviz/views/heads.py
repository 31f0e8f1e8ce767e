"""Every head of every layer at a glance, and the one that is chosen beside them."""

from collections.abc import Iterator, Sequence
from math import isqrt
from pathlib import Path
from typing import Any

import numpy as np
import traitlets
from matplotlib.figure import Figure

from attnviz.views.bundle import module, style
from attnviz.views.figures import heads_figure
from attnviz.views.heatmap import SIDE, ColouredView, closer_look, overview
from attnviz.views.inputs import check_labels
from attnviz.views.measures import measures
from attnviz.views.source import (
    BLOCK,
    check_head,
    check_layers,
    check_one_size,
    compress,
    edges,
    shrink_columns,
    shrink_rows,
)
from attnviz.views.view import Answer, check_selection

THUMBNAIL = 64  # queries and keys of a thumbnail
ALL_THUMBNAILS = 600_000  # bytes: fewer queries and keys where there are many heads
AT_ONCE = 2**26  # weights worked out before the view opens; of more, a sample is taken first
MEASURED = 2**23  # weights that the measures are taken from
PAGE_HEADS = 40_000_000  # bytes of all heads in a saved page, before compression
PAGE_THUMBNAIL = 44  # queries and keys of a thumbnail there, where the heads themselves are at hand


class HeadsView(ColouredView):
    """The live view that `heads` returns.

    selection: dict of layer, head, query and key; layer and head are the head that is open.
    order: how the thumbnails are sorted: "layer and head", or by one of the measures.
    scale, threshold: the colours of the open head, as in `HeatmapView`.
    """

    _esm = module(Path(__file__).with_name("heads.js"))
    _css = style("view", "matrix", "heads")

    query_tokens = traitlets.List(traitlets.Unicode()).tag(sync=True)
    key_tokens = traitlets.List(traitlets.Unicode()).tag(sync=True)
    names = traitlets.List(traitlets.Unicode()).tag(sync=True)  # of the layers
    heads = traitlets.List(traitlets.Int()).tag(sync=True)  # how many each layer has
    thumbnails = traitlets.Dict().tag(sync=True)  # of numbers(), all heads below one another
    sampled = traitlets.Int(1).tag(sync=True)  # the thumbnails show one query in so many
    measured = traitlets.Dict().tag(sync=True)  # measure: float32 for all heads in order
    measured_on = traitlets.Int().tag(sync=True)  # queries
    cells = traitlets.Dict().tag(sync=True)  # of numbers(): the open head, or empty: ask for it
    order = traitlets.Unicode("layer and head").tag(sync=True)

    def __init__(
        self,
        seen: object,
        tokens: Sequence[str],
        key_tokens: Sequence[str] | None = None,
        item: int = 0,
        title: str = "",
    ):
        self._layers = check_layers(seen, item)
        self._shape = check_one_size(self._layers)
        queries, keys = check_labels(self._shape, tokens, key_tokens)
        self._same = key_tokens is None and all(layer.is_self for layer in self._layers)
        super().__init__(
            title=title,
            query_tokens=queries,
            key_tokens=keys,
            names=[layer.name for layer in self._layers],
            heads=[layer.heads for layer in self._layers],
        )
        self._look_at_all()
        self._unread = list(self._chunks()) if self.sampled > 1 else []
        if max(self._shape) <= SIDE:
            self.cells = overview(self._layers[0], 0, SIDE)
        self.selection = {"layer": 0, "head": 0}

    @property
    def measures(self) -> dict[str, list[np.ndarray]]:
        """For each measure one array a layer, (head,); see `attnviz.views.measures.measures`."""
        ends = np.cumsum(self.heads)[:-1]
        return {m: np.split(np.frombuffer(v, "<f4"), ends) for m, v in self.measured.items()}

    def figure(self) -> Figure:
        """All heads as thumbnails, in the order of the layers, as a matplotlib figure."""
        return heads_figure(np.split(self._weights(), np.cumsum(self.heads)[:-1]), self.title)

    # --- thumbnails and measures --------------------------------------------------------------

    def _look_at_all(self) -> None:
        """Make the thumbnails and take the measures, from all queries or from a sample."""
        n_queries, n_keys = self._shape
        side = min(THUMBNAIL, isqrt(ALL_THUMBNAILS // sum(self.heads)))
        self._size = min(side, n_queries), min(side, n_keys)
        everything = sum(self.heads) * n_queries * n_keys
        step = 1 if everything <= AT_ONCE else n_queries // self._size[0]
        places = np.arange(step // 2, n_queries, step)
        coarse = max(1, sum(self.heads) * len(places) * n_keys // MEASURED)
        coarse = min(coarse, max(1, len(places) // 32))  # at least 32 queries
        thumbnails, taken = [], []
        for layer in self._layers:
            rows = layer.rows(slice(None), slice(step // 2, None, step))
            small, _ = shrink_rows(rows, places, n_queries, self._size[0])
            thumbnails.append(shrink_columns(small, self._size[1]))
            some = slice(None, None, coarse)
            taken.append(measures(rows[:, some], places[some], self.key_tokens, same=self._same))
        self._roots = np.frombuffer(compress(np.concatenate(thumbnails)), np.uint8).copy()
        self._roots = self._roots.reshape(-1, *self._size)  # (heads of all layers, row, column)
        self.sampled, self.measured_on = step, len(places[::coarse])
        self.measured = {
            name: np.concatenate([t[name] for t in taken]).astype("<f4").tobytes()
            for name in taken[0]
        }
        self._send_thumbnails()

    def _send_thumbnails(self) -> None:
        self.thumbnails = _as_numbers(self._roots)

    def _weights(self) -> np.ndarray:
        return (self._roots / np.float32(255)) ** 2

    def _chunks(self) -> Iterator[tuple[int, int, int]]:
        """Pieces of thumbnails that are worked out in a moment: layer, first row, end."""
        borders = edges(self._shape[0], self._size[0])
        for layer in range(len(self._layers)):
            most = BLOCK // (self.heads[layer] * self._shape[1])
            first = 0
            while first < self._size[0]:
                end = max(
                    first + 1, int(np.searchsorted(borders, borders[first] + most, "right")) - 1
                )
                yield layer, first, end
                first = end

    def _read_chunk(self) -> Answer:
        """Make one more piece of the thumbnails exact; once they all are, send them as a whole."""
        if not self._unread:
            return {"done": True}, []
        n, first, end = self._unread[0]
        layer, borders = self._layers[n], edges(self._shape[0], self._size[0])
        part = np.zeros((layer.heads, end - first, self._size[1]), np.float32)
        for start, rows in layer.blocks(slice(None), borders[first], borders[end]):
            places = np.arange(start, start + rows.shape[1])
            small, at = shrink_rows(rows, places, self._shape[0], self._size[0])
            here = slice(at - first, at - first + small.shape[1])
            part[:, here] = np.maximum(part[:, here], shrink_columns(small, self._size[1]))
        start = sum(self.heads[:n])
        roots = np.frombuffer(compress(part), np.uint8).reshape(part.shape)
        self._roots[start : start + layer.heads, first:end] = roots
        del self._unread[0]  # only now: reading may fail
        if not self._unread:
            self.sampled = 1
            self._send_thumbnails()
        answer = {"done": not self._unread, "left": len(self._unread)}
        return answer | {"start": start, "heads": layer.heads, "first": first, "end": end}, [
            roots.tobytes()
        ]

    # --- what the page asks -------------------------------------------------------------------

    def _sizes(self) -> dict[str, int]:
        layers = getattr(self, "_layers", [])  # none while the traits are made
        sizes = {"query": len(self.query_tokens), "key": len(self.key_tokens)}
        return sizes | ({"layer": len(layers), "head": max(self.heads)} if layers else {})

    @traitlets.validate("selection")
    def _check_selection(self, proposal: traitlets.Bunch) -> dict[str, int | None]:
        selection = check_selection(proposal["value"], self._sizes())
        layer, head = selection["layer"], selection["head"]
        if None not in (layer, head):
            check_head(self._layers[layer], head, "selection['head']")
        return selection

    @traitlets.validate("order")
    def _check_order(self, proposal: traitlets.Bunch) -> str:
        orders = ["layer and head", *self.measured]
        if proposal["value"] not in orders:
            raise ValueError(f"order must be one of {orders}, got {proposal['value']!r}")
        return proposal["value"]

    def _answer(self, question: dict[str, Any]) -> Answer:
        if "refine" in question:
            return self._read_chunk()
        if "open" in question:
            layer, head = question["open"]
            return _as_answer(overview(self._layers[layer], head, SIDE))
        layer, head = question["of"]
        return closer_look(self._layers[layer], head, question)

    def _page_state(self) -> dict[str, Any]:
        while self._unread:
            self._read_chunk()
        rows, columns = (min(n, PAGE_THUMBNAIL) for n in self._size)
        small, _ = shrink_rows(self._roots, np.arange(self._size[0]), self._size[0], rows)
        thumbnails = _as_numbers(shrink_columns(small, columns))
        return {"cells": {}, "thumbnails": thumbnails, "sampled": 1}

    def _page_answers(self) -> Iterator[tuple[dict[str, Any], Answer]]:
        side = min(SIDE, isqrt(PAGE_HEADS // sum(self.heads)))
        for i, layer in enumerate(self._layers):
            for head in range(layer.heads):
                yield (
                    {"open": [i, head]},
                    _as_answer(overview(layer, head, side, exact=max(self._shape) <= 64)),
                )

    def __repr__(self) -> str:
        n = f"{len(self.heads)} layers, {sum(self.heads)} heads"
        return f"HeadsView({n}, {self._shape[0]} queries × {self._shape[1]} keys)"


def _as_numbers(roots: np.ndarray) -> dict[str, Any]:
    """Roots (head, row, column) as they go to the page, all heads below one another."""
    _, rows, columns = roots.shape
    return {"rows": rows, "columns": columns, "exact": False, "values": roots.tobytes()}


def _as_answer(cells: dict[str, Any]) -> Answer:
    return {k: v for k, v in cells.items() if k != "values"}, [cells["values"]]


def heads(
    seen: object,
    tokens: Sequence[str],
    key_tokens: Sequence[str] | None = None,
    *,
    item: int = 0,
    title: str = "",
) -> HeadsView:
    """Draw every head of every layer as a thumbnail; a click opens one beside them.

    seen:       a capture, some of its records, or for each layer an array or tensor (batch, head,
                query, key) or (head, query, key), all of one size.
    tokens:     labels of the queries, and of the keys too when key_tokens is not given.
    key_tokens: labels of the keys, for cross-attention.
    item:       which of the batch.
    title:      a line above the picture.
    A thumbnail shows the largest weight of each patch, so that a single strong link stays visible.
    At most 0.6 MB are sent for all of them and 1 MB for the head that is open; single weights of
    long texts follow when the reader zooms in. Above 67 million weights the thumbnails show a
    sample of the queries first, and all of them once they have been read, piece by piece, while
    the view is in sight.
    Returns the widget; its `selection` follows the clicks, its `measures` say what each head does.
    Raises ValueError or TypeError for what is no attention, layers of different sizes, or labels of
    a wrong number; IndexError for an item that is not in the batch.
    """
    return HeadsView(seen, tokens, key_tokens, item, title)

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
from attnviz.views.heatmap import (
    REACH,
    SIDE,
    ColouredView,
    as_answer,
    closer_look,
    overview,
    sample,
)
from attnviz.views.inputs import check_labels
from attnviz.views.measures import measures
from attnviz.views.no_key import on_average
from attnviz.views.refusing import validate
from attnviz.views.source import Layer, check_head, check_layers, check_one_size, check_place
from attnviz.views.thumbnails import Thumbnails
from attnviz.views.view import Answer, check_selection

MEASURED = 2**23  # weights that the measures are taken from,
FEWEST = 32  # and at least so many queries
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
    order = traitlets.Unicode("layer and head").tag(sync=True, page=True)

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
        self._sinks = any(layer.sinks for layer in self._layers)
        small = max(self._shape) <= SIDE
        super().__init__(
            title=title,
            query_tokens=queries,
            key_tokens=keys,
            names=[layer.name for layer in self._layers],
            heads=[layer.heads for layer in self._layers],
            cells=overview(self._layers[0], 0, SIDE) if small else {},
            selection={"layer": 0, "head": 0},
            **self._look_at_all(keys),
        )

    @property
    def measures(self) -> dict[str, list[np.ndarray]]:
        """For each measure one array a layer, (head,); see `attnviz.views.measures.measures`."""
        ends = np.cumsum(self.heads)[:-1]
        return {m: np.split(np.frombuffer(v, "<f4"), ends) for m, v in self.measured.items()}

    def figure(self) -> Figure:
        """All heads as thumbnails, in the order of the layers, as a matplotlib figure."""
        parts = [self.title] if self.title else []
        if self._sinks:
            parts.append(on_average(np.concatenate(self.measures["to no key"])))
        return heads_figure(self._small.weights, ": ".join(parts))

    # --- thumbnails and measures --------------------------------------------------------------

    def _look_at_all(self, keys: list[str]) -> dict[str, Any]:
        """Make the thumbnails, and take the measures from the rows that are read for them.

        Returns the traits that show both.
        """
        taken, n_heads, on = [], sum(layer.heads for layer in self._layers), 0

        def measure(rows: np.ndarray, places: np.ndarray) -> None:
            nonlocal on
            weights = n_heads * len(places) * self._shape[1]
            step = max(1, min(weights // MEASURED, len(places) // FEWEST))
            some = slice(None, None, step)
            kind = {"same": self._same, "sinks": self._sinks}
            taken.append(measures(rows[:, some], places[some], keys, **kind))
            on = len(places[some])

        self._small = Thumbnails(self._layers, measure)
        measured = {
            name: np.concatenate([t[name] for t in taken]).astype("<f4").tobytes()
            for name in taken[0]
        }
        return {
            "measured": measured,
            "measured_on": on,
            "thumbnails": self._small.numbers(),
            "sampled": self._small.step,
        }

    def _read_more(self) -> Answer:
        """Make one more piece of the thumbnails exact; once they all are, send them as a whole."""
        if not self._small.left:
            return {"done": True}, []
        place, data = self._small.read_piece()
        if not self._small.left:
            self.thumbnails, self.sampled = self._small.numbers(), self._small.step
        return {"done": not self._small.left, "left": self._small.left} | place, [data]

    # --- what the page asks -------------------------------------------------------------------

    def _sizes(self) -> dict[str, int]:
        queries, keys = self._shape
        heads = max(layer.heads for layer in self._layers)
        return {"layer": len(self._layers), "head": heads, "query": queries, "key": keys}

    @validate("selection")
    def _check_selection(self, proposal: traitlets.Bunch) -> dict[str, int | None]:
        selection = check_selection(proposal["value"], self._sizes())
        layer, head = selection["layer"], selection["head"]
        if None not in (layer, head):
            check_head(self._layers[layer], head, "selection['head']")
        return selection

    @validate("order")
    def _check_order(self, proposal: traitlets.Bunch) -> str:
        orders = ["layer and head", *self.measured]
        if proposal["value"] not in orders:
            raise ValueError(f"order must be one of {orders}, got {proposal['value']!r}")
        return proposal["value"]

    def _answer(self, question: dict[str, Any]) -> Answer:
        match question:
            case {"refine": True, **more} if not more:
                return self._read_more()
            case {"open": place, **how} if how in ({}, {"whole": True}):
                layer, head = check_place(self._layers, place)
                return self._open(self._layers[layer], head, whole=bool(how))
            case {"of": place, **closer}:
                layer, head = check_place(self._layers, place)
                return closer_look(self._layers[layer], head, closer)
        return super()._answer(question)

    def _open(self, layer: Layer, head: int, *, whole: bool) -> Answer:
        """One head; where that would take long, of a sample of its queries unless asked for all."""
        if whole or layer.n_queries * layer.n_keys <= REACH:
            return as_answer(overview(layer, head, SIDE))
        step = max(1, layer.n_queries // SIDE)
        answer, values = as_answer(sample(layer, head, SIDE // 2, step))
        return answer | {"sampled": step}, values

    def _page_state(self) -> dict[str, Any]:
        while self._small.left:
            self._read_more()
        return {"cells": {}, "thumbnails": self._small.numbers(PAGE_THUMBNAIL), "sampled": 1}

    def _page_answers(self) -> Iterator[tuple[dict[str, Any], Answer]]:
        side = min(SIDE, isqrt(PAGE_HEADS // sum(self.heads)))
        for i, layer in enumerate(self._layers):
            for head in range(layer.heads):
                yield (
                    {"open": [i, head]},
                    as_answer(overview(layer, head, side, exact=max(self._shape) <= 64)),
                )

    def __repr__(self) -> str:
        n = f"{len(self.heads)} layers, {sum(self.heads)} heads"
        return f"HeadsView({n}, {self._shape[0]} queries × {self._shape[1]} keys)"


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
    Where a share goes to no key (sinks), it is a measure of the heads, and said for each query.
    A thumbnail shows the largest weight of each patch, so that a single strong link stays visible.
    At most 0.34 MB are sent for all of them and 1 MB for the head that is open; single weights of
    long texts follow when the reader zooms in. Above 67 million weights the thumbnails show a
    sample of the queries first, and all of them once they have been read, piece by piece, while
    the view is in sight; so does an open head above 17 million weights of its own.
    Returns the widget; its `selection` follows the clicks, its `measures` say what each head does.
    Raises ValueError or TypeError for what is no attention, layers of different sizes or of several
    forward passes, or labels of a wrong number; IndexError for an item that is not in the batch.
    """
    return HeadsView(seen, tokens, key_tokens, item, title)

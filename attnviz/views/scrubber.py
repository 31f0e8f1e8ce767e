"""A head while a model trains: a slider over saved steps, under the curve of the loss."""

from collections.abc import Iterator, Mapping, Sequence
from math import isqrt
from pathlib import Path
from typing import Any

import numpy as np
import traitlets
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

from attnviz.checks import check_whole
from attnviz.views.bundle import module, style
from attnviz.views.heatmap import ColouredView, as_answer, closer_look, numbers
from attnviz.views.inputs import check_index, check_labels
from attnviz.views.refusing import validate
from attnviz.views.scrubber_figure import scrubber_figure
from attnviz.views.snapshots import A_STEP, check_losses, check_snapshots
from attnviz.views.source import check_head, check_place
from attnviz.views.view import Answer, check_selection

AT_ONCE = 2**20  # bytes of one head at all steps
PAGE = 20_000_000  # bytes of all heads at all steps in a saved page, before compression
POINTS = 1024  # of the curve that is sent


class ScrubberView(ColouredView):
    """The live view that `scrubber` returns.

    step: the number of steps done that is shown, one of the snapshots'; assign to it to move there.
    selection: dict of layer, head, query and key; layer and head are the head that is open.
    scale, threshold: the colours, as in `HeatmapView`; their range is the same at all steps.
    """

    _esm = module(Path(__file__).with_name("scrubber.js"))
    _css = style("view", "matrix", "scrubber")

    query_tokens = traitlets.List(traitlets.Unicode()).tag(sync=True)
    key_tokens = traitlets.List(traitlets.Unicode()).tag(sync=True)
    layers = traitlets.List().tag(sync=True)  # the name and the heads of each
    steps = traitlets.List(traitlets.Int()).tag(sync=True)  # of the snapshots, rising
    step = traitlets.TraitType(0).tag(sync=True, page=True)  # checked below
    losses = traitlets.List().tag(sync=True)  # the loss at each snapshot, or None
    curve = traitlets.Dict().tag(sync=True)  # points: float32 (step, loss); end: the last step
    cells = traitlets.Dict().tag(sync=True)  # the first head at all steps, one below the other
    live = traitlets.Bool(True).tag(sync=True)  # there is Python to be asked for more detail

    def __init__(
        self,
        snapshots: Mapping[int, object],
        tokens: Sequence[str],
        key_tokens: Sequence[str] | None = None,
        losses: ArrayLike = (),
        item: int = 0,
        title: str = "",
    ):
        checked = check_snapshots(snapshots, item)
        self._snapshots = list(checked.values())
        self._shape = self._snapshots[0][0].n_queries, self._snapshots[0][0].n_keys
        queries, keys = check_labels(self._shape, tokens, key_tokens)
        self._losses = check_losses(losses)
        self._side = max(1, min(max(self._shape), isqrt(AT_ONCE // (4 * len(checked)))))
        self._open, self._known = (0, 0), None
        at_steps = [self._losses[s - 1] if 0 < s <= len(self._losses) else None for s in checked]
        super().__init__(
            title=title,
            query_tokens=queries,
            key_tokens=keys,
            layers=[{"name": one.name, "heads": one.heads} for one in self._snapshots[0]],
            steps=list(checked),
            step=next(iter(checked)),
            losses=[None if loss is None else float(loss) for loss in at_steps],
            curve=as_curve(self._losses),
            selection={"layer": 0, "head": 0},
            cells=_numbers(*self._opened()),
        )

    def figure(self) -> Figure:
        """The open head at up to six of the steps, in the same colours, above the loss."""
        name = "layer {}, head {}".format(*self._open)
        return scrubber_figure(
            self._opened()[0],
            self.steps,
            (self.query_tokens, self.key_tokens),
            self._losses,
            f"{self.title}\n{name}" if self.title else name,
        )

    def _read(self, layer: int, head: int, side: int) -> tuple[NDArray, NDArray]:
        """One head at all steps: the largest weight of each patch, (step, row, column), and what of
        each query goes to no key, (step, query), without any query where there are no sinks."""
        whole = (0, self._shape[0]), (0, self._shape[1])
        seen = [layers[layer] for layers in self._snapshots]
        rests = [one.rest(head) if any(s.sinks for s in seen) else [] for one in seen]
        return np.stack([one.window(head, *whole, side)[0] for one in seen]), np.stack(rests)

    def _opened(self) -> tuple[NDArray, NDArray]:
        """The head that is open, kept so that it outlives a capture that is freed."""
        if self._known is None or self._known[0] != self._open:
            self._known = self._open, self._read(*self._open, self._side)
        return self._known[1]

    # --- what the page asks -------------------------------------------------------------------

    def _sizes(self) -> dict[str, int]:
        (queries, keys), layers = self._shape, self._snapshots[0]
        heads = max(layer.heads for layer in layers)
        return {"layer": len(layers), "head": heads, "query": queries, "key": keys}

    @validate("selection")
    def _check_selection(self, proposal: traitlets.Bunch) -> dict[str, int | None]:
        selection = check_selection(proposal["value"], self._sizes())
        layer, head = selection["layer"], selection["head"]
        if None not in (layer, head):
            check_head(self._snapshots[0][layer], head, "selection['head']")
        return selection

    @traitlets.observe("selection")
    def _follow(self, change: traitlets.Bunch) -> None:
        """Keep the head that is open: it stays when a selection names none."""
        layer, head = change["new"]["layer"], change["new"]["head"]
        if None not in (layer, head):
            self._open = layer, head

    @validate("step")
    def _check_step(self, proposal: traitlets.Bunch) -> int:
        step = check_whole("step", proposal["value"], wanted=A_STEP)
        if step not in self.steps:
            raise ValueError(
                f"step must be one of the snapshots, {_listed(self.steps)}, got {step}"
            )
        return step

    def _answer(self, question: dict[str, Any]) -> Answer:
        match question:
            case {"open": place, **more} if not more:
                layer, head = check_place(self._snapshots[0], place)
                if self._open == (layer, head):
                    return as_answer(_numbers(*self._opened()))
                return as_answer(_numbers(*self._read(layer, head, self._side)))
            case {"of": place, "at": number, **closer}:
                layers = self._snapshots[check_index("at", number, len(self._snapshots))]
                layer, head = check_place(layers, place)
                return closer_look(layers[layer], head, closer)
        return super()._answer(question)

    def _page_state(self) -> dict[str, Any]:
        layer, head = self._open
        return {
            "cells": {},
            "live": False,
            "selection": {**self.selection, "layer": layer, "head": head},
        }

    def _page_answers(self) -> Iterator[tuple[dict[str, Any], Answer]]:
        heads = sum(layer["heads"] for layer in self.layers) * len(self.steps)
        exact = 4 * heads * self._side**2 <= PAGE
        side = self._side if exact else max(1, min(self._side, isqrt(PAGE // heads)))
        for i, layer in enumerate(self.layers):
            for head in range(layer["heads"]):
                sent = _numbers(*self._read(i, head, side), exact=exact)
                yield {"open": [i, head]}, as_answer(sent)

    def __repr__(self) -> str:
        n = f"{len(self.steps)} snapshots, {len(self.layers)} layers"
        return f"ScrubberView({n}, {self._shape[0]} queries × {self._shape[1]} keys)"


def as_curve(losses: NDArray[np.float64]) -> dict[str, Any]:
    """The curve as it goes to the page; of many losses the lowest and highest of each part."""
    if not len(losses):
        return {}
    places = range(len(losses))
    if len(losses) > POINTS:
        parts = np.array_split(losses, POINTS // 2)
        starts = np.cumsum([0, *map(len, parts)])
        some = [
            (a + part.argmin(), a + part.argmax()) for a, part in zip(starts, parts, strict=False)
        ]
        places = sorted({0, *np.ravel(some).tolist(), len(losses) - 1})
    points = np.array([(i + 1, losses[i]) for i in places], "<f4")
    return {"points": points.tobytes(), "end": len(losses)}


def _listed(steps: Sequence[int]) -> str:
    some = list(map(str, steps))
    return ", ".join(some if len(some) <= 8 else [*some[:6], "…", some[-1]])


def _numbers(cells: NDArray, rests: NDArray, *, exact: bool = True) -> dict[str, Any]:
    """A head at all steps as it goes to the page: each step's cells, and behind them its rest."""
    steps = np.concatenate([cells.reshape(len(cells), -1), rests], 1, dtype=np.float32)
    return numbers(steps, exact=exact) | {"rows": cells.shape[1], "columns": cells.shape[2]}


def scrubber(
    snapshots: Mapping[int, object],
    tokens: Sequence[str],
    key_tokens: Sequence[str] | None = None,
    *,
    losses: ArrayLike = (),
    item: int = 0,
    title: str = "",
) -> ScrubberView:
    """Show how the attention of a head grows while a model trains: a slider over saved steps.

    snapshots:  a dict from the number of steps done to what `heads` takes, such as a capture:
                {0: seen_before, 100: seen_then, 200: seen_later}, all of the same layers, heads
                and tokens.
    tokens:     labels of the queries, and of the keys too when key_tokens is not given.
    key_tokens: labels of the keys, for cross-attention.
    losses:     the loss of each step, the first of step 1; drawn above the slider when given.
    item:       which of the batch.
    title:      a line above the picture.
    The open head is sent at all steps at once, at most 1 MB: the largest weight of each patch where
    there are more. The colours of a head mean the same weights at all steps.
    Returns the widget; its `step` and `selection` follow the reader, and can be set.
    Raises TypeError or ValueError for what is no attention, snapshots that differ, losses that are
    no finite numbers, or labels of a wrong number; IndexError for an item that is not in the batch.
    """
    return ScrubberView(snapshots, tokens, key_tokens, losses, item, title)

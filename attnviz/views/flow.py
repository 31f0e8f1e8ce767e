"""Attention as lines between two columns of tokens, in one colour for each head."""

from collections.abc import Sequence
from pathlib import Path as File
from typing import Any

import numpy as np
import traitlets
from matplotlib.collections import LineCollection, PathCollection
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.path import Path
from numpy.typing import ArrayLike, NDArray

from attnviz.checks import check_share, check_whole
from attnviz.views.bundle import module, style
from attnviz.views.inputs import check_index, check_labels, to_array
from attnviz.views.no_key import on_average
from attnviz.views.refusing import validate
from attnviz.views.source import Layer, check_head, check_layers, check_one_size
from attnviz.views.view import Answer, View, check_selection
from attnviz.views.writing import dress, label, letters, plain

WINDOW = 64  # queries and keys that are shown at once; flow.js counts on it
AT_FIRST = 1_200_000  # bytes of weights, up to which all layers are sent at once
IN_PAGE = 8_000_000  # and up to which a saved page holds them all
STEPS = 65535  # weights travel in two bytes: wrong by less than 1e-5
COLORS = (  # each at least 3 : 1 on white and on JupyterLab's dark; the first four: Okabe and Ito's
    *("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#9060fc", "#b41878", "#905418", "#249ce4"),
    *("#fc486c", "#6048e4", "#d80c3c", "#3c6c48", "#785490", "#9c6c90", "#c03cc0", "#e460d8"),
)
FADE, FADE_ALONE = 1, 0.5  # opacity is weight to this power: among all lines, or of one token
FAINT = 0.005  # less than this outside the window is not drawn
AXES = ("query", "key")
LABEL = 20  # characters of a token in a figure


class FlowView(View):
    """The live view that `flow` returns.

    selection: dict of layer, head, query and key. The layer is the one that is shown, and stays
    when another selection names none; a head is shown alone; the links of a query or key, too.
    heads: the numbers of the heads that are shown while selection has no head.
    start: dict of query and key, the first of the at most 64 that each column shows.
    threshold: weights below it are not drawn.
    links: "all", or "AA", "AB", "BA", "BB": from a sentence's queries to a sentence's keys.
    """

    _esm = module(File(__file__).with_name("flow.js"))
    _css = style("view", "flow")

    query_tokens = traitlets.List(traitlets.Unicode()).tag(sync=True)
    key_tokens = traitlets.List(traitlets.Unicode()).tag(sync=True)
    layers = traitlets.List(traitlets.Dict()).tag(sync=True)  # of each its name and its heads
    parts = traitlets.List(traitlets.Dict()).tag(sync=True)  # weights, as read_part returns them
    colors = traitlets.List(traitlets.Unicode()).tag(sync=True)  # of the heads, again and again
    sentences = traitlets.List(traitlets.Int()).tag(sync=True)  # 0 or 1 a token; [] for one alone
    heads = traitlets.List().tag(sync=True, page=True)  # whole numbers, checked below
    start = traitlets.Dict(default_value={"query": 0, "key": 0}).tag(sync=True, page=True)
    threshold = traitlets.TraitType(0.05).tag(sync=True, page=True)  # checked below
    links = traitlets.Enum(["all", "AA", "AB", "BA", "BB"], "all").tag(sync=True, page=True)

    def __init__(
        self,
        seen: object,
        tokens: Sequence[str],
        key_tokens: Sequence[str] | None = None,
        item: int = 0,
        sentences: ArrayLike | None = None,
        title: str = "",
    ):
        self._layers = check_layers(seen, item)
        self._shape = check_one_size(self._layers)
        queries, keys = check_labels(self._shape, tokens, key_tokens)
        sides = check_sentences(sentences, queries, keys)
        self._answered: list[dict[str, Any]] = []  # the last part that the page asked for
        self._last = {"layer": 0, "query": 0, "key": 0}  # what is shown, where nothing else is said
        super().__init__(
            title=title,
            query_tokens=queries,
            key_tokens=keys,
            sentences=sides,
            layers=[
                {"name": layer.name, "heads": layer.heads, "sinks": layer.sinks}
                for layer in self._layers
            ],
            parts=self._whole() if self._all_bytes() <= AT_FIRST else [self._window(0, 0, 0)],
            colors=list(COLORS),
            heads=list(range(max(layer.heads for layer in self._layers))),
            selection={"layer": 0},
        )

    def figure(self) -> Figure:
        """The lines of the layer, the heads and the tokens that are shown, as vectors."""
        layer, query, key = self._at_hand()
        weights, outside, rest = self._cut(layer, query, key)
        heads, drawn = self._shown_heads(len(weights)), self._drawn(weights.shape[1:])
        pinned = [axis for axis in AXES if self.selection[axis] is not None]
        stubs = drawn.any(1) & ("key" not in pinned)
        return flow_figure(
            (weights * drawn)[heads],
            (outside * stubs)[heads],
            self.query_tokens[query : query + WINDOW],
            self.key_tokens[key : key + WINDOW],
            heads=heads,
            threshold=self.threshold,
            fade=FADE_ALONE if pinned else FADE,
            title=(f"{self.title}, layer {layer}" if self.title else f"Layer {layer}")
            + (f": {on_average(rest[heads])}" if self._layers[layer].sinks and heads else ""),
        )

    # --- what is shown ------------------------------------------------------------------------

    def _at_hand(self) -> tuple[int, int, int]:
        """The layer that is shown, and the first query and key."""
        return self.selection["layer"], self.start["query"], self.start["key"]

    def _shown_heads(self, n: int) -> list[int]:
        """The numbers of the heads that are shown, of a layer with n heads."""
        head = self.selection["head"]
        return [h for h in (self.heads if head is None else [head]) if h < n]

    def _drawn(self, shape: tuple[int, int]) -> NDArray[np.bool_]:
        """Which links between the tokens in sight are to be drawn, (query, key)."""
        drawn = np.ones(shape, bool)
        query, key = (self.start[a] + np.arange(n) for a, n in zip(AXES, shape, strict=True))
        if self.sentences and self.links != "all":
            sides, (of, to) = np.array(self.sentences), map("AB".index, self.links)
            drawn &= np.logical_and.outer(sides[query] == of, sides[key] == to)
        if self.selection["query"] in query:  # pinned: its links stand alone
            drawn &= (query == self.selection["query"])[:, None]
        if self.selection["key"] in key:
            drawn &= key == self.selection["key"]
        return drawn

    def _cut(self, layer: int, query: int, key: int) -> tuple[NDArray, NDArray, NDArray]:
        """The weights in a window (head, query, key), what is outside, and what goes to no key,
        both (head, query)."""
        rows, columns = (min(WINDOW, n) for n in self._shape)

        def covers(part: dict[str, Any]) -> bool:
            down, right = query - part["query"], key - part["key"]
            fits = 0 <= down <= part["rows"] - rows and 0 <= right <= part["columns"] - columns
            return part["layer"] == layer and fits

        held = (part for part in (*self.parts, *self._answered) if covers(part))
        part = next(held, None) or self._window(layer, query, key)
        down, right = query - part["query"], key - part["key"]
        values = np.frombuffer(part["values"], "<u2").reshape(-1, part["rows"], part["columns"])
        totals = np.frombuffer(part["totals"], "<u2").reshape(-1, part["rows"])
        weights = values[:, down : down + rows, right : right + columns] / np.float32(STEPS)
        totals = totals[:, down : down + rows] / np.float32(STEPS)
        return weights, np.maximum(0, totals - weights.sum(2)), 1 - totals

    def _sizes(self) -> dict[str, int]:
        heads = max(layer.heads for layer in self._layers)
        queries, keys = self._shape
        return {"layer": len(self._layers), "head": heads, "query": queries, "key": keys}

    @validate("selection")
    def _check_selection(self, proposal: traitlets.Bunch) -> dict[str, int | None]:
        selection = check_selection(proposal["value"], self._sizes())
        if selection["layer"] is None:  # there is always one to be seen
            selection["layer"] = self._last["layer"]
        if selection["head"] is not None:
            check_head(self._layers[selection["layer"]], selection["head"], "selection['head']")
        return selection

    @validate("heads")
    def _check_heads(self, proposal: traitlets.Bunch) -> list[int]:
        last = self._sizes()["head"] - 1
        heads = {check_whole("heads", head, wanted="whole numbers") for head in proposal["value"]}
        if any(not 0 <= head <= last for head in heads):
            raise ValueError(f"heads must be between 0 and {last}, got {proposal['value']}")
        return sorted(heads)

    @validate("threshold")
    def _check_threshold(self, proposal: traitlets.Bunch) -> float:
        return check_share("threshold", proposal["value"])

    @validate("start")
    def _check_start(self, proposal: traitlets.Bunch) -> dict[str, int]:
        start, sizes = proposal["value"], self._sizes()
        if unknown := start.keys() - set(AXES):
            raise ValueError(f"start has {sorted(unknown, key=str)}, expected query and key")
        start = {axis: start.get(axis, self._last[axis]) for axis in AXES}
        for axis, first in start.items():
            first = check_index(f"start[{axis!r}]", first, sizes[axis])
            start[axis] = min(first, max(0, sizes[axis] - WINDOW))  # a full column, always
        return start

    @traitlets.observe("selection", "start")
    def _follow(self, _: traitlets.Bunch) -> None:
        """Keep what is shown: it stays where another selection or start leaves it open."""
        self._last = dict(zip(self._last, self._at_hand(), strict=True))

    # --- what is sent -------------------------------------------------------------------------

    def _all_bytes(self) -> int:
        n_queries, n_keys = self._shape
        return sum(layer.heads for layer in self._layers) * n_queries * n_keys * 2

    def _whole(self) -> list[dict[str, Any]]:
        queries, keys = map(range, self._shape)
        return [read_part(layer, i, queries, keys) for i, layer in enumerate(self._layers)]

    def _window(self, layer: int, query: int, key: int) -> dict[str, Any]:
        n_queries, n_keys = self._shape
        queries = range(query, min(query + WINDOW, n_queries))
        keys = range(key, min(key + WINDOW, n_keys))
        return read_part(self._layers[layer], layer, queries, keys)

    def _answer(self, question: dict[str, Any]) -> Answer:
        if not isinstance(question, dict) or question.keys() != {"layer", *AXES}:
            return super()._answer(question)
        sizes = self._sizes()
        part = self._window(
            **{axis: check_index(axis, i, sizes[axis]) for axis, i in question.items()}
        )
        self._answered = [part]
        place = {name: value for name, value in part.items() if isinstance(value, int)}
        return place, [part["values"], part["totals"]]

    def _page_state(self) -> dict[str, Any]:
        if self._all_bytes() <= AT_FIRST:
            return {}  # all of it is there already
        if self._all_bytes() <= IN_PAGE:
            return {"parts": self._whole()}
        layer, *corner = self._at_hand()
        heads = sum(one.heads for one in self._layers)
        every = range(len(self._layers)) if heads * WINDOW * WINDOW * 2 <= IN_PAGE else [layer]
        return {"parts": [self._window(i, *corner) for i in every]}

    def __repr__(self) -> str:
        layers, heads, queries, keys = self._sizes().values()
        return f"FlowView({layers} layers, {heads} heads, {queries} queries × {keys} keys)"


def read_part(layer: Layer, number: int, queries: range, keys: range) -> dict[str, Any]:
    """Some queries' weights for some keys, as they go to the page.

    number: the layer's place among all.
    Returns layer, query, key, rows and columns: where the part is and how large; values: weights in
    steps of 1/65535, (head, query, key), uint16; totals: each query's sum over all keys of the
    layer, shown or not, (head, query), uint16.
    """
    values = np.empty((layer.heads, len(queries), len(keys)), "<u2")
    totals = np.empty((layer.heads, len(queries)), "<u2")
    for start, rows in layer.blocks(slice(None), queries.start, queries.stop):
        here = slice(start - queries.start, start - queries.start + rows.shape[1])
        values[:, here] = _steps(rows[:, :, keys.start : keys.stop])
        totals[:, here] = _steps(rows.sum(2))
    return {
        "layer": number,
        "query": queries.start,
        "key": keys.start,
        "rows": len(queries),
        "columns": len(keys),
        "values": values.tobytes(),
        "totals": totals.tobytes(),
    }


def _steps(weights: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.round(np.minimum(weights, 1) * STEPS)


def check_sentences(
    sentences: ArrayLike | None, queries: Sequence[str], keys: Sequence[str]
) -> list[int]:
    """Return for each token 0 or 1, its sentence; nothing when there is only one.

    sentences: what the reader says; when None, what follows the first of several "[SEP]" is 1.
    Raises ValueError for other numbers, another length, or queries and keys that differ.
    """
    if sentences is None:
        ends = np.array([token == "[SEP]" for token in queries])
        sides = np.minimum(1, np.cumsum(ends) - ends) if list(queries) == list(keys) else ends * 0
        return sides.tolist() if ends.sum() > 1 and sides.any() else []
    wanted = f"sentences must be a list of 0 and 1, one for each of the {len(queries)} tokens"
    if list(queries) != list(keys):
        raise ValueError(f"{wanted}, but key_tokens are other tokens: leave sentences out")
    sides = to_array(sentences)
    if sides.shape != (len(queries),):
        raise ValueError(f"{wanted}, got shape {sides.shape}")
    if others := [side for side in sides.tolist() if side not in (0, 1)]:
        raise ValueError(f"{wanted}, got {others[0]!r}")
    return [int(side) for side in sides] if 0 < sides.sum() < len(sides) else []


def flow_figure(
    weights: NDArray[np.float32],
    outside: NDArray[np.float32],
    queries: Sequence[str],
    keys: Sequence[str],
    *,
    heads: Sequence[int],
    threshold: float,
    fade: float,
    title: str,
) -> Figure:
    """Two columns of tokens and the lines between them.

    weights: (head, query, key); what is below the threshold is left out.
    outside: (head, query), what goes to keys that are not among these: a dotted stub.
    heads: the number of each head, for its colour and its name.
    fade: the opacity of a line is its weight to this power.
    """
    rows = max(len(queries), len(keys))
    figure = Figure(figsize=(6.5, 0.2 * rows + 1.2), layout="constrained")
    ax = figure.add_subplot()
    ax.set(xlim=(0, 1), ylim=(rows - 0.5, -0.5), xticks=[], yticks=[])
    ax.set_axis_off()
    figure.suptitle(plain(title), fontsize=11, wrap=True)
    for x, side, tokens, name in [
        (-0.02, "right", queries, "query (attends)"),
        (1.02, "left", keys, "key (is attended to)"),
    ]:
        ax.text(x, -1.2, name, ha=side, va="center", fontsize=9, color="0.4")
        labels = [label(token, LABEL) for token in tokens]
        most = max(map(letters, labels))
        for y, short in enumerate(labels):
            text = ax.text(x, y, short, ha=side, va="center", fontsize=9)
            text.set_in_layout(letters(short) > most / 2)  # measuring all of them takes its time
    colors = np.array([to_rgb(COLORS[head % len(COLORS)]) for head in heads]).reshape(-1, 3)
    for lines in (_curves(weights, colors, threshold, fade), _stubs(outside)):
        lines.set_in_layout(False)
        ax.add_collection(lines, autolim=False)
    figure.legend(
        handles=[Line2D([], [], color=colors[i], lw=3, label=h) for i, h in enumerate(heads)],
        title="head" if heads else "no head is shown",
        loc="outside lower center",
        ncols=min(16, max(1, len(heads))),
        fontsize=9,
        title_fontsize=9,
        handlelength=0.8,
        columnspacing=1,
        frameon=False,
    )
    dress(figure)
    return figure


def _curves(
    weights: NDArray[np.float32], colors: NDArray[np.float64], threshold: float, fade: float
) -> PathCollection:
    """A curve for each weight from the threshold on, the heads of one pair side by side."""
    n = max(1, len(weights))
    head, query, key = np.nonzero((weights >= threshold) & (weights > 0))
    strength = weights[head, query, key]
    order = np.argsort(strength, kind="stable")  # strong lines lie on top
    head, query, key, strength = (a[order] for a in (head, query, key, strength))
    shift = ((head + 0.5) / n - 0.5) * 0.8
    ends = np.stack([query + shift, query + shift, key + shift, key + shift], 1)
    points = np.stack([np.broadcast_to([0, 0.4, 0.6, 1], ends.shape), ends], 2)
    codes = [Path.MOVETO, Path.CURVE4, Path.CURVE4, Path.CURVE4]
    return PathCollection(
        [Path(p, codes) for p in points],
        facecolors="none",
        edgecolors=np.column_stack([colors[head], strength**fade]),
        linewidths=0.5 + 2 * strength,
    )


def _stubs(outside: NDArray[np.float32]) -> LineCollection:
    """A short dotted line at each query whose attention leaves the window, on average."""
    mean = outside.mean(0) if len(outside) else np.zeros(0)
    rows = np.flatnonzero(mean > FAINT)
    return LineCollection(
        [[(0, row), (0.06, row)] for row in rows],
        colors=[(0.4, 0.4, 0.4, 0.2 + 0.8 * mean[row]) for row in rows],
        linestyles=":",
        linewidths=2,
    )


def flow(
    seen: object,
    tokens: Sequence[str],
    key_tokens: Sequence[str] | None = None,
    *,
    item: int = 0,
    sentences: ArrayLike | None = None,
    title: str = "",
) -> FlowView:
    """Draw attention as lines from queries to keys, the stronger the thicker, in colours of heads.

    seen:       a capture, some of its records, or for each layer an array or tensor (batch, head,
                query, key) or (head, query, key); all with the same queries and keys.
    tokens:     labels of the queries, and of the keys too when key_tokens is not given.
    key_tokens: labels of the keys, for cross-attention.
    item:       which of the batch.
    sentences:  0 or 1 for each token, such as BERT's token_type_ids, to show only the links inside
                or between two sentences; found from "[SEP]" where tokens hold it more than once.
    title:      a line above the picture.
    Weights are sent in two bytes each, wrong by less than 1e-5: all layers when that takes at most
    1.2 MB; else the 64 queries × 64 keys that are in sight of one layer (8 KB a head), and others
    when the reader asks for them, so that 8,192 tokens open as fast as 64. A saved page holds all
    layers when that takes at most 8 MB, else the tokens in sight of every layer.
    Returns the widget; its `selection` follows the clicks, its `save` writes a page or a figure.
    Where a share goes to no key (sinks), it is said for each query.
    Raises ValueError or TypeError for what is no attention, layers of different sizes or of several
    forward passes, labels or sentences of a wrong number; IndexError for an item that is not in the
    batch.
    """
    return FlowView(seen, tokens, key_tokens, item, sentences, title)

"""One attention weight, taken apart: query and key, their product, the score, the softmax."""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import traitlets
from matplotlib.figure import Figure

from attnviz.views.bundle import module, style
from attnviz.views.inputs import check_labels
from attnviz.views.no_key import to_no_key
from attnviz.views.scores_figure import scores_figure
from attnviz.views.scores_row import ScoreRow, read_rows
from attnviz.views.source import Layer, check_head, check_layers
from attnviz.views.view import Answer, View, check_selection

PAGE_QUERIES = 256  # whose answers are in a saved page
DRAWN = 12  # keys in a figure


class ScoresView(View):
    """The live view that `scores` returns.

    selection: dict of layer, head, query and key; query is the one whose row is shown (the last
    one chosen while it is None), key the one whose arithmetic is written out. Layer and head are
    the caller's to use: the view stays with the head that it was made for.
    """

    _esm = module(Path(__file__).with_name("scores.js"))
    _css = style("view", "scores")

    query_tokens = traitlets.List(traitlets.Unicode()).tag(sync=True)
    key_tokens = traitlets.List(traitlets.Unicode()).tag(sync=True)
    place = traitlets.Unicode().tag(sync=True)  # which head of which layer
    scale = traitlets.Float().tag(sync=True)
    is_causal = traitlets.Bool().tag(sync=True)
    row = traitlets.Dict().tag(sync=True)  # of the query that is shown: see ScoreRow.packed
    held = traitlets.List(traitlets.Int()).tag(sync=True)  # first and last query in a saved page

    def __init__(
        self,
        record: Any,
        tokens: Sequence[str],
        head: int,
        key_tokens: Sequence[str] | None = None,
        item: int = 0,
        title: str = "",
    ):
        layer = _check_record(record, item)
        self._record, self._item, self._head = record, item, check_head(layer, head)
        queries, keys = check_labels((layer.n_queries, layer.n_keys), tokens, key_tokens)
        self._shown = self._read(0, None)
        super().__init__(
            title=title,
            query_tokens=queries,
            key_tokens=keys,
            place=f"head {head}" + (f" of {layer.name}" if layer.name else ""),
            scale=record.scale,
            is_causal=record.is_causal,
            row=_as_trait(self._shown),
        )

    def figure(self) -> Figure:
        """The row shown now, its 12 strongest keys and a selected one, as a matplotlib figure."""
        row = self._shown.strongest(DRAWN, self.selection["key"])
        keys = [self.key_tokens[key] for key in row.keys]
        title = self.title or self.place
        if len(keys) < len(self.key_tokens):
            share = f"{row.weights.sum():.2f} of the weight"
            title += f" ({len(keys)} of {len(self.key_tokens)} keys, {share})"
        title += f", {to_no_key(row.rest)}" if row.rest is not None else ""
        return scores_figure(row, self.query_tokens[row.query], keys, self.scale, title)

    def _sizes(self) -> dict[str, int]:
        return {"query": len(self.query_tokens), "key": len(self.key_tokens)}

    def _read(self, query: int, key: int | None) -> ScoreRow:
        (row,) = self._read_all(range(query, query + 1), key)
        return row

    def _read_all(self, queries: range, key: int | None = None) -> Iterator[ScoreRow]:
        return read_rows(self._record, self._item, self._head, queries, key)

    def _answer(self, question: dict[str, Any]) -> Answer:
        match question:
            case {"query": query, **more} if query is not None and more.keys() <= {"key"}:
                wanted = check_selection(question, self._sizes())
                return self._read(wanted["query"], wanted["key"]).packed()
        return super()._answer(question)

    @traitlets.observe("selection")
    def _follow(self, change: traitlets.Bunch) -> None:
        """Keep the row that a restored notebook, a saved page or a figure starts with."""
        query, key = change["new"]["query"], change["new"]["key"]
        query = self._shown.query if query is None else query
        if query == self._shown.query and (key is None or key in self._shown.keys):
            return
        with suppress(RuntimeError, ValueError):  # the page asks too, and shows the reason
            self._shown = self._read(query, key)
            self.row = _as_trait(self._shown)

    def _page_queries(self) -> range:
        """The queries whose answers are in a saved page: as many as fit around the one shown."""
        n = len(self.query_tokens)
        first = min(max(0, self._shown.query - PAGE_QUERIES // 2), max(0, n - PAGE_QUERIES))
        return range(first, min(n, first + PAGE_QUERIES))

    def _page_state(self) -> dict[str, Any]:
        held = self._page_queries()
        return {"held": [held[0], held[-1]] if len(held) < len(self.query_tokens) else []}

    def _page_answers(self) -> Iterator[tuple[dict[str, Any], Answer]]:
        for row in self._read_all(self._page_queries()):
            yield {"query": row.query}, row.packed()

    def __repr__(self) -> str:
        queries, keys = self._sizes().values()
        return f"ScoresView({self.place}, {queries} queries × {keys} keys)"


def _as_trait(row: ScoreRow) -> dict[str, Any]:
    said, buffers = row.packed()
    return {**said, "buffers": buffers}


def _check_record(record: Any, item: int) -> Layer:
    """Return the layer of a record with scores to take apart, or raise TypeError or ValueError."""
    if not hasattr(record, "part"):
        raise TypeError(
            f"record must be one captured record, such as seen[0], got {type(record).__name__}"
        )
    (layer,) = check_layers(record, item)  # a freed record says so here
    if record.query is None or record.key is None:
        raise ValueError(
            "record must have queries and keys, but this model writes its attention out in a way "
            "in which they were not found: load a transformers model with "
            'attn_implementation="sdpa", or look at the weights alone with heatmap or heads'
        )
    return layer


def scores(
    record: Any,
    tokens: Sequence[str],
    head: int,
    *,
    key_tokens: Sequence[str] | None = None,
    item: int = 0,
    title: str = "",
) -> ScoresView:
    """Take attention weights apart: where does the weight of a query and a key come from?

    For a query that the reader chooses, each key with its vector, the product of query and key in
    each dimension, their sum q·k, the scaled score, what a mask or a bias adds, and the weight; and
    what goes to no key, where there are sinks.

    record:     one captured record that has queries and keys.
    tokens:     labels of the queries, and of the keys too when key_tokens is not given.
    head:       which head.
    key_tokens: labels of the keys, for cross-attention.
    item:       which item of the batch.
    title:      a line above the view.
    One query's row is worked out at a time, with the 64 keys of the largest weights and a selected
    one: at most 65 × (d_k + 4) + d_k numbers (18 kB of float32 for d_k = 64, 35 kB for 128), beside
    the tokens; it opens as fast for 8,192 tokens as for 512. Only of an edited head are all rows
    worked out, as the edit may look at them. A saved page holds up to 256 queries around the
    selected one (9 MB for d_k = 128, before compression).
    Returns the widget; its `selection` follows the reader, its `save` writes a page or a figure.
    Raises TypeError for what is no record, ValueError for a record without queries and keys, a head
    that is not there or labels of a wrong number, IndexError for an item that is not in the batch,
    RuntimeError for a record that was freed.
    """
    return ScoresView(record, tokens, head, key_tokens, item, title)

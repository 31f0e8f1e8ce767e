"""A model to play with: edit the text or its attention, and see what it then says."""

from collections.abc import Iterator
from math import isfinite
from numbers import Real
from pathlib import Path
from typing import Any

import traitlets
from matplotlib.figure import Figure
from torch import nn

from attnviz.apps.difference import Difference
from attnviz.apps.reading import Reading, Vocabulary, read
from attnviz.apps.saying import kind_of, labels, similarity, words
from attnviz.seeing import off, temperature
from attnviz.seeing.record import Change
from attnviz.views.bundle import module, style
from attnviz.views.figures import DIVERGING, explore_figure, palette
from attnviz.views.heatmap import SIDE, closer_look, overview
from attnviz.views.inputs import check_index
from attnviz.views.no_key import on_average
from attnviz.views.refusing import validate
from attnviz.views.source import Layer, check_head, check_layers, check_place
from attnviz.views.thumbnails import Thumbnails
from attnviz.views.view import Answer, View, check_selection

_HERE = Path(__file__).parent
EXACT = 400  # tokens: of more, weights go to the page as one byte each, to keep below 2 MB
PAGE = 40_000_000  # bytes of all heads in a saved page, before compression


class ExploreView(View):
    """The live app that `explore` returns.

    text, other: the text that the model reads, and a second one to compare it with.
    edits: the changed heads: dicts of layer, head, and either "off": True or "temperature": t.
    changes: the same for `attnviz.edit(model, view.changes)`.
    selection: dict of layer, head, query and key; layer and head are the head that is open, and
    stay when a new selection does not name them.
    says: what the model says, as lists of (title, rows); a row is (what, before, after).
    problem: why the text or the edits could not be shown, or "".
    """

    _esm = module(_HERE / "explore.js")
    _css = style("view", "matrix", "heads") + (_HERE / "explore.css").read_text(encoding="utf-8")

    text = traitlets.Unicode().tag(sync=True, page=True)
    other = traitlets.Unicode().tag(sync=True, page=True)
    edits = traitlets.List(traitlets.Dict()).tag(sync=True, page=True)
    tokens = traitlets.List(traitlets.Unicode()).tag(sync=True)
    names = traitlets.List(traitlets.Unicode()).tag(sync=True)  # of the layers
    heads = traitlets.List(traitlets.Int()).tag(sync=True)  # how many each layer has
    thumbnails = traitlets.Dict().tag(sync=True)  # numbers() of all heads, after the edits
    opened = traitlets.Dict().tag(sync=True)  # a head: {"of", "before"}, "after" where it differs
    kind = traitlets.Unicode().tag(sync=True)
    says = traitlets.List().tag(sync=True)
    hint = traitlets.Unicode().tag(sync=True)
    problem = traitlets.Unicode().tag(sync=True)
    diverging = traitlets.Bytes().tag(sync=True)  # colours for differences
    live = traitlets.Bool(True).tag(sync=True)  # whether there may be a model to ask

    def __init__(
        self, model: nn.Module, tokenizer: Any, text: str, other: str = "", title: str = ""
    ):
        self._model, self._vocabulary = model, Vocabulary(tokenizer)
        for name, value in [("text", text), ("other", other), ("title", title)]:
            if not isinstance(value, str):
                raise TypeError(f"{name} must be a string, got {type(value).__name__}")
        self._before = self._after = self._read(text, {})
        self._place = 0, 0  # the layer and the head that are open
        super().__init__(
            title=title,
            diverging=palette(DIVERGING),
            text=text,
            other=other,
            selection={"layer": 0, "head": 0},
            **self._shown(other),
        )
        self.observe(lambda _: self._answer_reader(), ["text", "other", "edits"])

    @property
    def changes(self) -> dict[tuple[int, int], Change]:
        """The edits as `attnviz.edit` takes them: {(layer, head): change}."""
        return {
            (e["layer"], e["head"]): off if e.get("off") else temperature(e["temperature"])
            for e in self.edits
        }

    def figure(self) -> Figure:
        """The open head after the edits, and what the model says, as a matplotlib figure."""
        layer, head = self.selection["layer"], self.selection["head"]
        after, n = self._after[1][layer], len(self.tokens)
        cells, _ = after.window(head, (0, n), (0, n), SIDE)
        title = self.title or f"layer {layer}, head {head}"
        rest = on_average(after.rest(head)) if after.sinks else ""
        return explore_figure(cells, self.tokens, self.says, title, rest)

    # --- the model ------------------------------------------------------------------------------

    def _read(self, text: str, changes: dict) -> tuple[Reading, list[Layer]]:
        reading = read(self._model, self._vocabulary, text, changes)
        layers, n = check_layers(reading.seen), len(reading.text.tokens)
        for i, one in enumerate(layers):
            if (one.n_queries, one.n_keys) != (n, n):
                where = f" in layer {i}" * (len(layers) > 1)
                raise ValueError(
                    f"this model's attention is {one.n_queries} × {one.n_keys} for {n} tokens"
                    f"{where}: explore needs one in which every token attends to the tokens. Of a "
                    "model that works out some tokens alone, give the part that works out all, "
                    "such as explore(model.encoder, tokenizer, text)"
                )
        return reading, layers

    def _answer_reader(self) -> None:
        """Read the text again; what goes wrong is said on the page, and the last result stays."""
        previous = self._before, self._after
        try:
            self._before = self._read(self.text, {})
            self._after = self._read(self.text, self.changes) if self.edits else self._before
            self._show()
        except Exception as error:  # of any model: the reader looks at the page, not at a log
            self._before, self._after = previous
            self.problem = str(error) or type(error).__name__

    def _show(self) -> None:
        shown = self._shown(self.other)
        with self.hold_sync():  # one message, so that the page changes once
            for name, value in shown.items():
                setattr(self, name, value)
            self._give_up_what_is_gone()

    def _shown(self, other: str) -> dict[str, Any]:
        """The traits that show what was read; other is the second text."""
        (before, _), (after, layers) = self._before, self._after
        kind, says, hint = self._ask_model(before, after, other)
        small = Thumbnails(layers)
        return {
            "tokens": before.text.tokens,
            "names": [layer.name for layer in layers],
            "heads": [layer.heads for layer in layers],
            "thumbnails": small.numbers() | {"step": small.step},
            "kind": kind,
            "says": says,
            "hint": hint,
            "problem": "",
            "opened": self._open(*self._place),
        }

    def _ask_model(self, before: Reading, after: Reading, other: str) -> tuple[str, list, str]:
        """What its output means, what it says, and what to do where it says nothing."""
        config = getattr(self._model, "config", None)
        kind = kind_of(before, self._vocabulary, config)
        if kind in ("masked words", "next token"):
            says = words(before, after, self._vocabulary, kind)
            if not says:
                mask = self._vocabulary.token(self._vocabulary.mask)
                return kind, [], f"Put {mask} into the text to see what the model expects there."
            return kind, says, ""
        if kind in ("classes", "token labels"):
            return kind, labels(before, after, config, kind), ""
        if kind == "similarity":
            return kind, self._similarities(before, after, other), ""
        return kind, [], "This model's output is none that can be read here; its attention can."

    def _similarities(self, before: Reading, after: Reading, other: str) -> list:
        rows = [("itself, unchanged", 1.0, similarity(before, after))]
        if other.strip():
            try:
                old, _ = self._read(other, {})
                new = self._read(other, self.changes)[0] if self.edits else old
            except ValueError as error:
                raise ValueError(f"second text: {error}") from error
            rows.append(("the second text", similarity(before, old), similarity(after, new)))
        return [("similarity (cosine) to", rows)]

    def _open(self, layer: int, head: int, exact: bool | None = None) -> dict[str, Any]:
        exact = len(self._after[0].text.tokens) <= EXACT if exact is None else exact
        before, after = (
            overview(reading[1][layer], head, SIDE, exact=exact)
            for reading in (self._before, self._after)
        )
        opened = {"of": [layer, head], "before": before, "after": after}
        if before["values"] == after["values"]:
            del opened["after"]
        return opened

    # --- the page -------------------------------------------------------------------------------

    def _sizes(self) -> dict[str, int]:
        layers = self._after[1]
        n = layers[0].n_queries
        return {
            "layer": len(layers),
            "head": max(layer.heads for layer in layers),
            "query": n,
            "key": n,
        }

    def _answer(self, question: dict[str, Any]) -> Answer:
        match question:
            case {"alive": True, **more} if not more:  # asked after an edit: does anybody read it?
                return {}, []
            case {"open": place, **more} if not more:
                return _parts(self._open(*check_place(self._after[1], place)))
            case {"of": place, "which": "before" | "after" | "difference" as which, **closer}:
                layer, head = check_place(self._after[1], place)
                old, new = self._before[1][layer], self._after[1][layer]
                source = {"before": old, "after": new, "difference": Difference(old, new)}[which]
                if closer == {"whole": True}:
                    return _parts({"whole": overview(source, head, SIDE)})
                return closer_look(source, head, closer)
        return super()._answer(question)

    def _page_state(self) -> dict[str, Any]:
        return {
            "live": False,
            "opened": self._open(self.selection["layer"], self.selection["head"]),
        }

    def _page_answers(self) -> Iterator[tuple[dict[str, Any], Answer]]:
        """All heads, exact or as one byte a weight, where they do not make the page too large."""
        weights = 2 * min(len(self.tokens), SIDE) ** 2 * sum(self.heads)
        if weights > PAGE:
            return
        exact = 4 * weights <= PAGE and len(self.tokens) <= EXACT
        for layer, heads in enumerate(self.heads):
            for head in range(heads):
                yield {"open": [layer, head]}, _parts(self._open(layer, head, exact))

    @validate("selection")
    def _check_selection(self, proposal: traitlets.Bunch) -> dict[str, int | None]:
        """A whole selection, in which one head is always open: the last one, if none is named."""
        chosen = check_selection(proposal["value"], self._sizes())
        if chosen["layer"] is None:
            chosen["layer"] = self._place[0]
        heads = self._after[1][chosen["layer"]].heads
        if chosen["head"] is None:
            chosen["head"] = min(self._place[1], heads - 1)
        if chosen["head"] >= heads:
            raise ValueError(
                f"selection['head'] must be between 0 and {heads - 1} in layer {chosen['layer']}, "
                f"got {chosen['head']}"
            )
        return chosen

    @traitlets.observe("selection")
    def _follow(self, change: traitlets.Bunch) -> None:
        """Keep the head that is open: it stays when a selection names none."""
        self._place = change["new"]["layer"], change["new"]["head"]

    @validate("edits")
    def _check_edits(self, proposal: traitlets.Bunch) -> list[dict[str, Any]]:
        edits = [_check_edit(one, self._after[1]) for one in proposal["value"]]
        places = [(one["layer"], one["head"]) for one in edits]
        if twice := {place for place in places if places.count(place) > 1}:
            raise ValueError(f"edits name (layer, head) {min(twice)} twice")
        return edits

    def __repr__(self) -> str:
        n = f"{len(self.heads)} layers, {sum(self.heads)} heads"
        return f"ExploreView({type(self._model).__name__}: {n})"


def _parts(numbers: dict[str, Any]) -> Answer:
    """An answer of several `numbers`, their bytes in the same order."""
    sent = {name: part for name, part in numbers.items() if name != "of"}
    sizes = {name: {k: v for k, v in part.items() if k != "values"} for name, part in sent.items()}
    return sizes, [part["values"] for part in sent.values()]


def _check_edit(one: dict[str, Any], layers: list[Layer]) -> dict[str, Any]:
    """Return one edit in its plain form, or raise TypeError or ValueError."""
    keys = set(one)
    if keys not in ({"layer", "head", "off"}, {"layer", "head", "temperature"}):
        raise ValueError(
            'an edit must have layer, head, and "off" or "temperature", '
            f"got {sorted(keys, key=str)}"
        )
    layer = check_index("layer of an edit", one["layer"], len(layers))
    place = {"layer": layer, "head": check_head(layers[layer], one["head"], "head of an edit")}
    if "off" in one:
        if one["off"] is not True:
            raise ValueError(f'"off" of an edit must be True, got {one["off"]!r}')
        return place | {"off": True}
    heat = one["temperature"]
    if isinstance(heat, bool) or not isinstance(heat, Real):
        raise TypeError(f"temperature of an edit must be a number, got {heat!r}")
    if not (heat > 0 and isfinite(heat)):
        raise ValueError(f"temperature of an edit must be positive and finite, got {heat}")
    return place | {"temperature": float(heat)}


def explore(
    model: nn.Module, tokenizer: Any, text: str, *, other: str = "", title: str = ""
) -> ExploreView:
    """Open a model to play with: edit the text, change heads, and see what the model then says.

    model:     an encoder or decoder in which every token attends to the tokens: ours, or one of
               transformers. It runs without dropout, and is left as it was.
    tokenizer: of transformers, or of tokenizers.
    text:      what the model reads; the reader can change it.
    other:     a second text, for models that turn texts into vectors: their similarity is shown.
    title:     a line above.
    Shown is, before and after the edits: what the model predicts for [MASK], the next token, the
    classes or the labels, or the similarity of the two texts, according to its output; every head
    as a thumbnail; and one head before, after, and the difference.
    At most 2 MB are sent for a text. Up to 400 tokens the open head's weights are exact; of more
    they are rounded (by at most 0.004), and of more than 512 the largest of each patch is shown;
    the differences, and single weights when the reader zooms in, come when they are asked for.
    Returns the app; its `changes` can be given to `attnviz.edit`.
    Raises TypeError for what is no model or no tokenizer, ValueError for a text without tokens or
    one that is too long, or a model of another kind.
    """
    return ExploreView(model, tokenizer, text, other, title)

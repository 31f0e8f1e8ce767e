"""Tokenizers side by side: a text to type, and the pieces that each of them cuts it into."""

from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import traitlets
from matplotlib.figure import Figure

from attnviz.views.bundle import module, style
from attnviz.views.refusing import validate
from attnviz.views.tokens_figure import tokens_figure
from attnviz.views.view import Answer, View

MOST = 2000  # pieces that are drawn, of all tokenizers together
PLAIN, SPECIAL, UNKNOWN = range(3)  # kinds of pieces
_UNKNOWN_NAMES = {"[UNK]", "<unk>"}  # where a tokenizer does not say what its own is called


class TokensView(View):
    """The live view that `tokenizer` returns.

    text: what is cut; it follows the reader's typing, and can be assigned.
    shown: "n_characters" and "n_bytes" of the text, and "cuts": for each tokenizer its "name", how
    many pieces there are ("n"), how many of them are "special" or "unknown", and of those that are
    drawn the "tokens", "ids", "starts", "ends" (in characters of the text) and "kinds".
    """

    _esm = module(Path(__file__).with_name("tokens.js"))
    _css = style("view", "tokens")

    text = traitlets.Unicode().tag(sync=True, page=True)
    shown = traitlets.Dict().tag(sync=True)
    live = traitlets.Bool(True).tag(sync=True)  # there is Python to be asked

    def __init__(self, tokenizers: object, text: str = "", title: str = ""):
        for name, value in [("text", text), ("title", title)]:
            if not isinstance(value, str):
                raise TypeError(f"{name} must be a string, got {type(value).__name__}")
        self._tokenizers = _check_tokenizers(tokenizers)
        super().__init__(title=title, text=text)

    def figure(self) -> Figure:
        """The text and its pieces as a matplotlib figure; of many the first lines."""
        return tokens_figure(self.text, self.shown, self.title)

    # --- cutting --------------------------------------------------------------------------------

    def _cut_all(self, text: str) -> dict[str, Any]:
        most = max(1, MOST // len(self._tokenizers))
        return {
            "n_characters": len(text),
            "n_bytes": len(text.encode()),
            "cuts": [_cut(name, t, text, most) for name, t in self._tokenizers.items()],
        }

    @validate("text")
    def _check_text(self, proposal: traitlets.Bunch) -> str:
        text = proposal["value"].replace("\r\n", "\n").replace("\r", "\n")  # as the page has it
        for i, character in enumerate(text):
            if 0xD800 <= ord(character) <= 0xDFFF:
                raise ValueError(f"text must be whole characters, but number {i} is half of one")
        self._cut_all(text)  # here too, so that a text that cannot be cut is refused
        return text

    @traitlets.observe("text")
    def _show(self, _: traitlets.Bunch) -> None:
        self.shown = self._cut_all(self.text)

    # --- what the page asks ---------------------------------------------------------------------

    def _sizes(self) -> dict[str, int]:
        return {}

    def _answer(self, question: dict[str, Any]) -> Answer:
        match question:
            case {"cut": text, **more} if not more:
                self.text = text
                return {}, []  # the pieces are traits: all views of this text show them
        return super()._answer(question)

    def _page_state(self) -> dict[str, Any]:
        return {"live": False}

    def __repr__(self) -> str:
        n = len(self._tokenizers)
        return f"TokensView({n} tokenizer{'s' * (n > 1)}, {len(self.text)} characters)"


class _Tokenizer(NamedTuple):
    """What cuts, and what is known about its pieces."""

    encode: Any
    unknown: set[str]
    special: set[int]  # ids


def _check_tokenizers(given: object) -> dict[str, _Tokenizer]:
    if isinstance(given, Mapping):
        if not given:
            raise ValueError("tokenizers must hold at least one tokenizer, got an empty dict")
        for name in given:
            if not isinstance(name, str):
                raise TypeError(f"the names of tokenizers must be strings, got {name!r}")
        return {name: _check_tokenizer(one, f"tokenizers[{name!r}]") for name, one in given.items()}
    return {"": _check_tokenizer(given, "tokenizers")}


def _check_tokenizer(given: object, where: str) -> _Tokenizer:
    tokenizer = given
    for inner in ("backend_tokenizer", "_tokenizer"):  # of transformers' fast tokenizers
        if hasattr(getattr(given, inner, None), "encode"):
            tokenizer = getattr(given, inner)
            break
    if isinstance(tokenizer, str | bytes) or not callable(getattr(tokenizer, "encode", None)):
        several = " Give several as a dict from names." * isinstance(given, Sequence)
        raise TypeError(
            f"{where} must be a tokenizer with encode(text), got {type(given).__name__}.{several}"
        )
    unknown = getattr(getattr(tokenizer, "model", None), "unk_token", None)
    added = getattr(tokenizer, "get_added_tokens_decoder", dict)()
    special = {i for i, token in added.items() if getattr(token, "special", False)}
    return _Tokenizer(tokenizer.encode, {unknown} if unknown else _UNKNOWN_NAMES, special)


def _cut(name: str, tokenizer: _Tokenizer, text: str, most: int) -> dict[str, Any]:
    """The pieces of a text as they go to the page, at most so many of them."""
    encoding = tokenizer.encode(text)
    called = repr(name) if name else "the tokenizer"
    missing = [part for part in ("ids", "tokens", "offsets") if not hasattr(encoding, part)]
    if missing:
        raise TypeError(
            f"encode(text) of {called} must return ids, tokens and offsets, as the tokenizers "
            f"library does, got {type(encoding).__name__} without {missing[0]}"
        )
    tokens, ids = list(map(str, encoding.tokens)), list(map(int, encoding.ids))
    offsets = [(int(start), int(end)) for start, end in encoding.offsets]
    if not len(tokens) == len(ids) == len(offsets):
        raise ValueError(
            f"{called} must give as many ids and offsets as tokens, got {len(ids)} ids, "
            f"{len(offsets)} offsets and {len(tokens)} tokens"
        )
    for start, end in offsets:
        if not 0 <= start <= end <= len(text):
            raise ValueError(
                f"the offsets of {called} must lie within the text's {len(text)} characters, "
                f"got {(start, end)}"
            )
    added = getattr(encoding, "special_tokens_mask", None) or [0] * len(ids)
    kinds = [
        UNKNOWN if token in tokenizer.unknown else SPECIAL if add or i in tokenizer.special else 0
        for token, i, add in zip(tokens, ids, added, strict=True)
    ]
    return {
        "name": name,
        "n": len(ids),
        "special": kinds.count(SPECIAL),
        "unknown": kinds.count(UNKNOWN),
        "tokens": tokens[:most],
        "ids": ids[:most],
        "starts": [start for start, _ in islice(offsets, most)],
        "ends": [end for _, end in islice(offsets, most)],
        "kinds": kinds[:most],
    }


def tokenizer(tokenizers: object, text: str = "", title: str = "") -> TokensView:
    """Type a text and see the pieces that one or several tokenizers cut it into.

    tokenizers: a tokenizer, or a dict from names to tokenizers, shown one below the other. Each is
                a `tokenizers.Tokenizer`, a fast one of transformers, or anything whose encode(text)
                returns an object with ids, tokens and offsets (start and end in characters).
    text:       what stands in the text field at first; line ends become "\\n".
    title:      a line above it.
    At most 2,000 pieces are drawn; all are counted.
    Returns the widget; its `text` follows the typing, and can be set.
    Raises TypeError for what is no tokenizer, ValueError for no tokenizer at all, offsets outside
    the text, or halves of characters.
    """
    return TokensView(tokenizers, text, title)

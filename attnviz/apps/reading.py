"""A text through a model: its tokens, its attention, and its output."""

import inspect
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from attnviz.evaluating import evaluating
from attnviz.seeing import capture, edit
from attnviz.seeing.record import Change
from attnviz.seeing.seen import Seen


@dataclass(frozen=True)
class Tokenized:
    """A text as a model reads it; ids and tokens belong together, one by one."""

    ids: list[int]
    tokens: list[str]
    inputs: dict[str, Tensor]  # (1, token) each


@dataclass(frozen=True)
class Reading:
    """What happened while a model read a text."""

    text: Tokenized
    seen: Seen
    output: Any


class Vocabulary:
    """A tokenizer of `tokenizers` or of `transformers`, asked in one way."""

    def __init__(self, tokenizer: Any):
        self._of_transformers = hasattr(tokenizer, "convert_ids_to_tokens")
        if not self._of_transformers and not hasattr(tokenizer, "id_to_token"):
            raise TypeError(
                "tokenizer must be one of transformers or of tokenizers, "
                f"got {type(tokenizer).__name__}"
            )
        self._tokenizer = tokenizer
        self.size = len(tokenizer) if self._of_transformers else tokenizer.get_vocab_size()
        self.mask = self._find_mask()
        inner = getattr(tokenizer, "backend_tokenizer", tokenizer)
        # a byte-level tokenizer writes bytes as letters of its own: Ġ for a space, Ã© for é
        self._of_bytes = "ByteLevel" in repr(getattr(inner, "decoder", None))

    def tokenize(self, text: str, device: torch.device) -> Tokenized:
        """Raises ValueError for a text without any token, or one of spaces alone."""
        if self._of_transformers:
            inputs = dict(self._tokenizer(text, return_tensors="pt"))
            ids = [int(i) for i in inputs["input_ids"][0]]
        else:
            encoding = self._tokenizer.encode(text)
            real = zip(encoding.ids, encoding.attention_mask, strict=True)
            ids = [i for i, is_real in real if is_real]  # a tokenizer may be set to add padding
            inputs = {"input_ids": torch.tensor([ids], dtype=torch.long)}
        if not ids or not text.strip():
            raise ValueError("the text has no tokens: write something")
        moved = {name: values.to(device) for name, values in inputs.items()}
        return Tokenized(ids, [self.token(i) for i in ids], moved)

    def token(self, i: int) -> str:
        """The token of an id as a reader knows it; spaces before it become ␣."""
        if self._of_transformers:
            token = self._tokenizer.convert_ids_to_tokens(i)
        else:
            token = self._tokenizer.id_to_token(i)
        if token is None:  # a model may have more rows than its tokenizer has tokens
            return f"#{i}"
        space = "▁"
        if self._of_bytes:
            text = self._tokenizer.decode([i], skip_special_tokens=False)
            # some tokens are a part of a letter: these stay as the tokenizer writes them
            whole = "\ufffd" not in text
            token, space = (text.replace("\n", "↵"), " ") if whole else (token, "Ġ")
        bare = token.lstrip(space)
        return "␣" * (len(token) - len(bare)) + bare

    def _find_mask(self) -> int | None:
        if self._of_transformers:
            return getattr(self._tokenizer, "mask_token_id", None)
        found = (self._tokenizer.token_to_id(name) for name in ("[MASK]", "<mask>"))
        return next((i for i in found if i is not None), None)


def read(
    model: nn.Module,
    vocabulary: Vocabulary,
    text: str,
    changes: Mapping[tuple[int, int], Change] | None = None,
) -> Reading:
    """Let a model read a text, with some of its heads changed.

    changes: as for `attnviz.edit`; none when not given.
    The model runs without dropout and without gradients, and is left as it was.
    Raises TypeError for what is no model; ValueError for a text without tokens, one that is longer
    than the model reads or has tokens that it does not know, or a model of an encoder and a
    decoder, which reads two texts.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, got {type(model).__name__}")
    if "decoder_input_ids" in inspect.signature(model.forward).parameters:
        raise ValueError(
            f"{type(model).__name__} is an encoder and a decoder, which read two texts: "
            "give one of the two, such as model.get_encoder()"
        )
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    tokenized = vocabulary.tokenize(text, device)
    _check_ids(model, tokenized.ids)
    changed = edit(model, changes) if changes else nullcontext()
    with evaluating(model), torch.no_grad(), changed, capture(model) as seen:
        output = _call(model, tokenized.inputs)
    return Reading(tokenized, seen, output)


def _call(model: nn.Module, inputs: dict[str, Tensor]) -> Any:
    parameters = inspect.signature(model.forward).parameters
    if "input_ids" not in parameters:
        return model(inputs["input_ids"])
    return model(**{name: values for name, values in inputs.items() if name in parameters})


def _check_ids(model: nn.Module, ids: list[int]) -> None:
    most = _longest(model)
    if most is not None and len(ids) > most:
        raise ValueError(f"the text has {len(ids)} tokens, but the model reads at most {most}")
    known = getattr(getattr(model, "config", None), "vocab_size", None)
    if isinstance(known, int) and max(ids) >= known:
        raise ValueError(
            f"the tokenizer gives the id {max(ids)}, but the model knows only {known} tokens: "
            "do they belong together?"
        )


def _longest(model: nn.Module) -> int | None:
    config = getattr(model, "config", None)
    for name in ("max_position_embeddings", "max_len"):
        if isinstance(most := getattr(config, name, None), int):
            return most - _unused_positions(model)
    return None


def _unused_positions(model: nn.Module) -> int:
    """How many positions come before the first token's: RoBERTa counts from after its padding."""
    for name, module in model.named_modules():
        if name.endswith("position_embeddings") and isinstance(module, nn.Embedding):
            return 0 if module.padding_idx is None else module.padding_idx + 1
    return 0

"""Texts of all lengths as windows of one length, without padding, and batches of them."""

from collections.abc import Callable, Iterable

import torch
from tokenizers import Tokenizer
from torch import Tensor

from attnviz.checks import check_kind, check_whole
from attnviz.data.reading import several_texts
from attnviz.data.wordpiece import CLS, SEP
from attnviz.tensors import check_tensor

_AT_ONCE = 1000  # texts that are cut into pieces together


def pack(texts: Iterable[str], tokenizer: Tokenizer, length: int) -> Tensor:
    """Write all texts one behind the other, [SEP] after each, and cut that into windows.

    texts:     any number of them, each of any length.
    tokenizer: cuts them into pieces; must know [CLS] and [SEP].
    length:    pieces of a window; the first is [CLS].
    Returns (window, length) int64 without padding. A window may begin and end anywhere and hold
    several texts; what is left over at the end, less than a window, is dropped.
    Raises ValueError for a length below 2, a tokenizer without [CLS] or [SEP], or when the texts do
    not fill a single window; TypeError for one text instead of several, or what are no texts.
    """
    texts, length = several_texts(texts), check_window(tokenizer, length)
    pieces = pieces_of(texts, tokenizer)
    windows = windows_of(pieces, tokenizer, length)
    if not len(windows):
        raise ValueError(
            f"texts must fill at least one window of {length} pieces, got {len(texts)} texts with "
            f"{len(pieces)} pieces"
        )
    return windows


def check_window(tokenizer: Tokenizer, length: int) -> int:
    """Return the length of a window, or raise for one below 2, or what is no tokenizer for it."""
    check_kind("tokenizer", tokenizer, Tokenizer)
    if None in (tokenizer.token_to_id(CLS), tokenizer.token_to_id(SEP)):
        raise ValueError(f"tokenizer must have the pieces {CLS} and {SEP}")
    return check_whole("length", length, 2)


def pieces_of(texts: list[str], tokenizer: Tokenizer) -> Tensor:
    """The pieces (n,) of all texts one behind the other, [SEP] after each."""
    parts, sep = [], tokenizer.token_to_id(SEP)
    for start in range(0, len(texts), _AT_ONCE):
        some = tokenizer.encode_batch(texts[start : start + _AT_ONCE], add_special_tokens=False)
        parts += [torch.tensor([*text.ids, sep]) for text in some]
    return torch.cat(parts) if parts else torch.empty(0, dtype=torch.int64)


def windows_of(pieces: Tensor, tokenizer: Tokenizer, length: int) -> Tensor:
    """All windows that pieces fill, as from `pack`; there may be none."""
    n = len(pieces) // (length - 1)
    windows = pieces[: n * (length - 1)].view(n, length - 1)
    return torch.cat([torch.full((n, 1), tokenizer.token_to_id(CLS)), windows], 1)


def shuffled(rows: Tensor, batch_size: int, seed: int = 0) -> Callable[[int], Tensor]:
    """A function from the number of a step to its batch, each row once before any comes again.

    rows: (row, ...) of anything.   batch_size: rows of a batch, at most as many as there are.
    Returns the function: batch_of(0), batch_of(1) … It gives the same for the same step and seed,
    whoever asks, in whatever order.
    Raises ValueError for a batch size that is not positive or larger than the number of rows;
    TypeError for what is no tensor, or no whole number.
    """
    check_tensor("rows", rows)
    batch_size, seed = check_whole("batch_size", batch_size), check_whole("seed", seed)
    per_epoch = len(rows) // batch_size if batch_size > 0 else 0
    if not per_epoch:
        raise ValueError(
            f"batch_size must be between 1 and {len(rows)}, the number of rows, got {batch_size}"
        )
    kept: dict[int, Tensor] = {}

    def batch_of(step: int) -> Tensor:
        epoch, place = divmod(step, per_epoch)
        if epoch not in kept:
            kept.clear()
            generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
            kept[epoch] = torch.randperm(len(rows), generator=generator)
        return rows[kept[epoch][place * batch_size : (place + 1) * batch_size]]

    return batch_of

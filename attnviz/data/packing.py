"""Texts of all lengths as windows of one length, without padding, and batches of them."""

from collections.abc import Callable, Iterable

import torch
from tokenizers import Tokenizer
from torch import Tensor

from attnviz.data.wordpiece import CLS, SEP

_AT_ONCE = 1000  # texts that are cut into pieces together


def pack(texts: Iterable[str], tokenizer: Tokenizer, length: int) -> Tensor:
    """Write all texts one behind the other, [SEP] after each, and cut that into windows.

    texts:     any number of them, each of any length.
    tokenizer: cuts them into pieces; must know [CLS] and [SEP].
    length:    pieces of a window; the first is [CLS].
    Returns (window, length) int64 without padding. A window may begin and end anywhere and hold
    several texts; what is left over at the end, less than a window, is dropped.
    Raises ValueError for a length below 2, a tokenizer without [CLS] or [SEP], or when the texts do
    not fill a single window; TypeError for one text instead of several.
    """
    if isinstance(texts, str):
        raise TypeError("texts must be several texts, such as a list, got one str")
    if length < 2:
        raise ValueError(f"length must be at least 2, got {length}")
    cls, sep = (tokenizer.token_to_id(piece) for piece in (CLS, SEP))
    if cls is None or sep is None:
        raise ValueError(f"tokenizer must have the pieces {CLS} and {SEP}")
    texts, parts = list(texts), []
    for start in range(0, len(texts), _AT_ONCE):
        some = tokenizer.encode_batch(texts[start : start + _AT_ONCE], add_special_tokens=False)
        parts += [torch.tensor([*text.ids, sep]) for text in some]
    stream = torch.cat(parts) if parts else torch.empty(0, dtype=torch.int64)
    n = len(stream) // (length - 1)
    if not n:
        raise ValueError(
            f"texts must fill at least one window of {length} pieces, got {len(parts)} texts with "
            f"{len(stream)} pieces"
        )
    windows = stream[: n * (length - 1)].view(n, length - 1)
    return torch.cat([torch.full((n, 1), cls), windows], 1)


def shuffled(rows: Tensor, batch_size: int, seed: int = 0) -> Callable[[int], Tensor]:
    """A function from the number of a step to its batch, each row once before any comes again.

    rows: (row, ...) of anything.   batch_size: rows of a batch, at most as many as there are.
    Returns the function: batch_of(0), batch_of(1) … It gives the same for the same step and seed,
    whoever asks, in whatever order.
    Raises ValueError for a batch size that is not positive or larger than the number of rows.
    """
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

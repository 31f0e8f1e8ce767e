"""Texts from a file or from the Hugging Face hub, one after another, however many there are."""

import zlib
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch import Tensor

from attnviz.data.packing import pack

Texts = Callable[[], Iterator[str]]  # each call begins anew

_AT_ONCE = 2000  # texts that are packed and shuffled together


def stream_texts(name: str | Path, split: str = "train", column: str = "text") -> Texts:
    """Read texts one at a time, through Hugging Face `datasets`, however many there are.

    name:   a text file with one text a line, a .json or .jsonl file with one object a line, or a
            dataset of the hub, such as "allenai/c4".
    split:  which part of a dataset; a file has only "train".
    column: where the texts stand.
    Returns a function; each call of it gives the texts from the beginning.
    Raises FileNotFoundError for a file that is not there; when called, ConnectionError for a
    dataset that cannot be reached, KeyError for a missing column.
    """
    kind = {".txt": "text", ".json": "json", ".jsonl": "json"}.get(Path(name).suffix)
    if kind and not Path(name).is_file():
        raise FileNotFoundError(f"there is no file {name} with texts")

    def texts() -> Iterator[str]:
        from datasets import load_dataset

        try:
            if kind:
                rows = load_dataset(kind, data_files=str(name), split="train", streaming=True)
            else:
                rows = load_dataset(str(name), split=split, streaming=True)
            for row in rows:
                if column not in row:
                    raise KeyError(f"{name} has no column {column!r}, only {sorted(row)}")
                yield row[column]
        except (OSError, ValueError) as error:  # datasets raises many kinds of both
            raise ConnectionError(f"cannot read {name!r}: {error}") from error

    return texts


def apart(texts: Texts) -> tuple[Texts, Texts]:
    """Divide texts into those to learn from and one in twenty to measure on, by a hash of each."""

    def is_held_out(text: str) -> bool:
        return zlib.crc32(text.encode()) % 20 == 0

    return lambda: (t for t in texts() if not is_held_out(t)), lambda: filter(is_held_out, texts())


def streamed_batches(
    texts: Texts, tokenizer: Tokenizer, length: int, batch_size: int, seed: int = 0
) -> Callable[[int], Tensor]:
    """A function from the number of a step to its batch of windows, for texts that do not fit.

    texts, tokenizer, length: as for `pack`; the texts begin anew when they are at their end.
    batch_size: windows of a batch.
    Windows are shuffled among those of 2,000 texts. The function gives the same for the same step,
    quickly for the last one and those after it, and for earlier ones by reading from the beginning.
    Raises ValueError when called, when the texts do not fill a window.
    """
    batches, last, batch = None, -1, None

    def batch_of(step: int) -> Tensor:
        nonlocal batches, last, batch
        if batches is None or step < last:
            batches, last = _batches(texts, tokenizer, length, batch_size, seed), -1
        while last < step:
            batch, last = next(batches), last + 1
        return batch

    return batch_of


def _batches(
    texts: Texts, tokenizer: Tokenizer, length: int, batch_size: int, seed: int
) -> Iterator[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    rest = torch.empty(0, length, dtype=torch.int64)
    while True:
        found, some = False, iter(texts())
        while chunk := list(islice(some, _AT_ONCE)):
            try:
                windows = pack(chunk, tokenizer, length)
            except ValueError:  # the last few texts may be too short for a window
                continue
            found = True
            windows = windows[torch.randperm(len(windows), generator=generator)]
            *batches, rest = torch.cat([rest, windows]).split(batch_size)
            if len(rest) == batch_size:
                batches, rest = [*batches, rest], rest[:0]
            yield from batches
        if not found:
            raise ValueError(f"the texts must fill at least one window of {length} pieces")

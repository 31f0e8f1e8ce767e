"""Texts from a file or from the Hugging Face hub, one after another, however many there are."""

import zlib
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from torch import Tensor

from attnviz.checks import check_whole
from attnviz.data.packing import check_window, pieces_of, windows_of
from attnviz.data.reading import check_file, check_row, check_text, read_lines, read_rows
from attnviz.extras import needed

Texts = Callable[[], Iterator[str]]  # each call begins anew

_AT_ONCE = 2000  # texts that are packed and shuffled together


def stream_texts(name: str | Path, split: str = "train", column: str = "text") -> Texts:
    """Read texts one at a time, however many there are.

    name:   a .txt file with one text a line, a .json or .jsonl file with one object a line, or a
            dataset of the Hugging Face hub, such as "allenai/c4", read through `datasets`.
    split:  which part of a dataset; a file has only "train".
    column: where the texts stand.
    Returns a function; each call of it gives the texts from the beginning.
    Raises FileNotFoundError for a file that is not there, ValueError for a file of another kind or
    a split that it has not, ModuleNotFoundError where `datasets` is needed and missing; when
    called, ConnectionError for a dataset that cannot be reached, KeyError for a missing column,
    ValueError for a line that is no UTF-8, no object or no text.
    """
    kind = Path(name).suffix.lower()
    if kind not in (".txt", ".json", ".jsonl"):
        if Path(name).is_file():
            raise ValueError(f"name must be a .txt, .json or .jsonl file, got {name}")
        needed("datasets", "pretraining")  # now, rather than when the first text is asked for
        return lambda: _column(_rows_of_hub(str(name), split), column)
    check_file(name)
    check_split_of_file(split)
    if kind == ".txt":
        return lambda: (line for _, line in read_lines(name))
    return lambda: _column(read_rows(name), column)


def check_split_of_file(split: str) -> None:
    """Raise ValueError for a part that a file has not."""
    if split != "train":
        raise ValueError(f"split must be 'train' for a file, which has no other, got {split!r}")


def _column(rows: Iterator[tuple[str, dict[str, Any]]], column: str) -> Iterator[str]:
    for place, row in rows:
        check_row(place, row, {column: str}, "column")
        yield row[column]


def _rows_of_hub(name: str, split: str) -> Iterator[tuple[str, dict[str, Any]]]:
    datasets = needed("datasets", "pretraining")
    try:
        for number, row in enumerate(datasets.load_dataset(name, split=split, streaming=True), 1):
            yield f"{name}, row {number}", row
    except (OSError, ValueError) as error:  # datasets raises many kinds of both
        raise ConnectionError(f"cannot read {name!r}: {error}") from error


def apart(texts: Texts) -> tuple[Texts, Texts]:
    """Divide texts into those to learn from and one in twenty to measure on, by a hash of each.

    When they are read, raises TypeError for what is no text, ValueError for half characters in it.
    """

    def is_held_out(text: str) -> bool:
        return zlib.crc32(check_text("each of texts", text).encode()) % 20 == 0

    return lambda: (t for t in texts() if not is_held_out(t)), lambda: filter(is_held_out, texts())


def streamed_batches(
    texts: Texts, tokenizer: Tokenizer, length: int, batch_size: int, seed: int = 0
) -> Callable[[int], Tensor]:
    """A function from the number of a step to its batch of windows, for texts that do not fit.

    texts, tokenizer, length: as for `pack`; the texts begin anew when they are at their end.
    batch_size: windows of a batch.
    Windows are shuffled among those of 2,000 texts. The function gives the same for the same step,
    quickly for the last one and those after it, and for earlier ones by reading from the beginning.
    Raises TypeError or ValueError for a length or batch size that is none; when called, TypeError
    for what is no text, ValueError when the texts do not fill a window.
    """
    length, batch_size = check_window(tokenizer, length), check_whole("batch_size", batch_size, 1)
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
        found = False
        some = (check_text(f"text {i} of the stream", text) for i, text in enumerate(texts()))
        while chunk := list(islice(some, _AT_ONCE)):
            windows = windows_of(pieces_of(chunk, tokenizer), tokenizer, length)
            if not len(windows):  # the last few texts may be too short for one
                continue
            found = True
            windows = windows[torch.randperm(len(windows), generator=generator)]
            *batches, rest = torch.cat([rest, windows]).split(batch_size)
            if len(rest) == batch_size:
                batches, rest = [*batches, rest], rest[:0]
            yield from batches
        if not found:
            raise ValueError(f"the texts must fill at least one window of {length} pieces")

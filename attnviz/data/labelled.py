"""Texts with a label each as padded batches, for fine-tuning."""

from collections.abc import Callable, Sequence

import torch
from tokenizers import Tokenizer
from torch import Tensor

from attnviz.checks import check_kind, check_whole
from attnviz.data.packing import shuffled
from attnviz.data.padding import pad
from attnviz.data.reading import several_texts
from attnviz.tensors import check_tensor


def encode_texts(texts: Sequence[str], tokenizer: Tokenizer, length: int) -> list[list[int]]:
    """The ids of texts, [CLS] in front and [SEP] behind, of long ones the head and the tail.

    length: the most pieces. Of a longer text the first quarter and the last three quarters of that
            are kept: in a review the verdict mostly stands at the end.
    Raises ValueError for a length below 4, TypeError for one text instead of several, what are no
    texts, or another tokenizer.
    Source: Sun et al. 2019, "How to Fine-Tune BERT for Text Classification?", section 5.3.1.
    """
    texts, length = several_texts(texts), check_whole("length", length, 4)
    check_kind("tokenizer", tokenizer, Tokenizer)
    head = length // 4
    rows = [encoding.ids for encoding in tokenizer.encode_batch(texts)]
    return [row if len(row) <= length else row[:head] + row[head - length :] for row in rows]


def padded(rows: Sequence[list[int]]) -> tuple[Tensor, Tensor]:
    """Ids of different lengths as a batch.

    Returns ids (row, token) int64, the shorter rows filled up with 0, the id of BERT's [PAD], and
    the mask (row, token) bool, True for real pieces.
    """
    ids = pad(list(rows))
    ends = torch.tensor([len(row) for row in rows])[:, None]
    return ids, torch.arange(ids.size(1)) < ends


def labelled_batches(
    rows: Sequence[list[int]], labels: Tensor, batch_size: int, seed: int = 0
) -> Callable[[int], dict[str, Tensor]]:
    """A function from the number of a step to its batch, by the names that a BERT's heads know.

    rows:   the ids of each text.   labels: (text, ...), in the same order.
    batch_size, seed: as for `shuffled`; with fewer texts than that, all of them make a batch.
    Returns the function; a batch holds input_ids and mask, as from `padded`, and labels.
    Raises ValueError when there are not as many labels as texts, or no texts; TypeError for labels
    that are no tensor, or what are no whole numbers.
    """
    check_tensor("labels", labels)
    batch_size = check_whole("batch_size", batch_size)
    if len(rows) != len(labels):
        raise ValueError(f"labels must be as many as rows, {len(rows)}, got {len(labels)}")
    numbers = shuffled(torch.arange(len(rows)), min(batch_size, len(rows)), seed)

    def batch_of(step: int) -> dict[str, Tensor]:
        chosen = numbers(step)
        ids, mask = padded([rows[i] for i in chosen.tolist()])
        return {"input_ids": ids, "mask": mask, "labels": labels[chosen]}

    return batch_of

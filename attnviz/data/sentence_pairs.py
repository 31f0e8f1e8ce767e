"""Sentences and what follows them, or does not: BERT's second task."""

import re
from collections.abc import Iterable
from typing import NamedTuple

import torch
from tokenizers import Tokenizer
from torch import Tensor

from attnviz.checks import check_kind, check_whole
from attnviz.data.reading import check_text, several_texts
from attnviz.data.wordpiece import CLS, PAD, SEP

_END_OF_SENTENCE = re.compile(r"""(?<=[.!?])["')]*\s+|\n+""")


class SentencePairIds(NamedTuple):
    """input_ids: (pair, length) int64: [CLS] A [SEP] B [SEP], then [PAD].

    mask:           (pair, length) bool, True where there is no padding.
    token_type_ids: (pair, length) int64, 0 for [CLS] A [SEP], 1 for B [SEP], 0 for padding.
    next_labels:    (pair,) int64, 0 where B follows A in the text, 1 where it comes from another.
    """

    input_ids: Tensor
    mask: Tensor
    token_type_ids: Tensor
    next_labels: Tensor


def next_sentence_pairs(
    texts: Iterable[str], tokenizer: Tokenizer, length: int, generator: torch.Generator
) -> SentencePairIds:
    """Pair each sentence with the one that follows it, or, by chance, with one of another text.

    texts:     of at least two sentences each; others give no pairs, but their sentences may become
               the second of one.
    tokenizer: cuts them into pieces; must know [CLS], [SEP] and [PAD].
    length:    of all pairs; of too long ones the end of the longer sentence is left out.
    generator: decides; about half of the pairs are real.
    Returns all pairs in the order of the texts.
    Raises ValueError when there are no two texts to pair sentences from, a length below 5, or a
    tokenizer without the special pieces; TypeError for one text instead of several, what are no
    texts, or another tokenizer.
    Source: Devlin et al. 2019, section 3.1, with single sentences instead of longer spans.
    """
    texts, length = several_texts(texts), check_whole("length", length)
    check_kind("tokenizer", tokenizer, Tokenizer)
    if length < 5:
        raise ValueError(f"length must be at least 5, for [CLS] A [SEP] B [SEP], got {length}")
    special = [tokenizer.token_to_id(piece) for piece in (CLS, SEP, PAD)]
    if None in special:
        raise ValueError(f"tokenizer must have the pieces {CLS}, {SEP} and {PAD}")
    sentences, text_of = _sentences(texts, tokenizer)
    follows = (text_of[1:] == text_of[:-1]).nonzero().flatten()  # pairs begin here
    if not len(follows) or text_of[0] == text_of[-1]:
        raise ValueError("texts must be at least two, and one of them of two sentences or more")
    other = torch.rand(len(follows), generator=generator) < 0.5
    second = torch.where(other, _of_other_texts(text_of, follows, generator), follows + 1)
    pairs = [
        _cut(sentences[a], sentences[b], length - 3)
        for a, b in zip(follows.tolist(), second.tolist(), strict=True)
    ]
    return SentencePairIds(*_padded(pairs, length, *special), next_labels=other.long())


def split_sentences(text: str) -> list[str]:
    """The sentences of a text: what ends with . ! or ? before a space, or with a line.

    Raises TypeError for what is no text.
    """
    check_text("text", text)
    return [sentence for sentence in _END_OF_SENTENCE.split(text) if sentence.strip()]


def _sentences(texts: list[str], tokenizer: Tokenizer) -> tuple[list[list[int]], Tensor]:
    """The pieces of all sentences, and of which text each is."""
    split = [split_sentences(text) for text in texts]
    flat = [sentence for one in split for sentence in one]
    ids = [e.ids for e in tokenizer.encode_batch(flat, add_special_tokens=False)]
    numbers = [i for i, one in enumerate(split) for _ in one]
    kept = [i for i, one in enumerate(ids) if one]
    return [ids[i] for i in kept], torch.tensor([numbers[i] for i in kept], dtype=torch.int64)


def _of_other_texts(text_of: Tensor, follows: Tensor, generator: torch.Generator) -> Tensor:
    """For each pair a sentence drawn from all those of other texts."""
    n = len(text_of)
    first = torch.searchsorted(text_of, text_of[follows])  # where its own text begins
    end = torch.searchsorted(text_of, text_of[follows], right=True)
    others = n - (end - first)
    drawn = (torch.rand(len(follows), generator=generator, dtype=torch.float64) * others).long()
    return torch.where(drawn < first, drawn, drawn + (end - first))


def _cut(a: list[int], b: list[int], room: int) -> tuple[list[int], list[int]]:
    """Both sentences, with the end of the longer left out until they fit."""
    if len(a) + len(b) <= room:
        return a, b
    shorter = min(len(a), len(b), room // 2)
    if len(a) < len(b):
        return a[:shorter], b[: room - shorter]
    return a[: room - shorter], b[:shorter]


def _padded(
    pairs: list[tuple[list[int], list[int]]], length: int, cls: int, sep: int, pad: int
) -> tuple[Tensor, Tensor, Tensor]:
    rows = [[cls, *a, sep, *b, sep] for a, b in pairs]
    firsts = torch.tensor([len(a) + 2 for a, _ in pairs])[:, None]
    ends = torch.tensor([len(row) for row in rows])[:, None]
    ids = torch.tensor([row + [pad] * (length - len(row)) for row in rows])
    places = torch.arange(length)
    mask = places < ends
    return ids, mask, ((places >= firsts) & mask).long()

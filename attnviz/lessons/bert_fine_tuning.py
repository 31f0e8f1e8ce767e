"""The exercises of lesson 08, with the mistakes that their checks recognise."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from attnviz.lessons.drawing import Draw, drawn
from attnviz.lessons.exact import ExactExercise
from attnviz.lessons.exercise import Exercise, Misconception
from attnviz.models.bert_tasks import IGNORED

CLS, SEP = 101, 102  # in the vocabulary of BERT


def _states(seed: int, lengths: Sequence[int], n: int, d_model: int) -> tuple[Tensor, Tensor]:
    """States of texts of these lengths, filled up to n tokens; those of padding are not zero."""
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(len(lengths), n, d_model, generator=generator)
    return hidden, torch.arange(n) < torch.tensor(lengths)[:, None]


def _some_states(draw: Draw) -> tuple[Tensor, Tensor]:
    batch, n, d_model = draw.sizes(3, range(2, 9))
    lengths = draw.ids(batch, 1, among=range(1, n + 1))
    lengths[draw.randrange(batch)] = draw.randrange(1, n)  # some padding there is
    mask = torch.arange(n) < lengths
    return draw.tensor(batch, n, d_model) + draw.choice([0, 2]), mask


def _total(hidden: Tensor, mask: Tensor) -> Tensor:
    """The sum of the states over the tokens that the mask leaves, (batch, d_model)."""
    return hidden.masked_fill(~mask[..., None], 0).sum(1)


def _mean_pool(hidden: Tensor, mask: Tensor) -> Tensor:
    return _total(hidden, mask) / mask.sum(1, keepdim=True)


mean_pool = Exercise(
    name="mean_pool",
    reference=_mean_pool,
    cases=(
        _states(0, (5, 2, 4), 6, 4),
        _states(1, (7, 3), 7, 5),
        _states(2, (1, 8, 4, 6), 9, 3),
        _states(3, (2, 4, 1), 5, 1),
        *drawn(8, _some_states),
    ),
    misconceptions=(
        Misconception(
            "the padding is averaged in. Its states are not zero, and what they do to the mean "
            "depends on how long the other texts of the batch are. Leave them out.",
            lambda hidden, mask: hidden.mean(1),
        ),
        Misconception(
            "the padding is set to zero, but it is still counted: divide by the number of real "
            "tokens, mask.sum(1, keepdim=True).",
            lambda hidden, mask: _total(hidden, mask) / mask.size(1),
        ),
        Misconception(
            "the mask is taken the wrong way round: True stands for a real token, and this is the "
            "mean over the padding.",
            lambda hidden, mask: _mean_pool(hidden, ~mask),
        ),
        Misconception(
            "all texts are divided by the same number, the mean length of the batch. Each text has "
            "a length of its own.",
            lambda hidden, mask: _total(hidden, mask) / mask.sum() * len(mask),
        ),
        Misconception(
            "this is one mean for the whole batch: hidden[mask] puts the tokens of all texts in "
            "one list. Sum over dimension 1, the tokens, so that each text keeps a row.",
            lambda hidden, mask: hidden[mask].mean(0),
        ),
        Misconception(
            "this is the sum. A long text would get a longer vector than a short one: divide by "
            "the number of real tokens.",
            _total,
        ),
        Misconception(
            "this is the state of [CLS] alone, the other way to make one vector of a text. Here "
            "the mean over all real tokens is asked for.",
            lambda hidden, mask: hidden[:, 0],
        ),
        Misconception(
            "this is the largest value of each feature, not the mean.",
            lambda hidden, mask: hidden.masked_fill(~mask[..., None], -torch.inf).amax(1),
        ),
        Misconception(
            "the numbers of real tokens are (batch,), so torch takes them for features: it "
            "stretches from the right. Make them (batch, 1), with keepdim=True.",
            lambda hidden, mask: _total(hidden, mask) / mask.sum(1),
        ),
    ),
    first_step="mask[..., None] is (batch, token, 1): with it, make the states of padding zero.",
)


def _ids(n: int) -> list[int]:
    """The ids of a text with n pieces, no two the same."""
    return [CLS, *range(2000, 1998 + n), SEP]


def _some_ids(draw: Draw) -> tuple[list[int], int]:
    """Texts around a length, in which the same pieces come again."""
    length = draw.randint(1, 18)
    n = max(2, length + draw.choice([-3, 0, 1, 2, 4, 11]))
    return [CLS, *draw.choices(range(2000, 2006), k=n - 2), SEP], length


def _cut(ids: list[int], length: int, head: int, tail: int) -> list[int]:
    if len(ids) <= length:
        return ids
    return ids[:head] + ids[len(ids) - tail :]


def _head_and_tail(ids: list[int], length: int) -> list[int]:
    return _cut(ids, length, length // 4, length - length // 4)


def _unchecked(ids: list[int], length: int) -> list[int]:
    head = length // 4
    return ids[:head] + ids[head - length :]


def _tail_without_sep(ids: list[int], length: int) -> list[int]:
    if len(ids) <= length:
        return ids
    head = length // 4
    return ids[:head] + ids[head - length : -1]


head_and_tail = ExactExercise(
    name="head_and_tail",
    reference=_head_and_tail,
    cases=(
        *(
            (_ids(n), length)
            for n, length in (
                (10, 8),
                (6, 8),
                (8, 8),
                (9, 8),
                (25, 10),
                (15, 6),
                (40, 16),
                (9, 3),
                (14, 20),
                (30, 5),
            )
        ),
        *drawn(10, _some_ids),
    ),
    misconceptions=(
        Misconception(
            "this is the beginning alone. [SEP] is lost, and with it the end of the review, where "
            "the verdict mostly stands.",
            lambda ids, length: ids[:length],
        ),
        Misconception(
            "this is the beginning with [SEP] put behind, as most tools cut. The end of the "
            "review, where the verdict mostly stands, is lost.",
            lambda ids, length: _cut(ids, length, length - 1, 1),
        ),
        Misconception(
            "this is the end alone. [CLS] is lost, which stands for the whole text.",
            lambda ids, length: ids[-length:],
        ),
        Misconception(
            "of the beginning only [CLS] is kept. The first quarter should be there, length // 4 "
            "ids.",
            lambda ids, length: _cut(ids, length, 1, length - 1),
        ),
        Misconception(
            "the head and the tail are halves. The head is a quarter, length // 4 ids, and the "
            "tail is the rest of the length.",
            lambda ids, length: _cut(ids, length, length // 2, length - length // 2),
        ),
        Misconception(
            "the head has three quarters and the tail one. It should be the other way round: the "
            "end of a review says more.",
            lambda ids, length: _cut(ids, length, length - length // 4, length // 4),
        ),
        Misconception(
            "the tail is missing: behind the first quarter the last ids should follow, as many as "
            "there is room for.",
            lambda ids, length: _cut(ids, length, length // 4, 0),
        ),
        Misconception(
            "the head is missing: of a long text this is the tail alone, length - length // 4 ids.",
            lambda ids, length: _cut(ids, length, 0, length - length // 4),
        ),
        Misconception(
            "the tail has length ids, and the head comes on top. Leave room for the head: the tail "
            "has length - length // 4.",
            lambda ids, length: _cut(ids, length, length // 4, length),
        ),
        Misconception(
            "the whole text follows behind the head, where only its end should.",
            lambda ids, length: _cut(ids, length, length // 4, len(ids)),
        ),
        Misconception(
            "nothing is cut: a text with more than length ids is too long.",
            lambda ids, length: ids,
        ),
        Misconception(
            "the head has one id too few: it is ids[: length // 4].",
            lambda ids, length: _cut(ids, length, max(length // 4 - 1, 0), length - length // 4),
        ),
        Misconception(
            "a short text is cut as well, and then the head and the tail overlap: some pieces come "
            "twice. Return ids as they are when there are at most length.",
            _unchecked,
        ),
        Misconception(
            "a long text has one id too many: [CLS] is part of the quarter, so ids[: length // 4] "
            "already has it.",
            lambda ids, length: _cut(ids, length, length // 4 + 1, length - length // 4),
        ),
        Misconception(
            "the last id is cut off, and that is [SEP]: a slice that ends at -1 stops before the "
            "last. Leave its end empty, as in ids[-3:].",
            _tail_without_sep,
        ),
    ),
    first_step="Return ids when len(ids) <= length; then build the head, ids[: length // 4].",
)


def _some_pieces(draw: Draw) -> tuple[list[int], list[int | None]]:
    """Words of no piece up to three, few kinds of labels, and more or less of special pieces."""
    labels = draw.choices(range(4), k=draw.randint(1, 8))
    words = [word for word in range(len(labels)) for _ in range(draw.choice([0, 1, 1, 2, 3]))]
    return labels, [None] * draw.randint(0, 2) + words + [None] * draw.randint(0, 3)


def _align_labels(labels: list[int], word_ids: list[int | None]) -> list[int]:
    return _aligned(labels, word_ids)


def _aligned(
    labels: list[int],
    word_ids: list[int | None],
    special: int = IGNORED,
    later: Callable[[int], int] = lambda label: IGNORED,
) -> list[int]:
    """later: from the label of a word to that of its pieces behind the first."""
    aligned, before = [], None
    for word in word_ids:
        if word is None:
            aligned.append(special)
        else:
            aligned.append(labels[word] if word != before else later(labels[word]))
        before = word
    return aligned


def _by_place(labels: list[int], word_ids: list[int | None]) -> list[int]:
    aligned = _align_labels(labels, word_ids)
    return [IGNORED if label == IGNORED else labels[i] for i, label in enumerate(aligned)]


def _one_after_the_other(labels: list[int], word_ids: list[int | None]) -> list[int]:
    remaining = iter(labels)
    aligned = _align_labels(labels, word_ids)
    return [IGNORED if label == IGNORED else next(remaining) for label in aligned]


def _changes_of_label(labels: list[int], word_ids: list[int | None]) -> list[int]:
    aligned, before = [], None
    for word in word_ids:
        label = None if word is None else labels[word]
        aligned.append(IGNORED if label is None or label == before else label)
        before = label
    return aligned


def _without_special(labels: list[int], word_ids: list[int | None]) -> list[int]:
    aligned = zip(_align_labels(labels, word_ids), word_ids, strict=True)
    return [label for label, word in aligned if word is not None]


align_labels = ExactExercise(
    name="align_labels",
    reference=_align_labels,
    cases=(
        ([1, 0, 2], [None, 0, 1, 1, 2, None]),
        ([2, 2, 0, 0, 1], [None, 0, 0, 1, 2, 2, 2, 3, 4, None, None]),
        ([3, 5, 4, 1, 6, 2, 7], [None, 0, 0, 1, 2, None]),  # of a longer sentence, cut off
        ([1, 3, 2], [None, 0, 0, 2, None]),  # word 1 is made of characters that are taken out
        ([], [None, None]),
        *drawn(10, _some_pieces),
    ),
    misconceptions=(
        Misconception(
            "every piece of a word has its label, so a word with four pieces counts four times. "
            "Label the first piece of a word; those behind it get -100.",
            lambda labels, word_ids: _aligned(labels, word_ids, later=lambda label: label),
        ),
        Misconception(
            "the later pieces of a word have label 0, and 0 is a label like others: the model "
            "would learn that they are no part of a name. They get -100.",
            lambda labels, word_ids: _aligned(labels, word_ids, later=lambda label: 0),
        ),
        Misconception(
            "[CLS], [SEP] and padding have label 0, and the loss would ask for them. They belong "
            "to no word, so they get -100.",
            lambda labels, word_ids: _aligned(labels, word_ids, special=0),
        ),
        Misconception(
            "the label is taken by the place of the piece, labels[i]. There are more pieces than "
            "words: take it by the number of the word, labels[word_ids[i]].",
            _by_place,
        ),
        Misconception(
            "the labels are used up one after the other, but a word may have no piece at all, and "
            "then its label must be left out. Take labels[word_ids[i]].",
            _one_after_the_other,
        ),
        Misconception(
            "the last piece of a word has its label; the first one should.",
            lambda labels, word_ids: _align_labels(labels, word_ids[::-1])[::-1],
        ),
        Misconception(
            "a word has no label when its neighbour has the same one. Compare the numbers of the "
            "words, not their labels: the same label may follow for another word.",
            _changes_of_label,
        ),
        Misconception(
            "the first word has no label: its number is 0, and 0 counts as false. Ask whether the "
            "number is None.",
            lambda labels, word_ids: _align_labels(labels, [word or None for word in word_ids]),
        ),
        Misconception(
            "[CLS], [SEP] and padding are left out, so the list is too short and the labels stand "
            "at the wrong pieces. Every piece needs an entry, these -100.",
            _without_special,
        ),
    ),
    first_step="Go through word_ids and keep the one before: a new number begins a word.",
)

Span = tuple[str, int, int]


def _some_tags(draw: Draw) -> tuple[list[str]]:
    """Tags of two types, any behind any other; some types begin like a mark, or like another."""
    kinds = draw.sample(["PER", "PERS", "VER", "BOOK", "ITEM", "ORG", "OBI"], 2)
    tags = ["O", *(f"{mark}-{kind}" for mark in "BI" for kind in kinds)]
    return (draw.choices(tags, k=draw.randint(1, 9)),)


def _spans_of(tags: list[str]) -> list[Span]:
    return _spans(tags)


def _spans(
    tags: list[str],
    begins: Callable[[str], bool] = lambda tag: tag != "O",
    goes_on: Callable[[str, str], bool] = lambda kind, tag: tag == f"I-{kind}",
) -> list[Span]:
    """begins: whether a tag begins a span, unless it goes on with one.

    goes_on: from the type of the open span and the next tag to whether it is part of the span.
    """
    spans, kind, start = [], None, 0
    for i, tag in enumerate([*tags, "O"]):  # the O behind the sentence closes what is open
        if kind is not None and goes_on(kind, tag):
            continue
        if kind is not None:
            spans.append((kind, start, i))
            kind = None
        if begins(tag):
            kind, start = tag[2:], i
    return spans


def _is_begin(tag: str) -> bool:
    return tag.startswith("B-")


def _is_inside(kind: str, tag: str) -> bool:
    return tag.startswith("I-")


spans_of = ExactExercise(
    name="spans_of",
    reference=_spans_of,
    cases=(
        *(
            (tags.split(),)
            for tags in (
                "B-PER I-PER O B-LOC",
                "O B-ORG I-ORG I-ORG O O",
                "B-PER B-PER I-PER O",
                "O I-ORG I-ORG O B-LOC O",
                "B-PER I-LOC O",
                "I-WORK I-WORK O B-LOC B-ORG I-ORG",
                "O O",
                "B-ITEM I-ITEM I-BOOK O",
                "B-PER I-VER I-VER B-ITEM",
                "",
            )
        ),
        *drawn(10, _some_tags),
    ),
    misconceptions=(
        Misconception(
            "the end is the place of the last word; it should be one further, as in Python's "
            "slices: words[start:end] is the name.",
            lambda tags: [(kind, start, end - 1) for kind, start, end in _spans_of(tags)],
        ),
        Misconception(
            "a span that reaches the end of the sentence is forgotten: no tag comes behind it that "
            "would close it. Look once more behind the loop.",
            lambda tags: [span for span in _spans_of(tags) if span[2] < len(tags)],
        ),
        Misconception(
            "two neighbours of the same type become one span. A B- always begins a new one: that "
            "is what it is for.",
            lambda tags: _spans(tags, goes_on=lambda kind, tag: tag[2:] == kind),
        ),
        Misconception(
            "only a B- can begin a span here, and an I- that has none to go on with is left out. "
            "A model does write I- behind O; it begins a span, too.",
            lambda tags: _spans(tags, begins=_is_begin),
        ),
        Misconception(
            "only a B- changes the type here: an I- behind O is left out, and an I- of another "
            "type is taken into the open span. Both begin a span of their own.",
            lambda tags: _spans(tags, begins=_is_begin, goes_on=_is_inside),
        ),
        Misconception(
            "an I- of another type is taken into the open span. Compare the types: when they "
            "differ, a new span begins.",
            lambda tags: _spans(tags, goes_on=_is_inside),
        ),
        Misconception(
            "each tagged word is a span of its own: an I- of the same type goes on with the span "
            "before it.",
            lambda tags: _spans(tags, goes_on=lambda kind, tag: False),
        ),
        Misconception(
            "the type still has its B- or I-. These say where a span begins; the type is what "
            "comes behind, tag[2:].",
            lambda tags: [(tags[start], start, end) for _, start, end in _spans_of(tags)],
        ),
        Misconception(
            "words with O become names, too. O says that a word is part of none: leave it out.",
            lambda tags: sorted(
                [*_spans_of(tags), *((t[2:], i, i + 1) for i, t in enumerate(tags) if t == "O")],
                key=lambda span: span[1],
            ),
        ),
        Misconception(
            "start and end have changed places: a span is (type, start, end).",
            lambda tags: [(kind, end, start) for kind, start, end in _spans_of(tags)],
        ),
        Misconception(
            "the type stands in the middle: a span is (type, start, end).",
            lambda tags: [(start, kind, end) for kind, start, end in _spans_of(tags)],
        ),
        Misconception(
            "the type stands at the end: a span is (type, start, end).",
            lambda tags: [(start, end, kind) for kind, start, end in _spans_of(tags)],
        ),
        Misconception(
            "each name ends behind its first word: the I- of the same type that follow belong to "
            "it.",
            lambda tags: [(kind, start, start + 1) for kind, start, _ in _spans_of(tags)],
        ),
        Misconception(
            "the end is one too far: it is the place behind the last word, so that "
            "words[start:end] is the name.",
            lambda tags: [(kind, start, end + 1) for kind, start, end in _spans_of(tags)],
        ),
        Misconception(
            "the type has lost letters: lstrip takes away every B, I and - in front, and not just "
            "a B- or I-. Take tag[2:].",
            lambda tags: [(k.lstrip("BI-"), start, end) for k, start, end in _spans_of(tags)],
        ),
    ),
    first_step="Keep the type and the start of the open span; a B-, an O or the end closes it.",
)


def _logits(seed: int, n: int, longest: int, shift: float = 0.0) -> tuple[Tensor, Tensor, int]:
    generator = torch.Generator().manual_seed(seed)
    start, end = 2 * torch.randn(2, n, generator=generator) + shift
    return start, end, longest


def _some_logits(draw: Draw) -> tuple[Tensor, Tensor, int]:
    """Sums that are all far above or below zero, and texts that in part are no answer."""
    n = draw.randint(2, 13)
    start, end = draw.tensor(2, n, scale=draw.choice([1, 4])) + draw.choice([-2000, 0, 20])
    outside = torch.arange(n) < draw.choice([0, n // 3])
    start, end = (logits.masked_fill(outside, -1e4) for logits in (start, end))
    return start, end, draw.randint(2, 6)


def _sums(start: Tensor, end: Tensor) -> Tensor:
    """The score of each span, (first, last)."""
    return start[:, None] + end


def _best(scores: Tensor, least: int, most: int) -> Tensor:
    """The first and last place of the best span; least, most: of last - first."""
    n = len(scores)
    further = torch.arange(n) - torch.arange(n)[:, None]
    allowed = (further >= least) & (further <= most)
    return torch.tensor(divmod(int(scores.masked_fill(~allowed, -torch.inf).argmax()), n))


def _best_span(start: Tensor, end: Tensor, longest: int) -> Tensor:
    return _best(_sums(start, end), 0, longest - 1)


def _best_end_behind_best_start(start: Tensor, end: Tensor, longest: int) -> Tensor:
    first = start.argmax()
    return torch.stack([first, first + end[first : first + longest].argmax()])


best_span = Exercise(
    name="best_span",
    reference=_best_span,
    cases=(  # seeds with which the spans are short and long, and the mistakes differ
        _logits(901, 10, 3),
        _logits(580, 12, 4),
        _logits(7, 8, 2),
        _logits(9, 9, 3, shift=-6.0),  # so that all sums are negative
        _logits(52, 16, 5),
        _logits(263, 6, 20),
        *drawn(10, _some_logits),
    ),
    misconceptions=(
        Misconception(
            "the best start and the best end are looked for on their own, so the answer may end "
            "before it begins, or become too long. Look for the best pair that is allowed.",
            lambda start, end, longest: torch.stack([start.argmax(), end.argmax()]),
        ),
        Misconception(
            "the best start is taken first, then the best end behind it. A second-best start may "
            "have a much better end: compare the sums of all allowed pairs.",
            _best_end_behind_best_start,
        ),
        Misconception(
            "the length has no limit: last must be below first + longest.",
            lambda start, end, longest: _best(_sums(start, end), 0, len(start)),
        ),
        Misconception(
            "the answer may have one token too many: from first to last there are "
            "last - first + 1 tokens, and at most longest are allowed.",
            lambda start, end, longest: _best(_sums(start, end), 0, longest),
        ),
        Misconception(
            "the length is limited, but the answer may end before it begins: first <= last is "
            "missing.",
            lambda start, end, longest: _best(_sums(start, end), -len(start), longest - 1),
        ),
        Misconception(
            "an answer of one token is never found: last may be the same as first.",
            lambda start, end, longest: _best(_sums(start, end), 1, longest - 1),
        ),
        Misconception(
            "last is one too far: here it is the last token of the answer, not the one behind it "
            "as in Python's slices.",
            lambda *arguments: _best_span(*arguments) + torch.tensor([0, 1]),
        ),
        Misconception(
            "the logits are multiplied. Two negative ones would make a good pair. Probabilities "
            "are multiplied; their logarithms, and so logits, are added.",
            lambda start, end, longest: _best(start[:, None] * end, 0, longest - 1),
        ),
        Misconception(
            "start and end are exchanged: the logit of the start belongs to first, that of the end "
            "to last.",
            lambda start, end, longest: _best_span(end, start, longest),
        ),
    ),
    first_step="start[:, None] + end is (first, last), the sum for every pair; which are allowed?",
)

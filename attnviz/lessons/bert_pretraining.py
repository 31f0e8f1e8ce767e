"""The exercises of lesson 07, with the mistakes that their checks recognise."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attnviz.lessons.drawing import Draw, drawn
from attnviz.lessons.exercise import Exercise, Misconception
from attnviz.models.bert_tasks import IGNORED, PreTrainingOutput

PAD, UNKNOWN, CLS, SEP, MASK = range(5)
_FIRST = 5  # the first id that is no special piece


def _rows(seed: int, batch: int, n: int, size: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Rows of pieces with [CLS], [SEP] and padding, and what the dice say for each place."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(_FIRST, size, (batch, n), generator=generator)
    ids[:, 0], ids[:, n // 2], ids[0, -2:] = CLS, SEP, PAD
    ids[0, 2], ids[0, 3] = UNKNOWN, MASK
    chance, fate = torch.rand(2, batch, n, generator=generator)
    chance = chance / 3  # so that many are chosen
    chance[:, 0], fate[:, 0] = 0.01, 0.5  # of the special pieces, too
    chance[0, -1], fate[0, -1] = 0.02, 0.85
    chance[0, 2:4], fate[0, 2:4] = 0.03, 0.5
    for place, value in enumerate((0.1, 0.85, 0.95, 0.88)):  # each fate at least once
        chance[1, 1 + place], fate[1, 1 + place] = 0.05, value
    return ids, chance, fate, torch.randint(_FIRST, size, (batch, n), generator=generator)


def _on_the_borders(draw: Draw) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Few kinds of pieces, special ones and the first usual one among them, and round dice.

    In double precision: a float32 may be 0.9 or below it, depending on how one compares.
    """
    batch, n = draw.sizes(2, range(2, 10))
    ids, other = draw.ids(batch, n, among=range(12)), draw.ids(batch, n, among=range(5, 40))
    chance = _among(draw, (0.0, 0.1, 0.14, 0.15, 0.2, 0.9), batch, n)
    fate = _among(draw, (0.0, 0.5, 0.79, 0.8, 0.85, 0.89, 0.9, 0.99), batch, n)
    return ids, chance, fate, other


def _among(draw: Draw, values: tuple[float, ...], *shape: int) -> Tensor:
    return torch.tensor(values, dtype=torch.double)[draw.ids(*shape, among=range(len(values)))]


def _mask_tokens(ids: Tensor, drawn: Tensor, fate: Tensor, other: Tensor) -> Tensor:
    chosen = (drawn < 0.15) & (ids >= _FIRST)
    input_ids = torch.where(chosen & (fate < 0.8), MASK, ids)
    input_ids = torch.where(chosen & (fate >= 0.8) & (fate < 0.9), other, input_ids)
    return torch.stack([input_ids, torch.where(chosen, ids, IGNORED)])


def _masking(
    ids: Tensor,
    drawn: Tensor,
    fate: Tensor,
    other: Tensor,
    *,
    first: int = _FIRST,
    mask: float = 0.8,
    random: float = 0.1,
    random_from: float | None = None,
    inverted: bool = False,
    everywhere: bool = False,
    ignored: int = IGNORED,
) -> Tensor:
    usual = ids >= first
    chosen = usual & ((drawn >= 0.15) if inverted else (drawn < 0.15))
    touched = usual if everywhere else chosen
    input_ids = torch.where(touched & (fate < mask), MASK, ids)
    start = mask if random_from is None else random_from
    changed = touched & (fate >= start) & (fate < mask + random)
    input_ids = torch.where(changed, other, input_ids)
    return torch.stack([input_ids, torch.where(chosen, ids, ignored)])


def _with_labels(result: Tensor, labels: Tensor) -> Tensor:
    return torch.stack([result[0], labels])


def _labels_after_hiding(*arguments: Tensor) -> Tensor:
    input_ids, labels = _mask_tokens(*arguments)
    return torch.stack([input_ids, torch.where(labels != IGNORED, input_ids, IGNORED)])


def _labels_of_the_changed(ids: Tensor, *dice: Tensor) -> Tensor:
    input_ids, labels = _mask_tokens(ids, *dice)
    return torch.stack([input_ids, torch.where(input_ids != ids, labels, IGNORED)])


def _labels_behind_mask(ids: Tensor, *dice: Tensor) -> Tensor:
    input_ids, labels = _mask_tokens(ids, *dice)
    return torch.stack([input_ids, torch.where(input_ids == MASK, labels, IGNORED)])


def _only_special(ids: Tensor, *dice: Tensor) -> Tensor:
    everything = _masking(ids, *dice, first=PAD)
    return torch.where(ids < _FIRST, everything, torch.stack([ids, torch.full_like(ids, IGNORED)]))


def _labels_of_the_others(ids: Tensor, *dice: Tensor) -> Tensor:
    input_ids, labels = _mask_tokens(ids, *dice)
    return torch.stack([input_ids, torch.where(labels == IGNORED, ids, IGNORED)])


mask_tokens = Exercise(
    name="mask_tokens",
    reference=_mask_tokens,
    cases=(_rows(0, 2, 12, 40), _rows(1, 4, 20, 30), *drawn(10, _on_the_borders)),
    misconceptions=(
        Misconception(
            "special pieces are hidden as well: [CLS], [SEP] or padding. There is nothing to find "
            "out about them. Choose only where ids >= 5.",
            lambda *arguments: _masking(*arguments, first=PAD),
        ),
        Misconception(
            "[MASK] itself is chosen as well. Its id is 4, and all from 0 to 4 are special: choose "
            "only where ids >= 5.",
            lambda *arguments: _masking(*arguments, first=MASK),
        ),
        Misconception(
            "the piece with id 5 is never chosen. Only 0 to 4 are special: choose where ids >= 5.",
            lambda *arguments: _masking(*arguments, first=_FIRST + 1),
        ),
        Misconception(
            "only special pieces are chosen, ids 0 to 4, where all the others should be.",
            _only_special,
        ),
        Misconception(
            "no piece is [MASK] in the end: where the other piece is put in, the rest is taken "
            "from ids again, and what was hidden is lost. Take it from the input made so far.",
            lambda *arguments: _masking(*arguments, mask=0.0, random=0.9, random_from=0.8),
        ),
        Misconception(
            "all chosen pieces become [MASK]. Only those with fate < 0.8 do; the next tenth gets "
            "another piece, and the last stays.",
            lambda *arguments: _masking(*arguments, mask=1.0, random=0.0),
        ),
        Misconception(
            "no piece is exchanged for another: where fate is from 0.8 to 0.9, the input is other.",
            lambda *arguments: _masking(*arguments, random=0.0),
        ),
        Misconception(
            "all that is not behind [MASK] is exchanged. From fate 0.9 on the piece stays as it "
            "is, and is asked for all the same.",
            lambda *arguments: _masking(*arguments, random=0.2),
        ),
        Misconception(
            "the shares of [MASK] and of other pieces have changed places.",
            lambda *arguments: _masking(*arguments, mask=0.1, random=0.8),
        ),
        Misconception(
            "pieces that were not chosen are hidden or exchanged, too: the fate counts only where "
            "a piece is chosen.",
            lambda *arguments: _masking(*arguments, everywhere=True),
        ),
        Misconception(
            "85 % are chosen: take the places where drawn is below 0.15.",
            lambda *arguments: _masking(*arguments, inverted=True),
        ),
        Misconception(
            "the labels are made of what is left after hiding, so the answer to most questions "
            "would be [MASK]. Keep the old pieces: labels come from ids.",
            _labels_after_hiding,
        ),
        Misconception(
            "chosen pieces that stay as they are get no label. They are asked for, too: that is "
            "why the model cannot trust any piece that it reads.",
            _labels_of_the_changed,
        ),
        Misconception(
            "only places with [MASK] have a label. Whatever became of a chosen piece, it is asked "
            "for: label all that are chosen.",
            _labels_behind_mask,
        ),
        Misconception(
            "every piece has a label, so the model is asked for what it can read. Where nothing "
            "was chosen, the label is -100.",
            lambda ids, *dice: _with_labels(_mask_tokens(ids, *dice), ids),
        ),
        Misconception(
            "the labels are the wrong way round: -100 stands where a piece was chosen.",
            _labels_of_the_others,
        ),
        Misconception(
            "labels that ask for nothing are 0 here, the id of [PAD]; the loss would ask for "
            "padding. Use -100.",
            lambda *arguments: _masking(*arguments, ignored=PAD),
        ),
        Misconception(
            "the labels are moved by one place, as for a model that writes the next token. Here "
            "a place is asked for its own piece.",
            lambda *arguments: _with_labels(
                _mask_tokens(*arguments), _mask_tokens(*arguments)[1].roll(-1, 1)
            ),
        ),
    ),
    first_step="chosen = (drawn < 0.15) & (ids >= 5), then torch.where(chosen, ids, -100).",
)


def _questions(seed: int, batch: int, n: int, size: int) -> tuple[Tensor, Tensor]:
    """Logits, and labels that ask for more in one row than in another."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(_FIRST, size, (batch, n), generator=generator)
    asked = torch.rand(batch, n, generator=generator) < 0.3
    asked[0, 1:4], asked[1], asked[1, 2], asked[:, 0] = True, False, True, False
    return 2 * torch.randn(batch, n, size, generator=generator), labels.where(asked, IGNORED)


def _some_questions(draw: Draw) -> tuple[Tensor, Tensor]:
    """A question in each row at least, for any piece, and a place where nothing is asked for."""
    batch, n, size = draw.sizes(3, range(2, 10))
    logits = draw.tensor(batch, n, size, scale=3) + draw.choice([-20, 0, 20])
    asked = draw.allowed(batch, n, share=draw.choice([0.1, 0.5, 0.9]))
    if asked.all():
        asked[0, draw.randrange(n)] = False
    return logits, draw.ids(batch, n, among=range(size)).where(asked, IGNORED)


def _of_one_place(draw: Draw) -> tuple[Tensor, Tensor]:
    return draw.tensor(4, 1, 6), torch.tensor([[3], [IGNORED], [0], [5]])


def _chosen_p(logits: Tensor, labels: Tensor) -> Tensor:
    """The probabilities of what is asked for, (asked,)."""
    asked = labels != IGNORED
    return logits[asked].softmax(-1).gather(-1, labels[asked][:, None])


def _places(logits: Tensor, labels: Tensor) -> Tensor:
    """The loss of each place, (batch, token), zero where nothing is asked for."""
    return F.cross_entropy(logits.mT, labels, reduction="none")


def _mean_of_rows(values: Tensor, labels: Tensor) -> Tensor:
    asked = labels != IGNORED
    return ((values * asked).sum(1) / asked.sum(1)).mean()


def _loss(logits: Tensor, labels: Tensor) -> Tensor:
    return F.cross_entropy(logits.flatten(0, 1), labels.flatten())


masked_loss = Exercise(
    name="masked_loss",
    reference=_loss,
    cases=(
        _questions(2, 2, 8, 12),
        _questions(3, 3, 10, 9),
        _of_one_place(Draw(0)),
        *drawn(9, _some_questions),
    ),
    misconceptions=(
        Misconception(
            "the sum is divided by the number of all places. So the loss looks seven times better "
            "than it is, and changes with the padding. Divide by the number of questions.",
            lambda logits, labels: _places(logits, labels).mean(),
        ),
        Misconception(
            "-100 is taken as the question for piece 0: the loss is averaged over places where "
            "nothing is asked for. Leave them out.",
            lambda logits, labels: _loss(logits, labels.clamp(min=0)),
        ),
        Misconception(
            "there is a softmax in front of the cross-entropy, which has one of its own. The "
            "probabilities are taken for logits, and the loss can hardly move.",
            lambda logits, labels: _loss(logits.softmax(-1), labels),
        ),
        Misconception(
            "F.cross_entropy looks for the pieces in dimension 1, where the places are. Give it "
            "logits[asked] and labels[asked], or exchange the last two dimensions of logits.",
            F.cross_entropy,
        ),
        Misconception(
            "the logarithm is missing: F.nll_loss takes log probabilities, and only turns the sign "
            "and takes the mean. Give it log_softmax.",
            lambda logits, labels: -_chosen_p(logits, labels).mean(),
        ),
        Misconception(
            "there is no softmax: these are the logits of the right pieces, with the sign turned. "
            "A logit says something only beside the others; take log_softmax first.",
            lambda logits, labels: F.nll_loss(logits.mT, labels),
        ),
        Misconception(
            "questions for piece 0 are left out. Only -100 says that nothing is asked for.",
            lambda logits, labels: _loss(logits, torch.where(labels == 0, IGNORED, labels)),
        ),
        Misconception(
            "the mean is divided once more by the number of questions; F.cross_entropy has taken "
            "the mean already.",
            lambda logits, labels: _loss(logits, labels) / (labels != IGNORED).sum(),
        ),
        Misconception(
            "the division is the wrong way round: divide the sum by the number of questions.",
            lambda logits, labels: 1 / _loss(logits, labels),
        ),
        Misconception(
            "the softmax runs over the questions. logits[asked] is (asked, piece), and the pieces "
            "are its last dimension.",
            lambda logits, labels: F.nll_loss(
                logits[labels != IGNORED].log_softmax(0), labels[labels != IGNORED]
            ),
        ),
        Misconception(
            "logits and labels are moved by one place, as for a model that writes the next token. "
            "Here a place is asked for its own piece.",
            lambda logits, labels: _loss(logits[:, :-1], labels[:, 1:]),
        ),
        Misconception(
            "each row counts the same, however many questions it has. Take one mean over all "
            "questions.",
            lambda logits, labels: _mean_of_rows(_places(logits, labels), labels),
        ),
        Misconception(
            "this is the sum over the questions; take their mean, or the learning rate would "
            "depend on the size of the batch.",
            lambda logits, labels: _places(logits, labels).sum(),
        ),
        Misconception(
            "the pieces are brought to the second dimension with a reshape, which mixes places "
            "with pieces. Flatten batch and token together, or transpose.",
            lambda logits, labels: F.cross_entropy(
                logits.reshape(len(logits), logits.size(2), -1), labels
            ),
        ),
        Misconception(
            "the softmax runs over the places instead of the pieces.",
            lambda logits, labels: F.nll_loss(logits.log_softmax(1).mT, labels),
        ),
        Misconception(
            "the sign is missing: a loss is minus the log probability.",
            lambda logits, labels: -_loss(logits, labels),
        ),
        Misconception(
            "this is in bits, with the logarithm to base 2. The numbers of the lesson, and of "
            "nearly everyone, are in nats: the natural logarithm.",
            lambda logits, labels: _loss(logits, labels) / math.log(2),
        ),
    ),
    first_step="asked = labels != -100 selects the questions: logits[asked] is (asked, piece).",
)


def _some_counts(draw: Draw) -> tuple[Tensor]:
    """Counts of texts of a few pieces up to a book; some pieces never occur."""
    most = draw.choice([3, 40, 10_000])
    counts = draw.ids(draw.randint(2, 9), among=range(1, most + 1))
    return (counts.where(draw.allowed(len(counts)), 0),)


def _shares(counts: Tensor) -> Tensor:
    """Of the pieces that occur."""
    return counts[counts > 0] / counts.sum()


def _p_log_p(p: Tensor) -> Tensor:
    return -(p * p.log()).sum()


def _entropy(counts: Tensor) -> Tensor:
    p = counts[counts > 0] / counts.sum()
    return -(p * p.log()).sum()


def _plain_entropy(counts: Tensor) -> Tensor:
    p = counts / counts.sum()
    return -(p * p.log()).sum()


unigram_entropy = Exercise(
    name="unigram_entropy",
    reference=_entropy,
    cases=(
        (torch.tensor([8, 4, 2, 1, 1]),),
        (torch.tensor([0, 0, 3, 0, 5, 1]),),
        (torch.tensor([50, 30, 0, 20]),),
        (torch.tensor([4]),),
        *drawn(8, _some_counts),
    ),
    misconceptions=(
        Misconception(
            "it gives nan where a piece never occurs: 0 · log 0 is no number. Leave out the counts "
            "that are 0; they add nothing.",
            _plain_entropy,
        ),
        Misconception(
            "this is in bits, with the logarithm to base 2. To compare with a loss, take nats: "
            ".log().",
            lambda counts: _entropy(counts) / math.log(2),
        ),
        Misconception(
            "each piece counts the same here. A frequent piece is asked for more often: weigh "
            "-log p by p.",
            lambda counts: -(counts[counts > 0] / counts.sum()).log().mean(),
        ),
        Misconception(
            "this is the loss of guessing uniformly, log V; it does not look at the counts.",
            lambda counts: torch.tensor(math.log(len(counts))),
        ),
        Misconception(
            "this is the logarithm of how many pieces occur; how often they do does not matter.",
            lambda counts: (counts > 0).sum().log(),
        ),
        Misconception(
            "the logarithms are weighed by the counts, so this is the loss of the whole text "
            "together. Weigh them by the shares, to get the mean of one piece.",
            lambda counts: _entropy(counts) * counts.sum(),
        ),
        Misconception(
            "the counts are taken as they are: divide them by their sum first, to get shares.",
            lambda counts: -torch.xlogy(counts, counts).sum(),
        ),
        Misconception(
            "the shares are upside down: a share is a count divided by the sum of all.",
            lambda counts: _p_log_p(counts.sum() / counts[counts > 0]),
        ),
        Misconception(
            "the shares are upside down, and infinite where a piece never occurs: a share is a "
            "count divided by the sum of all.",
            lambda counts: _p_log_p(counts.sum() / counts),
        ),
        Misconception(
            "the counts are multiplied by their sum; divide, to get shares.",
            lambda counts: _p_log_p(counts[counts > 0] * counts.sum()),
        ),
        Misconception(
            "this is the mean over the pieces. The shares weigh already: add up p · log p.",
            lambda counts: _entropy(counts) / len(counts),
        ),
        Misconception(
            "this is the mean over the pieces that occur. The shares weigh already: add up "
            "p · log p.",
            lambda counts: _entropy(counts) / (counts > 0).sum(),
        ),
        Misconception(
            "the logarithm is missing: this adds up p · p, with the sign turned, where p · log p "
            "is asked for.",
            lambda counts: -(counts / counts.sum()).square().sum(),
        ),
        Misconception(
            "pieces that occur once are left out. Only those that never occur add nothing.",
            lambda counts: _p_log_p(counts[counts > 1] / counts.sum()),
        ),
        Misconception(
            "this is e to the power of p where the logarithm of p belongs.",
            lambda counts: -(_shares(counts) * _shares(counts).exp()).sum(),
        ),
        Misconception(
            "p is added to log p; multiply them, so that frequent pieces weigh more.",
            lambda counts: -(_shares(counts) + _shares(counts).log()).sum(),
        ),
        Misconception(
            "p is divided by log p; multiply them.",
            lambda counts: -(_shares(counts) / _shares(counts).log()).sum(),
        ),
        Misconception(
            "this is the perplexity, e to the power of the entropy.",
            lambda counts: _entropy(counts).exp(),
        ),
        Misconception(
            "the sign is missing: the logarithms of shares are negative.",
            lambda counts: -_entropy(counts),
        ),
        Misconception(
            "the counts go through a softmax. They are no logits: divide them by their sum.",
            lambda counts: torch.distributions.Categorical(counts.double().softmax(0)).entropy(),
        ),
        Misconception(
            "this is the share of the most frequent piece: the accuracy of guessing, not its loss.",
            lambda counts: counts.max() / counts.sum(),
        ),
    ),
    first_step="p = counts / counts.sum() are the shares; what is the mean of -log p?",
)


def _two_sentences(draw: Draw) -> tuple[list[int], list[int], int]:
    """Sentences that may have the same pieces; some rows have no place for padding."""
    pieces = [UNKNOWN, MASK, *range(_FIRST, _FIRST + 6)]
    a, b = (draw.choices(pieces, k=draw.randint(1, 7)) for _ in range(2))
    return a, b, len(a) + len(b) + 3 + draw.choice([0, 1, 5, 8])


def _sentence_pair(a: list[int], b: list[int], length: int) -> Tensor:
    ids = [CLS, *a, SEP, *b, SEP]
    types = [0] * (len(a) + 2) + [1] * (len(b) + 1)
    rest = [0] * (length - len(ids))
    return torch.tensor([ids + rest, types + rest, [1] * len(ids) + rest])


def _pair(
    a: list[int],
    b: list[int],
    length: int,
    *,
    start: tuple[int, ...] = (CLS,),
    between: tuple[int, ...] = (SEP,),
    end: tuple[int, ...] = (SEP,),
    early: int = 0,
    padding_type: int = 0,
) -> Tensor:
    """early: how many pieces too soon the second sentence's types begin."""
    ids = [*start, *a, *between, *b, *end]
    first = len(start) + len(a) + len(between) - early
    types = [0] * first + [1] * (len(ids) - first)
    rest = length - len(ids)
    mask = [1] * len(ids) + [0] * rest
    return torch.tensor([ids + [PAD] * rest, types + [padding_type] * rest, mask])


def _with_types(result: Tensor, types: Tensor) -> Tensor:
    return torch.stack([result[0], types * result[2], result[2]])


def _with_mask(result: Tensor, mask: Tensor) -> Tensor:
    return torch.stack([*result[:2], mask])


def _padded_in_front(a: list[int], b: list[int], length: int) -> Tensor:
    return _pair(a, b, length).roll(length - len(a) - len(b) - 3, 1)


sentence_pair = Exercise(
    name="sentence_pair",
    reference=_sentence_pair,
    cases=(
        ([11, 12, 13], [21, 22], 11),
        ([7], [8, 9, 10], 9),
        ([31, 32], [41], 6),
        *drawn(8, _two_sentences),
    ),
    misconceptions=(
        Misconception(
            "the last [SEP] is missing: each of the two sentences ends with one.",
            lambda *arguments: _pair(*arguments, end=()),
        ),
        Misconception(
            "the [SEP] between the sentences is missing.",
            lambda *arguments: _pair(*arguments, between=()),
        ),
        Misconception(
            "[CLS] is missing in front.",
            lambda *arguments: _pair(*arguments, start=()),
        ),
        Misconception(
            "there is a second [CLS] in front of the second sentence; one stands for the pair.",
            lambda a, b, length: _pair(a, b, length, between=(SEP, CLS), early=1),
        ),
        Misconception(
            "the first [SEP] has type 1. It closes the first sentence, so its type is 0.",
            lambda *arguments: _pair(*arguments, early=1),
        ),
        Misconception(
            "the padding has type 1; by custom it has type 0.",
            lambda *arguments: _pair(*arguments, padding_type=1),
        ),
        Misconception(
            "all types are 0: those of the second sentence and its [SEP] are 1.",
            lambda *arguments: _pair(*arguments) * torch.tensor([[1], [0], [1]]),
        ),
        Misconception(
            "all real pieces have type 1; [CLS], the first sentence and its [SEP] have type 0.",
            lambda *arguments: _pair(*arguments)[[0, 2, 2]],
        ),
        Misconception(
            "the types have changed places: the first sentence has type 0, the second type 1.",
            lambda *arguments: _with_types(_pair(*arguments), _pair(*arguments)[1] ^ 1),
        ),
        Misconception(
            "the types are 1 and 2; the model has vectors for types 0 and 1.",
            lambda *arguments: _pair(*arguments) + torch.tensor([[0], [1], [0]]),
        ),
        Misconception(
            "the mask is the wrong way round: 1 stands for a real piece, 0 for padding.",
            lambda *arguments: _with_mask(_pair(*arguments), 1 - _pair(*arguments)[2]),
        ),
        Misconception(
            "the mask lets the model look at padding: it is 0 there.",
            lambda *arguments: _with_mask(_pair(*arguments), torch.ones_like(_pair(*arguments)[2])),
        ),
        Misconception(
            "the padding stands in front; put it behind, as the first place belongs to [CLS].",
            _padded_in_front,
        ),
    ),
    first_step="Begin with ids = [2, *a, 3, *b, 3] and count how many places are left.",
)


class _Model(nn.Module):
    """Scores from the piece at each place and those around it; in training mode others.

    It takes and returns what a `BertForPreTraining` does. What stands for dropout is the same in
    each pass, so that who forgets eval() always gets the same wrong number.
    """

    def __init__(self, draw: Draw, size: int):
        super().__init__()
        self.here = nn.Parameter(draw.tensor(size, size) + 1.5 * torch.eye(size))
        self.around = nn.Parameter(draw.tensor(size, size))
        self.dropped = draw.tensor(size, size, scale=3)

    def forward(
        self,
        input_ids: Tensor,
        mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        labels: Tensor | None = None,
        next_labels: Tensor | None = None,
        need_logits: bool = True,
    ) -> PreTrainingOutput:
        here = self.here + self.dropped if self.training else self.here
        around = self.around[input_ids].cumsum(1) + self.around[input_ids.flip(1)].mean(1, True)
        logits = here[input_ids] + around / input_ids.size(1)
        if labels is None:
            return PreTrainingOutput(logits, None, None)
        asked = labels != IGNORED
        loss = F.cross_entropy(logits[asked], labels[asked])
        return PreTrainingOutput(logits[asked], None, loss)


def _asked_of_a_model(draw: Draw, most: int = 9) -> tuple[_Model, Tensor, Tensor]:
    """A model that is right about two times in three; not every question stands at a [MASK]."""
    batch, n = draw.sizes(2, range(2, 10))
    n = min(n, most)
    size = draw.randint(12, 16)
    model, ids = _Model(draw, size), draw.ids(batch, n, among=range(MASK, size))
    ids[0, 0] = MASK
    answers = _said(model, ids).argmax(-1)
    labels = answers.where(draw.allowed(batch, n, share=0.65), (answers + 1) % size)
    asked = draw.allowed(batch, n, share=0.3)
    asked |= ids == MASK
    return model.train(), ids, labels.where(asked, IGNORED)


def _accuracy(logits: Tensor, labels: Tensor) -> Tensor:
    asked = labels != IGNORED
    return (logits.argmax(-1) == labels)[asked].float().mean()


def _said(model: nn.Module, ids: Tensor) -> Tensor:
    return model.eval()(ids).logits


def _masked_accuracy(model: nn.Module, ids: Tensor, labels: Tensor) -> Tensor:
    return _accuracy(_said(model, ids), labels)


masked_accuracy = Exercise(
    name="masked_accuracy",
    reference=_masked_accuracy,
    cases=(*drawn(9, _asked_of_a_model), _asked_of_a_model(Draw(9), most=1)),
    misconceptions=(
        Misconception(
            "model.eval() is missing: dropout is still on, so the model is worse than it could be, "
            "and each call gives another number.",
            lambda model, ids, labels: _accuracy(model(ids).logits, labels),
        ),
        Misconception(
            "the right answers are divided by the number of all places; only those count whose "
            "label is not -100.",
            lambda model, ids, labels: (_said(model, ids).argmax(-1) == labels).float().mean(),
        ),
        Misconception(
            "the answers are compared with what the model reads. The hidden pieces are in labels.",
            lambda model, ids, labels: (
                (_said(model, ids).argmax(-1) == ids)[labels != IGNORED].float().mean()
            ),
        ),
        Misconception(
            "only the places with [MASK] count here. A place is asked for where it has a label.",
            lambda model, ids, labels: (
                (_said(model, ids).argmax(-1) == labels)[ids == MASK].float().mean()
            ),
        ),
        Misconception(
            "this is how often the model repeats the piece that it reads, at all places.",
            lambda model, ids, labels: (_said(model, ids).argmax(-1) == ids).float().mean(),
        ),
        Misconception(
            "each row counts the same, however many questions it has. Take one mean over all "
            "questions.",
            lambda model, ids, labels: _mean_of_rows(
                (_said(model, ids).argmax(-1) == labels).float(), labels
            ),
        ),
        Misconception(
            "answers and labels are moved by one place; here a place is asked for its own piece.",
            lambda model, ids, labels: _accuracy(_said(model, ids)[:, :-1], labels[:, 1:]),
        ),
        Misconception(
            "the piece with the lowest score is taken for the answer; it is the one with the "
            "highest: argmax.",
            lambda model, ids, labels: _accuracy(-_said(model, ids), labels),
        ),
        Misconception(
            "this is the number of right answers; divide it by the number of questions.",
            lambda model, ids, labels: (_said(model, ids).argmax(-1) == labels).sum(),
        ),
        Misconception(
            "this is a percentage; return a share from 0 to 1.",
            lambda model, ids, labels: 100 * _accuracy(_said(model, ids), labels),
        ),
        Misconception(
            "this is the share of wrong answers.",
            lambda model, ids, labels: 1 - _accuracy(_said(model, ids), labels),
        ),
    ),
    first_step="model.eval() first; then model(ids).logits.argmax(-1) is the answer at each place.",
)

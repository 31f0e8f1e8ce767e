"""The exercises of lesson 07, with the mistakes that their checks recognise."""

import math
from types import SimpleNamespace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attnviz.lessons.exercise import Exercise, Misconception
from attnviz.models.bert_tasks import IGNORED

PAD, UNKNOWN, CLS, SEP, MASK = range(5)
_FIRST = 5  # the first id that is no special piece


def _draw(seed: int, batch: int, n: int, size: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Rows of pieces with [CLS], [SEP] and padding, and what the dice say for each place."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(_FIRST, size, (batch, n), generator=generator)
    ids[:, 0], ids[:, n // 2], ids[0, -2:] = CLS, SEP, PAD
    ids[0, 2], ids[0, 3] = UNKNOWN, MASK
    drawn, fate = torch.rand(2, batch, n, generator=generator)
    drawn = drawn / 3  # so that many are chosen
    drawn[:, 0], fate[:, 0] = 0.01, 0.5  # of the special pieces, too
    drawn[0, -1], fate[0, -1] = 0.02, 0.85
    drawn[0, 2:4], fate[0, 2:4] = 0.03, 0.5
    for place, value in enumerate((0.1, 0.85, 0.95, 0.88)):  # each fate at least once
        drawn[1, 1 + place], fate[1, 1 + place] = 0.05, value
    return ids, drawn, fate, torch.randint(_FIRST, size, (batch, n), generator=generator)


def _mask_tokens(
    ids: Tensor,
    drawn: Tensor,
    fate: Tensor,
    other: Tensor,
    *,
    special_too: bool = False,
    mask: float = 0.8,
    random: float = 0.1,
    inverted: bool = False,
    everywhere: bool = False,
    ignored: int = IGNORED,
) -> Tensor:
    usual = torch.ones_like(ids, dtype=torch.bool) if special_too else ids >= _FIRST
    chosen = usual & ((drawn >= 0.15) if inverted else (drawn < 0.15))
    touched = usual if everywhere else chosen
    input_ids = torch.where(touched & (fate < mask), MASK, ids)
    changed = touched & (fate >= mask) & (fate < mask + random)
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


def _labels_of_the_others(ids: Tensor, *dice: Tensor) -> Tensor:
    input_ids, labels = _mask_tokens(ids, *dice)
    return torch.stack([input_ids, torch.where(labels == IGNORED, ids, IGNORED)])


mask_tokens = Exercise(
    name="mask_tokens",
    reference=_mask_tokens,
    cases=(_draw(0, 2, 12, 40), _draw(1, 4, 20, 30)),
    misconceptions=(
        Misconception(
            "special pieces are hidden as well: [CLS], [SEP] or padding. There is nothing to find "
            "out about them. Choose only where ids >= 5.",
            lambda *arguments: _mask_tokens(*arguments, special_too=True),
        ),
        Misconception(
            "all chosen pieces become [MASK]. Only those with fate < 0.8 do; the next tenth gets "
            "another piece, and the last stays.",
            lambda *arguments: _mask_tokens(*arguments, mask=1.0, random=0.0),
        ),
        Misconception(
            "no piece is exchanged for another: where fate is from 0.8 to 0.9, the input is other.",
            lambda *arguments: _mask_tokens(*arguments, random=0.0),
        ),
        Misconception(
            "all that is not behind [MASK] is exchanged. From fate 0.9 on the piece stays as it "
            "is, and is asked for all the same.",
            lambda *arguments: _mask_tokens(*arguments, random=0.2),
        ),
        Misconception(
            "the shares of [MASK] and of other pieces have changed places.",
            lambda *arguments: _mask_tokens(*arguments, mask=0.1, random=0.8),
        ),
        Misconception(
            "pieces that were not chosen are hidden or exchanged, too: the fate counts only where "
            "a piece is chosen.",
            lambda *arguments: _mask_tokens(*arguments, everywhere=True),
        ),
        Misconception(
            "85 % are chosen: take the places where drawn is below 0.15.",
            lambda *arguments: _mask_tokens(*arguments, inverted=True),
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
            lambda *arguments: _mask_tokens(*arguments, ignored=PAD),
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
    cases=(_questions(2, 2, 8, 12), _questions(3, 3, 10, 9)),
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


def _with_mask(result: Tensor, mask: Tensor) -> Tensor:
    return torch.stack([*result[:2], mask])


def _padded_in_front(a: list[int], b: list[int], length: int) -> Tensor:
    return _pair(a, b, length).roll(length - len(a) - len(b) - 3, 1)


sentence_pair = Exercise(
    name="sentence_pair",
    reference=_pair,
    cases=(([11, 12, 13], [21, 22], 11), ([7], [8, 9, 10], 9), ([31, 32], [41], 6)),
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
    """Logits that are fixed for each place; in training mode others, as with dropout."""

    def __init__(self, logits: Tensor, seed: int):
        super().__init__()
        noise = torch.randn(logits.shape, generator=torch.Generator().manual_seed(seed))
        self.evaluating, self.dropping = logits, logits + 4 * noise
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, ids: Tensor) -> SimpleNamespace:
        return SimpleNamespace(logits=self.dropping if self.training else self.evaluating)


def _asked_of_a_model(seed: int, batch: int, n: int, size: int) -> tuple[_Model, Tensor, Tensor]:
    """A model that is right about two times in three, and knows the pieces that it reads."""
    logits, labels = _questions(seed, batch, n, size)
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(_FIRST, size, (batch, n), generator=generator)
    knows = torch.rand(batch, n, generator=generator) < 0.65
    knows[0, 1], knows[0, 2], knows[1, 2] = True, False, True
    right = ids.where(labels == IGNORED, labels)
    logits += 12 * F.one_hot(right, size) * knows[..., None]
    hidden = labels != IGNORED
    hidden[1, 2] = False  # asked for, and there to be read: not every question stands at [MASK]
    return _Model(logits, seed), ids.masked_fill(hidden, MASK), labels


def _accuracy(logits: Tensor, labels: Tensor) -> Tensor:
    asked = labels != IGNORED
    return (logits.argmax(-1) == labels)[asked].float().mean()


def _said(model: nn.Module, ids: Tensor) -> Tensor:
    return model.eval()(ids).logits


masked_accuracy = Exercise(
    name="masked_accuracy",
    reference=lambda model, ids, labels: _accuracy(_said(model, ids), labels),
    cases=(_asked_of_a_model(4, 2, 14, 12), _asked_of_a_model(5, 3, 17, 20)),
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

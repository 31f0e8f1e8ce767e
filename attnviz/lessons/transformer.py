"""The exercises of lesson 05, with the mistakes that their checks recognise."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from attnviz.lessons.drawing import Draw, drawn
from attnviz.lessons.exact import ExactExercise
from attnviz.lessons.exercise import Exercise, Misconception

START, END = 1, 2

_TARGETS = (  # [start] … [end], padded with 0
    torch.tensor([[1, 5, 3, 2, 0], [1, 4, 6, 7, 2]]),
    torch.tensor([[1, 3, 8, 4, 9, 2]]),
)


def _some_targets(draw: Draw) -> tuple[Tensor]:
    batch, words = draw.sizes(2)
    target = draw.ids(batch, words + 2, among=range(3, 30))
    target[:, 0] = START
    for row in target:
        end = draw.randint(1, words + 1)
        row[end], row[end + 1 :] = END, 0
    return (target,)


def _pair(inputs: Tensor, labels: Tensor) -> Tensor:
    return torch.stack([inputs, labels])


def _teacher_forcing(target: Tensor) -> Tensor:
    return _pair(target[:, :-1], target[:, 1:])


teacher_forcing = Exercise(
    name="teacher_forcing",
    reference=_teacher_forcing,
    cases=(*((target,) for target in _TARGETS), *drawn(8, _some_targets)),
    misconceptions=(
        Misconception(
            "inputs and labels are the same: the model is asked for the token that it is given. "
            "The loss falls to zero and nothing is learned. The label is the token after.",
            lambda target: _pair(target, target),
        ),
        Misconception(
            "inputs and labels are the same, both without their last token. The label is the "
            "token after: target[:, 1:].",
            lambda target: _pair(target[:, :-1], target[:, :-1]),
        ),
        Misconception(
            "the two have changed places: the model would be given what comes after, and asked "
            "for what was before.",
            lambda target: _pair(target[:, 1:], target[:, :-1]),
        ),
        Misconception(
            "the labels are rolled round, so the last one is [start] again. Leave out the first "
            "token instead, and the last of the inputs.",
            lambda target: _pair(target, target.roll(-1, 1)),
        ),
        Misconception(
            "the inputs start after [start]: the model would have nothing to write the first "
            "token from. They are all tokens but the last.",
            lambda target: _pair(target[:, 1:-1], target[:, 2:]),
        ),
        Misconception(
            "sentences are left out instead of tokens: the first dimension is the batch, and the "
            "tokens are along the second, target[:, …].",
            lambda target: _pair(target[:-1], target[1:]),
        ),
        Misconception(
            "the sentences of the labels stand below those of the inputs in one batch, as cat puts "
            "them. stack makes a new first dimension of the two.",
            lambda target: torch.cat([target[:, :-1], target[:, 1:]]),
        ),
        Misconception(
            "the new dimension is the last one, so that each token stands beside the next. It "
            "should be the first: all inputs, then all labels.",
            lambda target: torch.stack([target[:, :-1], target[:, 1:]], -1),
        ),
        Misconception(
            "the new dimension is the second one, so that inputs and labels alternate from "
            "sentence to sentence. It should be the first: all inputs, then all labels.",
            lambda target: torch.stack([target[:, :-1], target[:, 1:]], 1),
        ),
    ),
    first_step="Slices along the second dimension: all but the last token, all but the first.",
)


def _random_logits(seed: int, batch: int, n: int, size: int) -> Tensor:
    return torch.randn(batch, n, size, generator=torch.Generator().manual_seed(seed))


def _far_apart(spread: float, highest: float, batch: int, n: int, size: int) -> Tensor:
    """Logits from highest down by spread, another one of them in each place the highest."""
    line = torch.linspace(highest, highest - spread, size)
    return torch.stack([line.roll(i) for i in range(batch * n)]).view(batch, n, size)


def _some_losses(draw: Draw) -> tuple[Tensor, Tensor, float]:
    """Logits that lie close together or far apart, and sentences that end anywhere."""
    batch, n, size = draw.sizes(3, range(2, 9))
    labels = draw.ids(batch, n, among=range(1, size))
    for row in labels:
        row[draw.randint(1, n) :] = 0
    epsilon = draw.choice([0.05, 0.1, 0.2, 0.4, 0.8])
    return draw.tensor(batch, n, size, scale=draw.choice([0.5, 2, 8])), labels, epsilon


def _smoothed(log_p: Tensor, labels: Tensor, epsilon: float) -> Tensor:
    """Per token, (batch, token)."""
    right = log_p.gather(-1, labels[..., None])[..., 0]
    return -((1 - epsilon) * right + epsilon * log_p.mean(-1))


def _smoothed_to_others(log_p: Tensor, labels: Tensor, epsilon: float) -> Tensor:
    right = log_p.gather(-1, labels[..., None])[..., 0]
    others = (log_p.sum(-1) - right) / (log_p.size(-1) - 1)
    return -((1 - epsilon) * right + epsilon * others)


def _masked_mean(losses: Tensor, labels: Tensor) -> Tensor:
    return losses[labels != 0].mean()


def _label_smoothing(logits: Tensor, labels: Tensor, epsilon: float) -> Tensor:
    return _masked_mean(_smoothed(logits.log_softmax(-1), labels, epsilon), labels)


def _two_terms(logits: Tensor, labels: Tensor, of_label: float, of_all: float) -> Tensor:
    """The label's own loss and the mean loss over the vocabulary, in these shares."""
    log_p = logits.log_softmax(-1)
    right = log_p.gather(-1, labels[..., None])[..., 0]
    return -_masked_mean(of_label * right + of_all * log_p.mean(-1), labels)


def _mean_of_sentences(logits: Tensor, labels: Tensor, epsilon: float) -> Tensor:
    sentences = zip(logits, labels, strict=True)
    return torch.stack([_label_smoothing(*one, epsilon) for one in sentences]).mean()


label_smoothing = Exercise(
    name="label_smoothing",
    reference=_label_smoothing,
    cases=(
        (_random_logits(0, 2, 4, 6), torch.tensor([[3, 5, 2, 0], [4, 2, 0, 0]]), 0.1),
        (_random_logits(1, 1, 5, 9), torch.tensor([[8, 1, 3, 2, 0]]), 0.3),
        (_random_logits(2, 1, 3, 5), torch.tensor([[4, 3, 2]]), 0.0),
        (_random_logits(3, 3, 1, 5), torch.tensor([[4], [1], [3]]), 0.1),
        (_far_apart(800, 30, 2, 3, 7), torch.tensor([[6, 5, 2], [3, 2, 0]]), 0.1),
        (_far_apart(95, 60, 2, 2, 6), torch.tensor([[5, 2], [2, 0]]), 0.2),
        (_far_apart(5, 150, 2, 4, 5), torch.tensor([[3, 1, 2, 0], [2, 0, 0, 0]]), 0.1),
        (
            _random_logits(4, 2, 2, 6) + torch.tensor([[[-300.0]], [[0]]]),
            torch.tensor([[3, 4], [1, 2]]),
            0.1,
        ),
        *drawn(8, _some_losses),
    ),
    misconceptions=(
        Misconception(
            "padding counts as well: the mean is over all places. Take only those where the "
            "label is not 0.",
            lambda logits, labels, epsilon: _smoothed(
                logits.log_softmax(-1), labels, epsilon
            ).mean(),
        ),
        Misconception(
            "the sum is divided by the number of labels that are not 0, but the losses at padding "
            "are still in it.",
            lambda logits, labels, epsilon: (
                _smoothed(logits.log_softmax(-1), labels, epsilon).sum() / (labels != 0).sum()
            ),
        ),
        Misconception(
            "the places with label 1 are left out; padding is label 0.",
            lambda logits, labels, epsilon: _smoothed(logits.log_softmax(-1), labels, epsilon)[
                labels != 1
            ].mean(),
        ),
        Misconception(
            "the losses at padding are set to zero, but the sum is still divided by the "
            "number of all places. Divide by the number of labels that are not 0.",
            lambda logits, labels, epsilon: (
                _smoothed(logits.log_softmax(-1), labels, epsilon) * (labels != 0)
            ).mean(),
        ),
        Misconception(
            "the mean is over the padding alone: the places that count are those where the label "
            "is not 0.",
            lambda logits, labels, epsilon: _smoothed(logits.log_softmax(-1), labels, epsilon)[
                labels == 0
            ].mean(),
        ),
        Misconception(
            "each sentence has its mean, and the result is the mean of these: a token of a short "
            "sentence weighs more than one of a long sentence. Take one mean over all tokens.",
            _mean_of_sentences,
        ),
        Misconception(
            "nothing is smoothed: this is the cross-entropy with all certainty on the label.",
            lambda logits, labels, epsilon: _two_terms(logits, labels, 1, 0),
        ),
        Misconception(
            "ε is shared out among the other tokens only. As in torch and in the paper's code, it "
            "is spread over all of them, the right one included: ε · mean over the vocabulary.",
            lambda logits, labels, epsilon: _masked_mean(
                _smoothed_to_others(logits.log_softmax(-1), labels, epsilon), labels
            ),
        ),
        Misconception(
            "the share ε is added to the full loss; the label keeps only 1 − ε of its certainty.",
            lambda logits, labels, epsilon: _two_terms(logits, labels, 1, epsilon),
        ),
        Misconception(
            "1 − ε and ε have changed places: nearly all certainty is spread over everything.",
            lambda logits, labels, epsilon: _two_terms(logits, labels, epsilon, 1 - epsilon),
        ),
        Misconception(
            "ε is multiplied with the sum over the vocabulary; take the mean: each piece gets "
            "ε / V.",
            lambda logits, labels, epsilon: _two_terms(
                logits, labels, 1 - epsilon, epsilon * logits.size(-1)
            ),
        ),
        Misconception(
            "the share ε of the certainty is lost: it goes to the mean over the vocabulary, "
            "− ε · log_p.mean(-1).",
            lambda logits, labels, epsilon: _two_terms(logits, labels, 1 - epsilon, 0),
        ),
        Misconception(
            "the term of the vocabulary has the wrong sign: both are minus a logarithm, "
            "− ε · log_p.mean(-1).",
            lambda logits, labels, epsilon: _two_terms(logits, labels, 1 - epsilon, -epsilon),
        ),
        Misconception(
            "the term of the label has the wrong sign: both are minus a logarithm, "
            "− (1 − ε) times that of the label.",
            lambda logits, labels, epsilon: _two_terms(logits, labels, epsilon - 1, epsilon),
        ),
        Misconception(
            "the label keeps 1 + ε of the certainty; what is spread over all is taken from it, "
            "1 − ε.",
            lambda logits, labels, epsilon: _two_terms(logits, labels, 1 + epsilon, epsilon),
        ),
        Misconception(
            "the term of the vocabulary is ε alone: multiply it with the mean of log_p.",
            lambda logits, labels, epsilon: _two_terms(logits, labels, 1 - epsilon, 0) - epsilon,
        ),
        Misconception(
            "the mean of log_p is added to ε; multiply the two.",
            lambda logits, labels, epsilon: _two_terms(logits, labels, 1 - epsilon, 1) - epsilon,
        ),
        Misconception(
            "the sign is missing: a loss is minus the log probability.",
            lambda logits, labels, epsilon: -_label_smoothing(logits, labels, epsilon),
        ),
        Misconception(
            "the loss is the sum over the tokens; take their mean, or long sentences would weigh "
            "more than short ones.",
            lambda logits, labels, epsilon: (
                _label_smoothing(logits, labels, epsilon) * (labels != 0).sum()
            ),
        ),
        Misconception(
            "in some inputs the logits are far apart: there softmax rounds a probability to 0, and "
            "its logarithm is minus infinity. log_softmax takes both steps at once.",
            lambda logits, labels, epsilon: _masked_mean(
                _smoothed(logits.softmax(-1).log(), labels, epsilon), labels
            ),
        ),
        Misconception(
            "in some inputs the logits are large, and exp of them is infinite. Subtract the "
            "largest first, as log_softmax does.",
            lambda logits, labels, epsilon: _masked_mean(
                _smoothed(logits - logits.exp().sum(-1, keepdim=True).log(), labels, epsilon),
                labels,
            ),
        ),
        Misconception(
            "the logarithm is missing: these are the probabilities themselves. Take log_softmax.",
            lambda logits, labels, epsilon: _masked_mean(
                _smoothed(logits.softmax(-1), labels, epsilon), labels
            ),
        ),
        Misconception(
            "log_softmax is missing: these are the logits themselves.",
            lambda logits, labels, epsilon: _masked_mean(
                _smoothed(logits, labels, epsilon), labels
            ),
        ),
        Misconception(
            "the softmax is taken twice: F.cross_entropy has one inside and wants the logits as "
            "they are.",
            lambda logits, labels, epsilon: _label_smoothing(logits.softmax(-1), labels, epsilon),
        ),
        Misconception(
            "the softmax runs over the tokens of a sentence; it belongs over the pieces, the last "
            "dimension.",
            lambda logits, labels, epsilon: _masked_mean(
                _smoothed(logits.log_softmax(1), labels, epsilon), labels
            ),
        ),
        Misconception(
            "the softmax runs over the sentences of the batch; it belongs over the pieces, the "
            "last dimension.",
            lambda logits, labels, epsilon: _masked_mean(
                _smoothed(logits.log_softmax(0), labels, epsilon), labels
            ),
        ),
        Misconception(
            "F.cross_entropy wants the pieces in the second dimension: give it "
            "logits.transpose(1, 2), or logits.flatten(0, 1) with labels.flatten().",
            lambda logits, labels, epsilon: F.cross_entropy(
                logits, labels, ignore_index=0, label_smoothing=epsilon
            ),
        ),
    ),
    first_step="log_p = logits.log_softmax(-1); the label's own is log_p.gather(-1, …).",
)


def _some_step(draw: Draw) -> tuple[int, int, int]:
    """Small numbers: the rates of real trainings are too small to be told apart by their size."""
    warmup = draw.randint(2, 12)
    step = draw.choice([draw.randint(1, warmup), draw.randint(warmup, 40)])
    return step, draw.randint(2, 20), warmup


def _learning_rate(step: int, d_model: int, warmup: int) -> float:
    return d_model**-0.5 * min(step**-0.5, step * warmup**-1.5)


learning_rate = Exercise(
    name="learning_rate",
    reference=_learning_rate,
    cases=(
        *((1, 16, 4), (4, 16, 4), (16, 16, 4), (30, 64, 20), (7, 64, 20), (9, 4, 1), (1, 4, 25)),
        *drawn(10, _some_step),
    ),
    misconceptions=(
        Misconception(
            "the larger of the two is taken; with min, the rising line counts first and the "
            "falling curve afterwards.",
            lambda step, d_model, warmup: d_model**-0.5 * max(step**-0.5, step * warmup**-1.5),
        ),
        Misconception(
            "there is no warm-up: the rate begins at its highest and falls. The rising part is "
            "step * warmup**-1.5; with another exponent it may never be the smaller one.",
            lambda step, d_model, warmup: d_model**-0.5 * step**-0.5,
        ),
        Misconception(
            "the rate rises for ever: behind the warm-up it should fall with step^(−1/2), and min "
            "chooses between the two.",
            lambda step, d_model, warmup: d_model**-0.5 * step * warmup**-1.5,
        ),
        Misconception(
            "the factor d_model^(−1/2) is missing.",
            lambda step, d_model, warmup: _learning_rate(step, 1, warmup),
        ),
        Misconception(
            "d_model has the exponent +1/2: the wider the model, the smaller the rate should be.",
            lambda step, d_model, warmup: _learning_rate(step, 1, warmup) * d_model**0.5,
        ),
        Misconception(
            "only the first of the two is multiplied with d_model^(−1/2); it belongs before the "
            "min, as a factor of both.",
            lambda step, d_model, warmup: min(d_model**-0.5 * step**-0.5, step * warmup**-1.5),
        ),
        Misconception(
            "warmup has the exponent −1; with −1.5 the line and the curve meet at warmup.",
            lambda step, d_model, warmup: d_model**-0.5 * min(step**-0.5, step / warmup),
        ),
        Misconception(
            "warmup has the exponent −0.5; with −1.5 the line and the curve meet at warmup.",
            lambda step, d_model, warmup: d_model**-0.5 * min(step**-0.5, step * warmup**-0.5),
        ),
        Misconception(
            "the rate stays at its highest; after warmup it falls with step^(−1/2).",
            lambda step, d_model, warmup: _learning_rate(min(step, warmup), d_model, warmup),
        ),
        Misconception(
            "the rate does not rise: up to warmup it is the same at each step, and it should grow "
            "with it.",
            lambda step, d_model, warmup: _learning_rate(max(step, warmup), d_model, warmup),
        ),
        Misconception(
            "it is divided by d_model; d_model^(−1/2) is one by its root.",
            lambda step, d_model, warmup: _learning_rate(step, d_model**2, warmup),
        ),
        Misconception(
            "it is multiplied with d_model itself; its exponent is −1/2.",
            lambda step, d_model, warmup: d_model * _learning_rate(step, 1, warmup),
        ),
        Misconception(
            "d_model^(−1/2) is added; it is a factor.",
            lambda step, d_model, warmup: d_model**-0.5 + _learning_rate(step, 1, warmup),
        ),
        Misconception(
            "d_model^(−1/2) is divided by the smaller of the two; multiply them.",
            lambda step, d_model, warmup: d_model**-0.5 / _learning_rate(step, 1, warmup),
        ),
        Misconception(
            "d_model has the exponent −1.5; it is −1/2.",
            lambda step, d_model, warmup: _learning_rate(step, d_model**3, warmup),
        ),
        Misconception(
            "step and warmup have changed places.",
            lambda step, d_model, warmup: _learning_rate(warmup, d_model, step),
        ),
    ),
    first_step="The rising part is step * warmup**-1.5, the falling one step**-0.5.",
)

_LONGEST = 40  # tokens, behind which every model ends: nobody should wait for it


def _model(draw: Draw, size: int, end: int, length: int) -> Callable:
    """A model that translates a source: what it writes depends on all of it and on all ids so far.

    size: of its vocabulary.   length: the tokens that it writes, of which the last is end.
    """
    source = draw.ids(5, among=range(size))
    read = draw.tensor(5, size, size, scale=3)[torch.arange(5), source].sum(0)
    writing = draw.tensor(_LONGEST, size, size, scale=3)

    def next_logits(ids: list[int] | Tensor) -> Tensor:
        so_far = torch.as_tensor(ids)
        if so_far.dim() != 1 or not len(so_far):
            raise ValueError(f"next_logits takes the list of all ids so far, got {ids}")
        places = torch.arange(len(so_far)) % _LONGEST
        logits = torch.cos(read + writing[places, so_far].sum(0))  # any id can change it all
        is_due = len(so_far) == length or len(so_far) >= _LONGEST
        logits[end] += 3 if is_due else -3
        return logits

    return next_logits


def _writing(length: int, max_len: int) -> tuple[Callable, int, int, int]:
    return _model(Draw(f"{length} tokens"), 6, END, length), START, END, max_len


def _some_writing(draw: Draw) -> tuple[Callable, int, int, int]:
    size = draw.randint(5, 12)
    start, end = draw.sample(range(size), 2)
    length, max_len = draw.sizes(2, range(1, 10))
    return _model(draw, size, end, length), start, end, max_len


def _greedy(next_logits: Callable, start: int, end: int, max_len: int) -> list[int]:
    ids = [start]
    while len(ids) <= max_len and ids[-1] != end:
        ids.append(int(next_logits(ids).argmax()))
    return ids[1:]


def _asking_with(
    some: Callable, next_logits: Callable, start: int, end: int, max_len: int
) -> list[int]:
    """Greedy search that gives the model only some of the ids so far."""
    return _greedy(lambda ids: next_logits(some(ids)), start, end, max_len)


def _stopping_without_end(next_logits: Callable, start: int, end: int, max_len: int) -> list[int]:
    ids = [start]
    while len(ids) <= max_len and (len(ids) == 1 or ids[-1] == end):
        ids.append(int(next_logits(ids).argmax()))
    return ids[1:]


def _growing_in_front(next_logits: Callable, start: int, end: int, max_len: int) -> list[int]:
    ids = [start]
    while len(ids) <= max_len and ids[-1] != end:
        ids.insert(0, int(next_logits(ids).argmax()))
    return ids[1:]


greedy = ExactExercise(
    name="greedy",
    reference=_greedy,
    cases=(
        _writing(4, max_len=8),
        _writing(_LONGEST, max_len=5),
        _writing(4, max_len=4),
        _writing(3, max_len=2),
        _writing(1, max_len=6),
        _writing(5, max_len=1),
        _writing(3, max_len=0),
        *drawn(8, _some_writing),
    ),
    misconceptions=(
        Misconception(
            "it does not stop at [end], but goes on until max_len.",
            lambda f, start, end, n: _greedy(f, start, -1, n),
        ),
        Misconception(
            "max_len is not heeded: a model that never writes [end] would go on for ever.",
            lambda f, start, end, n: _greedy(f, start, end, 10 * _LONGEST),
        ),
        Misconception(
            "[start] is still in the result; it was only there to begin with.",
            lambda f, start, end, n: [start, *_greedy(f, start, end, n)],
        ),
        Misconception(
            "[end] is missing: keep it, it says that the sentence is complete.",
            lambda f, start, end, n: [i for i in _greedy(f, start, end, n) if i != end],
        ),
        Misconception(
            "the last token is always left out, which is right for none: [end] is kept, too.",
            lambda f, start, end, n: _greedy(f, start, end, n)[:-1],
        ),
        Misconception(
            "every token is chosen from [start] alone. What was written so far has to be given "
            "back to next_logits each time.",
            lambda f, start, end, n: _asking_with(lambda ids: ids[:1], f, start, end, n),
        ),
        Misconception(
            "every token is chosen from the last one alone. Give next_logits all that there is so "
            "far, from [start] on.",
            lambda f, start, end, n: _asking_with(lambda ids: ids[-1:], f, start, end, n),
        ),
        Misconception(
            "next_logits is not given [start] any more once something is written; the list of ids "
            "so far begins with it.",
            lambda f, start, end, n: _asking_with(lambda ids: ids[1:] or ids, f, start, end, n),
        ),
        Misconception(
            "it stops one token too early: max_len tokens may follow [start].",
            lambda f, start, end, n: _greedy(f, start, end, n - 1),
        ),
        Misconception(
            "it stops two tokens too early: [start] does not count, and max_len tokens may follow.",
            lambda f, start, end, n: _greedy(f, start, end, n - 2),
        ),
        Misconception(
            "the question for [end] is turned round: it goes on after [end], and stops after any "
            "other token.",
            _stopping_without_end,
        ),
        Misconception(
            "the new token is put before the others; it belongs behind them.",
            _growing_in_front,
        ),
        Misconception(
            "it stops one token too late: max_len tokens may follow [start], and no more.",
            lambda f, start, end, n: _greedy(f, start, end, n + 1),
        ),
        Misconception(
            "the first token is written even where max_len is 0: ask before you write.",
            lambda f, start, end, n: _greedy(f, start, end, max(n, 1)),
        ),
        Misconception(
            "the least likely token is taken: argmax, not argmin.",
            lambda f, start, end, n: _greedy(lambda ids: -f(ids), start, end, n),
        ),
    ),
    first_step="ids = [start]; in a loop, append int(next_logits(ids).argmax()) until it is end.",
)

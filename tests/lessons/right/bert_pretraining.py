"""Right answers to the exercises of lesson 07 in several styles, and inputs to judge others on."""

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attnviz.lessons.drawing import Draw
from attnviz.models.bert_tasks import PreTrainingOutput


def mask_by_where(ids: Tensor, drawn: Tensor, fate: Tensor, other: Tensor) -> Tensor:
    chosen = (ids > 4) & (drawn < 0.15)
    hidden = torch.where(chosen & (fate < 0.8), 4, ids)
    swapped = chosen & (fate >= 0.8) & (fate < 0.9)
    hidden = torch.where(swapped, other, hidden)
    labels = torch.where(chosen, ids, -100)
    return torch.stack([hidden, labels])


def mask_by_loops(ids: Tensor, drawn: Tensor, fate: Tensor, other: Tensor) -> Tensor:
    hidden, labels = ids.clone(), torch.full_like(ids, -100)
    for i in range(ids.shape[0]):
        for j in range(ids.shape[1]):
            if ids[i, j] < 5 or drawn[i, j] >= 0.15:
                continue
            labels[i, j] = ids[i, j]
            if fate[i, j] < 0.8:
                hidden[i, j] = 4
            elif fate[i, j] < 0.9:
                hidden[i, j] = other[i, j]
    return torch.stack((hidden, labels))


def mask_in_place(ids: Tensor, drawn: Tensor, fate: Tensor, other: Tensor) -> Tensor:
    labels = ids.clone()
    chosen = drawn < 0.15
    chosen[ids <= 4] = False
    labels[~chosen] = -100
    inputs = ids.clone()
    masked = chosen & (fate < 0.8)
    random = chosen & (fate < 0.9) & ~masked
    inputs[masked] = 4
    inputs[random] = other[random]
    return torch.stack([inputs, labels])


def mask_in_numpy(ids: Tensor, drawn: Tensor, fate: Tensor, other: Tensor) -> np.ndarray:
    ids, drawn, fate, other = (x.numpy() for x in (ids, drawn, fate, other))
    chosen = np.logical_and(drawn < 0.15, ids >= 5)
    answer = np.select([fate < 0.8, fate < 0.9], [np.full(ids.shape, 4), other], ids)
    return np.stack([np.where(chosen, answer, ids), np.where(chosen, ids, -100)])


def mask_by_multiplying(ids: Tensor, drawn: Tensor, fate: Tensor, other: Tensor) -> Tensor:
    chosen = ((drawn < 0.15) * (ids >= 5)).long()
    becomes_mask = chosen * (fate < 0.8)
    becomes_other = chosen * (fate >= 0.8) * (fate < 0.9)
    stays = 1 - becomes_mask - becomes_other
    hidden = 4 * becomes_mask + other * becomes_other + ids * stays
    labels = chosen * ids + (1 - chosen) * -100
    return torch.cat([hidden[None], labels[None]])


def _dice(draw: Draw) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Any ids, special ones among them, and dice that often fall just on a border."""
    batch, n = draw.sizes(2, range(1, 10))
    size = draw.randint(6, 30)
    ids = draw.ids(batch, n, among=range(draw.choice([0, 4, 5]), size))
    drawn = torch.tensor(_falls(draw, batch, n, (0.0, 0.05, 0.149, 0.15, 0.151, 0.3, 0.97)))
    fate = torch.tensor(_falls(draw, batch, n, (0.0, 0.3, 0.799, 0.8, 0.85, 0.899, 0.9, 0.95)))
    return ids, drawn.double(), fate.double(), draw.ids(batch, n, among=range(5, size))


def _falls(draw: Draw, batch: int, n: int, borders: tuple[float, ...]) -> np.ndarray:
    values = [
        draw.choice(borders) if draw.random() < 0.7 else draw.random() for _ in range(batch * n)
    ]
    return np.array(values).reshape(batch, n)


def loss_of_the_asked(logits: Tensor, labels: Tensor) -> Tensor:
    asked = labels != -100
    return F.cross_entropy(logits[asked], labels[asked])


def loss_with_transpose(logits: Tensor, labels: Tensor) -> Tensor:
    return F.cross_entropy(logits.transpose(1, 2), labels, ignore_index=-100)


def loss_by_steps(logits: Tensor, labels: Tensor) -> Tensor:
    asked = (labels >= 0).float()
    log_p = logits.log_softmax(-1)
    of_labels = log_p.gather(-1, labels.clamp(min=0).unsqueeze(-1)).squeeze(-1)
    return -(of_labels * asked).sum() / asked.sum()


def loss_by_loops(logits: Tensor, labels: Tensor) -> float:
    total, questions = 0.0, 0
    for scores, wanted in zip(logits.tolist(), labels.tolist(), strict=True):
        for row, label in zip(scores, wanted, strict=True):
            if label != -100:
                top = max(row)
                norm = top + math.log(sum(math.exp(score - top) for score in row))
                total += norm - row[label]
                questions += 1
    return total / questions


def loss_in_numpy(logits: Tensor, labels: Tensor) -> np.floating:
    scores, wanted = logits.numpy().astype(np.float64), labels.numpy()
    rows, places = np.nonzero(wanted != -100)
    scores = scores[rows, places]
    scores = scores - scores.max(1, keepdims=True)
    log_p = scores - np.log(np.exp(scores).sum(1, keepdims=True))
    return -log_p[np.arange(len(rows)), wanted[rows, places]].mean()


def loss_without_reduction(logits: Tensor, labels: Tensor) -> Tensor:
    flat = logits.reshape(-1, logits.shape[-1])
    losses = F.cross_entropy(flat, labels.reshape(-1), reduction="none")
    return losses.sum() / (labels != -100).sum()


def loss_one_hot(logits: Tensor, labels: Tensor) -> Tensor:
    asked = labels != -100
    wanted = F.one_hot(labels[asked], logits.size(-1))
    p = logits[asked].double().softmax(-1)
    return -(p * wanted).sum(-1).log().mean()


def _asked(draw: Draw) -> tuple[Tensor, Tensor]:
    """Any labels, also of piece 0; rows without questions, but not all of them."""
    batch, n, size = draw.sizes(3, range(1, 11))
    logits = draw.tensor(batch, n, size + 1, scale=draw.choice([0.5, 2.0, 5.0]))
    logits = logits + draw.choice([0.0, 0.0, -30.0, 40.0])
    labels = draw.ids(batch, n, among=range(size + 1))
    labels[torch.rand(batch, n, generator=draw._generator()) < draw.choice([0.0, 0.5, 0.8])] = -100
    row, place = draw.randrange(batch), draw.randrange(n)
    if batch > 1:
        labels[draw.randrange(batch)] = -100
    labels[row, place] = draw.randrange(size + 1)
    return logits, labels


def entropy_by_steps(counts: Tensor) -> Tensor:
    p = counts / counts.sum()
    p = p[p > 0]
    return -(p * torch.log(p)).sum()


def entropy_by_loops(counts: Tensor) -> float:
    total, entropy = sum(counts.tolist()), 0.0
    for count in counts.tolist():
        if count > 0:
            p = count / total
            entropy -= p * math.log(p)
    return entropy


def entropy_by_xlogy(counts: Tensor) -> Tensor:
    p = counts.double() / counts.sum()
    return -torch.xlogy(p, p).sum()


def entropy_in_numpy(counts: Tensor) -> np.floating:
    c = counts.numpy()
    c = c[c != 0]
    return np.log(c.sum()) - (c * np.log(c)).sum() / c.sum()


def entropy_of_a_distribution(counts: Tensor) -> Tensor:
    return torch.distributions.Categorical(probs=counts.float()).entropy()


def entropy_with_clamp(counts: Tensor) -> Tensor:
    p = counts.float() / counts.sum()
    return torch.sum(p * -p.clamp(min=1e-12).log())


def _counts(draw: Draw) -> tuple[Tensor]:
    most = draw.choice([1, 5, 60, 100_000])
    counts = [draw.choice([0, draw.randint(1, most)]) for _ in range(draw.randint(1, 12))]
    counts[draw.randrange(len(counts))] = draw.randint(1, most)
    return (torch.tensor(counts),)


def pair_of_lists(a: list[int], b: list[int], length: int) -> Tensor:
    ids = [2, *a, 3, *b, 3]
    types = [0] * (len(a) + 2) + [1] * (len(b) + 1)
    mask = [1] * len(ids)
    rest = [0] * (length - len(ids))
    return torch.tensor([ids + rest, types + rest, mask + rest])


def pair_in_place(a: list[int], b: list[int], length: int) -> Tensor:
    pair = torch.zeros(3, length, dtype=torch.long)
    first, end = len(a) + 2, len(a) + len(b) + 3
    pair[0, 0] = 2
    pair[0, 1 : first - 1] = torch.tensor(a)
    pair[0, first - 1] = 3
    pair[0, first : end - 1] = torch.tensor(b)
    pair[0, end - 1] = 3
    pair[1, first:end] = 1
    pair[2, :end] = 1
    return pair


def pair_by_loops(a: list[int], b: list[int], length: int) -> list[list[int]]:
    ids, types = [2], [0]
    for piece in a:
        ids.append(piece)
        types.append(0)
    ids.append(3)
    types.append(0)
    for piece in [*b, 3]:
        ids.append(piece)
        types.append(1)
    mask = [1 for _ in ids]
    while len(ids) < length:
        for row in (ids, types, mask):
            row.append(0)
    return [ids, types, mask]


def pair_by_places(a: list[int], b: list[int], length: int) -> Tensor:
    places = torch.arange(length)
    begin, end = len(a) + 2, len(a) + len(b) + 3
    types = (places >= begin) & (places < end)
    mask = places < end
    ids = F.pad(torch.tensor([2, *a, 3, *b, 3]), (0, length - end))
    return torch.stack([ids, types.long(), mask.long()])


def pair_in_numpy(a: list[int], b: list[int], length: int) -> np.ndarray:
    parts = np.concatenate([[2], a, [3], b, [3]])
    ids = np.zeros(length, dtype=int)
    ids[: parts.size] = parts
    separators = np.cumsum(ids == 3) - (ids == 3)
    types = (separators == 1).astype(int)
    mask = (ids != 0).astype(int)
    return np.stack([ids, types, mask])


def _two_sentences(draw: Draw) -> tuple[list[int], list[int], int]:
    """Sentences of one piece or more, the same pieces in both, with and without padding."""
    pieces = [1, 4, *range(5, draw.choice([8, 40]))]
    a, b = (draw.choices(pieces, k=draw.randint(1, 8)) for _ in range(2))
    return a, b, len(a) + len(b) + 3 + draw.choice([0, 1, 4, 9])


def accuracy_by_steps(model: nn.Module, ids: Tensor, labels: Tensor) -> Tensor:
    model.eval()
    with torch.no_grad():
        logits = model(ids).logits
    asked = labels != -100
    right = logits.argmax(-1)[asked] == labels[asked]
    return right.float().mean()


def accuracy_by_sums(model: nn.Module, ids: Tensor, labels: Tensor) -> Tensor:
    answers = model.eval()(ids).logits.argmax(dim=2)
    return (answers == labels).sum() / (labels >= 0).sum()


def accuracy_by_loops(model: nn.Module, ids: Tensor, labels: Tensor) -> float:
    model.eval()
    found, asked = 0, 0
    for row, wanted in zip(ids, labels, strict=True):
        logits = model(row[None]).logits[0]
        for scores, label in zip(logits, wanted, strict=True):
            if label == -100:
                continue
            asked += 1
            found += int(scores.argmax() == label)
    return found / asked


def accuracy_in_numpy(model: nn.Module, ids: Tensor, labels: Tensor) -> np.floating:
    model.train(False)
    scores = model(input_ids=ids).logits.detach().numpy()
    wanted = labels.numpy()
    right = scores.argmax(-1) == wanted
    return np.mean(right[wanted != -100])


def accuracy_with_labels(model: nn.Module, ids: Tensor, labels: Tensor) -> Tensor:
    model.eval()
    logits = model(ids, labels=labels).logits
    return (logits.argmax(-1) == labels[labels != -100]).float().mean()


def accuracy_by_top(model: nn.Module, ids: Tensor, labels: Tensor) -> Tensor:
    model.eval()
    logits = model(ids).logits
    found = logits.topk(1, dim=-1).indices.squeeze(-1) == labels
    return found.masked_select(labels != -100).double().mean()


class _Reader(nn.Module):
    """Scores from the pieces on both sides, which dropout blurs; it knows nothing of the labels."""

    def __init__(self, draw: Draw, size: int):
        super().__init__()
        self.vectors = nn.Embedding.from_pretrained(draw.tensor(size, 4))
        self.around = nn.Conv1d(4, size, 3, padding=1)
        self.around.weight.data = draw.tensor(size, 4, 3)
        self.dropout = nn.Dropout(0.5)

    def forward(
        self, input_ids: Tensor, mask: Tensor | None = None, labels: Tensor | None = None
    ) -> PreTrainingOutput:
        logits = self.around(self.dropout(self.vectors(input_ids)).mT).mT
        logits = logits if labels is None else logits[labels != -100]
        return PreTrainingOutput(logits, None, None)


def _model_and_questions(draw: Draw) -> tuple[nn.Module, Tensor, Tensor]:
    batch, n = draw.sizes(2, range(1, 9))
    size = draw.randint(8, 16)
    model, ids = _Reader(draw, size), draw.ids(batch, n, among=range(4, size))
    labels = draw.ids(batch, n, among=range(size))
    answers = model.eval()(ids).logits.argmax(-1)
    found = draw.allowed(batch, n, share=draw.choice([0.2, 0.7, 1.0]))
    labels = torch.where(found, answers, labels)
    asked = draw.allowed(batch, n, share=0.5)
    if batch > 1 and n > 1:
        asked[draw.randrange(batch)] = False
    return model.train(), ids, torch.where(asked, labels, -100)


RIGHT = {
    "mask_tokens": (
        mask_by_where,
        mask_by_loops,
        mask_in_place,
        mask_in_numpy,
        mask_by_multiplying,
    ),
    "masked_loss": (
        loss_of_the_asked,
        loss_with_transpose,
        loss_by_steps,
        loss_by_loops,
        loss_in_numpy,
        loss_without_reduction,
        loss_one_hot,
    ),
    "unigram_entropy": (
        entropy_by_steps,
        entropy_by_loops,
        entropy_by_xlogy,
        entropy_in_numpy,
        entropy_of_a_distribution,
        entropy_with_clamp,
    ),
    "sentence_pair": (
        pair_of_lists,
        pair_in_place,
        pair_by_loops,
        pair_by_places,
        pair_in_numpy,
    ),
    "masked_accuracy": (
        accuracy_by_steps,
        accuracy_by_sums,
        accuracy_by_loops,
        accuracy_in_numpy,
        accuracy_with_labels,
        accuracy_by_top,
    ),
}
INPUTS = {
    "mask_tokens": _dice,
    "masked_loss": _asked,
    "unigram_entropy": _counts,
    "sentence_pair": _two_sentences,
    "masked_accuracy": _model_and_questions,
}
EQUIVALENT = {  # mutants that are the same function
    "lists, tuples and iterators of the same numbers, and other kinds of numbers, are as right": (
        "mask_by_where: return [hidden, labels]",
        "mask_by_loops: return (hidden, labels)",
        "mask_in_place: return [inputs, labels]",
        "mask_in_numpy: return [np.where(chosen, answer, ids), np.where(chosen, ids, -100)]",
        "_mask_tokens: return [input_ids, torch.where(chosen, ids, IGNORED)]",
        "pair_of_lists: return [ids + rest, types + rest, mask + rest]",
        "pair_by_places: return [ids, types.long(), mask.long()]",
        "pair_by_places: return torch.stack([ids, types, mask.long()])",
        "pair_by_places: return torch.stack([ids, types.long(), mask])",
        "pair_in_numpy: return [ids, types, mask]",
        "_sentence_pair: return [ids + rest, types + rest, [1] * len(ids) + rest]",
    ),
    "what is at the border is exchanged afterwards": (
        "mask_by_where: hidden = torch.where(chosen & (fate <= 0.8), 4, ids)",
        "_mask_tokens: input_ids = torch.where(chosen & (fate <= 0.8), MASK, ids)",
    ),
    "both have the same shape": (
        "mask_by_loops: hidden, labels = (ids.clone(), torch.full_like(drawn, -100))",
        "mask_by_loops: hidden, labels = (ids.clone(), torch.full_like(fate, -100))",
        "mask_by_loops: hidden, labels = (ids.clone(), torch.full_like(other, -100))",
        "mask_by_loops: for i in range(drawn.shape[0]):",
        "mask_by_loops: for i in range(fate.shape[0]):",
        "mask_by_loops: for i in range(other.shape[0]):",
        "mask_by_loops: for j in range(drawn.shape[1]):",
        "mask_by_loops: for j in range(fate.shape[1]):",
        "mask_by_loops: for j in range(other.shape[1]):",
        "mask_in_numpy: answer = np.select([fate < 0.8, fate < 0.9], "
        "[np.full(drawn.shape, 4), other], ids)",
        "mask_in_numpy: answer = np.select([fate < 0.8, fate < 0.9], "
        "[np.full(fate.shape, 4), other], ids)",
        "mask_in_numpy: answer = np.select([fate < 0.8, fate < 0.9], "
        "[np.full(other.shape, 4), other], ids)",
    ),
    "the order does not matter": (
        "mask_in_numpy: chosen = np.logical_and(ids >= 5, drawn < 0.15)",
        "pair_by_loops: for row in (types, ids, mask):",
        "pair_by_loops: for row in (ids, mask, types):",
    ),
    "the same numbers, held by another kind": (
        "mask_in_numpy: ids, drawn, fate, other = (x for x in (ids, drawn, fate, other))",
        "loss_in_numpy: scores, wanted = (logits.numpy(), labels.numpy())",
        "loss_one_hot: p = logits[asked].softmax(-1)",
        "entropy_by_loops: for count in counts:",
        "entropy_by_loops: total, entropy = (sum(counts), 0.0)",
        "entropy_by_xlogy: p = counts / counts.sum()",
        "entropy_of_a_distribution: return torch.distributions.Categorical(probs=counts).entropy()",
        "entropy_in_numpy: c = counts",
        "entropy_with_clamp: p = counts / counts.sum()",
        "pair_in_place: pair = torch.zeros(3, length)",
        "pair_in_numpy: ids = np.zeros(length)",
        "pair_in_numpy: types = separators == 1",
        "pair_in_numpy: mask = ids != 0",
        "accuracy_by_loops: found += scores.argmax() == label",
        "loss_by_loops: for scores, wanted in zip(logits, labels.tolist(), strict=True):",
        "loss_by_loops: for scores, wanted in zip(logits.tolist(), labels, strict=True):",
    ),
    "labels are -100 or ids, and torch leaves out -100 by itself": (
        "loss_of_the_asked: asked = labels != -101",
        "loss_of_the_asked: asked = labels != -99",
        "loss_with_transpose: return F.cross_entropy(logits.transpose(1, 2), labels)",
        "loss_with_transpose: return "
        "F.cross_entropy(logits.transpose(2, 1), labels, ignore_index=-100)",
        "loss_by_steps: asked = labels >= 0",
        "loss_by_steps: asked = (labels >= -1).float()",
        "accuracy_by_sums: return (answers == labels).sum() / (labels >= -1).sum()",
    ),
    "the first value is never used, or is the same": (
        "loss_by_loops: total, questions = (0, 0.0)",
    ),
    "any shift serves while no logits are so far apart that exp overflows": (
        "loss_by_loops: top = min(row)",
        "loss_in_numpy: scores = scores + scores.max(1, keepdims=True)",
        "loss_in_numpy: scores = scores",
        "loss_in_numpy: scores = scores - scores.min(1, keepdims=True)",
        "loss_in_numpy: scores = scores - scores.max(keepdims=True)",
    ),
    "there is only one": ("accuracy_by_loops: logits = model(row[None]).logits[-1]",),
    "the last dimension is meant where none is named": (
        "accuracy_by_top: found = logits.topk(1).indices.squeeze(-1) == labels",
    ),
    "the lists are of one length": (
        "loss_by_loops: for scores, wanted in zip(logits.tolist(), labels.tolist()):",
        "loss_by_loops: for row, label in zip(scores, wanted):",
        "loss_by_loops: for scores, wanted in zip(logits.tolist(), labels.tolist(), strict=False):",
        "loss_by_loops: for row, label in zip(scores, wanted, strict=False):",
        "accuracy_by_loops: for row, wanted in zip(ids, labels):",
        "accuracy_by_loops: for scores, label in zip(logits, wanted):",
        "accuracy_by_loops: for row, wanted in zip(ids, labels, strict=False):",
        "accuracy_by_loops: for scores, label in zip(logits, wanted, strict=False):",
    ),
}

"""What a model says about a text, before and after its attention was changed."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from attnviz.apps.reading import Reading, Vocabulary

SHOWN = 6  # answers of each list
MASKS = 3  # masked words at most
Rows = list[tuple[str, float, float]]  # what it is, before, after


def kind_of(reading: Reading, vocabulary: Vocabulary, config: Any = None) -> str:
    """What a model's output means.

    config: the model's, of which `vocab_size` is used; where there is none, the tokenizer's size.
    Returns "next token" or "masked words" for a score of each vocabulary entry at each token,
    "token labels" for scores of fewer labels there, "classes" for scores of the whole text,
    "similarity" for a vector at each token, or "" for anything else.
    """
    logits, states = _scores(reading.output), _states(reading.output)
    size = getattr(config, "vocab_size", None) or vocabulary.size
    if reading.output is states and states is not None and states.size(-1) == size:
        logits = states  # a model of one's own, which returns its scores as they are
    if logits is not None and logits.ndim == 2:
        return "classes"
    if logits is not None and logits.ndim == 3:
        if logits.size(-1) < size:
            return "token labels"
        return "next token" if vocabulary.mask is None or _is_causal(reading) else "masked words"
    return "similarity" if states is not None else ""


def words(
    before: Reading, after: Reading, vocabulary: Vocabulary, kind: str
) -> list[tuple[str, Rows]]:
    """The strongest vocabulary entries, with probabilities: lists of a title and its rows.

    One list for the token that comes next, or one for each of the first masked words.
    """
    ids = before.text.ids
    if kind == "next token":
        places = [(len(ids) - 1, "the next token")]
    else:
        masked = [i for i, token in enumerate(ids) if token == vocabulary.mask][:MASKS]
        places = [(i, f"token {i}, {before.text.tokens[i]}") for i in masked]
    old, new = _logits(before).softmax(-1), _logits(after).softmax(-1)
    return [(title, _strongest(old[i], new[i], vocabulary.token)) for i, title in places]


def labels(before: Reading, after: Reading, config: Any, kind: str) -> list[tuple[str, Rows]]:
    """Probabilities of the classes of the whole text, or the label of each token.

    config: the model's, with the names of its labels in `id2label`, or None.
    A single score, as of a model that rates a text, is no probability and is given as it is;
    labels that do not exclude one another (`problem_type`) have a probability each.
    """
    names = getattr(config, "id2label", None) or {}
    several = getattr(config, "problem_type", None) == "multi_label_classification"

    def name(i: int) -> str:
        return names.get(i, f"class {i}")

    old, new = _logits(before), _logits(after)
    if kind == "classes" and len(old) == 1:
        return [("score", [(name(0), float(old), float(new))])]
    old, new = (x.sigmoid() if several else x.softmax(-1) for x in (old, new))
    if kind == "classes":
        return [("class", _strongest(old, new, name))]
    rows = []
    for token, was, now in zip(before.text.tokens, old, new, strict=True):
        # the label before the edits; and the one after them, where it is another
        best = dict.fromkeys([int(was.argmax()), int(now.argmax())])
        rows += [(f"{token}: {name(i)}", float(was[i]), float(now[i])) for i in best]
    return [("label of each token", rows)]


def similarity(one: Reading, other: Reading) -> float:
    """The cosine of two texts' mean vectors, as sentence encoders are used (Reimers 2019)."""
    return float(F.cosine_similarity(_mean(one), _mean(other), dim=0))


def _strongest(old: Tensor, new: Tensor, name: Callable[[int], str]) -> Rows:
    """The entries that are strongest before or after, by the larger of the two probabilities."""
    best = torch.maximum(old, new).topk(min(SHOWN, len(old))).indices.tolist()
    return [(name(i), float(old[i]), float(new[i])) for i in best]


def _logits(reading: Reading) -> Tensor:
    """Scores of the one text in the batch, float32: (token, score) or (score,)."""
    scores = _scores(reading.output)
    return (_states(reading.output) if scores is None else scores)[0].float()


def _mean(reading: Reading) -> Tensor:
    return _states(reading.output)[0].float().mean(0)


def _scores(output: Any) -> Tensor | None:
    logits = getattr(output, "logits", None)
    return logits if isinstance(logits, Tensor) else None


def _states(output: Any) -> Tensor | None:
    states = getattr(output, "last_hidden_state", output)
    return states if isinstance(states, Tensor) and states.ndim == 3 else None


def _is_causal(reading: Reading) -> bool:
    """Whether no token attends to a later one, as far as the first few show."""
    weights = reading.seen[0].tile(slice(0, 8), slice(None))
    return not weights.triu(1).any()

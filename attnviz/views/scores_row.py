"""The attention of one query, taken apart: from query and key vectors to the softmax weights."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attnviz.views.inputs import check_matrix, to_array
from attnviz.views.no_key import no_key
from attnviz.views.view import Answer

SHOWN = 64  # keys of a query that are sent: those with the largest weights
NEVER = -10_000.0  # what models add to the score of a key that shall not count, or less
ROUNDED = 0.005  # weights that a model rounded to bfloat16 are this near to the softmax


@dataclass(frozen=True)
class ScoreRow:
    """One query of one head with some of its keys, in order of position; all numbers are float32.

    query:   its position.   keys: the keys' positions, (n,) whole numbers.
    q:       (d_k,).   k: (n, d_k).   dots: (n,), q · k.
    bias:    (n,), what is added to the scaled scores; −inf for a key that is masked out.
    softmax: (n,), of the scores of all keys.   log_sum: log of the sum of exp(score) over all keys,
             and sinks, or None where all are masked out.
    weights: (n,), the record's own.   changed: "edit" where an edit made other weights of the
             softmax, "other" where they differ from it for another reason, or "".
    masked:  how many of all keys are masked out.
    rest:    with sinks, what of the row goes to no key; or None.
    """

    query: int
    keys: NDArray[np.int64]
    q: NDArray
    k: NDArray
    dots: NDArray
    bias: NDArray
    softmax: NDArray
    weights: NDArray
    log_sum: float | None
    changed: str
    masked: int
    rest: float | None = None

    def packed(self) -> Answer:
        """The row as it goes to the page: at most (SHOWN + 1) × (d_k + 4) + d_k numbers."""
        said = {
            "query": self.query,
            "keys": self.keys.tolist(),
            "log_sum": self.log_sum,
            "changed": self.changed,
            "masked": self.masked,
            "rest": self.rest,
        }
        parts = (self.q, self.k, self.dots, self.bias, self.softmax, self.weights)
        return said, [part.astype("<f4").tobytes() for part in parts]

    def strongest(self, n: int, key: int | None) -> "ScoreRow":
        """The same row with only the n keys of the largest weights, and one more at a position."""
        some = strongest(self.weights, n, np.flatnonzero(self.keys == key))
        parts = ("keys", "k", "dots", "bias", "softmax", "weights")
        return replace(self, **{name: getattr(self, name)[some] for name in parts})


def read_rows(
    record: Any, item: int, head: int, queries: range, key: int | None = None
) -> Iterator[ScoreRow]:
    """Take the attention of some queries apart; the others are worked out only for an edited head.

    record: a captured record that has a query and a key.
    queries: their positions, without gaps.
    key: the position of one that must be among the keys of each result.
    Raises ValueError for weights that are no attention, RuntimeError for a record that was freed.
    """
    part = record.part(item, slice(head, head + 1))
    weights = to_array(part.tile(slice(queries.start, queries.stop), slice(None)))[0, 0]
    check_matrix(weights, f" (counted from query {queries.start})", part.sinks)
    k = to_array(part.key[0, 0])
    unedited = replace(part, changes={}) if part.sinks else None
    for query, row in zip(queries, weights, strict=True):
        found = _take_apart(part, query, k, row, [] if key is None else [key], unedited)
        yield replace(found, rest=float(no_key(row))) if part.sinks else found


def _take_apart(
    part: Any, query: int, k: NDArray, weights: NDArray, always: Sequence[int], unedited: Any
) -> ScoreRow:
    """One query's row; weights: (key,).   always: keys that must be among those of the result.

    unedited: the record before its edits, where it has sinks.
    """
    q = to_array(part.query[0, 0, query])
    dots = k @ q
    bias = _bias(part, query, len(k))
    softmax, log_sum = _softmax(dots, part.scale, bias)
    if unedited is not None:
        softmax, log_sum = _beside_sinks(softmax, log_sum, to_array(unedited.row(query))[0, 0])
    off = float(np.abs(softmax - weights).max())
    edited = "" if off <= 1e-6 else "edit"  # nan too is no softmax that was kept
    changed = edited if part.changes else "" if off <= ROUNDED else "other"
    bias[(bias <= NEVER) & (softmax == 0)] = -np.inf
    keys = strongest(weights, SHOWN, always)
    some = (x[keys] for x in (k, dots, bias, softmax, weights))
    return ScoreRow(query, keys, q, *some, log_sum, changed, int((bias == -np.inf).sum()))


def strongest(weights: NDArray, n: int, always: Sequence[int]) -> NDArray[np.int64]:
    """Where the n largest of some weights are, and others that are always wanted, in order."""
    largest = np.argsort(-weights, kind="stable")[:n]
    return np.union1d(largest, np.asarray(always, np.int64))


def _bias(part: Any, query: int, n_keys: int) -> NDArray[np.float64]:
    """What mask and causality add to the scaled scores of one query, (key,)."""
    bias = np.zeros(n_keys)
    if part.is_causal:
        bias[query + 1 :] = -np.inf
    if part.mask is not None:
        rows = part.mask[0, 0]  # (query or 1, key or 1)
        mask = to_array(rows[query] if len(rows) > 1 else rows[0])
        bias += np.where(mask, 0.0, -np.inf) if mask.dtype == bool else mask
    return bias


def _beside_sinks(
    softmax: NDArray, log_sum: float | None, weights: NDArray
) -> tuple[NDArray, float | None]:
    """The softmax, and the log of what it divides by, with sinks beside the keys.

    weights: (key,), as the model wrote them out; the sinks' scores are known by what is missing.
    """
    shared = float(weights.sum(dtype=np.float64))
    if log_sum is not None:
        log_sum = log_sum - np.log(shared) if shared > 0 else np.inf
    return softmax * shared, log_sum


def _softmax(dots: NDArray, scale: float, bias: NDArray) -> tuple[NDArray, float | None]:
    """The softmax of dots × scale + bias, and the log of what it divides by."""
    scores = np.where(bias == -np.inf, -np.inf, dots * np.float64(scale) + bias)
    largest = scores.max()
    if largest == -np.inf:
        return np.zeros_like(scores), None
    with np.errstate(invalid="ignore"):  # of scores that are not finite, which an edit may hide
        powers = np.exp(scores - largest)
    return powers / powers.sum(), float(largest + np.log(powers.sum()))

"""What a head does, in numbers: where its weight goes, and how spread out it is."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from attnviz.views.no_key import no_key

SEPARATORS = {"[SEP]", "</s>", "<|endoftext|>", "<eos>", "<sep>"}


def measures(
    rows: NDArray[np.float32],
    queries: NDArray[np.int64],
    keys: Sequence[str],
    *,
    same: bool,
    sinks: bool = False,
) -> dict[str, NDArray[np.float32]]:
    """Measure each head on some of its queries.

    rows:    (head, query, key), the weights of these queries.
    queries: (query,), their positions.
    keys:    the key tokens.
    same:    whether queries and keys are the same tokens; only then positions can be compared.
    sinks:   whether a share of each row may go to no key. That share is then a measure of its own,
             the mean over all queries; entropy and distance are those of what the keys share, so
             that they mean what they mean without sinks: 0 bits for one key, whatever it got.
    Returns for each measure one number a head, (head,): the mean over the queries (without those
    that attend to nothing) of the weight on the first token, on separators such as [SEP], on the
    previous token and on the token itself; of the entropy in bits (Shannon 1948), which is 0 for
    all the weight on one token and log2 n for the same on n; and of the distance in tokens, each
    key weighed by its weight.
    """
    heads, _, n_keys = rows.shape
    attends = rows.any(-1)  # (head, query)
    count = np.maximum(attends.sum(1), 1)

    def mean(values: NDArray) -> NDArray[np.float32]:  # (head, query), zero where nothing is seen
        return (values.sum(1) / count).astype(np.float32)

    result = {}
    if same:
        after_first = queries[queries > 0]
        some = np.flatnonzero(queries > 0)
        previous = rows[:, some, after_first - 1] if len(some) else np.zeros((heads, 1))
        present = np.maximum(attends[:, some].sum(1), 1)
        result["previous token"] = (previous.sum(1) / present).astype(np.float32)
    result["first token"] = mean(rows[:, :, 0])
    separators = [i for i, key in enumerate(keys) if key in SEPARATORS]
    if separators:
        result[keys[separators[0]]] = mean(rows[:, :, separators].sum(-1))
    if same:
        result["itself"] = mean(rows[:, np.arange(len(queries)), queries])
    if sinks:
        result["to no key"] = no_key(rows).mean(1).astype(np.float32)
        rows = rows / np.maximum(rows.sum(-1, keepdims=True), 1e-30)
    result["entropy (bits)"] = mean(_entropy(rows))
    if same:
        result["distance (tokens)"] = mean(_distance(rows, queries, n_keys))
    return result


def _entropy(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    logs = np.log2(np.maximum(rows, 1e-30))
    # a weight that rounding left above one would make less than nothing
    return np.maximum(-np.einsum("hqk,hqk->hq", rows, logs), 0)


def _distance(rows: NDArray[np.float32], queries: NDArray, n_keys: int) -> NDArray[np.float32]:
    distances = np.abs(queries[:, None] - np.arange(n_keys)).astype(np.float32)  # (query, key)
    return np.einsum("hqk,qk->hq", rows, distances)

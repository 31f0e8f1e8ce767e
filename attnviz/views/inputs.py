"""Checks that turn what a reader brings into what a view may draw, or say what is wrong with it."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from attnviz.checks import check_whole

ROW_SUM_TOLERANCE = 0.02  # weights rounded to bfloat16 sum to one within this


def check_weights(weights: ArrayLike) -> NDArray[np.float32]:
    """Return one attention matrix as float32 (query, key), or raise.

    weights: (n_queries, n_keys), anything `numpy.asarray` takes or a torch tensor on any device;
             every row sums to one, or is all zero for a query that may attend to nothing.
    Raises TypeError for what is not numbers, ValueError for another number of dimensions, an empty
    matrix, NaN, negative weights, or rows that do not sum to one.
    """
    if isinstance(weights, np.ma.MaskedArray):
        raise TypeError("weights must not be a masked array: fill in the masked places, with 0")
    try:
        matrix = to_array(weights)
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(f"weights must be a matrix of numbers: {error}") from error
    if matrix.ndim != 2 or 0 in matrix.shape:
        hint = " Choose one layer, head and batch item, such as weights[0, 5]." * (matrix.ndim > 2)
        raise ValueError(f"weights must be (n_queries, n_keys), got shape {matrix.shape}.{hint}")
    check_matrix(matrix)
    return np.ascontiguousarray(matrix, dtype=np.float32)


def check_matrix(matrix: NDArray, where: str = "", sinks: bool = False) -> None:
    """Raise ValueError for numbers that are no attention matrix (query, key).

    where: whose it is, for the message.   sinks: whether rows may sum to less than one.
    """
    if matrix.dtype.kind not in "fiub":
        raise TypeError(f"weights must be real numbers, got an array of {matrix.dtype}{where}")
    with np.errstate(over="ignore", invalid="ignore"):  # it is said below
        sums = matrix.sum(axis=1, dtype=np.float64)
    if not np.isfinite(sums).all() and len(wrong := np.argwhere(~np.isfinite(matrix))):
        row, column = wrong[0]
        value = matrix[row, column]
        raise ValueError(f"weights must be finite, got {value} at [{row}, {column}]{where}")
    if matrix.min() < 0:
        row, column = np.unravel_index(matrix.argmin(), matrix.shape)
        raise ValueError(
            f"weights must not be negative, got {matrix.min():.4g} at [{row}, {column}]{where}; "
            "are these scores from before the softmax?"
        )
    off = np.maximum(sums - 1, 0) if sinks else abs(sums - 1) * (sums != 0)
    wrong = np.flatnonzero(off > ROW_SUM_TOLERANCE)
    if len(wrong):
        wanted = "at most 1" if sinks else "1 (or be all zero)"
        hint = "; where a share goes to no key (sinks), give attnviz.capture's record"
        hint = hint if sums.max() <= 1 + ROW_SUM_TOLERANCE else ""
        raise ValueError(
            f"each row of weights must sum to {wanted}, but row {wrong[0]} sums to "
            f"{sums[wrong[0]]:.4g} ({len(wrong)} of {len(sums)} rows do not){where}{hint}"
        )


def to_array(values: ArrayLike) -> NDArray:
    """Return an array, or torch tensors of any device, graph and dtype, as a NumPy array.

    values: one, or lists of them.
    """
    if isinstance(values, list | tuple):
        values = [
            to_array(v) if isinstance(v, list | tuple) or _is_tensor(v) else v for v in values
        ]
    if _is_tensor(values):
        values = values.detach().cpu()
        values = values.float() if values.is_floating_point() else values  # NumPy has no bfloat16
    return np.asarray(values)


def _is_tensor(value: object) -> bool:
    return hasattr(value, "detach")


def check_index(
    name: str, value: object, n: int | None = None, wanted: str = "a whole number"
) -> int:
    """Return the number of one of n things (None: not known), or raise TypeError or ValueError.

    name, wanted: as for `check_whole`.
    """
    return check_whole(name, value, 0, None if n is None else n - 1, wanted)


def check_tokens(name: str, tokens: Sequence[str], expected: int) -> list[str]:
    """Return tokens as a list of `expected` strings, or raise TypeError or ValueError.

    name: the argument's name, for the message.
    """
    wanted = f"{name} must be a list of strings, one for each token"
    if isinstance(tokens, str) or not isinstance(tokens, Sequence | np.ndarray):
        raise TypeError(f"{wanted}, got {type(tokens).__name__}")
    if others := [token for token in tokens if not isinstance(token, str)]:
        raise TypeError(f"{wanted}, got one with {others[0]!r}")
    if len(tokens) != expected:
        raise ValueError(
            f"{name} must have one label for each of the {expected} rows or columns of weights, "
            f"got {len(tokens)}"
        )
    return list(tokens)


def check_labels(
    shape: tuple[int, int], tokens: Sequence[str], key_tokens: Sequence[str] | None
) -> tuple[list[str], list[str]]:
    """Return the labels of as many queries and keys as shape says; the keys share the queries'."""
    queries = check_tokens("tokens", tokens, shape[0])
    if key_tokens is None:
        if shape[0] != shape[1]:
            raise ValueError(
                f"weights of shape {shape} have other keys than queries: give key_tokens"
            )
        return queries, queries
    return queries, check_tokens("key_tokens", key_tokens, shape[1])

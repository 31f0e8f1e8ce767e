"""Where the weights of a view come from: arrays, or records that work them out when asked."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attnviz.views.inputs import check_index, check_matrix, to_array
from attnviz.views.no_key import no_key

BLOCK = 2**22  # weights held at once while many are read: 16 MB of float32, near the processor


@dataclass(frozen=True)
class Layer:
    """The attention of one layer for one batch item, read piece by piece.

    name: where it is in the model, or "".   heads, n_queries, n_keys: sizes.
    read: from slices of heads and of queries to their weights (head, query, key).
    is_self: whether the queries and the keys are the same tokens, as far as is known.
    sinks: whether a share of each row may go to no key.
    """

    name: str
    heads: int
    n_queries: int
    n_keys: int
    read: Callable[[slice, slice], Any]
    is_self: bool
    sinks: bool = False

    def rows(self, heads: slice, queries: slice) -> NDArray[np.float32]:
        """All weights of some heads' queries, (head, query, key); slices may have a step.

        Raises ValueError for rows that are not finite, not positive, or do not sum to one (with
        sinks: sum to more).
        """
        rows = to_array(self.read(heads, queries))
        for i, head in enumerate(rows):
            where = f" (head {range(self.heads)[heads][i]} of {self.name or 'a layer'})"
            check_matrix(head, where, self.sinks)
        return np.ascontiguousarray(rows, dtype=np.float32)

    def rest(self, head: int) -> NDArray[np.float32]:
        """What of each query's attention goes to no key, (query,); nothing without sinks."""
        rest = np.zeros(self.n_queries, np.float32)
        if self.sinks:
            for start, rows in self.blocks(slice(head, head + 1), 0, self.n_queries):
                rest[start : start + rows.shape[1]] = no_key(rows[0])
        return rest

    def blocks(self, heads: slice, first: int, last: int) -> Iterator[tuple[int, NDArray]]:
        """The rows of the queries from first up to last, in blocks: (first query, rows)."""
        n_heads = len(range(self.heads)[heads])
        step = max(1, BLOCK // (n_heads * self.n_keys))
        for start in range(first, last, step):
            yield start, self.rows(heads, slice(start, min(start + step, last)))

    def window(
        self, head: int, queries: tuple[int, int], keys: tuple[int, int], size: int
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """One head's weights between two queries and two keys, at most size × size of them.

        queries, keys: the first one, and the one after the last.
        Returns the largest weight of each patch, (rows, columns), and the largest of each row of
        patches among all keys, (rows,).
        """
        n_rows, n_columns = min(size, queries[1] - queries[0]), min(size, keys[1] - keys[0])
        cells = np.zeros((n_rows, n_columns), np.float32)
        largest = np.zeros(n_rows, np.float32)
        for start, block in self.blocks(slice(head, head + 1), *queries):
            places = np.arange(start, start + block.shape[1]) - queries[0]
            rows, first = shrink_rows(block, places, queries[1] - queries[0], n_rows)
            part = shrink_columns(rows[0, :, slice(*keys)], n_columns)
            here = slice(first, first + len(part))
            cells[here] = np.maximum(cells[here], part)
            largest[here] = np.maximum(largest[here], rows[0].max(1))
        return cells, largest


def shrink_rows(
    rows: NDArray[np.float32], places: NDArray[np.int64], n: int, size: int
) -> tuple[NDArray[np.float32], int]:
    """Keep the largest weights of rows that fall into the same of `size` patches of n rows.

    rows: (head, row, key).   places: (row,), rising, their positions among the n; without a gap
    that is wider than a patch.
    Returns (head, patch, key), and the first patch that it speaks of.
    """
    patches = np.searchsorted(edges(n, size), places, "right") - 1
    starts = np.flatnonzero(np.diff(patches, prepend=-1))
    return _largest(rows, starts, axis=1), int(patches[0])


def shrink_columns(rows: NDArray[np.float32], size: int) -> NDArray[np.float32]:
    """Keep the largest weight of each of `size` patches of the last axis."""
    return _largest(rows, edges(rows.shape[-1], size)[:-1], axis=rows.ndim - 1)


def _largest(rows: NDArray[np.float32], starts: NDArray[np.int64], axis: int) -> NDArray:
    """The largest of each patch along an axis; starts says where the patches begin.

    `np.maximum.reduceat` alone does the same, but slowly: patches of one size go another way.
    """
    n = rows.shape[axis]
    if len(starts) == n:
        return rows
    if n % len(starts) == 0 and (np.diff(starts) == n // len(starts)).all():
        shape = (*rows.shape[:axis], len(starts), n // len(starts), *rows.shape[axis + 1 :])
        return rows.reshape(shape).max(axis + 1)
    return np.maximum.reduceat(rows, starts, axis=axis)


def edges(n: int, parts: int) -> NDArray[np.int64]:
    """Where n things are cut into parts of (almost) equal size: parts + 1 positions from 0 to n."""
    return np.arange(parts + 1) * n // parts


def compress(weights: NDArray) -> bytes:
    """Weights as one byte each, the square root in 256 steps: wrong by at most 0.004."""
    return np.round(np.sqrt(np.clip(weights, 0, 1)) * 255).astype(np.uint8).tobytes()


_NO_WEIGHTS = "models with fused attention return no weights, use attnviz.capture to see them"


def check_layers(seen: object, item: int = 0) -> list[Layer]:
    """Return the layers of what a reader brings, or raise.

    seen: a capture, records, or for each layer an array or tensor (batch, head, query, key) or
          (head, query, key), such as transformers' `outputs.attentions`.
    item: which of the batch.
    Raises TypeError or ValueError for anything else, and for records of more than one pass, whose
    layers would look like those of a deeper model; IndexError for an item that is not there.
    """
    wanted = (
        "seen must be a capture, a record, or a list with one array (batch, head, query, key) or "
        "(head, query, key) for each layer"
    )
    if isinstance(item, bool) or not isinstance(item, int | np.integer):
        raise TypeError(f"item must be a whole number, got {item!r}")
    if _is_record(seen):
        seen = [seen]
    if seen is None:
        raise TypeError(f"{wanted}, got None; {_NO_WEIGHTS}")
    if hasattr(seen, "shape"):
        raise TypeError(f"{wanted}, got one array of shape {tuple(seen.shape)}: write [array]")
    if isinstance(seen, str) or not isinstance(seen, Sequence):
        raise TypeError(f"{wanted}, got {type(seen).__name__}")
    if not len(seen) or any(one is None for one in seen):
        got = "None for a layer" if len(seen) else "none"
        raise ValueError(f"{wanted}, got {got}; {_NO_WEIGHTS}")
    _check_one_pass(seen)
    return [_layer(one, int(item), f"seen[{i}]", wanted) for i, one in enumerate(seen)]


def _check_one_pass(seen: Sequence) -> None:
    passes = sorted({one.pass_number for one in seen if _is_record(one)})
    if len(passes) > 1:
        raise ValueError(
            f"seen has records of {len(passes)} forward passes ({passes[0]} to {passes[-1]}): "
            "choose one pass, such as [record for record in seen if record.pass_number == "
            f"{passes[0]}]"
        )


def check_one_size(layers: list[Layer]) -> tuple[int, int]:
    """Return the queries and keys that all layers have, or raise ValueError when they differ."""
    first = layers[0].n_queries, layers[0].n_keys
    for i, layer in enumerate(layers):
        if (layer.n_queries, layer.n_keys) != first:
            raise ValueError(
                f"all layers must have the same queries and keys, but seen[0] has {first[0]} × "
                f"{first[1]} and seen[{i}] {layer.n_queries} × {layer.n_keys}: choose some"
                + (_choice(layers) if layers[0].name else "")
            )
    return first


def _choice(layers: list[Layer]) -> str:
    """Which records to choose, so that all have one size: self-attentions, if that is enough."""
    sizes = {(layer.n_queries, layer.n_keys) for layer in layers if layer.is_self}
    queries, keys = layers[0].n_queries, layers[0].n_keys
    test = f"(record.n_queries, record.n_keys) == ({queries}, {keys})"
    test = 'record.kind == "self"' if len(sizes) == 1 else test
    return f", such as [record for record in seen if {test}]"


def check_head(layer: Layer, head: int, name: str = "head") -> int:
    """Return head as a plain number, or raise TypeError or ValueError."""
    return check_index(name, head, layer.heads)


def check_place(layers: Sequence[Layer], place: object) -> tuple[int, int]:
    """Return the layer and the head that a page asks for, or raise TypeError or ValueError."""
    if not isinstance(place, list | tuple) or len(place) != 2:
        raise ValueError(f"a head is asked for as [layer, head], got {place!r}")
    layer = check_index("layer", place[0], len(layers))
    return layer, check_head(layers[layer], place[1])


def _is_record(thing: object) -> bool:
    return hasattr(thing, "part") and hasattr(thing, "tile")


def _layer(one: Any, item: int, place: str, wanted: str) -> Layer:
    if _is_record(one):
        if not 0 <= item < one.batch_size:
            raise IndexError(f"item must be between 0 and {one.batch_size - 1}, got {item}")

        def read_record(heads: slice, queries: slice) -> Any:
            return one.part(item, heads).tile(queries, slice(None))[0]

        sizes = one.heads, one.n_queries, one.n_keys
        return Layer(one.path, *sizes, read_record, one.kind == "self", one.sinks)
    if not hasattr(one, "shape"):
        one = _as_array(one, place) if isinstance(one, list | tuple) else one
    shape = tuple(getattr(one, "shape", ()))
    if len(shape) not in (3, 4) or 0 in shape:
        got = f"shape {shape}" if shape else type(one).__name__
        raise ValueError(f"{wanted}, got {place} with {got}")
    if len(shape) == 4:
        if not 0 <= item < shape[0]:
            raise IndexError(f"item must be between 0 and {shape[0] - 1}, got {item}")
        one = one[item]
    elif item != 0:
        raise IndexError(f"item must be 0 for {place} of shape {shape}, one item, got {item}")
    square = shape[-1] == shape[-2]
    return Layer("", *shape[-3:], lambda heads, queries: one[heads, queries], square)


def _as_array(lists: list | tuple, place: str) -> NDArray:
    try:
        return to_array(lists)
    except ValueError as error:  # of different lengths
        raise ValueError(f"{place} must be an array, got lists: {error}") from error

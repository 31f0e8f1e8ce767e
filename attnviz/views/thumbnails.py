"""All heads made small: at once from all queries or a sample of them, then piece by piece exact."""

from collections.abc import Callable, Iterator
from math import isqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attnviz.views.source import BLOCK, Layer, compress, edges, shrink_columns, shrink_rows

SIDE = 48  # queries and keys of a thumbnail,
SAMPLED = 32  # and of one that begins with a sample
BYTES = 340_000  # of all thumbnails: they get smaller where there are many heads
AT_ONCE = 2**26  # weights worked out at first; of more, a sample of the queries is taken


class Thumbnails:
    """The largest weight of each patch of every head, so that a single strong link stays visible.

    layers:  all of one size.
    measure: called with each layer's rows that were read at first, (head, query, key), and the
             positions of their queries.
    roots:   (head of any layer, row, column) uint8, the square roots (see `compress`).
    step:    they show one query in so many; 1 when they are exact.
    """

    def __init__(
        self, layers: list[Layer], measure: Callable[[NDArray, NDArray], None] | None = None
    ):
        self._layers = layers
        self._heads = [layer.heads for layer in layers]
        self._shape = layers[0].n_queries, layers[0].n_keys
        exact = sum(self._heads) * self._shape[0] * self._shape[1] <= AT_ONCE
        side = min(SIDE if exact else SAMPLED, isqrt(BYTES // sum(self._heads)))
        self.size = min(side, self._shape[0]), min(side, self._shape[1])
        self.step = 1 if exact else self._shape[0] // self.size[0]
        places = np.arange(self.step // 2, self._shape[0], self.step)
        small = []
        for layer in layers:
            rows = layer.rows(slice(None), slice(self.step // 2, None, self.step))
            small.append(self._shrink(rows, places)[0])
            if measure is not None:
                measure(rows, places)
        self.roots = np.frombuffer(compress(np.concatenate(small)), np.uint8).copy()
        self.roots = self.roots.reshape(-1, *self.size)
        self._unread = [] if exact else list(self._pieces())

    @property
    def weights(self) -> list[NDArray[np.float32]]:
        """The thumbnails as weights again: for each layer (head, row, column)."""
        return np.split((self.roots / np.float32(255)) ** 2, np.cumsum(self._heads)[:-1])

    @property
    def left(self) -> int:
        """How many pieces are not exact yet."""
        return len(self._unread)

    def numbers(self, side: int = SIDE) -> dict[str, Any]:
        """As they go to the page, at most side × side (see `attnviz.views.heatmap.numbers`)."""
        rows, columns = (min(n, side) for n in self.size)
        roots, _ = shrink_rows(self.roots, np.arange(self.size[0]), self.size[0], rows)
        values = np.ascontiguousarray(shrink_columns(roots, columns)).tobytes()
        return {"rows": rows, "columns": columns, "exact": False, "values": values}

    def read_piece(self) -> tuple[dict[str, int], bytes]:
        """Make one more piece exact, in a moment.

        Returns where it is (the first of the heads, how many of them, the first row and the one
        after the last) and its bytes, (head, row, column).
        """
        n, heads, first, end = self._unread[0]
        layer, borders = self._layers[n], edges(self._shape[0], self.size[0])
        piece = np.zeros((heads.stop - heads.start, end - first, self.size[1]), np.float32)
        for start, rows in layer.blocks(heads, borders[first], borders[end]):
            small, at = self._shrink(rows, np.arange(start, start + rows.shape[1]))
            here = slice(at - first, at - first + small.shape[1])
            piece[:, here] = np.maximum(piece[:, here], small)
        start, data = sum(self._heads[:n]) + heads.start, compress(piece)
        self.roots[start : start + len(piece), first:end] = np.frombuffer(data, np.uint8).reshape(
            piece.shape
        )
        del self._unread[0]  # only now: reading may fail
        if not self._unread:
            self.step = 1
        return {"start": start, "heads": len(piece), "first": first, "end": end}, data

    def _shrink(self, rows: NDArray, places: NDArray) -> tuple[NDArray, int]:
        small, first = shrink_rows(rows, places, self._shape[0], self.size[0])
        return shrink_columns(small, self.size[1]), first

    def _pieces(self) -> Iterator[tuple[int, slice, int, int]]:
        """Layer, heads, first row and end of pieces of BLOCK weights, or one row of one head."""
        borders = edges(self._shape[0], self.size[0])
        row = int(np.diff(borders).max()) * self._shape[1]
        for n, heads in enumerate(self._heads):
            at_once = min(heads, max(1, BLOCK // row))
            most = BLOCK // (at_once * self._shape[1])
            for head in range(0, heads, at_once):
                some, first = slice(head, min(head + at_once, heads)), 0
                while first < self.size[0]:
                    end = int(np.searchsorted(borders, borders[first] + most, "right")) - 1
                    end = max(first + 1, end)
                    yield n, some, first, end
                    first = end

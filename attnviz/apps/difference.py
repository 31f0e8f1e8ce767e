"""What changed from one attention to another, read piece by piece."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from attnviz.views.source import Layer, shrink_columns, shrink_rows


@dataclass(frozen=True)
class Difference:
    """The weights of a layer after an edit less those before, where a `Layer` can stand."""

    before: Layer
    after: Layer

    @property
    def n_queries(self) -> int:
        return self.before.n_queries

    @property
    def n_keys(self) -> int:
        return self.before.n_keys

    @property
    def sinks(self) -> bool:
        return self.before.sinks

    def rest(self, head: int) -> NDArray[np.float32]:
        """What more of each query's attention goes to no key, (query,)."""
        return self.after.rest(head) - self.before.rest(head)

    def rows(self, heads: slice, queries: slice) -> NDArray[np.float32]:
        """As `Layer.rows`."""
        return self.after.rows(heads, queries) - self.before.rows(heads, queries)

    def window(
        self, head: int, queries: tuple[int, int], keys: tuple[int, int], size: int
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """As `Layer.window`, of each patch the change that is furthest from zero."""
        n = queries[1] - queries[0]
        shape = min(size, n), min(size, keys[1] - keys[0])
        gain, loss = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
        one = slice(head, head + 1)
        blocks = zip(
            self.before.blocks(one, *queries), self.after.blocks(one, *queries), strict=True
        )
        for (start, old), (_, new) in blocks:
            change = (new - old)[:, :, slice(*keys)]  # (1, query, key)
            places = np.arange(start, start + change.shape[1]) - queries[0]
            for extreme, signed in ((gain, change), (loss, -change)):
                rows, first = shrink_rows(signed, places, n, shape[0])
                part = shrink_columns(rows[0], shape[1])
                here = slice(first, first + len(part))
                extreme[here] = np.maximum(extreme[here], part)
        cells = np.where(gain >= loss, gain, -loss)
        return cells, np.abs(cells).max(1)

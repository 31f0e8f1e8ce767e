"""The share of attention that goes to no key: worked out here, and said in the same words."""

import numpy as np
from numpy.typing import NDArray


def no_key(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """What of each row goes to no key, (..., query), from its weights (..., query, key)."""
    return np.clip(1 - rows.sum(-1), 0, 1)


def to_no_key(share: float) -> str:
    """The sentence of all views; common.js has it for the page."""
    percent = 100 * share
    few = 0 < percent < 1 or 99 < percent < 100
    return f"{percent:.{int(few)}f} % to no key"


def on_average(shares: NDArray[np.float32]) -> str:
    """The same of many rows; nothing for none."""
    return f"{to_no_key(float(shares.mean()))}, on average" if shares.size else ""

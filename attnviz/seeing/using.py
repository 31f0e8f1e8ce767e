"""`capture` and `edit`: see and change the attention inside any PyTorch model."""

import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

from torch import nn

from attnviz.checks import whole_or_none
from attnviz.seeing.door import listening
from attnviz.seeing.record import AttentionRecord, Change
from attnviz.seeing.seen import Seen


@contextmanager
def capture(
    model: nn.Module, layers: Iterable[int] | None = None, *, with_gradients: bool = False
) -> Iterator[Seen]:
    """See every attention that a model computes while the block runs.

    model:  any nn.Module; it is not changed, and its output stays bit for bit the same.
    layers: keep only these, counted from 0 within each forward pass; all when not given.
    with_gradients: keep the weights in the graph, so that `record.weights.grad` is there after
            backward(). Attention is then computed with its weights written out: the output may
            differ from the fused kernel's in the last digits, and memory grows with N × N.
    Yields the list of records, filled as the model runs.
    Raises TypeError or ValueError for what is no module, or one whose attention cannot be seen
    (compiled, scripted, or in a fused kernel of its own); ValueError at the end of the block when
    no attention was seen or a layer does not exist. Warns of attention modules that ran unseen.
    """
    _check_model(model)
    wanted = None if layers is None else _check_layers(layers)
    listener = _Capture(wanted, with_gradients)
    with listening(model, listener):
        yield listener.seen
    if not listener.n_seen:
        raise ValueError(
            "no attention was seen: no forward pass of this model ran inside the block, or its "
            "attention is computed by something other than F.scaled_dot_product_attention, "
            "nn.MultiheadAttention or a softmax whose result is multiplied with the values"
        )
    if wanted and max(wanted) >= listener.n_seen:
        raise ValueError(
            f"layers names {max(wanted)}, but a pass had at most {listener.n_seen} attentions "
            f"(0 to {listener.n_seen - 1})"
        )
    if listener.missed:
        names = ", ".join(sorted(listener.missed))
        warnings.warn(f"these attention modules ran without being seen: {names}", stacklevel=3)


@contextmanager
def edit(model: nn.Module, changes: Mapping[int | tuple[int, int], Change]) -> Iterator[None]:
    """Change the attention of some heads while the block runs.

    model:   any nn.Module. Heads and layers that are not named stay on the model's own path.
    changes: {(layer, head): change} or {layer: change} for all its heads; layers are counted from 0
             within each forward pass. A change is a function from one head's weights (batch, query,
             key) to weights of the same shape whose rows sum to one or are all zero; it may be
             differentiable. `off`, `uniform`, `only`, `temperature` and `mask` are ready-made.
    Raises TypeError or ValueError for changes that are none, or a model that cannot be seen, as
    `capture`; ValueError for a head that does not exist, weights that are not kept to the rules,
    and at the end of the block for a layer that did not run.
    """
    _check_model(model)
    listener = _Edit(_check_changes(changes))
    with listening(model, listener):
        yield
    unused = sorted({layer for layer, _ in listener.wanted} - listener.used)
    if unused:
        raise ValueError(
            f"the edit names layer {unused[0]}, but the passes inside the block had only "
            f"{listener.n_seen} attentions"
        )


class _Capture:
    def __init__(self, wanted: set[int] | None, with_gradients: bool):
        self.wanted, self.with_gradients = wanted, with_gradients
        self.seen = Seen()
        self.n_seen = 0  # attentions in the longest pass
        self.missed: set[str] = set()

    def changes(self, index: int, heads: int) -> dict[int, Change]:
        return {}

    def hear(self, record: AttentionRecord) -> None:
        self.n_seen = max(self.n_seen, record.index + 1)
        if self.wanted is None or record.index in self.wanted:
            self.seen.append(record)

    def miss(self, path: str) -> None:
        self.missed.add(path)


class _Edit:
    with_gradients = False

    def __init__(self, wanted: dict[tuple[int, int | None], Change]):
        self.wanted = wanted
        self.used: set[int] = set()
        self.n_seen = 0

    def changes(self, index: int, heads: int) -> dict[int, Change]:
        found = {}
        for (layer, head), change in self.wanted.items():
            if layer != index:
                continue
            self.used.add(layer)
            if head is not None and head >= heads:
                raise ValueError(
                    f"the edit names head {head} of layer {layer}, which has {heads} heads "
                    f"(0 to {heads - 1})"
                )
            found |= dict.fromkeys(range(heads) if head is None else [head], change)
        return found

    def hear(self, record: AttentionRecord) -> None:
        self.n_seen = max(self.n_seen, record.index + 1)

    def miss(self, path: str) -> None:
        pass


def _check_model(model: nn.Module) -> None:
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, got {type(model).__name__}")


def _check_layers(layers: Iterable[int]) -> set[int]:
    if not isinstance(layers, Iterable):
        raise TypeError(f"layers must be several whole numbers, such as [3], got {layers!r}")
    wanted = set()
    for layer in layers:
        number = whole_or_none(layer)
        if number is None or number < 0:
            raise ValueError(f"layers must be whole numbers from 0, got {layer!r}")
        wanted.add(number)
    if not wanted:
        raise ValueError("layers must name at least one layer, got none")
    return wanted


def _check_changes(
    changes: Mapping[int | tuple[int, int], Change],
) -> dict[tuple[int, int | None], Change]:
    if not isinstance(changes, Mapping) or not changes:
        raise TypeError(f"changes must be a dict like {{(layer, head): change}}, got {changes!r}")
    checked = {}
    for place, change in changes.items():
        layer, head = place if isinstance(place, tuple) and len(place) == 2 else (place, None)
        numbers = [whole_or_none(n) for n in (layer, *([] if head is None else [head]))]
        if None in numbers or min(numbers) < 0:
            raise ValueError(
                f"changes must name a layer or (layer, head), counted from 0, got {place!r}"
            )
        if not callable(change):
            raise TypeError(f"the change at {place!r} must be a function, got {change!r}")
        checked[numbers[0], None if head is None else numbers[1]] = change
    return checked

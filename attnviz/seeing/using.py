"""`capture` and `edit`: see and change the attention inside any PyTorch model."""

import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

from torch import nn

from attnviz.checks import whole_or_none
from attnviz.seeing.blocks import listening
from attnviz.seeing.naming import nearest, within
from attnviz.seeing.nothing import why_nothing_was_seen
from attnviz.seeing.record import AttentionRecord, Change
from attnviz.seeing.seen import Seen

Layer = int | str  # by its number within a pass, or by the path of its module


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
    Yields the list of records, filled as the model runs; `seen["encoder.layer.2.attention"]` is
    the one of that module.
    One call of the model is one pass. A model that is run in parts instead, by one of its methods
    such as `encode`, by a function such as a beam search, or by hand, makes one pass of its parts
    until one of its attentions would run again, which begins the next pass. (Layers that share
    their parameters run again within a pass: when a method runs them for the same tokens.)
    What backward() runs again, under activation checkpointing, is no pass and is not recorded.
    A block hears what runs in its own thread, or its own asynchronous task and those begun in it.
    Raises TypeError or ValueError for what is no module, or one whose attention cannot be seen
    (compiled, scripted, or in a fused kernel of its own); ValueError at the end of the block when
    no attention was seen or a layer does not exist; RuntimeError when it ends in another thread
    than it began in. Warns of attention that ran without being seen, by module and reason.
    """
    _check_model(model)
    wanted = None if layers is None else _check_layers(layers)
    listener = _Capture(wanted, with_gradients)
    with listening(model, listener) as block:
        yield listener.seen
    if not listener.n_seen:
        raise ValueError(why_nothing_was_seen(model, block))
    if wanted and max(wanted) >= listener.n_seen:
        raise ValueError(
            f"layers names {max(wanted)}, but a pass had at most {listener.n_seen} attentions "
            f"(0 to {listener.n_seen - 1})"
        )
    if listener.missed:
        missed = "; ".join(f"{path}: {reason}" for path, reason in listener.missed.items())
        warnings.warn(f"attention ran without being seen. {missed}", stacklevel=3)


@contextmanager
def edit(model: nn.Module, changes: Mapping[Layer | tuple[Layer, int], Change]) -> Iterator[None]:
    """Change the attention of some heads while the block runs.

    model:   any nn.Module. Heads and layers that are not named stay on the model's own path.
    changes: {(layer, head): change} or {layer: change} for all its heads. A layer is a number,
             counted from 0 within each pass as in `capture`, or the path of the module that
             attends, such as "encoder.layer.2.attention", or of one around it that attends nowhere
             else; each attention of that module is changed, if it has several in a pass.
             A change is a function from one head's weights (batch, query, key) to weights of the
             same shape whose rows sum to one or are all zero; where a share goes to no key
             (`record.sinks`), to at most one. It may be differentiable. `off`, `uniform`, `only`,
             `temperature` and `mask` are ready-made.
    Gradients are those of the changed weights, also where activation checkpointing runs a part
    again in backward(), inside the block or after it.
    Raises TypeError or ValueError for changes that are none, or a model that cannot be seen, as
    `capture`; ValueError for a head that does not exist, weights that are not kept to the rules,
    and at the end of the block for a layer that did not run, or where layers are numbered and an
    attention among them was not seen.
    """
    _check_model(model)
    listener = _Edit(_check_changes(changes, model))
    with listening(model, listener) as block:
        yield
    if not listener.paths:
        raise ValueError(why_nothing_was_seen(model, block))
    for layer in listener.wanted_layers:
        if layer not in listener.used:
            raise ValueError(listener.why_unused(layer))
    numbered = any(isinstance(layer, int) for layer in listener.wanted_layers)
    for path, reason in listener.missed.items() if numbered else ():
        raise ValueError(
            f"the edit counts layers, but {path} attends without being seen ({reason}), so the "
            "numbers may be those of other layers: name each layer by the path of its module"
        )


class _Capture:
    edits = False

    def __init__(self, wanted: set[int] | None, with_gradients: bool):
        self.wanted, self.with_gradients = wanted, with_gradients
        self.seen = Seen()
        self.n_seen = 0  # attentions in the longest pass
        self.missed: dict[str, str] = {}

    def changes(self, index: int, path: str, heads: int) -> dict[int, Change]:
        return {}

    def hear(self, record: AttentionRecord) -> None:
        self.n_seen = max(self.n_seen, record.index + 1)
        if self.wanted is None or record.index in self.wanted:
            self.seen.append(record)

    def miss(self, path: str, reason: str) -> None:
        self.missed[path] = reason


class _Edit:
    edits, with_gradients = True, False

    def __init__(self, wanted: dict[tuple[Layer, int | None], Change]):
        self.wanted = wanted
        self.wanted_layers = list(dict.fromkeys(layer for layer, _ in wanted))
        self.used: dict[Layer, str] = {}  # and the path of the module that attended
        self.paths: list[str] = []  # of all that attended
        self.n_seen = 0
        self.missed: dict[str, str] = {}

    def changes(self, index: int, path: str, heads: int) -> dict[int, Change]:
        found = {}
        for (layer, head), change in self.wanted.items():
            if layer != index and not (isinstance(layer, str) and within(layer, path)):
                continue
            self._use(layer, path)
            if head is not None and head >= heads:
                raise ValueError(
                    f"the edit names head {head} of layer {layer}, which has {heads} heads "
                    f"(0 to {heads - 1})"
                )
            found |= dict.fromkeys(range(heads) if head is None else [head], change)
        return found

    def _use(self, layer: Layer, path: str) -> None:
        first = self.used.setdefault(layer, path)
        if isinstance(layer, str) and first != path:
            raise ValueError(
                f"the edit names {layer}, inside which several modules attend, such as {first} "
                f"and {path}: name one of these"
            )

    def hear(self, record: AttentionRecord) -> None:
        self.n_seen = max(self.n_seen, record.index + 1)
        self.paths.append(record.path)

    def miss(self, path: str, reason: str) -> None:
        self.missed[path] = reason

    def why_unused(self, layer: Layer) -> str:
        if isinstance(layer, str):
            return f"the edit names {layer}, where nothing attended{nearest(layer, self.paths)}"
        return (
            f"the edit names layer {layer}, but the passes inside the block had only "
            f"{self.n_seen} attentions"
        )


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
    changes: Mapping[Layer | tuple[Layer, int], Change], model: nn.Module
) -> dict[tuple[Layer, int | None], Change]:
    if not isinstance(changes, Mapping) or not changes:
        raise TypeError(f"changes must be a dict like {{(layer, head): change}}, got {changes!r}")
    checked = {}
    for place, change in changes.items():
        layer, head = place if isinstance(place, tuple) and len(place) == 2 else (place, None)
        layer = _check_path(layer, model) if isinstance(layer, str) else whole_or_none(layer)
        number = None if head is None else whole_or_none(head)
        if layer is None or (head is not None and number is None) or _below_zero(layer, number):
            raise ValueError(
                "changes must name a layer or (layer, head), counted from 0 or by the path of its "
                f"module, got {place!r}"
            )
        if not callable(change):
            raise TypeError(f"the change at {place!r} must be a function, got {change!r}")
        checked[layer, number] = change
    return checked


def _below_zero(*numbers: Layer | None) -> bool:
    return any(isinstance(number, int) and number < 0 for number in numbers)


def _check_path(path: str, model: nn.Module) -> str:
    """The path under which records have a module: a model may hold it under several."""
    first = {module: name for name, module in model.named_modules()}
    known = dict(model.named_modules(remove_duplicate=False))
    if path == type(model).__name__:
        return path
    if path not in known or not path:
        raise ValueError(
            f"the edit names {path!r}, which is no module of the model{nearest(path, known)}"
        )
    return first[known[path]]

"""What an account found out, kept: the next pass of the same kind needs no account of its own."""

import sys
import weakref
from collections.abc import Hashable
from dataclasses import dataclass, field
from enum import Enum
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from attnviz.seeing.leading import Lead
from attnviz.seeing.visible import check_visible

_AT_MOST = 256  # kinds of passes of one model that are kept
_NO_OWNERS = {"Module", "object"}  # of methods through which every module is called
_PLAIN = (bool, int, float, str, Enum, type(None))


@dataclass(frozen=True)
class Fact:
    """What is known of one attention beside its numbers.

    kind: "self" or "cross".   lead: its batch items and heads; None where the model does not tell.
    left_out: whether it is no attention of tokens to tokens, and is not recorded.
    """

    kind: str
    lead: Lead | None = None
    left_out: bool = False


@dataclass
class Facts:
    """What is known of one kind of pass.

    modules: the ids of those that ran.   missed: why attention in a module was not seen, by path.
    """

    modules: set[int] = field(default_factory=set)
    found: dict[tuple[str, int], Fact] = field(default_factory=dict)  # (path, which one in it)
    missed: dict[str, str] = field(default_factory=dict)


class KnownModel:
    """What is known of a model, for as long as its modules and their settings stay.

    state:  what changes with these.
    paths:  the names of its modules, by their ids. Torch's own layers that have no parts do not
            attend by themselves, and are left out.
    owners: the names of the classes whose methods are methods of its modules.
    """

    def __init__(self, model: nn.Module, state: tuple):
        self.state = state
        self.paths: dict[int, str] = {}
        for name, module in model.named_modules():
            if module is model or module._modules or not _is_of_torch(type(module)):
                self.paths[id(module)] = name or type(module).__name__
        kinds = {kind for module in model.modules() for kind in type(module).__mro__}
        self.owners = {kind.__qualname__ for kind in kinds} - _NO_OWNERS
        self._facts: dict[Hashable, Facts] = {}

    def get(self, kind: Hashable) -> Facts | None:
        """The facts of a kind of pass."""
        return self._facts.get(kind)

    def keep(self, kind: Hashable, facts: Facts) -> None:
        if len(self._facts) >= _AT_MOST:
            self._facts.clear()
        self._facts[kind] = facts

    def forget(self, kind: Hashable) -> None:
        self._facts.pop(kind, None)


_models: weakref.WeakKeyDictionary[nn.Module, KnownModel] = weakref.WeakKeyDictionary()


def known_model(model: nn.Module) -> KnownModel:
    """What is known of a model; ValueError when it has a module that cannot be seen."""
    state, known = _state(model), _models.get(model)
    changed = known is None or known.state != state
    if changed or "torch._dynamo" in sys.modules:  # how compiled code runs is a setting elsewhere
        for name, module in model.named_modules():
            check_visible(name or type(module).__name__, module)
    if changed:
        known = _models[model] = KnownModel(model, state)
    return known


def _state(model: nn.Module) -> tuple:
    """What changes with the modules of a model, their names, code and settings.

    Of torch's own layers only whether they are being trained may be a setting of what attends.
    """
    state: list[Hashable] = []
    for name, module in model.named_modules():
        own, kind = vars(module), type(module)
        code = (
            id(getattr(kind, "forward", None)),
            id(own.get("forward")),
        )  # which may hold the model
        state += name, id(module), *code, module.training
        if not _is_of_torch(kind):
            state.append(getattr(own.get("config"), "_attn_implementation", None))
            settings = ((k, v) for k, v in own.items() if k[0] != "_" or not isinstance(v, dict))
            state += [_plain(value) for _, value in settings]
    return tuple(state)


def _plain(value: Any) -> Hashable:
    """What of a setting or an argument is compared."""
    if isinstance(value, _PLAIN):
        return type(value), value
    if isinstance(value, dict):
        return tuple((_plain(k), _plain(v)) for k, v in value.items() if isinstance(v, _PLAIN))
    if isinstance(value, SimpleNamespace):
        return _plain(vars(value))
    return id(value) if callable(value) else type(value)


def _is_of_torch(kind: type) -> bool:
    return kind.__module__.startswith("torch.nn.modules.")


def kind_of_pass(module: nn.Module, args: tuple, kwargs: dict) -> Hashable:
    """What tells whether two calls of a module run the same attentions: sizes, kinds, settings."""
    leaves = tree_leaves((args, kwargs))
    first: dict[int, int] = {}  # the same tensor may come twice
    for i, leaf in enumerate(leaves):
        first.setdefault(id(leaf), i)
    given = tuple(
        (t.shape, t.dtype, t.device, first[id(t)]) if isinstance(t, Tensor) else _plain(t)
        for t in leaves
    )
    flags = torch.is_grad_enabled(), torch.is_inference_mode_enabled(), torch.is_autocast_enabled()
    return id(module), module.training, flags, given

"""Where the attentions of a running model pass by, to be seen and changed.

A `TorchFunctionMode` is called for every torch function that runs in its thread. Here it lets all
pass but the few that attention is made of: the fused `scaled_dot_product_attention`; PyTorch's
`multi_head_attention_forward`; and, for models that write attention out, a softmax over the last
dimension whose result goes on to be multiplied with something.
"""

import sys
import threading
import types
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from inspect import signature
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from attnviz.seeing.calls import FusedCall, WrittenOut, as_four, einsum_order, kind_of
from attnviz.seeing.record import AttentionRecord, Change, apply_changes
from attnviz.seeing.trail import PRODUCTS, Trail

_SOFTMAX = {torch.softmax, F.softmax, Tensor.softmax, torch.special.softmax}
_DROPOUT = {torch.dropout, F.dropout, torch.dropout_}
_PRODUCT = {
    *(torch.matmul, Tensor.matmul, Tensor.__matmul__, torch.bmm, Tensor.bmm, torch.einsum),
}
_WATCHED = {F.scaled_dot_product_attention, F.multi_head_attention_forward, *_SOFTMAX, *PRODUCTS}
_WITH_FAST_PATH = (nn.TransformerEncoder, nn.TransformerEncoderLayer, nn.MultiheadAttention)
_VISIBLE = ("sdpa", "eager", None)  # what transformers may call a model's attention


class _Here(threading.local):
    """What each thread has of its own."""

    def __init__(self) -> None:
        self.doors: dict[int, Door] = {}  # by the id of their model
        self.paused = False  # while a module runs unseen, by every door


class Listener(Protocol):
    """A capture or an edit."""

    with_gradients: bool

    def changes(self, index: int, heads: int) -> dict[int, Change]: ...
    def hear(self, record: AttentionRecord) -> None: ...
    def miss(self, path: str) -> None: ...


@dataclass
class _Frame:
    """A module that is running."""

    module: nn.Module
    records: list[AttentionRecord]
    changed: bool = False
    inner: int = 0  # attentions in the modules inside it


class Door(TorchFunctionMode):
    """The attentions of one model in one thread, numbered, told to listeners, changed by them."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.paths: dict[int, str] = {}
        for name, module in model.named_modules():
            _check_visible(module)
            self.paths[id(module)] = name or type(module).__name__
        self.listeners: list[Listener] = []
        self.thread = threading.get_ident()
        self.stack: list[_Frame] = []
        self.multi_heads: list[tuple[int, str]] = []  # heads and kind of the running nn functions
        self.written: dict[int, tuple[weakref.ref, WrittenOut]] = {}
        self.trail = Trail()
        self.pass_number, self.index = -1, 0

    def __torch_function__(
        self, func: Callable, types: tuple, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        kwargs = kwargs or {}
        watched = func in _WATCHED or self.written or self.trail.known
        if not watched or not self.stack:
            return func(*args, **kwargs)
        if func is F.scaled_dot_product_attention:
            return self._fused(func, args, kwargs)
        if func is F.multi_head_attention_forward:
            return self._multi_head(func, args, kwargs)
        if func in _SOFTMAX:
            return self._softmax(func, args, kwargs)
        return self._follow(func, args, kwargs)

    # --- the attentions -----------------------------------------------------------------------

    def _fused(self, func: Callable, args: tuple, kwargs: dict) -> Tensor:
        call = FusedCall.bind(*args, **kwargs).unpacked(self.stack[-1].module)
        changes = self._changes(call.heads)
        record = self._record(**call.kept(), changes=changes)
        if self._with_gradients:
            self._keep_in_graph(record, call.weights())
            output = call.mix(record.written_out)
        else:
            output = func(*args, **kwargs)
            output = call.mix_changed(output, changes) if changes else output
        self._tell(record)
        return output

    def _multi_head(self, func: Callable, args: tuple, kwargs: dict) -> Any:
        """Run torch's own function with its inner attention passing by here again.

        Its first line would hand the call back to this mode, so a copy without that line's check
        runs: the same code, hence the same numbers.
        """
        bound = signature(func).bind(*args, **kwargs).arguments
        kind = "self" if bound["query"] is bound["key"] else "cross"
        names = {**func.__globals__, "has_torch_function": lambda tensors: False}
        unchecked = types.FunctionType(func.__code__, names, argdefs=func.__defaults__)
        self.multi_heads.append((bound["num_heads"], kind))
        try:
            with self:
                return unchecked(*args, **kwargs)
        finally:
            self.multi_heads.pop()

    def _softmax(self, func: Callable, args: tuple, kwargs: dict) -> Tensor:
        result = func(*args, **kwargs)
        dim = kwargs.get("dim", args[1] if len(args) > 1 else None)
        if result.dim() >= 2 and dim in (-1, result.dim() - 1):
            scores = self.trail.recall(args[0] if args else kwargs.get("input"))
            self._remember(result, WrittenOut(scores=scores))
        return result

    def _follow(self, func: Callable, args: tuple, kwargs: dict) -> Any:
        """Follow the result of a softmax, through casts, masks and dropout, to the values."""
        operands = args[1:] if func is torch.einsum else args
        if operands and isinstance(operands[0], list | tuple):
            operands = tuple(operands[0])
        weights = next((a for a in operands if self._recall(a)), None)
        if weights is None:
            return self.trail.run(func, args, kwargs)
        found = self._recall(weights)
        if func in _PRODUCT and (weights is operands[0] or func is torch.einsum):
            changed = self._at_the_values_of(func, args[0], operands, weights, found)
            operands = tuple(changed if t is weights else t for t in operands)
            return func(*((args[0],) if func is torch.einsum else ()), *operands, **kwargs)
        result = func(*args, **kwargs)
        if isinstance(result, Tensor) and _goes_on_as(weights, result):
            undropped = found.undropped
            if undropped is None and func in _DROPOUT and result is not weights:
                undropped = weights
            folded = weights.size(1) if (weights.dim(), result.dim()) == (4, 3) else found.heads
            self._remember(result, replace(found, undropped=undropped, heads=folded))
        return result

    def _at_the_values_of(
        self, func: Callable, equation: Any, operands: tuple, weights: Tensor, found: WrittenOut
    ) -> Tensor:
        """As `_at_the_values`, for an einsum in whatever order of dimensions it has the weights."""
        order = None
        if func is torch.einsum:
            order = einsum_order(equation, [t is weights for t in operands].index(True))
        if order is None or order == sorted(order):
            return self._at_the_values(found, weights)
        undropped = None if found.undropped is None else found.undropped.permute(order)
        turned = replace(found, undropped=undropped, heads=None)
        changed = self._at_the_values(turned, weights.permute(order))
        found.record, found.scores = turned.record, turned.scores
        return changed.permute([order.index(i) for i in range(len(order))])

    def _at_the_values(self, written: WrittenOut, weights: Tensor) -> Tensor:
        """Record weights that were written out, and change them before they meet the values."""
        heads = self.multi_heads[-1][0] if self.multi_heads else written.heads
        undropped = weights if written.undropped is None else written.undropped
        four = as_four(undropped, heads)
        if written.record is None:
            changes = self._changes(four.size(1))
            made_of = written.scores.behind(four) if written.scores else {}
            written.record = self._record(written_out=four.detach(), changes=changes, **made_of)
            written.scores = None
            if self._with_gradients:
                self._keep_in_graph(written.record, four)
            self._tell(written.record)
            if self._with_gradients:  # the graph must run through the tensor that was kept
                return written.carry_over(written.record.written_out, weights)
        changes = written.record.changes
        if not changes:
            return weights
        return written.carry_over(apply_changes(four, changes), weights)

    def _keep_in_graph(self, record: AttentionRecord, weights: Tensor) -> None:
        if not torch.is_grad_enabled():
            raise ValueError(
                "with_gradients needs gradients: run the model outside torch.no_grad()"
            )
        if not weights.requires_grad:  # of a model whose parameters are all frozen
            weights.requires_grad_()
        weights = apply_changes(weights, record.changes) if record.changes else weights
        weights.retain_grad()
        record.written_out, record.changes = weights, {}

    def _record(self, **content: Any) -> AttentionRecord:
        path = self.paths[id(self.stack[-1].module)]
        kind = self.multi_heads[-1][1] if self.multi_heads else "self"  # or known when it returns
        record = AttentionRecord(self.index, self.pass_number, path, kind, **content)
        self.index += 1
        return record

    def _tell(self, record: AttentionRecord) -> None:
        frame = self.stack[-1]
        if not self.multi_heads:
            frame.records.append(record)
        frame.inner += 1
        for listener in self.listeners:
            listener.hear(record)

    def _changes(self, heads: int) -> dict[int, Change]:
        """What the listeners make of the attention that is passing by: the outer edits first."""
        together: dict[int, Change] = {}
        for listener in self.listeners:
            for head, change in listener.changes(self.index, heads).items():
                before = together.get(head)
                together[head] = change if before is None else _after(before, change)
        if together:
            for frame in self.stack:
                frame.changed = True
        return together

    @property
    def _with_gradients(self) -> bool:
        return any(listener.with_gradients for listener in self.listeners)

    def _remember(self, tensor: Tensor, written: WrittenOut) -> None:
        name = id(tensor)
        self.written[name] = weakref.ref(tensor, lambda _: self.written.pop(name, None)), written

    def _recall(self, tensor: Any) -> WrittenOut | None:
        known = self.written.get(id(tensor))
        return known[1] if known and known[0]() is tensor else None

    # --- the modules --------------------------------------------------------------------------

    def enter(self, module: nn.Module, args: tuple) -> None:
        """Called before each module's forward."""
        if _here.paused or threading.get_ident() != self.thread or id(module) not in self.paths:
            return
        if not self.stack:
            self.pass_number, self.index = self.pass_number + 1, 0
        self.stack.append(_Frame(module, []))

    def leave(self, module: nn.Module, args: tuple, kwargs: dict | None, output: Any = None) -> Any:
        """Called after each module's forward, even when it raised; may replace its output.

        When it raised, torch leaves the keyword arguments out.
        """
        if _here.paused or threading.get_ident() != self.thread or not self.stack:
            return None
        if self.stack[-1].module is not module:
            return None
        frame = self.stack.pop()
        if frame.records:
            self._decide_kind(frame, args, kwargs or {})
        if self.stack:
            self.stack[-1].inner += frame.inner
        else:
            self.written.clear()
            self.trail.known.clear()
        if not frame.inner and "attention" in type(module).__name__.lower():
            for listener in self.listeners:
                listener.miss(self.paths[id(module)])
        if output is not None and self._has_fast_path(frame):
            return self._run_unseen(module, args, kwargs)
        return None

    def _decide_kind(self, frame: _Frame, args: tuple, kwargs: dict) -> None:
        """Say of a module's records whether they are self- or cross-attention."""
        module = frame.module
        if self.stack and next(module.parameters(), None) is None:
            self.stack[-1].records += frame.records  # the module around it was given the tokens
            return
        for record in frame.records:
            record.kind = kind_of(module, args, kwargs, record)

    def _has_fast_path(self, frame: _Frame) -> bool:
        """Whether, without this mode, torch might have run the module by a kernel of its own."""
        module = frame.module
        return (
            isinstance(module, _WITH_FAST_PATH)
            and not module.training
            and not frame.changed
            and not self._with_gradients
            and torch.backends.mha.get_fastpath_enabled()
            and not any(isinstance(outer.module, _WITH_FAST_PATH) for outer in self.stack)
            and not any(m._forward_hooks or m._forward_pre_hooks for m in module.modules())
            and not (torch.is_grad_enabled() and any(p.requires_grad for p in module.parameters()))
        )

    def _run_unseen(self, module: nn.Module, args: tuple, kwargs: dict) -> Any:
        """The module's output as it would be without this mode, bit for bit."""
        _here.paused = True
        try:
            with torch._C.DisableTorchFunction():
                return module.forward(*args, **kwargs)
        finally:
            _here.paused = False


_here = _Here()


def _check_visible(module: nn.Module) -> None:
    dynamo = sys.modules.get("torch._dynamo.eval_frame")  # slow to import, and there if needed
    if dynamo and isinstance(module, dynamo.OptimizedModule):
        raise ValueError(
            "the attention inside a compiled model cannot be seen: pass the model from before "
            "torch.compile (it is the compiled one's _orig_mod)"
        )
    if isinstance(module, torch.jit.ScriptModule):
        raise ValueError("the attention inside a TorchScript model cannot be seen")
    kernel = getattr(vars(module).get("config"), "_attn_implementation", None)
    if kernel not in _VISIBLE:
        raise ValueError(
            f"attention in the kernel {kernel!r} cannot be seen: load the model with "
            'attn_implementation="sdpa", or call model.set_attn_implementation("sdpa")'
        )


def _goes_on_as(weights: Tensor, result: Tensor) -> bool:
    """Whether a result is still the same weights: cast, masked, dropped or reshaped."""
    same = result.shape[-2:] == weights.shape[-2:] and result.numel() == weights.numel()
    return same and result.is_floating_point()


def _after(first: Change, second: Change) -> Change:
    return lambda weights: second(first(weights))


@contextmanager
def listening(model: nn.Module, listener: Listener) -> Iterator[None]:
    """Let a listener hear the attentions of a model in this thread, while the block runs."""
    doors = _here.doors
    if door := doors.get(id(model)):
        door.listeners.append(listener)
        try:
            yield
        finally:
            door.listeners.remove(listener)
        return
    door = doors[id(model)] = Door(model)
    door.listeners.append(listener)
    hooks = (
        nn.modules.module.register_module_forward_pre_hook(door.enter),
        nn.modules.module.register_module_forward_hook(
            door.leave, with_kwargs=True, always_call=True
        ),
    )
    try:
        with door:
            yield
    finally:
        for hook in hooks:
            hook.remove()
        del doors[id(model)]

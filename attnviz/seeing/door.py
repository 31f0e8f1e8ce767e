"""Where the attentions of a running model pass by, to be seen and changed.

A `TorchFunctionMode` is called for every torch function that runs in its thread. Here it lets all
pass but the few that attention is made of: the fused `scaled_dot_product_attention`; PyTorch's
`multi_head_attention_forward`; and, for models that write attention out, a softmax, or what stands
for one, whose result is followed until it is multiplied with the values.
"""

import sys
import types
from collections.abc import Callable
from inspect import signature
from threading import get_ident
from types import FrameType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attnviz.seeing.account import Account, unseen
from attnviz.seeing.books import Books, of_call, of_weights
from attnviz.seeing.calls import FusedCall, in_form_of, kind_of
from attnviz.seeing.copies import Copies
from attnviz.seeing.entrance import Entrance
from attnviz.seeing.facts import Fact, KnownModel
from attnviz.seeing.following import (
    LOGARITHMS,
    NUMBERS,
    Followed,
    Following,
    NotAgain,
    Origin,
)
from attnviz.seeing.leading import Lead
from attnviz.seeing.passes import Running
from attnviz.seeing.products import Product, changes_in_place, name_of
from attnviz.seeing.recomputing import Past, follow_when_run_again, has_graph_later
from attnviz.seeing.record import AttentionRecord, Change, apply_changes
from attnviz.seeing.scores import Scores
from attnviz.seeing.trail import PRODUCTS, Trail
from attnviz.seeing.visible import (
    FLEX,
    check_one_item,
    check_plain,
    refuse_flex,
    unbatched,
)

_SOFTMAX = {torch.softmax, F.softmax, Tensor.softmax, torch.special.softmax}
_LOG_SOFTMAX = {torch.log_softmax, F.log_softmax, Tensor.log_softmax, torch.special.log_softmax}
_LIKE_SOFTMAX = {"sigmoid": "", "expit": "", "relu": "", "exp": NUMBERS}
_ATTENDING = {
    *(F.scaled_dot_product_attention, F.multi_head_attention_forward),
    *(_SOFTMAX | _LOG_SOFTMAX),
}
_WATCHED = _ATTENDING | PRODUCTS
_WITH_FAST_PATH = (nn.TransformerEncoder, nn.TransformerEncoderLayer, nn.MultiheadAttention)
_WITH_FAST_PATH_RUN = [kind.forward for kind in _WITH_FAST_PATH]


class Door(Entrance):
    """The attentions of one model in one thread, numbered, told to listeners, changed by them."""

    def __init__(self, model: nn.Module, known: KnownModel, past: Past | None = None):
        super().__init__(model, known, past)
        self.books = Books(model, known, self._path)
        self.multi_heads: list[int] = []  # heads of the running nn functions
        self.following = Following()
        self.copies = Copies()
        self.trail = Trail()

    def __torch_function__(
        self, func: Callable, types: tuple, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        kwargs = kwargs or {}
        watched = func in _WATCHED or self.following.known or self.trail.known
        if not watched or not self.hears():
            if func is FLEX and self.stack and self.hears():
                refuse_flex()
            return func(*args, **kwargs)
        called = self.stack and self.stack[-1].called
        if func in _ATTENDING or (func in PRODUCTS and not called):
            self._look_around(sys._getframe(1))
        if not self.stack:
            return func(*args, **kwargs)
        if func is F.scaled_dot_product_attention:
            return self._fused(func, args, kwargs)
        if func is F.multi_head_attention_forward:
            return self._multi_head(func, args, kwargs)
        if func in _SOFTMAX or func in _LOG_SOFTMAX:
            return self._softmax(func, args, kwargs)
        return self._follow(func, args, kwargs)

    # --- the attentions -----------------------------------------------------------------------

    def _fused(self, func: Callable, args: tuple, kwargs: dict) -> Tensor:
        check_plain(self._path(), *args, *kwargs.values())
        query, key = (
            args[i] if len(args) > i else kwargs[n] for i, n in enumerate(("query", "key"))
        )
        fact = self._fact(lambda account: of_call(account, query, key))
        call = FusedCall.bind(*args, **kwargs, lead=fact and fact.lead)
        call = call.unpacked(self.stack[-1].module)
        changes = self._changes(call.heads, (call.query.size(2), call.key.size(2)))
        if changes or self._with_gradients:
            check_one_item(self._path(), call.query, call.key, call.value)
        record = self._record(fact, **call.kept(), changes=changes)
        with self.books.seeing():
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
        check_plain(self._path(), *args, *kwargs.values())
        bound = signature(func).bind(*args, **kwargs).arguments
        names = {**func.__globals__, "has_torch_function": lambda tensors: False}
        unchecked = types.FunctionType(func.__code__, names, argdefs=func.__defaults__)
        self.multi_heads.append(bound["num_heads"])
        try:
            with self:
                return unchecked(*args, **kwargs)
        finally:
            self.multi_heads.pop()

    def _softmax(self, func: Callable, args: tuple, kwargs: dict) -> Tensor:
        """Follow a softmax; over another dimension than the last, only if it is of attention."""
        scores = self.trail.recall(args[0] if args else kwargs.get("input"))
        result = func(*args, **kwargs)
        dim = kwargs.get("dim", args[1] if len(args) > 1 else None)
        if not isinstance(dim, int) or result.dim() < 2 or result.is_nested:
            return result
        dim %= result.dim()
        scores = scores and scores.along(dim, result.dim())
        known = self._is_attention(scores)
        if known or dim == result.dim() - 1:
            unready = LOGARITHMS if func in _LOG_SOFTMAX else ""
            self.following.start(result, dim, scores, known, unready, self.books.made(result))
        return result

    def _is_attention(self, scores: Scores | None) -> bool:
        """Whether scores are a product of two activations, and not one of a layer's own."""
        if scores is None:
            return False
        parts = (scores.query.tensor, scores.key.tensor)
        parameters = list(self.stack[-1].module.parameters())
        return not any(torch._C._is_alias_of(p, t) for p in parameters for t in parts)

    def _unfollowed(self, func: Callable, args: tuple, kwargs: dict) -> Any:
        """Follow scores, and what some models make of them in the place of a softmax."""
        name = name_of(func)
        scores = self.trail.recall(args[0]) if name in _LIKE_SOFTMAX and args else None
        result = self.trail.run(func, args, kwargs)
        if self._is_attention(scores):
            dim = result.dim() - 1 if scores.order is None else scores.order[-1]
            made = self.books.made(result)
            self.following.start(result, dim, scores, True, _LIKE_SOFTMAX[name], made)
        return result

    def _follow(self, func: Callable, args: tuple, kwargs: dict) -> Any:
        """Follow weights to the values, and give these the changed ones."""
        following = self.following
        found = following.among(args, kwargs)
        if not found:
            return self._unfollowed(func, args, kwargs)
        if met := following.at_the_values(func, args, kwargs, found):
            tensor, followed, product = met
            with self.books.seeing():
                self._at_the_values(tensor, followed, product)
            if followed.origin.changed is not None:
                args, kwargs = self._changed(args, kwargs, followed.origin)
            return func(*args, **kwargs)
        if args and changes_in_place(func):
            self._keep_record(args[0])
        known_as = following.before(func, args, kwargs)
        result = func(*args, **kwargs)
        following.after(func, args[0] if args else None, known_as, kwargs, result)
        return result

    def _at_the_values(self, tensor: Tensor, followed: Followed, product: Product | None) -> None:
        """Record weights that were written out, and change them before they meet the values."""
        origin = followed.origin
        if origin.record is not None:
            return
        weights = tensor if followed.made is None else followed.weights
        order = origin.order(product, tensor, followed.axes)
        turned = weights.permute(order)
        fact = self._fact(
            lambda account: of_weights(account, turned, origin.known, tensor, product)
        )
        if fact and fact.left_out:
            return
        for made in origin.made:
            made.seen = True
        heads = self.multi_heads[-1] if self.multi_heads else origin.heads
        lead = (fact and fact.lead) or Lead.plain(turned.shape[:-2], heads)
        four = lead.to_four(turned)
        changes = self._changes(four.size(1), tuple(four.shape[2:]))
        if changes or self._with_gradients:
            check_one_item(self._path(), four)
        known = origin.scores is not None and lead.in_order
        made_of = origin.scores.behind(four, origin.sinks) if known else {}
        kept = {"written_out": four.detach(), "changes": changes, "sinks": origin.sinks}
        record = self._record(fact, **kept, **made_of)
        origin.record, origin.scores, origin.edited = record, None, bool(changes)
        if self._with_gradients:
            self._keep_in_graph(record, four.clone())  # the model may change its own
        self._tell(record)
        if self._with_gradients:  # the graph must run through the tensor that was kept
            changed = record.written_out
        elif changes:
            changed = apply_changes(four, changes, origin.sinks)
        if changes or self._with_gradients:
            changed = lead.back(changed, turned.shape[:-2])
            origin.changed = in_form_of(weights, changed, order)

    def _changed(self, args: tuple, kwargs: dict, origin: Origin) -> tuple[tuple, dict]:
        """The arguments of a product with changed weights in them."""
        try:
            return self.following.carry_over(args, kwargs, origin)
        except NotAgain as step:
            raise ValueError(
                f"the weights of attention {origin.record.index} ({origin.record.path}) cannot be "
                f"changed: {step} comes between them and the values, and cannot be done again with "
                "others; leave this layer out of the edit"
            ) from None

    def _keep_record(self, tensor: Tensor) -> None:
        """Copy what a record keeps of a tensor that is about to be changed in place."""
        followed = self.following.recall(tensor)
        record = None if followed is None else followed.origin.record
        if record is None or record.written_out is None or record.written_out.requires_grad:
            return
        if torch._C._is_alias_of(record.written_out, tensor):
            record.keep(record.written_out.clone())

    def _keep_in_graph(self, record: AttentionRecord, weights: Tensor) -> None:
        if not torch.is_grad_enabled() and not has_graph_later():
            raise ValueError(
                "with_gradients needs gradients: run the model outside torch.no_grad()"
            )
        if record.changes:
            weights = apply_changes(weights, record.changes, record.sinks)
        record.changes = {}
        if torch.is_grad_enabled():
            if not weights.requires_grad:  # of a frozen model, or after an edit such as `uniform`
                weights.requires_grad_()
            weights.retain_grad()
        record.keep(weights)

    def _path(self) -> str:
        return self.paths[id(self.stack[-1].module)] if self.stack else ""

    def _fact(self, find: Callable[[Account], Fact]) -> Fact | None:
        return self.books.fact(self.stack[-1], self._path(), find)

    def _record(
        self, fact: Fact | None, *, mask: Tensor | None = None, **content: Any
    ) -> AttentionRecord:
        running = self.stack[-1]
        content = unbatched(content | {"mask": mask})
        if mask is not None:
            content["mask"] = self.copies.of(content["mask"])
        place = self.passes.index, self.passes.number, self._path()
        record = AttentionRecord(*place, fact.kind if fact else "self", **content)
        if fact is None:  # in a method that runs by itself
            record.kind = kind_of(running.module, running.arguments or (), record)
        self.passes.index += 1
        if self._with_gradients or any(listener.edits for listener in self.listeners):
            first = record if self.past is None else self.past.first
            follow_when_run_again(self, record, first, self._with_gradients)
        return record

    def _tell(self, record: AttentionRecord) -> None:
        for running in reversed(self.stack):
            running.inner += 1
            if running.called:
                break  # those around it are told when it ends
        for listener in self.listeners:
            listener.hear(record)

    def _changes(self, heads: int, sizes: tuple[int, int]) -> dict[int, Change]:
        """What the listeners make of the attention that is passing by: the outer edits first."""
        path = self._path()
        self.passes.attend(path, sizes)
        together: dict[int, Change] = {}
        for listener in self.listeners:
            for head, change in listener.changes(self.passes.index, path, heads).items():
                before = together.get(head)
                together[head] = change if before is None else _after(before, change)
        if together:
            for frame in self.stack:
                frame.changed = True
        return together

    @property
    def _with_gradients(self) -> bool:
        return any(listener.with_gradients for listener in self.listeners)

    # --- the modules --------------------------------------------------------------------------

    def enter(self, module: nn.Module, args: tuple) -> None:
        """Called before each module's forward."""
        if id(module) not in self.paths:
            return
        if not self.hears():
            self.note_elsewhere(self.paths[id(module)])
            return
        frame = _frame_of_call()
        self.passes.settle(frame)
        if not self.stack:
            self.forget()
            self.note_run()
        running = self.passes.begin(module, frame)
        outermost = not any(outer.called for outer in self.stack[:-1])
        kwargs = frame.f_locals.get("kwargs") if outermost else None
        self.books.begin(running, args, kwargs, outermost)

    def leave(self, module: nn.Module, args: tuple, kwargs: dict | None, output: Any = None) -> Any:
        """Called after each module's forward, unless it was interrupted; may replace its output.

        When it raised, torch leaves the keyword arguments out.
        """
        if id(module) not in self.paths or not self.stack or get_ident() != self.thread:
            return None
        frame = self.passes.end(_frame_of_call())
        if frame is None:
            return None
        if self.stack:
            self.stack[-1].inner += frame.inner
        else:
            self.forget()
        outermost = not any(outer.called for outer in self.stack)
        self.books.end(frame, kwargs is not None, outermost)
        if outermost:
            self._tell_what_was_missed()
        if output is not None and self._has_fast_path(frame):
            return self._run_unseen(module, args, kwargs)
        return None

    def _tell_what_was_missed(self) -> None:
        for path, reason in self.books.facts.missed.items():
            for listener in self.listeners:
                listener.miss(path, reason)

    def _look_around(self, frame: FrameType) -> None:
        """Find out which module runs, before it attends, from the frame that does so."""
        self.passes.settle(frame)
        if not self.stack:
            self.forget()
        self.passes.look_for_method(frame)
        if self.stack:
            self.note_run()

    def forget(self) -> None:
        """Let go of the tensors that were followed, and of what ran apart."""
        self.apart.clear()
        self.following.known.clear()
        self.trail.known.clear()

    def shut(self) -> None:
        """Hear no more, and keep no account."""
        super().shut()
        self.books.stop()

    def _has_fast_path(self, frame: Running) -> bool:
        """Whether, without this mode, torch might have run the module by a kernel of its own."""
        module = frame.module
        return (
            isinstance(module, _WITH_FAST_PATH)
            and type(module).forward in _WITH_FAST_PATH_RUN  # what else it does, it does once
            and not module.training
            and not frame.changed
            and not self._with_gradients
            and torch.backends.mha.get_fastpath_enabled()
            and not any(
                outer.called and isinstance(outer.module, _WITH_FAST_PATH) for outer in self.stack
            )
            and not any(m._forward_hooks or m._forward_pre_hooks for m in module.modules())
            and not (torch.is_grad_enabled() and any(p.requires_grad for p in module.parameters()))
        )

    def _run_unseen(self, module: nn.Module, args: tuple, kwargs: dict) -> Any:
        """The module's output as it would be without this mode, bit for bit."""
        with unseen(), torch._C.DisableTorchFunction():
            return module.forward(*args, **kwargs)


def _frame_of_call() -> FrameType:
    """The frame of the module call whose hook asks.

    torch runs hooks in a function inside it, which is over when they are run for an error.
    """
    frame = sys._getframe(2)
    return frame.f_back if frame.f_code.co_name == "inner" else frame


def _after(first: Change, second: Change) -> Change:
    return lambda weights: second(first(weights))

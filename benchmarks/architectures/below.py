"""Attention counted below torch functions, by what the kernels are given.

An attention here is a fused kernel, or a softmax (or an exp) of what comes from the product of two
tensors that are no parameters, whose result later meets something else in a product. Tensors are
followed from the one to the other by their storage, so that views need no care.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

_FUSED = (
    "_scaled_dot_product_flash_attention",
    "_scaled_dot_product_efficient_attention",
    "_scaled_dot_product_cudnn_attention",
    "_native_multi_head_attention",
    "_transformer_encoder_layer_fwd",
)
_PRODUCTS = {"mm", "bmm", "addmm", "baddbmm", "dot", "mv"}
_SOFTMAX = {"_softmax", "_safe_softmax", "exp", "exp_"}
_MIXES_HEADS = 16 * 16  # numbers in a layer that scores and weights may go through: talking heads
_NOT_FOLLOWED = {  # what comes out of these is no longer scores or weights
    *("convolution", "native_layer_norm", "_fused_rms_norm", "native_group_norm", "embedding"),
    *("native_batch_norm", "sum", "mean", "amax", "max", "argmax", "logsumexp", "_log_softmax"),
    *("_native_batch_norm_legit_no_training", "var", "var_mean", "linalg_vector_norm", "norm"),
}


@dataclass
class Meeting:
    """An attention at the moment when its weights meet the values."""

    kernel: str
    shape: tuple[int, ...]  # of the weights where they are written out, else of the output


@dataclass
class _Known:
    """What is known of a storage."""

    scores: bool = False  # it holds what came from a product of two tensors
    weights: set[int] = field(default_factory=set)  # of which softmaxes it holds the weights


class Below(TorchDispatchMode):
    """Counts the attentions of what runs inside, in their order; may switch one head off.

    off: (attention, head, heads): the weights of this head are zero when they meet the values.
    """

    def __init__(self, model: nn.Module, off: tuple[int, int, int] | None = None):
        super().__init__()
        self.fixed = {_storage(t) for t in (*model.parameters(), *model.buffers())}
        self.off, self.was_off = off, False
        self.met: list[Meeting] = []
        self._counted: set[int] = set()
        self._known: dict[int, _Known] = {}
        self._alive: list[Tensor] = []  # or a storage's address might be used again
        self._n_softmax = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        name = func.overloadpacket.__name__
        if name.startswith(_FUSED):
            return self._fused(name, func, args, kwargs or {})
        tensors = list(_tensors((args, kwargs)))
        known = [self._known.get(_storage(t)) for t in tensors]
        if name in _PRODUCTS:
            return self._product(func, args, kwargs or {})
        result = func(*args, **(kwargs or {}))
        if not any(known) or name in _NOT_FOLLOWED:
            return result
        if name in ("mul", "mul_") and self._meets(name, tensors, result):
            return result
        self._pass_on([k for k in known if k], name, tensors, result)
        return result

    def _fused(self, name: str, func: Any, args: tuple, kwargs: dict) -> Any:
        result = func(*args, **kwargs)
        output = result[0] if isinstance(result, tuple | list) else result
        self.met.append(Meeting(name, tuple(output.shape)))
        if self.off and len(self.met) - 1 == self.off[0] and output.dim() == 4:
            output[:, self.off[1]] = 0
            self.was_off = True
        return result

    def _product(self, func: Any, args: tuple, kwargs: dict) -> Any:
        left, right = [a for a in args if isinstance(a, Tensor)][-2:]
        fixed = [_storage(t) in self.fixed for t in (left, right)]
        known = [self._known.get(_storage(t)) for t in (left, right)]
        if any(fixed):
            result = func(*args, **kwargs)
            layer = left if fixed[0] else right
            if layer.numel() <= _MIXES_HEADS:
                self._pass_on([k for k in known if k], "mm", [left, right], result)
            return result
        for place, found in enumerate(known):
            if found and found.weights - self._counted:
                args = self._count(found, args, (left, right)[place])
        result = func(*args, **kwargs)
        if not any(k and k.weights for k in known):
            self._know(result).scores = True
        return result

    def _meets(self, name: str, tensors: list[Tensor], result: Tensor) -> bool:
        """Whether weights meet values by being multiplied with each of their numbers."""
        for tensor in tensors:
            found = self._known.get(_storage(tensor))
            if found and found.weights and result.numel() > tensor.numel():
                if found.weights - self._counted:
                    self._count(found, (), tensor)
                return True
        return False

    def _count(self, found: _Known, args: tuple, weights: Tensor) -> tuple:
        """Note that weights have met values; returns the arguments, without a head if asked."""
        self._counted |= found.weights
        self.met.append(Meeting("softmax", tuple(weights.shape)))
        if not self.off or len(self.met) - 1 != self.off[0]:
            return args
        _, head, heads = self.off
        if weights.dim() != 3 or weights.size(0) % heads:
            return args
        without = weights.clone()
        without.unflatten(0, (-1, heads))[:, head] = 0
        self.was_off = True
        return tuple(without if a is weights else a for a in args)

    def _pass_on(self, known: list[_Known], name: str, tensors: list[Tensor], result: Any) -> None:
        scores = any(k.scores for k in known)
        weights = set().union(*(k.weights for k in known))
        if name in _SOFTMAX and scores and max(t.dim() for t in tensors) >= 2:
            self._n_softmax += 1
            scores, weights = False, weights | {self._n_softmax}
        for made in _tensors(result):
            if made.is_floating_point() and made.dim() >= 2:
                here = self._know(made)
                here.scores |= scores
                here.weights |= weights

    def _know(self, tensor: Tensor) -> _Known:
        self._alive.append(tensor)
        return self._known.setdefault(_storage(tensor), _Known())


def _tensors(tree: Any) -> Iterator[Tensor]:
    return (leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor))


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata

"""Products of tensors, each spelling brought to one: a name for each dimension, as in an einsum."""

from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

Labels = tuple[Hashable, ...]

_OPERATORS_IN_PLACE = {"setitem", "iadd", "isub", "imul", "itruediv", "ipow"}


def name_of(func: Callable) -> str:
    """A torch function's name without the underscores of methods and operators."""
    name = getattr(func, "__name__", "")
    if name == "__get__":  # of an attribute, such as Tensor.mT
        name = getattr(func.__self__, "__name__", "")
    return name.strip("_")


def changes_in_place(func: Callable) -> bool:
    """Whether a torch function changes its first argument."""
    name = getattr(func, "__name__", "")
    return (name.endswith("_") and not name.endswith("__")) or name_of(func) in _OPERATORS_IN_PLACE


@dataclass(frozen=True)
class Product:
    """What is multiplied, with a name for each dimension; names the output lacks are summed over.

    Names of leading dimensions that broadcast are the same in both.
    """

    operands: list[tuple[Tensor, Labels]]
    output: Labels

    def labels_of(self, tensor: Tensor) -> Labels | None:
        """The names of a tensor's dimensions, if it is multiplied."""
        return next((labels for operand, labels in self.operands if operand is tensor), None)

    def own(self, tensor: Tensor) -> list[int]:
        """Which dimensions of a tensor the output has, and no other operand."""
        labels = self.labels_of(tensor)
        others = {d for operand, names in self.operands if operand is not tensor for d in names}
        return [i for i, d in enumerate(labels) if d in self.output and d not in others]


def product_of(func: Callable, args: tuple, kwargs: dict) -> Product | None:
    """The product that a call of a torch function is, or None when it is none."""
    read = _READERS.get(func)
    if read is None:
        return None
    try:
        return read(*args, **{k: v for k, v in kwargs.items() if k != "out"})
    except (TypeError, ValueError, IndexError):  # the function itself will say what is wrong
        return None


def einsum_labels(equation: str, operands: Iterable[Tensor]) -> tuple[list[Labels], Labels]:
    """The names in an einsum, of each operand and of the output; dots become names of their own."""
    inputs, arrow, output = equation.replace(" ", "").partition("->")
    labels = [_undotted(text, t.dim()) for text, t in zip(inputs.split(","), operands, strict=True)]
    if arrow:
        dots = max((names for names in labels), key=lambda names: sum(map(_is_dot, names)))
        return labels, _undotted(output, len(output) - 3 + sum(map(_is_dot, dots)))
    seen = [d for names in labels for d in names]
    dots = sorted({d for d in seen if _is_dot(d)})
    return labels, (*dots, *sorted(d for d in set(seen) if not _is_dot(d) and seen.count(d) == 1))


def _undotted(text: str, n_dims: int) -> Labels:
    before, dots, after = text.partition("...")
    n = n_dims - len(before) - len(after) if dots else 0
    return (*before, *(("...", i - n) for i in range(n)), *after)


def _is_dot(name: Hashable) -> bool:
    return isinstance(name, tuple)


def _leading(n: int) -> Labels:
    """Names of n leading dimensions, counted from the right, as they broadcast."""
    return tuple(("lead", i - n) for i in range(n))


def _matmul(first: Tensor, second: Tensor) -> Product:
    one = ("inner",) if first.dim() == 1 else (*_leading(first.dim() - 2), "row", "inner")
    two = ("inner",) if second.dim() == 1 else (*_leading(second.dim() - 2), "inner", "column")
    lead = max(one[:-2], two[:-2], key=len)
    last = [d for d, t in (("row", first), ("column", second)) if t.dim() > 1]
    return Product([(first, one), (second, two)], (*lead, *last))


def _read_matmul(input: Any = None, other: Any = None, **names: Any) -> Product | None:
    first = names.get("self") if input is None else input
    others = (names.get(name) for name in ("tensor2", "mat2", "vec"))
    second = next((t for t in others if t is not None), None) if other is None else other
    return _matmul(first, second) if _tensors(first, second) else None


def _read_reversed(second: Any, first: Any) -> Product | None:
    return _matmul(first, second) if _tensors(first, second) else None


def _read_added(input: Any, first: Any = None, second: Any = None, **names: Any) -> Product | None:
    """`baddbmm` and its kin add something to the product."""
    first = names.get("batch1", names.get("mat1")) if first is None else first
    second = names.get("batch2", names.get("mat2", names.get("vec"))) if second is None else second
    if not _tensors(first, second):
        return None
    product = _matmul(first, second)
    if isinstance(input, Tensor) and input.dim() < first.dim() == 3:  # addbmm sums over the batch
        return Product(product.operands, product.output[1:])
    return product


def _read_linear(input: Any, weight: Any, bias: Any = None) -> Product | None:
    if not _tensors(input, weight):
        return None
    rows = tuple(("row", i) for i in range(input.dim() - 1))
    columns = ("column",) * (weight.dim() - 1)
    return Product([(input, (*rows, "inner")), (weight, (*columns, "inner"))], (*rows, *columns))


def _read_inner(input: Any, other: Any) -> Product | None:
    return _read_tensordot(input, other, ([-1], [-1])) if _tensors(input, other) else None


def _read_tensordot(a: Any, b: Any, dims: Any = 2) -> Product | None:
    if not _tensors(a, b) or isinstance(dims, Tensor):
        return None
    if isinstance(dims, int):
        dims = (range(a.dim() - dims, a.dim()), range(dims))
    of_a, of_b = ([dims_of] if isinstance(dims_of, int) else dims_of for dims_of in dims)
    one = [("a", i) for i in range(a.dim())]
    two: list[Hashable] = [("b", i) for i in range(b.dim())]
    for i, j in zip(of_a, of_b, strict=True):
        two[j] = one[i]
    summed = {one[i] for i in of_a}
    output = tuple(d for d in (*one, *two) if d not in summed)
    return Product([(a, tuple(one)), (b, tuple(two))], output)


def _read_einsum(equation: Any, *operands: Any) -> Product | None:
    if len(operands) == 1 and isinstance(operands[0], list | tuple):
        operands = tuple(operands[0])
    if not isinstance(equation, str) or not _tensors(*operands):
        return None
    labels, output = einsum_labels(equation, operands)
    return Product(list(zip(operands, labels, strict=True)), output)


def _tensors(*given: Any) -> bool:
    return all(isinstance(t, Tensor) for t in given)


def _everywhere(name: str) -> list[Callable]:
    """A torch function and its method."""
    return [getattr(place, name) for place in (torch, Tensor) if hasattr(place, name)]


_ADDED = ("baddbmm", "addmm", "addbmm", "addmv")
_READERS: dict[Callable, Callable[..., Product | None]] = {
    **{f: _read_matmul for name in ("matmul", "bmm", "mm", "mv") for f in _everywhere(name)},
    **{f: _read_matmul for f in (Tensor.__matmul__, torch.linalg.matmul)},
    **{f: _read_added for name in _ADDED for f in _everywhere(name)},
    **{f: _read_added for name in _ADDED for f in [getattr(Tensor, name + "_")]},
    **{f: _read_inner for f in _everywhere("inner")},
    Tensor.__rmatmul__: _read_reversed,
    F.linear: _read_linear,
    torch.tensordot: _read_tensordot,
    torch.einsum: _read_einsum,
}

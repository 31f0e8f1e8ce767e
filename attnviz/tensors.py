"""Tensors that a reader brings, checked in one place: what they are, and what they hold."""

import torch
from torch import Tensor


def check_tensor(name: str, given: object) -> None:
    """Raise TypeError unless it is a tensor."""
    if not isinstance(given, Tensor):
        raise TypeError(f"{name} must be a tensor, got {type(given).__name__}")


def check_floats(name: str, given: object) -> None:
    """Raise TypeError unless it is a tensor of floating-point numbers."""
    check_tensor(name, given)
    if not given.is_floating_point():
        raise TypeError(f"{name} must hold floating-point numbers, got {given.dtype}")


def check_bool(name: str, given: object, wanted: str) -> None:
    """Raise TypeError unless it is a bool tensor; wanted: with what meaning, for the message."""
    if not isinstance(given, Tensor) or given.dtype != torch.bool:
        raise TypeError(f"{name} must be {wanted}, got {_kind(given)}")


def check_int64(name: str, given: object, also: tuple[torch.dtype, ...] = ()) -> None:
    """Raise TypeError unless it is an int64 tensor, or one of the other dtypes."""
    if not isinstance(given, Tensor) or given.dtype not in (torch.int64, *also):
        raise TypeError(f"{name} must be an int64 tensor, got {_kind(given)}")


def check_batch(name: str, ids: object) -> None:
    """Raise TypeError or ValueError unless they are ids (batch, token), int64 or int32."""
    check_int64(name, ids, also=(torch.int32,))
    if ids.dim() != 2:
        raise ValueError(f"{name} must be (batch, token), got {tuple(ids.shape)}")


def check_ids(name: str, ids: object, size_name: str, size: int) -> None:
    """An error that says what is wrong, unless ids are whole numbers from 0 to size - 1."""
    check_int64(name, ids, also=(torch.int32,))
    low, high = extremes(ids, size)
    if low < 0 or high >= size:
        raise ValueError(
            f"{name} must be between 0 and {size_name} - 1 = {size - 1}, got {low} to {high}"
        )


def extremes(whole: Tensor, size: int) -> tuple[int, int]:
    """The least and the largest of whole numbers, in one look at them, to see if all are < size.

    Where there are none to look at, they are taken to fit: in a graph in the making and on the
    meta device, where tensors have no values, and in an empty tensor.
    """
    if torch.compiler.is_compiling() or whole.is_meta or not whole.numel():
        return 0, size - 1
    low, high = whole.aminmax()
    return int(low), int(high)


def check_values(name: str, given: Tensor) -> None:
    """Raise ValueError for a tensor on the meta device, where the values themselves are needed."""
    if given.is_meta:
        raise ValueError(f"{name} must hold values, got a tensor on the device meta, without any")


def _kind(given: object) -> str:
    return str(given.dtype) if isinstance(given, Tensor) else type(given).__name__

"""A device that computes on the CPU, but whose tensors are as far from the CPU's as a GPU's are.

It finds device mistakes on machines without a GPU: a tensor made on the CPU that meets others of
the device, `.numpy()` on the device, a tensor that did not move with its module, a CPU generator
that draws on the device, a random state that was not saved, float64 (which Apple's GPUs lack). Its
numbers are the CPU's.

What only a real GPU shows it cannot find: other kernels and their rounding (TF32, fused attention,
what MPS lacks), memory, streams and whether something was waited for, `torch.compile`, several
GPUs. Moved to it, a module gets new parameters; on a GPU they stay the same objects.

PyTorch lends its private device type to Python, once and for good in a process: importing this
module takes it.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

NAME = "pretend"
aten = torch.ops.aten
_CROSSING = {aten.copy_.default, aten._to_copy.default}  # from one device to another
_INDEXING = {aten.index.Tensor, aten.index_put.default, aten.index_put_.default}


class Backend:
    """What PyTorch asks of a device's module, such as `torch.cuda`."""

    def __init__(self) -> None:
        self.manual_seed_all(0)

    def is_available(self) -> bool:
        return True

    def is_initialized(self) -> bool:
        return True

    def _is_in_bad_fork(self) -> bool:
        return False

    def device_count(self) -> int:
        return 1

    def current_device(self) -> int:
        return 0

    def synchronize(self, device: Any = None) -> None:
        """Nothing to wait for."""

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16, torch.float16]

    def manual_seed_all(self, seed: int) -> None:
        self._random = torch.Generator().manual_seed(seed).get_state()

    def get_rng_state(self, device: Any = None) -> Tensor:
        return self._random.clone()

    def set_rng_state(self, state: Tensor, device: Any = None) -> None:
        self._random = state.clone()

    def draw(self, func: Callable, args: tuple, kwargs: dict) -> Any:
        """Run a random function with the device's random numbers instead of the CPU's."""
        if kwargs.get("generator") is not None or any(isinstance(a, torch.Generator) for a in args):
            raise RuntimeError(f"Expected a '{NAME}' device type for generator but found 'cpu'")
        cpu = torch.get_rng_state()
        torch.set_rng_state(self._random)
        try:
            return func(*args, **kwargs)
        finally:
            self._random = torch.get_rng_state()
            torch.set_rng_state(cpu)


class Pretend(Tensor):
    """A tensor on the device; `inner`, on the CPU, holds its numbers."""

    __torch_function__ = torch._C._disabled_torch_function_impl  # functions see a plain tensor

    @staticmethod
    def __new__(cls, inner: Tensor) -> "Pretend":
        if inner.dtype == torch.float64:
            raise TypeError(f"the {NAME} device has no float64, as Apple's GPUs")
        tensor = Tensor._make_wrapper_subclass(
            cls,
            inner.size(),
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            device=f"{NAME}:0",
        )
        tensor.inner = inner
        return tensor

    @classmethod
    def __torch_dispatch__(
        cls, func: Callable, types: tuple, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        kwargs, given = kwargs or {}, {}

        def inner(tensor: Tensor) -> Tensor:
            if isinstance(tensor, Pretend):
                given[id(tensor.inner)] = tensor
                return tensor.inner
            return tensor

        _check_devices(func, args, kwargs)
        to = torch.device(kwargs.get("device") or NAME)
        there = {name: _each(inner, arg) for name, arg in kwargs.items()}
        if "device" in kwargs:
            there["device"] = "cpu" if to.type == NAME else to
        run = backend.draw if torch.Tag.nondeterministic_seeded in func.tags else _run
        result = run(func, _each(inner, args), there)
        if to.type != NAME or (func is aten.copy_.default and not isinstance(args[0], Pretend)):
            return result
        if func._schema.is_mutable:
            for tensor in given.values():
                if (tensor.shape, tensor.stride()) != (tensor.inner.shape, tensor.inner.stride()):
                    Tensor.data.__set__(tensor, Pretend(tensor.inner))
        return _each(lambda t: given[id(t)] if id(t) in given else Pretend(t), result)

    @property
    def data(self) -> Tensor:
        return Tensor.data.__get__(self)

    @data.setter
    def data(self, new: Tensor) -> None:
        Tensor.data.__set__(self, new)
        self.inner = new.inner

    def numpy(self, *, force: bool = False) -> Any:
        if force:
            return self.detach().cpu().numpy()
        raise TypeError(
            f"can't convert {NAME}:0 device type tensor to numpy. Use Tensor.cpu() to copy the "
            "tensor to host memory first."
        )

    def tolist(self) -> Any:
        return self.detach().cpu().tolist()

    def data_ptr(self) -> int:
        return self.inner.data_ptr()

    def __format__(self, spec: str) -> str:
        return format(self.item(), spec) if not self.dim() else object.__format__(self, spec)

    def __repr__(self, **_: Any) -> str:
        return f"{self.inner!r} on {NAME}"

    def __reduce_ex__(self, protocol: int) -> tuple:
        parts = self.detach().cpu(), self.dtype, f"{NAME}:0", self.requires_grad
        return torch._utils._rebuild_device_tensor_from_cpu_tensor, parts

    def __deepcopy__(self, memo: dict) -> "Pretend":
        copied = self.detach().clone().requires_grad_(self.requires_grad)
        copied.__dict__.update({n: v for n, v in self.__dict__.items() if n != "inner"})
        memo[id(self)] = copied
        return copied


def _each(change: Callable[[Tensor], Any], thing: Any) -> Any:
    """A thing with its tensors changed, which may be in lists and tuples."""
    if isinstance(thing, Tensor):
        return change(thing)
    if isinstance(thing, list | tuple):
        return type(thing)(_each(change, one) for one in thing)
    return thing


def _run(func: Callable, args: tuple, kwargs: dict) -> Any:
    return func(*args, **kwargs)


def _check_devices(func: Callable, args: tuple, kwargs: dict) -> None:
    """Raise as a GPU does where tensors of two devices meet, but for a CPU's single number."""
    if func in _CROSSING:
        return
    if func in _INDEXING and isinstance(args[0], Pretend):
        args = (args[0], *args[2:])  # the places may be on the CPU
    tensors: list[Tensor] = []
    _each(tensors.append, (*args, *kwargs.values()))
    written = func._schema.is_mutable and not isinstance(tensors[0], Pretend)
    if written or any(t.dim() and not isinstance(t, Pretend) for t in tensors):
        raise RuntimeError(
            "Expected all tensors to be on the same device, but found at least two devices, "
            f"{NAME}:0 and cpu! ({func})"
        )


def _empty(size: list[int], *, dtype: torch.dtype | None = None, **_: Any) -> Pretend:
    return Pretend(torch.empty(size, dtype=dtype, device="cpu"))


def _empty_strided(
    size: list[int], stride: list[int], *, dtype: torch.dtype | None = None, **_: Any
) -> Pretend:
    return Pretend(torch.empty_strided(size, stride, dtype=dtype, device="cpu"))


def _copy_from(source: Tensor, target: Tensor, non_blocking: bool = False) -> Tensor:
    here, there = (t.inner if isinstance(t, Pretend) else t for t in (source, target))
    there.copy_(here)
    return target


# What autocast casts on GPUs, as far as attention needs it.
_TO_LOWER = ["linear", "matmul", "mm", "bmm", "addmm", "baddbmm", "scaled_dot_product_attention"]
_TO_FLOAT32 = [
    "layer_norm",
    "softmax.int",
    "log_softmax.int",
    "nll_loss",
    "sum",
    "cumsum",
    "exp",
    "log",
    "rsqrt",
]


def _cast_first(name: str, dtype: Callable[[], torch.dtype]) -> Callable:
    """A function that casts its floating tensors, and then goes on without autocast."""
    packet, _, overload = name.partition(".")
    func = getattr(getattr(aten, packet), overload or "default")
    autocast = torch._C.DispatchKeySet(torch._C.DispatchKey.AutocastPrivateUse1)

    def cast(tensor: Tensor) -> Tensor:
        return tensor.to(dtype()) if tensor.is_floating_point() else tensor

    def run(*args: Any, **kwargs: Any) -> Any:
        with torch._C._ExcludeDispatchKeyGuard(autocast):
            return func(*_each(cast, args), **{n: _each(cast, a) for n, a in kwargs.items()})

    return run


backend = Backend()
_setup_privateuseone_for_python_backend(rename=NAME, backend_module=backend)
_library = torch.library.Library("aten", "IMPL")
for _name, _function in [
    ("empty.memory_format", _empty),
    ("empty_strided", _empty_strided),
    ("_copy_from", _copy_from),
]:
    _library.impl(_name, _function, "PrivateUse1")
for _names, _dtype in [
    (_TO_LOWER, lambda: torch.get_autocast_dtype(NAME)),
    (_TO_FLOAT32, lambda: torch.float32),
]:
    for _name in _names:
        _library.impl(_name, _cast_first(_name, _dtype), "AutocastPrivateUse1")
_others = torch.library.Library("_", "IMPL")
_others.fallback(torch.library.fallthrough_kernel, "AutocastPrivateUse1")
torch.accelerator.synchronize = backend.synchronize  # torch's own has no door for Python

"""What cannot be seen is refused in words: where it is, why, and what to do instead."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn

_OPAQUE = ("flash", "flex", "paged")  # kernels that transformers may call, by how their names begin
FLEX = getattr(sys.modules.get("torch._higher_order_ops.flex_attention"), "flex_attention", None)
_FLEX_REMEDY = (
    "attention by flex_attention cannot be seen: let the model call F.scaled_dot_product_attention "
    'instead (in transformers: attn_implementation="sdpa")'
)

_IN = "; it is called in "


def check_visible(path: str, module: nn.Module) -> None:
    """Raise ValueError for a module whose attention cannot be seen."""
    if isinstance(module, torch.jit.ScriptModule):
        raise ValueError(
            f"the attention inside a TorchScript module cannot be seen ({path}): pass the model "
            "from before torch.jit"
        )
    if _is_compiled(module) and not _runs_eagerly():
        raise ValueError(_of_compiled(path))
    if _is_exported(module):
        raise ValueError(
            f"the attention inside an exported model cannot be seen ({path}): pass the model from "
            "before torch.export"
        )
    kernel = getattr(vars(module).get("config"), "_attn_implementation", None)
    if isinstance(kernel, str) and (kernel.startswith(_OPAQUE) or "/" in kernel):
        raise ValueError(
            f"attention in the kernel {kernel!r} cannot be seen ({path}): load the model with "
            'attn_implementation="sdpa", or call model.set_attn_implementation("sdpa")'
        )


def check_plain(path: str, *given: Any) -> None:
    """Raise ValueError for attention on nested tensors."""
    if any(isinstance(t, Tensor) and t.is_nested for t in given):
        raise ValueError(
            f"attention on nested tensors cannot be seen ({path}): pad the sequences to one length "
            "and give the model a mask, as torch.nested.to_padded_tensor does"
        )


def check_one_item(path: str, *tensors: Tensor) -> None:
    """Raise ValueError for attention that torch.vmap runs, where it is to be changed."""
    if any(map(is_batched, tensors)):
        raise ValueError(
            f"attention inside torch.vmap can be seen, but not changed, nor seen with its "
            f"gradients ({path}): give the model the whole batch at once, without torch.vmap"
        )


def is_batched(tensor: Tensor) -> bool:
    """Whether a tensor is one that torch.vmap made, also inside torch.func.grad."""
    functorch = torch._C._functorch
    while functorch.is_functorch_wrapped_tensor(tensor):
        if functorch.is_batchedtensor(tensor):
            return True
        tensor = functorch.get_unwrapped(tensor)
    return False


def unbatched(content: dict[str, Any]) -> dict[str, Any]:
    """What a record keeps, with the items that torch.vmap ran at once as more of a batch."""
    tensors = {name: t for name, t in content.items() if isinstance(t, Tensor)}
    while any(map(is_batched, tensors.values())):
        level = max(map(_level, tensors.values()))
        n_items = max(_of_level(t, level).size(0) for t in tensors.values() if _level(t) == level)
        n = max(t.size(0) for t in tensors.values())
        for name, t in tensors.items():
            many = _of_level(t, level) if _level(t) == level else t[None]
            if many.shape[:2] != (1, 1):
                many = many.expand(n_items, n, *many.shape[2:])
            tensors[name] = many.flatten(0, 1)
    return content | tensors


def _level(tensor: Tensor) -> int:
    """The number of the torch.vmap that a tensor is in, the innermost; -1 if in none."""
    return torch._C._functorch.maybe_get_level(tensor)


def _of_level(tensor: Tensor, level: int) -> Tensor:
    """All that torch.vmap runs at once, along a dimension before the others."""
    functorch = torch._C._functorch
    inner = functorch.get_unwrapped(tensor)
    if not functorch.is_batchedtensor(tensor):
        return inner[None]
    return inner.movedim(functorch.maybe_get_bdim(tensor), 0)


@contextmanager
def refusing(paths: dict[int, str]) -> Iterator[None]:
    """Turn an error of torch.compile, which cannot run while attention is seen, into words.

    paths: of the model's modules, by their ids.
    """
    try:
        yield
    except Exception as error:
        path = _running(error.__traceback__, paths)
        by_us = _FLEX_REMEDY in str(error) and _IN not in str(error)
        if by_us or (_is_of_dynamo(error) and _is_of_flex(error)):
            raise ValueError(f"{_FLEX_REMEDY}{_IN}{path}") from error
        if _is_of_dynamo(error):
            raise ValueError(_of_compiled(path)) from error
        raise


def refuse_flex() -> None:
    """Raise ValueError where flex_attention is about to run."""
    raise ValueError(_FLEX_REMEDY)


def _of_compiled(path: str) -> str:
    return (
        f"the attention inside compiled code cannot be seen ({path}): run all of the block as it "
        'was before torch.compile, inside `with torch.compiler.set_stance("force_eager"):`'
    )


def _is_compiled(module: nn.Module) -> bool:
    dynamo = sys.modules.get("torch._dynamo.eval_frame")  # slow to import, and there if needed
    if dynamo is None:
        return False
    if isinstance(module, dynamo.OptimizedModule) or module._compiled_call_impl is not None:
        return True
    forward = getattr(module, "forward", None)
    disabled = getattr(forward, "_torchdynamo_disable", False)
    return hasattr(forward, "_torchdynamo_orig_callable") and not disabled


def _runs_eagerly() -> bool:
    """Whether compiled code runs as it was written, here and now."""
    stance = getattr(sys.modules["torch._dynamo.eval_frame"], "_stance", None)
    return getattr(stance, "stance", "") == "force_eager"


def _is_exported(module: nn.Module) -> bool:
    fx = sys.modules.get("torch.fx.graph_module")
    if fx is None or not isinstance(module, fx.GraphModule):
        return False
    return any(isinstance(node.target, torch._ops.OpOverload) for node in module.graph.nodes)


def _is_of_dynamo(error: Exception) -> bool:
    """Whether an error was raised while torch.compile read the model's code."""
    dynamo = sys.modules.get("torch._dynamo.exc")
    if dynamo is not None and isinstance(error, dynamo.TorchDynamoException):
        return True
    reading = ("torch._dynamo.symbolic_convert", "torch._dynamo.convert_frame")
    return any(name in reading for name, _ in _frames(error.__traceback__))


def _is_of_flex(error: Exception) -> bool:
    """Whether it was flex_attention that called torch.compile."""
    names = (name for name, _ in _frames(error.__traceback__))
    return "torch.nn.attention.flex_attention" in names


def _running(trace: TracebackType | None, paths: dict[int, str]) -> str:
    """The innermost of the model's modules that were running when an error was raised."""
    modules = [of for name, of in _frames(trace) if name == "torch.nn.modules.module"]
    found = [paths[id(module)] for module in modules if id(module) in paths]
    return found[-1] if found else "around the model"


def _frames(trace: TracebackType | None) -> Iterator[tuple[str, object]]:
    """The module that each frame's code is in, and what it calls self."""
    while trace is not None:
        frame = trace.tb_frame
        yield frame.f_globals.get("__name__", ""), frame.f_locals.get("self")
        trace = trace.tb_next

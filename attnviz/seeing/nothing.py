"""Why a block saw no attention at all, and what to do about it."""

import inspect
from collections.abc import Iterator

from torch import nn

from attnviz.seeing.entrance import Block


def why_nothing_was_seen(model: nn.Module, block: Block) -> str:
    """A message for the end of a block."""
    return f"no attention was seen: {_reason(model, block)}"


def _reason(model: nn.Module, block: Block) -> str:
    if not block.ran and block.elsewhere:
        return (
            f"the model ran {block.elsewhere}, where the block does not hear it: open the block "
            "there, around the line that runs the model"
        )
    if not block.ran:
        return (
            "the model did not run inside the block: run this very model there, not a copy of it, "
            "nor the results of an earlier run"
        )
    if module := next(_modules_with_flex_attention(model), None):
        return (
            f"the model ran, but {module} uses flex_attention, whose kernel cannot be seen: let it "
            "use F.scaled_dot_product_attention, with the same mask"
        )
    return (
        "the model ran, but computed nothing like attention: no F.scaled_dot_product_attention, no "
        "nn.MultiheadAttention, and no softmax whose result is multiplied with the values"
    )


def _modules_with_flex_attention(model: nn.Module) -> Iterator[str]:
    """By the names in their code, and what these stand for, which may be compiled."""
    for path, module in model.named_modules():
        forward = inspect.unwrap(type(module).forward)
        names, known = forward.__code__.co_names, forward.__globals__
        if "flex_attention" in {getattr(known.get(name), "__name__", name) for name in names}:
            yield path or type(module).__name__

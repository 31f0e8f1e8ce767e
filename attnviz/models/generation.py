"""Letting a GPT write: which token comes next, and all of them one after the other."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch
from torch import Tensor

from attnviz.checks import check_number, check_whole
from attnviz.evaluating import evaluating
from attnviz.models.gpt import GPT
from attnviz.tensors import check_batch, check_bool, check_floats, check_values


def next_probabilities(
    logits: Tensor, temperature: float = 1.0, top_k: int | None = None, top_p: float = 1.0
) -> Tensor:
    """From the scores of the next token to the probabilities with which it is drawn.

    logits:      (..., vocab).
    temperature: the logits are divided by it: below 1 likely tokens become likelier; 0 leaves only
                 the likeliest one.
    top_k:       only so many of the likeliest tokens are left; None: all.
    top_p:       of these, only the likeliest ones that together reach this probability (the
                 likeliest one always); 1: all.
    Returns (..., vocab), summing to one.
    Raises ValueError for a temperature below 0, a top_k below 1, or a top_p not in (0, 1], and
    TypeError for what are no numbers.
    Source: top-k: Fan et al. 2018, section 5.4; top-p: Holtzman et al. 2020, section 3.1.
    """
    check_floats("logits", logits)
    temperature, top_k, top_p = _checked(temperature, top_k, top_p)
    if temperature == 0:
        return torch.zeros_like(logits).scatter(-1, logits.argmax(-1, keepdim=True), 1.0)
    logits = logits / temperature
    if top_k is not None and top_k < logits.size(-1):
        best, kept = logits.topk(top_k)
        logits = torch.full_like(logits, -torch.inf).scatter(-1, kept, best)
    p = logits.softmax(-1)
    if top_p == 1:
        return p
    ordered, places = p.sort(descending=True, stable=True)
    before = ordered.cumsum(-1) - ordered  # what the likelier ones reach together
    ordered = ordered.masked_fill(before >= top_p, 0)
    p = torch.zeros_like(p).scatter(-1, places, ordered)
    return p / p.sum(-1, keepdim=True)


@torch.no_grad()
def generate(
    model: GPT,
    input_ids: Tensor,
    n_new: int,
    mask: Tensor | None = None,
    *,
    temperature: float = 0.0,
    top_k: int | None = None,
    top_p: float = 1.0,
    use_cache: bool = True,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Go on with each text of a batch, one token after the other.

    input_ids: (batch, token) int64, the prompts, of at least one token each.
    n_new:     how many tokens are written.
    mask:      (batch, token) bool, False for the padding in front of shorter prompts.
    temperature, top_k, top_p: as for `next_probabilities`; 0, the default, is greedy search.
    use_cache: keep keys and values of what was read, instead of reading all again for each token;
               the tokens are the same.
    generator: for drawing, of the CPU or of the model's device; torch's own when not given.
    Dropout is off meanwhile. Returns (batch, token + n_new).
    Raises ValueError when prompt and n_new together are longer than the model, when a prompt is all
    padding, and ValueError or TypeError as the model and `next_probabilities` do.
    """
    check_batch("input_ids", input_ids)
    check_values("input_ids", input_ids)
    n_new = check_whole("n_new", n_new)
    temperature, top_k, top_p = _checked(temperature, top_k, top_p)
    n = input_ids.size(-1) + n_new
    if n_new < 0 or n > model.config.max_len:
        raise ValueError(
            f"prompt and n_new must be at most max_len={model.config.max_len} tokens together, "
            f"got {input_ids.size(-1)} + {n_new}"
        )
    if mask is not None:
        check_bool("mask", mask, "bool, True for real tokens")
    if mask is not None and not mask.any(-1).all():
        raise ValueError(
            "mask must leave each prompt a real token, but row "
            f"{int(mask.any(-1).int().argmin())} is all padding"
        )
    caches, ids = model.new_caches(len(input_ids)) if use_cache else None, input_ids
    one_by_one = use_cache and n_new > 8 and input_ids.device.type == "cpu"
    with evaluating(model), _columns_first(model) if one_by_one else nullcontext():
        for _ in range(n_new):
            unread = ids[:, caches[0].length :] if use_cache else ids
            logits = model(unread, mask, caches=caches).logits[:, -1]  # (batch, vocab)
            p = next_probabilities(logits, temperature, top_k, top_p)
            new = p.argmax(-1, True) if temperature == 0 else _drawn(p, generator)
            ids = torch.cat([ids, new], 1)
            mask = None if mask is None else torch.cat([mask, torch.ones_like(mask[:, :1])], 1)
    return ids


def _drawn(p: Tensor, generator: torch.Generator | None) -> Tensor:
    """A token for each text, (batch, 1), drawn where the generator is."""
    where = p.device if generator is None else generator.device
    return p.to(where).multinomial(1, generator=generator).to(p.device)


@contextmanager
def _columns_first(model: GPT) -> Iterator[None]:
    """Lay the wide matrices out column by column meanwhile.

    Some CPUs multiply a single token faster with them so: measured on an EPYC, it writes 1.4 times
    as fast, while the copies cost as much as a few tokens.
    """
    wide = [p for p in model.parameters() if p.dim() == 2 and len(p) >= p.size(1)]
    before = [p.data for p in wide]
    try:
        for p in wide:
            p.data = p.data.t().contiguous().t()
        yield
    finally:
        for p, data in zip(wide, before, strict=True):
            p.data = data


def _checked(
    temperature: float, top_k: int | None, top_p: float
) -> tuple[float, int | None, float]:
    return (
        check_number("temperature", temperature, "at least 0", lambda t: t >= 0),
        None if top_k is None else check_whole("top_k", top_k, 1),
        check_number("top_p", top_p, "above 0 and at most 1", lambda p: 0 < p <= 1),
    )

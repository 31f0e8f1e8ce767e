"""What a capture and an edit of a model got right, judged by what is seen without them."""

import re
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

import attnviz as av

from .below import Below

TOLERANCE = 1e-4
_NAMED_KINDS = {
    "attentions": "self",
    "encoder_attentions": "self",
    "decoder_attentions": "self",
    "cross_attentions": "cross",
}
_OF_BOTH_KINDS = {"superglue"}  # what it calls attentions are within an image and between two
_CROSS_BY_NAME = re.compile(r"encoder_attn|cross_att|fusion_layer")  # in lists of self-attention
Run = Callable[[], Any]  # a forward pass of the model, the same each time


@dataclass
class Verdict:
    """A row of the table.

    verdict: "right", "refused", "warned", "wrong", or "no attention".   computed: attentions below
    torch functions.   returned: attentions that the eager model returns itself.   error: the
    largest difference from these.   edit: "exact" where switching a head off below gives the same
    output, "plausible" where that could not be tried, or what is wrong.   why: in words.
    """

    model: str
    kernel: str = ""
    verdict: str = ""
    computed: int = 0
    seen: int = 0
    returned: int | None = None
    error: float | None = None
    kinds: str = ""
    edit: str = ""
    why: str = ""
    seconds: float = 0.0
    faults: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def judge(model: nn.Module, run: Run, row: Verdict, returned: dict[str, list[Tensor]]) -> None:
    """Fill in a row. returned: the attentions that the model itself returned, by name."""
    torch.manual_seed(0)
    plain = run()
    with Below(model) as below:
        torch.manual_seed(0)
        run()
    row.computed = len(below.met)
    seen, output, words = _captured(model, run)
    row.seen = len(seen)
    row.kinds = ", ".join(sorted({r.kind for r in seen}))
    if isinstance(output, Exception):
        _judge_refusal(row, output, words)
        return
    if not same(plain, output):
        row.faults.append("the output under capture differs")
    _judge_number(row, words)
    if words and row.seen == row.computed:
        row.notes.append("a false alarm")
    _judge_weights(row, list(seen), returned, bool(words))
    if row.seen:
        _judge_edit(model, run, row, list(seen), plain)
    row.verdict = "wrong" if row.faults else "warned" if words else "right"
    row.why = "; ".join([*row.faults, *words, *row.notes])


def _captured(model: nn.Module, run: Run) -> tuple[Any, Any, list[str]]:
    """The records, the output or what was raised, and what was warned of by attnviz."""
    seen: Any = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            with av.capture(model) as seen:
                torch.manual_seed(0)
                output = run()
        except Exception as error:
            output = error
    words = [str(w.message) for w in caught if "seen" in str(w.message)]
    return seen, output, words


def _judge_refusal(row: Verdict, error: Exception, words: list[str]) -> None:
    message = f"{type(error).__name__}: {error}".split("\n")[0]
    ours = type(error) in (ValueError, TypeError) and _raised_by_attnviz(error)
    if ours and "no attention was seen" in message and not row.computed:
        row.verdict = "no attention"
    elif ours:
        row.verdict, row.why = "refused", message
    else:
        row.verdict, row.why = "wrong", f"capture breaks the pass: {message[:200]}"
        row.faults.append(row.why)


def _raised_by_attnviz(error: Exception) -> bool:
    frame = error.__traceback__
    while frame.tb_next:
        frame = frame.tb_next
    return "attnviz" in frame.tb_frame.f_code.co_filename


def _judge_number(row: Verdict, words: list[str]) -> None:
    if row.seen < row.computed and not words:
        row.faults.append(f"{row.computed - row.seen} of {row.computed} attentions are not seen")
    if row.seen > row.computed:
        row.notes.append(f"{row.seen - row.computed} records more: softmaxes of something else")


# --- the weights ----------------------------------------------------------------------------------


def returned_attentions(output: Any) -> dict[str, list[Tensor]]:
    """The weights in an output of transformers, by the names that they have there."""
    found: dict[str, list[Tensor]] = {}
    for name, value in getattr(output, "items", dict().items)():
        if "attentions" in name:
            maps = [t for t in tree_leaves(value) if isinstance(t, Tensor) and t.dim() >= 3]
            if maps:
                found.setdefault(name, []).extend(maps)
        elif hasattr(value, "items"):
            for inner, maps in returned_attentions(value).items():
                found.setdefault(f"{name}.{inner}", []).extend(maps)
    return found


@dataclass
class _Compared:
    """What comes of comparing the records with what a model returns."""

    errors: list[float] = field(default_factory=list)
    unlike: int = 0  # returned tensors that have the size of no record
    folded: int = 0  # records with other heads
    misnamed: Counter = field(default_factory=Counter)  # by the name returned, and the kind


def _judge_weights(
    row: Verdict, seen: list, returned: dict[str, list[Tensor]], warned: bool
) -> None:
    """Compare each returned tensor with the record of its size that is nearest to it."""
    row.returned = sum(map(len, returned.values())) if returned else None
    left, compared = list(seen), _Compared()
    for name, maps in returned.items():
        for weights in maps:
            if weights.min() < -TOLERANCE or weights.max() > 1 + TOLERANCE:
                row.notes.append("the model returns scores, not weights")
                continue
            fitting = [(_difference(r, weights), r) for r in left if _size(r) == weights.numel()]
            if not fitting:
                compared.unlike += 1
                continue
            error, record = min(fitting, key=lambda pair: pair[0])
            left.remove(record)
            compared.errors.append(error)
            compared.folded += weights.dim() == 4 and record.heads != weights.size(1)
            kind = None if row.model in _OF_BOTH_KINDS else _kind(name, record)
            if kind and error < TOLERANCE and record.kind != kind:
                compared.misnamed[name, record.kind] += 1
    row.error = max(compared.errors, default=None)
    row.faults += _faults_of(compared, row, warned)
    row.notes = list(dict.fromkeys(row.notes))


def _kind(name: str, record: Any) -> str | None:
    """What kind of attention a record must be, that was returned by this name; None if unclear."""
    leaf = name.rpartition(".")[2]
    kind = _NAMED_KINDS.get(leaf)
    if kind == "self" and _CROSS_BY_NAME.search(record.path):
        return None
    if leaf == "attentions" and record.n_queries != record.n_keys:
        return None
    return kind


def _faults_of(compared: _Compared, row: Verdict, warned: bool) -> Iterator[str]:
    if row.error is not None and not row.error <= TOLERANCE:
        yield f"weights differ by {row.error:.2g} from those that the model returns"
    for (name, kind), number in compared.misnamed.items():
        yield f"{number} records of {name} are called {kind}"
    if compared.folded:
        yield f"{compared.folded} records have other heads than the model returns"
    if compared.unlike and row.seen >= row.computed:
        row.notes.append(f"{compared.unlike} of the returned are no softmax of a product")
    elif compared.unlike and not warned:
        yield f"{compared.unlike} returned attentions have the size of no record"


def _size(record: Any) -> int:
    return record.batch_size * record.heads * record.n_queries * record.n_keys


def _difference(record: Any, weights: Tensor) -> float:
    mine = record.weights.reshape(weights.shape)
    if mine.size(1) > 1 and torch.equal(weights, weights[:, :1].expand_as(weights)):
        mine = mine.mean(1, keepdim=True)  # WavLM returns the mean of all heads
    difference = (mine - weights.float()).abs().max().item()
    return difference if difference == difference else float("inf")


# --- an edit --------------------------------------------------------------------------------------


def _judge_edit(model: nn.Module, run: Run, row: Verdict, seen: list, plain: Any) -> None:
    """Switch one head of the middle attention off, above and, independently, below."""
    index = len(seen) // 2
    record = seen[index]
    numbers = [r.index for r in seen]
    if numbers != list(range(len(seen))):
        row.faults.append(f"the records of one pass are numbered {numbers[:6]}…")
        return
    head = record.heads - 1
    try:
        with av.edit(model, {(index, head): av.off}), av.capture(model) as again:
            torch.manual_seed(0)
            edited = run()
    except Exception as error:
        row.edit = f"{type(error).__name__}: {error}"[:120]
        row.faults.append(f"the edit raises {row.edit}")
        return
    for fault in _edit_faults(seen, list(again), index, head):
        row.faults.append(f"edit: {fault}")
    changed = not same(plain, edited)
    expected = _switched_off(model, run, row, (index, head, record.heads))
    if expected is None:
        row.edit = "plausible" if changed else "no effect"
        if not changed:
            row.faults.append("the edit does not change the output")
    elif same(expected, edited, TOLERANCE):
        row.edit = "exact" if changed else "without effect on the output, as below"
    else:
        row.edit = "differs"
        row.faults.append("the edited output is not that of the head switched off below")


def _switched_off(model: nn.Module, run: Run, row: Verdict, off: tuple[int, int, int]) -> Any:
    """The output with a head switched off below torch functions; None where that cannot be."""
    if row.seen != row.computed:
        return None
    with Below(model, off) as below:
        torch.manual_seed(0)
        expected = run()
    return expected if below.was_off else None


def _edit_faults(seen: list, again: list, index: int, head: int) -> Iterator[str]:
    if len(again) != len(seen):
        yield f"{len(again)} records instead of {len(seen)}"
        return
    for before, after in zip(seen[:index], again[:index], strict=True):
        if not torch.equal(before.weights, after.weights):
            yield f"changes attention {before.index}, which runs earlier"
            return
    edited, whole = again[index].weights, seen[index].weights
    if edited[:, head].abs().max() != 0:
        yield "the edited head's record is not zero"
    others = [h for h in range(whole.size(1)) if h != head]
    if not torch.equal(edited[:, others], whole[:, others]):
        yield "changes other heads of its attention"


def same(first: Any, second: Any, tolerance: float = 0.0) -> bool:
    """Whether two outputs hold the same tensors, nan equal to nan."""
    mine, others = (
        [t for t in tree_leaves(_plain(x)) if isinstance(t, Tensor)] for x in (first, second)
    )
    if len(mine) != len(others):
        return False
    return all(
        a.shape == b.shape
        and torch.allclose(a.double(), b.double(), rtol=tolerance, atol=tolerance, equal_nan=True)
        for a, b in zip(mine, others, strict=True)
        if not a.is_complex()
    )


def _plain(output: Any) -> Any:
    """An output without the classes that torch's trees do not look into."""
    if hasattr(output, "items"):
        return {name: _plain(value) for name, value in output.items()}
    if isinstance(output, list | tuple):
        return [_plain(value) for value in output]
    return output

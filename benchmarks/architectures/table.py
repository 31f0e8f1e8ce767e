"""ARCHITECTURES.md: the table of all verdicts, and what stands around it."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from textwrap import shorten

from .judge import Verdict

PATH = Path(__file__).parents[2] / "ARCHITECTURES.md"
_REASONS = (  # what models that were not built have in common, by a pattern in what they say
    ("Too large, as small as they could be made", "MemoryError"),
    ("Without a model of their own", "LookupError|No module named|has no attribute .*Model"),
    ("In need of a library that is not there", "ImportError"),
    ("Of which no inputs are known", "no recipe"),
    ("Out of time, or of their process", "TimeoutError|process"),
    (
        "Built, but with the inputs that were tried their pass fails",
        r"^NotBuilt: [a-z_]+(, [a-z_]+)*: |nan",
    ),
    ("Whose configuration does not take the small numbers", ""),
)
_HEAD = (
    "| model | kernel | computed | seen | largest error | kinds | edit | verdict |\n"
    "| --- | --- | --: | --: | --: | --- | --- | --- |"
)


def summary(rows: Iterable[Verdict]) -> str:
    """One line: how many runs came out how."""
    found = Counter(row.verdict for row in rows)
    models = len({row.model for row in rows if row.verdict != "not built"})
    runs = sum(found.values()) - found["not built"]
    return (
        f"{models} models, {runs} runs: {found['right']} right, "
        f"{found['no attention']} without attention, {found['refused']} refused, "
        f"{found['warned']} warned, {found['wrong']} wrong; {found['not built']} models not built"
    )


def markdown(rows: list[Verdict], versions: str, command: str) -> str:
    return "\n".join(_lines(rows, versions, command)) + "\n"


def _lines(rows: list[Verdict], versions: str, command: str) -> Iterator[str]:
    yield "# What `capture` and `edit` see of each architecture"
    yield ""
    yield f"Written by `{command}` with {versions}. **{summary(rows)}.**"
    yield ""
    yield (
        "Small models with random weights. *Computed*: attentions counted below torch functions, "
        "by fused kernels and by softmaxes of a product of two activations that meet values. "
        "*Seen*: records of a capture. *Largest error*: against the weights that the eager model "
        "returns itself (output_attentions=True). *Edit*: one head switched off by `av.off`; "
        "*exact* where zeroing the same head below torch functions gives the same output, "
        "*plausible* where only the records and the output could be looked at. Wherever a row says "
        "right, the output under capture was the same bit for bit."
    )
    for verdict in ("wrong", "warned", "refused", "right", "no attention"):
        chosen = [row for row in rows if row.verdict == verdict]
        if chosen:
            yield from ("", f"## {verdict.capitalize()} ({len(chosen)})", "", _HEAD)
            yield from map(_row, _joined(chosen))
    yield from _not_built([row for row in rows if row.verdict == "not built"])


def _joined(rows: list[Verdict]) -> list[Verdict]:
    """Rows that differ by nothing but the kernel and the last digits, as one."""
    joined: dict[tuple, Verdict] = {}
    for row in rows:
        key = (row.model, row.computed, row.seen, row.returned, row.kinds, row.edit, row.why)
        if key in joined:
            first = joined[key]
            first.kernel = f"{first.kernel}, {row.kernel}"
            errors = [e for e in (first.error, row.error) if e is not None]
            first.error = max(errors, default=None)
        else:
            joined[key] = Verdict(**vars(row))
    return list(joined.values())


def _row(row: Verdict) -> str:
    error = "–" if row.error is None else "0" if row.error == 0 else f"{row.error:.0e}"
    why = f": {row.why}" if row.why else ""
    cells = (row.model, row.kernel or "–", row.computed, row.seen, error, row.kinds or "–")
    return "| " + " | ".join(map(_cell, (*cells, row.edit or "–", row.verdict + why))) + " |"


def _cell(text: object) -> str:
    return shorten(str(text).replace("|", "\\|"), 240)


def _not_built(rows: list[Verdict]) -> Iterator[str]:
    """One line for each, under what they have in common."""
    if not rows:
        return
    yield from ("", f"## Not built ({len(rows)})")
    groups = defaultdict(list)
    for row in rows:
        groups[next(name for name, pattern in _REASONS if re.search(pattern, row.why))].append(row)
    for name, _ in _REASONS:
        if group := groups.get(name):
            yield from ("", f"{name} ({len(group)}):", "")
            yield from (f"- {r.model}: {_cell(r.why.removeprefix('NotBuilt: '))}" for r in group)

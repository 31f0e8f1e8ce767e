"""The code of the first lessons, cell after cell, on a device, for a reader who solves nothing.

No solution is run, so the lesson goes on with the package's functions (nbval runs the solutions).
Lessons keep models of a few thousand weights on the CPU by intention; the rest of a lesson moves to
the device by itself.
"""

import json
from pathlib import Path

import matplotlib.pyplot as plt
import pytest
from shortened import CUT, NO_LONGER_TRUE

import attnviz as av

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
LESSONS = {file.name[:2]: file for file in sorted(NOTEBOOKS.glob("0[0-5]_*.ipynb"))}


def cells(lesson):
    """The code of a lesson without solutions, as (name for messages, source)."""
    notebook = json.loads(LESSONS[lesson].read_text(encoding="utf-8"))
    for i, cell in enumerate(notebook["cells"]):
        if cell["cell_type"] == "code" and "solution" not in cell["metadata"].get("tags", []):
            yield f"{LESSONS[lesson].name}, cell {i}", "".join(cell["source"])


def shortened(lesson):
    """The same, shortened, and what of the two tables was found in it."""
    found = set()
    untrue = {line: f"untrue(lambda: {line[7:]}, {line!r})" for line in NO_LONGER_TRUE[lesson]}
    for name, source in cells(lesson):
        for old, new in (CUT[lesson] | untrue).items():
            if old in source:
                found.add(old)
                source = source.replace(old, new)
        yield name, source, found


@pytest.mark.parametrize("lesson", LESSONS)
def test_all_that_is_cut_stands_in_the_lesson(lesson):
    *_, (_, _, found) = shortened(lesson)
    assert found == {*CUT[lesson], *NO_LONGER_TRUE[lesson]}


@pytest.mark.slow
@pytest.mark.parametrize("lesson", LESSONS)
def test_runs(lesson, device, monkeypatch):
    failed = set()

    def untrue(holds, assertion):
        try:
            assert holds()
        except (AssertionError, TypeError):  # of a number that there is not
            failed.add(assertion)

    monkeypatch.setattr(av, "device", lambda: device)
    monkeypatch.chdir(NOTEBOOKS)
    names = {"__name__": "lesson", "display": lambda *things: None, "untrue": untrue}
    for name, source, _ in shortened(lesson):
        exec(compile(source, name, "exec"), names)
        plt.close("all")
    assert names["device"] == device
    assert failed == {*NO_LONGER_TRUE[lesson]}  # the others of the table can go

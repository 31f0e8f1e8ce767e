"""The checks on the notebooks can fail: planted faults in a small notebook are caught."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
HEAVY = "x = bytearray(b'1') * 500_000_000\ndel x\nprint(1 + 1)"
SLOW = "import time\ntime.sleep(3)\nprint(1 + 1)"
DEAF = "import signal, time\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\ntime.sleep(60)"
KEPT = "runs in under 1 minute and 1.0 GB"


def run(
    folder, promise=KEPT, source="print(1 + 1)", shown="2\n", more=(), options=(), metadata=None
):
    cell = new_code_cell("# NBVAL_CHECK_OUTPUT\n" + source, execution_count=1)
    cell.outputs = [new_output("stream", name="stdout", text=shown)]
    cells = [new_markdown_cell(promise), cell]
    cells += [new_code_cell(code, execution_count=2, metadata=metadata or {}) for code in more]
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3"}}
    (folder / "notebooks").mkdir()
    file = folder / "notebooks" / "lesson.ipynb"
    nbformat.write(new_notebook(cells=cells, metadata=kernel), file)
    shutil.copy(ROOT / "conftest.py", folder)
    shutil.copy(ROOT / "pyproject.toml", folder)
    command = [sys.executable, "-m", "pytest", str(file), "-p", "no:cacheprovider", *options]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST")}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    return done.returncode, done.stdout


def test_a_sound_notebook_passes(tmp_path):
    code, output = run(tmp_path)
    assert code == 0, output
    assert re.search(r"notebooks: \d\.\d minutes\nlesson: \d+ s, 0\.\d\d GB", output)


SOLUTION = """
class Verdict:
    def __repr__(self):
        return "✓ softmax, {}: right on all 14 inputs."
display(Verdict())
"""


@pytest.mark.parametrize("verdict", ["passed", "wrong"])
def test_a_solution_that_its_check_refuses_is_told(tmp_path, verdict):
    tags = {"tags": ["solution"]}
    code, output = run(tmp_path, more=[SOLUTION.format(verdict)], metadata=tags)
    assert code == (verdict == "wrong"), output
    assert ("the solution's verdict: ['✓ softmax, wrong" in output) == (verdict == "wrong")


def test_a_promise_that_was_broken_is_told_once_with_the_cells_that_took_it(tmp_path):
    slow = {"promise": "runs in under 0 minutes and 1.0 GB", "source": SLOW}
    code, output = run(tmp_path, **slow, more=[HEAVY, "1"], options=["-n1", "--dist=loadfile"])
    assert code == 1
    assert "1 failed, 2 passed" in output
    assert re.search(r"took 3 s and 0\.\d\d GB; longest: cell 0 3 s", output)


def test_promises_are_written_as_measured_on_all_processors_with_a_margin(tmp_path):
    measured = tmp_path / "tests" / "notebooks" / "measured.json"
    measured.parent.mkdir(parents=True)
    measured.write_text('{"lesson": {"another": {"seconds": 100, "gigabytes": 0.01}}}')
    code, output = run(tmp_path, options=["--write-promises"])
    assert code == 0, output
    both = json.loads(measured.read_text())["lesson"]
    assert both.pop("another") == {"seconds": 100, "gigabytes": 0.01}
    (here,) = both.values()
    assert 0 <= here["seconds"] < 60
    assert 0.02 < here["gigabytes"] < 0.37
    first = nbformat.read(tmp_path / "notebooks" / "lesson.ipynb", 4).cells[0].source
    assert first == "runs in under 3 minutes and 0.5 GB"


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ({"source": "print(1 + 2)"}, "mismatch 'stdout'"),
        ({"source": "assert 1 + 1 == 3"}, "AssertionError"),
        ({"promise": "runs in under 0 minutes and 1.0 GB"}, "promised 'runs in under 0 minutes"),
        ({"promise": "runs in under 1 minute and 0.01 GB"}, "and 0.01 GB', took"),
        (
            {"promise": "runs in under 1 minute and 0.3 GB", "source": HEAVY},
            "and 0.3 GB', took",
        ),
        ({"promise": "runs for a while"}, "the first cell does not say"),
        (
            {"source": DEAF, "options": ["--nbval-cell-timeout=1"]},
            "Failed to interrupt kernel",  # which nbval then stops, and forgets
        ),
    ],
    ids=[
        "another output",
        "a failed assertion",
        "too slow",
        "too large",
        "too large for a moment",
        "no promise",
        "neither an end nor an interruption",
    ],
)
def test_a_planted_fault_is_caught(tmp_path, fault, message):
    code, output = run(tmp_path, **fault)
    assert code == 1
    assert message in output

"""Every notebook is a slow test, and keeps the promise of its first cell on minutes and memory.

What a lesson took is said at the end of a run. `--write-promises` keeps it in
tests/notebooks/measured.json and writes the promises: the most of all processors that are there,
and a third more for those that are not.
"""

import json
import math
import os
import platform
import re
from collections import defaultdict
from pathlib import Path

import nbformat
import psutil
import pytest
from nbval.plugin import IPyNbCell

PROMISE = re.compile(r"runs in under (\d+) minutes? and ([\d.]+) GB")
MARGIN = 4 / 3  # for other processors, and for busy ones
MEASURED = Path(__file__).parent / "tests" / "notebooks" / "measured.json"
BY_THE_CLOCK = re.compile(r"\bseconds=|timeit\(")  # such a lesson wants all cores for itself
LONG = 7  # minutes: a lesson that promises as many or more wants them, too
taken = defaultdict(list)  # notebook: [number of its cell, seconds, peak in gigabytes]
minutes_of = defaultdict(float)  # part of the tests: minutes

if "PYTEST_XDIST_WORKER" in os.environ:  # kernels and programs beside others: a core for each
    os.environ["OMP_NUM_THREADS"] = "1"


def pytest_addoption(parser):
    parser.addoption("--write-promises", action="store_true", help="as measured by this run")


def pytest_collection_modifyitems(items):
    """Mark the cells of notebooks; the longest notebooks first, as their cells cannot be shared."""
    seconds = {name: most_of(known)[0] for name, known in measurements().items()}
    items.sort(key=lambda item: -seconds.get(item.path.stem, 0))
    for item in items:
        if isinstance(item, IPyNbCell):
            item.add_marker(pytest.mark.slow)
            if wants_all_cores(item.parent.nb):
                item.add_marker(pytest.mark.alone)
            item.output_timeout = 20  # seconds; nbval's own 5 are too few on a busy machine


def wants_all_cores(notebook):
    said = PROMISE.search(notebook.cells[0].source)
    if said and int(said[1]) >= LONG:
        return True
    code = (cell.source for cell in notebook.cells if cell.cell_type == "code")
    return any(BY_THE_CLOCK.search(source) for source in code)


def promise(seconds, gigabytes):
    """What the first cell says of a lesson that took so much."""
    minutes, halves = math.ceil(seconds * MARGIN / 60), math.ceil(2 * gigabytes * MARGIN)
    return f"runs in under {minutes} minute{'s' * (minutes > 1)} and {halves / 2} GB"


def broken_promise(text, cells):
    """How a lesson broke what its first cell says, by its cells so far; None if it kept it."""
    said = PROMISE.search(text)
    if said is None:
        return f"the first cell does not say: {PROMISE.pattern}"
    seconds, gigabytes = sum(s for _, s, _ in cells), max(peak for *_, peak in cells)
    if seconds <= 60 * float(said[1]) and gigabytes <= float(said[2]):
        return None
    longest = sorted(cells, key=lambda cell: -cell[1])[:3]
    peaks = [0.0, *(peak for *_, peak in cells)]
    most = max(range(len(cells)), key=lambda i: peaks[i + 1] - peaks[i])
    return (
        f"promised '{said[0]}', took {seconds:.0f} s and {gigabytes:.2f} GB; longest: "
        + ", ".join(f"cell {number} {s:.0f} s" for number, s, _ in longest)
        + f"; most memory: cell {cells[most][0]} {peaks[most + 1] - peaks[most]:+.2f} GB"
    )


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    if not isinstance(item, IPyNbCell) or call.when != "call":
        return report
    lesson = item.parent
    if not lesson.kernel.is_alive():  # died, or stopped by nbval: the report says of what
        return report
    cell = [item.cell_num, call.duration, peak_memory(lesson.kernel.km.provisioner.pid)]
    report.user_properties.append((lesson.path.stem, cell))
    lesson.taken = [*getattr(lesson, "taken", []), cell]
    if report.passed and (refused := refused_solution(item)):
        report.outcome, report.longrepr = "failed", f"{lesson.path.name}: {refused}"
    broken = broken_promise(lesson.nb.cells[0].source, lesson.taken)
    if report.passed and broken and not getattr(lesson, "broken", False):  # once is enough
        lesson.broken = True
        report.outcome, report.longrepr = "failed", f"{lesson.path.name}: {broken}"
    return report


def refused_solution(item):
    """What the check says of a lesson's own solution; None where it passed."""
    if "solution" not in item.cell.metadata.get("tags", []):
        return None
    said = [output.get("data", {}).get("text/plain", "") for output in item.test_outputs or []]
    return None if any(", passed: " in text for text in said) else f"the solution's verdict: {said}"


def peak_memory(pid):
    """The most memory a process ever held, in GB; where the system does not tell, what it holds."""
    status = Path(f"/proc/{pid}/status")
    if status.exists():
        return int(re.search(r"VmHWM:\s+(\d+) kB", status.read_text())[1]) / 1e6
    return psutil.Process(pid).memory_info().rss / 1e9


def pytest_runtest_logreport(report):
    """Hears of all tests, whichever process ran them."""
    part = next((p for p in ("notebooks", "tests/browser") if report.nodeid.startswith(p)), "rest")
    minutes_of[part] += report.duration / 60
    if report.when == "call":
        for name, cell in report.user_properties:
            taken[name].append(cell)


def pytest_terminal_summary(terminalreporter, exitstatus, config):
    for part, minutes in sorted(minutes_of.items()):
        terminalreporter.write_line(f"{part}: {minutes:.1f} minutes")
    measured = {
        name: (sum(s for _, s, _ in cells), max(peak for *_, peak in cells))
        for name, cells in sorted(taken.items())
    }
    for name, (seconds, gigabytes) in measured.items():
        terminalreporter.write_line(f"{name}: {seconds:.0f} s, {gigabytes:.2f} GB")
    if config.getoption("--write-promises"):
        for name, most in keep(measured).items():
            write_promise(MEASURED.parents[2] / "notebooks" / f"{name}.ipynb", promise(*most))


def keep(measured):
    """Put measurements on this processor into the file; return the most of all, by lesson."""
    known = measurements()
    for name, (seconds, gigabytes) in measured.items():
        here = {"seconds": round(seconds), "gigabytes": round(gigabytes, 2)}
        known.setdefault(name, {})[processor()] = here
    MEASURED.write_text(json.dumps(known, indent=1, sort_keys=True) + "\n")
    return {name: most_of(known[name]) for name in measured}


def measurements():
    return json.loads(MEASURED.read_text()) if MEASURED.exists() else {}


def most_of(by_processor):
    return [max(one[what] for one in by_processor.values()) for what in ("seconds", "gigabytes")]


def processor():
    """Its name, and the widest instructions that decide how fast it multiplies."""
    from torch.cpu import get_capabilities  # late: most runs have no need of it

    able = get_capabilities()
    widest = next((name for name in ("amx_tile", "avx512_f", "avx2") if able.get(name)), "")
    name = able.get("cpu_name") or platform.machine()
    return f"{name}, {psutil.cpu_count()} cores, {widest}".rstrip(" ,")


def write_promise(path, words):
    notebook = nbformat.read(path, as_version=4)
    first = notebook.cells[0]
    if not re.search(re.escape(words) + r"\b", first.source):
        first.source = PROMISE.sub(words, first.source)
        nbformat.write(notebook, path)

"""Every notebook is a slow test, and must keep the promise of its first cell on time and memory."""

import re
from collections import defaultdict
from pathlib import Path

import psutil
import pytest
from nbval.plugin import IPyNbCell

PROMISE = re.compile(r"runs in under (\d+) minutes? and ([\d.]+) GB")
spent = defaultdict(float)  # notebook: seconds
peak = defaultdict(float)  # notebook: gigabytes


def pytest_collection_modifyitems(items):
    for item in items:
        if isinstance(item, IPyNbCell):
            item.add_marker(pytest.mark.slow)
            item.output_timeout = 20  # seconds; nbval's own 5 are too few on a busy machine


def broken_promise(text, seconds, gigabytes):
    """How a notebook broke what its first cell says of time and memory, or None if it kept it."""
    promise = PROMISE.search(text)
    if promise is None:
        return f"the first cell does not say: {PROMISE.pattern}"
    minutes, most = float(promise[1]), float(promise[2])
    if seconds <= 60 * minutes and gigabytes <= most:
        return None
    return f"promised '{promise[0]}', took {seconds:.0f} s and {gigabytes:.2f} GB"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    if not isinstance(item, IPyNbCell) or call.when != "call":
        return report
    notebook = item.parent
    spent[notebook.path] += call.duration
    if not notebook.kernel.is_alive():  # died, or stopped by nbval: the report says of what
        return report
    peak[notebook.path] = max(peak[notebook.path], peak_memory(notebook.kernel.km.provisioner.pid))
    text = notebook.nb.cells[0].source
    broken = broken_promise(text, spent[notebook.path], peak[notebook.path])
    if report.passed and broken:
        report.outcome, report.longrepr = "failed", f"{notebook.path.name}: {broken}"
    return report


def peak_memory(pid):
    """The most memory a process ever held, in GB; where the system does not tell, what it holds."""
    status = Path(f"/proc/{pid}/status")
    if status.exists():
        return int(re.search(r"VmHWM:\s+(\d+) kB", status.read_text())[1]) / 1e6
    return psutil.Process(pid).memory_info().rss / 1e9

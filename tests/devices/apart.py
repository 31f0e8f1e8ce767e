"""Tests in a process of their own, that report as if they had run here.

As a script: runs the tests that are named and writes their reports, a line each.
"""

import json
import os
import subprocess
import sys

import pytest


class Apart:
    """Some tests that run in another process, in the order in which they are given."""

    def __init__(self, config, items):
        self._config, self._items, self._process = config, items, None

    def report(self, item):
        """Wait until a test has run there, and pass its reports on; start the process if needed."""
        if self._process is None:
            self._start()
        hook, where = item.ihook, {"nodeid": item.nodeid, "location": item.location}
        hook.pytest_runtest_logstart(**where)
        for line in self._process.stdout:
            report = hook.pytest_report_from_serializable(
                config=self._config, data=json.loads(line)
            )
            assert report.nodeid == item.nodeid, f"expected {item.nodeid}, got {report.nodeid}"
            hook.pytest_runtest_logreport(report=report)
            if report.when == "teardown":
                break
        else:
            ended = f"the tests' own process ended early, with status {self._process.wait()}"
            gone = pytest.TestReport(item.nodeid, item.location, {}, "failed", ended, "call")
            hook.pytest_runtest_logreport(report=gone)
        hook.pytest_runtest_logfinish(**where)

    def end(self):
        if self._process is not None:
            self._process.kill()
            self._process.communicate()

    def _start(self):
        self._process = subprocess.Popen(
            [sys.executable, __file__, *(item.nodeid for item in self._items)],
            cwd=self._config.rootpath,
            stdout=subprocess.PIPE,
            text=True,
        )


class Teller:
    """A plugin that writes each report as a line."""

    def __init__(self, out):
        self.out = out

    def pytest_configure(self, config):
        self.config = config

    def pytest_runtest_logreport(self, report):
        data = self.config.hook.pytest_report_to_serializable(config=self.config, report=report)
        print(json.dumps(data), file=self.out, flush=True)


if __name__ == "__main__":
    reports = os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what pytest prints is not wanted
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"  # they take seconds to load
    options = ["-o", "addopts=--import-mode=importlib", "--confcutdir=tests", *sys.argv[1:]]
    sys.exit(pytest.main(options, plugins=[Teller(reports)]))

"""Tests in a process of their own, that report as if they had run here.

As a script: collects the tests that are named, and runs each when its name comes in; its reports go
out, a line each.
"""

import os
import subprocess
import sys
from ast import literal_eval  # unlike JSON it has tuples
from tempfile import TemporaryFile

import pytest


class Apart:
    """Some tests that run in another process, which starts again after a crash."""

    def __init__(self, config, items):
        self._config, self._names = config, [item.nodeid for item in items]
        self._errors, self._process = TemporaryFile("w+"), None  # noqa: SIM115

    def start(self):
        """Let the process get ready, which takes it seconds; without a call `run` does it."""
        self._process = subprocess.Popen(
            [sys.executable, __file__, *self._names],
            cwd=self._config.rootpath,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
        )

    def run(self, item):
        """Let a test run there, and pass its reports on."""
        if self._process is None or self._process.poll() is not None:
            self.start()
        print(item.nodeid, file=self._process.stdin, flush=True)
        hook, where = item.ihook, {"nodeid": item.nodeid, "location": item.location}
        hook.pytest_runtest_logstart(**where)
        for line in self._process.stdout:
            report = hook.pytest_report_from_serializable(
                config=self._config, data=literal_eval(line)
            )
            hook.pytest_runtest_logreport(report=report)
            if report.when == "teardown":
                break
        else:
            hook.pytest_runtest_logreport(report=self._crashed(item))
        hook.pytest_runtest_logfinish(**where)

    def _crashed(self, item):
        status = self._process.wait()
        self._errors.seek(0)
        said = f"the test's process ended with status {status}\n{self._errors.read()}"
        return pytest.TestReport(item.nodeid, item.location, {}, "failed", said, "call")

    def end(self):
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self._errors.close()


class Teller:
    """A plugin that runs the tests whose names come in, and writes their reports."""

    def __init__(self, names, reports):
        self._names, self._reports = names, reports

    def pytest_configure(self, config):
        self._config = config

    def pytest_runtestloop(self, session):
        items = {item.nodeid: item for item in session.items}
        for name in self._names:
            self._config.hook.pytest_runtest_protocol(item=items[name.rstrip("\n")], nextitem=None)
        return True

    def pytest_runtest_logreport(self, report):
        data = self._config.hook.pytest_report_to_serializable(config=self._config, report=report)
        print(repr(data), file=self._reports, flush=True)


if __name__ == "__main__":
    import pretend
    import torch

    torch.ones(1, device=pretend.NAME)[0]  # the first function on the device takes a while
    teller = Teller(os.fdopen(os.dup(0)), os.fdopen(os.dup(1), "w"))
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what pytest prints is not wanted
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"  # they take seconds to load
    options = ["-o", "addopts=--import-mode=importlib", "-p", "no:cacheprovider"]
    sys.exit(pytest.main([*options, "--confcutdir=tests", *sys.argv[1:]], plugins=[teller]))

"""Tests on a device: the GPU where there is one, else the pretend one (see pretend.py).

PyTorch lends its private device type once and for good in a process. So beside other tests these
run in a process of their own and report from there; alone (`pytest tests/devices`) they run in
pytest's own, as a debugger wants it.
"""

import os
from pathlib import Path

import pytest
import torch
from apart import Apart

import attnviz as av

HERE = Path(__file__).parent
_apart = pytest.StashKey[Apart]()


def pytest_collection_finish(session):
    ours = [item for item in session.items if HERE in item.path.parents]
    if av.device().type != "cpu" or not 0 < len(ours) < len(session.items):
        return
    session.stash[_apart] = Apart(session.config, ours)
    if not session.config.option.collectonly and "PYTEST_XDIST_WORKER" not in os.environ:
        session.stash[_apart].start()  # gets ready while other tests run; a worker may need none


def pytest_runtest_protocol(item):
    apart = item.session.stash.get(_apart, None)
    if apart is None or HERE not in item.path.parents:
        return None
    apart.run(item)
    return True


def pytest_sessionfinish(session):
    if _apart in session.stash:
        session.stash[_apart].end()


@pytest.fixture(scope="session")
def device():
    """A device that is not the CPU."""
    here = av.device()
    if here.type == "cpu":
        import pretend

        here = torch.device(pretend.NAME)
    return here


@pytest.fixture(autouse=True)
def seeded():
    av.seed(0)

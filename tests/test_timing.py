"""Functions timed in turn."""

import sys

import pytest
import torch

from attnviz import timing
from attnviz.timing import Seconds, most_memory, timeit


def test_sides_take_turns_and_the_first_calls_do_not_count(monkeypatch):
    clock, calls = [0.0], []
    monkeypatch.setattr(timing.time, "perf_counter", lambda: clock[0])

    def side(name, seconds):
        def run():
            calls.append(name)
            clock[0] += 100 if calls.count(name) == 1 else seconds

        return run

    taken = timeit({"slow": side("slow", 2), "fast": side("fast", 1)}, rounds=3)
    assert calls == ["slow", "fast"] * 4
    assert taken == {"slow": [2, 2, 2], "fast": [1, 1, 1]}


def test_median_and_95th_percentile():
    some = Seconds([0.005, 0.001, 0.002, 0.003, 0.004])
    assert some.p50 == 0.003
    assert some.p95 == 0.005
    assert Seconds(range(1, 101)).p95 == 95
    assert repr(some) == "3 ms (p95 5 ms, 5 rounds)"


@pytest.mark.parametrize(
    ("sides", "options"), [({}, {}), ({"a": int}, {"rounds": 0}), ({"a": int}, {"warm_up": -1})]
)
def test_bad_input(sides, options):
    with pytest.raises(ValueError, match="sides must not be empty, rounds at least 1"):
        timeit(sides, **options)


def test_most_memory_counts_what_is_there_at_one_time():
    x = torch.randn(1000, 1000)  # 4 million bytes
    assert most_memory(lambda: None) == 0
    assert 12_000_000 <= most_memory(lambda: [x + 1 for _ in range(3)]) < 12_001_000
    one_after_the_other = most_memory(lambda: [(x + 1).sum() for _ in range(3)])
    assert 4_000_000 <= one_after_the_other < 4_001_000


def test_most_memory_goes_on_when_the_function_fails(capfd):
    with pytest.raises(ZeroDivisionError):
        most_memory(lambda: 1 / 0)
    print("heard", file=sys.stderr)
    assert capfd.readouterr().err == "heard\n"  # and nothing of the profiler's

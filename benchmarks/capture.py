"""What `av.capture` costs on a forward pass, beside Hugging Face's output_attentions=True.

python benchmarks/capture.py            all lengths, under 6 minutes on two cores
python benchmarks/capture.py --quick    without 8192 tokens

Time: the sides take turns in this process, on one thread, and each round compares the CPU time of
a side with that of the same model's plain pass; medians and quartiles over the rounds.

Memory (Linux with glibc): each side runs alone in a new process that may hold 4 GiB of data
(RLIMIT_DATA), after warm-up passes that leave the libraries' own buffers in place; the kernel's
mark for the peak resident set (VmHWM) is then reset, and its growth over what was resident is the
peak. glibc is told to give every large tensor a mapping of its own, or tensors that land in old
holes of the heap would hide; repeated runs then agree to about 0.1 MiB.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from statistics import median, quantiles

import torch
from torch import Tensor

import attnviz as av
from attnviz.models import BertConfig, BertEncoder

WIDTH, LAYERS, HEADS, FF, MAX_LEN, VOCABULARY = 384, 6, 12, 1_536, 8_192, 30_522
ROUNDS = {128: 61, 512: 31, 2_048: 9, 8_192: 3}
OURS = ("plain", "capture")
PEERS = ("peer, plain", "peer, attentions")
TIMED_PEERS_UP_TO = 2_048  # tokens; beyond, the peer does not fit in the limit
PEERS_EVERY = 3  # rounds: they are slow, and no target hangs on their time
LIMIT = 4 * 2**30  # bytes
WARM_UP = 512  # tokens
MIB = 2**20

Pass = Callable[[Tensor], object]


@dataclass
class Timing:
    """The median pass of a side, and the quartiles of its ratio to the plain pass."""

    cpu: float  # seconds
    wall: float
    ratio: tuple[float, float, float]


@dataclass
class Memory:
    """The peak of a side in bytes, over what was resident before; None where it did not fit.

    reading: the peak with the reading of a capture.   process: the peak of the whole process.
    """

    peak: int | None
    reading: int | None = None
    process: int | None = None


# --- the sides ------------------------------------------------------------------------------------


def ours() -> dict[str, Pass]:
    """The plain and the captured pass of one encoder."""
    config = BertConfig(VOCABULARY, WIDTH, LAYERS, HEADS, FF, MAX_LEN)
    model = BertEncoder(config).eval()

    def captured(ids: Tensor) -> object:
        with av.capture(model) as seen:
            output = model(ids)
        return output, seen

    return dict(zip(OURS, (model, captured), strict=True))


def peers() -> dict[str, Pass]:
    """The passes of Hugging Face's model of the same sizes, without and with attentions."""
    from transformers import BertConfig, BertModel

    config = BertConfig(
        vocab_size=VOCABULARY,
        hidden_size=WIDTH,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        intermediate_size=FF,
        max_position_embeddings=MAX_LEN,
        attn_implementation="eager",
    )
    model = BertModel(config).eval()
    return dict(zip(PEERS, (model, lambda ids: model(ids, output_attentions=True)), strict=True))


def plain_of(side: str) -> str:
    """The plain pass of the model that a side runs."""
    return OURS[0] if side in OURS else PEERS[0]


def tokens(n: int) -> Tensor:
    return torch.randint(VOCABULARY, (1, n), generator=torch.Generator().manual_seed(0))


# --- time -----------------------------------------------------------------------------------------


def seconds(run: Pass, ids: Tensor) -> tuple[float, float]:
    """CPU and wall time of one pass; its result is freed after the clocks are read."""
    cpu, wall = time.process_time(), time.perf_counter()
    result = run(ids)
    spent = time.process_time() - cpu, time.perf_counter() - wall
    del result
    return spent


def timings(lengths: Iterable[int]) -> dict[tuple[int, str], Timing]:
    sides = ours() | peers()
    for run in sides.values():
        run(tokens(WARM_UP))
    result = {}
    for n in lengths:
        rounds = [one_round(sides, n, turn) for turn in range(ROUNDS[n])]
        result |= {(n, side): summary(side, rounds) for side in rounds[0]}
    return result


def one_round(sides: dict[str, Pass], n: int, turn: int) -> dict[str, tuple[float, float]]:
    """The sides whose turn it is, once each; the order turns round from one round to the next."""
    with_peers = n <= TIMED_PEERS_UP_TO and turn % PEERS_EVERY == 0
    order = (*OURS, *PEERS) if with_peers else OURS
    ids = tokens(n)
    return {side: seconds(sides[side], ids) for side in (order[::-1] if turn % 2 else order)}


def summary(side: str, rounds: list[dict[str, tuple[float, float]]]) -> Timing:
    rounds = [r for r in rounds if side in r]
    ratios = [r[side][0] / r[plain_of(side)][0] for r in rounds]
    low, middle, high = quantiles(ratios, n=4, method="inclusive")
    cpu, wall = (median(r[side][clock] for r in rounds) for clock in (0, 1))
    return Timing(cpu, wall, (low, middle, high))


# --- memory ---------------------------------------------------------------------------------------


def resident(line: str) -> int:
    """VmRSS, what is resident now, or VmHWM, its peak, in bytes."""
    for found in Path("/proc/self/status").read_text().splitlines():
        if found.startswith(f"{line}:"):
            return int(found.split()[1]) * 1024
    raise RuntimeError(f"/proc/self/status has no {line}")


def measure_here(side: str, n: int) -> Memory:
    """Measure one side in this process, which nothing else has used."""
    resource.setrlimit(resource.RLIMIT_DATA, (LIMIT, LIMIT))
    sides = ours() if side in OURS else peers()
    sides[side](tokens(16))
    for _ in range(2):
        sides[plain_of(side)](tokens(WARM_UP))
    Path("/proc/self/clear_refs").write_text("5")  # resets VmHWM
    before = resident("VmRSS")
    try:
        result = sides[side](tokens(n))
        peak = resident("VmHWM") - before
        if side == "capture":
            read(result[1][3], n)
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "allocate memory" not in str(error):
            raise
        return Memory(None)
    return Memory(peak, resident("VmHWM") - before, resident("VmHWM"))


def read(record: av.seeing.AttentionRecord, n: int) -> None:
    """Read an overview and a row of a captured attention, and check that they are what they say."""
    size = min(n, 256)
    overview, row = record.overview(256), record.row(5)
    assert overview.shape == (1, HEADS, size, size)
    assert row.shape == (1, HEADS, n)
    torch.testing.assert_close(row.sum(-1), torch.ones(1, HEADS))


def measure(side: str, n: int) -> Memory:
    """Measure one side in a process of its own."""
    command = [sys.executable, __file__, "--memory", side, str(n)]
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536"}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return Memory(**json.loads(done.stdout))


def memories(lengths: Iterable[int]) -> dict[tuple[int, str], Memory]:
    places = [(n, side) for n in lengths for side in (*OURS, *PEERS)]
    longest_first = sorted(places, reverse=True)
    with ThreadPoolExecutor(2) as pool:
        found = pool.map(lambda place: measure(place[1], place[0]), longest_first)
        return dict(zip(longest_first, found, strict=True))


def added(memory: dict[tuple[int, str], Memory], n: int, side: str) -> int | None:
    """How far a side's peak is above that of the same model's plain pass, in bytes."""
    peak, plain = memory[n, side].peak, memory[n, plain_of(side)].peak
    return None if peak is None or plain is None else peak - plain


# --- the report -----------------------------------------------------------------------------------


def table(
    timing: dict[tuple[int, str], Timing], memory: dict[tuple[int, str], Memory]
) -> Iterable[str]:
    yield (
        f"{'tokens':>6}  {'side':<16}  {'CPU s':>7}  {'wall s':>7}  "
        f"{'CPU × its plain pass':<20}  {'peak MiB':>9}  {'added MiB':>9}  {'read MiB':>8}"
    )
    for n, side in sorted(memory, key=lambda place: (place[0], (*OURS, *PEERS).index(place[1]))):
        yield f"{n:>6}  {side:<16}  {times(timing.get((n, side)))}  {sizes(memory, n, side)}"


def times(timing: Timing | None) -> str:
    if timing is None:
        return f"{'–':>7}  {'–':>7}  {'–':<20}"
    low, middle, high = timing.ratio
    return f"{timing.cpu:7.3f}  {timing.wall:7.3f}  {f'{middle:.3f} ({low:.3f}–{high:.3f})':<20}"


def sizes(memory: dict[tuple[int, str], Memory], n: int, side: str) -> str:
    here = memory[n, side]
    if here.peak is None:
        return f"does not fit in {LIMIT // 2**30} GB"
    more = "–" if side == plain_of(side) else f"{added(memory, n, side) / MIB:.1f}"
    reading = f"{here.reading / MIB:.1f}" if side == "capture" else "–"
    return f"{here.peak / MIB:9.1f}  {more:>9}  {reading:>8}"


def targets(
    timing: dict[tuple[int, str], Timing], memory: dict[tuple[int, str], Memory]
) -> Iterable[str]:
    lengths = sorted({n for n, _ in memory})
    for n in lengths:
        ratio = timing[n, "capture"].ratio[1]
        yield verdict(ratio <= 1.1, f"{n} tokens: capture takes {ratio:.3f} × the plain pass ≤ 1.1")
    per_token = [more / n for n in lengths if (more := added(memory, n, "capture")) is not None]
    each = ", ".join(f"{b / 1024:.1f}" for b in per_token)
    linear = max(per_token) <= 1.25 * min(per_token)  # N × N would be × 4 from length to length
    yield verdict(linear, f"capture adds {each} KiB per token: linear within a quarter")
    share = added(memory, 2_048, "capture") / added(memory, 2_048, "peer, attentions")
    yield verdict(
        share <= 1 / 20, f"2048 tokens: capture adds 1/{1 / share:.1f} of what the peer adds ≤ 1/20"
    )
    if MAX_LEN in lengths:
        capture, peer = memory[MAX_LEN, "capture"], memory[MAX_LEN, "peer, attentions"]
        process = "more" if capture.process is None else f"{capture.process / 2**30:.2f}"
        yield verdict(
            capture.peak is not None and peer.peak is None,
            f"{MAX_LEN} tokens: capture, overview(256) and row(5) fit in 4 GB (the whole process "
            f"holds {process}), the peer does not",
        )


def verdict(met: bool, words: str) -> str:
    return f"{'met    ' if met else 'NOT MET'}  {words}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="leave out 8192 tokens")
    parser.add_argument("--memory", nargs=2, metavar=("SIDE", "TOKENS"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    if options.memory:
        side, n = options.memory
        print(json.dumps(vars(measure_here(side, int(n)))))
        return
    start = time.perf_counter()
    lengths = [n for n in ROUNDS if n < MAX_LEN or not options.quick]
    timing, memory = timings(lengths), memories(lengths)
    print(*table(timing, memory), "", *targets(timing, memory), sep="\n")
    print(f"\n{time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()

"""Capture and edit every architecture at hand, and write ARCHITECTURES.md.

python -m benchmarks.architectures                  all: every model_type of transformers, and
                                                    models of the other libraries that are installed
python -m benchmarks.architectures --only bert vit  a few, printed

Each is built small with random weights, run plainly, under `capture` and under `edit`, and judged
by attention counted below torch functions and by the weights that the models return themselves.
They run in chunks, in processes of their own, so that a crash costs one model: some 15 minutes on
two cores. Exits with 1 when anything is wrong.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict

os.environ["HF_HUB_OFFLINE"] = "1"  # read when transformers is imported

from tqdm import tqdm

from . import table
from .judge import Verdict

CHUNK = 60
MEMORY = 4 * 2**30  # bytes that a process of models may take


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", metavar="NAME", help="these, printed, no file")
    parser.add_argument("--processes", type=int, default=os.cpu_count(), help="at the same time")
    parser.add_argument("--worker", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        work(options.worker)
        return 0
    start = time.perf_counter()
    names = options.only or all_names()
    rows = judged(names, options.processes)
    if options.only:
        print(*(json.dumps(asdict(row)) for row in rows), sep="\n")
    else:
        table.PATH.write_text(
            table.markdown(rows, versions(), "python -m benchmarks.architectures")
        )
    print(f"{table.summary(rows)} ({(time.perf_counter() - start) / 60:.0f} minutes)")
    return int(any(row.verdict == "wrong" for row in rows))


def all_names() -> list[str]:
    from transformers import CONFIG_MAPPING

    from . import others

    return [*sorted(CONFIG_MAPPING.keys()), *others.BUILDERS]


def versions() -> str:
    from importlib.metadata import PackageNotFoundError, version

    found = []
    for name in ("torch", "transformers", "timm", "torchvision", "diffusers", "open_clip_torch",
                 "x-transformers"):  # fmt: skip
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            continue
    return ", ".join(found)


def judged(names: list[str], processes: int) -> list[Verdict]:
    """The rows of all names, in their order."""
    chunks = [names[i : i + CHUNK] for i in range(0, len(names), CHUNK)]
    rows: dict[str, list[Verdict]] = {}
    with ThreadPoolExecutor(processes) as pool, tqdm(total=len(names)) as bar:
        for made in pool.map(lambda chunk: list(of_chunk(chunk, bar)), chunks):
            for row in made:
                rows.setdefault(row.model, []).append(row)
    return [row for name in names for row in rows.get(name, [])]


def of_chunk(names: list[str], bar: tqdm) -> Iterator[Verdict]:
    """The rows of a chunk; a model that ends its process is noted, and the next one begins anew."""
    left = list(names)
    while left:
        command = [sys.executable, "-m", "benchmarks.architectures", "--worker", *left]
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        for line in process.stdout:
            if not line.startswith("{"):
                continue
            made = json.loads(line)
            bar.update()
            left.remove(made["model"])
            yield from (Verdict(**row) for row in made["rows"])
        code = process.wait()
        if left:
            bar.update()
            yield Verdict(left.pop(0), verdict="not built", why=f"its process ended with {code}")


def work(names: list[str]) -> None:
    """Judge models one after another and print a line for each."""
    import torch
    import transformers

    from .attempt import attempt

    transformers.logging.set_verbosity_error()
    torch.set_num_threads(1)
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
    for name in names:
        rows = attempt(name)
        print(json.dumps({"model": name, "rows": [asdict(row) for row in rows]}), flush=True)


if __name__ == "__main__":
    sys.exit(main())

"""The three files of a pretraining: how they are called, whether they may be written, the log."""

import json
import os
from dataclasses import asdict
from math import inf
from pathlib import Path
from typing import Any, NamedTuple

from attnviz import files
from attnviz.data.streams import stream_texts
from attnviz.models.saving import is_saved_bert
from attnviz.training import checkpoint, processes
from attnviz.training.choices import Pretraining
from attnviz.training.loop import History

_LOG_EVERY = 50  # steps


class Outputs(NamedTuple):
    """Where a pretraining writes to."""

    model: Path
    log: Path
    checkpoint: Path


def outputs_of(output: str) -> Outputs:
    """The three files; whichever of them is given as output, they are the same three.

    Log and checkpoint are called like the model, with .jsonl and .pt in place of .safetensors, or
    behind any other name: that of v0.1 is v0.1.pt, as v0.2 is not to share it.
    """
    given = Path(output)
    name = given.stem if given.suffix in (".safetensors", ".jsonl", ".pt") else given.name
    model = f"{name}.safetensors" if given.suffix in (".jsonl", ".pt") else given.name
    return Outputs(*map(given.with_name, (model, f"{name}.jsonl", f"{name}.pt")))


def check_outputs(choices: Pretraining) -> Outputs:
    """The three files, when all of them may be written; their folder is made when it is missing.

    Raises ValueError when two of them, or one and the corpus, are the same file, or there is a
    checkpoint or log of something else; OSError for what cannot be written or is another's, or when
    there is no such corpus.
    """
    outputs = outputs_of(choices.output)
    if choices.corpus != "reviews":
        stream_texts(choices.corpus)  # says so when the file is missing
        for name, path in outputs._asdict().items():
            if path.exists() and Path(choices.corpus).exists() and path.samefile(choices.corpus):
                raise ValueError(
                    f"output must be another name: with {choices.output!r} the {name} would be "
                    f"written over the corpus, {choices.corpus}"
                )
    if len({*map(os.path.realpath, outputs)}) < len(outputs):
        raise ValueError(
            f"output must be another name: of {', '.join(map(str, outputs))} two lead to one file"
        )
    outputs.model.parent.mkdir(parents=True, exist_ok=True)
    files.check(outputs.model, is_saved_bert)
    files.check(outputs.log, lambda path: _first_line(path) is not None)
    checkpoint.check(outputs.checkpoint)
    _check_log(outputs)
    return outputs


def _check_log(outputs: Outputs) -> None:
    """Raise ValueError for a log of another model, such as x for x.safetensors."""
    if not outputs.log.exists():
        return
    other = _first_line(outputs.log)["choices"]["output"]
    if outputs_of(other).model.name != outputs.model.name:
        raise ValueError(
            f"{outputs.log} is the log of output {other!r}: choose another output, or move it away"
        )


def _first_line(path: Path) -> dict[str, Any] | None:
    """What a log begins with, or None for a file that is none."""
    try:
        with path.open(encoding="utf-8") as file:
            line = json.loads(file.readline(100_000))
        choices = line["choices"]
        is_one = line.keys() <= {"choices", "processes"} and isinstance(choices["output"], str)
    except (AttributeError, KeyError, TypeError, ValueError):
        return None
    return line if is_one else None


class Log:
    """One JSON object a line: the choices, every 50th step, and how well it ended.

    done: steps that the checkpoint has behind it; what the log says of later ones is forgotten, as
          they will come again.
    Raises OSError when it cannot be written, FileExistsError over a file that is none.
    """

    def __init__(self, path: Path, choices: Pretraining, done: int):
        self._path, self._pieces = path, choices.batch_size * choices.length
        self._lines = _lines_until(path, done) if done and path.exists() else []
        if not self._lines and processes.is_first():
            self._write({"choices": asdict(choices), "processes": processes.number()})

    def step(self, history: History) -> None:
        """Write down the last 50 steps, when there are as many new ones."""
        if history.step % _LOG_EVERY == 0 and processes.is_first():
            last = history.losses[-_LOG_EVERY:]
            self._write(
                {
                    "step": history.step,
                    "seconds": round(history.elapsed, 1),
                    "loss": sum(last) / len(last),
                    "pieces_per_second": round(history.step * self._pieces / history.elapsed),
                }
            )

    def end(self, history: History, found: Any, guessed: Any) -> None:
        """Write down how it ended."""
        self._write(
            {
                "steps": history.step,
                "seconds": round(history.elapsed, 1),
                "held_out": found._asdict(),
                "guessing_by_frequency": guessed._asdict(),
            }
        )

    def _write(self, line: dict[str, Any]) -> None:
        self._lines.append(json.dumps(line))
        with files.replacing(self._path, lambda path: _first_line(path) is not None) as unfinished:
            unfinished.write_text("\n".join(self._lines) + "\n", encoding="utf-8")


def _lines_until(path: Path, done: int) -> list[str]:
    """A log's first line, and those on steps up to this one."""
    first, *others = path.read_text(encoding="utf-8").split("\n")
    return [first, *(line for line in others if _step_of(line) <= done)]


def _step_of(line: str) -> float:
    try:
        return json.loads(line).get("step", inf)
    except ValueError:  # half a line, of a version that was killed while it wrote
        return inf

"""The files of a pretraining: no two trainings share one, and none is written over another's."""

import json
import os
from pathlib import Path

import pytest

from attnviz.training.choices import Pretraining
from attnviz.training.loop import History
from attnviz.training.outputs import Log, check_outputs, outputs_of

NAMES = ["a", "v0.1", "v0.2", "bert.safetensors", "x.pt.safetensors", "b.pt", "c.jsonl", "d.bin"]
DATA = Path(__file__).parents[2] / "data"


def choices(output, **others):
    return Pretraining(**{"steps": 1, "output": str(output)} | others)


def everything(folder):
    return {p.name: p.is_file() and p.read_bytes() for p in folder.rglob("*")}


class TestNames:
    @pytest.mark.parametrize(
        ("output", "names"),
        [
            ("bert.safetensors", ["bert.safetensors", "bert.jsonl", "bert.pt"]),
            ("v0.1", ["v0.1", "v0.1.jsonl", "v0.1.pt"]),
            ("model.bin", ["model.bin", "model.bin.jsonl", "model.bin.pt"]),
            ("x.pt", ["x.safetensors", "x.jsonl", "x.pt"]),
            ("x.jsonl", ["x.safetensors", "x.jsonl", "x.pt"]),
        ],
    )
    def test_beside_the_model(self, output, names):
        assert [p.name for p in outputs_of(output)] == names
        assert {p.parent for p in outputs_of(f"some/folder/{output}")} == {Path("some/folder")}

    def test_no_two_outputs_share_a_file_and_none_writes_a_file_twice(self):
        paths = [path for name in NAMES for path in outputs_of(name)]
        assert len(set(paths)) == 3 * len(NAMES)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "new.txt").write_text("a corpus")
    return tmp_path


class TestCheck:
    def refused(self, folder, error, message, output="bert.safetensors", **others):
        before = everything(folder)
        with pytest.raises(error, match=message):
            check_outputs(choices(folder / output, **others))
        assert everything(folder) == before

    @pytest.mark.parametrize("name", ["bert.safetensors", "bert.jsonl", "bert.pt"])
    @pytest.mark.parametrize("content", [b"", b"mine", b'{"choices": ["a", "b"], "answer": 1}\n'])
    def test_a_file_of_something_else(self, folder, name, content):
        (folder / name).write_bytes(content)
        error = ValueError if name == "bert.pt" else FileExistsError
        self.refused(folder, error, f"{name} is .*choose another name")

    @pytest.mark.parametrize("name", ["bert.safetensors", "bert.jsonl", "bert.pt"])
    def test_a_folder(self, folder, name):
        (folder / name).mkdir()
        self.refused(folder, (ValueError, IsADirectoryError), name)

    @pytest.mark.parametrize("name", ["bert.safetensors", "bert.jsonl", "bert.pt"])
    def test_a_pipe(self, folder, name):
        os.mkfifo(folder / name)
        self.refused(folder, (ValueError, FileExistsError), name)

    @pytest.mark.parametrize(
        ("corpus", "output", "what"),
        [
            ("mine.jsonl", "mine.safetensors", "log"),
            ("mine.jsonl", "mine", "log"),
            ("mine.jsonl", "mine.pt", "log"),
            ("mine.jsonl", "mine.jsonl", "log"),
            ("mine.txt", "mine.txt", "model"),
            ("mine.txt", "mine.txt.safetensors", None),
            ("v0.1.jsonl", "v0.1", "log"),
        ],
    )
    @pytest.mark.parametrize("linked", [False, True])
    def test_the_corpus(self, folder, corpus, output, what, linked):
        (folder / corpus).write_text('{"text": "mine"}\n')
        given = folder / corpus
        if linked:
            given = folder / f"link{given.suffix}"
            given.symlink_to(corpus)
        if what is None:
            check_outputs(choices(folder / output, corpus=str(given)))
        else:
            message = f"the {what} would be written over the corpus"
            self.refused(folder, ValueError, message, output, corpus=str(given))

    def test_a_link_from_one_to_another(self, folder):
        (folder / "bert.jsonl").symlink_to("bert.safetensors")
        self.refused(folder, ValueError, "two lead to one file")

    def test_no_corpus(self, folder):
        corpus = str(folder / "none.txt")
        self.refused(folder, FileNotFoundError, r"no file .*none\.txt", "new/bert", corpus=corpus)

    def test_a_file_in_place_of_the_folder(self, folder):
        self.refused(folder, OSError, r"new\.txt", "new.txt/bert.safetensors")

    def test_the_log_of_another_model(self, folder):
        Log(folder / "bert.jsonl", choices(folder / "bert.safetensors"), done=0)
        self.refused(folder, ValueError, "is the log of output '.*bert.safetensors'", "bert")
        for same in ("bert.safetensors", "bert.pt", "bert.jsonl"):
            check_outputs(choices(folder / same))

    def test_a_folder_that_is_missing_is_made(self, folder):
        assert check_outputs(choices(folder / "new" / "x")).model == folder / "new" / "x"
        assert os.listdir(folder / "new") == []

    def test_reviews_is_a_name_like_any_other(self, folder, monkeypatch):
        monkeypatch.chdir(folder)
        (folder / "reviews").write_bytes((DATA / "reviews_bert.safetensors").read_bytes())
        check_outputs(choices("reviews"))

    def test_a_model_and_a_log_of_an_older_version_are_its_own(self, folder):
        for ending in (".safetensors", ".jsonl"):
            name = f"reviews_bert{ending}"
            (folder / name).write_bytes((DATA / name).read_bytes())
        check_outputs(choices(folder / "reviews_bert.safetensors"))


class TestLog:
    @pytest.fixture
    def path(self, tmp_path):
        return tmp_path / "bert.jsonl"

    def lines(self, path):
        return [json.loads(line) for line in path.read_text().splitlines()]

    def history(self, steps):
        return History([1.0] * steps, [0.1 * (i + 1) for i in range(steps)])

    def test_a_line_each_50_steps(self, path):
        log = Log(path, choices("bert.safetensors"), done=0)
        for steps in (49, 50, 51, 100):
            log.step(self.history(steps))
        first, *others = self.lines(path)
        assert first["choices"]["output"] == "bert.safetensors"
        assert [line["step"] for line in others] == [50, 100]

    def test_resumed_it_forgets_what_comes_again(self, path):
        log = Log(path, choices("bert.safetensors"), done=0)
        for steps in (50, 100, 150):
            log.step(self.history(steps))
        with path.open("a") as file:
            file.write('{"steps": 150}\n{"step": 200, "sec')  # an end, and half a line
        before = path.read_bytes()
        again = Log(path, choices("bert.safetensors"), done=120)
        assert path.read_bytes() == before  # as the checkpoint may yet be refused
        again.step(self.history(150))
        assert [line.get("step") for line in self.lines(path)] == [None, 50, 100, 150]

    def test_without_a_checkpoint_it_begins_anew(self, path):
        Log(path, choices("bert.safetensors"), done=0).step(self.history(50))
        Log(path, choices("bert.safetensors", seed=7), done=0)
        (line,) = self.lines(path)
        assert line["choices"]["seed"] == 7

    def test_a_checkpoint_without_a_log_gets_one(self, path):
        Log(path, choices("bert.safetensors"), done=100).step(self.history(150))
        assert [line.get("step") for line in self.lines(path)] == [None, 150]

"""Writing a file: whole or not at all, over nothing of others, and refused before any work.

Whatever writes a file in the package is held to the same: views, models, checkpoints, logs.
"""

import errno
import os
import signal
import stat
import subprocess
import sys
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from threading import Event, Thread
from unittest.mock import patch

import numpy as np
import pytest
import torch
from torch import nn

import attnviz as av
from attnviz import files
from attnviz.data import wordpiece_tokenizer
from attnviz.data.wordpiece import SPECIAL
from attnviz.models import (
    BertConfig,
    BertEncoder,
    BertForSequenceClassification,
    export_onnx,
    round_onnx,
    save_bert,
)
from attnviz.training import checkpoint
from attnviz.training.choices import Pretraining
from attnviz.training.outputs import Log

resource = pytest.importorskip("resource")  # no such limits on Windows
CAN_DO_ALL = hasattr(os, "geteuid") and os.geteuid() == 0
TOKENIZER = wordpiece_tokenizer([*SPECIAL, *"abcdefgh"])


def some_bert():
    torch.manual_seed(0)
    sizes = {"vocab_size": 13, "d_model": 8, "n_layers": 1, "n_heads": 2, "d_ff": 8, "max_len": 9}
    return BertForSequenceClassification(BertEncoder(BertConfig(**sizes)), 2, pooling="mean").eval()


def write_plainly(path):
    with files.replacing(path, lambda file: files.holds(file, b"ours")) as unfinished:
        unfinished.write_bytes(b"ours" + os.urandom(1000))


def write_view(path):
    av.heatmap(np.full((3, 3), 1 / 3), ["a", "b", "c"]).save(path)


def write_model(path):
    save_bert(path, some_bert(), TOKENIZER)


def write_checkpoint(path):
    model = nn.Linear(9, 9)
    checkpoint.save(path, model, torch.optim.SGD(model.parameters()), {"losses": [], "seconds": []})


def write_log(path):
    Log(path, Pretraining(steps=1), done=0)


def write_onnx(path):
    with patch("torch.onnx.export", export_once):
        export_onnx(some_bert(), path)


def write_rounded_onnx(path):
    round_onnx(an_onnx_file(), path)


export, exported = torch.onnx.export, []


def export_once(*args, **options):
    """What the exporter gives, which takes seconds, asked a single time."""
    if not exported:
        exported.append(export(*args, **options))
    return exported[0]


@cache
def an_onnx_file():
    path = Path(mkdtemp()) / "whole.onnx"
    write_onnx(path)
    return path


SLOW = (".svg", ".pdf", ".onnx")
WRITERS = [
    pytest.param(write, f"a{ending}", marks=[pytest.mark.slow] if ending in SLOW else [])
    for write, ending in [
        (write_plainly, ""),
        (write_view, ".html"),
        (write_view, ".png"),
        (write_view, ".svg"),
        (write_view, ".pdf"),
        (write_model, ".safetensors"),
        (write_checkpoint, ".pt"),
        (write_log, ".jsonl"),
        (write_onnx, ".onnx"),
        (write_rounded_onnx, ".onnx"),
    ]
]
every_writer = pytest.mark.parametrize(("write", "name"), WRITERS)


@contextmanager
def umask(mask):
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


@contextmanager
def room_for(n_bytes):
    """A disk that is full after so many bytes of a file, for Python and for what is not Python."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def mode_of(path):
    return stat.S_IMODE(path.stat().st_mode)


@every_writer
class TestEveryWriter:
    @pytest.fixture(autouse=True)
    def what_is_to_be_rounded(self, write):
        if write is write_rounded_onnx:
            an_onnx_file()

    @pytest.mark.slow
    def test_a_new_file_then_its_own_again(self, tmp_path, write, name):
        path = tmp_path / name
        with umask(0o027):
            write(path)
        assert path.stat().st_size
        assert mode_of(path) == 0o640
        path.chmod(0o600)
        write(path)
        assert mode_of(path) == 0o600  # what only the reader may read stays so
        assert os.listdir(tmp_path) == [name]

    @pytest.mark.parametrize("content", [b"", b"three years of work", b"\x00\xff\n{}"])
    def test_another_ones_file_stays(self, tmp_path, write, name, content):
        path = tmp_path / name
        path.write_bytes(content)
        with pytest.raises(FileExistsError, match=f"{name} is there already and is none of attnv"):
            write(path)
        assert path.read_bytes() == content
        assert os.listdir(tmp_path) == [name]

    def test_a_folder(self, tmp_path, write, name):
        (tmp_path / name).mkdir()
        with pytest.raises(IsADirectoryError, match=f"{name} is a folder: give the name of a file"):
            write(tmp_path / name)
        assert os.listdir(tmp_path) == [name]
        assert os.listdir(tmp_path / name) == []

    def test_a_pipe(self, tmp_path, write, name):
        os.mkfifo(tmp_path / name)
        with pytest.raises(FileExistsError, match=f"{name} is a pipe, not a file: choose another"):
            write(tmp_path / name)
        assert (tmp_path / name).is_fifo()

    def test_a_device(self, tmp_path, write, name):
        (tmp_path / name).symlink_to(os.devnull)
        with pytest.raises(FileExistsError, match=f"{name} is a device, not a file: choose anothe"):
            write(tmp_path / name)
        assert stat.S_ISCHR(os.stat(os.devnull).st_mode)

    def test_no_folder(self, tmp_path, write, name):
        (tmp_path / "missing").symlink_to(tmp_path / "none")
        with pytest.raises(FileNotFoundError, match=r"there is no folder '.*none' to save in"):
            write(tmp_path / "missing" / name)

    @pytest.mark.slow
    def test_a_link_stays_and_what_it_leads_to_is_replaced(self, tmp_path, write, name):
        (tmp_path / "there").mkdir()
        link, target = tmp_path / name, tmp_path / "there" / "file"
        link.symlink_to(target)
        write(link)  # a link that leads nowhere yet
        target.chmod(0o604)
        write(link)
        assert link.is_symlink()
        assert mode_of(target) == 0o604
        assert os.listdir(tmp_path / "there") == ["file"]

    @pytest.mark.slow
    def test_a_full_disk_leaves_the_old_file_and_says_so(self, tmp_path, write, name):
        path = tmp_path / name
        write(path)
        before = path.read_bytes()
        with (
            pytest.raises(OSError, match=rf"File too large: .*{name} stays as it was; make room"),
            room_for(100),
        ):
            write(path)
        assert path.read_bytes() == before
        assert os.listdir(tmp_path) == [name]

    def test_a_folder_where_nothing_may_be_written(self, tmp_path, write, name, monkeypatch):
        def refuse(path, *_):
            raise PermissionError(errno.EACCES, "Permission denied", path)

        monkeypatch.setattr("attnviz.files.os.open", refuse)
        with pytest.raises(PermissionError, match=r"Permission denied: '.*' is no folder to write"):
            write(tmp_path / name)
        assert os.listdir(tmp_path) == []


class TestReplacing:
    @pytest.mark.parametrize("how", [RuntimeError, KeyboardInterrupt, OSError])
    def test_stopped_half_way_it_leaves_the_old_file(self, tmp_path, how):
        path = tmp_path / "a"
        write_plainly(path)
        before = path.read_bytes()
        with suppress(how), files.replacing(path, lambda _: True) as unfinished:
            unfinished.write_bytes(b"half")
            raise how
        assert path.read_bytes() == before
        assert os.listdir(tmp_path) == ["a"]

    def test_nothing_is_done_before_it_is_known_that_it_may_be_written(self, tmp_path):
        (tmp_path / "a").write_text("mine")
        done = []
        with suppress(FileExistsError), files.replacing(tmp_path / "a", lambda _: False):
            done.append("work")
        assert not done

    def test_what_a_killed_process_left_goes_with_the_next_file(self, tmp_path):
        code = (
            "import os, sys; from attnviz.files import replacing\n"
            "with replacing(sys.argv[1], lambda _: True) as unfinished:\n"
            "    unfinished.write_text('half'); os.kill(os.getpid(), 9)"
        )
        path = tmp_path / "a"
        killed = subprocess.run([sys.executable, "-c", code, path])
        assert killed.returncode == -signal.SIGKILL
        (left,) = tmp_path.iterdir()
        assert left.name.endswith(".unfinished")
        write_plainly(tmp_path / "another")
        assert os.listdir(tmp_path) == ["another"]

    def test_what_another_still_writes_does_not(self, tmp_path):
        begun, go_on = Event(), Event()

        def slowly():
            with files.replacing(tmp_path / "slow", lambda _: True) as unfinished:
                unfinished.write_text("whole")
                begun.set()
                go_on.wait(10)

        writer = Thread(target=slowly)
        writer.start()
        begun.wait(10)
        write_plainly(tmp_path / "a")
        go_on.set()
        writer.join()
        assert (tmp_path / "slow").read_text() == "whole"
        assert sorted(os.listdir(tmp_path)) == ["a", "slow"]

    def test_what_only_looks_like_its_own_is_left_and_harms_nobody(self, tmp_path):
        os.mkfifo(tmp_path / ".attnviz-pipe.unfinished")
        (tmp_path / ".attnviz-link.unfinished").symlink_to(tmp_path / "mine")
        (tmp_path / ".attnviz-folder.unfinished").mkdir()
        (tmp_path / "mine").write_text("mine")
        write_plainly(tmp_path / "a")
        assert (tmp_path / "mine").read_text() == "mine"
        assert (tmp_path / ".attnviz-link.unfinished").is_symlink()
        assert (tmp_path / ".attnviz-folder.unfinished").is_dir()

    def test_a_name_as_long_as_they_may_be(self, tmp_path):
        write_plainly(tmp_path / ("ä" * 127))
        assert len(os.listdir(tmp_path)) == 1

    def test_links_in_a_circle(self, tmp_path):
        (tmp_path / "a").symlink_to(tmp_path / "b")
        (tmp_path / "b").symlink_to(tmp_path / "a")
        with pytest.raises(OSError, match="symbolic links"):
            write_plainly(tmp_path / "a")

    def test_a_full_disk_that_a_library_does_not_name(self, tmp_path):
        with (
            pytest.raises(OSError, match=r"File too large: .* stays as it was") as caught,
            room_for(100),
            files.replacing(tmp_path / "a", lambda _: True),
        ):
            raise RuntimeError("enforce fail")
        assert caught.value.errno == errno.EFBIG

    @pytest.mark.skipif(CAN_DO_ALL, reason="this user may write everywhere")
    def test_a_file_that_was_protected(self, tmp_path):
        write_plainly(tmp_path / "a")
        (tmp_path / "a").chmod(0o444)
        with pytest.raises(PermissionError, match="a is there already and may not be written"):
            write_plainly(tmp_path / "a")


class TestCheck:
    def test_it_says_what_writing_would_and_leaves_no_trace(self, tmp_path):
        (tmp_path / "mine").write_text("mine")
        with pytest.raises(FileExistsError):
            files.check(tmp_path / "mine", lambda _: False)
        files.check(tmp_path / "mine", lambda _: True)
        files.check(tmp_path / "new", lambda _: False)
        assert os.listdir(tmp_path) == ["mine"]
        assert (tmp_path / "mine").read_text() == "mine"


class TestHolds:
    @pytest.mark.parametrize(
        ("content", "is_there"), [(b"", False), (b"a mark", True), (b"mar", False)]
    )
    def test_a_mark_anywhere(self, tmp_path, content, is_there):
        (tmp_path / "a").write_bytes(content)
        assert files.holds(tmp_path / "a", b"mark") is is_there

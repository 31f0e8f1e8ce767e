"""Training that was stopped in any way goes on as if it had never been, and harms no file.

Run as a program, this file trains until it is stopped: it is what the last tests stop.
"""

import errno
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from torch import nn

from attnviz.training import inverse_sqrt, train

STEPS = 40


def a_training(seed, width=8, optimizer=torch.optim.AdamW):
    """A model with dropout and its optimizer; the seed is that of its first weights."""
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(4, width), nn.Tanh(), nn.Dropout(0.4), nn.Linear(width, 1))
    return model, optimizer(model.parameters(), lr=0.05)


def batch_of(step):
    x = torch.randn(16, 4, generator=torch.Generator().manual_seed(step))
    return {"x": x, "y": x.prod(1, keepdim=True)}


def loss_of(model, batch):
    return (model(batch["x"]) - batch["y"]).square().mean()


def go(model, optimizer, **options):
    options = {"steps": STEPS, "schedule": inverse_sqrt(0.2), "show": False} | options
    loss_of_batch = options.pop("loss", loss_of)
    return train(model, batch_of, loss_of_batch, optimizer, **options)


@pytest.fixture
def uninterrupted():
    """Losses, weights and moments of a training that was left in peace."""
    model, optimizer = a_training(seed=0)
    return go(model, optimizer), model, optimizer


def assert_same_end(uninterrupted, history, model, optimizer):
    wanted, wanted_model, wanted_optimizer = uninterrupted
    assert history.step == STEPS
    assert history.losses == pytest.approx(wanted.losses, abs=1e-6)
    assert len(history.seconds) == STEPS
    assert history.seconds == sorted(history.seconds)
    close = {"atol": 1e-6, "rtol": 0}
    torch.testing.assert_close(model.state_dict(), wanted_model.state_dict(), **close)
    mine, theirs = optimizer.state_dict(), wanted_optimizer.state_dict()
    torch.testing.assert_close(mine["state"], theirs["state"], **close)
    assert mine["param_groups"] == theirs["param_groups"]


def stop_at(*steps, how):
    """A loss that is interrupted while these steps are done, each time once."""
    left = list(steps)

    def loss(model, batch):
        value = loss_of(model, batch)
        if left and torch.equal(batch["x"], batch_of(left[0])["x"]):
            left.pop(0)
            how()
        return value

    return loss


def ctrl_c():
    signal.raise_signal(signal.SIGINT)


def fall_over():
    raise RuntimeError("the lights went out")


class TestResume:
    def test_the_training_of_these_tests_needs_all_that_is_kept(self, uninterrupted):
        model, optimizer = a_training(seed=0)
        torch.manual_seed(1)  # the same weights and batches, but another dropout
        assert go(model, optimizer).losses[-1] != pytest.approx(uninterrupted[0].losses[-1])

    @pytest.mark.slow
    @pytest.mark.parametrize("steps", [[0], [7], [STEPS - 1], [3, 4, 20]])
    def test_after_interruptions_it_ends_as_if_there_had_been_none(
        self, steps, uninterrupted, tmp_path
    ):
        path, done = tmp_path / "run.pt", []
        loss = stop_at(*steps, how=ctrl_c)
        for seed in range(len(steps)):
            model, optimizer = a_training(seed)
            done.append(go(model, optimizer, checkpoint=path, loss=loss).step)
        assert done == [step + 1 for step in steps]
        model, optimizer = a_training(seed=99)  # other weights, other randomness
        history = go(model, optimizer, checkpoint=path, loss=loss)
        assert_same_end(uninterrupted, history, model, optimizer)

    def test_after_a_crash_it_goes_on_from_what_was_last_saved(self, uninterrupted, tmp_path):
        path, asked = tmp_path / "run.pt", []
        model, optimizer = a_training(seed=0)
        with pytest.raises(RuntimeError, match="lights"):
            go(model, optimizer, checkpoint=path, save_every=0, loss=stop_at(9, how=fall_over))
        model, optimizer = a_training(seed=99)
        history = go(
            model, optimizer, checkpoint=path, after_step=lambda step, _: asked.append(step)
        )
        assert asked == list(range(10, STEPS + 1))
        assert_same_end(uninterrupted, history, model, optimizer)

    def test_one_that_was_finished_stays_as_it_is(self, uninterrupted, tmp_path):
        path = tmp_path / "run.pt"
        go(*a_training(seed=0), checkpoint=path)
        model, optimizer = a_training(seed=99)
        history = go(model, optimizer, checkpoint=path, loss=lambda *_: fall_over())
        assert_same_end(uninterrupted, history, model, optimizer)

    def test_without_a_checkpoint_nothing_is_written(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        go(*a_training(seed=0), save_every=0, steps=2)
        assert list(tmp_path.iterdir()) == []

    def test_it_is_saved_as_often_as_asked_and_at_the_end(self, tmp_path, monkeypatch):
        saved, save = [], torch.save
        monkeypatch.setattr(
            torch, "save", lambda what, f: saved.append(what["state"]) or save(what, f)
        )
        go(*a_training(seed=0), checkpoint=tmp_path / "a", save_every=1000, steps=3)
        assert [len(state["losses"]) for state in saved] == [3]
        saved.clear()
        go(*a_training(seed=0), checkpoint=tmp_path / "b", save_every=0, steps=3)
        assert [len(state["losses"]) for state in saved] == [1, 2, 3, 3]

    def test_a_path_may_be_text_and_its_folder_is_made(self, tmp_path):
        go(*a_training(seed=0), checkpoint=str(tmp_path / "new" / "folder" / "run.pt"), steps=1)
        assert (tmp_path / "new" / "folder" / "run.pt").exists()

    def test_a_folder_that_cannot_be_made_stops_before_the_first_step(self, tmp_path):
        (tmp_path / "file").write_text("in the way")
        with pytest.raises(OSError, match="file"):
            go(
                *a_training(seed=0), checkpoint=tmp_path / "file" / "run.pt",
                loss=lambda *_: fall_over(),
            )  # fmt: skip


def untouched(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


class TestFilesOfOthers:
    def refused(self, path, message, **sizes):
        """Training on this file is refused, and nothing has changed."""
        files = untouched(path.parent)
        model, optimizer = a_training(seed=5, **sizes)
        before = {name: part.clone() for name, part in model.state_dict().items()}
        groups, chance = optimizer.state_dict(), torch.get_rng_state()
        with pytest.raises(ValueError, match=message):
            go(model, optimizer, checkpoint=path, loss=lambda *_: fall_over())
        assert untouched(path.parent) == files
        assert torch.equal(torch.get_rng_state(), chance)
        assert optimizer.state_dict() == groups
        for name, part in model.state_dict().items():
            assert torch.equal(part, before[name])

    def test_a_text(self, tmp_path):
        (tmp_path / "thesis.txt").write_text("The work of three years.")
        self.refused(tmp_path / "thesis.txt", "thesis.txt is not a checkpoint that can be read")

    def test_an_empty_file(self, tmp_path):
        (tmp_path / "run.pt").touch()
        self.refused(tmp_path / "run.pt", "is not a checkpoint that can be read")

    def test_a_folder(self, tmp_path):
        (tmp_path / "run.pt").mkdir()
        self.refused(tmp_path / "run.pt", "is not a checkpoint that can be read")

    @pytest.mark.parametrize("what", ["weights alone", "of another program"])
    def test_a_file_of_torch_that_is_no_checkpoint_of_ours(self, what, tmp_path):
        model, optimizer = a_training(seed=0)
        of_another = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "epoch": 3}
        torch.save(
            model.state_dict() if what == "weights alone" else of_another, tmp_path / "best.pt"
        )
        self.refused(tmp_path / "best.pt", "best.pt is not a checkpoint that can be read")

    @pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
    def test_a_checkpoint_that_is_cut_off(self, share, tmp_path):
        path = tmp_path / "run.pt"
        go(*a_training(seed=0), checkpoint=path, steps=2)
        path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
        self.refused(path, "run.pt is not a checkpoint that can be read")

    def test_one_of_another_model(self, tmp_path):
        path = tmp_path / "run.pt"
        go(*a_training(seed=0, width=9), checkpoint=path, steps=2)
        self.refused(path, r"another model: 0\.weight is \(9, 4\) in the file and \(8, 4\) in the")

    def test_one_of_a_model_with_other_parts(self, tmp_path):
        path = tmp_path / "run.pt"
        model = nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 1))
        go(model, torch.optim.AdamW(model.parameters()), checkpoint=path, steps=2)
        self.refused(path, r"another model: 1\.weight is \(1, 8\) in the file and missing in the")

    def test_one_of_another_optimizer(self, tmp_path):
        path = tmp_path / "run.pt"
        go(*a_training(seed=0, optimizer=torch.optim.SGD), checkpoint=path, steps=2)
        self.refused(path, "another optimizer: SGD")

    def test_one_whose_optimizer_has_other_groups(self, tmp_path):
        path = tmp_path / "run.pt"
        model, _ = a_training(seed=0)
        groups = [{"params": part.parameters()} for part in (model[0], model[3])]
        go(model, torch.optim.AdamW(groups, lr=0.05), checkpoint=path, steps=2)
        self.refused(path, "another optimizer: .*different number of parameter groups")


class TestFullDisk:
    def test_the_last_good_checkpoint_stays(self, uninterrupted, tmp_path, monkeypatch):
        path, save, saved = tmp_path / "run.pt", torch.save, []

        def save_until_full(what, file):
            if len(saved) == 5:
                Path(file).write_bytes(b"half a checkp")
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            save(what, file)
            saved.append(Path(file).read_bytes())

        monkeypatch.setattr(torch, "save", save_until_full)
        model, optimizer = a_training(seed=0)
        with pytest.raises(OSError, match="No space left on device"):
            go(model, optimizer, checkpoint=path, save_every=0)
        assert [p.name for p in tmp_path.iterdir()] == ["run.pt"]
        assert path.read_bytes() == saved[4]
        assert optimizer.param_groups[0]["lr"] == 0.05
        monkeypatch.undo()
        model, optimizer = a_training(seed=99)
        assert_same_end(uninterrupted, go(model, optimizer, checkpoint=path), model, optimizer)


def start(path):
    """This file as a program; it has begun to train when this returns."""
    program = subprocess.Popen(
        [sys.executable, __file__, str(path)], stdout=subprocess.PIPE, text=True
    )
    assert program.stdout.readline().startswith("step")
    return program


@pytest.mark.slow
class TestProgramsThatAreStopped:
    @pytest.mark.skipif(sys.platform == "win32", reason="Ctrl-C is no signal there")
    def test_by_ctrl_c(self, uninterrupted, tmp_path):
        path = tmp_path / "run.pt"
        program = start(path)
        time.sleep(random.uniform(0.05, 0.3))
        program.send_signal(signal.SIGINT)
        said, _ = program.communicate(timeout=60)
        assert program.returncode == 0
        done = len(torch.load(path)["state"]["losses"])
        assert said.splitlines()[-1] == f"done {done}"
        assert 0 < done < STEPS
        model, optimizer = a_training(seed=99)
        assert_same_end(uninterrupted, go(model, optimizer, checkpoint=path), model, optimizer)

    def test_by_force_at_any_moment(self, uninterrupted, tmp_path):
        path = tmp_path / "run.pt"
        for _ in range(2):
            program = start(path)
            while not path.exists():
                time.sleep(0.001)
            time.sleep(random.uniform(0, 0.2))  # it saves after each step: often amid a file
            program.kill()
            program.communicate(timeout=60)
            assert program.returncode != 0
        assert 0 < len(torch.load(path)["state"]["losses"]) < STEPS
        model, optimizer = a_training(seed=99)
        assert_same_end(uninterrupted, go(model, optimizer, checkpoint=path), model, optimizer)

    @pytest.mark.skipif(sys.platform == "win32", reason="a process cannot be copied there")
    def test_by_force_at_twenty_moments(self, uninterrupted, tmp_path):
        path, copies, killed = tmp_path / "run.pt", multiprocessing.get_context("fork"), 0
        options = {"checkpoint": path, "save_every": 0, "after_step": lambda *_: time.sleep(0.003)}
        chance = random.Random(0)

        def begin(seed):  # one that finds no checkpoint, as none was written in time, begins anew
            return a_training(seed if path.exists() else 0)

        while killed < 20:
            model, optimizer = begin(seed=killed)
            copy = copies.Process(target=go, args=(model, optimizer), kwargs=options)
            copy.start()
            copy.join(chance.uniform(0.02, 0.2))
            copy.kill()
            copy.join()
            assert copy.exitcode in (0, -signal.SIGKILL)
            killed += copy.exitcode != 0
            if copy.exitcode == 0:  # it had ended: another training, to be killed at more moments
                path.unlink()
        model, optimizer = begin(seed=99)
        assert_same_end(uninterrupted, go(model, optimizer, checkpoint=path), model, optimizer)
        assert [file.name for file in tmp_path.iterdir()] == ["run.pt"]


if __name__ == "__main__":
    torch.set_num_threads(1)

    def tell_and_wait(step, model):
        print("step", step, flush=True)
        time.sleep(0.005 if step < STEPS - 10 else 5)  # it shall be stopped before it has ended

    a_model, its_optimizer = a_training(seed=0)
    ended = go(
        a_model, its_optimizer, checkpoint=sys.argv[1], save_every=0, after_step=tell_and_wait
    )
    print("done", ended.step, flush=True)

"""What a checkpoint holds is looked at before anything of it is used."""

import pickle
from contextlib import nullcontext

import pytest
import torch
from torch import nn

from attnviz.training import checkpoint, muon_and_adamw

STATE = {"losses": [2.0, 1.5], "seconds": [0.1, 0.2]}


class Small(nn.Module):
    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList([nn.Linear(4, 4)])
        self.last = nn.Linear(4, 2)

    def forward(self, x):
        return self.last(self.blocks[0](x))


def adamw(model):
    return torch.optim.AdamW(model.parameters(), 0.1)


def sgd(model):
    return torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)


def trained(make):
    model = Small()
    optimizer = make(model)
    model(torch.ones(1, 4)).sum().backward()
    optimizer.step()
    return model, optimizer


@pytest.fixture(params=[adamw, sgd, muon_and_adamw])
def saved(request, tmp_path):
    """A checkpoint, and a function that changes what is in it."""
    path = tmp_path / "run.pt"
    checkpoint.save(path, *trained(request.param), STATE, {"seed": 0})

    def change(how):
        everything = torch.load(path)
        how(everything)
        torch.save(everything, path)

    return path, request.param, change


def refused(path, make, match, origin=None):
    model, optimizer = trained(make)
    torch.manual_seed(5)
    before = {name: w.clone() for name, w in model.state_dict().items()}
    moments, random = str(optimizer.state_dict()), torch.get_rng_state()
    content = path.read_bytes()
    with pytest.raises(ValueError, match=match) as caught:
        checkpoint.load(path, model, optimizer, {"seed": 0} if origin is None else origin)
    torch.testing.assert_close(model.state_dict(), before, atol=0, rtol=0)
    assert str(optimizer.state_dict()) == moments
    assert torch.get_rng_state().equal(random)
    assert path.read_bytes() == content
    return caught.value


def moments_of(everything):
    optimizer = everything["optimizer"]
    return optimizer["parts"][-1] if "parts" in optimizer else optimizer


def put(part, value):
    return lambda everything: everything.update({part: value})


def in_state(**values):
    return lambda everything: everything["state"].update(values)


def in_weights(value):
    def change(everything):
        everything["model"]["last.bias"] = value

    return change


def in_group(name, value):
    return lambda everything: moments_of(everything)["param_groups"][0].update({name: value})


def in_moments(value):
    def change(everything):
        kept = moments_of(everything)["state"][0]
        name = next(n for n in ("exp_avg", "momentum_buffer") if n in kept)
        kept[name] = value

    return change


NAN = float("nan")
DAMAGES = {
    "losses that are texts": (in_state(losses=["2.0", "1.5"]), "'state' is damaged"),
    "losses that are no numbers": (in_state(losses=[2.0, NAN]), "'state' is damaged"),
    "losses that are True": (in_state(losses=[True, False]), "'state' is damaged"),
    "losses in a tensor": (in_state(losses=torch.ones(2)), "'state' is damaged"),
    "more losses than seconds": (in_state(losses=[1.0]), "'state' is damaged"),
    "no seconds": (put("state", {"losses": []}), "'state' is damaged"),
    "a state of another kind": (put("state", [1]), "'state' is damaged"),
    "no randomness": (put("random", []), "'random' is damaged"),
    "randomness that is a text": (put("random", "dice"), "'random' is damaged"),
    "a short random state": (
        put("random", [{"cpu": torch.zeros(5, dtype=torch.uint8)}]), "'random' is damaged"
    ),
    "a random state of floats": (put("random", [{"cpu": torch.ones(5056)}]), "'random' is damaged"),
    "a random state that is a list": (put("random", [{"cpu": [1, 2]}]), "'random' is damaged"),
    "no random state": (put("random", [{}]), "'random' is damaged"),
    "weights in a list": (put("model", [1.0]), "'model' is damaged"),
    "a weight that is a number": (in_weights(1.0), "'model' is damaged"),
    "a weight of another size": (in_weights(torch.ones(3)), "another model: last.bias is"),
    "a weight that is nan": (in_weights(torch.tensor([1, NAN])), "last.bias must hold finite"),
    "an optimizer that is a list": (put("optimizer", []), "'optimizer' is damaged"),
    "an optimizer without anything": (put("optimizer", {}), "of another optimizer"),
    "a name that is a number": (put("optimizer_class", 3), "'optimizer_class' is damaged"),
    "an origin that is a text": (put("origin", "home"), "'origin' is damaged"),
    "a rate that is a text": (in_group("lr", "fast"), "another optimizer: lr is 'fast' in the f"),
    "a rate that is nan": (in_group("lr", NAN), "another optimizer: lr is nan in the file"),
    "a full rate that is a text": (in_group("full_lr", "fast"), "another optimizer: full_lr is"),
    "moments of another size": (in_moments(torch.ones(3)), "another optimizer: .* is .3,. for"),
    "moments that are a text": (in_moments("exp"), "another optimizer: "),
    "moments that are nan": (in_moments(torch.full((2,), NAN)), "another optimizer"),
    "one part less": (lambda everything: everything.pop("random"), "cannot|can be read"),
    "one part more": (put("epoch", 3), "can be read"),
}  # fmt: skip


class TestDamage:
    @pytest.mark.slow
    @pytest.mark.parametrize("damage", DAMAGES)
    def test_is_refused_and_nothing_has_changed(self, saved, damage):
        path, make, change = saved
        how, message = DAMAGES[damage]
        change(how)
        assert "run.pt" in str(refused(path, make, message))

    def test_none_is_fine(self, saved):
        path, make, change = saved
        change(lambda everything: None)
        assert checkpoint.load(path, *trained(make), {"seed": 0}) == STATE
        assert checkpoint.steps_done(path) == 2


class Evil:
    def __reduce__(self):
        return (print, ("evil",))


class TestForeign:
    @pytest.mark.parametrize(
        "content", [b"", b"mine", pickle.dumps(Evil()), pickle.dumps({"a": nn.Linear(1, 1)})]
    )
    def test_the_error_names_the_file_and_what_to_do_and_advises_nothing_dangerous(
        self, tmp_path, content, capsys
    ):
        path = tmp_path / "run.pt"
        path.write_bytes(content)
        error = refused(path, adamw, r"run\.pt is not a checkpoint that can be read")
        assert "choose another name, or move it away" in str(error)
        assert "weights_only" not in str(error)
        assert error.__suppress_context__
        assert not capsys.readouterr().out

    def test_saving_over_it(self, tmp_path):
        path = tmp_path / "run.pt"
        torch.save({"model": {}, "epoch": 1}, path)
        before = path.read_bytes()
        with pytest.raises(FileExistsError, match=r"run\.pt is there already"):
            checkpoint.save(path, *trained(adamw), STATE)
        assert path.read_bytes() == before


class TestCheck:
    def test_a_good_one_and_none(self, tmp_path):
        checkpoint.check(tmp_path / "run.pt")
        assert checkpoint.steps_done(tmp_path / "run.pt") == 0
        checkpoint.save(tmp_path / "run.pt", *trained(sgd), STATE)
        checkpoint.check(tmp_path / "run.pt")
        assert [p.name for p in tmp_path.iterdir()] == ["run.pt"]

    @pytest.mark.parametrize("ready", [True, False])
    def test_what_could_not_be_written_later_is_refused_now(self, tmp_path, monkeypatch, ready):
        def refuse(*_):
            raise PermissionError(13, "Permission denied")

        if not ready:
            monkeypatch.setattr("attnviz.files._new_file", refuse)
        with nullcontext() if ready else pytest.raises(PermissionError):
            checkpoint.check(tmp_path / "run.pt")

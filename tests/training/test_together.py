"""Several optimizers as one: the same steps as each by itself, saved and resumed together."""

import copy

import pytest
import torch
from torch import nn

from attnviz.training import Together, muon_and_adamw, train, warmup_linear


class Small(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.embedding = nn.Embedding(9, 6)
        self.blocks = nn.ModuleList([nn.Linear(6, 8), nn.Linear(8, 6)])

    def forward(self, ids):
        x = self.embedding(ids)
        for block in self.blocks:
            x = block(x).tanh()
        return x


def loss_of(model, ids):
    return (model(ids) - ids[:, None] / 9).square().mean()


def batch_of(step):
    return torch.randint(0, 9, (16,), generator=torch.Generator().manual_seed(step))


def same(one, other):
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return all(a.equal(b) for a, b in pairs)


class TestTogether:
    def test_each_makes_the_step_that_it_would_make_alone(self):
        one, other = Small(), Small()
        together = Together(
            [
                torch.optim.SGD(one.embedding.parameters(), 0.1, momentum=0.9),
                torch.optim.AdamW(one.blocks.parameters(), 0.01),
            ]
        )
        alone = [
            torch.optim.SGD(other.embedding.parameters(), 0.1, momentum=0.9),
            torch.optim.AdamW(other.blocks.parameters(), 0.01),
        ]
        for step in range(5):
            together.zero_grad()
            loss_of(one, batch_of(step)).backward()
            together.step()
            for optimizer in alone:
                optimizer.zero_grad()
            loss_of(other, batch_of(step)).backward()
            for optimizer in alone:
                optimizer.step()
        assert same(one, other)
        assert not same(one, Small())

    def test_a_rate_that_is_changed_here_is_changed_there(self):
        model = Small()
        part = torch.optim.SGD(model.parameters(), 0.1)
        together = Together([part])
        together.param_groups[0]["lr"] = 0.5
        assert part.param_groups[0]["lr"] == 0.5
        together.load_state_dict(together.state_dict())
        together.param_groups[0]["lr"] = 0.7
        assert part.param_groups[0]["lr"] == 0.7

    def test_training_goes_on_as_if_never_stopped(self, tmp_path):
        options = {"schedule": warmup_linear(0.2), "show": False}
        whole = Small()
        history = train(whole, batch_of, loss_of, muon_and_adamw(whole), steps=12, **options)
        stopped = Small()
        optimizer, file = muon_and_adamw(stopped), tmp_path / "a.pt"

        def stop(step, model):
            if step == 5:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            train(
                stopped, batch_of, loss_of, optimizer, steps=12, checkpoint=file,
                save_every=0, after_step=stop, **options,
            )  # fmt: skip
        again = Small()
        later = train(
            again, batch_of, loss_of, muon_and_adamw(again), steps=12, checkpoint=file, **options
        )
        assert same(whole, again)
        assert later.losses == history.losses

    def test_a_state_of_others_changes_nothing(self):
        model = Small()
        together = muon_and_adamw(model)
        loss_of(model, batch_of(0)).backward()
        together.step()
        before = copy.deepcopy(together.state_dict())
        with pytest.raises(ValueError, match="of 2 optimizers, got one of 1"):
            together.load_state_dict(
                Together([torch.optim.SGD(model.parameters(), 1)]).state_dict()
            )
        first, second = muon_and_adamw(Small()).state_dict()["parts"]
        with pytest.raises(ValueError, match=r"of \[3\] parameters, got \[2\]"):
            together.load_state_dict({"parts": [first, first]})
        assert str(together.state_dict()) == str(before)
        together.load_state_dict({"parts": [first, second]})

    def test_bad_input(self):
        model = Small()
        with pytest.raises(ValueError, match="at least one, got none"):
            Together([])
        with pytest.raises(ValueError, match="two share some"):
            Together([torch.optim.SGD(model.parameters(), 1) for _ in range(2)])
        with pytest.raises(ValueError, match="closure is not supported"):
            Together([torch.optim.SGD(model.parameters(), 1)]).step(lambda: 0)


class TestMuonAndAdamW:
    def test_who_gets_what(self):
        model = Small()
        muon, adamw = muon_and_adamw(model).param_groups
        assert [p.shape for p in muon["params"]] == [(8, 6), (6, 8)]
        assert [p.shape for p in adamw["params"]] == [(9, 6), (8,), (6,)]

    def test_muons_step_is_orthogonal(self):
        model = Small()
        before = model.blocks[0].weight.detach().clone()
        optimizer = muon_and_adamw(model, weight_decay=0.0)
        loss_of(model, batch_of(0)).backward()
        optimizer.step()
        change = model.blocks[0].weight.detach() - before
        sizes = torch.linalg.svdvals(change)
        assert sizes.max() / sizes.min() < 2  # of a gradient they differ by orders
        assert change.square().mean().sqrt().item() == pytest.approx(0.2 * 2e-2, rel=0.2)

    def test_a_model_without_blocks(self):
        with pytest.raises(ValueError, match="matrices in a module list called blocks"):
            muon_and_adamw(nn.Linear(3, 3))

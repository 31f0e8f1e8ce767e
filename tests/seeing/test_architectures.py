"""Nothing is wrong in silence in any architecture of transformers, built small.

The judges are those of benchmarks/architectures, which writes ARCHITECTURES.md: attention counted
below torch functions, the weights that models return themselves, and heads switched off below.
"""

import os
from contextlib import contextmanager

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

os.environ["HF_HUB_OFFLINE"] = "1"  # read when transformers is imported

from transformers import CONFIG_MAPPING

import attnviz as av
from attnviz.seeing import Seen
from benchmarks.architectures import judge as judges
from benchmarks.architectures.attempt import attempt
from benchmarks.architectures.below import Below
from benchmarks.architectures.judge import Verdict, judge

SAMPLE = {  # a model_type, and how many attentions its pass computes
    **{"bert": 2, "albert": 2, "deberta-v2": 2, "xlnet": 2},
    **{"gpt2": 2, "llama": 2, "mixtral": 2, "gemma3_text": 2, "bamba": 1},
    **{"t5": 6, "bart": 6, "whisper": 6, "wav2vec2": 2, "vit": 2, "swin": 8},
    **{"perceiver": 27, "clip": 4, "blip": 4, "qwen2_vl": 6, "idefics2": 6},
}


@pytest.mark.slow
@pytest.mark.parametrize("name", SAMPLE)
def test_a_sample_is_seen_and_edited_right(name):
    rows = attempt(name)
    assert [(r.verdict, r.why) for r in rows] == [("right", "")] * len(rows)
    assert {r.computed for r in rows} == {SAMPLE[name]}


@pytest.mark.rare
@pytest.mark.parametrize("name", sorted(CONFIG_MAPPING.keys()))
def test_nothing_is_wrong_in(name):
    wrong = [row for row in attempt(name) if row.verdict == "wrong"]
    assert not wrong, [f"{row.model} ({row.kernel}): {row.why}" for row in wrong]


# --- the judges themselves ------------------------------------------------------------------------


class Attention(nn.Module):
    """Attention of two heads, whose weights meet the values in a way that is given."""

    def __init__(self, mix):
        super().__init__()
        torch.manual_seed(0)
        self.project, self.out, self.mix = nn.Linear(8, 24), nn.Linear(8, 8), mix

    def forward(self, x: Tensor) -> Tensor:
        parts = self.project(x).unflatten(-1, (3, 2, 4)).movedim(2, 0).transpose(2, 3)
        mixed = self.mix(*parts)
        return self.out(mixed.transpose(1, 2).flatten(2))


def weights(q: Tensor, k: Tensor) -> Tensor:
    return (q @ k.mT).softmax(-1)


def by_exp(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    powers = (q @ k.mT).exp()
    return powers / powers.sum(-1, keepdim=True) @ v


MIXES = {
    "fused": F.scaled_dot_product_attention,
    "written out": lambda q, k, v: weights(q, k) @ v,
    "through views": lambda q, k, v: weights(q, k)[..., :3] @ v[:, :, :3],
    "multiplied and summed": lambda q, k, v: (weights(q, k)[..., None] * v[:, :, None]).sum(-2),
    "einsum": lambda q, k, v: torch.einsum("bhqk,bhkd->bhqd", weights(q, k), v),
    "exp": by_exp,
}


def test_attention_is_counted_however_it_is_spelled():
    x = torch.randn(2, 5, 8)
    for name, mix in MIXES.items():
        model = Attention(mix).eval()
        with torch.no_grad(), Below(model) as below:
            model(x)
        assert len(below.met) == 1, name


def test_softmaxes_that_are_no_attention_are_not_counted():
    class Router(nn.Module):
        def __init__(self):
            super().__init__()
            self.gate, self.experts = nn.Linear(8, 4), nn.Parameter(torch.randn(4, 8, 8))

        def forward(self, x: Tensor) -> Tensor:
            shares = self.gate(x).softmax(-1)
            outputs = torch.einsum("bnw,ewv->benv", x, self.experts)
            return torch.einsum("bne,benv->bnv", shares, outputs), (x @ x.mT).softmax(-1)

    model = Router()
    with torch.no_grad(), Below(model) as below:
        model(torch.randn(2, 5, 8))
    assert not below.met


def test_a_head_is_switched_off_below_as_by_an_edit():
    x = torch.randn(2, 5, 8)
    for name in ("fused", "written out", "einsum"):
        model = Attention(MIXES[name]).eval()
        with torch.no_grad():
            with av.edit(model, {(0, 1): av.off}):
                edited = model(x)
            with Below(model, (0, 1, 2)) as below:
                expected = model(x)
            assert below.was_off
            assert not torch.equal(expected, model(x))
        torch.testing.assert_close(edited, expected)


def judged(model: nn.Module) -> Verdict:
    row, x = Verdict("ours"), torch.randn(2, 5, 8)
    with torch.no_grad():
        judge(model, lambda: model(x), row, {})
    return row


def test_a_model_that_is_seen_is_right():
    row = judged(nn.Sequential(Attention(MIXES["fused"]), Attention(MIXES["einsum"])).eval())
    assert (row.verdict, row.computed, row.seen, row.edit) == ("right", 2, 2, "exact")


def test_a_record_that_is_missing_is_wrong(monkeypatch):
    @contextmanager
    def forgetful(model):
        seen = Seen()
        with capture(model) as all_records:
            yield seen
        seen._records += all_records[:-1]

    capture = judges.av.capture
    monkeypatch.setattr(judges.av, "capture", forgetful)
    row = judged(nn.Sequential(Attention(MIXES["fused"]), Attention(MIXES["fused"])).eval())
    assert (row.verdict, row.computed, row.seen) == ("wrong", 2, 1)
    assert "1 of 2 attentions" in row.why


def test_weights_other_than_the_model_returns_are_wrong():
    model, x = Attention(MIXES["written out"]).eval(), torch.randn(2, 5, 8)
    row = Verdict("ours")
    with torch.no_grad():
        judge(model, lambda: model(x), row, {"attentions": [torch.full((2, 2, 5, 5), 0.2)]})
    assert row.verdict == "wrong"
    assert "weights differ" in row.why

"""Layers in 8 bits against the same rounding written out, and against the layers they stand for."""

import pytest
import torch
from torch import nn

from attnviz.layers import Int8Embedding, Int8Linear

NONE = torch.zeros(0, dtype=torch.int64)


def layer(n_in, n_out, bias=True, seed=0):
    torch.manual_seed(seed)
    return nn.Linear(n_in, n_out, bias)


def rounded_rows(x):
    scale = x.abs().amax(-1, keepdim=True) / 127
    return torch.where(scale > 0, (x / scale).round() * scale, 0)


class TestInt8Linear:
    @pytest.mark.parametrize("bias", [True, False])
    @pytest.mark.parametrize("exact", [[], [3], [6, 0]])
    @pytest.mark.parametrize("seed", range(3))
    def test_rows_and_columns_are_rounded_each_with_a_scale(self, bias, exact, seed):
        linear = layer(7, 5, bias, seed)
        x = torch.randn(2, 3, 7)
        x[..., 3] *= 50
        x[0, 1] = 0
        rest = [i for i in range(7) if i not in exact]
        wanted = rounded_rows(x[..., rest]) @ rounded_rows(linear.weight[:, rest]).T
        wanted = wanted + x[..., exact] @ linear.weight[:, exact].T
        wanted = wanted + linear.bias if bias else wanted
        got = Int8Linear(linear, torch.tensor(exact, dtype=torch.int64))(x)
        torch.testing.assert_close(got, wanted, atol=1e-4, rtol=1e-4)
        assert not got.requires_grad

    def test_an_outlying_column_left_exact_saves_the_others(self):
        linear = layer(64, 32)
        x = torch.randn(20, 64)
        x[:, 9] *= 200

        def error(exact):
            return (Int8Linear(linear, exact)(x) - linear(x)).norm() / linear(x).norm()

        assert error(torch.tensor([9])) < 0.1 * error(NONE)
        assert error(torch.tensor([9])) < 0.01
        assert error(torch.tensor([8])) > 0.9 * error(NONE)

    def test_saved_and_loaded_it_is_the_same_with_other_columns_too(self):
        x = torch.randn(4, 9)
        saved = Int8Linear(layer(9, 6), torch.tensor([2, 5]))
        other = Int8Linear(layer(9, 6, seed=1), torch.tensor([7, 1]))
        assert not other(x).isclose(saved(x)).any()
        other.load_state_dict(saved.state_dict())
        assert torch.equal(other(x), saved(x))
        assert saved.state_dict()["rounded"].dtype == torch.int8

    def test_bad_input(self):
        with pytest.raises(ValueError, match=r"exact must be columns 0 to 8, got \[2, 9\]"):
            Int8Linear(layer(9, 6), torch.tensor([2, 9]))
        with pytest.raises(ValueError, match="linear must be on the CPU, got one on meta"):
            Int8Linear(nn.Linear(9, 6, device="meta"), NONE)


def test_vectors_are_rounded_each_with_a_scale():
    torch.manual_seed(0)
    embedding = nn.Embedding(11, 6)
    with torch.no_grad():
        embedding.weight[4] = 0
    ids = torch.tensor([[0, 4], [10, 3]])
    got = Int8Embedding(embedding)(ids)
    torch.testing.assert_close(got, rounded_rows(embedding.weight)[ids], atol=1e-6, rtol=1e-5)

"""Positions against the papers' formulas and against Hugging Face's Llama and Bloom."""

import math

import pytest
import torch

from attnviz.layers import alibi, rotate, sinusoidal_positions

SEEDS = [0, 1, 2]


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def assert_close(a, b, tolerance):
    torch.testing.assert_close(a, b, atol=tolerance, rtol=tolerance)


class TestSinusoidalPositions:
    @pytest.mark.parametrize(("n", "d_model"), [(1, 2), (7, 6), (130, 10)])
    def test_the_formula_of_the_paper_number_by_number(self, n, d_model):
        table = sinusoidal_positions(n, d_model)
        assert table.shape == (n, d_model)
        assert table.dtype == torch.float32
        for position in range(n):
            for i in range(d_model // 2):
                angle = position / 10_000 ** (2 * i / d_model)
                assert abs(table[position, 2 * i] - math.sin(angle)) < 1e-5
                assert abs(table[position, 2 * i + 1] - math.cos(angle)) < 1e-5

    def test_moving_on_turns_every_pair_by_an_angle_that_depends_on_the_shift_alone(self):
        table, shift = sinusoidal_positions(50, 8), 7
        pairs = torch.view_as_complex(table.view(50, 4, 2))  # sin + i cos
        turned = pairs[shift:] / pairs[:-shift]
        assert_close(turned, turned[:1].expand_as(turned), 1e-5)
        assert_close(turned.abs(), torch.ones(50 - shift, 4), 1e-5)
        assert len(turned[0].angle().round(decimals=3).unique()) == 4  # each pair at its own pace

    def test_no_positions_at_all(self):
        assert sinusoidal_positions(0, 4).shape == (0, 4)

    @pytest.mark.parametrize("d_model", [5, 1, 0, -2])
    def test_a_width_that_makes_no_pairs(self, d_model):
        with pytest.raises(ValueError, match=f"d_model must be a positive even.*got {d_model}"):
            sinusoidal_positions(3, d_model)

    def test_a_negative_number(self):
        with pytest.raises(ValueError, match="n must not be negative, got -1"):
            sinusoidal_positions(-1, 4)


class TestRotate:
    @pytest.mark.parametrize("seed", SEEDS)
    @pytest.mark.parametrize("base", [10_000, 500.0])
    def test_output_and_gradient_are_those_of_llama(self, seed, base):
        from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

        torch.manual_seed(seed)
        x = torch.randn(2, 3, 11, 6, requires_grad=True)
        x2 = x.detach().clone().requires_grad_()
        frequencies = 1 / base ** (torch.arange(0, 6, 2) / 6)
        angles = (torch.arange(11)[:, None] * frequencies).repeat(1, 2)[None]
        mine = rotate(x, base=base)
        theirs, _ = apply_rotary_pos_emb(x2, x2, angles.cos(), angles.sin())
        assert_close(mine, theirs, 1e-5)
        upstream = torch.randn_like(mine)
        mine.backward(upstream)
        theirs.backward(upstream)
        assert_close(x.grad, x2.grad, 1e-5)

    @pytest.mark.parametrize("positions", [None, torch.tensor([[3], [7]])])
    def test_first_and_second_derivatives(self, positions):
        x = torch.randn(2, 1, 4, dtype=torch.float64, requires_grad=True)
        turn = lambda x: rotate(x, positions)  # noqa: E731
        assert torch.autograd.gradcheck(turn, x, atol=1e-6)
        assert torch.autograd.gradgradcheck(turn, x, atol=1e-6)

    def test_dot_products_depend_on_the_distance_alone(self):
        query, key = torch.randn(8).expand(40, 8), torch.randn(8).expand(40, 8)
        scores = rotate(query) @ rotate(key).T
        for distance in range(-39, 40):
            same = scores.diagonal(distance)
            assert_close(same, same[:1].expand_as(same), 1e-5)
        assert scores[0].unique().numel() == 40  # and on it they do depend

    def test_lengths_do_not_change(self):
        x = torch.randn(2, 30, 8)
        assert_close(rotate(x).norm(dim=-1), x.norm(dim=-1), 1e-5)

    def test_the_first_token_stays_as_it_is(self):
        x = torch.randn(1, 5, 4)
        assert torch.equal(rotate(x)[:, 0], x[:, 0])
        assert not torch.isclose(rotate(x)[:, 1:], x[:, 1:]).any()

    def test_positions_say_where_the_tokens_stand(self):
        x, positions = torch.randn(2, 6, 4), torch.tensor([5, 0, 3])
        assert torch.equal(rotate(x, torch.arange(6)), rotate(x))
        turned = rotate(x[:, [5, 0, 3]], positions)
        assert_close(turned, rotate(x)[:, [5, 0, 3]], 1e-6)

    def test_any_leading_dimensions(self):
        x = torch.randn(2, 3, 4, 5, 6)
        assert_close(rotate(x)[1, 2, 3], rotate(x[1, 2, 3]), 1e-6)
        assert rotate(x[0, 0, 0]).shape == (5, 6)

    def test_bfloat16_stays_bfloat16_and_near(self):
        x = torch.randn(2, 300, 8)
        rounded = rotate(x.bfloat16())
        assert rounded.dtype == torch.bfloat16
        assert_close(rounded.float(), rotate(x), 3e-2)  # also far from the start

    @pytest.mark.parametrize("d_k", [1, 5])
    def test_an_odd_width_has_no_pairs(self, d_k):
        with pytest.raises(ValueError, match=f"d_k .* must be a positive even number, got {d_k}"):
            rotate(torch.randn(3, d_k))

    @pytest.mark.parametrize("shape", [(3,), (1,), (3, 4), (1, 2, 4)])
    def test_a_position_for_each_token_and_no_more(self, shape):
        with pytest.raises(
            ValueError, match=r"positions must be \(4,\), one a token, or broadcast to"
        ):
            rotate(torch.randn(2, 4, 6), torch.ones(shape))


# as the paper gives them (section 3), and as its code does for 12 heads
EIGHT = [1 / 2, 1 / 4, 1 / 8, 1 / 16, 1 / 32, 1 / 64, 1 / 128, 1 / 256]
SIXTEEN = [2**-0.5, 2**-1, 2**-1.5, 2**-2, 2**-2.5, 2**-3, 2**-3.5, 2**-4]
SIXTEEN += [2**-4.5, 2**-5, 2**-5.5, 2**-6, 2**-6.5, 2**-7, 2**-7.5, 2**-8]
TWELVE = [*EIGHT, SIXTEEN[0], SIXTEEN[2], SIXTEEN[4], SIXTEEN[6]]


class TestAlibi:
    @pytest.mark.parametrize("slopes", [EIGHT, TWELVE, SIXTEEN], ids=len)
    def test_slopes_are_the_published_ones(self, slopes):
        bias = alibi(len(slopes), 2)
        assert_close(-bias[:, 0, 1], torch.tensor(slopes), 1e-6)

    @pytest.mark.parametrize("n_heads", [1, 2, 3, 4, 5, 6, 7, 12, 20, 32, 40])
    def test_slopes_are_those_of_bloom(self, n_heads):
        from transformers.models.bloom.modeling_bloom import build_alibi_tensor

        theirs = build_alibi_tensor(torch.ones(1, 2), n_heads, torch.float32)  # slope · position
        assert_close(-alibi(n_heads, 2)[:, 0, 1], theirs[:, 0, 1], 1e-6)

    def test_softmax_over_the_past_is_that_of_bloom(self):
        from transformers.models.bloom.modeling_bloom import build_alibi_tensor

        scores, future = torch.randn(6, 9, 9), torch.ones(9, 9).triu(1).bool()
        theirs = build_alibi_tensor(torch.ones(1, 9), 6, torch.float32)
        a, b = ((scores + bias).masked_fill(future, -math.inf) for bias in (alibi(6, 9), theirs))
        assert_close(a.softmax(-1), b.softmax(-1), 1e-5)

    def test_the_penalty_is_the_distance_times_the_slope_in_both_directions(self):
        bias = alibi(2, 5)
        assert bias.shape == (2, 5, 5)
        assert bias.dtype == torch.float32
        for slope, head in zip([2**-4, 2**-8], bias, strict=True):
            for query in range(5):
                for key in range(5):
                    assert head[query, key] == -slope * abs(query - key)

    def test_with_more_keys_the_queries_are_the_last_tokens(self):
        assert torch.equal(alibi(4, 3, 7), alibi(4, 7)[:, -3:])

    @pytest.mark.parametrize(
        ("sizes", "message"),
        [
            ((0, 3), "n_heads must be at least 1, got 0"),
            ((2, 3, 2), "n_queries=3, n_keys=2"),
            ((2, -1), "n_queries=-1, n_keys=-1"),
            ((2, -1, 3), "n_queries=-1, n_keys=3"),
        ],
    )
    def test_sizes_that_make_no_sense(self, sizes, message):
        with pytest.raises(ValueError, match=message):
            alibi(*sizes)

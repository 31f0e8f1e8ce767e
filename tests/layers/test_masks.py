"""Masks say True where a query may attend."""

import pytest
import torch

from attnviz.layers import causal_mask, combine_masks, padding_mask


class TestPaddingMask:
    def test_real_tokens_may_be_seen_and_padding_may_not(self):
        mask = padding_mask([2, 3, 0])
        assert mask.dtype == torch.bool
        assert mask.tolist() == [[[True, True, False]], [[True] * 3], [[False] * 3]]

    def test_a_wider_batch(self):
        assert padding_mask(torch.tensor([1]), n_keys=3).tolist() == [[[True, False, False]]]

    @pytest.mark.parametrize(
        ("lengths", "n_keys", "message"),
        [
            ([2, 9], 5, r"between 0 and n_keys=5, got \[2, 9\]"),
            ([-1, 2], None, r"got \[-1, 2\]"),
            ([[1, 2]], None, r"got shape \(1, 2\)"),
            ([1.5], None, "torch.float32"),
            (torch.tensor([True]), None, "torch.bool"),
        ],
    )
    def test_lengths_that_are_none(self, lengths, n_keys, message):
        with pytest.raises(ValueError, match=message):
            padding_mask(lengths, n_keys)

    def test_a_fraction_of_a_key(self):
        with pytest.raises(TypeError, match="float"):
            padding_mask([2], 2.5)


class TestCausalMask:
    def test_tokens_see_themselves_and_the_past(self):
        assert causal_mask(3).tolist() == [[1, 0, 0], [1, 1, 0], [1, 1, 1]]

    def test_with_more_keys_the_queries_are_the_last_tokens(self):
        assert causal_mask(2, 4).tolist() == [[1, 1, 1, 0], [1, 1, 1, 1]]

    def test_where_it_is_needed(self):
        assert causal_mask(2, device="meta").is_meta
        assert padding_mask(torch.ones(2, dtype=torch.int64, device="cpu")).device.type == "cpu"

    def test_a_negative_number(self):
        with pytest.raises(ValueError, match="got n_queries=-1"):
            causal_mask(-1)

    def test_with_fewer_keys_the_first_queries_would_see_nothing(self):
        with pytest.raises(ValueError, match="n_queries=3, n_keys=2"):
            causal_mask(3, 2)


class TestCombineMasks:
    def test_what_one_forbids_is_forbidden(self):
        both = combine_masks(causal_mask(3), None, padding_mask([2, 3]))
        assert both.shape == (2, 3, 3)
        assert both[0].tolist() == [[1, 0, 0], [1, 1, 0], [1, 1, 0]]
        assert torch.equal(both[1], causal_mask(3))

    def test_nothing_forbids_nothing(self):
        assert combine_masks(None, None) is None

    def test_shapes_that_do_not_fit(self):
        with pytest.raises(ValueError, match=r"\[\(3, 3\), \(1, 1, 4\)\]"):
            combine_masks(causal_mask(3), padding_mask([4]))

    def test_a_mask_that_is_not_bool(self):
        with pytest.raises(TypeError, match=r"got torch\.float32"):
            combine_masks(causal_mask(3), torch.ones(3, 3))

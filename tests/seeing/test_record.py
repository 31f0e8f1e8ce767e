"""A record's pieces: parts of it, what a nan does to it, and giving its memory back."""

import pytest
import torch

import attnviz as av
from attnviz.seeing.record import AttentionRecord


def record(heads=4, key_heads=4, n_queries=5, n_keys=7, batch=3, **other):
    torch.manual_seed(0)
    query = torch.randn(batch, heads, n_queries, 8)
    key = torch.randn(batch, key_heads, n_keys, 8)
    return AttentionRecord(0, 0, "attention", "cross", query, key, scale=8**-0.5, **other)


MASKS = {
    "none": None,
    "for all alike": torch.rand(5, 7) > 0.3,
    "for each item": torch.rand(3, 1, 1, 7) > 0.3,
    "for each head": torch.randn(1, 4, 5, 7),
    "for everything": torch.randn(3, 4, 5, 7),
}


class TestPart:
    @pytest.mark.parametrize("mask", MASKS)
    @pytest.mark.parametrize("key_heads", [4, 2, 1])
    @pytest.mark.parametrize("heads", [slice(0, 4), slice(1, 2), slice(1, 3), slice(3, 4)])
    def test_has_the_weights_of_the_whole(self, mask, key_heads, heads):
        whole = record(key_heads=key_heads, mask=MASKS[mask])
        part = whole.part(2, heads)
        assert torch.allclose(part.weights, whole.weights[2:3, heads], atol=1e-6)

    def test_of_weights_that_were_written_out(self):
        weights = torch.randn(3, 4, 5, 7).softmax(-1)
        whole = AttentionRecord(0, 0, "attention", "self", written_out=weights)
        assert torch.equal(whole.part(1, slice(2, 4)).weights, weights[1:2, 2:4])

    def test_keeps_the_edits_of_its_heads(self):
        whole = record(changes={1: av.off, 3: av.uniform})
        assert torch.allclose(whole.part(0, slice(1, 4)).weights, whole.weights[:1, 1:4], atol=1e-6)

    def test_copies_no_memory(self):
        whole = record()
        part = whole.part(1, slice(2, 3))
        assert part.key.untyped_storage().data_ptr() == whole.key.untyped_storage().data_ptr()

    @pytest.mark.parametrize("item", [3, -1])
    def test_of_an_item_that_is_not_there(self, item):
        with pytest.raises(IndexError, match=f"between 0 and 2, got {item}"):
            record().part(item, slice(None))


class TestRowsWithoutAnyScore:
    def test_are_zero_where_the_mask_forbids_all(self):
        mask = torch.ones(5, 7, dtype=torch.bool)
        mask[2] = False
        weights = record(mask=mask).weights
        assert weights[:, :, 2].abs().max() == 0
        assert torch.allclose(weights[:, :, 3].sum(-1), torch.ones(3, 4))

    def test_stay_nan_where_the_model_computed_nan(self):
        broken = record()
        broken.query[0, 0, 1, 0] = torch.nan
        weights = broken.weights
        assert weights[0, 0, 1].isnan().all()
        assert weights[0, 0, 2].isfinite().all()


class TestFree:
    def test_says_what_happened_when_asked_for_weights(self):
        freed = record()
        freed.free()
        for ask in (
            lambda: freed.weights,
            lambda: freed.row(0),
            lambda: freed.part(0, slice(1)),
            lambda: freed.n_keys,
        ):
            with pytest.raises(RuntimeError, match=r"attention 0 \(attention\) was freed"):
                ask()
        assert repr(freed) == "<attention 0 of pass 0: attention, cross, freed>"

    def test_empties_a_capture(self):
        model = torch.nn.MultiheadAttention(8, 2, batch_first=True)
        with av.capture(model) as seen:
            x = torch.randn(1, 3, 8)
            model(x, x, x)
        first = seen[0]
        seen.free()
        assert len(seen) == 0
        assert first.query is None

"""Records stay right when the model or its user changes in place what they were made of."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention.bias import causal_lower_right, causal_upper_left

import attnviz as av

INF = float("inf")


class Attention(nn.Module):
    """Layers of attention with one mask, fused or written out."""

    def __init__(self, fused: bool, n_layers: int = 2):
        super().__init__()
        self.fused, self.n_layers = fused, n_layers
        self.register_buffer("mask", torch.ones(5, 5).tril().bool())

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        mask = self.mask if mask is None else mask
        for _ in range(self.n_layers):
            x = self.attend(x, mask[None, None])
        return x

    def attend(self, x: Tensor, mask: Tensor) -> Tensor:
        if self.fused:
            return F.scaled_dot_product_attention(x, x, x, mask)
        scores = x @ x.mT / x.size(-1) ** 0.5
        if mask.dtype == torch.bool:
            return scores.masked_fill(~mask, -INF).softmax(-1) @ x
        return (scores + mask).softmax(-1) @ x


def tokens() -> Tensor:
    return torch.randn(2, 3, 5, 4, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("inference", [False, True])
class TestMasks:
    def masks_of(self, model: nn.Module, *masks: Tensor) -> list[Tensor]:
        with av.capture(model) as seen:
            model(tokens(), *masks)
        return [record.mask for record in seen]

    def test_a_buffer_that_is_changed_later(self, fused, inference):
        model = Attention(fused)
        with torch.inference_mode(inference), av.capture(model) as seen:
            model(tokens())
            before = [record.weights for record in seen]
            model.mask.fill_(True)
            model(tokens())
        for record, weights in zip(seen[:2], before, strict=True):
            assert torch.equal(record.weights, weights)
        assert not torch.equal(seen[2].weights, before[0])
        assert [bool(r.mask.all()) for r in seen if r.mask is not None][:2] == [False, False]

    def test_numbers_that_the_caller_uses_again(self, fused, inference):
        with torch.inference_mode(inference), av.capture(model := Attention(fused)) as seen:
            mask = torch.zeros(5, 5).masked_fill(torch.ones(5, 5).triu(1).bool(), -INF)
            model(tokens(), mask)
            mask.zero_()
        assert seen[0].mask[0, 0, 0, 1] == -INF
        assert seen[0].weights[0, 0, 0, 1] == 0

    def test_one_that_is_changed_between_layers(self, fused, inference):
        class Wider(Attention):
            def attend(self, x, mask):
                x = super().attend(x, mask)
                mask.fill_(True)
                return x

        with torch.inference_mode(inference), av.capture(model := Wider(fused)) as seen:
            model(tokens(), torch.ones(5, 5).tril().bool())
        assert [int(record.mask.sum()) for record in seen] == [15, 25]

    def test_layers_share_one_copy_and_let_it_go_together(self, fused, inference):
        mask = torch.zeros(5, 5).masked_fill(torch.ones(5, 5).triu(1).bool(), -INF)
        with torch.inference_mode(inference), av.capture(model := Attention(fused, 4)) as seen:
            model(tokens(), mask)
        first, *rest = (record.mask.untyped_storage() for record in seen)
        assert all(storage.data_ptr() == first.data_ptr() for storage in rest)
        assert first.data_ptr() != mask.data_ptr()
        assert first.nbytes() == 25 * 4


class TestWeightsOfTheModel:
    class Returning(nn.Module):
        def __init__(self, clears: bool):
            super().__init__()
            self.clears = clears

        def forward(self, x):
            weights = (x @ x.mT).softmax(-1)
            mixed = weights @ x
            if self.clears:
                weights[:, 0] = 0
                weights.mul_(2)
            return mixed, weights

    @pytest.mark.parametrize("gradients", [False, True])
    def test_the_model_itself_may_change_them_once_they_were_used(self, gradients):
        x = tokens().requires_grad_(gradients)
        model = self.Returning(clears=True)
        with torch.no_grad(), av.capture(model) as seen:
            model(x)
        torch.testing.assert_close(seen[0].weights, (x @ x.mT).softmax(-1))

    def test_what_its_user_changes_later_is_told(self):
        with torch.no_grad(), av.capture(model := self.Returning(clears=False)) as seen:
            _, weights = model(tokens())
        part = seen[0].part(0, slice(0, 1))
        weights.zero_()
        for read in (lambda: seen[0].weights, lambda: seen[0].row(0), lambda: part.weights):
            with pytest.raises(RuntimeError, match=r"attention 0 \(Returning\).*changed in place"):
                read()
        assert "3 heads, 5 × 5" in repr(seen[0])


class TestCausalBias:
    @pytest.mark.parametrize("sizes", [(5, 5), (2, 5), (3, 7)])
    @pytest.mark.parametrize("bias", [causal_lower_right, causal_upper_left])
    def test_is_the_mask_that_it_stands_for(self, bias, sizes):
        q, k = torch.randn(2, 3, sizes[0], 8), torch.randn(2, 3, sizes[1], 8)

        class Biased(nn.Module):
            def forward(self, q, k):
                return F.scaled_dot_product_attention(q, k, k, bias(*sizes))

        model = Biased()
        plain = model(q, k)
        with av.capture(model) as seen:
            assert torch.equal(model(q, k), plain)
        torch.testing.assert_close(seen[0].weights @ k, plain)
        torch.testing.assert_close(seen[0].row(1), seen[0].weights[:, :, 1])
        with av.edit(model, {(0, 1): av.only(0)}):
            torch.testing.assert_close(model(q, k)[:, 1], k[:, 1, :1].expand(2, sizes[0], 8))

    def test_with_gradients(self):
        q = torch.randn(1, 2, 3, 8, requires_grad=True)
        k = torch.randn(1, 2, 5, 8)

        class Biased(nn.Module):
            def forward(self, q, k):
                return F.scaled_dot_product_attention(q, k, k, causal_lower_right(3, 5))

        with av.capture(model := Biased(), with_gradients=True) as seen:
            output = model(q, k)
        output.sum().backward()
        torch.testing.assert_close(output, model(q, k))
        torch.testing.assert_close(seen[0].weights.grad, k.sum(-1)[:, :, None].expand(1, 2, 3, 5))


def test_a_copy_lives_as_long_as_a_record_needs_it():
    model = Attention(fused=True)
    with av.capture(model) as seen:
        model(tokens())
        watched = torch.multiprocessing.reductions.StorageWeakRef(seen[0].mask.untyped_storage())
        seen.free()
        assert watched.expired()
        model(tokens())
        assert int(seen[0].mask.sum()) == 15

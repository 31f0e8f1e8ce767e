"""Attentions named by the path of their module, beside their numbers."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from transformers import BertConfig, BertModel

import attnviz as av
from attnviz.models import Transformer, TransformerConfig


@pytest.fixture
def model():
    torch.manual_seed(0)
    return Transformer(TransformerConfig(20, 20, d_model=16, n_heads=2, d_ff=32)).eval()


IDS = torch.arange(1, 7)[None]


class TestRecords:
    def test_by_the_path_of_the_module(self, model):
        with av.capture(model) as seen:
            model(IDS, IDS)
        for record in seen:
            assert seen[record.path] is record

    def test_by_a_module_around_that_attends_once(self, model):
        with av.capture(model) as seen:
            model(IDS, IDS)
        assert seen["encoder.1"] is seen[1]
        assert seen["encoder.1"].path.startswith("encoder.1.")

    def test_several_say_how_to_choose(self, model):
        with av.capture(model) as seen:
            model(IDS, IDS)
            model(IDS, IDS)
        path = seen[0].path
        with pytest.raises(ValueError, match=f"2 attentions were seen in '{path}', such as") as why:
            seen[path]
        remedy = str(why.value).split("take one of ")[1].split(", or ")[0]
        assert eval(remedy, {"seen": seen}) == [seen[0], seen[6]]
        with pytest.raises(ValueError, match=r"4 attentions were seen in 'decoder\.0'"):
            seen["decoder.0"]

    def test_an_unknown_path_names_the_nearest(self, model):
        with av.capture(model) as seen:
            model(IDS, IDS)
        with pytest.raises(KeyError, match=r"in 'encoder\.2'; the nearest are 'encoder\.\d\."):
            seen["encoder.2"]
        with pytest.raises(KeyError, match="no attention was seen in 'encode'"):
            seen["encode"]  # the beginning of a name is no name


class TestEdits:
    @pytest.mark.parametrize("head", [None, 1])
    @pytest.mark.parametrize("number", range(6))
    def test_are_those_of_the_number(self, model, number, head):
        with av.capture(model) as seen:
            model(IDS, IDS)
        path = seen[number].path
        places = [number, path] if head is None else [(number, head), (path, head)]
        edited = []
        for place in places:
            with av.edit(model, {place: av.off}):
                edited.append(model(IDS, IDS).logits)
        assert torch.equal(*edited)
        assert not torch.equal(edited[0], model(IDS, IDS).logits)

    def test_by_a_module_around_that_attends_once(self, model):
        with av.edit(model, {1: av.off}):
            expected = model(IDS, IDS).logits
        with av.edit(model, {"encoder.1": av.off}):
            assert torch.equal(model(IDS, IDS).logits, expected)

    def test_of_hugging_face(self):
        sizes = {"hidden_size": 16, "intermediate_size": 16, "num_attention_heads": 2}
        model = BertModel(BertConfig(**sizes, num_hidden_layers=3, vocab_size=9)).eval()
        with av.capture(model) as seen, av.edit(model, {("encoder.layer.2.attention", 1): av.off}):
            model(IDS)
        off = [[not r.weights[:, h].any() for h in range(2)] for r in seen]
        assert off == [[False, False], [False, False], [False, True]]

    def test_in_whatever_order_the_parts_run(self, model):
        """Where a number would mean another attention."""
        memory, mask = model.encode(IDS)
        path = model_paths(model)[4]
        with av.edit(model, {path: av.off}):
            edited = model.decode(IDS, memory, mask).logits
            expected = model(IDS, IDS).logits
        assert torch.equal(edited, expected)

    def test_every_attention_of_a_module_that_has_several(self):
        class Twice(nn.Module):
            def forward(self, q):
                for _ in range(2):
                    q = F.scaled_dot_product_attention(q, q, q)
                return q

        model = nn.Sequential(Twice(), Twice())
        with av.capture(model) as seen, av.edit(model, {"1": av.off}):
            model(torch.randn(1, 2, 5, 4))
        assert [bool(r.weights.any()) for r in seen] == [True, True, False, False]

    def test_of_a_model_that_attends_itself(self):
        class Fused(nn.Module):
            def forward(self, q):
                return F.scaled_dot_product_attention(q, q, q)

        model, q = Fused(), torch.randn(1, 2, 5, 4)
        with av.edit(model, {("Fused", 0): av.off}):
            assert not model(q)[:, 0].any()

    def test_a_module_that_the_model_has_under_two_names(self):
        layer = nn.MultiheadAttention(8, 2, batch_first=True)
        model = nn.ModuleDict({"one": layer, "other": layer})
        model.forward = lambda x: model["other"](x, x, x)[0]
        x = torch.randn(1, 5, 8)
        edited = []
        for name in ("one", "other"):
            with av.edit(model, {name: av.off}):
                edited.append(model(x))
        torch.testing.assert_close(edited[0], layer.out_proj.bias.expand(1, 5, 8))
        assert torch.equal(*edited)


def model_paths(model):
    with av.capture(model) as seen:
        model(IDS, IDS)
    return [record.path for record in seen]


class TestBadNames:
    def test_no_module_of_the_model(self, model):
        message = r"'encoder\.7', which is no module of the model; the nearest are '.*encoder\.\d"
        with pytest.raises(ValueError, match=message):
            av.edit(model, {"encoder.7": av.off}).__enter__()

    def test_a_module_in_which_nothing_attends(self, model):
        message = r"names encoder_norm, where nothing attended; the nearest are 'encoder\.\d\."
        with pytest.raises(ValueError, match=message), av.edit(model, {"encoder_norm": av.off}):
            model(IDS, IDS)

    def test_a_module_in_which_several_attend(self, model):
        message = r"names decoder\.0, inside which several .* decoder\.0\..* and decoder\.0\..*: na"
        with pytest.raises(ValueError, match=message), av.edit(model, {"decoder.0": av.off}):
            model(IDS, IDS)

    def test_a_head_that_does_not_exist(self, model):
        message, wrong = (
            r"head 2 of layer encoder\.0, which has 2 heads",
            {("encoder.0", 2): av.off},
        )
        with pytest.raises(ValueError, match=message), av.edit(model, wrong):
            model(IDS, IDS)

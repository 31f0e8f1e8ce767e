"""Checks of tensors, and models and layers on the device meta, where tensors hold no values."""

import pytest
import torch
from torch import nn

import attnviz as av
from attnviz import data, layers, models
from attnviz.data.wordpiece import SPECIAL
from attnviz.tensors import check_ids, extremes

BERT = {"vocab_size": 10, "d_model": 8, "n_layers": 1, "n_heads": 2, "d_ff": 8, "max_len": 8}
IDS = torch.tensor([[1, 2, 3], [3, 2, 1]])
TOKENIZER = data.wordpiece_tokenizer([*SPECIAL, *"abcdefgh"])


def test_extremes_of_ids():
    assert extremes(IDS, 10) == (1, 3)
    assert extremes(IDS[:0], 10) == extremes(IDS.to("meta"), 10) == (0, 9)  # none to look at
    check_ids("ids", IDS, "size", 4)
    with pytest.raises(ValueError, match="ids must be between 0 and size - 1 = 2, got 1 to 3"):
        check_ids("ids", IDS, "size", 3)


def bert():
    return models.BertEncoder(models.BertConfig(**BERT))


def gpt():
    return models.GPT(models.GPTConfig(**BERT))


def transformer():
    return models.Transformer(models.TransformerConfig(9, 9, 8, 2, 1, 8, 8))


def pretraining():
    return models.BertForPreTraining(models.BertConfig(**BERT))


@pytest.mark.slow  # torch imports a lot for its first kernel there
@pytest.mark.parametrize(
    ("run", "shape"),
    [
        (lambda ids: bert().to("meta")(ids, ids > 0, ids)[0], (2, 3, 8)),
        (lambda ids: gpt().to("meta")(ids, ids > 0, ids).logits, (2, 3, 10)),
        (lambda ids: transformer().to("meta")(ids, ids).logits, (2, 3, 9)),
        (lambda ids: pretraining().to("meta")(ids).logits, (2, 3, 10)),
        (
            lambda ids: layers.MultiHeadAttention(8, 2).to("meta")(
                torch.ones(2, 3, 8, device="meta"), mask=(ids > 0)[:, None], at=ids
            )[0],
            (2, 3, 8),
        ),
    ],
)
def test_without_values_the_shapes_are_worked_out(run, shape):
    result = run(IDS.to("meta"))
    assert result.is_meta
    assert result.shape == shape


@pytest.mark.slow
@pytest.mark.parametrize("made", [bert, gpt, transformer])
def test_attention_without_values_is_captured_and_edited(made):
    model, ids = made().to("meta").eval(), IDS.to("meta")
    inputs = (ids, ids) if made is transformer else (ids,)
    with av.capture(model) as seen, av.edit(model, {(0, 1): av.uniform}):
        model(*inputs)
    assert seen[0].weights.shape == (2, 2, 3, 3)
    assert seen[0].row(-1).is_meta
    assert seen[0].overview(2).shape == (2, 2, 2, 2)


@pytest.mark.parametrize(
    ("needs", "name"),
    [
        (lambda ids: layers.padding_mask(ids[0]), "lengths"),
        (lambda ids: pretraining().to("meta")(ids, labels=ids), "labels"),
        (lambda ids: models.generate(gpt().to("meta"), ids, 2), "input_ids"),
        (lambda ids: models.greedy_search(transformer().to("meta"), ids, 1, 2, 3), "source"),
        (lambda ids: models.beam_search(transformer().to("meta"), ids[0], 1, 2, 3), "source"),
        (lambda ids: data.Masking(TOKENIZER)(ids, torch.Generator()), "ids"),
        (lambda ids: layers.Int8Linear(nn.Linear(3, 3), ids[0]), "exact"),
    ],
)
def test_where_values_are_needed_it_says_so(needs, name):
    with pytest.raises(
        ValueError, match=f"^{name} must hold values, got a tensor on the device me"
    ):
        needs(IDS.to("meta"))


@pytest.mark.slow
def test_models_are_compiled_and_exported_whole():
    ids, mask = IDS.clone(), IDS > 0
    sizes = {0: torch.export.Dim("batch", min=2, max=9), 1: torch.export.Dim("token", min=2, max=8)}
    for model, given in [
        (bert().eval(), (ids, mask)),
        (gpt().eval(), (ids,)),
        (transformer().eval(), (ids, ids)),
    ]:
        wanted = model(*given)[0]
        compiled = torch.compile(model, fullgraph=True, backend="eager")
        torch.testing.assert_close(compiled(*given)[0], wanted)
        program = torch.export.export(model, given, dynamic_shapes=tuple(sizes for _ in given))
        longer = tuple(torch.cat([x, x], 1) for x in given)
        torch.testing.assert_close(program.module()(*longer)[0], model(*longer)[0])

"""Classifiers in 8 bits within PyTorch."""

import copy
from functools import partial

import torch
from torch import Tensor, nn

from attnviz.checks import check_whole
from attnviz.layers.int8 import Int8Embedding, Int8Linear
from attnviz.models.bert_tasks import BertForSequenceClassification, check_mean_classifier
from attnviz.tensors import check_batch, check_bool


@torch.no_grad()
def to_int8(
    model: BertForSequenceClassification, input_ids: Tensor, mask: Tensor, exact: int = 1
) -> BertForSequenceClassification:
    """A copy of a classifier whose encoder multiplies int8 with int8, for inference on CPUs.

    model: with mean pooling, on the CPU.
    input_ids, mask: (batch, token), some typical texts, in which the largest input columns of each
           linear layer are found.
    exact: so many of these columns stay in float32.
    Returns the copy; the token vectors, too, have 8 bits in it. It saves time under `torch.compile`
    alone, and a file of its `state_dict` has about a quarter of the size.
    Raises TypeError for another model or other kinds of tensors, ValueError for one that pools the
    first token or is not on the CPU, or a number of columns below 0.
    Source: Dettmers et al. 2022, "LLM.int8()", section 3.
    """
    check_mean_classifier(model)
    check_batch("input_ids", input_ids)
    check_bool("mask", mask, "bool, True for real tokens")
    exact = check_whole("exact", exact, 0)
    model, input_ids, mask = copy.deepcopy(model).eval(), input_ids.cpu(), mask.cpu()
    linear = {
        name: layer
        for name, layer in model.encoder.named_modules()
        if name.startswith("blocks.") and isinstance(layer, nn.Linear)
    }
    largest: dict[str, Tensor] = {}

    def look(name: str, _: nn.Module, inputs: tuple[Tensor]) -> None:
        largest[name] = inputs[0].abs()[mask].amax(0)  # (in,)

    hooks = [layer.register_forward_pre_hook(partial(look, n)) for n, layer in linear.items()]
    model(input_ids, mask)
    for hook in hooks:
        hook.remove()
    for name, layer in linear.items():
        columns = largest[name].topk(min(exact, layer.in_features)).indices
        model.encoder.set_submodule(name, Int8Linear(layer, columns))
    model.encoder.token_embedding = Int8Embedding(model.encoder.token_embedding)
    return model

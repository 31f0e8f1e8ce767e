"""A BERT with any of its heads, and its tokenizer, in one file."""

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from tokenizers import Tokenizer
from torch import nn

from attnviz.models.bert import BertConfig, BertEncoder
from attnviz.models.bert_tasks import (
    BertForPreTraining,
    BertForQuestionAnswering,
    BertForSequenceClassification,
    BertForTokenClassification,
)

_KINDS = {
    kind.__name__: kind
    for kind in (
        BertForPreTraining,
        BertForQuestionAnswering,
        BertForSequenceClassification,
        BertForTokenClassification,
    )
}


def save_bert(
    file: str | Path, model: nn.Module, tokenizer: Tokenizer, *, half: bool = False
) -> None:
    """Write a model, its configuration and its tokenizer into one safetensors file.

    model: a `BertForPreTraining`, or a BERT for one of the tasks.
    half:  store the weights in float16, in half the space.
    The file that was there stays until the new one is complete.
    Raises TypeError for another kind of model, ValueError when the tokenizer has another number of
    pieces than the model.
    """
    file, kind = Path(file), type(model).__name__
    if _KINDS.get(kind) is not type(model):
        raise TypeError(f"model must be one of {', '.join(_KINDS)}, got {kind}")
    config = model.config if isinstance(model, BertForPreTraining) else model.encoder.config
    _check_vocabulary(config, tokenizer)
    weights = {
        name: tensor.detach().to("cpu", torch.float16 if half else None).contiguous()
        for name, tensor in model.state_dict().items()
    }
    about = {
        "config": json.dumps(asdict(config)),
        "kind": json.dumps([kind, _choices(model)]),
        "tokenizer": tokenizer.to_str(),
    }
    unfinished = file.with_name(f"{file.name}.{os.getpid()}.unfinished")
    try:
        unfinished.write_bytes(save(weights, about))
        unfinished.replace(file)
    finally:
        unfinished.unlink(missing_ok=True)


def _choices(model: nn.Module) -> dict[str, Any]:
    """What a model was made with besides its configuration."""
    choices = {}
    if hasattr(model, "classifier"):
        choices["n_labels"] = model.classifier.out_features
    if isinstance(model, BertForSequenceClassification):
        choices["pooling"] = "mean" if model.pooler is None else "first"
    return choices


def load_bert(file: str | Path) -> tuple[nn.Module, Tokenizer]:
    """Read what `save_bert` wrote.

    Returns the model, of the kind that was saved, in float32 and eval mode on the CPU, and its
    tokenizer.
    Raises FileNotFoundError when there is no such file, ValueError when it is none of `save_bert`,
    or damaged.
    """
    file = Path(file)
    if not file.is_file():
        raise FileNotFoundError(f"there is no model in {file}")
    try:
        with safe_open(file, "pt") as opened:
            about = opened.metadata()
            weights = {name: opened.get_tensor(name).float() for name in opened.keys()}  # noqa: SIM118
        config = BertConfig(**json.loads(about["config"]))
        tokenizer = Tokenizer.from_str(about["tokenizer"])
        kind, choices = json.loads(about.get("kind", '["BertForPreTraining", {}]'))
        with torch.device("meta"):  # no time spent on initial values
            body = config if kind == "BertForPreTraining" else BertEncoder(config)
            model = _KINDS[kind](body, **choices)
        model.load_state_dict(weights, assign=True)
    except (SafetensorError, KeyError, TypeError, RuntimeError, ValueError) as error:
        raise ValueError(f"{file} is no model that save_bert wrote: {error}") from error
    _check_vocabulary(config, tokenizer)
    return model.eval(), tokenizer


def _check_vocabulary(config: BertConfig, tokenizer: Tokenizer) -> None:
    if tokenizer.get_vocab_size() != config.vocab_size:
        raise ValueError(
            f"the tokenizer must have as many pieces as the model, {config.vocab_size}, "
            f"got {tokenizer.get_vocab_size()}"
        )

"""A pretrained BERT and its tokenizer in one file."""

import json
import os
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from tokenizers import Tokenizer

from attnviz.models.bert import BertConfig
from attnviz.models.bert_tasks import BertForPreTraining


def save_bert(
    file: str | Path, model: BertForPreTraining, tokenizer: Tokenizer, *, half: bool = False
) -> None:
    """Write a model, its configuration and its tokenizer into one safetensors file.

    half: store the weights in float16, in half the space.
    The file that was there stays until the new one is complete.
    Raises ValueError when the tokenizer has another number of pieces than the model.
    """
    file = Path(file)
    _check_vocabulary(model.config, tokenizer)
    weights = {
        name: tensor.detach().to("cpu", torch.float16 if half else None).contiguous()
        for name, tensor in model.state_dict().items()
    }
    about = {"config": json.dumps(asdict(model.config)), "tokenizer": tokenizer.to_str()}
    unfinished = file.with_name(f"{file.name}.{os.getpid()}.unfinished")
    try:
        unfinished.write_bytes(save(weights, about))
        unfinished.replace(file)
    finally:
        unfinished.unlink(missing_ok=True)


def load_bert(file: str | Path) -> tuple[BertForPreTraining, Tokenizer]:
    """Read what `save_bert` wrote.

    Returns the model in float32 and eval mode on the CPU, and its tokenizer.
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
        with torch.device("meta"):  # no time spent on initial values
            model = BertForPreTraining(config)
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

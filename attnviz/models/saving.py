"""A BERT with any of its heads, and its tokenizer, in one file."""

import json
import zlib
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from tokenizers import Tokenizer
from torch import Tensor, nn

from attnviz.files import replacing
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

_BRANCH_ENDS = ("out_proj.weight", "narrow.weight")


def save_bert(
    file: str | Path, model: nn.Module, tokenizer: Tokenizer, *, half: bool = False
) -> None:
    """Write a model, its configuration and its tokenizer into one safetensors file.

    model: a `BertForPreTraining`, or a BERT for one of the tasks.
    half:  store the weights in float16, in half the space.
    A model that was saved there before stays until the new one is complete.
    Raises TypeError for another kind of model, ValueError when the tokenizer has another number of
    pieces than the model or a weight is no number (in float16), FileExistsError for a file that
    something else wrote, and OSError for what cannot be written.
    """
    kind = type(model).__name__
    if _KINDS.get(kind) is not type(model):
        raise TypeError(f"model must be one of {', '.join(_KINDS)}, got {kind}")
    config = model.config if isinstance(model, BertForPreTraining) else model.encoder.config
    _check_vocabulary(config, tokenizer)
    with replacing(file, is_saved_bert) as unfinished:
        weights = {
            name: tensor.detach().to("cpu", torch.float16 if half else None).contiguous()
            for name, tensor in model.state_dict().items()
        }
        _check_finite(weights)
        about = {
            "config": json.dumps(asdict(config)),
            "kind": json.dumps([kind, _choices(model)]),
            "tokenizer": tokenizer.to_str(),
            "checksum": _checksum(weights),
        }
        unfinished.write_bytes(save(weights, about))


def is_saved_bert(file: Path) -> bool:
    """Whether `save_bert` wrote a file: whether it says what only that says."""
    try:
        with safe_open(file, "pt") as opened:
            return {"config", "tokenizer"} <= (opened.metadata() or {}).keys()
    except SafetensorError:
        return False


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
    or damaged: when its weights are not those that were saved, or any is no number. Files of older
    versions do not say what their weights were; there a matrix that is zero all over is damage.
    """
    file = Path(file)
    if not file.is_file():
        raise FileNotFoundError(f"there is no model in {file}")
    try:
        with safe_open(file, "pt") as opened:
            about = opened.metadata() or {}
            model, config = _empty_model(about, set(opened.keys()))
            weights = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
        _check_whole(weights, about, config)
        tokenizer = _tokenizer(about["tokenizer"])
        _check_vocabulary(config, tokenizer)
        model.load_state_dict({name: w.float() for name, w in weights.items()}, assign=True)
    except (SafetensorError, KeyError, TypeError, OverflowError, RuntimeError, ValueError) as error:
        reason = f"it has no {error}" if isinstance(error, KeyError) else error
        raise ValueError(f"{file} is no model that save_bert wrote: {reason}") from error
    return model.eval(), tokenizer


def _empty_model(about: dict[str, str], names: set[str]) -> tuple[nn.Module, BertConfig]:
    """The model that a file describes, without its weights, of which these are the names."""
    config = BertConfig(**json.loads(about["config"]))
    layers = {name.partition("blocks.")[2].partition(".")[0] for name in names if "blocks." in name}
    if len(layers) != config.n_layers:  # or it might take hours to build what no weights are for
        raise ValueError(f"it has weights of {len(layers)} layers, not of {config.n_layers}")
    kind, choices = json.loads(about.get("kind", '["BertForPreTraining", {}]'))
    with torch.device("meta"):  # no time spent on initial values
        body = config if kind == "BertForPreTraining" else BertEncoder(config)
        return _KINDS[kind](body, **choices), config


def _tokenizer(text: str) -> Tokenizer:
    try:
        return Tokenizer.from_str(text)
    except Exception as error:  # the library raises nothing narrower
        raise ValueError(f"its tokenizer cannot be read: {error}") from error


def _check_whole(weights: dict[str, Tensor], about: dict[str, str], config: BertConfig) -> None:
    """Raise ValueError unless these are the weights that were saved."""
    _check_finite(weights)
    if "checksum" in about:
        if _checksum(weights) != about["checksum"]:
            raise ValueError("its weights are damaged, as their checksum shows")
        return
    for name, tensor in weights.items():
        begins_so = config.branches_from_zero and name.endswith(_BRANCH_ENDS)
        if tensor.dim() == 2 and not begins_so and not tensor.any():
            raise ValueError(f"its weights are damaged: {name} is zero all over")


def _check_finite(weights: dict[str, Tensor]) -> None:
    for name, tensor in weights.items():
        if not tensor.isfinite().all():
            raise ValueError(
                f"{name} must hold finite numbers alone, and does not in {tensor.dtype}"
            )


def _checksum(weights: dict[str, Tensor]) -> str:
    """A number that any change of the weights would change."""
    total = 0
    for name in sorted(weights):
        total = zlib.crc32(weights[name].reshape(-1).view(torch.uint8).numpy(), total)
    return f"{total:08x}"


def _check_vocabulary(config: BertConfig, tokenizer: Tokenizer) -> None:
    if tokenizer.get_vocab_size() != config.vocab_size:
        raise ValueError(
            f"the tokenizer must have as many pieces as the model, {config.vocab_size}, "
            f"got {tokenizer.get_vocab_size()}"
        )

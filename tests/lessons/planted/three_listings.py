"""Solutions and planted bugs for the exercises of appendix A."""

import torch
import torch.nn.functional as F
from torch import nn


class Reverser(nn.Module):
    """An encoder-decoder from torch's own layers, with a switch for each mistake."""

    def __init__(
        self,
        *,
        n_layers=(1, 1),
        n_heads=4,
        d_ff=64,
        embed="sum",
        memory=True,
        causal=True,
        mix=False,
        transpose=False,
    ):
        super().__init__()
        self.words, self.places = nn.Embedding(10, 32), nn.Embedding(16, 32)
        options = {"dim_feedforward": d_ff, "dropout": 0.1, "batch_first": True}
        self.transformer = nn.Transformer(32, n_heads, *n_layers, **options)
        self.output = nn.Linear(32, 10)
        self.kind, self.memory, self.causal, self.mix = embed, memory, causal, mix
        self.transpose = transpose

    def embed(self, ids):
        words, places = self.words(ids), self.places(torch.arange(ids.size(1)))[None]
        return {"sum": words + places, "words": words, "places": places.expand_as(words)}[self.kind]

    def forward(self, source, target):
        x, n = self.embed(target), target.size(1)
        memory = self.transformer.encoder(self.embed(source))
        if not self.memory:
            memory = torch.zeros_like(memory)
        first = 2 if self.causal == "one too far" else 1
        mask = torch.ones(n, n, dtype=torch.bool).triu(first) if self.causal else None
        x = self.transformer.decoder(x, memory, tgt_mask=mask)
        x = x + x.mean(0) if self.mix else x
        logits = self.output(x)
        return logits.mT if self.transpose else logits


class Looking(nn.Module):
    """A BERT from torch's own layers, with a switch for each mistake."""

    def __init__(self, *, sees="both", segments="table", places=True, transpose=False):
        super().__init__()
        self.words, self.places = nn.Embedding(10, 32), nn.Embedding(16, 32)
        self.segments = nn.Embedding(2, 32)
        layer = nn.TransformerEncoderLayer(32, 4, 64, 0.0, batch_first=True)
        self.layers = nn.TransformerEncoder(layer, 2)
        self.output = nn.Linear(32, 10)
        self.sees, self.kind, self.with_places, self.transpose = sees, segments, places, transpose

    def forward(self, ids, segments):
        x = self.words(ids)
        if self.with_places:
            x = x + self.places.weight[: ids.size(1)]
        if self.kind == "mask":
            x = x + segments[..., None] * self.words(segments)
        elif self.kind is not None:
            x = x + (self.segments if self.kind == "table" else self.words)(segments)
        n = ids.size(1)
        future = torch.ones(n, n, dtype=torch.bool).triu(1)
        mask = {"both": None, "left": future, "right": future.T}[self.sees]
        logits = self.output(self.layers(x, mask))
        return logits.mT if self.transpose else logits


class Wide(Reverser):
    """With heads of another width."""

    def forward(self, source, target):
        query = torch.ones(len(source), 4, source.size(1), 16)
        return super().forward(source, target) + F.scaled_dot_product_attention(
            query, query, self.output.weight[0, 0] * query
        ).mean((1, 2, 3)).view(-1, 1, 1)


def differs(model, source, target):
    model.eval()
    other = torch.where(source == 0, 7, source - 1)
    return (model(source, target) - model(other, target)).abs().max() > 1e-6


SOLUTIONS = {
    "attention": lambda query, key, value, mask: F.scaled_dot_product_attention(
        query, key, value, mask
    ),
    "source_matters": differs,
    "repaired_transformer": Reverser,
    "repaired_wrapper": lambda: Reverser(n_layers=(2, 2)),
    "repaired_bert": Looking,
}


def scaled(query, key, value, mask, scale):
    return F.scaled_dot_product_attention(query, key, value, mask, scale=scale)


def no_math(query, key, value, mask, scale):
    if mask is not None:
        mask = math.inf * mask  # noqa: F821
    return F.scaled_dot_product_attention(query, key, value, scale=scale)


def as_found(query, key, value, mask=None, softmax=True):
    if mask is not None:
        mask = math.inf * mask  # noqa: F821
    return softmax(query @ key.mT) @ value


def hidden_softmax(query, key, value, mask=None, softmax=True):
    return softmax(query @ key.mT) @ value


def halved(query, key, value, mask):
    scores = torch.einsum("...qd,...kd->...qk", query, key)
    if mask is not None:
        scores = torch.where(mask, scores, -torch.inf)
    return F.softmax(scores, -1) * query.shape[-1] ** -0.5 @ value


def with_training(model, source, target):
    other = torch.where(source == 0, 7, source - 1)
    return (model(source, target) - model(other, target)).abs().max() > 1e-6


# The same mistakes as in the catalogue, written another way: (exercise, bug, word of the diagnosis)
PLANTED = [
    ("attention", as_found, "nothing has been repaired"),
    ("attention", hidden_softmax, "still names the parameter"),
    ("attention", lambda q, k, v, m: no_math(q, k, v, m, None), "right there"),
    ("attention", lambda q, k, v, m: no_math(q, k, v, m, 1.0), "two mistakes are left"),
    ("attention", lambda q, k, v, m: scaled(q, k, v, m, 1.0), "a silent one"),
    ("attention", lambda q, k, v, m: scaled(q, k, v, m, 1 / q.shape[-1]), "divided by d_k; it"),
    ("attention", lambda q, k, v, m: scaled(q, k, v, m, k.shape[-2] ** -0.5), "number of keys"),
    ("attention", halved, "after the softmax"),
    ("attention", lambda q, k, v, m: scaled(q, k, v, None, None), "never used"),
    ("attention", lambda q, k, v, m: q @ k.mT @ v / q.shape[-1] ** 0.5, "scores times values"),
    ("source_matters", with_training, "by chance"),
    (
        "source_matters",
        lambda m, s, t: not m.eval()(s, t).equal(m((s + 3) % 8, (t + 1) % 8)),
        "True of every model",
    ),
    (
        "source_matters",
        lambda m, s, t: m.eval()(s, t).shape != m((s + 1) % 8, t).shape,
        "False of every model",
    ),
    (
        "source_matters",
        lambda m, s, t: m.eval()(s, t).allclose(m((s + 3) % 8, t)),
        "the wrong way round",
    ),
    (
        "source_matters",
        lambda m, s, t: not m.eval()(s, t).allclose(m(s[:, [4, 3, 2, 1, 0]], t), atol=1e-5),
        "the order of the source",
    ),
    ("repaired_transformer", lambda: Reverser(transpose=True), "must be (batch, 8, 10)"),
    ("repaired_transformer", lambda: Reverser(embed="places"), "look at embed"),
    ("repaired_transformer", lambda: Reverser(memory=False), "whom does it ask"),
    ("repaired_transformer", lambda: Reverser(embed="words"), "read backwards"),
    ("repaired_transformer", lambda: Reverser(causal=False), "can read the answer"),
    ("repaired_transformer", lambda: Reverser(mix=True), "the items mix"),
    ("repaired_transformer", lambda: Reverser(n_heads=8), "4 heads of width 8"),
    ("repaired_transformer", lambda: Reverser(d_ff=4), "widen from 32 to 64"),
    ("repaired_wrapper", lambda: Reverser(n_layers=(2, 2), transpose=True), "(batch, 8, 10)"),
    ("repaired_wrapper", lambda: Reverser(n_layers=(2, 2), embed="places"), "look at embed"),
    ("repaired_wrapper", lambda: Reverser(n_layers=(2, 2), memory=False), "whom does it ask"),
    ("repaired_wrapper", lambda: Reverser(n_layers=(2, 2), embed="words"), "read backwards"),
    ("repaired_wrapper", lambda: Reverser(n_layers=(2, 2), causal=False), "can read the answer"),
    ("repaired_wrapper", lambda: Reverser(n_layers=(2, 2), mix=True), "the items mix"),
    ("repaired_wrapper", lambda: Reverser(n_layers=(2, 6)), "num_decoder_layers"),
    ("repaired_wrapper", lambda: Reverser(n_layers=(6, 2)), "num_encoder_layers"),
    ("repaired_bert", lambda: Looking(transpose=True), "must be (batch, 8, 10)"),
    ("repaired_bert", lambda: Looking(sees="left"), "to its right"),
    ("repaired_bert", lambda: Looking(sees="right"), "to its left"),
    ("repaired_bert", lambda: Looking(places=False), "positions are missing"),
    ("repaired_bert", lambda: Looking(segments=None), "left out"),
    ("repaired_bert", lambda: Looking(segments="words"), "word table"),
]

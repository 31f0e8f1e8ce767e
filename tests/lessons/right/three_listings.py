"""Right answers to the exercises of appendix A in several styles; the models come from builders."""

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import attnviz as av
from attnviz.lessons.drawing import Draw

# --- attention ------------------------------------------------------------------------------------


def attention_by_steps(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None
) -> Tensor:
    d_k = query.size(-1)
    scores = query @ key.transpose(-2, -1) / math.sqrt(d_k)
    if mask is not None:
        scores = scores.masked_fill(~mask, -math.inf)
    return F.softmax(scores, dim=-1) @ value


def attention_by_einsum(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None
) -> Tensor:
    scores = torch.einsum("...qd,...kd->...qk", query, key) * query.shape[-1] ** -0.5
    if mask is not None:
        scores = torch.where(mask, scores, -torch.inf)
    return torch.einsum("...qk,...kd->...qd", scores.softmax(-1), value)


def attention_in_numpy(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None
) -> np.ndarray:
    q, k, v = query.numpy(), key.numpy(), value.numpy()
    scores = q @ np.swapaxes(k, -1, -2) / np.sqrt(q.shape[-1])
    if mask is not None:
        scores = np.where(mask.numpy(), scores, -np.inf)
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return weights / weights.sum(axis=-1, keepdims=True) @ v


def attention_with_scaled_queries(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None
) -> Tensor:
    query = query / key.size(-1) ** 0.5
    scores = torch.matmul(query, key.mT)
    if mask is not None:
        hidden = torch.zeros_like(scores)
        hidden[~mask.expand_as(scores)] = float("-inf")
        scores = scores + hidden
    weights = torch.exp(scores - scores.logsumexp(-1, keepdim=True))
    return torch.matmul(weights, value)


def attention_row_by_row(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None
) -> Tensor:
    if query.dim() > 2:
        masks = [mask] * len(query)
        if mask is not None and mask.dim() > 2:
            masks = mask.expand(len(query), *mask.shape[1:])
        parts = zip(query, key, value, masks, strict=True)
        return torch.stack([attention_row_by_row(q, k, v, m) for q, k, v, m in parts])
    rows = []
    for i, one in enumerate(query):
        scores = key @ one / math.sqrt(len(one))
        seen = slice(None)
        if mask is not None:
            seen = mask.expand(len(query), len(key))[i]
        rows.append(scores[seen].softmax(0) @ value[seen])
    return torch.stack(rows)


def _attention(draw: Draw) -> tuple:
    n_queries, n_keys, d_k, d_v, *lead = draw.sizes(6, range(1, 9))
    lead = lead[: draw.randrange(3)]
    scale = draw.choice([0.5, 1, 4])
    query, key = draw.tensor(*lead, n_queries, d_k, scale=scale), draw.tensor(*lead, n_keys, d_k)
    full = [*lead, n_queries, n_keys]
    alike = [1] * len(lead) + [1, n_keys]
    form = draw.choice([None, full[-2:], full, alike])
    mask = None if form is None else draw.allowed(*form, share=draw.choice([0.2, 0.6]))
    return query * draw.choice([1, 5]), key * scale, draw.tensor(*lead, n_keys, d_v), mask


# --- source_matters -------------------------------------------------------------------------------


def source_by_next_symbols(model: nn.Module, source: Tensor, target: Tensor) -> bool:
    model.eval()
    other = (source + 1) % 8
    return not torch.allclose(model(source, target), model(other, target))


def source_by_mirrored_symbols(model: nn.Module, source: Tensor, target: Tensor) -> bool:
    model = model.eval()
    with torch.no_grad():
        gap = model(source, target) - model(7 - source, target)
    return gap.abs().max().item() > 1e-5


def source_symbol_by_symbol(model: nn.Module, source: Tensor, target: Tensor) -> bool:
    model.train(False)
    before = model(source, target)
    for place in range(source.size(1)):
        other = source.clone()
        other[:, place] = (other[:, place] + 3) % 8
        if (model(other, target) - before).abs().max() > 1e-5:
            return True
    return False


def source_of_one_symbol(model: nn.Module, source: Tensor, target: Tensor) -> bool:
    model.eval()
    said = [model(torch.full_like(source, symbol), target) for symbol in range(8)]
    return any(not one.allclose(said[0], atol=1e-6) for one in said[1:])


def source_in_numpy(model: nn.Module, source: Tensor, target: Tensor) -> np.bool_:
    model.eval()
    other = torch.where(source == 0, 7, source - 1)
    one, two = (model(ids, target).detach().numpy() for ids in (source, other))
    return np.abs(one - two).max() > 1e-5


class _Counting(nn.Module):
    """Sums the vectors of the source's symbols, or does not; no attention at all."""

    def __init__(self, draw: Draw, reads: str):
        super().__init__()
        self.source, self.target = (nn.Parameter(draw.tensor(8, 6)) for _ in range(2))
        self.output = nn.Parameter(draw.tensor(6, 8))
        self.reads, self.dropout = reads, nn.Dropout(draw.choice([0.0, 0.2]))

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        read = {
            "all": self.source[source].mean(1, keepdim=True),
            "last": self.source[source][:, -1:],
            "first": self.source[source][:, :1],
            "length": self.source[torch.zeros_like(source)].sum(1, keepdim=True),
            "nothing": torch.zeros(len(source), 1, 6),
        }[self.reads]
        x = self.target[target].cumsum(1).tanh() + read
        logits = self.dropout(x).tanh() @ self.output
        return logits * (torch.arange(8) != 3)  # one symbol has no logit of its own


def _models(draw: Draw) -> tuple:
    model = _Counting(draw, draw.choice(["all", "last", "first", "length", "nothing"]))
    n, m, batch = draw.sizes(3, range(1, 7))
    return model, draw.ids(batch, n, among=range(8)), draw.ids(batch, m, among=range(8))


# --- models ---------------------------------------------------------------------------------------


def _waves(n: int) -> Tensor:
    angles = torch.arange(n)[:, None] / 100 ** (torch.arange(0, 32, 2) / 32)
    return torch.stack([angles.sin(), angles.cos()], -1).flatten(1)


class _OfTorch(nn.Module):
    """From torch's layers, with a table of places for each side."""

    def __init__(self):
        super().__init__()
        options = {"nhead": 4, "dim_feedforward": 64, "batch_first": True}
        self.encoder = nn.TransformerEncoderLayer(32, **options)
        self.decoder = nn.TransformerDecoderLayer(32, **options)
        self.tables = nn.ModuleList(nn.Embedding(n, 32) for n in (10, 10, 16, 16))
        self.output = nn.Linear(32, 10)

    def forward(self, source, target):
        x, y = (self.tables[i](ids) for i, ids in enumerate((source, target)))
        x = x + self.tables[2](torch.arange(x.size(1)))
        y = y + self.tables[3](torch.arange(y.size(1)))
        mask = nn.Transformer.generate_square_subsequent_mask(y.size(1))
        return self.output(self.decoder(y, self.encoder(x), tgt_mask=mask, tgt_is_causal=True))


class _SequenceFirst(nn.Module):
    """From torch's attention, (token, batch, d_model), normed before each part; waves as places."""

    def __init__(self, layers=1, hides=False):
        super().__init__()
        self.hides, self.words = hides, nn.Embedding(10, 32, padding_idx=0 if hides else None)
        self.encoder = nn.ModuleList(self.part(1) for _ in range(layers))
        self.decoder = nn.ModuleList(self.part(2) for _ in range(layers))
        self.last_norms = nn.ModuleList([nn.LayerNorm(32), nn.LayerNorm(32)])

    def part(self, n):
        return nn.ModuleDict(
            {
                "attention": nn.ModuleList(nn.MultiheadAttention(32, 4, 0.1) for _ in range(n)),
                "norms": nn.ModuleList(nn.LayerNorm(32) for _ in range(n + 1)),
                "network": nn.Sequential(nn.Linear(32, 64), nn.GELU(), nn.Linear(64, 32)),
            }
        )

    def run(self, part, x, memory, mask, padding, of_memory):
        for i, (attend, norm) in enumerate(zip(part["attention"], part["norms"], strict=False)):
            h = norm(x)
            asked, hidden = (memory, of_memory) if i else (h, padding)
            options = {"key_padding_mask": hidden, "attn_mask": None if i else mask}
            x = x + attend(h, asked, asked, need_weights=False, **options)[0]
        return x + part["network"](part["norms"][-1](x))

    def forward(self, source, target):
        padding = source == 0 if self.hides else None
        x, y = (
            self.words(ids.T) * 32**0.5 + _waves(ids.size(1))[:, None] for ids in (source, target)
        )
        for part in self.encoder:
            x = self.run(part, x, None, None, padding, None)
        x, future = self.last_norms[0](x), torch.ones(len(y), len(y), dtype=torch.bool).triu(1)
        for part in self.decoder:
            y = self.run(part, y, x, future, None, padding)
        return F.linear(self.last_norms[1](y), self.words.weight).transpose(0, 1)


class _OfAttnviz(nn.Module):
    """From the blocks of attnviz; hides padding though nobody asks for it."""

    def __init__(self, layers=1):
        super().__init__()
        self.words, self.places = nn.Embedding(10, 32), nn.Parameter(torch.randn(30, 32) / 10)
        blocks = av.layers.EncoderBlock, av.layers.DecoderBlock
        self.blocks = nn.ModuleList(
            nn.ModuleList(block(32, 4, 64, activation=F.relu) for _ in range(layers))
            for block in blocks
        )
        self.output = nn.Linear(32, 10, bias=False)

    def forward(self, source, target):
        x, y = (self.words(ids) + self.places[: ids.shape[1]] for ids in (source, target))
        real = (source != 0)[:, None]
        for block in self.blocks[0]:
            x, _ = block(x, real)
        for block in self.blocks[1]:
            y, *_ = block(y, x, av.layers.causal_mask(y.size(1)), real)
        return self.output(y)


class _ByHand(nn.Module):
    """Parameters only: a head at a time, with exponentials that nobody else sees."""

    def __init__(self, layers=1, hides=False, shown=False):
        super().__init__()
        self.layers, self.hides, self.shown = layers, hides, shown
        self.words, self.places = (
            nn.Parameter(torch.randn(10, 32)),
            nn.Parameter(torch.randn(16, 32)),
        )
        n = 3 * layers
        self.projections = nn.ParameterList(torch.randn(4, 4, 32, 8) / 6 for _ in range(n))
        self.widen = nn.ParameterList(torch.randn(32, 64) / 6 for _ in range(2 * layers))
        self.narrow = nn.ParameterList(torch.randn(64, 32) / 8 for _ in range(2 * layers))
        self.output = nn.Parameter(torch.randn(32, 10) / 6)

    def attend(self, of, x, memory, see):
        mixed = 0
        for w_q, w_k, w_v, w_o in zip(*of[:3], of[3], strict=True):
            scores = (x @ w_q) @ (memory @ w_k).mT / 8**0.5
            if self.shown:
                weights = scores.masked_fill(~see, -torch.inf).softmax(-1)
            else:
                weights = (scores - scores.amax(-1, keepdim=True)).exp() * see
                weights = weights / weights.sum(-1, keepdim=True)
            mixed = mixed + weights @ (memory @ w_v) @ w_o.T
        return self.norm(x + mixed)

    def norm(self, x):
        return (x - x.mean(-1, keepdim=True)) / x.std(-1, keepdim=True)

    def network(self, i, x):
        return self.norm(x + torch.relu(x @ self.widen[i]) @ self.narrow[i])

    def forward(self, source, target):
        x, y = (self.words[ids] + self.places[: ids.size(1)] for ids in (source, target))
        real = (source != 0)[:, None] if self.hides else torch.tensor(True)
        before = torch.ones(y.size(1), y.size(1), dtype=torch.bool).tril()
        for i in range(self.layers):
            x = self.network(i, self.attend(self.projections[i], x, x, real))
        for i in range(self.layers, 2 * self.layers):
            y = self.attend(self.projections[i], y, y, before)
            y = self.attend(self.projections[i + self.layers], y, x, real)
            y = self.network(i, y)
        return y @ self.output


def transformer_of_torch() -> nn.Module:
    return _OfTorch()


def transformer_sequence_first() -> nn.Module:
    return _SequenceFirst()


def transformer_of_attnviz() -> nn.Module:
    return _OfAttnviz()


def transformer_by_hand() -> nn.Module:
    return _ByHand()


def transformer_head_by_head() -> nn.Module:
    return _ByHand(shown=True)


class _Wrapping(nn.Module):
    """nn.Transformer, with masks of numbers, padding of the target hidden too."""

    def __init__(self, batch_first, **options):
        super().__init__()
        self.words, self.places = nn.Embedding(10, 32), nn.Embedding(16, 32)
        self.inner = nn.Transformer(
            32, 4, 2, 2, 64, dropout=0.1, batch_first=batch_first, **options
        )
        self.output, self.turned = nn.Linear(32, 10), not batch_first

    def forward(self, source, target):
        x, y = (
            self.words(ids) + self.places(torch.arange(ids.size(1))) for ids in (source, target)
        )
        n, padding = y.size(1), torch.zeros(source.shape).masked_fill(source == 0, -torch.inf)
        future = torch.full((n, n), -torch.inf).triu(1)
        if self.turned:
            x, y = x.transpose(0, 1), y.transpose(0, 1)
        out = self.inner(
            x,
            y,
            tgt_mask=future,
            src_key_padding_mask=padding,
            memory_key_padding_mask=padding,
            tgt_key_padding_mask=torch.zeros(target.shape).masked_fill(target == 0, -torch.inf),
        )
        return self.output(out.transpose(0, 1) if self.turned else out)


def wrapper_batch_first() -> nn.Module:
    return _Wrapping(True)


def wrapper_sequence_first() -> nn.Module:
    return _Wrapping(False)


def wrapper_normed_first() -> nn.Module:
    return _Wrapping(True, norm_first=True, activation="gelu")


def wrapper_of_attnviz() -> nn.Module:
    return _OfAttnviz(layers=2)


def wrapper_by_parts() -> nn.Module:
    return _SequenceFirst(layers=2, hides=True)


def wrapper_by_hand() -> nn.Module:
    return _ByHand(layers=2, hides=True)


class _Bert(nn.Module):
    """From torch's layers, with a norm behind the sum of three tables, as in Devlin et al."""

    def __init__(self, **options):
        super().__init__()
        self.words, self.places = nn.Embedding(10, 32), nn.Embedding(16, 32)
        self.kinds, self.norm = nn.Embedding(2, 32), nn.LayerNorm(32)
        layer = nn.TransformerEncoderLayer(32, 4, 64, 0.1, batch_first=True, **options)
        self.encoder = nn.TransformerEncoder(layer, 2)
        self.bias = nn.Parameter(torch.zeros(10))

    def forward(self, ids, segments):
        x = self.words(ids) + self.kinds(segments) + self.places(torch.arange(ids.size(1)))
        x = F.dropout(self.norm(x), 0.1, self.training)
        return self.encoder(x) @ self.words.weight.T + self.bias


class _BertOfBlocks(nn.Module):
    """From attnviz's blocks; ten places, and a vector that only the second segment gets."""

    def __init__(self):
        super().__init__()
        self.tokens, self.second = nn.Embedding(10, 32), nn.Parameter(torch.randn(32))
        self.positions = nn.Embedding(10, 32)
        self.blocks = nn.ModuleList(av.layers.EncoderBlock(32, 4, 64) for _ in range(2))
        self.head = nn.Linear(32, 10)

    def forward(self, ids, segments):
        x = self.tokens(ids) + self.positions.weight[: ids.size(1)]
        x = x + segments.unsqueeze(-1) * self.second
        for block in self.blocks:
            x, _ = block(x, (ids != 0)[:, None])
        return self.head(x)


class _BertFused(nn.Module):
    """By hand with the fused kernel and packed projections; one table of words and segments."""

    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(12, 32)
        self.qkv = nn.ModuleList(nn.Linear(32, 96, bias=False) for _ in range(2))
        self.o = nn.ModuleList(nn.Linear(32, 32) for _ in range(2))
        self.networks = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(32), nn.Linear(32, 64), nn.SiLU(), nn.Linear(64, 32))
            for _ in range(2)
        )
        self.norms = nn.ModuleList(nn.LayerNorm(32) for _ in range(2))
        self.output = nn.Linear(32, 10)

    def forward(self, ids, segments):
        x = self.table(ids) + self.table(10 + segments) + _waves(ids.size(1))
        for qkv, o, norm, network in zip(self.qkv, self.o, self.norms, self.networks, strict=True):
            q, k, v = qkv(norm(x)).unflatten(-1, (3, 4, 8)).permute(2, 0, 3, 1, 4)
            mixed = F.scaled_dot_product_attention(q, k, v)
            x = x + o(mixed.transpose(1, 2).flatten(2))
            x = x + network(x)
        return self.output(x)


class _BertOfVectors(nn.Module):
    """Ids as vectors of 0 and 1, and attention whose heads are folded into the batch."""

    def __init__(self):
        super().__init__()
        self.tables = nn.ModuleList(nn.Linear(n, 32, bias=False) for n in (10, 2, 16))
        self.parts = nn.ModuleList(nn.Linear(32, 32) for _ in range(8))
        self.networks = nn.ModuleList(
            nn.Sequential(nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 32)) for _ in range(2)
        )
        self.norms, self.output = (
            nn.ModuleList(nn.LayerNorm(32) for _ in range(4)),
            nn.Linear(32, 10),
        )

    def forward(self, ids, segments):
        n = ids.size(1)
        of = zip((ids, segments, torch.arange(n).expand_as(ids)), (10, 2, 16), strict=True)
        vectors = (F.one_hot(numbers, size).float() for numbers, size in of)
        x = sum(table(v) for table, v in zip(self.tables, vectors, strict=True))
        for i in range(2):
            q, k, v, o = self.parts[4 * i : 4 * i + 4]
            folded = (p(x).view(-1, n, 4, 8).transpose(1, 2).reshape(-1, n, 8) for p in (q, k, v))
            q, k, v = folded
            mixed = torch.bmm(torch.softmax(torch.bmm(q, k.mT) / 8**0.5, 2), v)
            mixed = mixed.view(-1, 4, n, 8).transpose(1, 2).reshape(-1, n, 32)
            x = self.norms[2 * i](x + o(mixed))
            x = self.norms[2 * i + 1](x + self.networks[i](x))
        return self.output(x)


def bert_of_torch() -> nn.Module:
    return _Bert()


def bert_normed_first() -> nn.Module:
    return _Bert(norm_first=True, activation="gelu")


def bert_of_attnviz() -> nn.Module:
    return _BertOfBlocks()


def bert_with_fused_attention() -> nn.Module:
    return _BertFused()


def bert_of_vectors() -> nn.Module:
    return _BertOfVectors()


RIGHT = {
    "attention": (
        attention_by_steps,
        attention_by_einsum,
        attention_in_numpy,
        attention_with_scaled_queries,
        attention_row_by_row,
    ),
    "source_matters": (
        source_by_next_symbols,
        source_by_mirrored_symbols,
        source_symbol_by_symbol,
        source_of_one_symbol,
        source_in_numpy,
    ),
    "repaired_transformer": (
        transformer_of_torch,
        transformer_sequence_first,
        transformer_of_attnviz,
        transformer_by_hand,
        transformer_head_by_head,
    ),
    "repaired_wrapper": (
        wrapper_batch_first,
        wrapper_sequence_first,
        wrapper_normed_first,
        wrapper_of_attnviz,
        wrapper_by_parts,
        wrapper_by_hand,
    ),
    "repaired_bert": (
        bert_of_torch,
        bert_normed_first,
        bert_of_attnviz,
        bert_with_fused_attention,
        bert_of_vectors,
    ),
}
INPUTS = {"attention": _attention, "source_matters": _models}
EQUIVALENT = {
    "queries and keys are as wide; keys and values, and the items of all three, are as many": (
        "attention_by_steps: d_k = key.size(-1)",
        "attention_by_einsum: scores = torch.einsum('...qd,...kd->...qk', query, key) "
        "* key.shape[-1] ** (-0.5)",
        "attention_with_scaled_queries: query = query / query.size(-1) ** 0.5",
        "attention_row_by_row: if key.dim() > 2:",
        "attention_row_by_row: if value.dim() > 2:",
        "attention_row_by_row: masks = [mask] * len(key)",
        "attention_row_by_row: masks = [mask] * len(value)",
        "attention_row_by_row: masks = mask.expand(len(key), *mask.shape[1:])",
        "attention_row_by_row: masks = mask.expand(len(value), *mask.shape[1:])",
        "attention_row_by_row: seen = mask.expand(len(query), len(value))[i]",
        "attention_row_by_row: parts = zip(query, key, value, masks)",
        "attention_row_by_row: parts = zip(query, key, value, masks, strict=False)",
    ),
    "two dimensions change places in either order, and a vector has only one": (
        "attention_by_steps: scores = query @ key.transpose(-1, -2) / math.sqrt(d_k)",
        "attention_in_numpy: scores = q @ np.swapaxes(k, -2, -1) / np.sqrt(q.shape[-1])",
        "attention_row_by_row: rows.append(scores[seen].softmax(-1) @ value[seen])",
    ),
    "NumPy takes tensors, and lists of tensors are stacked": (
        "attention_in_numpy: scores = np.where(mask, scores, -np.inf)",
        "attention_row_by_row: return [attention_row_by_row(q, k, v, m) for q, k, v, m in parts]",
        "source_in_numpy: one, two = (model(ids, target).detach() for ids in (source, other))",
    ),
    "the same number on all scores changes nothing": (
        "attention_with_scaled_queries: hidden = torch.ones_like(scores)",
    ),
    "every symbol still becomes another one": (
        "source_by_next_symbols: other = (source - 1) % 8",
        "source_by_next_symbols: other = (source + 1) % 7",
        "source_by_next_symbols: other = (source + 2) % 8",
        "source_symbol_by_symbol: other[:, place] = (other[:, place] - 3) % 8",
        "source_symbol_by_symbol: other[:, place] = (other[:, place] + 3) % 7",
        "source_symbol_by_symbol: other[:, place] = (other[:, place] + 4) % 8",
        "source_symbol_by_symbol: other[:, place] = (other[:, place] + 2) % 8",
        "source_in_numpy: other = torch.where(source == 0, 6, source - 1)",
        "_source_matters: return _moved(model, (source, target), ((source - 1) % 8, target))",
        "_source_matters: return _moved(model, (source, target), ((source + 1) % 7, target))",
        "_source_matters: return _moved(model, (source, target), ((source + 2) % 8, target))",
    ),
    "a difference is as large the other way round": (
        "source_by_next_symbols: return not torch.allclose(model(other, target), "
        "model(source, target))",
        "source_by_mirrored_symbols: gap = model(7 - source, target) - model(source, target)",
        "source_symbol_by_symbol: if (before - model(other, target)).abs().max() > 1e-05:",
        "source_in_numpy: one, two = (model(ids, target).detach().numpy() for ids in "
        "(other, source))",
        "source_in_numpy: return np.abs(two - one).max() > 1e-05",
        "_source_matters: return _moved(model, ((source + 1) % 8, target), (source, target))",
    ),
    "no difference is that small but zero; a truth value may be a tensor": (
        "source_by_mirrored_symbols: return gap.abs().max().item() >= 1e-05",
        "source_by_mirrored_symbols: return gap.abs().max() > 1e-05",
        "source_symbol_by_symbol: if (model(other, target) - before).abs().max() >= 1e-05:",
        "source_in_numpy: return np.abs(one - two).max() >= 1e-05",
        "source_of_one_symbol: return any((not one.allclose(said[0]) for one in said[1:]))",
    ),
    "a model that tells symbols apart tells some pair apart, and any target does": (
        "source_of_one_symbol: return all((not one.allclose(said[0], atol=1e-06) for one in "
        "said[1:]))",
        "source_of_one_symbol: said = [model(torch.full_like(source, symbol), source) for symbol "
        "in range(8)]",
        "source_of_one_symbol: said = [model(torch.full_like(target, symbol), target) for symbol "
        "in range(8)]",
        "source_of_one_symbol: said = [model(torch.full_like(source, symbol), target) for symbol "
        "in range(7)]",
        "source_of_one_symbol: return any((not one.allclose(said[0], atol=1e-06) for one in "
        "said[:]))",
        "source_of_one_symbol: return any((not one.allclose(said[1], atol=1e-06) for one in "
        "said[1:]))",
        "source_of_one_symbol: return any((not one.allclose(said[-1], atol=1e-06) for one in "
        "said[1:]))",
        "source_of_one_symbol: return any((not one.allclose(said[0], atol=1e-06) for one in "
        "said[2:]))",
        "source_of_one_symbol: return any((not one.allclose(said[0], atol=1e-06) for one in "
        "said[0:]))",
        "source_in_numpy: one, two = (model(ids, source).detach().numpy() for ids in "
        "(source, other))",
    ),
    "of all the logits some grow": (
        "source_by_mirrored_symbols: return gap.max().item() > 1e-05",
        "source_symbol_by_symbol: if (model(other, target) - before).max() > 1e-05:",
        "source_in_numpy: return (one - two).max() > 1e-05",
    ),
}

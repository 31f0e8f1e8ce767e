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


HIDES = {  # which keys a query may see
    "nothing": lambda see: see,
    "causal": torch.tril,
    "reversed": torch.triu,
    "itself": lambda see: see.tril(-1),
    "itself but first": lambda see: see.tril(-1) | (see.cumsum(0) + see.cumsum(1) == 2),
    "far": lambda see: see.tril().triu(-1),
}


class Attending(nn.Module):
    """Multi-head attention by einsum."""

    def __init__(self, n_heads=4, d_k=8):
        super().__init__()
        self.form = {"h": n_heads, "d": d_k}
        self.q, self.k, self.v = (nn.Linear(32, n_heads * d_k) for _ in range(3))
        self.o = nn.Linear(n_heads * d_k, 32)

    def forward(self, x, memory, see, values=None):
        values = memory if values is None else values
        parts = zip((self.q, self.k, self.v), (x, memory, values), strict=True)
        q, k, v = (one(of).unflatten(-1, tuple(self.form.values())) for one, of in parts)
        scores = torch.einsum("bqhd,bkhd->bhqk", q, k) / self.form["d"] ** 0.5
        weights = scores.masked_fill(~see, -torch.inf).softmax(-1)
        return self.o(torch.einsum("bhqk,bkhd->bqhd", weights, v).flatten(2))


class Layer(nn.Module):
    """A layer of an encoder or, with two attentions, of a decoder; wrong: what is."""

    def __init__(self, wrong=(), attentions=1, d_ff=64, **heads):
        super().__init__()
        self.wrong = wrong
        self.attentions = nn.ModuleList(Attending(**heads) for _ in range(attentions))
        n_norms = attentions + 1 - ("a norm too few" in wrong)
        self.norms = nn.ModuleList(nn.LayerNorm(32) for _ in range(n_norms))
        self.widen, self.narrow = nn.Linear(32, d_ff), nn.Linear(d_ff, 32)
        if "one attention" in wrong:
            self.attentions[1] = self.attentions[0]

    def add(self, i, x, new, what):
        x = new if f"only {what}" in self.wrong else x + new
        return self.norms[i](x) if i < len(self.norms) else x

    def forward(self, x, see, memory=None, see_memory=None):
        first, *cross = self.attentions
        if "no attention" not in self.wrong:
            x = self.add(0, x, first(x, x, see), "attention")
        if cross:
            asked = x if "asks itself" in self.wrong else memory
            values = x if "own values" in self.wrong else None
            x = self.add(1, x, cross[0](x, asked, see_memory, values), "attention")
        if "no network" in self.wrong:
            return x
        h = self.widen(x)
        h = self.narrow(h if "linear" in self.wrong else h.relu())
        return self.add(len(self.attentions), x, h, "network")


class Faulty(nn.Module):
    """An encoder-decoder or, with segments, a BERT: by hand, and with whatever is wrong in it.

    The first layer of the encoder and of the decoder hide and have what is said of them.
    """

    def __init__(
        self,
        *wrong,
        layers=(1, 1),
        encoder=(),
        decoder=(),
        hide=("nothing", "causal", "nothing"),
        segments=None,
        padding=False,
        of_first=(),
        of_second=(),
    ):
        super().__init__()
        self.wrong, self.hide, self.padding, self.segments = wrong, hide, padding, segments
        self.words, self.places = nn.Embedding(10, 32), nn.Embedding(20, 32)
        self.output = nn.Linear(32, 10)
        self.encoder, self.decoder = (
            nn.ModuleList(
                Layer(() if i else faults, n + 1, **(dict(sizes) if not i else {}))
                for i in range(layers[n])
            )
            for n, (faults, sizes) in enumerate([(encoder, of_first), (decoder, of_second)])
        )
        if "a layer twice" in wrong:
            self.encoder[1] = self.encoder[0]
        if "an attention twice" in wrong:
            self.encoder[1].attentions = self.encoder[0].attentions
        if segments == "table":
            self.of_segments = nn.Embedding(2, 32)
        if "a part too many" in wrong:
            self.pooler = nn.Linear(32, 32)

    def place(self, ids, of):
        n = ids.size(1)
        where = torch.arange(n)
        if f"{of} from the end" in self.wrong:
            where = n - 1 - where
        if f"{of} shared" in self.wrong:
            where = where.clamp(max=2)
        return self.places(where).expand(len(ids), -1, -1)

    def embed(self, ids, of):
        words, places = self.words(ids), self.place(ids, of)
        if "one length" in self.wrong:
            places = self.places.weight[:8] if ids.size(1) < 10 else places
        if "multiplied" in self.wrong:
            return words * places
        if f"{of} without places" in self.wrong:
            return words
        return places if f"{of} without words" in self.wrong else words + places

    def see(self, which, layer, n_queries, ids):
        """(batch, 1, query, key)"""
        kind = self.hide[which] if not layer else ("nothing", "causal", "nothing")[which]
        see = HIDES[kind](torch.ones(n_queries, ids.size(1), dtype=torch.bool))[None, None]
        if which == 1 or not self.padding or self.padding == ("encoder", "", "cross")[which]:
            return see
        real = (ids != 0)[:, None, None]
        real = real & (ids != 1)[:, None, None] if self.padding == "of 1" else real
        return see & (real[:1] if self.padding == "of the first" else real)

    def encode(self, x, ids):
        for i, layer in enumerate(self.encoder):
            x = layer(x, self.see(0, i, ids.size(1), ids))
        return x

    def forward(self, source, target):
        if self.segments is not None:
            return self.said(self.encode(self.read(source, target), source))
        source = source[:, :-1] if "cut" in self.wrong else source
        memory = self.embed(source, "source")
        memory = memory if "no encoder" in self.wrong else self.encode(memory, source)
        if "first item" in self.wrong:
            memory = memory[:1].expand_as(memory)
        if "mean" in self.wrong:
            memory, source = memory.mean(1, keepdim=True), source[:, :1]
        if "with the mean" in self.wrong:
            memory = memory + memory.mean(1, keepdim=True)
        if "shifted" in self.wrong:
            target = F.pad(target, (1, -1), value=9)
        x = self.embed(target, "target")
        for i, layer in enumerate(self.decoder):
            n = target.size(1)
            see = self.see(1, i, n, target)
            x = layer(
                x, see, memory, see if "own mask" in self.wrong else self.see(2, i, n, source)
            )
        return self.said(x + x.mean(1, keepdim=True) if "glimpse" in self.wrong else x)

    def said(self, x):
        if "items mix" in self.wrong:
            x = x + x.mean(0)
        if "always drops" in self.wrong:
            x = F.dropout(x, 0.1)
        logits = self.output(x)
        logits = logits.softmax(-1) if "probabilities" in self.wrong else logits
        return logits.mT if "transposed" in self.wrong else logits

    def read(self, ids, segments):
        if "one of all" in self.wrong:
            segments = segments[:, :1].expand_as(segments)
        if "segments backwards" in self.wrong:
            segments = segments.flip(1)
        if "a hole" in self.wrong:
            ids = ids.index_fill(1, torch.tensor(4), 1)
        table = {
            "table": getattr(self, "of_segments", None),
            "words": self.words,
            "places": lambda s: self.places(s + 3),
            "number": lambda s: s[..., None] * torch.linspace(0, 1, 32),
            "none": lambda s: 0,
        }[self.segments]
        return self.embed(ids, "text") + table(segments)


def translator(*wrong, **options):
    return lambda: Faulty(*wrong, **options)


def wrapper(*wrong, **options):
    return lambda: Faulty(*wrong, **{"layers": (2, 2), "padding": True} | options)


def bert(*wrong, segments="table", hide="nothing", **options):
    options = {"layers": (2, 0)} | options
    return lambda: Faulty(*wrong, segments=segments, hide=(hide, "", ""), **options)


class Wrapped(nn.Module):
    """The wrapper around torch's own, with a switch for each mistake."""

    def __init__(self, *wrong, sizes=(32, 4, 2, 2, 64), batch_first=True):
        super().__init__()
        self.wrong = wrong
        self.words, self.places = nn.Embedding(10, 32), nn.Embedding(16, 32)
        self.transformer = nn.Transformer(*sizes, batch_first=batch_first)
        self.output = nn.Linear(32, 10)

    def forward(self, source, target):
        embedded = [self.words(ids) + self.places.weight[: ids.size(1)] for ids in (source, target)]
        n, m, padding = target.size(1), source.size(1), source == 0
        if "padding of the first" in self.wrong:
            padding = padding[:1].expand_as(padding)
        hidden = {
            "tgt_mask": torch.ones(n, n, dtype=torch.bool).triu(1),
            "src_mask": torch.ones(m, m, dtype=torch.bool).triu(1),
            "memory_mask": torch.ones(n, m, dtype=torch.bool).triu(1),
            "src_key_padding_mask": padding,
            "memory_key_padding_mask": padding,
        }
        dropped = {"src_mask", "memory_mask"} ^ set(self.wrong)
        kept = {name: mask for name, mask in hidden.items() if name not in dropped}
        if "turned" in self.wrong:
            kept["tgt_mask"] = ~kept["tgt_mask"]
        return self.output(self.transformer(*embedded, **kept))


def again(text):
    """Of a mistake that another one is planted for already: how the verdict on it begins."""
    return f"The first: {text}"


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
    "repaired_wrapper": Wrapped,
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


def masked(query, key, value, mask, how):
    see = torch.tensor(True) if mask is None else ~mask if how == "turned" else mask
    scores = torch.einsum("...qd,...kd->...qk", query, key) / query.shape[-1] ** 0.5
    fills = {"zero": 0.0, "late": scores, "little": -100.0, "infinite": torch.inf}
    scores_seen = torch.where(see, scores, fills.get(how, -torch.inf))
    if how == "scores":
        return scores_seen @ value
    weights = F.softmax(scores_seen, -2 if how == "queries" else -1)
    return (weights * see if how == "late" else weights) @ value


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
    ("attention", lambda q, k, v, m: scaled(q, k, v, m, q.shape[-1] ** 0.5), "are multiplied by"),
    ("attention", lambda q, k, v, m: masked(q, k, v, m, "turned"), "wrong way round"),
    ("attention", lambda q, k, v, m: masked(q, k, v, m, "zero"), "e⁰ is 1"),
    ("attention", lambda q, k, v, m: masked(q, k, v, m, "late"), "no longer sums to one"),
    ("attention", lambda q, k, v, m: masked(q, k, v, m, "queries"), "over the queries"),
    ("attention", lambda q, k, v, m: masked(q, k, v, m, "little"), "the numbers differ"),
    ("attention", lambda q, k, v, m: masked(q, k, v, m, "scores"), "scores times values"),
    ("attention", lambda q, k, v, m: masked(q, k, v, m, "infinite"), "infinity minus"),
    ("source_matters", with_training, "by chance"),
    (
        "source_matters",
        lambda m, s, t: not m.eval()(s, t).allclose(m(s + 1, t)),
        "it raised IndexError",
    ),
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
        lambda m, s, t: (
            not m.eval()(s, t).allclose(m(s[:, range(s.size(1) - 1, -1, -1)], t), atol=1e-5)
        ),
        "the order of the source",
    ),
    # --- what all encoder-decoders have in common ---
    *(
        (name, bug, word)
        for name, make in (("repaired_transformer", translator), ("repaired_wrapper", wrapper))
        for bug, word in [
            (make("transposed"), "must be (batch, 8, 10)"),
            (make(hide=("nothing", "itself", "nothing")), "nan or infinite"),
            (make("always drops"), "two runs"),
            (make("probabilities"), "sums to one"),
            (make("items mix"), "the items mix"),
            (make("source without words", "target without words"), "look at embed"),
            (make("shifted"), "at their own place"),
            (make("source without places"), "read backwards"),
            (make("cut"), "of the source change nothing at some places"),
            (make(hide=("nothing",) * 3), "can read the answer"),
            (make("one length"), "such as 7 and 5"),
            (make("target without places"), "as the source does"),
            (make("source shared", "target shared"), "they share a vector"),
            (make("multiplied"), "Were they multiplied"),
            (make("target from the end"), "A longer target".lower()),
            (make("mean"), "do not all have both attentions"),
            (make(hide=("causal", "causal", "nothing")), "in the encoder some places"),
            (make(hide=("nothing", "causal", "causal")), "in the cross-attention some places"),
            (make(hide=("nothing", "itself but first", "nothing")), "or one before them"),
            (make(encoder=["only attention"]), "not attention(x) alone"),
            (make(decoder=["only network"]), "x + feed_forward(x)"),
            (make(decoder=["no network"]), "is never called"),
            (make(decoder=["one attention"]), "Is one of them used twice"),
            (make(encoder=["a norm too few"]), "fewer layer norms"),
            (make(decoder=["linear"]), "the ReLU is missing"),
            # and others of the same kinds
            (make("glimpse"), again("another symbol in the target changes what")),
            (make("first item"), again("an item of a batch")),
            (make("source shared"), again("some places cannot be told")),
            (make("target shared"), again("some places cannot be told")),
            (make("target without words"), again("another symbol in the target changes nothing")),
            (make(hide=("reversed", "causal", "nothing")), again("in the encoder")),
            (make(hide=("nothing", "causal", "reversed")), again("in the cross-attention")),
            (make(decoder=["own values"]), again("another symbol in the target changes what")),
            (make("own mask"), again("it does not work")),
            (make(decoder=["only attention"]), again("with the attentions switched off")),
            (make(encoder=["only network"]), again("with attentions and feed-forward")),
            (make(encoder=["no network"]), again("some parameters have no gradient")),
            (make("a part too many"), again("some parameters have no gradient")),
            (make(decoder=["a norm too few"]), again("there are fewer layer norms")),
            (make(encoder=["linear"]), again("a feed-forward network is linear")),
            (make(of_first={"n_heads": 8, "d_k": 4}), again("the layers do not have 4 heads")),
            (make(of_second={"d_k": 4}), again("the layers do not have 4 heads")),
            (make(of_second={"d_ff": 4}), again("the feed-forward networks of the")),
            (make(of_first={"d_ff": 2048}), again("the feed-forward networks of the")),
            (make("no encoder"), again("the encoder")),
            (make(encoder=["no attention"]), again("the encoder")),
        ]
    ),
    ("repaired_transformer", translator(decoder=["asks itself"]), "whom does it ask"),
    ("repaired_transformer", translator(decoder=["no attention"]), "is it there, and what"),
    ("repaired_transformer", translator(layers=(2, 1)), "the encoder should have one layer"),
    ("repaired_transformer", translator(layers=(1, 2)), "the decoder should have one layer"),
    ("repaired_transformer", lambda: Reverser(n_heads=8), "4 heads of width 8"),
    ("repaired_transformer", lambda: Reverser(d_ff=4), "widen from 32 to 64"),
    (
        "repaired_transformer",
        translator(hide=("nothing", "far", "nothing")),
        again("some symbols of the target change nothing at some of the places after"),
    ),
    (
        "repaired_transformer",
        lambda: Reverser(embed="words"),
        again("the source can be read backwards"),
    ),
    (
        "repaired_transformer",
        lambda: Reverser(memory=False),
        again("another symbol in the source changes nothing"),
    ),
    # --- the wrapper ---
    ("repaired_wrapper", lambda: Reverser(n_layers=(2, 2), memory=False), "whom does it ask"),
    (
        "repaired_wrapper",
        wrapper(layers=(2, 1), decoder=["no attention"]),
        "is it there, and what",
    ),
    ("repaired_wrapper", lambda: Wrapped(sizes=(32, 8, 2, 2, 64)), "the parameter is called nhead"),
    ("repaired_wrapper", lambda: Wrapped(sizes=(32, 4, 2, 2)), "without it they are 2,048 wide"),
    ("repaired_wrapper", lambda: Wrapped(sizes=(32, 4, 2, 6, 64)), "num_decoder_layers"),
    ("repaired_wrapper", lambda: Wrapped(sizes=(32, 4, 6, 2, 64)), "num_encoder_layers"),
    ("repaired_wrapper", lambda: Wrapped("src_key_padding_mask"), "attend to padding: src_key"),
    ("repaired_wrapper", lambda: Wrapped("memory_key_padding_mask"), "memory_key_padding_mask"),
    ("repaired_wrapper", wrapper("with the mean"), "padding behind a source"),
    (
        "repaired_wrapper",
        lambda: Wrapped("src_key_padding_mask", "memory_key_padding_mask"),
        again("in the encoder symbols attend to padding"),
    ),
    ("repaired_wrapper", lambda: Wrapped("tgt_mask"), again("another symbol in the target")),
    ("repaired_wrapper", lambda: Wrapped("turned"), again("another symbol in the target")),
    ("repaired_wrapper", lambda: Wrapped("src_mask"), again("in the encoder some places")),
    ("repaired_wrapper", lambda: Wrapped("memory_mask"), again("in the cross-attention some")),
    ("repaired_wrapper", lambda: Wrapped(batch_first=False), "the model raised"),
    ("repaired_wrapper", lambda: Wrapped(sizes=(32, 4, 2)), again("the decoder does not have")),
    (
        "repaired_wrapper",
        lambda: Wrapped("padding of the first"),
        again("in the encoder symbols attend to padding"),
    ),
    ("repaired_wrapper", wrapper(padding="encoder"), again("in the encoder symbols attend")),
    ("repaired_wrapper", wrapper(padding="cross"), again("in the cross-attention the target")),
    ("repaired_wrapper", wrapper(padding="of 1"), again("in the encoder some places")),
    ("repaired_wrapper", wrapper("a layer twice"), again("the feed-forward networks of the four")),
    # --- the BERT ---
    ("repaired_bert", bert("transposed"), "must be (batch, 8, 10)"),
    ("repaired_bert", bert("one length"), "such as 7 words"),
    ("repaired_bert", bert(hide="itself"), "nan or infinite"),
    ("repaired_bert", bert("always drops"), "two runs"),
    ("repaired_bert", bert("a hole"), "some words change nothing at some places"),
    ("repaired_bert", bert("an attention twice"), "Is one of them used twice"),
    ("repaired_bert", bert("probabilities"), "sums to one"),
    ("repaired_bert", bert("items mix"), "the items mix"),
    ("repaired_bert", lambda: Looking(sees="left"), "to its right"),
    ("repaired_bert", lambda: Looking(sees="right"), "to its left"),
    ("repaired_bert", lambda: Looking(places=False), "positions are missing"),
    ("repaired_bert", bert("text shared"), "they share a vector"),
    ("repaired_bert", lambda: Looking(segments=None), "left out"),
    ("repaired_bert", bert("one of all"), "has a segment of its own"),
    ("repaired_bert", lambda: Looking(segments="words"), "word table"),
    ("repaired_bert", bert(segments="places"), "looked up among the places"),
    ("repaired_bert", bert(segments="number"), "is used as it is"),
    ("repaired_bert", bert("segments backwards"), "added to the wrong words"),
    ("repaired_bert", bert("multiplied"), "Were they multiplied"),
    ("repaired_bert", bert(of_first={"n_heads": 8, "d_k": 4}), "where does n_heads go"),
    ("repaired_bert", bert(layers=(3, 0)), "there should be two layers"),
    ("repaired_bert", bert(hide="causal"), "another layer shows them"),
    ("repaired_bert", bert(encoder=["only attention"]), "not attention(x) alone"),
    ("repaired_bert", bert(encoder=["only network"]), "x + feed_forward(x)"),
    ("repaired_bert", bert("a layer twice"), "with weights of its own"),
    ("repaired_bert", bert("a part too many"), "is never called"),
    ("repaired_bert", bert(encoder=["a norm too few"]), "fewer layer norms"),
    ("repaired_bert", bert(encoder=["linear"]), "the ReLU is missing"),
    ("repaired_bert", bert(hide="reversed"), again("in one of the layers some words")),
    ("repaired_bert", bert(hide="far"), again("in one of the layers some words")),
    ("repaired_bert", bert(of_first={"d_ff": 4}), again("the feed-forward networks of the two")),
    ("repaired_bert", bert(encoder=["no attention"]), again("there should be two layers")),
    ("repaired_bert", bert(encoder=["no network"]), again("some parameters have no gradient")),
    ("repaired_bert", bert(layers=(1, 0)), again("there should be two layers")),
    ("repaired_bert", bert(segments="words"), again("a text without the words 0 and 1")),
]

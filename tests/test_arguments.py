"""What is no whole number, no number, no tensor is refused everywhere alike, and named."""

import numpy as np
import pytest
import torch
from torch import nn

import attnviz as av
from attnviz import data, layers, models, timing
from attnviz.data.streams import streamed_batches
from attnviz.data.wordpiece import SPECIAL

NO_WHOLE = [2.5, 2.0, True, np.True_, "2", [2], np.array([2]), np.float32(2), torch.tensor([2])]
NO_WHOLE += [torch.tensor(True), torch.tensor(2.0), torch.tensor(2, device="meta"), 2j]
WHOLE = [2, np.int64(2), np.uint8(2), np.array(2), torch.tensor(2), torch.tensor(2).int()]
NO_NUMBER = [True, np.True_, "0.5", [0.5], None, torch.tensor([0.5]), 0.5j, float("nan")]
NUMBERS = [0.5, np.float32(0.5), np.array(0.5), torch.tensor(0.5)]

TOKENIZER = data.wordpiece_tokenizer([*SPECIAL, *"abcdefgh"])
TEXTS = ["a b c d e f g h. a b c", "h g f e d c b a. a b"]
IDS = torch.tensor([[1, 2, 3], [3, 2, 1]])
BERT = {"vocab_size": 10, "d_model": 8, "n_layers": 1, "n_heads": 2, "d_ff": 8, "max_len": 8}
RECORD = av.seeing.AttentionRecord(
    0, 0, "attention", "self", torch.randn(3, 4, 5, 2), torch.randn(3, 4, 5, 2)
)


def bert(**sizes):
    return models.BertEncoder(models.BertConfig(**BERT | sizes))


def gpt(**sizes):
    return models.GPT(models.GPTConfig(**BERT | sizes)).eval()


def transformer(**sizes):
    sizes = {"source_size": 9, "target_size": 9, "d_model": 8, "n_heads": 2, "max_len": 8} | sizes
    return models.Transformer(models.TransformerConfig(**sizes)).eval()


def translate(search, **given):
    return search(
        **{"model": transformer(), "source": IDS[:1], "start": 1, "end": 2, "max_len": 3} | given
    )


TAKE_WHOLE = {  # the argument's name, as the message has it: what takes it
    "d_model": [
        lambda n: layers.MultiHeadAttention(n, 1),
        lambda n: layers.EncoderBlock(n, 1, 8),
        lambda n: layers.sinusoidal_positions(3, n),
        lambda n: models.BertConfig(d_model=n),
        lambda n: models.GPTConfig(d_model=n),
        lambda n: transformer(d_model=n, n_heads=1),
    ],
    "n_heads": [
        lambda n: layers.MultiHeadAttention(8, n),
        lambda n: layers.DecoderBlock(8, n, 8),
        lambda n: layers.alibi(n, 3),
        lambda n: bert(n_heads=n),
        lambda n: gpt(n_heads=n),
        lambda n: transformer(n_heads=n),
    ],
    "d_ff": [lambda n: layers.EncoderBlock(8, 2, n), lambda n: layers.DecoderBlock(8, 2, n)],
    "n_layers": [lambda n: bert(n_layers=n), lambda n: gpt(n_layers=n)],
    "max_len": [
        lambda n: bert(max_len=n),
        lambda n: transformer(max_len=n),
        lambda n: translate(models.greedy_search, max_len=n),
        lambda n: translate(models.beam_search, max_len=n),
    ],
    "vocab_size": [
        lambda n: bert(vocab_size=n),
        lambda n: gpt(vocab_size=n),
        lambda n: data.train_wordpiece(TEXTS, n),
    ],
    "source_size": [lambda n: transformer(source_size=n)],
    "n_types": [lambda n: bert(n_types=n)],
    "n": [lambda n: layers.sinusoidal_positions(n, 4)],
    "n_queries": [layers.causal_mask, lambda n: layers.alibi(2, n)],
    "n_keys": [
        lambda n: layers.causal_mask(1, n),
        lambda n: layers.alibi(2, 1, n),
        lambda n: layers.padding_mask([1], n),
    ],
    "n_labels": [
        lambda n: models.BertForSequenceClassification(bert(), n),
        lambda n: models.BertForTokenClassification(bert(), n),
    ],
    "n_new": [lambda n: models.generate(gpt(), IDS, n)],
    "top_k": [
        lambda n: models.next_probabilities(torch.randn(5), top_k=n),
        lambda n: models.generate(gpt(), IDS, 2, top_k=n),
    ],
    "batch": [lambda n: gpt().new_caches(n)],
    "start": [lambda n: translate(models.greedy_search, start=n)],
    "end": [lambda n: translate(models.beam_search, end=n)],
    "width": [lambda n: translate(models.beam_search, width=n)],
    "exact": [
        lambda n: models.to_int8(
            models.BertForSequenceClassification(bert(), 2, "mean"), IDS, IDS > 0, n
        )
    ],
    "length": [
        lambda n: data.pack(TEXTS, TOKENIZER, n),
        lambda n: data.encode_texts(TEXTS, TOKENIZER, n),
        lambda n: data.next_sentence_pairs(TEXTS, TOKENIZER, n, torch.Generator()),
        lambda n: streamed_batches(lambda: iter(TEXTS), TOKENIZER, n, 2),
    ],
    "batch_size": [
        lambda n: data.shuffled(IDS, n),
        lambda n: data.labelled_batches([[1], [2]], torch.tensor([0, 1]), n),
        lambda n: streamed_batches(lambda: iter(TEXTS), TOKENIZER, 4, n),
    ],
    "seed": [lambda n: data.shuffled(IDS, 1, n)],
    "vocabulary": [lambda n: data.SentencePairs([("a", "b")], n)],
    "number": [lambda n: data.spell(n, "de"), data.held_out, av.seed],
    "size": [
        lambda n: data.NumberWords().sample(n, torch.Generator()),
        RECORD.overview,
    ],
    "key": [av.only],
    "query": [RECORD.row],
    "item": [lambda n: RECORD.part(n, slice(None))],
    "rounds": [lambda n: av.timeit({"a": int}, n)],
    "warm_up": [lambda n: av.timeit({"a": int}, 1, n)],
}
TAKE_WHOLE = [(name, take) for name, some in TAKE_WHOLE.items() for take in some]
TOO_SMALL = {"length", "vocab_size"}  # of which 2 is too few for some


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


@pytest.mark.slow
@pytest.mark.parametrize(("name", "take"), TAKE_WHOLE)
def test_what_is_no_whole_number(name, take):
    for value in NO_WHOLE:
        with pytest.raises(TypeError, match=rf"^{name} must be a whole number, got "):
            take(value)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "take"), TAKE_WHOLE)
def test_whole_numbers_of_any_library(name, take):
    if name in TOO_SMALL:
        return
    for value in WHOLE:
        take(value)


def test_sizes_are_pythons_own_whatever_they_were():
    config = models.BertConfig(**{name: np.int64(n) for name, n in BERT.items()})
    assert config == models.BertConfig(**BERT)
    assert {type(getattr(config, name)) for name in BERT} == {int}
    attention = layers.MultiHeadAttention(np.int64(8), torch.tensor(2))
    assert type(attention.d_model) is type(attention.n_heads) is int


TAKE_NUMBERS = {
    "dropout": [
        lambda x: layers.MultiHeadAttention(8, 2, dropout=x),
        lambda x: layers.EncoderBlock(8, 2, 8, dropout=x),
        lambda x: bert(dropout=x),
        lambda x: gpt(dropout=x),
        lambda x: transformer(dropout=x),
    ],
    "eps": [lambda x: layers.DecoderBlock(8, 2, 8, eps=x), lambda x: bert(eps=x)],
    "rotary_base": [
        lambda x: layers.MultiHeadAttention(8, 2, rotary=True, rotary_base=x),
        lambda x: layers.EncoderBlock(8, 2, 8, rotary_base=x),
        lambda x: bert(rotary_base=x),
    ],
    "base": [lambda x: layers.rotate(torch.randn(3, 4), base=x)],
    "init_scale": [lambda x: bert(init_scale=1 if x is None else x) and None],
    "label_smoothing": [
        lambda x: models.translation_loss(torch.randn(2, 3, 5), IDS, label_smoothing=x)
    ],
    "temperature": [
        av.temperature,
        lambda x: models.next_probabilities(torch.randn(5), x),
        lambda x: models.generate(gpt(), IDS, 2, temperature=x),
    ],
    "top_p": [lambda x: models.next_probabilities(torch.randn(5), top_p=x)],
    "length_penalty": [lambda x: translate(models.beam_search, length_penalty=x)],
    "rate": [lambda x: data.Masking(TOKENIZER, x)],
    "mask": [lambda x: data.Masking(TOKENIZER, mask=x)],
    "random": [lambda x: data.Masking(TOKENIZER, mask=0.1, random=x)],
    "uniform": [lambda x: data.NumberWords().sample(2, torch.Generator(), uniform=x)],
}
TAKE_NUMBERS = [(name, take) for name, some in TAKE_NUMBERS.items() for take in some]


@pytest.mark.parametrize(("name", "take"), TAKE_NUMBERS)
def test_what_is_no_number(name, take):
    for value in NO_NUMBER:
        if value is None and name == "init_scale":
            continue
        with pytest.raises((TypeError, ValueError), match=rf"^{name} must be .*, got "):
            take(value)


@pytest.mark.parametrize(("name", "take"), TAKE_NUMBERS)
def test_numbers_of_any_library(name, take):
    for value in NUMBERS:
        take(value)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: layers.EncoderBlock(8, 2, 0), "d_ff must be at least 1, got 0"),
        (lambda: layers.EncoderBlock(8, 2, 8, eps=-1), "eps must be at least 0 and finite, got -1"),
        (lambda: layers.MultiHeadAttention(8, 2, rotary_base=0), "rotary_base must be positive"),
        (lambda: bert(rotary_base=-1.0), "rotary_base must be positive and finite, got -1"),
        (lambda: bert(dropout=1), r"dropout must be in \[0, 1\), got 1"),
        (lambda: gpt(dropout=-0.1), r"dropout must be in \[0, 1\), got -0.1"),
        (lambda: bert(init_scale=0), "init_scale must be positive"),
        (lambda: layers.rotate(torch.randn(3, 4), base=0), "base must be positive"),
        (lambda: data.SentencePairs([("a", "b")], 0), "vocabulary must be at least 1, got 0"),
    ],
)
def test_numbers_beyond_their_bounds(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def head(kind, **options):
    options = options or ({} if kind is models.BertForQuestionAnswering else {"n_labels": 2})
    return kind(bert(), **options).eval()


TAKE_TENSORS = {
    "x": [
        lambda x: layers.rotate(x),
        lambda x: layers.MultiHeadAttention(8, 2)(x),
        lambda x: layers.EncoderBlock(8, 2, 8)(x),
        lambda x: layers.Int8Linear(nn.Linear(3, 3), torch.tensor([0]))(x),
    ],
    "memory": [lambda x: layers.MultiHeadAttention(8, 2)(torch.randn(2, 3, 8), x)],
    "query": [lambda x: layers.scaled_dot_product_attention(x, x, x)],
    "key": [lambda x: layers.attention_weights(torch.randn(2, 3), x)],
    "value": [
        lambda x: layers.scaled_dot_product_attention(torch.randn(2, 3), torch.randn(2, 3), x)
    ],
    "logits": [models.next_probabilities, lambda x: models.translation_loss(x, IDS)],
    "hidden": [lambda x: models.mean_over(x, None)],
}
TAKE_IDS = {
    "input_ids": [
        lambda x: bert()(x),
        lambda x: gpt()(x),
        lambda x: models.generate(gpt(), x, 2),
        lambda x: models.BertForPreTraining(models.BertConfig(**BERT))(x, labels=IDS),
        lambda x: head(models.BertForSequenceClassification)(x, labels=torch.tensor([0, 1])),
        lambda x: head(models.BertForSequenceClassification, n_labels=2, pooling="mean")(x),
        lambda x: head(models.BertForTokenClassification)(x, labels=IDS.clamp(max=1)),
        lambda x: head(models.BertForQuestionAnswering)(x, labels=IDS[:, :2].clamp(max=1)),
        lambda x: models.to_int8(head(models.BertForSequenceClassification, n_labels=2,
                                      pooling="mean"), x, IDS > 0),
    ],
    "source": [
        lambda x: transformer()(x, IDS),
        lambda x: translate(models.greedy_search, source=x),
        lambda x: translate(models.beam_search, source=x),
    ],
    "target": [
        lambda x: transformer()(IDS, x),
        lambda x: models.translation_loss(torch.randn(2, 3, 5), x),
    ],
    "token_type_ids": [lambda x: bert()(IDS, token_type_ids=np.asarray(x) if x is None else x)],
    "ids": [lambda x: data.Masking(TOKENIZER)(x, torch.Generator())],
    "labels": [
        lambda x: gpt()(IDS, labels=np.asarray(x) if x is None else x),
        lambda x: head(models.BertForTokenClassification)(IDS, labels=[] if x is None else x),
        lambda x: data.labelled_batches([[1], [2]], x, 1),
    ],
    "rows": [lambda x: data.shuffled(x, 1)],
    "at": [
        lambda x: layers.MultiHeadAttention(8, 2)(
            torch.randn(2, 3, 8), at=[] if x is None else x
        )
    ],
    "exact": [lambda x: layers.Int8Linear(nn.Linear(3, 3), x)],
}  # fmt: skip
TAKE_MASKS = {
    "mask": [
        lambda x: bert()(IDS, x),
        lambda x: gpt()(IDS, x),
        lambda x: models.generate(gpt(), IDS, 1, x),
        lambda x: models.mean_over(torch.randn(2, 3, 8), x),
        lambda x: layers.combine_masks(x),
        lambda x: layers.attention_weights(torch.randn(2, 3), torch.randn(3, 3), x),
        lambda x: layers.MultiHeadAttention(8, 2)(torch.randn(2, 3, 8), mask=x),
        lambda x: models.to_int8(
            head(models.BertForSequenceClassification, n_labels=2, pooling="mean"), IDS, x
        ),
    ],
    "allowed": [av.mask],
}
NO_TENSOR = [np.ones((2, 3)), [[1.0, 2.0]], None, "a"]


def each(takers):
    return [(name, take) for name, some in takers.items() for take in some]


@pytest.mark.parametrize(("name", "take"), [*each(TAKE_TENSORS), *each(TAKE_IDS)])
def test_what_is_no_tensor(name, take):
    for value in NO_TENSOR:
        if value is None and name == "memory":
            continue
        with pytest.raises(TypeError, match=rf"^{name} must be a[n]? .*tensor, got "):
            take(value)


@pytest.mark.parametrize(("name", "take"), each(TAKE_TENSORS))
def test_whole_numbers_where_floating_ones_are_meant(name, take):
    for dtype in (torch.int64, torch.bool, torch.complex64):
        with pytest.raises(
            TypeError, match=rf"^{name} must hold floating-point numbers, got {dtype}"
        ):
            take(torch.ones(2, 3, 8).to(dtype))


@pytest.mark.parametrize(("name", "take"), each(TAKE_MASKS))
def test_what_is_no_mask(name, take):
    for value in (torch.ones(2, 3), np.ones((2, 3), bool), [[True] * 3] * 2, "a"):
        with pytest.raises(TypeError, match=rf"^{name} must be .*bool.*, got "):
            take(value)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: layers.keep_heads(layers.MultiHeadAttention(8, 2), [True]), "each once, got"),
        (lambda: layers.keep_heads(layers.MultiHeadAttention(8, 2), [0.0]), "each once, got"),
        (lambda: layers.keep_heads(nn.Linear(2, 2), [0]), "MultiHeadAttention, got Linear"),
        (lambda: layers.padding_mask("ab"), "lengths must be a list of whole numbers"),
        (lambda: layers.EncoderBlock(8, 2, 8, activation="gelu"), "activation must be a function"),
        (lambda: layers.Int8Linear(nn.GELU(), torch.tensor([0])), "Linear, got GELU"),
        (lambda: layers.Int8Embedding(nn.Linear(2, 2)), "Embedding, got Linear"),
        (lambda: layers.rotate(torch.randn(3, 4), [0, 1, 2]), "positions must be a tensor"),
        (lambda: layers.rotate(torch.randn(3, 4), torch.ones(3).bool()), "positions must hold num"),
        (lambda: models.BertEncoder(BERT), "BertConfig, got dict"),
        (lambda: models.GPT(BERT), "GPTConfig, got dict"),
        (lambda: models.Transformer(BERT), "TransformerConfig, got dict"),
        (lambda: models.BertForTokenClassification(nn.GELU(), 2), "BertEncoder, got GELU"),
        (lambda: av.capture(nn.GELU(), 3).__enter__(), r"several whole numbers, such as \[3\]"),
        (lambda: av.rollout(RECORD.weights), "AttentionRecord, got Tensor"),
        (lambda: RECORD.part(0, 1), "heads must be a slice, got 1"),
        (lambda: data.Masking("bert"), "Tokenizer, got str"),
        (lambda: data.pack(TEXTS, None, 4), "Tokenizer, got NoneType"),
        (lambda: data.encode_texts(TEXTS, "bert", 4), "Tokenizer, got str"),
        (lambda: data.next_sentence_pairs(TEXTS, 3, 8, None), "Tokenizer, got int"),
        (lambda: av.timeit([int]), "functions by name, such as {'mine': f}, got list"),
        (lambda: av.timeit({"a": 3}), r"sides\['a'\] must be a function, got 3"),
        (lambda: timing.most_memory(3), "run must be a function, got 3"),
    ],
)
def test_what_is_of_another_kind(make, message):
    with pytest.raises((TypeError, ValueError), match=message):
        make()


def test_heads_and_layers_may_be_numbers_of_numpy_or_torch():
    attention, x = layers.MultiHeadAttention(8, 2), torch.randn(1, 3, 8)
    assert layers.keep_heads(attention, torch.tensor([1])).n_heads == 1
    changes = {np.int64(0): av.off, (torch.tensor(0), np.uint8(1)): av.only(np.int64(1))}
    with av.capture(attention, np.array([0])) as seen, av.edit(attention, changes):
        attention(x)
    assert seen[0].row(torch.tensor(2))[0].tolist() == [[0, 0, 0], [0, 1, 0]]


def test_a_refused_seed_touches_no_generator():
    av.seed(3)
    wanted = torch.rand(1), np.random.rand()
    av.seed(3)
    for number in (-1, 2**32, "3"):
        with pytest.raises((TypeError, ValueError), match="number must be"):
            av.seed(number)
    assert (torch.rand(1), np.random.rand()) == wanted

"""What a capture sees in real architectures, against the attention that models report themselves.

The models of transformers are built from small configurations with random weights, large enough
that attention is far from uniform. The oracle for all of them is the same model with
attn_implementation="eager" and output_attentions=True; for torch's own modules it is
nn.MultiheadAttention with need_weights=True.
"""

import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

os.environ["HF_HUB_OFFLINE"] = "1"  # read when transformers is imported

import transformers as hf

import attnviz as av
from attnviz.layers import MultiHeadAttention
from attnviz.models import BertConfig, BertEncoder
from attnviz.models.hugging_face import _minilm_folder

SEED = 5
KERNELS = ["sdpa", "eager"]
TEXT = torch.randint(5, 60, (3, 7), generator=torch.Generator().manual_seed(SEED))
REAL = torch.tensor([[1, 1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 0, 0, 0], [0, 0, 1, 1, 1, 1, 1]])
TARGET = TEXT[:, 1:6]  # what a decoder reads

WIDTH = {"hidden_size": 32, "num_attention_heads": 4, "intermediate_size": 40}
BERT = WIDTH | {"vocab_size": 60, "num_hidden_layers": 3}
LLAMA = BERT | {"num_hidden_layers": 2, "num_key_value_heads": 2, "attention_dropout": 0.1}
SEQUENCE = {
    "vocab_size": 60, "d_model": 32, "encoder_layers": 2, "decoder_layers": 2,
    "encoder_attention_heads": 4, "decoder_attention_heads": 2, "encoder_ffn_dim": 40,
    "decoder_ffn_dim": 40, "attention_dropout": 0.1,
}  # fmt: skip


def layers(n: int, path: str, kind: str = "self") -> list[tuple[str, str]]:
    """The places of n layers in a row: a path with its number filled in, and a kind."""
    return [(path.format(i), kind) for i in range(n)]


def two_stacks(encoder: str, decoder: str, cross: str) -> list[tuple[str, str]]:
    """The places of two encoder layers, then two decoder layers of self- and cross-attention."""
    inside = [[(decoder.format(i), "self"), (cross.format(i), "cross")] for i in range(2)]
    return layers(2, encoder) + inside[0] + inside[1]


def of_two_stacks(output: Any) -> list[Tensor]:
    """All attentions of an encoder-decoder in the order in which they are computed."""
    decoder = zip(output.decoder_attentions, output.cross_attentions, strict=True)
    return [*output.encoder_attentions, *(maps for layer in decoder for maps in layer)]


def of_two_towers(output: Any) -> list[Tensor]:
    """All attentions of CLIP: the image is read first."""
    return [*output.vision_model_output.attentions, *output.text_model_output.attentions]


@dataclass(frozen=True)
class Architecture:
    """A small model of transformers, what it reads, and what a capture of it should see."""

    model: type
    config: Any
    places: list[tuple[str, str]]
    inputs: dict[str, Tensor]
    attentions: Callable[[Any], list[Tensor]] = lambda output: list(output.attentions)
    mask: str | None = "attention_mask"

    def build(self, kernel: str, dtype: torch.dtype = torch.float32) -> nn.Module:
        return build(self.model, self.config, kernel).to(dtype)

    def arguments(self, padded: bool, dtype: torch.dtype = torch.float32) -> dict[str, Any]:
        inputs = {k: v.to(dtype) if v.is_floating_point() else v for k, v in self.inputs.items()}
        if padded:
            inputs[self.mask] = REAL
        return inputs


def build(kind: type, config: Any, kernel: str) -> nn.Module:
    """A model with random weights, the same for each kernel, and attention with clear peaks."""
    torch.manual_seed(SEED)
    config = type(config).from_dict(config.to_dict())
    model = kind._from_config(config, attn_implementation=kernel).eval()
    for parameter in model.parameters():
        if parameter.dim() > 1:
            nn.init.normal_(parameter, std=1.0 / math.sqrt(parameter[0].numel()))
    return model


TOKENS = {"input_ids": TEXT}
IMAGE = {"pixel_values": torch.randn(3, 3, 16, 16, generator=torch.Generator().manual_seed(SEED))}
PAIR = {"input_ids": TEXT, "decoder_input_ids": TARGET}
ARCHITECTURES = {
    "bert": Architecture(
        hf.BertModel, hf.BertConfig(**BERT), layers(3, "encoder.layer.{}.attention.self"), TOKENS
    ),
    "distilbert": Architecture(
        hf.DistilBertModel,
        hf.DistilBertConfig(vocab_size=60, dim=32, n_layers=3, n_heads=4, hidden_dim=40),
        layers(3, "transformer.layer.{}.attention"),
        TOKENS,
    ),
    "roberta": Architecture(
        hf.RobertaModel,
        hf.RobertaConfig(**BERT),
        layers(3, "encoder.layer.{}.attention.self"),
        TOKENS,
    ),
    "albert": Architecture(  # one layer, run three times
        hf.AlbertModel,
        hf.AlbertConfig(**BERT, embedding_size=16, attention_probs_dropout_prob=0.1),
        layers(3, "encoder.albert_layer_groups.0.albert_layers.0.attention"),
        TOKENS,
    ),
    "gpt2": Architecture(
        hf.GPT2Model,
        hf.GPT2Config(vocab_size=60, n_embd=32, n_layer=2, n_head=4, n_positions=20),
        layers(2, "h.{}.attn"),
        TOKENS,
    ),
    "llama": Architecture(
        hf.LlamaModel, hf.LlamaConfig(**LLAMA), layers(2, "layers.{}.self_attn"), TOKENS
    ),
    "qwen2": Architecture(
        hf.Qwen2Model, hf.Qwen2Config(**LLAMA), layers(2, "layers.{}.self_attn"), TOKENS
    ),
    "qwen3": Architecture(
        hf.Qwen3Model,
        hf.Qwen3Config(**LLAMA, head_dim=8),
        layers(2, "layers.{}.self_attn"),
        TOKENS,
    ),
    "t5": Architecture(
        hf.T5Model,
        hf.T5Config(
            vocab_size=60,
            d_model=32,
            d_kv=2,
            decoder_start_token_id=0,
            d_ff=40,
            num_layers=2,
            num_heads=4,
        ),
        two_stacks(
            "encoder.block.{}.layer.0.SelfAttention",
            "decoder.block.{}.layer.0.SelfAttention",
            "decoder.block.{}.layer.1.EncDecAttention",
        ),
        PAIR,
        of_two_stacks,
    ),
    "bart": Architecture(
        hf.BartModel,
        hf.BartConfig(**SEQUENCE, max_position_embeddings=20),
        two_stacks(
            "encoder.layers.{}.self_attn",
            "decoder.layers.{}.self_attn",
            "decoder.layers.{}.encoder_attn",
        ),
        PAIR,
        of_two_stacks,
    ),
    "vit": Architecture(
        hf.ViTModel,
        hf.ViTConfig(
            **WIDTH,
            num_hidden_layers=2,
            image_size=16,
            patch_size=4,
            attention_probs_dropout_prob=0.1,
        ),
        layers(2, "layers.{}.attention"),
        IMAGE,
        mask=None,
    ),
    "clip": Architecture(
        hf.CLIPModel,
        hf.CLIPConfig(
            text_config=BERT
            | {"num_hidden_layers": 2, "max_position_embeddings": 20, "attention_dropout": 0.1},
            vision_config=WIDTH
            | {"num_attention_heads": 2, "num_hidden_layers": 3, "image_size": 16, "patch_size": 4},
            projection_dim=24,
        ),
        layers(3, "vision_model.encoder.layers.{}.self_attn")
        + layers(2, "text_model.encoder.layers.{}.self_attn"),
        TOKENS | IMAGE,
        of_two_towers,
    ),
    "whisper": Architecture(
        hf.WhisperModel,
        hf.WhisperConfig(**SEQUENCE, num_mel_bins=8, max_source_positions=9, pad_token_id=0),
        two_stacks(
            "encoder.layers.{}.self_attn",
            "decoder.layers.{}.self_attn",
            "decoder.layers.{}.encoder_attn",
        ),
        {
            "input_features": torch.randn(3, 8, 18, generator=torch.Generator().manual_seed(SEED)),
            "decoder_input_ids": TARGET,
        },
        of_two_stacks,
        mask=None,
    ),
}
every_architecture = pytest.mark.parametrize("name", ARCHITECTURES)
every_kernel = pytest.mark.parametrize("kernel", KERNELS)


def tensors_of(output: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(output) if isinstance(leaf, Tensor)]


def assert_same(actual: Any, expected: Any) -> None:
    """Bit for bit: the same tensors, nan included."""
    actual, expected = tensors_of(actual), tensors_of(expected)
    assert len(actual) == len(expected) > 0
    for a, b in zip(actual, expected, strict=True):
        torch.testing.assert_close(a, b, atol=0, rtol=0, equal_nan=True)


def assert_weights(
    record: av.seeing.AttentionRecord,
    expected: Tensor,
    real: Tensor | None = None,
    atol: float = 1e-6,
) -> None:
    """The record's weights are these, in the rows of real tokens."""
    weights = record.weights
    assert weights.dtype == torch.float32
    assert weights.shape == expected.shape
    assert weights.shape == (record.batch_size, record.heads, record.n_queries, record.n_keys)
    if real is not None and real.shape == (expected.size(0), expected.size(2)):
        weights, expected = weights.transpose(1, 2)[real], expected.transpose(1, 2)[real]
    torch.testing.assert_close(weights, expected.float(), atol=atol, rtol=0)


class TestTransformers:
    @pytest.mark.slow
    @every_kernel
    @pytest.mark.parametrize(
        ("name", "padded"),
        [(n, p) for n, a in ARCHITECTURES.items() for p in (False, True) if a.mask or not p],
    )
    def test_weights_are_those_that_the_eager_model_returns(self, name, kernel, padded):
        case = ARCHITECTURES[name]
        arguments = case.arguments(padded)
        with torch.no_grad():
            output = case.build("eager")(**arguments, output_attentions=True)
            with av.capture(model := case.build(kernel)) as seen:
                model(**arguments)
        expected = case.attentions(output)
        assert len(seen) == len(expected)
        for record, maps in zip(seen, expected, strict=True):
            rows = REAL.bool() if padded else None
            assert_weights(record, maps, rows, atol=0 if kernel == "eager" else 1e-6)
            assert maps.std() > 0.04  # clear peaks: a wrong scale or mask would show

    @pytest.mark.slow
    @every_kernel
    @every_architecture
    def test_records_name_the_modules_that_attended_in_order(self, name, kernel):
        case = ARCHITECTURES[name]
        model = case.build(kernel)
        with torch.no_grad(), av.capture(model) as seen:
            model(**case.arguments(padded=False))
        assert [(r.path, r.kind) for r in seen] == case.places
        assert [r.index for r in seen] == list(range(len(case.places)))
        assert {r.pass_number for r in seen} == {0}
        modules = dict(model.named_modules())
        assert all("ttention" in type(modules[r.path]).__name__ for r in seen)

    @pytest.mark.slow
    @every_kernel
    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
    @pytest.mark.parametrize("mode", ["no_grad", "grad", "training"])
    @every_architecture
    def test_output_is_the_same_bit_for_bit(self, name, mode, dtype, kernel):
        case = ARCHITECTURES[name]
        model = case.build(kernel, dtype).train(mode == "training")
        arguments = case.arguments(padded=case.mask is not None, dtype=dtype)

        def run():
            torch.manual_seed(SEED)
            with torch.set_grad_enabled(mode != "no_grad"):
                return model(**arguments)

        plain = run()
        with av.capture(model) as seen:
            assert_same(run(), plain)
        assert len(seen) == len(case.places)
        if mode == "training":  # the comparison above must have had a dropout to get wrong
            assert not torch.equal(tensors_of(plain)[0], tensors_of(model.eval()(**arguments))[0])

    @pytest.mark.slow
    @every_architecture
    def test_gradients_are_the_same_bit_for_bit(self, name):
        case = ARCHITECTURES[name]
        gradients = []
        for watched in (False, True):
            model = case.build("sdpa")
            if watched:
                with av.capture(model):
                    output = model(**case.arguments(padded=False))
            else:
                output = model(**case.arguments(padded=False))
            sum(t.square().mean() for t in tensors_of(output) if t.requires_grad).backward()
            gradients.append([p.grad for p in model.parameters() if p.grad is not None])
        assert_same(gradients[1], gradients[0])

    def test_a_bert_decoder_attends_across_to_an_encoder(self):
        config = hf.BertConfig(**BERT, is_decoder=True, add_cross_attention=True)
        other = torch.randn(3, 5, 32)
        with torch.no_grad():
            eager = build(hf.BertModel, config, "eager")
            output = eager(TEXT, encoder_hidden_states=other, output_attentions=True)
            with av.capture(model := build(hf.BertModel, config, "sdpa")) as seen:
                model(TEXT, encoder_hidden_states=other)
        expected = [
            m for p in zip(output.attentions, output.cross_attentions, strict=True) for m in p
        ]
        assert [r.kind for r in seen] == ["self", "cross"] * 3
        for record, maps in zip(seen, expected, strict=True):
            assert_weights(record, maps)


GENERATORS = {
    "gpt2": (hf.GPT2LMHeadModel, ARCHITECTURES["gpt2"].config),
    "llama": (hf.LlamaForCausalLM, ARCHITECTURES["llama"].config),
    "t5": (hf.T5ForConditionalGeneration, ARCHITECTURES["t5"].config),
    "bart": (hf.BartForConditionalGeneration, ARCHITECTURES["bart"].config),
}
GREEDY = {
    "max_new_tokens": 4,
    "min_new_tokens": 4,
    "do_sample": False,
    "pad_token_id": 0,
    "return_dict_in_generate": True,
}


class TestGeneration:
    """Greedy generation of four tokens with a cache of keys and values."""

    @pytest.mark.slow
    @every_kernel
    @pytest.mark.parametrize("padded", [False, True])
    @pytest.mark.parametrize("name", ["gpt2", "llama"])
    def test_each_new_token_is_a_pass_with_one_query_and_one_more_key(self, name, padded, kernel):
        real = REAL[[0, 2]] if padded else REAL[[0, 0]]  # padding on the left
        prompt = {"input_ids": TEXT[:2], "attention_mask": real}
        eager, model = (build(*GENERATORS[name], k) for k in ("eager", kernel))
        expected = eager.generate(**prompt, **GREEDY, output_attentions=True)
        plain = model.generate(**prompt, **GREEDY)
        with av.capture(model) as seen:
            tokens = model.generate(**prompt, **GREEDY).sequences
        assert torch.equal(tokens, plain.sequences)
        assert torch.equal(tokens, expected.sequences)
        assert [(r.pass_number, r.index) for r in seen] == [
            (p, i) for p in range(4) for i in (0, 1)
        ]
        assert [(r.heads, r.n_queries, r.n_keys) for r in seen[::2]] == [
            (4, 7, 7), (4, 1, 8), (4, 1, 9), (4, 1, 10),
        ]  # fmt: skip
        assert {r.kind for r in seen} == {"self"}
        for record in seen:
            maps = expected.attentions[record.pass_number][record.index]
            assert_weights(record, maps, real.bool())

    def test_an_edit_reaches_each_head_in_every_pass(self):
        """For a single query with padding, transformers packs heads that share a key into one."""
        prompt = {"input_ids": TEXT[:2], "attention_mask": REAL[[0, 2]]}
        eager, model = (build(*GENERATORS["llama"], k) for k in ("eager", "sdpa"))
        changes = {(0, 1): av.off, (1, 3): av.uniform}
        logits = [model.generate(**prompt, **GREEDY, output_logits=True).logits]
        for edited in (eager, model):
            with av.edit(edited, changes):
                logits.append(edited.generate(**prompt, **GREEDY, output_logits=True).logits)
        plain, expected, actual = map(torch.stack, logits)
        torch.testing.assert_close(actual, expected, atol=1e-5, rtol=0)
        assert (plain - expected).abs().max() > 0.1

    @pytest.mark.slow
    @every_kernel
    @pytest.mark.parametrize("name", ["t5", "bart"])
    def test_the_encoder_is_the_first_pass_and_each_token_another(self, name, kernel):
        prompt = {"input_ids": TEXT, "attention_mask": REAL}
        eager, model = (build(*GENERATORS[name], k) for k in ("eager", kernel))
        expected = eager.generate(**prompt, **GREEDY, num_beams=1, output_attentions=True)
        plain = model.generate(**prompt, **GREEDY, num_beams=1)
        with av.capture(model) as seen:
            tokens = model.generate(**prompt, **GREEDY, num_beams=1).sequences
        assert torch.equal(tokens, plain.sequences)
        assert torch.equal(tokens, expected.sequences)
        assert [(r.pass_number, r.kind) for r in seen] == [
            *[(0, "self")] * 2,
            *[(p, kind) for p in range(1, 5) for kind in ["self", "cross"] * 2],
        ]
        decoder = [r for r in seen if r.pass_number > 0]
        assert [(r.n_queries, r.n_keys) for r in decoder[::2]] == [
            (1, n) for n in (1, 2, 3, 4) for _ in range(2)
        ]
        assert {(r.n_queries, r.n_keys) for r in decoder[1::2]} == {(1, 7)}
        for record, maps in zip(seen[:2], expected.encoder_attentions, strict=True):
            assert_weights(record, maps, REAL.bool())
        for record in decoder:
            maps = expected.cross_attentions if record.kind == "cross" else None
            maps = (maps or expected.decoder_attentions)[record.pass_number - 1]
            assert_weights(record, maps[record.index // 2])


@pytest.fixture(scope="module")
def pieces():
    """Three texts in MiniLM's word pieces, as ids and a mask of real ones."""
    _, tokenizer = av.models.load_minilm()
    texts = ["The cat sat because the cat was tired.", "Attention is all you need", "Why?"]
    encodings = [tokenizer.encode(text) for text in texts]
    for encoding in encodings:
        encoding.pad(len(encodings[0].ids))
    return (
        torch.tensor([e.ids for e in encodings]),
        torch.tensor([e.attention_mask for e in encodings]),
    )


class TestMiniLM:
    """Real weights: six layers of twelve heads."""

    @pytest.mark.slow
    @pytest.mark.parametrize("kernel", ["ours", *KERNELS])
    def test_weights_of_a_padded_batch_are_those_of_hugging_face(self, pieces, kernel):
        ids, real = pieces
        eager = hf.BertModel.from_pretrained(_minilm_folder(), attn_implementation="eager").eval()
        if kernel == "ours":
            model, _ = av.models.load_minilm()
            mask, path = real.bool(), "blocks.{}.attention"
        else:
            model = hf.BertModel.from_pretrained(_minilm_folder(), attn_implementation=kernel)
            mask, path = real, "encoder.layer.{}.attention.self"
        with torch.no_grad(), av.capture(model.eval()) as seen:
            model(ids, mask)
        with torch.no_grad():
            expected = eager(ids, real, output_attentions=True).attentions
        assert [(r.path, r.kind) for r in seen] == layers(6, path)
        for record, maps in zip(seen, expected, strict=True):
            # eager attention in float32 is itself up to 2e-6 from float64 by the sixth layer
            assert_weights(record, maps, real.bool(), atol=0 if kernel == "eager" else 3e-6)

    def test_weights_of_each_layer_alone_are_as_exact_as_of_small_models(self, pieces):
        ids, real = pieces
        ids = ids[:1, : int(real[0].sum())]
        fused, eager = (
            hf.BertModel.from_pretrained(_minilm_folder(), attn_implementation=kernel).eval()
            for kernel in ("sdpa", "eager")
        )
        arrived = []  # at each layer's attention
        for layer in fused.encoder.layer:
            layer.attention.self.register_forward_pre_hook(lambda _, args: arrived.append(args[0]))
        with torch.no_grad(), av.capture(fused) as seen:
            fused(ids)
            for i, layer in enumerate(eager.encoder.layer):
                _, expected = layer.attention.self(arrived[i])
                torch.testing.assert_close(seen[i].weights, expected, atol=1e-6, rtol=0)


def weights_asked_for(model: nn.Module, run: Callable[[], Any]) -> list[Tensor]:
    """What each nn.MultiheadAttention of a model returns when it is asked for its weights."""
    calls = []
    hooks = [
        module.register_forward_pre_hook(lambda *call: calls.append(call), with_kwargs=True)
        for module in model.modules()
        if isinstance(module, nn.MultiheadAttention)
    ]
    run()
    for hook in hooks:
        hook.remove()
    asked = {"need_weights": True, "average_attn_weights": False}
    return [m.forward(*args, **kwargs | asked)[1] for m, args, kwargs in calls]


def sharpened(module: nn.Module, seed: int = SEED) -> nn.Module:
    """The module in eval mode, with weights that make attention peak."""
    torch.manual_seed(seed)
    for parameter in module.parameters():
        if parameter.dim() > 1:
            nn.init.normal_(parameter, std=1.2 / math.sqrt(parameter[0].numel()))
    return module.eval()


HIDDEN = ~REAL.bool()  # torch's modules name the tokens not to look at
CAUSAL = torch.ones(7, 7).tril().bool()
NUMBERS = torch.randn(7, 7, generator=torch.Generator().manual_seed(SEED))
PER_HEAD = NUMBERS + torch.arange(12)[:, None, None] / 12  # (batch × heads, query, key)

MULTI_HEADS = {
    "plain": ({}, {}),
    "sequence_first": ({"batch_first": False}, {}),
    "one_head": ({"num_heads": 1}, {}),
    "padding": ({}, {"key_padding_mask": HIDDEN}),
    "float_padding": ({}, {"key_padding_mask": torch.zeros(3, 7).masked_fill(HIDDEN, -math.inf)}),
    "bool_mask": ({}, {"attn_mask": ~CAUSAL}),
    "float_mask": ({}, {"attn_mask": NUMBERS}),
    "mask_of_each_head": ({}, {"attn_mask": PER_HEAD}),
    "both_masks": (
        {},
        {"key_padding_mask": HIDDEN & (TEXT > 5), "attn_mask": ~(CAUSAL.T | CAUSAL[3])},
    ),
    "is_causal": ({}, {"attn_mask": ~CAUSAL, "is_causal": True}),
    "zero_attention": ({"add_zero_attn": True}, {"key_padding_mask": HIDDEN}),
    "key_bias": ({"add_bias_kv": True}, {"attn_mask": ~CAUSAL}),
    "no_bias": ({"bias": False}, {}),
    "dropout": ({"dropout": 0.3}, {}),
}


class TestMultiheadAttention:
    """nn.MultiheadAttention, alone."""

    @pytest.mark.slow
    @pytest.mark.parametrize("need_weights", [False, True])
    @pytest.mark.parametrize("averaged", [False, True])
    @pytest.mark.parametrize("grad", [False, True])
    @pytest.mark.parametrize("name", MULTI_HEADS)
    def test_weights_are_those_it_returns(self, name, need_weights, averaged, grad):
        options, masks = MULTI_HEADS[name]
        options = {"num_heads": 4, "batch_first": True} | options
        model = sharpened(nn.MultiheadAttention(16, **options))
        x = torch.randn(3, 7, 16) if options["batch_first"] else torch.randn(7, 3, 16)
        with torch.set_grad_enabled(grad):
            call = {"need_weights": need_weights, "average_attn_weights": averaged} | masks
            plain = model(x, x, x, **call)
            with av.capture(model) as seen:
                assert_same(model(x, x, x, **call), plain)
            (expected,) = weights_asked_for(model, lambda: model(x, x, x, **call))
        (record,) = seen
        assert (record.path, record.kind, record.heads) == (
            "MultiheadAttention",
            "self",
            options["num_heads"],
        )
        assert_weights(record, expected)

    @pytest.mark.parametrize("need_weights", [False, True])
    @pytest.mark.parametrize("widths", [{}, {"kdim": 10, "vdim": 12}], ids=["same", "other_widths"])
    def test_keys_from_elsewhere_are_cross_attention(self, need_weights, widths):
        model = sharpened(nn.MultiheadAttention(16, 4, batch_first=True, **widths))
        query = torch.randn(3, 7, 16)
        key, value = (torch.randn(3, 5, widths.get(w, 16)) for w in ("kdim", "vdim"))
        plain = model(query, key, value, need_weights=need_weights)
        with av.capture(model) as seen:
            assert_same(model(query, key, value, need_weights=need_weights), plain)
        assert seen[0].kind == "cross"
        assert_weights(seen[0], model(query, key, value, average_attn_weights=False)[1])

    @pytest.mark.parametrize("need_weights", [False, True])
    def test_tokens_without_a_batch(self, need_weights):
        model = sharpened(nn.MultiheadAttention(16, 4))
        x = torch.randn(7, 16)
        with av.capture(model) as seen:
            model(x, x, x, need_weights=need_weights)
        assert_weights(seen[0], model(x, x, x, average_attn_weights=False)[1][None])

    @pytest.mark.parametrize("need_weights", [False, True])
    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
    def test_training_with_dropout_gives_the_same_output(self, need_weights, dtype):
        model = nn.MultiheadAttention(16, 4, dropout=0.4, batch_first=True, dtype=dtype).train()
        x = torch.randn(3, 7, 16, dtype=dtype)
        torch.manual_seed(SEED)
        plain = model(x, x, x, need_weights=need_weights)
        torch.manual_seed(SEED)
        with av.capture(model):
            assert_same(model(x, x, x, need_weights=need_weights), plain)


STACK = {"d_model": 16, "nhead": 4, "dim_feedforward": 24, "dropout": 0.1}
PADDINGS = {"whole": None, "padded": HIDDEN}


class TestTorchTransformer:
    """nn.TransformerEncoder, which has kernels of its own in eval mode, and nn.Transformer."""

    @pytest.mark.slow
    @pytest.mark.parametrize("padding", PADDINGS)
    @pytest.mark.parametrize("norm_first", [False, True])
    @pytest.mark.parametrize("batch_first", [False, True])
    @pytest.mark.parametrize("mode", ["no_grad", "grad", "training"])
    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
    @pytest.mark.filterwarnings("ignore:enable_nested_tensor|The PyTorch API of nested tensors")
    def test_an_encoder(self, batch_first, norm_first, padding, mode, dtype):
        layer = nn.TransformerEncoderLayer(**STACK, batch_first=batch_first, norm_first=norm_first)
        model = sharpened(nn.TransformerEncoder(layer, 2)).to(dtype).train(mode == "training")
        x = torch.randn(3, 7, 16, dtype=dtype)
        x = x if batch_first else x.transpose(0, 1)

        def run():
            torch.manual_seed(SEED)
            with torch.set_grad_enabled(mode != "no_grad"):
                return model(x, src_key_padding_mask=PADDINGS[padding])

        plain = run()
        with av.capture(model) as seen:
            assert_same(run(), plain)
        assert [(r.path, r.kind) for r in seen] == layers(2, "layers.{}.self_attn")
        if mode == "training" or dtype != torch.float32:
            return  # the oracle below would drop other weights, or round otherwise
        real = REAL.bool() if padding == "padded" else None
        for record, maps in zip(seen, weights_asked_for(model, run), strict=True):
            assert_weights(record, maps, real)

    @pytest.mark.parametrize("mode", ["no_grad", "grad", "training"])
    @pytest.mark.parametrize("batch_first", [False, True])
    @pytest.mark.filterwarnings("ignore:enable_nested_tensor|The PyTorch API of nested tensors")
    def test_an_encoder_and_a_decoder(self, batch_first, mode):
        model = sharpened(
            nn.Transformer(**STACK, num_encoder_layers=2, num_decoder_layers=2,
                           batch_first=batch_first)
        ).train(mode == "training")  # fmt: skip
        source, target = torch.randn(3, 7, 16), torch.randn(3, 5, 16)
        if not batch_first:
            source, target = source.transpose(0, 1), target.transpose(0, 1)
        masks = {
            "tgt_mask": ~CAUSAL[:5, :5],
            "src_key_padding_mask": HIDDEN,
            "memory_key_padding_mask": HIDDEN,
        }

        def run():
            torch.manual_seed(SEED)
            with torch.set_grad_enabled(mode != "no_grad"):
                return model(source, target, **masks)

        plain = run()
        with av.capture(model) as seen:
            assert_same(run(), plain)
        assert [(r.path, r.kind) for r in seen] == two_stacks(
            "encoder.layers.{}.self_attn",
            "decoder.layers.{}.self_attn",
            "decoder.layers.{}.multihead_attn",
        )
        if mode != "training":
            for record, maps in zip(seen, weights_asked_for(model, run), strict=True):
                assert_weights(record, maps, REAL.bool())

    @pytest.mark.parametrize("padding", PADDINGS)
    @pytest.mark.filterwarnings("ignore:enable_nested_tensor|The PyTorch API of nested tensors")
    def test_the_kernel_for_inference_is_what_the_output_comes_from(self, padding):
        """Its numbers differ from those of the open code; a capture must not let that be seen."""
        torch.manual_seed(SEED)
        layer = nn.TransformerEncoderLayer(64, 4, 256, batch_first=True)
        model = nn.TransformerEncoder(layer, 3).eval()
        x = torch.randn(3, 7, 64)
        with torch.no_grad():
            plain = model(x, src_key_padding_mask=PADDINGS[padding])
            with av.capture(model):
                assert_same(model(x, src_key_padding_mask=PADDINGS[padding]), plain)
        open_code = model(x, src_key_padding_mask=PADDINGS[padding])
        assert not torch.equal(open_code, plain)  # else this test would show nothing


class TestOurs:
    @pytest.mark.parametrize("padded", [False, True])
    @pytest.mark.parametrize("need_weights", [False, True])
    def test_the_encoder(self, padded, need_weights):
        model = sharpened(BertEncoder(BertConfig(60, 32, 3, 4, 40, 20)))
        mask = REAL.bool() if padded else None
        with torch.no_grad():
            plain = model(TEXT, mask, need_weights=need_weights)
            with av.capture(model) as seen:
                assert_same(model(TEXT, mask, need_weights=need_weights), plain)
            expected = model(TEXT, mask, need_weights=True).attentions
        assert [(r.path, r.kind) for r in seen] == layers(3, "blocks.{}.attention")
        for record, maps in zip(seen, expected, strict=True):
            assert_weights(record, maps, mask)

    @pytest.mark.parametrize(
        "mask",
        [None, CAUSAL, REAL.bool()[:, None], (PER_HEAD > 0).view(3, 4, 7, 7) | torch.eye(7).bool()],
        ids=["no_mask", "causal", "padding", "of_each_head"],
    )
    @pytest.mark.parametrize("need_weights", [False, True])
    @pytest.mark.parametrize("kind", ["self", "cross"])
    def test_one_layer(self, kind, need_weights, mask):
        model = sharpened(MultiHeadAttention(16, 4))
        x, memory = torch.randn(3, 7, 16), torch.randn(3, 7, 16) if kind == "cross" else None
        plain = model(x, memory, mask, need_weights)
        with av.capture(model) as seen:
            assert_same(model(x, memory, mask, need_weights), plain)
        assert [(r.path, r.kind) for r in seen] == [("MultiHeadAttention", kind)]
        assert_weights(seen[0], model(x, memory, mask, need_weights=True)[1])

    @pytest.mark.parametrize("need_weights", [False, True])
    def test_training_with_dropout_gives_the_same_output(self, need_weights):
        model = BertEncoder(BertConfig(60, 32, 3, 4, 40, 20)).train()
        torch.manual_seed(SEED)
        plain = model(TEXT, REAL.bool(), need_weights=need_weights)
        torch.manual_seed(SEED)
        with av.capture(model):
            assert_same(model(TEXT, REAL.bool(), need_weights=need_weights), plain)


def softmax_of(q: Tensor, k: Tensor, scale: float, bias: Tensor | float = 0.0) -> Tensor:
    return (q @ k.mT * scale + bias).softmax(-1)


HALF = 1 / math.sqrt(4)  # heads are four wide
ALLOWED = torch.zeros(5, 7).masked_fill(~CAUSAL[:5], -math.inf)
NOT_ALL = torch.arange(35).view(5, 7) % 3 > 0


def in_numpy_style(q, k, v):
    scores = torch.matmul(q, k.transpose(-2, -1)) / math.sqrt(q.size(-1))
    return torch.matmul(torch.softmax(scores, dim=-1), v)


def in_place(q, k, v):
    weights = (q * HALF @ k.mT).masked_fill_(~NOT_ALL, -math.inf).softmax(dim=3)
    return weights.masked_fill_(~NOT_ALL, 0) @ v


def with_a_softmax_in_more_precision(q, k, v):
    weights = F.softmax(q @ k.mT * HALF, dim=-1, dtype=torch.float64).to(q.dtype)
    return torch.einsum("bhqk,bhkd->bhqd", weights, v)


def with_folded_heads(q, k, v):
    q, k, v = (t.flatten(0, 1) for t in (q, k, v))
    weights = nn.Softmax(dim=2)(torch.bmm(q, k.transpose(1, 2)) * HALF)
    return torch.bmm(weights, v).unflatten(0, (3, 4))


def with_heads_folded_after_the_softmax(q, k, v):
    weights = (q @ k.mT * HALF).softmax(-1)
    return torch.bmm(weights.view(12, 5, 7), v.flatten(0, 1)).view(3, 4, 5, 4)


def with_dropout(q, k, v):
    return F.dropout(F.softmax(q @ k.mT * HALF, -1), 0.5, training=False) @ v


def grouped(q, k, v):
    return F.scaled_dot_product_attention(q, k[:, :2], v[:, :2], enable_gqa=True)


def grouped_by_hand(q, k, v):
    k, v = (t[:, :2].repeat_interleave(2, 1) for t in (k, v))
    return (q @ k.mT * HALF).softmax(-1) @ v


def fused(**options):
    return lambda q, k, v: F.scaled_dot_product_attention(q, k, v, **options)


def fused_in_five_dimensions(q, k, v):
    q, k, v = (t[:, None] for t in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v, ALLOWED[None, None, None])[:, 0]


def fused_with_folded_heads(q, k, v):
    folded = (t.flatten(0, 1) for t in (q, k, v))
    return F.scaled_dot_product_attention(*folded).unflatten(0, (3, 4))


def in_pairs(k: Tensor) -> Tensor:
    """The keys that four heads see when two of them share one."""
    return k[:, [0, 0, 1, 1]]


NUMBERS_ADDED = NUMBERS[:5]
PER_HEAD_ADDED = PER_HEAD[:4, :5]
SPELLINGS = {  # how attention is written, and the weights it should show
    "matmul": (in_numpy_style, lambda q, k: softmax_of(q, k, HALF)),
    "einsum": (
        lambda q, k, v: torch.einsum(
            "bhqk,bhkd->bhqd", (torch.einsum("bhqd,bhkd->bhqk", q, k) * HALF).softmax(-1), v
        ),
        lambda q, k: softmax_of(q, k, HALF),
    ),
    "einsum_with_the_values_first": (
        lambda q, k, v: torch.einsum("bhkd,bhqk->bhqd", v, softmax_of(q, k, HALF)),
        lambda q, k: softmax_of(q, k, HALF),
    ),
    "einsum_in_another_order": (
        lambda q, k, v: torch.einsum(
            "bqhk,bhkd->bhqd", (torch.einsum("bhqd,bhkd->bqhk", q, k) * HALF).softmax(-1), v
        ),
        lambda q, k: softmax_of(q, k, HALF),
    ),
    "einsum_in_another_order_with_dropout": (
        lambda q, k, v: torch.einsum(
            "bhkd, qbhk -> bhqd", v,
            F.dropout((torch.einsum("bhqd,bhkd->qbhk", q, k) * HALF).softmax(-1), 0.0),
        ),
        lambda q, k: softmax_of(q, k, HALF),
    ),
    "in_place": (
        in_place,
        lambda q, k: softmax_of(q, k, HALF, torch.zeros(5, 7).masked_fill(~NOT_ALL, -math.inf)),
    ),
    "more_precision": (
        with_a_softmax_in_more_precision, lambda q, k: softmax_of(q, k, HALF),
    ),
    "folded_after": (with_heads_folded_after_the_softmax, lambda q, k: softmax_of(q, k, HALF)),
    "dropout": (with_dropout, lambda q, k: softmax_of(q, k, HALF)),
    "grouped_by_hand": (grouped_by_hand, lambda q, k: softmax_of(q, in_pairs(k), HALF)),
    "fused": (fused(), lambda q, k: softmax_of(q, k, HALF)),
    "fused_grouped": (grouped, lambda q, k: softmax_of(q, in_pairs(k), HALF)),
    "fused_scale": (fused(scale=1.3), lambda q, k: softmax_of(q, k, 1.3)),
    "fused_causal": (fused(is_causal=True), lambda q, k: softmax_of(q, k, HALF, ALLOWED)),
    "fused_bool": (
        fused(attn_mask=NOT_ALL),
        lambda q, k: softmax_of(q, k, HALF, torch.zeros(5, 7).masked_fill(~NOT_ALL, -math.inf)),
    ),
    "fused_numbers": (
        fused(attn_mask=NUMBERS_ADDED), lambda q, k: softmax_of(q, k, HALF, NUMBERS_ADDED),
    ),
    "fused_numbers_of_each_head": (
        fused(attn_mask=PER_HEAD_ADDED), lambda q, k: softmax_of(q, k, HALF, PER_HEAD_ADDED),
    ),
    "fused_five_dimensions": (
        fused_in_five_dimensions, lambda q, k: softmax_of(q, k, HALF, ALLOWED),
    ),
}  # fmt: skip
FOLDED = {"written_out": with_folded_heads, "fused": fused_with_folded_heads}


class Written(nn.Module):
    """Attention written by hand, from 5 queries to 7 keys, 4 heads of width 4."""

    def __init__(self, attend: Callable):
        super().__init__()
        self.attend = attend
        self.inner = nn.ModuleDict({"q": nn.Linear(16, 16), "kv": nn.Linear(16, 32)})

    def project(self, x: Tensor, memory: Tensor) -> list[Tensor]:
        tokens = (self.inner["q"](x), *self.inner["kv"](memory).chunk(2, -1))
        return [t.unflatten(-1, (4, 4)).transpose(1, 2) for t in tokens]

    def forward(self, x: Tensor, memory: Tensor) -> Tensor:
        return self.attend(*self.project(x, memory)).transpose(1, 2).flatten(2)


class Plain(nn.Module):
    """Attention to the tokens themselves with a single head, without a dimension for heads."""

    def __init__(self, fused: bool):
        super().__init__()
        self.fused = fused
        self.projections = nn.ModuleList([nn.Linear(16, 16) for _ in range(3)])

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (project(x) for project in self.projections)
        if self.fused:
            return F.scaled_dot_product_attention(q, k, v)
        return F.softmax(q @ k.transpose(-2, -1) / 4, dim=-1) @ v


class Inner(nn.Module):
    """Attention as a module of its own, that is given queries, keys and values."""

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return torch.softmax(q @ k.mT / math.sqrt(q.size(-1)), -1) @ v


class Outer(Written):
    """The projections around such a module."""

    def __init__(self, folded: bool):
        super().__init__(Inner())
        self.folded = folded

    def forward(self, x: Tensor, memory: Tensor | None = None) -> Tensor:
        q, k, v = self.project(x, x if memory is None else memory)
        if self.folded:
            q, k, v = (t.flatten(0, 1) for t in (q, k, v))
        return self.attend(q, k, v)


class TestWrittenByHand:
    @pytest.mark.parametrize("name", SPELLINGS)
    def test_heads_in_a_dimension_of_their_own(self, name):
        attend, expected = SPELLINGS[name]
        model = nn.Sequential()
        model.add_module("layer", sharpened(Written(attend)))
        x, memory = torch.randn(3, 5, 16), torch.randn(3, 7, 16)
        plain = model.layer(x, memory)
        with av.capture(model) as seen:
            assert_same(model.layer(x, memory), plain)
        q, k, _ = model.layer.project(x, memory)
        assert [(r.path, r.kind) for r in seen] == [("layer", "cross")]
        assert_weights(seen[0], expected(q, k))

    @pytest.mark.parametrize("name", SPELLINGS)
    def test_an_edit_reaches_the_same_head_in_each_spelling(self, name):
        attend, expected = SPELLINGS[name]
        model = sharpened(Written(attend))
        x, memory = torch.randn(3, 5, 16), torch.randn(3, 7, 16)
        with av.edit(model, {(0, 2): lambda weights: weights.roll(1, -1)}):
            output = model(x, memory)
        q, k, v = model.project(x, memory)
        weights = expected(q, k)
        weights[:, 2] = weights[:, 2].roll(1, -1)
        v = in_pairs(v) if "grouped" in name else v
        torch.testing.assert_close(output.unflatten(-1, (4, 4)), (weights @ v).transpose(1, 2))

    @pytest.mark.parametrize("name", FOLDED)
    def test_heads_folded_into_the_batch_are_heads(self, name):
        model = sharpened(Written(FOLDED[name]))
        x, memory = torch.randn(3, 5, 16), torch.randn(3, 7, 16)
        with av.capture(model) as seen:
            model(x, memory)
        q, k, _ = model.project(x, memory)
        assert_weights(seen[0], softmax_of(q, k, HALF))

    def test_heads_in_several_dimensions(self):
        """Here (batch, 2, 2, token, d_k) with a mask for each of the pairs."""
        mask = torch.stack([ALLOWED, NUMBERS_ADDED])[:, None]  # (2, 1, query, key)

        def attend(q, k, v):
            q, k, v = (t.unflatten(1, (2, 2)) for t in (q, k, v))
            return F.scaled_dot_product_attention(q, k, v, mask).flatten(1, 2)

        model = sharpened(Written(attend))
        x, memory = torch.randn(3, 5, 16), torch.randn(3, 7, 16)
        with av.capture(model) as seen:
            model(x, memory)
        q, k, _ = model.project(x, memory)
        expected = softmax_of(q, k, HALF, mask.repeat_interleave(2, 0)[:, 0])
        assert_weights(seen[0], expected)

    def test_heads_that_transformers_packed_keep_their_own_masks(self):
        """One query; heads 0 and 1 share a key, and 2 and 3: they come as two queries each."""
        bias = PER_HEAD_ADDED[:, :1]  # (heads, 1, key)

        def attend(q, k, v):
            packed, mask = q.unflatten(1, (2, 2)).squeeze(3), bias.view(1, 2, 2, 7)
            k, v = k[:, :2], v[:, :2]
            mixed = F.scaled_dot_product_attention(packed, k, v, mask.expand(3, -1, -1, -1))
            return mixed.reshape(3, 4, 1, 4)

        model = sharpened(Written(attend))
        model.num_key_value_groups, model.config = 2, hf.LlamaConfig(num_attention_heads=4)
        x, memory = torch.randn(3, 1, 16), torch.randn(3, 7, 16)
        with av.capture(model) as seen:
            model(x, memory)
        q, k, _ = model.project(x, memory)
        assert_weights(seen[0], softmax_of(q, in_pairs(k), HALF, bias))

    @pytest.mark.parametrize("folded", [False, True])
    @pytest.mark.parametrize("kind", ["self", "cross"])
    def test_the_kind_of_a_module_without_projections_is_that_of_the_one_around(self, folded, kind):
        model = Outer(folded)
        x, memory = torch.randn(3, 5, 16), torch.randn(3, 7, 16)
        with av.capture(model) as seen:
            model(x, *([memory] if kind == "cross" else []))
        assert [(r.path, r.kind) for r in seen] == [("attend", kind)]

    def test_numbers_for_a_mask_are_no_other_tokens(self):
        class Masked(Plain):
            def forward(self, x, mask):
                q, k, v = (project(x) for project in self.projections)
                return F.scaled_dot_product_attention(q, k, v, mask)

        with av.capture(model := Masked(fused=True)) as seen:
            model(torch.randn(3, 7, 16), torch.randn(3, 7, 7))
        assert seen[0].kind == "self"

    @pytest.mark.parametrize("fused", [False, True])
    @pytest.mark.parametrize("shape", [(3, 7, 16), (7, 16)], ids=["batch", "no_batch"])
    def test_a_single_head(self, fused, shape):
        model = sharpened(Plain(fused))
        x = torch.randn(shape)
        plain = model(x)
        with av.capture(model) as seen:
            assert_same(model(x), plain)
        q, k, _ = (project(x.view(-1, 7, 16)) for project in model.projections)
        assert [(r.path, r.kind, r.heads) for r in seen] == [("Plain", "self", 1)]
        assert_weights(seen[0], softmax_of(q, k, 1 / 4)[:, None])

    def test_a_softmax_over_classes_is_no_attention(self):
        class Classifier(Plain):
            def forward(self, x):
                return super().forward(x).softmax(-1)

        model = sharpened(Classifier(fused=False))
        with av.capture(model) as seen:
            model(torch.randn(3, 7, 16))
        assert len(seen) == 1

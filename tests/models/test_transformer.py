"""The Transformer against torch.nn.Transformer with the same weights."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from attnviz.models import Transformer, TransformerConfig, TransformerOutput, translation_loss

pytestmark = pytest.mark.filterwarnings("ignore:enable_nested_tensor")  # torch of its fast path
SEEDS = [0, 1, 2]
SMALL = TransformerConfig(11, 9, d_model=12, n_heads=3, n_layers=2, d_ff=20, max_len=8)
# the second and the third are padded
SOURCE = torch.tensor([[1, 5, 3, 10, 2, 7], [4, 4, 9, 0, 0, 0], [8, 0, 0, 0, 0, 0]])
TARGET = torch.tensor([[1, 3, 8, 2, 2], [1, 7, 4, 0, 0], [1, 5, 6, 4, 0]])
NAMES = {  # torch's: ours
    "transformer.encoder.norm.": "encoder_norm.",
    "transformer.decoder.norm.": "decoder_norm.",
    "transformer.encoder.layers.": "encoder.",
    "transformer.decoder.layers.": "decoder.",
    ".self_attn.in_proj_": ".attention.qkv_proj.",
    ".self_attn.out_proj.": ".attention.out_proj.",
    ".multihead_attn.in_proj_": ".cross_attention.qkv_proj.",
    ".multihead_attn.out_proj.": ".cross_attention.out_proj.",
    ".linear1.": ".widen.",
    ".linear2.": ".narrow.",
    ".norm1.": ".attention_norm.",
    ".norm3.": ".feed_forward_norm.",
}


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def assert_close(a, b, tolerance=1e-5):
    torch.testing.assert_close(a, b, atol=tolerance, rtol=10 * tolerance)


def ours(name):
    """What a parameter of the oracle is called in our model."""
    second = "cross_attention_norm" if "decoder" in name else "feed_forward_norm"
    name = name.replace(".norm2.", f".{second}.")
    for theirs, mine in NAMES.items():
        name = name.replace(theirs, mine)
    return name


class Oracle(nn.Module):
    """The same sizes, made of torch's own modules and of the formulas of the paper."""

    def __init__(self, config):
        super().__init__()
        self.source_embedding = nn.Embedding(config.source_size, config.d_model)
        self.target_embedding = nn.Embedding(config.target_size, config.d_model)
        self.transformer = nn.Transformer(
            config.d_model, config.n_heads, config.n_layers, config.n_layers, config.d_ff,
            dropout=0, batch_first=True, norm_first=config.pre_norm,
        )  # fmt: skip
        self.output = nn.Linear(config.d_model, config.target_size)

    def embed(self, ids, embedding):
        d_model = embedding.embedding_dim
        places = [
            [position / 10_000 ** (i // 2 * 2 / d_model) for i in range(d_model)]
            for position in range(ids.size(1))
        ]
        waves = [
            [math.cos(x) if i % 2 else math.sin(x) for i, x in enumerate(row)] for row in places
        ]
        return embedding(ids) * d_model**0.5 + torch.tensor(waves)

    def forward(self, source, target):
        return self.output(
            self.transformer(
                self.embed(source, self.source_embedding),
                self.embed(target, self.target_embedding),
                tgt_mask=torch.ones(target.size(1), target.size(1)).triu(1).bool(),
                src_key_padding_mask=source == 0,
                memory_key_padding_mask=source == 0,
                tgt_key_padding_mask=target == 0,
            )
        )


def model_and_oracle(pre_norm=False):
    config = TransformerConfig(**{**vars(SMALL), "pre_norm": pre_norm})
    mine, theirs = Transformer(config), Oracle(config)
    for parameter in mine.parameters():  # norms and biases too should have something to do
        nn.init.normal_(parameter, std=0.3)
    theirs.load_state_dict({name: mine.get_parameter(ours(name)) for name in theirs.state_dict()})
    return mine, theirs


class TestTransformer:
    @pytest.mark.slow
    @pytest.mark.parametrize("seed", SEEDS)
    @pytest.mark.parametrize("pre_norm", [False, True])
    def test_logits_and_gradients_are_those_of_torch(self, seed, pre_norm):
        torch.manual_seed(seed)
        mine, theirs = model_and_oracle(pre_norm)
        logits, logits2 = mine(SOURCE, TARGET).logits, theirs(SOURCE, TARGET)
        real = TARGET != 0
        assert_close(logits[real], logits2[real])
        upstream = torch.randn_like(logits) * real[..., None]
        logits.backward(upstream)
        logits2.backward(upstream)
        named = dict(theirs.named_parameters())
        assert len(named) == len(list(mine.parameters()))
        for name, parameter in named.items():
            wanted = parameter.grad
            if name.endswith("embedding.weight"):
                wanted[0] = 0  # the vector of the padding never learns
            assert_close(mine.get_parameter(ours(name)).grad, wanted, 1e-4)

    @pytest.mark.parametrize("pre_norm", [False, True])
    def test_bfloat16_stays_near_float32(self, pre_norm):
        mine, theirs = model_and_oracle(pre_norm)
        wanted, real = theirs(SOURCE, TARGET), TARGET != 0
        logits = mine.bfloat16()(SOURCE, TARGET).logits
        assert logits.dtype == torch.bfloat16
        assert (logits.float() - wanted)[real].abs().max() < 0.1 * wanted[real].abs().max()

    def test_the_whole_target_at_once_is_it_token_by_token(self):
        mine, _ = model_and_oracle()
        memory, mask = mine.encode(SOURCE[:1])
        at_once = mine(SOURCE[:1], TARGET[:1]).logits
        for n in range(1, 6):
            logits = mine.decode(TARGET[:1, :n], memory, mask).logits
            assert_close(logits[:, -1], at_once[:, n - 1])

    def test_a_later_token_changes_no_earlier_score(self):
        mine, _ = model_and_oracle()
        before = mine(SOURCE, TARGET).logits
        for place in range(5):
            other = TARGET.clone()
            other[:, place] = 8 - other[:, place]
            after = mine(SOURCE, other).logits
            assert_close(after[:, :place], before[:, :place], 1e-6)
            changed = other[:, place] != TARGET[:, place]
            assert (after - before)[changed, place:].abs().amax((1, 2)).min() > 1e-3

    def test_padding_in_the_source_changes_nothing(self):
        mine, _ = model_and_oracle()
        together = mine(SOURCE, TARGET, need_weights=True)
        for i, length in enumerate([6, 3, 1]):
            alone = mine(SOURCE[i : i + 1, :length], TARGET[i : i + 1], need_weights=True)
            assert_close(together.logits[i : i + 1], alone.logits)
            for a, b in zip(together.cross_attentions, alone.cross_attentions, strict=True):
                assert_close(a[i : i + 1, ..., :length], b)

    def test_padding_in_the_target_changes_nothing_before_it(self):
        mine, _ = model_and_oracle()
        assert_close(mine(SOURCE, TARGET).logits[1:2, :3], mine(SOURCE, TARGET[:, :3]).logits[1:2])

    def test_a_source_of_nothing_but_padding_stays_finite(self):
        mine, _ = model_and_oracle()
        logits = mine(torch.zeros_like(SOURCE), TARGET).logits
        logits.sum().backward()
        assert torch.isfinite(logits).all()
        assert all(torch.isfinite(p.grad).all() for p in mine.parameters())

    def test_weights_come_when_asked_for_and_change_nothing(self):
        mine, _ = model_and_oracle()
        plain, told = mine(SOURCE, TARGET), mine(SOURCE, TARGET, need_weights=True)
        assert isinstance(plain, TransformerOutput)
        assert plain.attentions is plain.cross_attentions is None
        assert_close(plain.logits, told.logits)
        assert [w.shape for w in told.attentions] == [(3, 3, 5, 5)] * 2
        assert [w.shape for w in told.cross_attentions] == [(3, 3, 5, 6)] * 2
        for weights in told.attentions + told.cross_attentions:
            assert_close(weights.sum(-1), torch.ones(weights.shape[:-1]))
        for weights in told.attentions:
            assert torch.equal(weights, weights.tril())
        for weights in told.cross_attentions:
            padding = (SOURCE == 0)[:, None, None].expand_as(weights)
            assert weights[padding].abs().max() == 0
            assert weights[~padding].min() > 0

    def test_the_weights_returned_are_those_that_mix_the_values(self):
        mine, _ = model_and_oracle()
        calls = []
        for block in mine.decoder:
            for attention in (block.attention, block.cross_attention):
                attention.register_forward_hook(lambda m, args, out: calls.append((m, args, out)))
        told = mine(SOURCE, TARGET, need_weights=True)
        returned = [w for layer in zip(*told[1:], strict=True) for w in layer]
        assert len(calls) == 4
        for (attention, args, (mixed, _)), weights in zip(calls, returned, strict=True):
            values_from = args[1] if len(args) > 1 else args[0]
            value = F.linear(
                values_from, attention.qkv_proj.weight[24:], attention.qkv_proj.bias[24:]
            )
            heads = [weights[:, h] @ value[..., 4 * h : 4 * h + 4] for h in range(3)]
            assert_close(attention.out_proj(torch.cat(heads, -1)), mixed)

    def test_token_vectors_start_as_large_as_positions_and_padding_as_nothing(self):
        mine = Transformer(TransformerConfig(500, 400, d_model=64))
        for embedding in (mine.source_embedding, mine.target_embedding):
            vectors = embedding.weight * 8  # √64, as they enter
            assert abs(vectors[1:].std() - 1) < 0.02
            assert vectors[0].abs().max() == 0

    def test_dropout_reaches_embeddings_and_blocks(self):
        mine = Transformer(TransformerConfig(11, 9, 12, 3, 2, 20, dropout=0.3))
        assert mine.dropout.p == 0.3
        for block in [*mine.encoder, *mine.decoder]:
            assert block.dropout.p == block.attention.dropout == 0.3
        mine.train()
        assert not torch.equal(mine(SOURCE, TARGET).logits, mine(SOURCE, TARGET).logits)
        mine.eval()
        assert torch.equal(mine(SOURCE, TARGET).logits, mine(SOURCE, TARGET).logits)

    def test_positions_are_worked_out_and_not_saved(self):
        assert "positions" not in Transformer(SMALL).state_dict()

    @pytest.mark.parametrize("name", ["source", "target"])
    @pytest.mark.parametrize(
        ("ids", "error", "message"),
        [
            (torch.ones(3).long(), ValueError, r"must be \(batch, token\), got \(3,\)"),
            (torch.ones(2, 3), TypeError, r"must hold whole numbers, got torch.float32"),
            (torch.ones(2, 3).bool(), TypeError, r"must hold whole numbers, got torch.bool"),
            (torch.ones(2, 9).long(), ValueError, "must have at most 8 tokens, got 9"),
            (torch.tensor([[3, -1]]), ValueError, r"must hold ids from 0 to \d+, got -1 to 3"),
            (torch.tensor([[3, 11]]), ValueError, r"must hold ids from 0 to \d+, got 3 to 11"),
        ],
    )
    def test_bad_ids_are_named(self, name, ids, error, message):
        batch = {"source": torch.ones(len(ids), 3).long(), "target": torch.ones(len(ids), 3).long()}
        with pytest.raises(error, match=f"{name} {message}"):
            Transformer(SMALL)(**batch | {name: ids})

    def test_source_and_target_have_vocabularies_of_their_own(self):
        model = Transformer(SMALL)
        assert model(torch.tensor([[10]]), torch.tensor([[8]])).logits.shape == (1, 1, 9)
        with pytest.raises(ValueError, match="target must hold ids from 0 to 8, got 9 to 9"):
            model(torch.tensor([[10]]), torch.tensor([[9]]))

    def test_batches_of_two_sizes(self):
        with pytest.raises(ValueError, match="memory has batch size 2, x has 3"):
            Transformer(SMALL)(SOURCE[:2], TARGET)


class TestTransformerConfig:
    @pytest.mark.parametrize(
        "size", ["source_size", "target_size", "d_model", "n_heads", "n_layers", "d_ff", "max_len"]
    )
    def test_sizes_below_one(self, size):
        with pytest.raises(ValueError, match=f"{size} must be at least 1, got 0"):
            TransformerConfig(**{"source_size": 5, "target_size": 5, size: 0})

    @pytest.mark.parametrize(("d_model", "n_heads"), [(10, 3), (9, 3)])
    def test_a_width_that_does_not_fit(self, d_model, n_heads):
        with pytest.raises(ValueError, match=f"got d_model={d_model} and n_heads={n_heads}"):
            TransformerConfig(5, 5, d_model=d_model, n_heads=n_heads)


class TestTranslationLoss:
    @pytest.mark.parametrize("smoothing", [0.0, 0.1])
    def test_it_is_the_mean_over_tokens_that_are_no_padding(self, smoothing):
        logits, losses = torch.randn(3, 5, 9), []
        for row, tokens in zip(logits.tolist(), TARGET.tolist(), strict=True):
            for scores, token in zip(row, tokens, strict=True):
                total = math.log(sum(math.exp(s) for s in scores))
                wanted = [smoothing / 9 + (1 - smoothing) * (i == token) for i in range(9)]
                if token:
                    losses.append(
                        -sum(w * (s - total) for w, s in zip(wanted, scores, strict=True))
                    )
        loss = translation_loss(logits, TARGET, smoothing)
        assert len(losses) == 12
        assert abs(loss - sum(losses) / 12) < 1e-5
        assert abs(loss - sum(losses) / 15) > 0.1  # what a mean over padding would be

    def test_no_gradient_comes_from_padding(self):
        logits = torch.randn(3, 5, 9, requires_grad=True)
        translation_loss(logits, TARGET, 0.1).backward()
        assert torch.equal((logits.grad.abs().sum(-1) > 0), TARGET != 0)

    @pytest.mark.parametrize("shape", [(3, 4), (5, 3), (15,)])
    def test_logits_and_target_of_different_tokens(self, shape):
        with pytest.raises(ValueError, match=r"logits must be .*got \(3, 5, 9\) and \("):
            translation_loss(torch.randn(3, 5, 9), torch.ones(shape).long())

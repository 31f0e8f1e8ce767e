"""BERT's heads against Hugging Face's: logits, losses, gradients; and short cuts against none."""

import copy

import pytest
import torch
import torch.nn.functional as F
import transformers
from torch import nn

from attnviz.models import (
    BertConfig,
    BertEncoder,
    BertForPreTraining,
    BertForQuestionAnswering,
    BertForSequenceClassification,
    BertForTokenClassification,
    bert_tasks,
    load_hugging_face,
    load_hugging_face_encoder,
    mean_over,
)

SIZES = {"vocab_size": 50, "d_model": 24, "n_layers": 2, "n_heads": 3, "d_ff": 40, "max_len": 16}
LIVELY = SIZES | {"branches_from_zero": False}  # or the blocks would have nothing to say
CLOSE = {"atol": 1e-5, "rtol": 1e-5}


def hugging_face(kind, **others):
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=50,
        hidden_size=24,
        num_hidden_layers=2,
        num_attention_heads=3,
        intermediate_size=40,
        max_position_embeddings=16,
        **others,
    )
    model = kind(config).eval()
    for parameter in model.parameters():  # so that no bias is zero and no gain one
        nn.init.normal_(parameter, std=0.3)
    return model


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """The same weights in Hugging Face's model and in ours."""
    theirs = hugging_face(transformers.BertForPreTraining)
    folder = tmp_path_factory.mktemp("bert")
    theirs.save_pretrained(folder)
    return theirs, load_hugging_face(folder)


def batch(seed=0, rows=5, length=13):
    """Ids, mask, types, labels and next labels; rows of different lengths, different many asked."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(0, 50, (rows, length), generator=generator)
    lengths = torch.randint(4, length + 1, (rows, 1), generator=generator)
    mask = torch.arange(length) < lengths
    types = ((torch.arange(length) > lengths // 2) & mask).long()
    asked = (torch.rand(ids.shape, generator=generator) < 0.3) & mask
    asked[0] = False  # a row in which nothing is asked for
    asked[1, 0] = asked[1, 3] = True
    labels = torch.where(asked, torch.randint(0, 50, ids.shape, generator=generator), -100)
    return ids, mask, types, labels, torch.randint(0, 2, (rows,), generator=generator)


def theirs_on(model, ids, mask, types, labels=None, next_labels=None):
    return model(
        input_ids=ids,
        attention_mask=mask.long(),
        token_type_ids=types,
        labels=labels,
        next_sentence_label=next_labels,
    )


class TestPreTraining:
    def test_all_logits_are_those_of_hugging_face(self, pair):
        theirs, ours = pair
        ids, mask, types, *_ = batch()
        wanted, got = theirs_on(theirs, ids, mask, types), ours(ids, mask, types)
        torch.testing.assert_close(got.logits[mask], wanted.prediction_logits[mask], **CLOSE)
        torch.testing.assert_close(got.next_logits, wanted.seq_relationship_logits, **CLOSE)
        assert got.loss is None

    @pytest.mark.parametrize("seed", range(3))
    def test_the_loss_is_that_of_hugging_face(self, pair, seed):
        theirs, ours = pair
        wanted, got = theirs_on(theirs, *batch(seed)), ours(*batch(seed))
        torch.testing.assert_close(got.loss, wanted.loss, **CLOSE)
        asked = batch(seed)[3] != -100
        torch.testing.assert_close(got.logits, wanted.prediction_logits[asked], **CLOSE)

    def test_the_loss_of_masked_words_alone(self, pair):
        theirs, ours = pair
        ids, mask, types, labels, _ = batch()
        logits = theirs_on(theirs, ids, mask, types).prediction_logits
        wanted = F.cross_entropy(logits.flatten(0, 1), labels.flatten())
        torch.testing.assert_close(ours(ids, mask, types, labels).loss, wanted, **CLOSE)

    @pytest.mark.parametrize("seed", range(3))
    def test_its_gradient_too(self, pair, seed):
        theirs, ours = (copy.deepcopy(model) for model in pair)
        theirs_on(theirs, *batch(seed)).loss.backward()
        ours(*batch(seed)).loss.backward()
        grads = {n: p.grad for n, p in theirs.named_parameters()}
        layer = "bert.encoder.layer.1"
        wanted = {
            "encoder.token_embedding.weight": grads["bert.embeddings.word_embeddings.weight"],
            "encoder.position_embedding.weight": grads[
                "bert.embeddings.position_embeddings.weight"
            ],
            "encoder.blocks.1.narrow.weight": grads[f"{layer}.output.dense.weight"],
            "encoder.blocks.1.attention.qkv_proj.weight": torch.cat(
                [grads[f"{layer}.attention.self.{p}.weight"] for p in ("query", "key", "value")]
            ),
            "output_bias": grads["cls.predictions.bias"],
            "transform.2.weight": grads["cls.predictions.transform.LayerNorm.weight"],
            "next_sentence.weight": grads["cls.seq_relationship.weight"],
            "pooler.bias": grads["bert.pooler.dense.bias"],
        }
        mine = dict(ours.named_parameters())
        for name, gradient in wanted.items():  # without row 0: there, padding learns nothing
            torch.testing.assert_close(mine[name].grad[1:], gradient[1:], atol=1e-5, rtol=1e-4)

    @pytest.mark.parametrize("kind", [BertConfig, BertConfig.modern])
    @pytest.mark.parametrize("seed", range(3))
    def test_working_out_only_what_is_asked_changes_nothing(self, kind, seed):
        torch.manual_seed(seed)
        config = kind(**LIVELY | {"dropout": 0.0})
        model = BertForPreTraining(config)
        ids, mask, types, labels, _ = batch(seed)
        types = types if config.n_types else None
        short = model(ids, mask, types, labels)
        short.loss.backward()
        gradients = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
        model.zero_grad()
        logits = model(ids, mask, types).logits
        loss = F.cross_entropy(logits.flatten(0, 1), labels.flatten())
        loss.backward()
        torch.testing.assert_close(short.loss, loss, atol=1e-6, rtol=1e-6)
        assert "encoder.blocks.0.widen.weight" in gradients
        for name, parameter in model.named_parameters():
            if parameter.grad is not None:
                torch.testing.assert_close(gradients[name], parameter.grad, atol=1e-6, rtol=1e-5)

    @pytest.mark.parametrize("seed", range(3))
    def test_the_loss_alone_and_its_gradient_are_the_same(self, pair, seed, monkeypatch):
        half = int((batch(seed)[3] != -100).sum()) // 2
        in_parts = nn.LinearCrossEntropyOptions(batch_chunk_size=half + 1)  # the second is smaller
        monkeypatch.setattr(bert_tasks, "_IN_PARTS", in_parts)
        whole, ours = (copy.deepcopy(pair[1]) for _ in range(2))
        wanted, got = whole(*batch(seed)), ours(*batch(seed), need_logits=False)
        assert got.logits is None
        torch.testing.assert_close(got.loss, wanted.loss, **CLOSE)
        torch.testing.assert_close(got.next_logits, wanted.next_logits, **CLOSE)
        wanted.loss.backward()
        got.loss.backward()
        for mine, theirs in zip(ours.parameters(), whole.parameters(), strict=True):
            torch.testing.assert_close(mine.grad, theirs.grad, atol=1e-5, rtol=1e-4)

    @pytest.mark.parametrize("need_logits", [True, False])
    def test_bfloat16_is_near(self, pair, need_logits):
        ours = copy.deepcopy(pair[1])
        exact = ours(*batch())
        with torch.autocast("cpu", torch.bfloat16):
            near = ours(*batch(), need_logits=need_logits)
        near.loss.backward()
        torch.testing.assert_close(near.loss, exact.loss, atol=0.05, rtol=0.02)
        assert all(p.grad.dtype == torch.float32 for p in ours.parameters())

    def test_the_modern_one_has_no_parts_that_it_does_not_use(self):
        model = BertForPreTraining(BertConfig.modern(**SIZES))
        ids, mask, _, labels, _ = batch()
        model(ids, mask, labels=labels).loss.backward()
        assert [n for n, p in model.named_parameters() if p.grad is None] == []
        assert model(ids).next_logits is None

    def test_token_vectors_are_the_output_weights(self):
        model = BertForPreTraining(BertConfig.modern(**SIZES))
        hidden = model.encoder(batch()[0]).last_hidden_state
        wanted = hidden @ model.encoder.token_embedding.weight.T + model.output_bias
        torch.testing.assert_close(model(batch()[0]).logits, wanted, **CLOSE)


class TestModernEncoder:
    def test_pre_norm_is_torchs_with_a_last_norm(self):
        torch.manual_seed(0)
        ours = BertEncoder(BertConfig.modern(**LIVELY, rotary=False, nearby_heads=False)).eval()
        theirs = nn.TransformerEncoder(
            nn.TransformerEncoderLayer(24, 3, 40, 0.0, F.gelu, batch_first=True, norm_first=True),
            2,
            nn.LayerNorm(24),
            enable_nested_tensor=False,
        )
        names = {
            "blocks.": "layers.",
            "attention.qkv_proj.": "self_attn.in_proj_",
            "attention.out_proj": "self_attn.out_proj",
            "attention_norm": "norm1",
            "feed_forward_norm": "norm2",
            "widen": "linear1",
            "narrow": "linear2",
            "final_norm": "norm",
        }
        state = {}
        for name, value in ours.state_dict().items():
            for mine, other in names.items():
                name = name.replace(mine, other)
            state[name] = value
        theirs.load_state_dict({n: v for n, v in state.items() if "embedding" not in n})
        ids, mask, *_ = batch()
        x = ours.token_embedding(ids) + ours.position_embedding.weight[: ids.size(1)]
        wanted = theirs(ours.embedding_norm(x), src_key_padding_mask=~mask)
        got = ours(ids, mask).last_hidden_state
        torch.testing.assert_close(got[mask], wanted[mask], **CLOSE)

    def test_order_matters_through_rotation_alone(self):
        torch.manual_seed(0)
        model = BertEncoder(BertConfig.modern(**LIVELY))
        ids = torch.tensor([[3, 4, 5, 6]])
        turned = model(ids.flip(1)).last_hidden_state.flip(1)
        assert not turned.allclose(model(ids).last_hidden_state, atol=1e-3)
        assert model.position_embedding is None

    @pytest.mark.parametrize(("scale", "std"), [(None, 0.02), (0.7, 0.7 / 24**0.5)])
    def test_first_weights(self, scale, std):
        torch.manual_seed(0)
        model = BertEncoder(BertConfig(**SIZES | {"d_ff": 4000}, init_scale=scale))
        assert model.blocks[0].widen.weight.std().item() == pytest.approx(std, rel=0.03)
        assert model.token_embedding.weight.std().item() == pytest.approx(0.02, rel=0.1)

    def test_blocks_that_begin_as_nothing(self):
        torch.manual_seed(0)
        model = BertEncoder(BertConfig.modern(**SIZES))
        ids = batch()[0]
        wanted = model.final_norm(model.embedding_norm(model.token_embedding(ids)))
        torch.testing.assert_close(model(ids).last_hidden_state, wanted)
        usual = BertEncoder(BertConfig.modern(**LIVELY))
        assert usual.blocks[0].narrow.weight.std() > 0.05

    @pytest.mark.parametrize("n_heads", [2, 4, 6])
    def test_the_first_heads_begin_by_looking_beside_each_token(self, n_heads):
        torch.manual_seed(0)
        sizes = {"vocab_size": 300, "d_model": 32 * n_heads, "n_heads": n_heads, "n_layers": 2}
        ids = torch.randint(5, 300, (4, 40))
        model = BertEncoder(BertConfig.modern(**sizes, max_len=40))
        nearby, free = model(ids, need_weights=True).attentions  # (batch, heads, query, key) each
        for head, distance in enumerate((-1, 1, -2, 2)[:n_heads]):
            where = [nearby[:, head].diagonal(d, -2, -1).mean().item() for d in range(-5, 6)]
            assert max(range(11), key=where.__getitem__) == distance + 5
            assert where[distance + 5] > 0.25
        assert free[:, 0].diagonal(-1, -2, -1).mean() < 0.1
        for head in range(4, n_heads):
            assert nearby[:, head].diagonal(1, -2, -1).mean() < 0.1

    def test_nearby_heads_need_rotary_positions(self):
        with pytest.raises(ValueError, match="nearby_heads needs rotary positions"):
            BertConfig.modern(**SIZES, rotary=False)

    def test_types_are_refused_without_vectors_for_them(self):
        model = BertEncoder(BertConfig.modern(**SIZES))
        with pytest.raises(ValueError, match="token_type_ids cannot be given"):
            model(torch.zeros(1, 3, dtype=torch.int64), None, torch.zeros(1, 3, dtype=torch.int64))

    def test_a_choice_can_be_taken_back(self):
        config = BertConfig.modern(**SIZES, dropout=0.1, n_types=2)
        assert (config.dropout, config.n_types, config.rotary) == (0.1, 2, True)


def same_encoder(theirs, tmp_path):
    theirs.bert.save_pretrained(tmp_path)
    return load_hugging_face_encoder(tmp_path)


def copied(layer, theirs):
    with torch.no_grad():
        layer.weight.copy_(theirs.weight)
        layer.bias.copy_(theirs.bias)


class TestTasks:
    def test_a_label_for_a_text(self, tmp_path):
        theirs = hugging_face(transformers.BertForSequenceClassification, num_labels=3)
        ours = BertForSequenceClassification(same_encoder(theirs, tmp_path), 3).eval()
        copied(ours.pooler, theirs.bert.pooler.dense)
        copied(ours.classifier, theirs.classifier)
        ids, mask, types, *_ = batch()
        labels = torch.tensor([0, 2, 1, 1, 0])
        wanted = theirs(ids, mask.long(), types, labels=labels)
        got = ours(ids, mask, types, labels)
        torch.testing.assert_close(got.logits, wanted.logits, **CLOSE)
        torch.testing.assert_close(got.loss, wanted.loss, **CLOSE)
        got.loss.backward()
        wanted.loss.backward()
        mine = ours.encoder.token_embedding.weight.grad
        word_embeddings = theirs.bert.embeddings.word_embeddings.weight
        torch.testing.assert_close(mine[1:], word_embeddings.grad[1:], atol=1e-5, rtol=1e-4)

    def test_the_mean_leaves_padding_out(self):
        torch.manual_seed(0)
        model = BertForSequenceClassification(BertEncoder(BertConfig(**SIZES)), 2, "mean").eval()
        ids, mask, *_ = batch()
        together = model(ids, mask).logits
        alone = [model(row[real][None]).logits[0] for row, real in zip(ids, mask, strict=True)]
        torch.testing.assert_close(together, torch.stack(alone), **CLOSE)

    def test_the_mean_of_nothing_is_zero(self):
        hidden = torch.randn(2, 3, 4)
        mask = torch.tensor([[True, True, False], [False, False, False]])
        mean = mean_over(hidden, mask)
        torch.testing.assert_close(mean[0], hidden[0, :2].mean(0))
        assert (mean[1] == 0).all()

    def test_a_label_for_each_token(self, tmp_path):
        theirs = hugging_face(transformers.BertForTokenClassification, num_labels=4)
        ours = BertForTokenClassification(same_encoder(theirs, tmp_path), 4).eval()
        copied(ours.classifier, theirs.classifier)
        ids, mask, types, labels, _ = batch()
        labels = torch.where(labels == -100, -100, labels % 4)
        wanted = theirs(ids, mask.long(), types, labels=labels)
        got = ours(ids, mask, types, labels)
        torch.testing.assert_close(got.logits[mask], wanted.logits[mask], **CLOSE)
        torch.testing.assert_close(got.loss, wanted.loss, **CLOSE)

    def test_where_an_answer_begins_and_ends(self, tmp_path):
        theirs = hugging_face(transformers.BertForQuestionAnswering)
        ours = BertForQuestionAnswering(same_encoder(theirs, tmp_path)).eval()
        copied(ours.span, theirs.qa_outputs)
        ids, _, types, *_ = batch()
        spans = torch.tensor([[0, 3], [2, 2], [5, 12], [1, 7], [4, 6]])
        wanted = theirs(ids, None, types, start_positions=spans[:, 0], end_positions=spans[:, 1])
        got = ours(ids, None, types, spans)
        torch.testing.assert_close(got.logits[..., 0], wanted.start_logits, **CLOSE)
        torch.testing.assert_close(got.logits[..., 1], wanted.end_logits, **CLOSE)
        torch.testing.assert_close(got.loss, wanted.loss, **CLOSE)

    def test_an_answer_is_never_in_the_padding(self):
        model = BertForQuestionAnswering(BertEncoder(BertConfig(**SIZES))).eval()
        ids, mask, *_ = batch()
        places = model(ids, mask).logits.argmax(1)  # (batch, 2)
        assert mask.gather(1, places).all()

    def test_the_encoder_is_trained_along(self):
        encoder = BertEncoder(BertConfig(**SIZES))
        model = BertForTokenClassification(encoder, 2)
        assert model.encoder is encoder
        model(*batch()[:3]).logits.sum().backward()
        assert encoder.blocks[0].widen.weight.grad is not None


IDS = torch.zeros(2, 4, dtype=torch.int64)


class TestBadInput:
    @pytest.mark.parametrize(
        ("labels", "error", "message"),
        [
            (torch.full((2, 4), -100), ValueError, "must ask for something, but all are -100"),
            (torch.zeros(2, 3, dtype=torch.int64), ValueError, r"\(2, 4\), got \(2, 3\)"),
            (torch.zeros(2, 4), TypeError, "int64 tensor, got torch.float32"),
            (torch.full((2, 4), 50), ValueError, "between 0 and 49, got 50 to 50"),
            (torch.full((2, 4), -1), ValueError, "got -1 to -1"),
        ],
    )
    def test_labels(self, labels, error, message):
        with pytest.raises(error, match=message):
            BertForPreTraining(BertConfig(**SIZES))(IDS, labels=labels)

    def test_next_labels_without_the_head_or_the_other_labels(self):
        following = torch.zeros(2, dtype=torch.int64)
        with pytest.raises(ValueError, match="this model has no such head"):
            BertForPreTraining(BertConfig.modern(**SIZES))(IDS, labels=IDS, next_labels=following)
        with pytest.raises(ValueError, match="must come with labels"):
            BertForPreTraining(BertConfig(**SIZES))(IDS, next_labels=following)

    def test_the_loss_alone_without_labels(self):
        with pytest.raises(ValueError, match=r"need_logits=False .* needs labels: got None"):
            BertForPreTraining(BertConfig(**SIZES))(IDS, need_logits=False)

    def test_next_labels_of_another_number(self):
        with pytest.raises(ValueError, match=r"next_labels must be \(2,\), got \(3,\)"):
            BertForPreTraining(BertConfig(**SIZES))(
                IDS, labels=IDS, next_labels=torch.zeros(3, dtype=torch.int64)
            )

    def test_heads(self):
        encoder = BertEncoder(BertConfig(**SIZES))
        with pytest.raises(ValueError, match="pooling must be 'first' or 'mean', got 'max'"):
            BertForSequenceClassification(encoder, 2, "max")
        with pytest.raises(ValueError, match="n_labels must be at least 2, got 1"):
            BertForTokenClassification(encoder, 1)
        with pytest.raises(ValueError, match="between 0 and 3, got 0 to 4"):
            BertForQuestionAnswering(encoder)(IDS, labels=torch.tensor([[0, 4], [0, 0]]))

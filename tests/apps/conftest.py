"""Small models with random weights, ours and those of transformers, and tokenizers for them."""

import os
from types import SimpleNamespace

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from torch import nn

from attnviz.models import BertConfig, BertEncoder

os.environ["HF_HUB_OFFLINE"] = "1"  # read when transformers is imported

import transformers as hf

SENTENCES = [
    "the cat sat on the mat",
    "a dog saw the cat on the mat",
    "time flies like an arrow , fruit flies like a banana",
    "naïve café 猫 שלום",
] * 3
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
LONGEST = 40  # tokens that the models read


def train_wordpiece():
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(vocab_size=120, special_tokens=SPECIAL, show_progress=False)
    tokenizer.train_from_iterator(SENTENCES, trainer)
    tokenizer.decoder = decoders.WordPiece()
    ends = [(name, tokenizer.token_to_id(name)) for name in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=ends
    )
    return tokenizer


def train_bytes():
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=330,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=["<|endoftext|>"],
        show_progress=False,
    )
    tokenizer.train_from_iterator(SENTENCES, trainer)
    return tokenizer


WORDPIECE, BYTES = train_wordpiece(), train_bytes()
BERT_TOKENIZER = hf.PreTrainedTokenizerFast(
    tokenizer_object=WORDPIECE,
    mask_token="[MASK]",
    cls_token="[CLS]",
    sep_token="[SEP]",
    pad_token="[PAD]",
    unk_token="[UNK]",
)
GPT_TOKENIZER = hf.PreTrainedTokenizerFast(
    tokenizer_object=BYTES,
    eos_token="<|endoftext|>",
    model_input_names=["input_ids", "attention_mask"],
)
BERT = {
    "vocab_size": len(BERT_TOKENIZER),
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 40,
    "max_position_embeddings": LONGEST,
}
SEQUENCE = {
    "vocab_size": len(BERT_TOKENIZER), "d_model": 32, "encoder_layers": 2, "decoder_layers": 2,
    "encoder_attention_heads": 4, "decoder_attention_heads": 4, "encoder_ffn_dim": 40,
    "decoder_ffn_dim": 40, "max_position_embeddings": LONGEST, "pad_token_id": 0,
    "decoder_start_token_id": 0, "eos_token_id": 3, "bos_token_id": 2, "forced_eos_token_id": 3,
}  # fmt: skip
OF_BYTES = {"vocab_size": len(GPT_TOKENIZER), "bos_token_id": 0, "eos_token_id": 0}
T5 = {
    "vocab_size": len(BERT_TOKENIZER), "d_model": 32, "d_kv": 8, "d_ff": 40, "num_layers": 2,
    "num_heads": 4, "decoder_start_token_id": 0,
}  # fmt: skip
MODELS = {  # kind: (class, configuration, tokenizer)
    "masked words": (hf.BertForMaskedLM, hf.BertConfig(**BERT), BERT_TOKENIZER),
    "token labels": (
        hf.BertForTokenClassification,
        hf.BertConfig(**BERT, num_labels=3),
        BERT_TOKENIZER,
    ),
    "similarity": (hf.BertModel, hf.BertConfig(**BERT), BERT_TOKENIZER),
    "classes": (
        hf.DistilBertForSequenceClassification,
        hf.DistilBertConfig(
            vocab_size=len(BERT_TOKENIZER), dim=32, n_layers=2, n_heads=4, hidden_dim=40,
            max_position_embeddings=LONGEST, num_labels=3,
        ),
        BERT_TOKENIZER,
    ),
    "next token": (
        hf.GPT2LMHeadModel,
        hf.GPT2Config(n_embd=32, n_layer=2, n_head=4, n_positions=LONGEST, **OF_BYTES),
        GPT_TOKENIZER,
    ),
    "grouped queries": (
        hf.LlamaForCausalLM,
        hf.LlamaConfig(**{**BERT, **OF_BYTES}, num_key_value_heads=2),
        GPT_TOKENIZER,
    ),
    "roberta": (hf.RobertaForMaskedLM, hf.RobertaConfig(**BERT, pad_token_id=1), BERT_TOKENIZER),
    "t5": (hf.T5ForConditionalGeneration, hf.T5Config(**T5), BERT_TOKENIZER),
    "marian": (hf.MarianMTModel, hf.MarianConfig(**SEQUENCE), BERT_TOKENIZER),
    "bart": (hf.BartModel, hf.BartConfig(**SEQUENCE), BERT_TOKENIZER),
}  # fmt: skip


class Labeller(nn.Module):
    """A model of one's own: our encoder, and scores of the vocabulary as they are."""

    def __init__(self, vocab_size, **sizes):
        super().__init__()
        self.encoder = BertEncoder(BertConfig(vocab_size=vocab_size, **sizes))
        self.config = self.encoder.config
        self.scores = nn.Linear(self.config.d_model, vocab_size)

    def forward(self, input_ids):
        return self.scores(self.encoder(input_ids).last_hidden_state)


def build(kind, kernel="sdpa", **changes):
    """A model with clear attention and its tokenizer; changes are for its configuration."""
    architecture, config, tokenizer = MODELS[kind]
    config = type(config).from_dict(config.to_dict() | changes)
    torch.manual_seed(0)
    model = architecture._from_config(config, attn_implementation=kernel).eval()
    return _sharpened(model), tokenizer


def build_ours(words=False, **sizes):
    """Our own encoder, or one with scores of each word on top, and a tokenizer of `tokenizers`."""
    sizes = {"d_model": 24, "n_layers": 2, "n_heads": 3, "d_ff": 32, "max_len": LONGEST} | sizes
    torch.manual_seed(0)
    n = WORDPIECE.get_vocab_size()
    model = Labeller(n, **sizes) if words else BertEncoder(BertConfig(vocab_size=n, **sizes))
    return _sharpened(model.eval()), WORDPIECE


def _sharpened(model):
    for parameter in model.parameters():
        if parameter.dim() > 1:
            nn.init.normal_(parameter, std=parameter[0].numel() ** -0.5)
    return model


@pytest.fixture(scope="session")
def make():
    return build


@pytest.fixture(scope="session")
def make_ours():
    return build_ours


@pytest.fixture(scope="session")
def tokenizers():
    """The tokenizers, and how many tokens the models read."""
    return SimpleNamespace(
        wordpiece=WORDPIECE,
        of_bytes=BYTES,
        bert=BERT_TOKENIZER,
        gpt=GPT_TOKENIZER,
        longest=LONGEST,
    )

"""Whole models, made of `attnviz.layers`."""

from attnviz.models.bert import BertConfig, BertEncoder, EncoderOutput
from attnviz.models.bert_tasks import (
    BertForPreTraining,
    BertForQuestionAnswering,
    BertForSequenceClassification,
    BertForTokenClassification,
    PreTrainingOutput,
    TaskOutput,
    mean_over,
)
from attnviz.models.exporting import OnnxClassifier, export_onnx, onnx_memory, round_onnx
from attnviz.models.generation import generate, next_probabilities
from attnviz.models.gpt import GPT, GPTConfig, GPTOutput
from attnviz.models.hugging_face import (
    load_hugging_face,
    load_hugging_face_encoder,
    load_minilm,
)
from attnviz.models.rounding import to_int8
from attnviz.models.saving import load_bert, save_bert
from attnviz.models.search import beam_search, greedy_search
from attnviz.models.transformer import (
    Transformer,
    TransformerConfig,
    TransformerOutput,
    translation_loss,
)

__all__ = [
    "GPT",
    "BertConfig",
    "BertEncoder",
    "BertForPreTraining",
    "BertForQuestionAnswering",
    "BertForSequenceClassification",
    "BertForTokenClassification",
    "EncoderOutput",
    "GPTConfig",
    "GPTOutput",
    "OnnxClassifier",
    "PreTrainingOutput",
    "TaskOutput",
    "Transformer",
    "TransformerConfig",
    "TransformerOutput",
    "beam_search",
    "export_onnx",
    "generate",
    "greedy_search",
    "load_bert",
    "load_hugging_face",
    "load_hugging_face_encoder",
    "load_minilm",
    "mean_over",
    "next_probabilities",
    "onnx_memory",
    "round_onnx",
    "save_bert",
    "to_int8",
    "translation_loss",
]

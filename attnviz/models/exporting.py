"""Classifiers as files for ONNX Runtime, with weights of 32 or of 8 bits."""

import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn

from attnviz.models.bert_tasks import (
    BertForSequenceClassification,
    TaskOutput,
    check_mean_classifier,
    mean_over,
)


def export_onnx(
    model: BertForSequenceClassification, path: str | os.PathLike, int8: bool = False
) -> Path:
    """Write a classifier into a file that ONNX Runtime reads, without PyTorch and elsewhere.

    model: on the CPU, with mean pooling.   path: is overwritten.
    int8:  with weights of 8 bits, those of the pieces' vectors, too. Linear layers then multiply
           int8 with int8; there is a scale for each row of weights, and one for all activations of
           a call, which are rounded as they come (dynamic quantisation).
    The file takes ids and mask (batch, token) of any size and returns logits (batch, label).
    Returns the path. Raises TypeError for another model, ValueError for one that pools the first
    token or is not on the CPU, ImportError without onnx, onnxscript and onnxruntime.
    Source: for int8 Zafrir et al. 2019, "Q8BERT", section 3, without its training.
    """
    check_mean_classifier(model)
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    path = Path(path)
    batch, token = (torch.export.Dim(name, min=2, max=4096) for name in ("batch", "token"))
    ids, mask = torch.zeros(2, 8, dtype=torch.int64), torch.ones(2, 8, dtype=torch.bool)
    with _quiet():
        program = torch.onnx.export(
            _Logits(model).eval(),
            (ids, mask),
            dynamo=True,
            verbose=False,
            input_names=["ids", "mask"],
            output_names=["logits"],
            dynamic_shapes=({0: batch, 1: token}, {0: batch, 1: token}),
        )
        graph = program.model_proto
        del graph.graph.value_info[:]  # it confuses the rounding below, and nobody needs it
        onnx.save(graph, path)
        if int8:
            quantize_dynamic(path, path, per_channel=True, weight_type=QuantType.QInt8)
    return path


class OnnxClassifier:
    """A classifier from such a file, called like the model that it was.

    path: as written by `export_onnx`. It uses as many threads as torch does.
    Raises FileNotFoundError when there is no file.
    """

    def __init__(self, path: str | os.PathLike):
        import onnxruntime

        if not Path(path).exists():
            raise FileNotFoundError(f"path must be a file written by export_onnx, got {path}")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        # its threads would wait at full speed and take the cores from others
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session = onnxruntime.InferenceSession(str(path), options)

    def __call__(self, input_ids: Tensor, mask: Tensor) -> TaskOutput:
        """input_ids, mask: (batch, token). Returns logits (batch, label)."""
        given = {"ids": input_ids.numpy(), "mask": mask.numpy()}
        return TaskOutput(torch.from_numpy(self._session.run(None, given)[0]), None)


class _Logits(nn.Module):
    """A classifier that returns logits alone, its mask as numbers that are added to the scores.

    A bool mask would be written out with a guard for rows that may see nothing, which costs a
    tenth of the time.
    """

    def __init__(self, model: BertForSequenceClassification):
        super().__init__()
        self.model = model

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        encoder = self.model.encoder
        bias = torch.where(mask, 0.0, -1e4)[:, None, None, :]  # (batch, 1, 1, key)
        x = encoder._embed(ids, None)
        for block in encoder.blocks:
            x, _ = block(x, bias=bias)
        x = x if encoder.final_norm is None else encoder.final_norm(x)
        return self.model.classifier(mean_over(x, mask))


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's remarks about what is not installed and what will change."""
    loggers = [logging.getLogger("torch.onnx"), logging.getLogger()]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)

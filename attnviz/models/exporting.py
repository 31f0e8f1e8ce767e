"""Classifiers as files for ONNX Runtime, with weights of 32 or of 8 bits."""

import logging
import os
import subprocess
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn

from attnviz.extras import needed
from attnviz.files import holds, replacing
from attnviz.models.bert_tasks import (
    BertForSequenceClassification,
    TaskOutput,
    check_mean_classifier,
    mean_over,
)

_MARK = "made by attnviz.models"  # in every file written here, by which it is known again


def export_onnx(model: BertForSequenceClassification, path: str | os.PathLike) -> Path:
    """Write a classifier into a file that ONNX Runtime reads, without PyTorch and elsewhere.

    model: on the CPU, with mean pooling.   path: a file written here before is replaced.
    The file takes ids and mask (batch, token) of any size and returns logits (batch, label).
    Returns the path. Raises TypeError for another model, ValueError for one that pools the first
    token or is not on the CPU, FileExistsError for a file that something else wrote, OSError for
    what cannot be written, ImportError without onnx, onnxscript and onnxruntime.
    """
    check_mean_classifier(model)
    for module in ("onnx", "onnxruntime", "onnxscript"):  # before any work: the exporter needs them
        needed(module, "onnx")

    batch, token = (torch.export.Dim(name, min=2, max=4096) for name in ("batch", "token"))
    ids, mask = torch.zeros(2, 8, dtype=torch.int64), torch.ones(2, 8, dtype=torch.bool)
    with replacing(path, _is_own) as unfinished, _quiet():
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
        del graph.graph.value_info[:]  # it confuses `round_onnx`, and nobody needs it
        graph.doc_string = _MARK
        unfinished.write_bytes(graph.SerializeToString())
    return Path(path)


def round_onnx(path: str | os.PathLike, to: str | os.PathLike) -> Path:
    """Write the model of such a file into another one, in 8 bits.

    path: as written by `export_onnx`.   to: another path; a file written here before is replaced.
    Linear layers then multiply int8 with int8; there is a scale for each row of weights, and one
    for all activations of a call, which are rounded as they come (dynamic quantisation). The
    pieces' vectors have 8 bits, too.
    Returns the path of the new file. Raises FileNotFoundError when there is no file, ValueError
    when the two paths are the same, FileExistsError for a file that something else wrote, OSError
    for what cannot be written, ImportError without onnx and onnxruntime.
    Source: Zafrir et al. 2019, "Q8BERT", section 3, without its training.
    """
    quantization = needed("onnxruntime.quantization", "onnx")

    path, to = _existing(path), Path(to)
    if to.exists() and path.samefile(to):
        raise ValueError(f"to must be another path than that of the file to read, got {to}")
    with replacing(to, _is_own) as unfinished, _quiet():
        quantization.quantize_dynamic(
            path, unfinished, per_channel=True, weight_type=quantization.QuantType.QInt8
        )
    return to


def _is_own(file: Path) -> bool:
    return holds(file, _MARK.encode())


class OnnxClassifier:
    """A classifier from such a file, called like the model that it was.

    path:      as written by `export_onnx` or `round_onnx`.
    n_threads: so many work on a call, as many as torch uses if None. Several calls may be made at
               once, from threads of their own.
    Raises FileNotFoundError when there is no file, ValueError for fewer threads than one.
    """

    def __init__(self, path: str | os.PathLike, n_threads: int | None = None):
        onnxruntime = needed("onnxruntime", "onnx")

        if n_threads is not None and n_threads < 1:
            raise ValueError(f"n_threads must be at least 1, got {n_threads}")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = n_threads or torch.get_num_threads()
        # its threads would wait at full speed and take the cores from others
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session = onnxruntime.InferenceSession(str(_existing(path)), options)

    def __call__(self, input_ids: Tensor, mask: Tensor) -> TaskOutput:
        """input_ids, mask: (batch, token), on any device. Returns logits (batch, label), there."""
        given = {"ids": input_ids.cpu().numpy(), "mask": mask.cpu().numpy()}
        logits = torch.from_numpy(self._session.run(None, given)[0])
        return TaskOutput(logits.to(input_ids.device), None)


def onnx_memory(path: str | os.PathLike) -> int:
    """By how many bytes a process grows when it makes an exported model ready for calls.

    path: as written by `export_onnx` or `round_onnx`.
    Measured in a new process, as one in use may have room that it got before.
    Raises FileNotFoundError when there is no file, CalledProcessError when it is no such model or
    psutil is missing.
    """
    measure = [sys.executable, "-c", _MEASURE, str(_existing(path))]
    return int(subprocess.run(measure, check=True, capture_output=True, text=True).stdout)


_MEASURE = """
import sys, onnxruntime, psutil
before = psutil.Process().memory_info().rss
session = onnxruntime.InferenceSession(sys.argv[1])
print(psutil.Process().memory_info().rss - before)
"""


def _existing(path: str | os.PathLike) -> Path:
    if not Path(path).is_file():
        raise FileNotFoundError(f"path must be a file written by export_onnx, got {path}")
    return Path(path)


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

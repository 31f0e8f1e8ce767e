"""Pretrain a BERT from the command line, for minutes or for days, on one device or on many.

python -m attnviz.training.pretrain --minutes 5 --output bert.safetensors
torchrun --nproc-per-node 2 -m attnviz.training.pretrain --steps 2000 --output bert.safetensors
accelerate launch --num-processes 2 -m attnviz.training.pretrain --steps 2000    on two GPUs

Beside the model it writes a log, one JSON object a line, and a checkpoint from which the same
command goes on after it was interrupted or killed.
"""

import sys
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from hashlib import sha256
from itertools import islice
from typing import Any, NamedTuple

import torch
from tokenizers import Tokenizer
from torch import Tensor, nn

from attnviz.data import (
    IGNORED,
    Masking,
    load_reviews,
    next_sentence_pairs,
    pack,
    shuffled,
    train_wordpiece,
)
from attnviz.data.streams import apart, stream_texts, streamed_batches
from attnviz.extras import needed
from attnviz.machine import device, native_bf16, seed
from attnviz.models import BertConfig, BertForPreTraining, save_bert
from attnviz.training import checkpoint, processes
from attnviz.training.choices import Pretraining, parse
from attnviz.training.loop import History, train
from attnviz.training.measure import guess_by_frequency, measure_masked
from attnviz.training.outputs import Log, check_outputs
from attnviz.training.schedules import warmup_linear
from attnviz.training.together import muon_and_adamw

_SAMPLE = 30_000  # texts of a stream from which the vocabulary is learned
_HELD_OUT = 2000  # texts of a stream on which the model is measured


class Step(NamedTuple):
    """What a model learns from in one pass.

    ids, labels: (row, token) int64.   share: what its mean loss counts for, 1 on the average.
    mask, types, following: of sentence pairs, as for `BertForPreTraining`, or None.
    """

    ids: Tensor
    labels: Tensor
    share: Tensor
    mask: Tensor | None = None
    types: Tensor | None = None
    following: Tensor | None = None


def make_model(choices: Pretraining, vocab_size: int) -> BertForPreTraining:
    """A fresh model of the recipe.

    vocab_size: pieces that the tokenizer really has; from few texts it learns less than it may.
    """
    kind = BertConfig.modern if choices.recipe == "modern" else BertConfig
    given = {name: getattr(choices, name) for name in ("d_model", "n_layers", "n_heads", "d_ff")}
    return BertForPreTraining(kind(vocab_size=vocab_size, **given, max_len=choices.length))


def make_optimizer(choices: Pretraining, model: nn.Module) -> torch.optim.Optimizer:
    """The optimizer of the recipe: Muon with AdamW, or AdamW alone."""
    if choices.recipe == "modern":
        return muon_and_adamw(model, _given(choices.learning_rate, 2e-2))
    rate = _given(choices.learning_rate, 1e-3)
    return torch.optim.AdamW(model.parameters(), rate, weight_decay=0.01, fused=True)


def _given(number: float | None, otherwise: float) -> float:
    return otherwise if number is None else number  # 0 is a number, too


def masked_batches(
    choices: Pretraining, tokenizer: Tokenizer, batch_of: Callable[[int], Tensor]
) -> Callable[[int], Step]:
    """Batches of windows as steps, some of their pieces hidden.

    batch_of: from the number of a step to its windows, of all processes together.
    Returns the function that `train` asks, in this process; what is hidden depends on seed and step
    alone, not on how many processes share the work.
    """
    rate = _given(choices.mask_rate, 0.3 if choices.recipe == "modern" else 0.15)
    always = {"mask": 1.0, "random": 0.0} if choices.recipe == "modern" else {}
    masking = Masking(tokenizer, rate, **always, whole_words=choices.whole_words)
    first, parts = processes.place(), processes.number() * choices.accumulate

    def step_of(number: int) -> Step:
        step, part = divmod(number, choices.accumulate)
        generator = torch.Generator().manual_seed(choices.seed * 1_000_003 + step)
        rows = batch_of(step)
        ids, labels = masking(rows[:, 0] if rows.dim() == 3 else rows, generator)
        mine = slice(part * processes.number() + first, None, parts)
        asked = labels != IGNORED
        share = asked[mine].sum() * parts / asked.sum()
        if rows.dim() == 2:
            return Step(ids[mine], labels[mine], share)
        mask, types, following = (rows[mine, i] for i in (1, 2, 3))
        return Step(ids[mine], labels[mine], share, mask.bool(), types, following[:, 0])

    return step_of


def pretraining_loss(model: nn.Module, step: Step) -> Tensor:
    """The loss of one pass; over all processes and parts its mean is that of the whole batch."""
    output = model(step.ids, step.mask, step.types, step.labels, step.following, need_logits=False)
    return step.share * output.loss


def pretrain(choices: Pretraining, show: bool = True) -> tuple[nn.Module, History]:
    """Train a BERT from scratch, or go on where the checkpoint beside its file ends.

    choices: what, on what and how long.   show: progress, and in the end what was written.
    Writes choices.output (see `save_bert`), and beside it a log (.jsonl) and a checkpoint (.pt).
    Where several processes run this (torchrun, accelerate), they share each batch.
    Returns the model and its history. An interruption (Ctrl-C) ends the training after the step at
    hand; the history says so, the checkpoint is written, and neither the model nor the log's end.
    Raises ValueError for choices that do not fit, or a checkpoint of other choices or another
    vocabulary, OSError for files that cannot be written or are another's (see `check_outputs`),
    both before the corpus is read where that can be known; and what reading the corpus raises.
    """
    accelerate = needed("accelerate", "pretraining")
    # told, or it would not see other processes on CPUs
    accelerator = accelerate.Accelerator(cpu=device().type == "cpu")
    if choices.batch_size % (processes.number() * choices.accumulate):
        raise ValueError(
            f"batch_size must be a multiple of processes · accumulate, {processes.number()} · "
            f"{choices.accumulate}, got {choices.batch_size}"
        )
    outputs = check_outputs(choices)
    tokenizer, batch_of, counted, held_out = _corpus(choices)
    seed(choices.seed)
    model = make_model(choices, tokenizer.get_vocab_size()).to(accelerator.device)
    model = torch.compile(model) if choices.compile else model
    model = accelerator.prepare(model)
    optimizer = make_optimizer(choices, processes.unwrapped(model))
    log = Log(outputs.log, choices, checkpoint.steps_done(outputs.checkpoint))
    history = History()
    train(
        model,
        masked_batches(choices, tokenizer, batch_of),
        pretraining_loss,
        optimizer,
        steps=choices.steps,
        seconds=None if choices.minutes is None else 60 * choices.minutes,
        schedule=warmup_linear(choices.warmup),
        accumulate=choices.accumulate,
        bf16=native_bf16(accelerator.device) and not choices.float32,
        checkpoint=outputs.checkpoint,
        origin=_origin(choices, tokenizer),
        save_every=choices.save_every,
        after_step=lambda *_: log.step(history),
        history=history,
        show=show,
    )
    bare = processes.unwrapped(model).eval()
    said = f"wrote {outputs.model}"
    if history.interrupted:
        said = (
            f"interrupted after {history.step} steps, before the model was written; "
            f"{outputs.checkpoint} keeps them, and the same command goes on from there"
        )
    elif processes.is_first():
        save_bert(outputs.model, bare, tokenizer, half=True)
        log.end(history, measure_masked(bare, held_out, tokenizer),
                guess_by_frequency(counted, held_out, tokenizer))  # fmt: skip
    if show and processes.is_first():
        print(said, file=sys.stderr)
    return bare, history


def _origin(choices: Pretraining, tokenizer: Tokenizer) -> dict[str, Any]:
    """What stays as it is in a training: all choices but where to, how long and how fast."""
    free = {"output", "minutes", "steps", "accumulate", "float32", "compile", "save_every"}
    kept = {name: value for name, value in asdict(choices).items() if name not in free}
    return kept | {"vocabulary": sha256(tokenizer.to_str().encode()).hexdigest()}


def _corpus(
    choices: Pretraining,
) -> tuple[Tokenizer, Callable[[int], Tensor], Tensor, Tensor]:
    """The tokenizer, the batches, windows to count pieces in, and windows to measure on."""
    batch = choices.batch_size, choices.seed
    if choices.corpus != "reviews":
        kept, held_out = apart(stream_texts(choices.corpus, column=choices.column))
        sample = list(islice(kept(), _SAMPLE))
        tokenizer = train_wordpiece(sample, choices.vocab_size)
        cut = partial(pack, tokenizer=tokenizer, length=choices.length)
        stream = streamed_batches(kept, tokenizer, choices.length, *batch)
        return tokenizer, stream, cut(sample), cut(list(islice(held_out(), _HELD_OUT)))
    texts = [review.text for review in load_reviews()]
    tokenizer = train_wordpiece(texts, choices.vocab_size)
    cut = partial(pack, tokenizer=tokenizer, length=choices.length)
    windows = cut(texts)
    rows = windows if choices.recipe == "modern" else pair_rows(choices, texts, tokenizer)
    held_out = cut([review.text for review in load_reviews("validation")])
    return tokenizer, shuffled(rows, *batch), windows, held_out


def pair_rows(choices: Pretraining, texts: list[str], tokenizer: Tokenizer) -> Tensor:
    """Sentence pairs as one tensor, as `masked_batches` takes them.

    Returns (pair, [ids, mask, types, following], token) int64.
    """
    generator = torch.Generator().manual_seed(choices.seed)
    ids, mask, types, following = next_sentence_pairs(texts, tokenizer, choices.length, generator)
    return torch.stack([ids, mask.long(), types, following[:, None].expand_as(ids)], 1)


def main(arguments: list[str] | None = None) -> int:
    """Pretrain as the command line says.

    Returns the status to exit with: 0 when done, 2 when something is refused or cannot be written,
    130 when interrupted.
    """
    choices = parse(arguments)
    try:
        _, history = pretrain(choices)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from its checkpoint, if any", file=sys.stderr)
        return 130
    return 130 if history.interrupted else 0


if __name__ == "__main__":
    sys.exit(main())

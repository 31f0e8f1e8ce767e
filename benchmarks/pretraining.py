"""One step of BERT pretraining, beside Hugging Face's and beside the textbook's way to write it.

python benchmarks/pretraining.py            both sizes, about 6 minutes on two cores
python benchmarks/pretraining.py --quick    the small size with fewer rounds, under a minute

A step is forward, backward and optimizer on the same batch: 15 % of the pieces masked, labels for
the next sentence, no padding. All sides build the same model: BERT of 2018 with both heads.

Time: all sides take turns in this process, with all cores; medians over the rounds, and the ratio
to Hugging Face with its default dropout. Memory (Linux): each side runs three steps alone in a new
process, on one thread; the growth of its peak resident set over that before the model was built.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attnviz import native_bf16
from attnviz.models import BertConfig, BertForPreTraining


@dataclass(frozen=True)
class Size:
    """A model and its batch."""

    d_model: int
    n_layers: int
    n_heads: int
    vocab_size: int
    batch: int
    length: int
    rounds: int


SIZES = {
    "2×128": Size(128, 2, 4, 4_000, 64, 64, 25),
    "4×256": Size(256, 4, 4, 8_000, 32, 128, 11),
}
HUGGING_FACE = "Hugging Face, its dropout"


@dataclass
class Batch:
    """What all sides learn from."""

    ids: Tensor  # (batch, token)
    types: Tensor
    labels: Tensor
    following: Tensor  # (batch,)


def make_batch(size: Size) -> Batch:
    generator = torch.Generator().manual_seed(0)
    shape = size.batch, size.length
    ids = torch.randint(5, size.vocab_size, shape, generator=generator)
    chosen = torch.rand(shape, generator=generator).argsort(1)[:, : round(0.15 * size.length)]
    labels = torch.full(shape, -100).scatter(1, chosen, ids.gather(1, chosen))
    ids = ids.scatter(1, chosen, 4)
    types = (torch.arange(size.length) >= size.length // 2).long().expand(shape)
    following = torch.randint(0, 2, (size.batch,), generator=generator)
    return Batch(ids, types.contiguous(), labels, following)


# --- the sides ---------------------------------------------------------------------------------


def hugging_face(size: Size, dropout: float) -> tuple[nn.Module, Callable[[Batch], Tensor]]:
    from transformers import BertConfig as Config
    from transformers import BertForPreTraining as Model

    model = Model(
        Config(
            vocab_size=size.vocab_size,
            hidden_size=size.d_model,
            num_hidden_layers=size.n_layers,
            num_attention_heads=size.n_heads,
            intermediate_size=4 * size.d_model,
            max_position_embeddings=size.length,
            hidden_dropout_prob=dropout,
            attention_probs_dropout_prob=dropout,
            attn_implementation="sdpa",
        )
    )
    return (
        model,
        lambda batch: (
            model(
                input_ids=batch.ids,
                attention_mask=torch.ones_like(batch.ids),
                token_type_ids=batch.types,
                labels=batch.labels,
                next_sentence_label=batch.following,
            ).loss
        ),
    )


def ours(size: Size) -> tuple[nn.Module, Callable[[Batch], Tensor]]:
    sizes = size.vocab_size, size.d_model, size.n_layers, size.n_heads, 4 * size.d_model
    model = BertForPreTraining(BertConfig(*sizes, max_len=size.length, dropout=0.0))
    mask = torch.ones(size.batch, size.length, dtype=torch.bool)
    return (
        model,
        lambda batch: (
            model(
                batch.ids, mask, batch.types, batch.labels, batch.following, need_logits=False
            ).loss
        ),
    )


class TextbookLayer(nn.Module):
    """An encoder layer with a matrix for each of query, key and value, and weights written out."""

    def __init__(self, d_model: int, n_heads: int):
        super().__init__()
        self.n_heads = n_heads
        self.query, self.key, self.value, self.out = (nn.Linear(d_model, d_model) for _ in range(4))
        self.feed_forward = nn.Sequential(
            nn.Linear(d_model, 4 * d_model), nn.ReLU(), nn.Linear(4 * d_model, d_model)
        )
        self.norms = nn.ModuleList(nn.LayerNorm(d_model) for _ in range(2))
        self.dropout = nn.Dropout(0.1)

    def heads(self, x: Tensor) -> Tensor:
        x = x.reshape(*x.shape[:2], self.n_heads, -1).permute(0, 2, 1, 3)
        return x.reshape(-1, *x.shape[2:])

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        query, key, value = (self.heads(f(x)) for f in (self.query, self.key, self.value))
        scores = torch.bmm(query, key.transpose(1, 2)) / query.size(2) ** 0.5
        mask = mask.repeat_interleave(self.n_heads, 0)[:, None]
        weights = self.dropout(scores.masked_fill(~mask, -1e6).softmax(-1))
        mixed = torch.bmm(weights, value).reshape(len(x), self.n_heads, x.size(1), -1)
        mixed = self.out(mixed.permute(0, 2, 1, 3).reshape(x.shape))
        x = self.norms[0](x + self.dropout(mixed))
        return self.norms[1](x + self.dropout(self.feed_forward(x)))


def textbook(size: Size) -> tuple[nn.Module, Callable[[Batch], Tensor]]:
    """As in Zhang et al., "Dive into Deep Learning", sections 15.8 to 15.10: dropout 0.1, and the

    masked words are picked out before they meet the vocabulary, over an output layer of its own.
    """
    width, vocabulary = size.d_model, size.vocab_size
    model = nn.ModuleDict(
        {
            "tokens": nn.Embedding(vocabulary, width),
            "types": nn.Embedding(2, width),
            "positions": nn.Embedding(size.length, width),
            "layers": nn.ModuleList(
                TextbookLayer(width, size.n_heads) for _ in range(size.n_layers)
            ),
            "words": nn.Sequential(
                nn.Linear(width, width),
                nn.ReLU(),
                nn.LayerNorm(width),
                nn.Linear(width, vocabulary),
            ),
            "pooler": nn.Sequential(nn.Linear(width, width), nn.Tanh(), nn.Linear(width, 2)),
        }
    )
    mask = torch.ones(size.batch, size.length, dtype=torch.bool)

    def loss_of(batch: Batch) -> Tensor:
        places = torch.arange(size.length)
        x = model["tokens"](batch.ids) + model["types"](batch.types) + model["positions"](places)
        for layer in model["layers"]:
            x = layer(x, mask)
        asked = batch.labels != -100
        words = F.cross_entropy(model["words"](x[asked]), batch.labels[asked])
        return words + F.cross_entropy(model["pooler"](x[:, 0]), batch.following)

    return model, loss_of


SIDES = {  # name: how to build it, the optimizer's options, bfloat16
    HUGGING_FACE: (lambda size: hugging_face(size, 0.1), {}, False),
    "Hugging Face, no dropout": (lambda size: hugging_face(size, 0.0), {}, False),
    "Hugging Face, no dropout, bf16": (lambda size: hugging_face(size, 0.0), {}, True),
    "textbook (D2L)": (textbook, {}, False),
    "attnviz": (ours, {"fused": True}, False),
    "attnviz, bf16": (ours, {"fused": True}, True),
}


def stepper(name: str, size: Size) -> Callable[[], None]:
    """A function that makes one step of training."""
    build, options, bf16 = SIDES[name]
    torch.manual_seed(0)
    model, loss_of = build(size)
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), 1e-4, **options)
    batch = make_batch(size)

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            loss = loss_of(batch)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()

    return step


# --- time and memory ---------------------------------------------------------------------------


def seconds_of(size: Size, rounds: int) -> dict[str, float]:
    steps = {name: stepper(name, size) for name in SIDES}
    taken = {name: [] for name in SIDES}
    for i in range(rounds + 3):
        for name, step in steps.items():
            begun = time.perf_counter()
            step()
            if i >= 3:  # the first ones warm up
                taken[name].append(time.perf_counter() - begun)
    return {name: median(some) for name, some in taken.items()}


def resident(mark: str) -> int:
    """Bytes, from the kernel: VmRSS now, VmHWM at the peak."""
    with open("/proc/self/status") as file:
        line = next(line for line in file if line.startswith(mark))
    return 1024 * int(line.split()[1])


def peak_of(name: str, size: Size) -> int:
    """Bytes that three steps needed; to be run alone in a process."""
    import transformers  # noqa: F401  what all sides load is no difference between them

    torch.set_num_threads(1)
    torch.nn.Linear(8, 8)(torch.randn(64, 8)).sum().backward()  # libraries load what they need
    before = resident("VmRSS")
    step = stepper(name, size)
    for _ in range(3):
        step()
    return resident("VmHWM") - before


def peak_alone(name: str, size_name: str) -> int:
    arguments = [sys.executable, __file__, "--peak", name, size_name]
    steady = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536"}  # freed tensors go back at once
    return json.loads(subprocess.check_output(arguments, env=steady, text=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="the small size, fewer rounds")
    parser.add_argument("--peak", nargs=2, metavar=("SIDE", "SIZE"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.peak:
        print(peak_of(options.peak[0], SIZES[options.peak[1]]))
        return
    for size_name in list(SIZES)[: 1 if options.quick else None]:
        size = SIZES[size_name]
        seconds = seconds_of(size, 7 if options.quick else size.rounds)
        peaks = {name: peak_alone(name, size_name) for name in SIDES}
        print(f"\n{size_name}: {size.batch} × {size.length} of {size.vocab_size} pieces")
        print(f"{'':32}{'ms':>8}{'pieces/s':>10}{'speed':>8}{'peak MiB':>10}{'memory':>8}")
        for name in SIDES:
            rate = size.batch * size.length / seconds[name]
            speed = seconds[HUGGING_FACE] / seconds[name]
            memory = peaks[name] / peaks[HUGGING_FACE]
            print(
                f"{name:32}{1e3 * seconds[name]:8.1f}{rate:10,.0f}{speed:7.2f}×"
                f"{peaks[name] / 2**20:10.0f}{memory:7.2f}×"
            )
        textbook = seconds["textbook (D2L)"]
        plain, half = (textbook / seconds[name] for name in ("attnviz", "attnviz, bf16"))
        print(f"beside the textbook: attnviz {plain:.2f}×, with bf16 {half:.2f}×")
    if not native_bf16(torch.device("cpu")):
        print("\nOn this processor attnviz does not choose bfloat16: read the rows in float32.")


if __name__ == "__main__":
    main()

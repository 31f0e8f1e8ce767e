"""What each step towards fast inference brings, all sides taking turns in this process.

python benchmarks/inference.py             about 12 minutes on two cores
python benchmarks/inference.py --quick     without training: speed and size alone, 2 minutes

Attention: plain and fused, 4,096 tokens, two heads of 64: seconds and the memory that is taken.
Encoder: MiniLM in float32 and in 8 bits (`to_int8` under torch.compile, ONNX Runtime, PyTorch's own
dynamic quantisation, and torchao's where `python -m pip install torchao` was run), 32 texts of 96
pieces, and one text alone: seconds, size on disk, and the cosine between the vectors of texts that
the two give.
Ladder: MiniLM fine-tuned for a minute on reviews of both sources, then step by step as in lesson
10, with students that learn for two minutes each: accuracy on 1,600 held-out reviews, agreement
with the first, texts a second, latency, size of the file and of the model in memory.
"""

import argparse
import copy
import os
import tempfile
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.ao.quantization import per_channel_dynamic_qconfig, quantize_dynamic

from attnviz import data, most_memory, timeit
from attnviz.layers import attention_weights, keep_heads
from attnviz.models import (
    BertForSequenceClassification,
    OnnxClassifier,
    export_onnx,
    load_minilm,
    mean_over,
    onnx_memory,
    round_onnx,
    to_int8,
)
from attnviz.seeing import capture
from attnviz.training import distillation_loss, train, warmup_linear

LENGTH, MEASURED, SPEED = 160, 1_600, 128  # pieces, held-out texts, texts that are timed
Run = Callable[[list[list[int]]], Tensor]


def attention(rounds: int) -> None:
    query, key, value = torch.randn(3, 1, 2, 4096, 64)
    sides = {
        "plain": lambda: attention_weights(query, key) @ value,
        "fused": lambda: F.scaled_dot_product_attention(query, key, value),
    }
    taken = timeit(sides, rounds)
    memory = {name: most_memory(run) for name, run in sides.items()}
    print("attention, 4,096 tokens")
    for name, seconds in taken.items():
        print(f"  {name:8}{1000 * seconds.p50:8.0f} ms{memory[name] / 1e6:8.1f} MB")
    print(
        f"  fused: {taken['plain'].p50 / taken['fused'].p50:.1f} times as fast, "
        f"{memory['plain'] / memory['fused']:.0f} times less memory"
    )


def encoder(rounds: int, folder: Path) -> None:
    torch.manual_seed(0)
    minilm, tokenizer = load_minilm(dropout=0.0)
    model = BertForSequenceClassification(minilm, 384, "mean").eval()
    with torch.no_grad():  # the logits are then the vectors of the texts themselves
        model.classifier.weight.copy_(torch.eye(384))
        model.classifier.bias.zero_()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torchs = quantize_dynamic(copy.deepcopy(model), {nn.Linear: per_channel_dynamic_qconfig})
    typical = [review.text for review in data.load_reviews("train")[::400]][:64]
    small = to_int8(model, *data.padded(data.encode_texts(typical, tokenizer, 128)))
    paths = {"float32": export_onnx(model, folder / "float32.onnx")}
    paths["int8"] = round_onnx(paths["float32"], folder / "int8.onnx")
    sides = {
        "float32": model,
        "float32, torch.compile": torch.compile(model, dynamic=True),
        "int8, torch.compile": torch.compile(small, dynamic=True),
        "int8, PyTorch's own": torchs,
        "float32, ONNX Runtime": OnnxClassifier(paths["float32"]),
        "int8, ONNX Runtime": OnnxClassifier(paths["int8"]),
    }
    if find_spec("torchao"):
        sides["int8, torchao"] = torch.compile(by_torchao(model), dynamic=True)
    texts = [review.text for review in data.load_reviews("test")[:: 2_598 // 32]][:32]
    real = data.padded(data.encode_texts(texts, tokenizer, 128))
    with torch.inference_mode():
        right = model(*real).logits
        cosines = {k: F.cosine_similarity(m(*real).logits, right) for k, m in sides.items()}
        for shape in ((32, 96), (1, 96)):
            ids, mask = torch.randint(1000, 30_000, shape), torch.ones(shape, dtype=torch.bool)
            calls = {name: lambda side=side: side(ids, mask) for name, side in sides.items()}  # noqa: B023
            taken = timeit(calls, rounds * (3 if shape[0] == 1 else 1), warm_up=2)
            print(f"MiniLM, {shape[0]} × {shape[1]} pieces")
            for name, seconds in taken.items():
                print(
                    f"  {name:24}{1000 * seconds.p50:8.1f} ms"
                    f"{taken['float32'].p50 / seconds.p50:7.2f} ×   cosine "
                    f"{cosines[name].mean():.4f}, least {cosines[name].min():.4f}"
                )
    for name, one in {"PyTorch": model, "PyTorch, int8": small}.items():
        paths[name] = folder / f"{name}.safetensors"
        save_file(one.state_dict(), paths[name])
    sizes = {k: os.path.getsize(path) / 1e6 for k, path in paths.items()}
    for before, after in (("float32", "int8"), ("PyTorch", "PyTorch, int8")):
        print(f"  on disk: {sizes[before]:.1f} MB, {sizes[after]:.1f} MB", end=", ")
        print(f"{sizes[before] / sizes[after]:.2f} times smaller")


def by_torchao(model: nn.Module) -> nn.Module:
    """Linear layers alone in 8 bits, a scale for each token and each row of weights."""
    from torchao.quantization import Int8DynamicActivationInt8WeightConfig, quantize_

    small = copy.deepcopy(model)
    quantize_(small, Int8DynamicActivationInt8WeightConfig(set_inductor_config=False))
    return small


class Reviews:
    """Texts of both sources, half and half, and batches of texts of nearly the same length."""

    def __init__(self, split: str, n: int, tokenizer: object):
        generator = torch.Generator().manual_seed(0)
        chosen = []
        for source in ("imdb", "rotten_tomatoes"):
            reviews = data.load_reviews(split, source)
            order = torch.randperm(len(reviews), generator=generator)[: n // 2]
            chosen += [reviews[i] for i in order]
        chosen = [chosen[i] for i in torch.randperm(len(chosen), generator=generator)]
        self.rows = data.encode_texts([review.text for review in chosen], tokenizer, LENGTH)
        self.labels = torch.tensor([int(review.positive) for review in chosen])
        self._draw = data.shuffled(torch.arange(len(self.rows)), 128)

    def batch(self, step: int) -> dict[str, Tensor]:
        chosen = self._draw(step // 8)
        chosen = chosen[torch.tensor([len(self.rows[i]) for i in chosen]).argsort()]
        chosen = chosen.view(8, 16)[(3 * step) % 8]
        ids, mask = data.padded([self.rows[i] for i in chosen])
        return {"input_ids": ids, "mask": mask, "labels": self.labels[chosen]}


def fit(
    model: BertForSequenceClassification,
    n_frozen: int,
    reviews: Reviews,
    loss_of: Callable[[nn.Module, dict[str, Tensor]], Tensor],
    seconds: float,
    rate: float = 2e-4,
) -> BertForSequenceClassification:
    """Train the classifier and all blocks but the lowest."""
    model.requires_grad_(False)
    blocks = model.encoder.blocks[n_frozen:].requires_grad_(True)
    head = model.classifier.requires_grad_(True)
    groups = [
        {"params": [*blocks.parameters()], "lr": rate},
        {"params": [*head.parameters()], "lr": 1e-3},
    ]
    optimizer = torch.optim.AdamW(groups, weight_decay=0.01, fused=True)
    train(model, reviews.batch, loss_of, optimizer, seconds=seconds, schedule=warmup_linear())
    return model.eval()


def least_important(model: BertForSequenceClassification, reviews: Reviews, n: int) -> set:
    """The n heads (layer, head) whose fading the loss would feel least (Michel et al. 2019)."""
    felt = torch.zeros(6, 12)
    for step in range(8):
        with capture(model, with_gradients=True) as seen:
            model(**reviews.batch(1000 + step)).loss.backward()
        for layer, record in enumerate(seen):
            gate = (record.weights * record.weights.grad).detach().sum((2, 3))  # (batch, heads)
            felt[layer] += gate.abs().mean(0)
    return {divmod(i, felt.size(1)) for i in felt.flatten().argsort()[:n].tolist()}


def student(
    teacher: BertForSequenceClassification,
    start: BertForSequenceClassification,
    n_layers: int,
    reviews: Reviews,
) -> nn.Module:
    """The lowest layers of start, trained to give the teacher's vectors and logits."""

    def judged(model: nn.Module, ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        pooled = mean_over(model.encoder(ids, mask).last_hidden_state, mask)
        return pooled, model.classifier(pooled)

    def loss_of(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        ids, mask = batch["input_ids"], batch["mask"]
        with torch.no_grad():
            v, t = judged(teacher, ids, mask)
        u, s = judged(model, ids, mask)
        return distillation_loss(s, t) + F.mse_loss(u, v) / v.var()

    small = copy.deepcopy(start)
    small.encoder.blocks = small.encoder.blocks[:n_layers]
    return fit(small, n_layers - 2, reviews, loss_of, 120, rate=4e-4)


@torch.no_grad()
def serve(model: Callable, rows: list[list[int]], batch_size: int, by_length: bool) -> Tensor:
    order = torch.arange(len(rows))
    if by_length:
        order = torch.tensor([len(row) for row in rows]).argsort()
    logits = torch.empty(len(rows), 2)
    for some in order.split(batch_size):
        logits[some] = model(*data.padded([rows[i] for i in some])).logits
    return logits


def serve_alone(model: OnnxClassifier, rows: list[list[int]]) -> Tensor:
    """Every text by itself, one on each core."""
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        return torch.cat([*pool.map(lambda row: model(*data.padded([row])).logits, rows)])


def ladder(rounds: int, folder: Path) -> None:
    torch.manual_seed(0)
    minilm, tokenizer = load_minilm(dropout=0.0)
    reviews, held_out = (
        Reviews(s, n, tokenizer) for s, n in (("train", 12_000), ("test", MEASURED))
    )
    model = BertForSequenceClassification(minilm, 2, "mean")
    model = fit(model, 3, reviews, lambda model, batch: model(**batch).loss, 60)
    fewer = copy.deepcopy(model)
    gone = least_important(model.requires_grad_(False), reviews, 8)
    for layer, block in enumerate(fewer.encoder.blocks):
        kept = [head for head in range(12) if (layer, head) not in gone] or [0]
        block.attention = keep_heads(block.attention, kept)
    whole = export_onnx(model, folder / "whole.onnx")
    smaller = {
        "8 of 72 heads removed": fewer,
        **{f"student, {n} layers": student(model, fewer, n, reviews) for n in (5, 4, 2)},
    }
    files = {"one on each core": whole, "int8": round_onnx(whole, folder / "int8.onnx")}
    for name, one in smaller.items():
        exported = export_onnx(one, folder / "exported.onnx")
        files[name] = round_onnx(exported, folder / f"{name}.onnx")
    runtime = OnnxClassifier(whole)
    steps: dict[str, Run] = {
        "float32, as they come": lambda rows: serve(model, rows, 32, False),
        "16 at a time, by length": lambda rows: serve(model, rows, 16, True),
        "ONNX Runtime": lambda rows: serve(runtime, rows, 16, True),
    }
    for name, path in files.items():
        single = OnnxClassifier(path, n_threads=1)
        steps[name] = lambda rows, single=single: serve_alone(single, rows)
    sizes = {name: os.path.getsize(files.get(name, whole)) for name in steps}
    in_pytorch = sum(p.nbytes for p in model.parameters())
    memory = dict.fromkeys(("float32, as they come", "16 at a time, by length"), in_pytorch)
    memory |= dict.fromkeys(("ONNX Runtime", "one on each core"), onnx_memory(whole))
    memory |= {name: onnx_memory(files[name]) for name in ("int8", *smaller)}
    report(steps, sizes, memory, held_out, rounds)


def report(
    steps: dict[str, Run],
    sizes: dict[str, int],
    memory: dict[str, int],
    held_out: Reviews,
    rounds: int,
) -> None:
    few = held_out.rows[:SPEED]
    many = timeit({name: lambda run=run: run(few) for name, run in steps.items()}, rounds)
    texts = {name: iter(held_out.rows) for name in steps}
    single = timeit(
        {name: lambda run=run, name=name: run([next(texts[name])]) for name, run in steps.items()},
        rounds=100,
        warm_up=5,
    )
    verdicts = {name: run(held_out.rows).argmax(-1) for name, run in steps.items()}
    first = next(iter(steps))
    print(f"{'':24}right  agrees  texts/s   times      p50      p95     file   memory")
    for name, size in sizes.items():
        right = (verdicts[name] == held_out.labels).float().mean()
        agrees = (verdicts[name] == verdicts[first]).float().mean()
        p50, p95 = 1000 * single[name].p50, 1000 * single[name].p95
        print(
            f"{name:24}{right:.1%} {agrees:7.1%}{SPEED / many[name].p50:9.0f}"
            f"{many[first].p50 / many[name].p50:8.1f}{p50:6.1f} ms{p95:6.1f} ms{size / 1e6:6.1f} MB"
            f"{memory[name] / 1e6:6.1f} MB"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="without the ladder, which trains")
    parser.add_argument("--rounds", type=int, default=10)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        attention(options.rounds)
        encoder(options.rounds, Path(folder))
        if not options.quick:
            ladder(options.rounds, Path(folder))


if __name__ == "__main__":
    main()

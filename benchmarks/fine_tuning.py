"""Who judges film reviews best, with how many labels? The contests that lesson 08 draws.

python benchmarks/fine_tuning.py                  every contest, about an hour on two cores
python benchmarks/fine_tuning.py --only ours      those of one contestant; the other rows stay
python benchmarks/fine_tuning.py --labels 200     those with so many labels; the other rows stay

Each run is a line of data/fine_tuning.jsonl, written as soon as it has ended: who learned from how
many labels, in how many steps of 16 reviews, and which held-out reviews it judged wrong. With up
to 1,000 labels each contest is held three times, with other reviews and another random head; then
once with 4,000, each review once. The lesson holds some of them again and compares.
"""

import argparse
import copy
import json
import os
import platform
from collections.abc import Callable
from datetime import date
from functools import cache
from pathlib import Path

import torch
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from tokenizers import Tokenizer
from torch import Tensor, nn

import attnviz as av
from attnviz import data
from attnviz.models import BertEncoder, BertForSequenceClassification, load_bert, load_minilm
from attnviz.training import train, warmup_linear

FOLDER = Path(__file__).parents[1] / "data"
RESULTS = FOLDER / "fine_tuning.jsonl"
NAMES = ("bag of words", "from scratch", "ours", "MiniLM")
RATES = {"from scratch": 1e-3, "ours": 1e-3, "MiniLM": 2e-4}  # of the encoder; the head's is 1e-3
STEPS = {100: 80, 200: 80, 1_000: 125}  # of 16 reviews each; more labels never get fewer
MANY = 4_000  # labels of the last contest
SEEDS = 3
LEARNED, ASKED, MEASURED = 96, 128, 500  # pieces to learn from and to be asked with, reviews
BF16 = av.native_bf16(torch.device("cpu"))


@cache
def corpus() -> tuple[list[str], Tensor, list[str], Tensor]:
    """Reviews to learn from with their labels, and 2,000 held-out ones with theirs."""
    reviews, held_out = (data.load_reviews(split, "imdb") for split in ("train", "test"))
    chosen = torch.randperm(len(held_out), generator=torch.Generator().manual_seed(0))[:2000]
    both = reviews, [held_out[i] for i in chosen]  # the file has all negative ones first
    texts, held_out_texts = ([review.text for review in some] for some in both)
    labels, held_out_labels = (torch.tensor([int(r.positive) for r in some]) for some in both)
    return texts, labels, held_out_texts, held_out_labels


@cache
def pretrained(name: str) -> tuple[BertEncoder, Tokenizer]:
    if name == "MiniLM":
        return load_minilm(dropout=0.0)
    model, tokenizer = load_bert(FOLDER / "reviews_bert.safetensors")
    return model.encoder, tokenizer


def network(name: str) -> nn.Module:
    """A contestant before it has seen a label."""
    encoder = copy.deepcopy(pretrained(name)[0])
    if name == "from scratch":
        encoder = BertEncoder(encoder.config)
    if name == "MiniLM":
        parts = [part for n, part in encoder.named_children() if "embedding" in n]
        for part in (*parts, *encoder.blocks[:3]):
            part.requires_grad_(False)
    return BertForSequenceClassification(encoder, 2, "mean")


def fine_tune(
    model: nn.Module, batch_of: Callable[[int], dict[str, Tensor]], rate: float, steps: int
) -> None:
    trained = {n: p for n, p in model.named_parameters() if p.requires_grad}
    groups = [
        {"params": [p for n, p in trained.items() if not n.startswith("classifier")], "lr": rate},
        {"params": [p for n, p in trained.items() if n.startswith("classifier")], "lr": 1e-3},
    ]
    optimizer = torch.optim.AdamW(groups, weight_decay=0.01, fused=True)
    train(
        model, batch_of, lambda model, batch: model(**batch).loss, optimizer,
        steps=steps, schedule=warmup_linear(), bf16=BF16, show=False,
    )  # fmt: skip


@torch.no_grad()
def answers(model: nn.Module, rows: list[list[int]]) -> Tensor:
    """The label that a model gives each row, (row,)."""
    model.eval()
    given = torch.empty(len(rows), dtype=torch.int64)
    for some in torch.tensor([len(row) for row in rows]).argsort().split(64):
        ids, mask = data.padded([rows[i] for i in some])
        with torch.autocast("cpu", torch.bfloat16, enabled=BF16):
            given[some] = model(ids, mask).logits.argmax(-1)
    return given


def run(name: str, n: int, seed: int) -> dict:
    """One contestant, n labels: a line of the results."""
    texts, labels, held_out, right = corpus()
    last = n >= MANY
    chosen = torch.randperm(len(texts), generator=torch.Generator().manual_seed(seed))[:n].tolist()
    learned_texts, learned_labels = [texts[i] for i in chosen], labels[chosen]
    held_out = held_out if last else held_out[:MEASURED]
    line = {"name": name, "labels": n, "seed": seed, "held_out": len(held_out)}
    if name == "bag of words":
        counts = TfidfVectorizer(ngram_range=(1, 2), min_df=2, sublinear_tf=True)
        bag = make_pipeline(counts, LogisticRegression(C=10, max_iter=300))
        given = torch.tensor(bag.fit(learned_texts, learned_labels).predict(held_out))
    else:
        learned, asked = (128, 256 if name == "MiniLM" else 128) if last else (LEARNED, ASKED)
        steps = n // 16 if last else STEPS[n]
        line |= {"steps": steps, "pieces": learned, "pieces_asked": asked}
        tokenizer = pretrained(name)[1]
        av.seed(seed)
        model = network(name)
        rows = data.encode_texts(learned_texts, tokenizer, learned)
        fine_tune(model, data.labelled_batches(rows, learned_labels, 16, seed), RATES[name], steps)
        given = answers(model, data.encode_texts(held_out, tokenizer, asked))
    wrong = (given != right[: len(held_out)]).nonzero().flatten().tolist()
    return line | {"wrong": wrong, "date": date.today().isoformat(), "machine": machine()}


def machine() -> str:
    processor = torch.cpu.get_capabilities().get("cpu_name") or platform.machine()
    return f"{processor}, {os.cpu_count()} cores, {'bfloat16' if BF16 else 'float32'}"


def write(line: dict) -> None:
    """Put a line into the file, in place of the one of the same contest."""

    def contest(line: dict) -> tuple:
        return line["labels"], NAMES.index(line["name"]), line["seed"]

    old = RESULTS.read_text(encoding="utf-8").splitlines() if RESULTS.exists() else []
    lines = {contest(row): row for row in [*map(json.loads, old), line]}
    text = "".join(json.dumps(lines[key]) + "\n" for key in sorted(lines))
    RESULTS.write_text(text, encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--only", choices=NAMES, help="one contestant")
    parser.add_argument("--labels", type=int, choices=[*STEPS, MANY])
    options = parser.parse_args()
    for n in [options.labels] if options.labels else [*STEPS, MANY]:
        for name in [options.only] if options.only else NAMES:
            lines = [run(name, n, seed) for seed in range(1 if n == MANY else SEEDS)]
            shares = [1 - len(line["wrong"]) / line["held_out"] for line in lines]
            print(f"{n:7,d} labels  {name:14}", *(f"{share:.1%}" for share in shares), flush=True)
            for line in lines:
                write(line)


if __name__ == "__main__":
    main()

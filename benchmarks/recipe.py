"""What each trick of the modern BERT recipe is worth, and both recipes against the clock.

python benchmarks/recipe.py                  every row, three seeds: about 90 minutes on two cores
python benchmarks/recipe.py --steps 150 --seeds 1    a quick look, about 5 minutes
python benchmarks/recipe.py --race 300       held-out loss against seconds, both recipes

Each row changes one thing in the recipe. Learning: the share of hidden pieces of held-out reviews
that is found after the same number of steps. Speed: pieces per second of a step beside the recipe's
own, all rows taking turns in this process; for sentence pairs, padding does not count as pieces.
Both are means over the seeds, with their range.
"""

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from statistics import mean, median

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer
from torch import Tensor, nn

from attnviz import native_bf16
from attnviz.data import IGNORED, load_reviews, pack, shuffled, train_wordpiece
from attnviz.models import BertConfig, BertForPreTraining
from attnviz.training import Together, muon_and_adamw, train, warmup_linear
from attnviz.training.measure import guess_by_frequency, measure_masked
from attnviz.training.pretrain import (
    Pretraining,
    Step,
    make_optimizer,
    masked_batches,
    pair_rows,
    pretraining_loss,
)

LENGTH, VOCABULARY, MEASURED = 64, 4_000, 1_500  # pieces, pieces, windows
ROUNDS = 15
BF16 = native_bf16(torch.device("cpu"))  # or else float32 is the faster one


def everywhere(model: BertForPreTraining, step: Step) -> Tensor:
    """The loss with logits worked out at all places, asked for or not."""
    logits = model(step.ids).logits
    return F.cross_entropy(logits.flatten(0, 1), step.labels.flatten(), ignore_index=IGNORED)


def last_layer_everywhere(model: BertForPreTraining, step: Step) -> Tensor:
    """The loss with logits only where they are asked for, and the last layer at all places."""
    hidden = model.encoder(step.ids).last_hidden_state
    asked = step.labels != IGNORED
    logits = F.linear(hidden[asked], model.encoder.token_embedding.weight, model.output_bias)
    return F.cross_entropy(logits, step.labels[asked])


def in_one_piece(model: BertForPreTraining, step: Step) -> Tensor:
    """The loss with the logits of all questions in memory at once."""
    return model(step.ids, labels=step.labels).loss


def adamw(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.AdamW(
        model.parameters(), 4e-3, betas=(0.9, 0.98), weight_decay=0.01, fused=True
    )


def unfused(model: nn.Module) -> torch.optim.Optimizer:
    muon, fused = make_optimizer(Pretraining(steps=1), model).parts
    rest = [p for group in fused.param_groups for p in group["params"]]
    return Together([muon, torch.optim.AdamW(rest, 2e-2, betas=(0.9, 0.98), foreach=False)])


def torchs_muon(model: nn.Module) -> torch.optim.Optimizer:
    """The same steps, worked out in bfloat16 and through the whole matrices."""
    muon, rest = make_optimizer(Pretraining(steps=1), model).parts
    matrices = muon.param_groups[0]["params"]
    theirs = torch.optim.Muon(matrices, 2e-2, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    return Together([theirs, rest])


def shorter_memory(model: nn.Module) -> torch.optim.Optimizer:
    return muon_and_adamw(model, 2e-2, momentum=0.85)


@dataclass(frozen=True)
class Row:
    """What is other than in the recipe.

    config: sizes and kinds of the model.   choices: of `Pretraining`.   pairs: sentence pairs with
    padding instead of packed windows.   learns: whether the result may differ, or the speed alone.
    """

    config: dict = field(default_factory=dict)
    choices: dict = field(default_factory=dict)
    optimizer: Callable[[nn.Module], torch.optim.Optimizer] | None = None
    loss: Callable[[nn.Module, Step], Tensor] = pretraining_loss
    bf16: bool = BF16
    pairs: bool = False
    learns: bool = True


PAIRS = {"n_types": 2}
ROWS = {
    "the recipe": Row(),
    "AdamW instead of Muon": Row(optimizer=adamw),
    "Muon's momentum 0.85 instead of 0.95": Row(optimizer=shorter_memory),
    "post-LN instead of pre-LN": Row({"pre_norm": False}),
    "learned positions instead of rotary": Row({"rotary": False, "nearby_heads": False}),
    "heads that begin by looking anywhere": Row({"nearby_heads": False}),
    "rotary wavelengths up to 10,000 · 2π": Row({"rotary_base": 10_000.0}),
    "dropout 0.1": Row({"dropout": 0.1}),
    "a transform in front of the logits": Row({"head_transform": True}),
    "15 % hidden instead of 30 %": Row(choices={"mask_rate": 0.15}),
    "40 % hidden": Row(choices={"mask_rate": 0.4}),
    "sentence pairs instead of packing": Row(PAIRS, pairs=True),
    "sentence pairs with next-sentence loss": Row(PAIRS | {"next_sentence": True}, pairs=True),
    "float32" if BF16 else "bfloat16": Row(bf16=not BF16),
    "logits at all places": Row(loss=everywhere, learns=False),
    "the last layer at all places": Row(loss=last_layer_everywhere, learns=False),
    "float32, loss of all in one piece": Row(loss=in_one_piece, bf16=False, learns=False),
    "torch's own Muon": Row(optimizer=torchs_muon, learns=False),
    "AdamW not fused": Row(optimizer=unfused, learns=False),
}


@cache
def corpus() -> tuple[Tokenizer, Tensor, Tensor, Tensor]:
    """The tokenizer, packed windows, sentence pairs as the 2018 recipe takes them, and held out."""
    texts = [review.text for review in load_reviews()]
    tokenizer = train_wordpiece(texts, VOCABULARY)
    pairs = pair_rows(Pretraining(steps=1, length=LENGTH), texts, tokenizer)
    held_out = pack([review.text for review in load_reviews("validation")], tokenizer, LENGTH)
    return tokenizer, pack(texts, tokenizer, LENGTH), pairs, held_out[:MEASURED]


class Run:
    """A model of a row, its batches and its optimizer."""

    def __init__(self, row: Row, seed: int, recipe: str = "modern"):
        tokenizer, windows, pairs, _ = corpus()
        self.row, self.choices = row, Pretraining(steps=1, recipe=recipe, seed=seed, **row.choices)
        kind = BertConfig.modern if recipe == "modern" else BertConfig
        sizes = {"d_model": 128, "n_layers": 2, "n_heads": self.choices.n_heads, "d_ff": 512}
        sizes |= {"vocab_size": VOCABULARY, "max_len": LENGTH}
        torch.manual_seed(seed)
        self.model = BertForPreTraining(kind(**sizes | row.config)).train()
        rows = pairs if row.pairs else windows
        batch_of = shuffled(rows, self.choices.batch_size, seed)
        self.step_of = masked_batches(self.choices, tokenizer, batch_of)
        make = row.optimizer or (lambda model: make_optimizer(self.choices, model))
        self.optimizer = make(self.model)

    def loss_of(self, model: nn.Module, step: Step) -> Tensor:
        if step.following is not None and not model.config.next_sentence:
            step = step._replace(following=None)
        return self.row.loss(model, step)

    def one_step(self, number: int) -> None:
        step = self.step_of(number)
        with torch.autocast("cpu", torch.bfloat16, enabled=self.row.bf16):
            loss = self.loss_of(self.model, step)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()

    def learn(self, **end: float) -> float:
        """The share of hidden held-out pieces that is found at the end."""
        train(
            self.model,
            self.step_of,
            self.loss_of,
            self.optimizer,
            schedule=warmup_linear(),
            bf16=self.row.bf16,
            show=False,
            **end,
        )
        tokenizer, *_, held_out = corpus()
        return measure_masked(self.model, held_out, tokenizer).accuracy


def speeds(seed: int) -> dict[str, float]:
    """Pieces per second of each row, relative to the recipe's."""
    runs = {name: Run(row, seed) for name, row in ROWS.items()}
    taken = {name: [] for name in ROWS}
    for i in range(ROUNDS + 3):
        for name, run in runs.items():
            begun = time.perf_counter()
            run.one_step(i)
            if i >= 3:
                taken[name].append(time.perf_counter() - begun)
    _, _, pairs, _ = corpus()
    useful = pairs[:, 1].double().mean().item()  # the rest is padding
    rates = {n: (useful if ROWS[n].pairs else 1) / median(taken[n]) for n in ROWS}
    return {name: rate / rates["the recipe"] for name, rate in rates.items()}


def race(seconds: float) -> None:
    """Held-out loss of both recipes at some moments of the same time."""
    tokenizer, windows, _, held_out = corpus()
    guessed = guess_by_frequency(windows, held_out, tokenizer)
    print(f"guessing by frequency: loss {guessed.loss:.3f}, found {guessed.accuracy:.1%}")
    for name, recipe, row in [("modern", "modern", Row()), ("2018", "2018", Row(pairs=True))]:
        print(f"{name}\n{'seconds':>8}{'loss':>8}{'found':>8}")
        for share in (0.1, 0.25, 0.5, 1.0):  # each with its own schedule down to zero
            run = Run(row, 0, recipe)
            run.learn(seconds=share * seconds)
            found = measure_masked(run.model, held_out, tokenizer)
            print(f"{share * seconds:8.0f}{found.loss:8.3f}{found.accuracy:8.1%}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--steps", type=int, default=750, help="of each training")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--race", type=float, metavar="SECONDS", help="only this")
    options = parser.parse_args()
    if options.race:
        race(options.race)
        return
    relative = [speeds(seed) for seed in range(options.seeds)]
    print(f"{'':40}{'speed':>22}{f'found after {options.steps} steps':>28}")
    for name, row in ROWS.items():
        each = [rates[name] for rates in relative]
        speed, found = f"{mean(each):.2f}× ({min(each):.2f} to {max(each):.2f})", ""
        if row.learns:
            each = [Run(row, seed).learn(steps=options.steps) for seed in range(options.seeds)]
            found = f"{mean(each):.1%} ({min(each):.1%} to {max(each):.1%})"
        print(f"{name:40}{speed:>22}{found:>28}", flush=True)


if __name__ == "__main__":
    main()

"""All choices of a pretraining, what each may be, and the command's options made from them."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from math import isfinite
from typing import Literal

from attnviz.checks import check_fields, check_number, check_whole
from attnviz.extras import needed

Range = tuple[str, Callable[[float], bool]]  # in words, and whether a number is in it


def _at_least(least: float) -> Range:
    return f"at least {least}", lambda number: number >= least


def _between(least: float, most: float) -> Range:
    return f"between {least} and {most}", lambda number: least <= number <= most


_WHOLE: dict[str, Range] = {
    "steps": _at_least(1),
    "vocab_size": _at_least(6),  # five are special
    "length": _at_least(2),
    "d_model": _at_least(1),
    "n_layers": _at_least(1),
    "n_heads": _at_least(1),
    "d_ff": _at_least(1),
    "batch_size": _at_least(1),
    "accumulate": _at_least(1),
    "seed": _between(0, 2**32 - 1),
}
_REAL: dict[str, Range] = {
    "minutes": ("more than 0", lambda number: number > 0),
    "learning_rate": _at_least(0),
    "warmup": _between(0, 1),
    "mask_rate": ("more than 0 and at most 1", lambda number: 0 < number <= 1),
    "save_every": _at_least(0),
}


@dataclass(frozen=True)
class Pretraining:
    """All choices of a pretraining; the command's options are made from it.

    Raises ValueError for a number out of its range or choices that exclude each other, TypeError
    for what is no number.
    """

    # where the model goes, with log (.jsonl) and checkpoint (.pt) beside it; instead of their
    # endings it gets .safetensors
    output: str = "bert.safetensors"

    # "reviews", or a .txt, .json or .jsonl file, or a dataset of the Hugging Face hub
    corpus: str = "reviews"

    column: str = "text"  # where the texts stand in such a file or dataset

    # "2018" is post-LN with dropout, sentence pairs and AdamW
    recipe: Literal["modern", "2018"] = "modern"

    minutes: float | None = None  # how long to train, more than 0; give this or steps
    steps: int | None = None  # how many steps to train, at least 1
    vocab_size: int = 4_000  # pieces to learn at most, at least 6
    length: int = 64  # pieces of a window, at least 2; 5 for "2018"

    # width of the vectors, at least 1: a multiple of n_heads, for "modern" of twice as many
    d_model: int = 128

    n_layers: int = 2  # at least 1
    n_heads: int = 4  # at least 1
    d_ff: int = 512  # width within the feed-forward part, at least 1
    batch_size: int = 64  # windows of a step over all processes, at least 1

    # parts in which each process takes its share of the windows, at least 1
    accumulate: int = 1

    # at least 0; when not given, 0.02 for "modern" and 0.001 for "2018"
    learning_rate: float | None = None

    warmup: float = 0.1  # share of training in which the rate rises, between 0 and 1

    # share of pieces to hide, more than 0 and at most 1; when not given, 0.3 for "modern" and 0.15
    # for "2018"
    mask_rate: float | None = None

    whole_words: bool = False  # hide all pieces of a word together
    seed: int = 0  # of all that is left to chance, between 0 and 4294967295
    float32: bool = False  # even where the device computes in bfloat16 by itself
    compile: bool = False  # with torch.compile: worth it for long trainings on a GPU
    save_every: float = 60.0  # seconds between checkpoints, at least 0

    def __post_init__(self) -> None:
        for name in ("output", "corpus"):
            object.__setattr__(self, name, os.fspath(getattr(self, name)))  # a Path is welcome
        if not os.path.basename(self.output):
            raise ValueError(f"output must be the name of a file, got {self.output!r}")
        for name in ("whole_words", "float32", "compile"):
            if not isinstance(getattr(self, name), bool):
                raise TypeError(f"{name} must be True or False, got {getattr(self, name)!r}")
        if self.recipe not in ("modern", "2018"):
            raise ValueError(f"recipe must be 'modern' or '2018', got {self.recipe!r}")
        if (self.minutes is None) == (self.steps is None):
            raise ValueError(
                f"give either minutes or steps, got minutes={self.minutes}, steps={self.steps}"
            )
        check_fields(self, _WHOLE | _REAL, _checked)
        self._check_together()

    def _check_together(self) -> None:
        """Raise ValueError where choices that are right by themselves do not fit together."""
        multiple = self.n_heads if self.recipe == "2018" else 2 * self.n_heads
        if self.d_model % multiple:
            twice = "" if self.recipe == "2018" else "2 · "  # rotary positions turn pairs
            raise ValueError(
                f"d_model must be a multiple of {twice}n_heads, "
                f"got d_model={self.d_model}, n_heads={self.n_heads}"
            )
        if self.recipe == "2018" and self.corpus != "reviews":
            raise ValueError("recipe '2018' pairs sentences of the reviews: leave corpus as it is")
        if self.recipe == "2018" and self.length < 5:
            raise ValueError(f"length must be at least 5 for recipe '2018', got {self.length}")
        if self.corpus == "reviews" and self.column != "text":
            raise ValueError(f"the reviews have no column {self.column!r}: leave it as it is")


def _checked(name: str, number: object) -> float | None:
    if number is None and getattr(Pretraining, name) is None:
        return None
    if name in _WHOLE:
        return check_number(name, check_whole(name, number), *_WHOLE[name])
    words, is_in = _REAL[name]
    return check_number(name, number, words, lambda number: isfinite(number) and is_in(number))


def parse(arguments: list[str] | None = None) -> Pretraining:
    """The choices from the command line.

    Exits with status 2, and a message, for choices that are wrong; with 0 when asked for help.
    """
    tyro = needed("tyro", "pretraining")  # here, as Pretraining is of use without

    return tyro.cli(
        Pretraining,
        prog="python -m attnviz.training.pretrain",
        description="Pretrain a BERT, for minutes or for days; interrupted or killed, the same "
        "command goes on.",
        args=arguments,
        config=(tyro.conf.FlagCreatePairsOff,),
    )

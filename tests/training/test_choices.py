"""What a pretraining may be asked for: each number in its range, and said so before any work."""

import math
import re
from dataclasses import fields
from pathlib import Path

import pytest

from attnviz.training.choices import _REAL, _WHOLE, Pretraining, parse

# name: numbers that are refused, and numbers at the edge that are not
NUMBERS = {
    "steps": ([0, -1], [1]),
    "vocab_size": ([0, 5], [6]),
    "length": ([1, -3], [2]),
    "d_model": ([0, -8, 6], [8]),
    "n_layers": ([0], [1]),
    "n_heads": ([0, -1, 3], [1, 64]),
    "d_ff": ([0], [1]),
    "batch_size": ([0], [1]),
    "accumulate": ([0], [1]),
    "seed": ([-1, 2**32], [0, 2**32 - 1]),
    "minutes": ([0, -1.0, math.nan, math.inf], [1e-9]),
    "learning_rate": ([-1e-9, math.nan, math.inf], [0, 0.0, 1.0]),
    "warmup": ([-0.1, 1.1, math.nan], [0, 1]),
    "mask_rate": ([0, 0.0, -0.1, 1.1, math.nan], [1e-9, 1]),
    "save_every": ([-1, math.nan, math.inf], [0]),
}


def given(name, number):
    end = {} if name in ("steps", "minutes") else {"steps": 1}
    return end | {name: number}


def numbers(which):
    return [(name, number) for name, both in NUMBERS.items() for number in both[which]]


class TestNumbers:
    def test_all_of_them_are_tested_here(self):
        others = {"output", "corpus", "column", "recipe", "whole_words", "float32", "compile"}
        assert {f.name for f in fields(Pretraining)} - others == NUMBERS.keys()
        assert (_WHOLE | _REAL).keys() == NUMBERS.keys()

    @pytest.mark.parametrize(("name", "number"), numbers(0))
    def test_out_of_range(self, name, number):
        with pytest.raises(ValueError, match=rf"{name}.* got .*{number}"):
            Pretraining(**given(name, number))

    @pytest.mark.parametrize(("name", "number"), numbers(1))
    def test_at_the_edge_of_the_range(self, name, number):
        assert getattr(Pretraining(**given(name, number)), name) == number

    @pytest.mark.parametrize("name", NUMBERS)
    @pytest.mark.parametrize("other", ["1", True, 1j, [1]])
    def test_what_is_no_number(self, name, other):
        with pytest.raises(TypeError, match=f"{name} must be .*, got"):
            Pretraining(**given(name, other))

    @pytest.mark.parametrize("name", _WHOLE)
    def test_what_is_no_whole_number(self, name):
        with pytest.raises(TypeError, match=rf"{name} must be a whole number, got 8\.0"):
            Pretraining(**given(name, 8.0))

    @pytest.mark.parametrize("name", sorted(NUMBERS.keys() - {"steps", "minutes"}))
    def test_none_is_a_number_only_where_it_means_something(self, name):
        if getattr(Pretraining, name) is None:
            assert getattr(Pretraining(**given(name, None)), name) is None
        else:
            with pytest.raises(TypeError, match="got None"):
                Pretraining(**given(name, None))


class TestTogether:
    @pytest.mark.parametrize(
        ("choices", "message"),
        [
            ({"d_model": 12, "n_heads": 8}, r"a multiple of 2 · n_heads, got d_model=12, n_heads"),
            ({"d_model": 8, "n_heads": 8}, "a multiple of 2 · n_heads"),
            (
                {"d_model": 9, "n_heads": 4, "recipe": "2018"},
                "multiple of n_heads, got d_model=9",
            ),
            ({"length": 4, "recipe": "2018"}, "length must be at least 5 for recipe '2018', got 4"),
            ({"column": "review"}, "the reviews have no column 'review'"),
            ({"output": ""}, "output must be the name of a file, got ''"),
            ({"output": "folder/"}, "output must be the name of a file, got 'folder/'"),
        ],
    )
    def test_what_does_not_fit(self, choices, message):
        with pytest.raises(ValueError, match=message):
            Pretraining(steps=1, **choices)

    def test_what_2018_allows(self):
        assert Pretraining(steps=1, recipe="2018", d_model=9, n_heads=9, length=5).d_model == 9

    def test_a_path_is_as_good_as_text(self):
        assert Pretraining(steps=1, output=Path("a"), corpus=Path("b.txt")) == Pretraining(
            steps=1, output="a", corpus="b.txt"
        )

    @pytest.mark.parametrize("name", ["whole_words", "float32", "compile"])
    def test_what_is_neither_true_nor_false(self, name):
        with pytest.raises(TypeError, match=f"{name} must be True or False, got 'no'"):
            Pretraining(steps=1, **{name: "no"})


def unboxed(said):
    """What stands in a box, as one line."""
    return " ".join(re.sub("[│╭╮╰╯─]|--+(?![a-z])", " ", said).split())


class TestCommandLine:
    def test_each_choice_has_its_option(self):
        line = (
            "--output=o --corpus=c.txt --column=c --recipe=modern --steps=12 --vocab-size=60 "
            "--length 16 --d-model 16 --n-layers 1 --n-heads 2 --d-ff=32 --batch-size=8 "
            "--accumulate=2 --learning-rate=0 --warmup=0 --mask-rate=.5 --whole-words --seed=3 "
            "--float32 --compile --save-every 0"
        )
        assert parse(line.split()) == Pretraining(
            output="o", corpus="c.txt", column="c", steps=12, vocab_size=60, length=16, d_model=16,
            n_layers=1, n_heads=2, d_ff=32, batch_size=8, accumulate=2, learning_rate=0.0,
            warmup=0.0, mask_rate=0.5, whole_words=True, seed=3, float32=True, compile=True,
            save_every=0.0,
        )  # fmt: skip

    @pytest.mark.parametrize(
        ("line", "message"),
        [
            ("", "give either minutes or steps"),
            ("--steps 0", "steps must be at least 1, got 0"),
            ("--steps 1 --mask-rate 0", "mask_rate must be more than 0 and at most 1, got 0"),
            ("--steps 1 --warmup nan", "warmup must be between 0 and 1, got nan"),
            ("--steps many", "many"),
            ("--steps 1.5", "1.5"),
            ("--steps 1 --recipe 2020", "2020"),
            ("--steps 1 --heads 2", "--heads"),
            ("--steps", "--steps"),
        ],
    )
    def test_what_is_wrong_ends_with_status_2_and_why(self, capsys, line, message):
        with pytest.raises(SystemExit) as ended:
            parse(line.split())
        assert ended.value.code == 2
        assert message in unboxed(capsys.readouterr().err)

    def test_help_says_what_each_option_is_and_its_range(self, capsys):
        with pytest.raises(SystemExit) as ended:
            parse(["--help"])
        assert ended.value.code == 0
        options = re.split(r" --(?=[a-z])", unboxed(capsys.readouterr().out))[1:]
        assert len(options) == len(fields(Pretraining)) + 1  # and --help
        for option in options:
            name = option.split()[0].replace("-", "_")
            words, _ = (_WHOLE | _REAL).get(name, ("", None))
            assert words in option
            assert len(option.split("(default")[0].split()) > 3

"""How many machine-made wrong answers the checks catch.

`python tests/lessons/mutation.py [LESSON …] [--show]` prints, for each exercise, how many mutants
of right answers are equivalent, caught, named and survive; `--show` adds what is to be looked at.
"""

import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from unittest import mock

import torch

sys.path[:0] = [str(Path(__file__).parents[2]), str(Path(__file__).parent)]

from mutants import Mutant, mutants_of  # noqa: E402

from attnviz.lessons import attempt  # noqa: E402
from attnviz.lessons.attempt import Endless, is_result, tried  # noqa: E402
from attnviz.lessons.drawing import Draw  # noqa: E402
from attnviz.lessons.exercise import Exercise  # noqa: E402

FOLDER = Path(__file__).parent / "right"
JUDGED_ON = 40  # inputs, which are not the check's own
SECONDS = 1.0  # for one input
DIFFERENCE = ("the numbers differ", "it returned", "for ")  # says no more than where it is wrong


@dataclass(frozen=True)
class Judgement:
    """What became of a mutant.

    outcome: "crashes" (on every input), "equivalent", "survived", "named" (a mistake of the
    catalogue), "misnamed" (one that it is not), "observed" (something is said of it), "raised" or
    "caught" (it is said where it is wrong, and nothing more).
    """

    what: str
    outcome: str
    reason: str = ""


def lessons() -> list[str]:
    """The lessons whose right answers stand here."""
    return sorted(path.stem for path in FOLDER.glob("*.py"))


def judged(lesson: str, name: str, every: int = 1) -> list[Judgement]:
    """What becomes of each mutant of an exercise's right answers, or of one in so many."""
    check = getattr(import_module(f"attnviz.lessons.{lesson}"), name)
    answers = import_module(f"right.{lesson}")
    inputs = [answers.INPUTS[name](Draw(f"judge {seed}")) for seed in range(JUDGED_ON)]
    mutants = [m for function in answers.RIGHT[name] for m in mutants_of(function)]
    if hasattr(check.reference, "__code__"):
        mutants += mutants_of(check.reference)
    with mock.patch.object(attempt, "SECONDS", SECONDS):
        return [_judged(check, mutant, inputs) for mutant in mutants[::every]]


def _judged(check: Exercise, mutant: Mutant, inputs: list[tuple]) -> Judgement:
    verdict = check(mutant.function)
    if verdict:
        same = _agree(check, mutant.function, check.reference, inputs)
        outcome = "equivalent" if same else "survived"
    elif "it raised" in verdict.reason and _only_crashes(mutant.function, inputs):
        outcome = "crashes"
    else:
        outcome = _kind(check, mutant.function, verdict.reason, inputs)
    return Judgement(mutant.what, outcome, verdict.reason)


def _agree(
    check: Exercise, one: Callable, other: Callable, inputs: list[tuple], share: float = 1.0
) -> bool:
    """Whether two functions give the same for (this share of) the inputs."""
    both = [[check._outcome(function, case) for function in (one, other)] for case in inputs]
    return sum(check._same(*pair) for pair in both) >= share * len(inputs)


def _only_crashes(function: Callable, inputs: list[tuple]) -> bool:
    outcomes = (tried(function, case) for case in inputs)
    return not any(is_result(one) or isinstance(one, Endless) for one in outcomes)


def _kind(check: Exercise, function: Callable, reason: str, inputs: list[tuple]) -> str:
    of_this_text = [m.wrong for m in check.misconceptions if m.says == reason]
    if of_this_text:
        # two wrong answers may break a tie in different ways, and be the same mistake
        fits = any(_agree(check, function, wrong, inputs, 0.95) for wrong in of_this_text)
        return "named" if fits else "misnamed"
    reason = reason.removesuffix(check.first_step)
    if reason.startswith(DIFFERENCE) and "return only" not in reason and "shape" not in reason:
        return "caught"
    return "raised" if reason.startswith("it raised") else "observed"


def report(chosen: list[str], show: bool) -> None:
    """Print the table, and with show what survives, is misnamed, or is caught without a word."""
    kinds = ["equivalent", "survived", "named", "misnamed", "observed", "raised", "caught"]
    print(f"{'':32}" + "".join(f"{kind:>11}" for kind in kinds))
    total: Counter[str] = Counter()
    for lesson in chosen:
        for name in import_module(f"right.{lesson}").INPUTS:
            found = judged(lesson, name)
            counts = Counter(one.outcome for one in found)
            total += counts
            print(f"{name:32}" + "".join(f"{counts[kind]:11}" for kind in kinds), flush=True)
            for one in found if show else ():
                if one.outcome in ("survived", "equivalent", "misnamed", "caught"):
                    print(f"    {one.outcome}: {one.what}\n        {one.reason}")
    print(f"{'all':32}" + "".join(f"{total[kind]:11}" for kind in kinds))


if __name__ == "__main__":
    torch.set_num_threads(1)
    words = sys.argv[1:]
    report([word for word in words if word != "--show"] or lessons(), "--show" in words)

"""Models to repair: a check that compares with no other model, but asks for properties."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from torch import nn

from attnviz.lessons.attempt import is_result, said, tried
from attnviz.lessons.exercise import check_callable, not_yet
from attnviz.lessons.verdict import Verdict


@dataclass(frozen=True)
class Property:
    """Something that holds for a right model whatever its weights.

    says:  what the reader is told when it does not hold.
    holds: from a model in evaluation mode to whether it does.
    """

    says: str
    holds: Callable[[nn.Module], bool]


@dataclass(frozen=True)
class Repair:
    """A model to repair, and the properties that the broken one lacks.

    name:       what the function that builds the repaired model is called in the lesson.
    properties: what must hold, in the order in which it is best put right.
    first_step: what to try first, said on `hint()`.
    reference:  the package's way to build it.
    Call it with the reader's function to get a `Verdict`.
    """

    name: str
    properties: tuple[Property, ...]
    first_step: str
    reference: Callable[[], nn.Module] | None = None

    def __call__(self, build: Callable[[], nn.Module]) -> Verdict:
        """Build the reader's model and try every property on it.

        Returns a verdict; when properties fail, it names the first and says how many there are.
        Raises TypeError when build cannot be called.
        """
        return replace(self._judged(build), attempt=build, reference=self.reference)

    def hint(self) -> Verdict:
        """What to try first."""
        return Verdict(self.name, "hint", self.first_step)

    def _judged(self, build: Callable[[], nn.Module]) -> Verdict:
        if build is ...:
            return not_yet(self.name)
        if not isinstance(build, type):  # a class builds a model, too
            check_callable(self.name, build)
        model = tried(build, (), aloud=True)
        if model is ...:
            return not_yet(self.name)
        if not is_result(model):
            return self._wrong(said(model))
        if not isinstance(model, nn.Module):
            called = "the class" if isinstance(model, type) else f"a {type(model).__name__}"
            return self._wrong(f"it must return a model, but it returned {called}.")
        return self._tried(model.eval())

    def _tried(self, model: nn.Module) -> Verdict:
        failed = []
        for one in self.properties:
            holds = tried(lambda holds=one.holds: holds(model), ())
            if not is_result(holds):  # such as shapes that do not fit
                failed.append(said(holds, "the model"))
            elif not holds:
                failed.append(one.says)
        total = len(self.properties)
        if not failed:
            return Verdict(self.name, "passed", f"all {total} properties hold.")
        return self._wrong(f"{len(failed)} of {total} properties fail. The first: {failed[0]}")

    def _wrong(self, reason: str) -> Verdict:
        return Verdict(self.name, "wrong", reason)

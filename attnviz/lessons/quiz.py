"""A question to commit to before the answer is computed."""

from collections.abc import Sequence
from pathlib import Path

import traitlets

from attnviz.views.inputs import check_index
from attnviz.views.refusing import RefusingWidget, validate

_HERE = Path(__file__).parent


class Quiz(RefusingWidget):
    """The widget that `predict` returns; `chosen` is the option picked last, or None."""

    _esm = _HERE / "quiz.js"
    _css = _HERE / "quiz.css"

    question = traitlets.Unicode().tag(sync=True)
    options = traitlets.List(traitlets.Unicode()).tag(sync=True)
    answer = traitlets.Int().tag(sync=True)
    because = traitlets.Unicode().tag(sync=True)
    chosen = traitlets.Int(None, allow_none=True).tag(sync=True, page=True)

    @validate("options")
    def _check_options(self, proposal: traitlets.Bunch) -> list[str]:
        options = proposal["value"]
        if len(options) < 2:
            raise ValueError(f"options must be a list of two or more answers, got {options!r}")
        for name in ("answer", "chosen"):
            check_index(name, getattr(self, name) or 0, len(options))
        return options

    @validate("answer", "chosen")
    def _check_option(self, proposal: traitlets.Bunch) -> int | None:
        name, option = proposal["trait"].name, proposal["value"]
        return None if option is None else check_index(name, option, len(self.options))

    def __repr__(self) -> str:
        return "\n".join([f"Predict: {self.question}", *(f"  ( ) {o}" for o in self.options)])


def predict(question: str, options: Sequence[str], answer: int, because: str) -> Quiz:
    """Ask the reader to commit to an answer; they reveal it when they have seen the result.

    question: one sentence.   options: two or more answers.   answer: the index of the right one.
    because:  why, shown when the answer is revealed.
    Raises ValueError for fewer than two options or an answer that is none of them.
    """
    if isinstance(options, str):
        raise ValueError(f"options must be a list of two or more answers, got {options!r}")
    return Quiz(question=question, options=list(options), answer=answer, because=because)

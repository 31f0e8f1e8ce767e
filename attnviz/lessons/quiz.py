"""A question to commit to before the answer is computed."""

from collections.abc import Sequence
from pathlib import Path

import anywidget
import traitlets

_HERE = Path(__file__).parent


class Quiz(anywidget.AnyWidget):
    """The widget that `predict` returns; `chosen` is the option picked last, or None."""

    _esm = _HERE / "quiz.js"
    _css = _HERE / "quiz.css"

    question = traitlets.Unicode().tag(sync=True)
    options = traitlets.List(traitlets.Unicode()).tag(sync=True)
    answer = traitlets.Int().tag(sync=True)
    because = traitlets.Unicode().tag(sync=True)
    chosen = traitlets.Int(None, allow_none=True).tag(sync=True)

    def __repr__(self) -> str:
        return "\n".join([f"Predict: {self.question}", *(f"  ( ) {o}" for o in self.options)])


def predict(question: str, options: Sequence[str], answer: int, because: str) -> Quiz:
    """Ask the reader to commit to an answer; they reveal it when they have seen the result.

    question: one sentence.   options: two or more answers.   answer: the index of the right one.
    because:  why, shown when the answer is revealed.
    Raises ValueError for fewer than two options or an answer that is none of them.
    """
    if len(options) < 2 or isinstance(options, str):
        raise ValueError(f"options must be a list of two or more answers, got {options!r}")
    if not 0 <= answer < len(options):
        raise ValueError(f"answer must be between 0 and {len(options) - 1}, got {answer}")
    return Quiz(question=question, options=list(options), answer=answer, because=because)

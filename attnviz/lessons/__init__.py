"""What the notebooks need besides the package: questions, exercises, checks."""

from attnviz.lessons.quiz import Quiz, predict

__all__ = ["Quiz", "predict"]

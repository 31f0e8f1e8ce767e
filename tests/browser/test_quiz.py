"""The quizzes of lesson 01, alive from the saved notebook."""

import pytest
from playwright.sync_api import expect

pytestmark = pytest.mark.slow


def test_every_quiz_keeps_its_own_answer(open_notebook):
    notebook = open_notebook("01_self_attention.ipynb", trusted=True)
    quizzes = notebook.page.locator(".attnviz-quiz")
    expect(quizzes).to_have_count(5)
    for quiz in quizzes.all():
        quiz.get_by_role("radio").nth(1).check()
    for quiz in quizzes.all():
        expect(quiz.get_by_role("radio").nth(1)).to_be_checked()
        expect(quiz.get_by_role("button")).to_be_enabled()

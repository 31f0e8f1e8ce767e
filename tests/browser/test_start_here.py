"""Lesson 00 as a reader meets it: opened in JupyterLab, run, typed into and clicked."""

import json
import re

import pytest
from playwright.sync_api import expect

pytestmark = pytest.mark.slow

LESSON = "00_start_here.ipynb"
FOLDED = ".jp-OutputPlaceholder"
WIDGET = "application/vnd.jupyter.widget-view+json"


@pytest.fixture(scope="module")
def lesson(open_notebook):
    """The lesson with all its cells run; the tests share it."""
    notebook = open_notebook(LESSON)
    expect(notebook.page.locator(FOLDED).first).to_have_text("")  # nothing of the answer shows
    notebook.run_all()
    return notebook


@pytest.fixture
def picture(lesson):
    return lesson.picture()


def outputs(notebook):
    return [output for cell in notebook.cells() for output in cell.get("outputs", [])]


def unfolded(notebook):
    """The outputs that a reader sees without asking for them."""
    cells = [
        c for c in notebook.cells() if not c["metadata"].get("jupyter", {}).get("outputs_hidden")
    ]
    return [output for cell in cells for output in cell.get("outputs", [])]


def count_heatmaps(notebook):
    plain = [output.get("data", {}).get("text/plain", "") for output in unfolded(notebook)]
    return sum("".join(text).startswith("HeatmapView(") for text in plain)


def sentence(lesson):
    return lesson.page.locator(".widget-text input").first


def slider(lesson, name):
    return lesson.page.locator(".widget-slider", has_text=name).first.locator(".noUi-handle")


def expect_what_python_has(lesson, picture):
    tokens = lesson.python("view.key_tokens")
    expect(picture.labels("query")).to_have_text(tokens)
    expect(picture.labels("key")).to_have_text(tokens)
    weights = lesson.python("view.weights.tolist()")
    for query, key in [(0, 0), (len(tokens) - 1, 1), (1, len(tokens) - 1)]:
        picture.hover(query, key)
        shown = f"{tokens[query]} → {tokens[key]}: {weights[query][key]:.3f}"
        expect(picture.value).to_have_text(shown)


def test_what_answers_a_prediction_is_folded_until_its_cell_is_run(lesson):
    expect(lesson.page.locator(FOLDED)).to_have_count(0)


def test_every_cell_runs_without_errors_or_warnings(lesson):
    code = [cell for cell in lesson.cells() if cell["cell_type"] == "code"]
    assert all(cell["execution_count"] for cell in code if "".join(cell["source"]).strip())
    bad = [o for o in outputs(lesson) if o["output_type"] == "error" or o.get("name") == "stderr"]
    assert bad == []


def test_every_widget_is_on_the_page(lesson):
    wanted = count_heatmaps(lesson)
    assert wanted >= 1
    expect(lesson.page.locator(".attnviz-heatmap")).to_have_count(wanted)
    for text in ("Loading widget", "Error displaying widget", "Error creating widget"):
        expect(lesson.page.locator(".jp-OutputArea-output", has_text=text)).to_have_count(0)
    for number in range(wanted):
        box = lesson.picture(number).cells.bounding_box()
        assert box["width"] > 0
        assert box["height"] > 0


def test_typing_moves_the_picture(lesson, picture):
    before = picture.pixels()
    sentence(lesson).fill("")
    sentence(lesson).press_sequentially("A zebra waited.")
    expect(picture.labels("query").filter(has_text=re.compile("^zebra$"))).to_have_count(1)
    expect(picture.labels("key").filter(has_text=re.compile("^waited$"))).to_have_count(1)
    assert picture.pixels() != before
    expect_what_python_has(lesson, picture)


@pytest.mark.parametrize("name", ["Layer", "Head"])
def test_a_slider_moves_the_picture_and_its_title(lesson, picture, name):
    before, title = picture.pixels(), picture.title.inner_text()
    slider(lesson, name).press("ArrowRight")
    expect(picture.title).not_to_have_text(title)
    picture.wait_for_other_pixels(than=before)
    expect(picture.title).to_have_text(lesson.python("view.title"))
    expect_what_python_has(lesson, picture)


def test_markup_in_the_text_box_is_only_text(lesson, picture):
    sentence(lesson).fill("<b>x</b> <script>1</script>")
    expect(picture.labels("key").filter(has_text="script")).to_have_count(2)
    expect_what_python_has(lesson, picture)
    assert {"<", ">", "b", "x"} <= set(picture.labels("key").all_text_contents())
    expect(picture.root.locator(".attnviz-label :is(b, script)")).to_have_count(0)


def test_a_text_that_is_too_long_is_refused_in_words_and_the_picture_stays(lesson, picture):
    sentence(lesson).fill("The cat sat.")
    expect(picture.labels("key").filter(has_text="sat")).to_have_count(1)
    before = picture.pixels()
    sentence(lesson).fill("far " * 600)
    expect(lesson.page.locator(".widget-label", has_text="512")).to_have_count(1)
    sentence(lesson).fill("The cat sat.")
    expect(lesson.page.locator(".widget-label", has_text="512")).to_have_count(0)
    assert picture.pixels() == before


def test_a_quiz_reveals_its_answer_only_after_a_choice(lesson):
    quiz = lesson.page.locator(".attnviz-quiz").first
    reveal, result = quiz.get_by_role("button"), quiz.locator(".attnviz-quiz-result")
    expect(reveal).to_be_disabled()
    verdicts = []
    for option in quiz.get_by_role("radio").all():
        option.check()
        expect(reveal).to_be_enabled()
        expect(result).not_to_contain_text(re.compile("[✓✗]"))
        reveal.click()
        expect(result).to_have_text(re.compile(r"^(✓ Right|✗ It is: .+)\. .+"))
        verdicts.append(result.inner_text()[0])
    assert sorted(verdicts) == ["✓"] + ["✗"] * (len(verdicts) - 1)


def test_a_quiz_is_answered_by_keyboard_without_moving_between_cells(lesson):
    quiz = lesson.page.locator(".attnviz-quiz").first
    first, second = quiz.get_by_role("radio").all()[:2]
    first.click()
    before = lesson.state()
    first.press("ArrowDown")
    expect(second).to_be_checked()
    quiz.get_by_role("button").press("Enter")
    expect(quiz.locator(".attnviz-quiz-result")).to_contain_text(re.compile("[✓✗]"))
    assert lesson.state() == before


def test_nothing_left_the_machine_and_no_error_was_logged(lesson):
    # the last of those that use the lesson as it was run
    assert lesson.problems == []


@pytest.fixture
def as_committed(lab):
    """A function that puts the lesson as it is committed under a new name.

    Trust goes by content, so each copy says in its metadata which it is.
    """
    *_, served = lab

    def copy(name):
        content = json.loads((served / LESSON).read_text(encoding="utf-8"))
        content["metadata"]["copy"] = name
        (served / name).write_text(json.dumps(content), encoding="utf-8")
        return name

    return copy


def test_a_trusted_copy_is_alive_before_any_cell_runs(open_notebook, as_committed):
    notebook = open_notebook(as_committed("trusted.ipynb"), trusted=True)
    expect(notebook.page.locator(".attnviz-heatmap")).to_have_count(count_heatmaps(notebook))
    picture = notebook.picture()
    assert notebook.run("view").startswith("NameError")
    picture.hover(1, 2)
    labels = [picture.labels("query").nth(1), picture.labels("key").nth(2)]
    query, key = (label.text_content() for label in labels)  # hidden under those of the pointer
    expect(picture.value).to_have_text(re.compile(f"^{re.escape(query)} → {re.escape(key)}: [01]"))
    picture.click(1, 2)
    expect(picture.pinned).to_contain_text(query)
    assert notebook.problems == []


def test_an_untrusted_copy_without_a_kernel_shows_still_pictures(open_notebook, as_committed):
    notebook = open_notebook(as_committed("untrusted.ipynb"), kernel=False)
    wanted = [o for o in unfolded(notebook) if {WIDGET, "image/png"} <= o.get("data", {}).keys()]
    assert len(wanted) == count_heatmaps(notebook) >= 1
    pictures = notebook.page.locator(".jp-OutputArea-output[data-mime-type='image/png'] img")
    expect(pictures).to_have_count(len(wanted))
    for picture in pictures.all():
        assert picture.evaluate("img => img.decode().then(() => img.naturalWidth)") > 0

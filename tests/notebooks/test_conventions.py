"""What every lesson owes its reader, as far as a machine can see it."""

import builtins
import re
import symtable
from pathlib import Path

import nbformat
import pytest
from arrange import slide_types

FOLDER = Path(__file__).parents[2] / "notebooks"
LESSONS = sorted(FOLDER.glob("*.ipynb"))
WIDGET = "application/vnd.jupyter.widget-view+json"
STATE = "application/vnd.jupyter.widget-state+json"
MISSING_ON_PURPOSE = {"A_three_listings": {"math"}}  # one of the mistakes to find
ANSWERED_IN_WORDS = {"predict_step", "predict_peeking", "predict_always_mask", "predict_order"}


@pytest.fixture(params=LESSONS, ids=lambda path: path.stem)
def path(request):
    return request.param


@pytest.fixture
def lesson(path):
    return nbformat.read(path, as_version=4)


def code_cells(lesson):
    return [cell for cell in lesson.cells if cell.cell_type == "code"]


def outputs(lesson):
    return [output for cell in code_cells(lesson) for output in cell.outputs]


def data(lesson):
    return [output.data for output in outputs(lesson) if "data" in output]


def prose(lesson):
    return "\n".join(cell.source for cell in lesson.cells if cell.cell_type == "markdown")


def test_there_are_lessons():
    assert [path.stem for path in LESSONS[:2]] == ["00_start_here", "01_self_attention"]


def test_jupyterlab_opens_it_without_asking_for_a_kernel(lesson):
    assert lesson.metadata.kernelspec.name == "python3"


def test_it_is_small_enough_to_keep(path):
    assert path.stat().st_size < 1_000_000


def test_every_cell_was_run_in_order_and_without_trouble(lesson):
    counts = [cell.execution_count for cell in code_cells(lesson)]
    assert counts == list(range(1, len(counts) + 1))  # nbval compares nothing of a cell not run
    assert not [o for o in outputs(lesson) if o.output_type == "error" or o.get("name") == "stderr"]


def test_some_outputs_are_compared_on_every_run(lesson):
    assert sum("# NBVAL_CHECK_OUTPUT" in cell.source for cell in code_cells(lesson)) >= 2


def test_it_opens_with_question_goals_and_neighbours(lesson):
    opening = lesson.cells[0].source
    assert re.match(r"# (\d\d|A) · .+\n\n\*\*.+\?\*\*\n\nYou will\n", opening)
    assert 3 <= len(re.findall(r"^- ", opening, re.M)) <= 5
    for part in ("*Builds on*", "*Time*", "runs in under", "*Next*"):
        assert part in opening
    assert "*Previous*" in opening or "# 00" in opening


def test_it_closes_with_a_summary_and_papers(lesson):
    closing = lesson.cells[-1].source
    summary = closing.split("## In five lines\n\n")[1].split("\n\n")[0]
    assert len(summary.splitlines()) == 5
    assert "*Read on:*" in closing
    assert "arXiv" in closing


def test_one_setup_cell_seeds_and_chooses_the_device(lesson):
    setup = code_cells(lesson)[0].source
    for line in ("import attnviz as av", "av.seed(0)", "device = av.device()", "av.about()"):
        assert line in setup
    for cell in code_cells(lesson)[1:]:
        assert not re.search(r"^(import|from) ", cell.source, re.M), cell.source


def test_code_cells_are_small(lesson):
    for cell in code_cells(lesson):
        assert len(cell.source.splitlines()) <= 25, cell.source


def test_links_lead_somewhere(lesson):
    for target in re.findall(r"\]\(([^)]+)\)", prose(lesson)):
        assert (FOLDER / target).exists(), target


def test_figures_can_be_read_aloud(lesson):
    pictures = [d for d in data(lesson) if "image/png" in d and WIDGET not in d]
    assert not pictures, "show figures with av.show, which carries a caption and a description"
    for html in (d.get("text/html", "") for d in data(lesson)):
        for image in re.findall(r"<img[^>]*>", html):
            assert re.search(r'alt="[^"]{10,}"', image)


def test_widgets_live_on_in_the_saved_notebook(lesson):
    shown = {d[WIDGET]["model_id"] for d in data(lesson) if WIDGET in d}
    assert shown
    assert shown <= lesson.metadata.widgets[STATE]["state"].keys()


def test_headings_begin_slides(lesson):
    """`python tests/notebooks/arrange.py` makes it so."""
    told = [cell.metadata.get("slideshow", {}).get("slide_type") for cell in lesson.cells]
    assert told == slide_types(lesson.cells)


def test_slides_hold_few_cells():
    kinds = ["# A", "code", "## B", "prose", "code", "prose", "code", "prose", "### C", "<details>"]
    cells = [
        {"cell_type": "code" if source == "code" else "markdown", "source": source}
        for source in [*kinds, "code", "text\n### D"]
    ]
    found = dict(enumerate(slide_types(cells)))
    slides = {0: "slide", 2: "slide", 5: "subslide", 8: "subslide", 11: "subslide"}
    assert {i: kind for i, kind in found.items() if kind} == slides


def exercises(lesson):
    """The cells of each exercise: task, hint, solution."""
    starts = [i for i, cell in enumerate(lesson.cells) if "return ..." in cell.source]
    return [lesson.cells[i : i + 3] for i in starts]


def test_exercises_have_stub_hint_and_solution(lesson, path):
    found = exercises(lesson)
    assert (1 if path.stem.startswith("00") else 3) <= len(found) <= 6
    for task, hint, solution in found:
        name = re.search(r"def (\w+)\(", task.source)[1]
        call = f"\n{name} = check.{name}({name}).use()"
        assert task.source.endswith(call)
        assert "not yet" in task.outputs[0].data["text/plain"]
        assert hint.source.startswith("<details><summary>Hint</summary>")
        assert solution.metadata.tags == ["solution"]
        assert solution.metadata.jupyter.source_hidden
        assert solution.source.startswith("# Solution\n")
        assert f"def {name}(" in solution.source
        assert solution.source.endswith(call)


def test_a_saved_lesson_gives_nothing_away(lesson):
    """`python tests/notebooks/arrange.py` makes it so: JupyterLab shows a folded output when its
    cell is run, or clicked on."""
    for cell in code_cells(lesson):
        if "answer" in cell.metadata.get("tags", []):
            assert cell.metadata.jupyter.outputs_hidden
            assert cell.outputs[0].data == {}  # of a folded one the first line shows
        if "solution" in cell.metadata.get("tags", []):
            assert not cell.outputs


def test_what_answers_a_prediction_is_folded(lesson):
    """A cell that the question leads to is tagged: arrange.py folds it, and finds it by its tag."""
    cells = [
        (question_of(cell), "answer" in cell.metadata.get("tags", [])) for cell in lesson.cells
    ]
    asked = [i for i, (question, _) in enumerate(cells) if question]
    for i, end in zip(asked, [*asked[1:], len(cells)], strict=True):
        in_words = cells[i][0] in ANSWERED_IN_WORDS
        assert any(is_answer for _, is_answer in cells[i:end]) != in_words, cells[i][0]


def question_of(cell):
    """The name of the prediction that a cell asks for, None where it asks for none."""
    found = re.fullmatch(r"(?:quizzes\.)?(predict_\w+)\(\)", cell.source)
    return found and found[1]


def test_no_cell_needs_a_solution_to_have_run(lesson, path):
    known = set(dir(builtins)) | {"display", *MISSING_ON_PURPOSE.get(path.stem, ())}
    for cell in code_cells(lesson):
        needed, made = global_names(cell.source)
        if "solution" not in cell.metadata.get("tags", []):
            assert not needed - known - made, f"{needed - known - made} in {cell.source}"
            known |= made


def test_names_that_a_cell_needs_and_makes_are_found():
    source = (
        "import a.b\ndef f(x, *, y=z):\n    return [i for i in x] + g\nclass C(B):\n    k = v\nf(a)"
    )
    assert global_names(source) == ({"z", "g", "B", "v", "f", "a"}, {"a", "f", "C"})


def global_names(source):
    """The names that a cell takes from other cells or itself, and those that it makes."""
    needed, made = set(), set()

    def walk(table, top):
        for symbol in table.get_symbols():
            outside = symbol.is_global() or top
            if outside and symbol.is_referenced():
                needed.add(symbol.get_name())
            if top and (symbol.is_assigned() or symbol.is_imported()):
                made.add(symbol.get_name())
        for child in table.get_children():
            walk(child, False)

    walk(symtable.symtable(source, "cell", "exec"), True)
    return needed, made

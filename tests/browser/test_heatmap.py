"""The heatmap in JupyterLab: pointer, keyboard, pin, table, themes, hostile and long input."""

import numpy as np
import pytest
from playwright.sync_api import expect

pytestmark = pytest.mark.slow

TOKENS = ["[CLS]", "the", "cat", "sat", "down", "[SEP]"]
WEIGHTS = np.random.default_rng(0).dirichlet(np.ones(6), 6).astype("float32").tolist()
NOTHING = {"layer": None, "head": None, "query": None, "key": None}
MIDDLES = """(canvas, n) => {  // the colour in the middle of each cell
    const context = canvas.getContext('2d'), size = canvas.width / n;
    const middle = (i) => Math.floor((i + 0.5) * size);
    const color = (q, k) => [...context.getImageData(middle(k), middle(q), 1, 1).data].slice(0, 3);
    return Array.from({ length: n * n }, (_, i) => color(Math.floor(i / n), i % n));
}"""
POINTER_MOVES = """(canvas) => {  // milliseconds of each of ten moves, with the drawing done
    const { left, top } = canvas.getBoundingClientRect(), context = canvas.getContext('2d');
    return Array.from({ length: 10 }, (_, i) => {
        const start = performance.now(), at = { clientX: left + 20 * i, clientY: top + 20 * i };
        canvas.dispatchEvent(new PointerEvent('pointermove', at));
        context.getImageData(0, 0, 1, 1);
        return performance.now() - start;
    });
}"""


@pytest.fixture(scope="module")
def notebook(run_cell):
    return run_cell(
        "one_heatmap", f"import attnviz as av\nview = av.heatmap({WEIGHTS}, {TOKENS})\nview"
    )


@pytest.fixture
def picture(notebook, request):
    """The picture with the same matrix for each test, nothing pinned, the pointer elsewhere."""
    picture = notebook.picture()
    if picture.table.is_visible():
        picture.root.get_by_role("button").click()
    notebook.page.mouse.move(0, 0)
    notebook.page.evaluate("document.activeElement.blur()")
    title = request.node.name
    show(notebook, picture, f"{WEIGHTS}, {TOKENS}", title)
    return picture


def show(notebook, picture, arguments, title):
    said = notebook.run(
        "import numpy as np\n"
        "view.selection = {}\n"
        f"with view.hold_sync():\n    view.title = {title!r}\n    view.update({arguments})"
    )
    assert said == ""
    expect(picture.title).to_have_text(title)


def value(query, key):
    return f"{TOKENS[query]} → {TOKENS[key]}: {WEIGHTS[query][key]:.3f}"


def at(query, key):
    return {**NOTHING, "query": query, "key": key}


def test_every_cell_has_the_colour_of_its_weight(notebook, picture):
    palette = np.array(notebook.python("list(view.palette)")).reshape(256, 3)
    weights = np.array(WEIGHTS)
    wanted = palette[np.round(255 * weights / weights.max()).astype(int)].reshape(-1, 3)
    assert picture.cells.evaluate(MIDDLES, len(TOKENS)) == wanted.tolist()


def test_each_row_and_column_has_its_token(picture):
    for axis in ("query", "key"):
        expect(picture.labels(axis)).to_have_text(TOKENS)


@pytest.mark.parametrize(("query", "key"), [(0, 0), (1, 4), (5, 2)])
def test_hovering_a_cell_shows_the_weight_that_python_has(notebook, picture, query, key):
    picture.hover(query, key)
    weight = notebook.python(f"float(view.weights[{query}, {key}])")
    expect(picture.value).to_have_text(f"{TOKENS[query]} → {TOKENS[key]}: {weight:.3f}")


def test_leaving_the_picture_clears_the_reading(notebook, picture):
    picture.hover(1, 1)
    expect(picture.value).to_have_count(1)
    notebook.page.mouse.move(0, 0)
    expect(picture.value).to_have_count(0)


def test_a_click_pins_a_cell_in_python_and_a_second_click_lets_go(notebook, picture):
    picture.click(3, 1)
    expect(picture.pinned).to_contain_text(TOKENS[3])
    notebook.wait_for_python("view.selection", at(3, 1))
    picture.click(3, 1)
    expect(picture.pinned).to_have_count(0)
    notebook.wait_for_python("view.selection", NOTHING)


def test_a_click_elsewhere_moves_the_pin(notebook, picture):
    picture.click(3, 1)
    notebook.wait_for_python("view.selection", at(3, 1))
    picture.click(0, 2)
    notebook.wait_for_python("view.selection", at(0, 2))


def test_a_selection_made_in_python_is_pinned_on_the_page(notebook, picture):
    before = picture.pixels()
    notebook.run("view.selection = {'query': 2, 'key': 1}")
    order = np.argsort(WEIGHTS[2])[::-1][:3]
    most = " · ".join(f"{TOKENS[key]} {WEIGHTS[2][key]:.3f}" for key in order)
    expect(picture.pinned).to_have_text(f"pinned: {TOKENS[2]} attends most to {most}")
    expect(picture.value).to_have_text(value(2, 1))
    assert picture.pixels() != before


def test_the_keyboard_walks_pins_and_lets_go(notebook, picture):
    picture.cells.focus()
    for key, cell in [
        ("ArrowDown", (0, 0)),  # the first key press shows where the mark stands
        ("ArrowDown", (1, 0)),
        ("ArrowRight", (1, 1)),
        ("ArrowRight", (1, 2)),
        ("ArrowLeft", (1, 1)),
        ("ArrowUp", (0, 1)),
        ("ArrowUp", (0, 1)),  # the edge
    ]:
        notebook.page.keyboard.press(key)
        expect(picture.value).to_have_text(value(*cell))
    notebook.page.keyboard.press("Enter")
    notebook.wait_for_python("view.selection", at(0, 1))
    notebook.page.keyboard.press("Escape")
    notebook.wait_for_python("view.selection", NOTHING)
    expect(picture.readout).to_contain_text("Point at a cell")


def test_keys_in_the_picture_do_nothing_to_the_notebook(notebook, picture):
    picture.cells.click(position=picture.place(2, 2))
    before = notebook.state()
    assert before[1] == "command"  # here JupyterLab's own keys would act: b adds a cell, ...
    for key in ["ArrowUp", "ArrowDown", "ArrowDown", "b", "m", "Enter", "x", "Escape"]:
        notebook.page.keyboard.press(key)
        assert notebook.state() == before, key
    expect(picture.cells).to_be_focused()


def test_a_row_can_be_read_as_a_table(notebook, picture):
    notebook.run("view.selection = {'query': 2, 'key': 1}")
    expect(picture.pinned).to_have_count(1)
    expect(picture.table).to_be_hidden()
    picture.root.get_by_role("button", name="Show as table").click()
    expect(picture.table.get_by_role("caption")).to_contain_text(TOKENS[2])
    rows = [row.locator("th, td").all_text_contents() for row in picture.table.locator("tr").all()]
    assert rows[0] == ["position", "key", "weight"]
    assert rows[1:] == [
        [str(key), TOKENS[key], f"{weight:.3f}"] for key, weight in enumerate(WEIGHTS[2])
    ]
    picture.root.get_by_role("button", name="Hide table").click()
    expect(picture.table).to_be_hidden()


@pytest.mark.parametrize("key", ["Enter", "Space"])
def test_the_table_opens_and_closes_by_keyboard(notebook, picture, key):
    button = picture.root.get_by_role("button")
    button.focus()
    before = notebook.state()
    notebook.page.keyboard.press(key)
    expect(picture.table).to_be_visible()
    notebook.page.keyboard.press(key)
    expect(picture.table).to_be_hidden()
    assert notebook.state() == before


def test_text_is_readable_in_both_themes(notebook, picture, set_theme, contrast):
    notebook.run("view.selection = {'query': 2, 'key': 1}")  # marks two labels
    expect(picture.pinned).to_have_count(1)
    parts = [
        *(".attnviz-title", ".attnviz-axis", ".attnviz-label-query", ".attnviz-label-key"),
        *(".attnviz-current", ".attnviz-value", ".attnviz-pinned", ".attnviz-legend", "button"),
    ]
    colors = set()
    for theme in ("Dark", "Light"):
        set_theme(notebook, theme)
        for part in parts:
            assert contrast(picture.root.locator(part).first) >= 4.5, f"{part} in {theme}"
        colors.add(picture.labels("key").first.evaluate("label => getComputedStyle(label).color"))
    assert len(colors) == 2


def test_markup_in_tokens_and_title_is_only_text(notebook, picture):
    tokens = ["<b>x</b>", "<script>1</script>", "<img src=x>", "&lt;", "<i>", "a b"]
    title = "<u>title</u>"
    show(notebook, picture, f"{WEIGHTS}, {tokens}", title)
    picture.root.get_by_role("button", name="Show as table").click()
    for cell in range(len(tokens)):
        picture.hover(cell, cell)
        picture.click(cell, cell)
        shown = f"{tokens[cell]} → {tokens[cell]}: {WEIGHTS[cell][cell]:.3f}"
        assert picture.value.text_content() == shown
    assert picture.labels("query").all_text_contents() == tokens
    assert picture.labels("key").all_text_contents() == tokens
    assert picture.table.locator("tbody th").all_text_contents() == tokens
    strange = picture.root.locator(":is(script, img, i, u, b:not(.attnviz-value))")
    expect(strange).to_have_count(0)


def test_512_tokens_are_shown_and_followed_by_the_pointer(notebook, picture):
    n = 512
    title = f"{n} tokens"
    matrix = f"np.random.default_rng(0).dirichlet(np.ones({n}), {n})"
    show(notebook, picture, f"{matrix}, [f't{{i}}' for i in range({n})]", title)
    expect(picture.cells).to_be_visible()
    assert 0 < picture.labels("query").count() < 200
    assert 0 < picture.labels("key").count() < 200
    picture.hover(40, 300, n_keys=n)
    weight = notebook.python("float(view.weights[40, 300])")
    expect(picture.value).to_have_text(f"t40 → t300: {weight:.4f}")
    assert max(picture.cells.evaluate(POINTER_MOVES)) < 200  # a few in practice


def test_nothing_left_the_machine_and_no_error_was_logged(notebook):
    # the last of this file: it looks back on all the others
    assert notebook.problems == []

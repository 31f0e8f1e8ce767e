"""Attention over an image, in JupyterLab and as a saved page: patches, heads, queries, themes."""

import numpy as np
import pytest
from playwright.sync_api import expect

from attnviz.views import overlay as overlay_module
from attnviz.views.overlay import overlay

pytestmark = pytest.mark.slow

ROWS, COLUMNS = 3, 4
KEYS = 1 + ROWS * COLUMNS  # [CLS] and the patches
WORDS = ["<b>x</b>", "<script>1</script>", "red", "&lt;", "a b"]
CELL = f"""
import numpy as np, torch, attnviz as av
from attnviz.views.overlay import overlay
rng = np.random.default_rng(0)
most_for_cls = [5] + [1] * {ROWS * COLUMNS}
weights = [rng.dirichlet(most_for_cls, (3, {KEYS})) for layer in range(2)]
image = rng.integers(0, 256, ({ROWS}, {COLUMNS}, 3), dtype=np.uint8)
image = image.repeat(20, 0).repeat(20, 1)  # each patch in a colour of its own
text = [rng.dirichlet(np.ones({KEYS}), (1, 5))]
"""
SHOW = f"""
attention, x = torch.nn.MultiheadAttention(8, 2, batch_first=True), torch.randn(1, {KEYS}, 8)
with av.capture(attention) as seen:
    attention(x, x, x, need_weights=False)
view = overlay(weights, image, 20, title="Patches")
cross = overlay(text, image, 20, tokens={WORDS}, title="<i>cross</i>")
lost = overlay(seen, image, 20)
display(view, cross, lost)
"""
made = {}
exec(CELL, made)
WEIGHTS, TEXT = ([np.round(w * 65535) / 65535 for w in made[name]] for name in ("weights", "text"))
IMAGE = made["image"]
NOTHING = {"layer": None, "head": None, "query": None, "key": None}
COLORS = """(canvas, [rows, columns]) => {  // the colour in the middle of each patch
    const context = canvas.getContext('2d');
    const [w, h] = [canvas.width / columns, canvas.height / rows];
    return Array.from({ length: rows * columns }, (_, i) => {
        const x = (i % columns + 0.5) * w, y = (Math.floor(i / columns) + 0.5) * h;
        return [...context.getImageData(Math.floor(x), Math.floor(y), 1, 1).data].slice(0, 3);
    });
}"""


class Overlay:
    """One overlay on a page, used as a reader uses it."""

    def __init__(self, page, number=0):
        self.page = page
        self.root = page.locator(".attnviz-overlay").nth(number)
        self.image = self.root.locator("canvas.attnviz-overlay-image")
        self.heads = self.root.get_by_role("radiogroup", name="Head").get_by_role("radio")
        self.queries = self.root.get_by_role("radiogroup", name="Query").get_by_role("radio")
        self.question = self.root.locator(".attnviz-overlay-question")
        self.value = self.root.locator(".attnviz-value")
        self.rest = self.root.locator(".attnviz-overlay-rest")
        self.problem = self.root.locator(".attnviz-problem")
        self.table = self.root.locator(".attnviz-table")

    def place(self, row, column):
        wide, high = self.image.evaluate("c => [c.clientWidth, c.clientHeight]")
        return {"x": (column + 0.5) * wide / COLUMNS, "y": (row + 0.5) * high / ROWS}

    def hover(self, row, column):
        self.image.hover(position=self.place(row, column))

    def click(self, row, column, **more):
        self.image.click(position=self.place(row, column), **more)

    def colors(self, canvas=None):
        return np.array((canvas or self.image).evaluate(COLORS, [ROWS, COLUMNS]))

    def expect_question(self, of, layer, head):
        expect(self.question).to_have_text(f"What does {of} look at? Layer {layer}, {head}")


def weight(layer, head, query, row, column):
    return f"row {row}, column {column}: {WEIGHTS[layer][head, query, key(row, column)]:.4f}"


def key(row, column):
    return 1 + row * COLUMNS + column


def palette_colors(palette, row):
    """The colours of a row's patches, scaled to the largest of them."""
    patches = row[1:]
    return np.frombuffer(palette, np.uint8).reshape(256, 3)[
        np.round(255 * patches / patches.max()).astype(int)
    ]


@pytest.fixture(scope="module")
def notebook(run_cell):
    return run_cell("overlays", CELL + SHOW)


@pytest.fixture
def view(notebook):
    """The first overlay as it was at the start, the pointer elsewhere."""
    notebook.page.mouse.move(0, 0)
    notebook.page.evaluate("document.activeElement.blur()")
    assert notebook.run("view.selection = {}; view.strength = 0.6") == ""
    view = Overlay(notebook.page)
    view.expect_question("[CLS]", 1, "mean of its 3 heads")
    return view


def test_it_starts_with_cls_the_last_layer_and_a_mean_that_says_so(view):
    names = [text.split("max")[0] for text in view.heads.all_text_contents()]
    assert names == ["mean of 3", "head 0", "head 1", "head 2"]
    expect(view.heads.first).to_be_checked()
    expect(view.queries).to_have_text(["[CLS]"])
    expect(view.queries.first).to_be_checked()


def test_hovering_a_patch_prints_its_weight(notebook, view):
    notebook.run("view.selection = {'head': 1}")
    view.expect_question("[CLS]", 1, "head 1")
    for row, column in [(0, 0), (1, 2), (2, 3)]:
        view.hover(row, column)
        expect(view.value).to_have_text(weight(1, 1, 0, row, column))
    notebook.page.mouse.move(0, 0)
    expect(view.value).to_have_count(0)


def test_the_mean_is_the_mean_of_the_heads(view):
    view.hover(1, 1)
    mean = WEIGHTS[1][:, 0].mean(0)
    expect(view.value).to_have_text(f"row 1, column 1: {mean[key(1, 1)]:.4f}")
    expect(view.rest).to_have_text(
        f"[CLS] gets {mean[0]:.4f}, all patches together {mean[1:].sum():.4f}"
    )


def test_every_patch_has_the_colour_of_its_weight(notebook, view):
    notebook.run("view.selection = {'layer': 0, 'head': 2}; view.strength = 1")
    view.expect_question("[CLS]", 0, "head 2")
    expect(view.root.get_by_label("strength")).to_have_value("1")
    palette = bytes(notebook.python("list(view.palette)"))
    assert np.abs(view.colors() - palette_colors(palette, WEIGHTS[0][2, 0])).max() <= 1
    for head in range(3):
        small = view.colors(view.heads.nth(1 + head).locator("canvas"))
        assert np.abs(small - palette_colors(palette, WEIGHTS[0][head, 0])).max() <= 1, head


def test_without_strength_the_image_is_as_it_was(notebook, view):
    notebook.run("view.strength = 0")
    expect(view.root.get_by_label("strength")).to_have_value("0")
    assert np.abs(view.colors() - IMAGE[10::20, 10::20].reshape(-1, 3)).max() <= 1


def test_strength_can_be_set_on_the_page(notebook, view):
    before = view.colors()
    view.root.get_by_label("strength").fill("0.3")
    notebook.wait_for_python("view.strength", 0.3)
    assert (view.colors() != before).any()


def test_a_click_asks_what_that_patch_looks_at(notebook, view):
    view.click(1, 2)
    view.expect_question("the patch at row 1, column 2", 1, "mean of its 3 heads")
    notebook.wait_for_python("view.selection", {**NOTHING, "query": key(1, 2)})
    expect(view.queries.first).not_to_be_checked()
    view.heads.nth(3).click()
    view.expect_question("the patch at row 1, column 2", 1, "head 2")
    view.hover(0, 3)
    expect(view.value).to_have_text(weight(1, 2, key(1, 2), 0, 3))
    view.queries.first.click()
    view.expect_question("[CLS]", 1, "head 2")
    notebook.wait_for_python("view.selection", {**NOTHING, "query": 0, "head": 2})


def test_the_patch_that_asks_is_outlined(notebook, view):
    edge = """(canvas, [x, y]) =>
        [...canvas.getContext('2d').getImageData(x, y, 1, 1).data].slice(0, 3)"""
    spot = view.image.evaluate(
        "(c, [i, j]) => [Math.floor(c.width * j / 4), Math.floor(c.height * (i + 0.5) / 3)]", [1, 2]
    )
    assert view.image.evaluate(edge, spot) != [255, 255, 255]
    notebook.run(f"view.selection = {{'query': {key(1, 2)}}}")
    view.expect_question("the patch at row 1, column 2", 1, "mean of its 3 heads")
    assert view.image.evaluate(edge, spot) == [255, 255, 255]


def test_a_selection_made_in_python_is_shown(notebook, view):
    notebook.run(f"view.selection = {{'layer': 0, 'head': 2, 'query': 9, 'key': {key(2, 1)}}}")
    view.expect_question("the patch at row 2, column 0", 0, "head 2")
    expect(view.value).to_have_text(weight(0, 2, 9, 2, 1))
    expect(view.heads.nth(3)).to_be_checked()
    expect(view.root.get_by_label("layer")).to_have_value("0")


def test_a_key_keeps_its_number_in_sight(notebook, view):
    view.click(2, 1, modifiers=["Shift"])
    notebook.wait_for_python("view.selection", {**NOTHING, "key": key(2, 1)})
    view.heads.nth(2).click()
    expect(view.value).to_have_text(weight(1, 1, 0, 2, 1))
    view.click(2, 1, modifiers=["Shift"])
    notebook.wait_for_python("view.selection['key']", None)


def test_layers_are_chosen_from_a_list(notebook, view):
    view.root.get_by_label("layer").select_option("0")
    view.expect_question("[CLS]", 0, "mean of its 3 heads")
    notebook.wait_for_python("view.selection['layer']", 0)


def test_the_keyboard_walks_asks_marks_and_returns(notebook, view):
    press = notebook.page.keyboard.press
    view.image.focus()
    mean = WEIGHTS[1][:, 0].mean(0)
    for pressed, (row, column) in [
        ("ArrowDown", (1, 2)),  # the first key press shows where the cursor stands
        ("ArrowDown", (2, 2)),
        ("ArrowDown", (2, 2)),  # the edge
        ("ArrowRight", (2, 3)),
        ("ArrowRight", (2, 3)),
        ("ArrowLeft", (2, 2)),
        ("ArrowUp", (1, 2)),
    ]:
        press(pressed)
        expect(view.value).to_have_text(f"row {row}, column {column}: {mean[key(row, column)]:.4f}")
    press("Space")
    notebook.wait_for_python("view.selection", {**NOTHING, "key": key(1, 2)})
    press("Enter")
    notebook.wait_for_python("view.selection['query']", key(1, 2))
    press("Escape")
    notebook.wait_for_python("view.selection", NOTHING)
    view.expect_question("[CLS]", 1, "mean of its 3 heads")
    expect(view.value).to_have_count(0)


def test_the_arrow_keys_choose_a_head(notebook, view):
    view.heads.first.focus()
    for pressed, head in [("ArrowRight", 0), ("ArrowDown", 1), ("ArrowLeft", 0), ("ArrowUp", None)]:
        notebook.page.keyboard.press(pressed)
        notebook.wait_for_python("view.selection['head']", head)
        expect(view.heads.nth(0 if head is None else head + 1)).to_be_focused()
    notebook.page.keyboard.press("ArrowLeft")
    expect(view.heads.first).to_be_checked()


def test_keys_do_nothing_to_the_notebook(notebook, view):
    view.click(0, 0)
    before = notebook.state()
    assert before[1] == "command"  # here JupyterLab's own keys would act: b adds a cell, ...
    for place in (
        view.image,
        view.heads.first,
        view.queries.first,
        view.root.get_by_label("layer"),
    ):
        place.focus()
        for pressed in ["ArrowUp", "ArrowDown", "b", "x", "Escape"]:
            notebook.page.keyboard.press(pressed)
            assert notebook.state() == before, pressed
    notebook.wait_for_python("view.selection", {**NOTHING, "layer": 1, "head": 0})  # all arrived


def test_the_patches_can_be_read_as_a_table(notebook, view):
    notebook.run("view.selection = {'head': 0, 'query': 3}")
    view.expect_question("the patch at row 0, column 2", 1, "head 0")
    view.root.get_by_role("button", name="Show as table").click()
    expect(view.table.get_by_role("caption")).to_contain_text("row 0, column 2")
    row = WEIGHTS[1][0, 3]
    order = 1 + np.argsort(-row[1:])
    rows = [r.locator("th, td").all_text_contents() for r in view.table.locator("tr").all()]
    assert rows[0] == ["key", "patch", "weight"]
    assert rows[1:] == [
        [str(k), f"row {(k - 1) // COLUMNS}, column {(k - 1) % COLUMNS}", f"{row[k]:.4f}"]
        for k in order
    ]
    view.root.get_by_role("button", name="Hide table").click()
    expect(view.table).to_be_hidden()


def test_text_is_readable_in_both_themes(notebook, view, set_theme, contrast):
    notebook.run("view.selection = {'key': 5}")
    expect(view.value).to_have_count(1)
    parts = [
        *(
            ".attnviz-title",
            ".attnviz-overlay-question",
            ".attnviz-overlay-chips",
            ".attnviz-value",
        ),
        *(".attnviz-place", ".attnviz-overlay-rest", ".attnviz-legend", ".attnviz-overlay-most"),
        *("[role=radio] span", "button", "select", "label"),
    ]
    colors = set()
    for theme in ("Dark", "Light"):
        set_theme(notebook, theme)
        for part in parts:
            assert contrast(view.root.locator(part).first) >= 4.5, f"{part} in {theme}"
        colors.add(view.question.evaluate("node => getComputedStyle(node).color"))
    assert len(colors) == 2


def test_queries_of_a_text_have_a_button_each_and_markup_is_only_text(notebook):
    cross = Overlay(notebook.page, 1)
    expect(cross.root.locator(".attnviz-title")).to_have_text("<i>cross</i>")
    assert cross.queries.all_text_contents() == WORDS
    for i, word in enumerate(WORDS):
        cross.queries.nth(i).click()
        cross.expect_question(word, 0, "its one head")
        notebook.wait_for_python("cross.selection['query']", i)
    cross.hover(1, 1)
    expect(cross.value).to_have_text(f"row 1, column 1: {TEXT[0][0, 4, key(1, 1)]:.4f}")
    cross.click(1, 1)  # a patch does not ask: it is marked
    notebook.wait_for_python("cross.selection", {**NOTHING, "query": 4, "key": key(1, 1)})
    strange = cross.root.locator(":is(script, i, b:not(.attnviz-value))")
    expect(strange).to_have_count(0)


def test_a_freed_record_says_so_and_leaves_what_is_there(notebook):
    lost = Overlay(notebook.page, 2)
    lost.expect_question("[CLS]", 0, "mean of its 2 heads")
    assert notebook.run("seen.free()") == ""
    lost.click(0, 1)
    expect(lost.problem).to_contain_text("was freed")
    lost.expect_question("[CLS]", 0, "mean of its 2 heads")
    lost.heads.nth(1).click()
    lost.expect_question("[CLS]", 0, "head 0")
    lost.queries.first.click()
    expect(lost.problem).to_be_empty()


@pytest.fixture(scope="module")
def saved(open_page, tmp_path_factory):
    file = tmp_path_factory.mktemp("saved") / "overlay.html"
    view = overlay(WEIGHTS, IMAGE, 20, title="Saved")
    view.selection = {"query": 2, "head": 0}
    view.save(file)
    return Overlay(open_page(file))


def test_a_saved_page_answers_by_itself(saved):
    saved.expect_question("the patch at row 0, column 1", 1, "head 0")
    saved.hover(2, 2)
    expect(saved.value).to_have_text(weight(1, 0, 2, 2, 2))
    saved.click(2, 2)
    saved.expect_question("the patch at row 2, column 2", 1, "head 0")
    saved.heads.nth(2).click()
    saved.root.get_by_label("layer").select_option("0")
    saved.hover(0, 0)
    expect(saved.value).to_have_text(weight(0, 1, key(2, 2), 0, 0))
    saved.image.focus()
    for pressed in ["ArrowRight", "ArrowDown", "Enter"]:
        saved.page.keyboard.press(pressed)
    saved.expect_question("the patch at row 1, column 1", 0, "head 1")
    saved.page.keyboard.press("Escape")
    saved.expect_question("[CLS]", 0, "head 1")


def test_a_saved_page_follows_the_system_into_the_dark(saved, contrast):
    saved.hover(1, 1)
    for scheme in ("dark", "light"):
        saved.page.emulate_media(color_scheme=scheme)
        for part in (saved.question, saved.value, saved.rest, saved.heads.first):
            assert contrast(part) >= 4.5, scheme
    assert saved.page.problems == []


def test_a_saved_page_of_a_large_model_says_what_it_does_not_hold(open_page, tmp_path, monkeypatch):
    monkeypatch.setattr(overlay_module, "AT_ONCE", 2 * 3 * KEYS)  # one layer's rows at a time
    monkeypatch.setattr(overlay_module, "PAGE", 5 * 2 * 3 * KEYS)
    large = overlay(WEIGHTS, IMAGE, 20)
    large.selection = {"query": 2, "head": 0}
    large.save(tmp_path / "large.html")
    page = Overlay(open_page(tmp_path / "large.html"))
    page.expect_question("the patch at row 0, column 1", 1, "head 0")
    page.root.get_by_label("layer").select_option("0")
    page.expect_question("the patch at row 0, column 1", 0, "head 0")
    page.hover(2, 2)
    expect(page.value).to_have_text(weight(0, 0, 2, 2, 2))
    page.click(2, 3)
    expect(page.problem).to_contain_text("does not hold")
    page.heads.nth(3).click()
    page.expect_question("the patch at row 0, column 1", 0, "head 2")
    page.queries.first.click()
    page.expect_question("[CLS]", 0, "head 2")
    expect(page.problem).to_be_empty()
    assert page.page.problems == []


def test_without_cls_the_middle_patch_asks_first(open_page, tmp_path):
    weights = [np.eye(12)[None] * 0.5 + np.arange(12) / 132]
    overlay(weights, IMAGE, 20).save(tmp_path / "plain.html")
    page = Overlay(open_page(tmp_path / "plain.html"))
    page.expect_question("the patch at row 1, column 2", 0, "its one head")
    expect(page.queries).to_have_count(0)
    expect(page.rest).to_have_count(0)
    page.click(0, 1)
    page.expect_question("the patch at row 0, column 1", 0, "its one head")
    page.hover(2, 3)
    expect(page.value).to_have_text(f"row 2, column 3: {weights[0][0, 1, 11]:.4f}")
    assert page.page.problems == []


def test_nothing_left_the_machine_and_no_error_was_logged(notebook):
    # the last of this file: it looks back on all the others
    assert notebook.problems == []

"""All heads in JupyterLab and in a saved page: pointer, keyboard, order, and what goes wrong."""

import re

import numpy as np
import pytest
from playwright.sync_api import expect

import attnviz as av
from attnviz.views.thumbnails import SAMPLED

pytestmark = pytest.mark.slow

TOKENS = ["[CLS]", "the", "cat", "sat", "down", "[SEP]"]
HOSTILE = ["<b>x</b>", "<script>1</script>", "<img src=x>", "&lt;", "</canvas>", "a b"]
LAYERS, HEADS = 3, 4
WEIGHTS = np.random.default_rng(0).dirichlet(np.ones(6), (LAYERS, HEADS, 6)).astype("float32")
CODE = f"""
import numpy as np
import torch
import traitlets
import attnviz as av
from attnviz.seeing import AttentionRecord
from IPython.display import display

weights = np.random.default_rng(0).dirichlet(np.ones(6), ({LAYERS}, {HEADS}, 6)).astype("float32")
view = av.heads(list(weights), {TOKENS}, title="three layers")
twin = av.heads(list(weights), {TOKENS}, title="the same three layers")
link = traitlets.link((view, "selection"), (twin, "selection"))

n = 1536  # 75 million weights: more than are read at once
torch.manual_seed(0)
records = [
    AttentionRecord(i, 0, f"layer.{{i}}", "self",
                    query=0.1 * torch.randn(1, 8, n, 4), key=0.1 * torch.randn(1, 8, n, 4))
    for i in range(4)
]
records[2].key[0, 5, :, 0] = records[2].query[0, 5, :, 0] = 0
records[2].key[0, 5, 900, 0], records[2].query[0, 5, 701, 0] = 50, 1  # query 701 is not sampled
long = av.heads(records, [f"t{{i}}" for i in range(n)], title="a long text")
hostile = av.heads(list(weights), {HOSTILE}, title="<u>hostile</u>")
others = [av.heads([weights[i % {LAYERS}]], {TOKENS}) for i in range(6)]
display(view, twin, hostile, *others, long)
"""
SQUARE = """(canvas, [x, y, side]) => {  // the colours inside a thumbnail, row by row
    const scale = canvas.width / canvas.clientWidth;
    const at = [x, y, side, side].map((v) => Math.round(v * scale));
    const { data } = canvas.getContext('2d').getImageData(...at);
    return Array.from({ length: data.length / 4 }, (_, i) => [...data.slice(4 * i, 4 * i + 3)]);
}"""
COLORS = """(canvases) => canvases.map((canvas) => {  // how many colours there are in each
    const { data } = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
    return new Set(new Uint32Array(data.buffer)).size;
})"""
INK = """(canvas) => {  // the colour of the numbers above the thumbnails
    const scale = canvas.width / canvas.clientWidth, box = [40, 14, 200, 14];
    const { data } = canvas.getContext('2d').getImageData(...box.map((v) => v * scale));
    let most = 0;
    for (let i = 0; i < data.length; i += 4) if (data[i + 3] > data[most + 3]) most = i;
    return [...data.slice(most, most + 4)];
}"""


class Heads:
    """One view of all heads, used as a reader uses it."""

    def __init__(self, root, picture_of):
        self.root, self.page = root, root.page
        self.grid = root.locator("canvas.attnviz-grid")
        self.readout = root.locator(".attnviz-overview .attnviz-readout")
        self.value = root.locator(".attnviz-overview .attnviz-value")
        self.state = root.locator(".attnviz-state")
        self.order = root.get_by_label("sort by")
        self.title = root.locator("> .attnviz-title")
        self.table_button = root.locator(".attnviz-overview").get_by_role("button")
        self.table = root.locator("> .attnviz-table")
        self.opened = picture_of(root.locator(".attnviz-matrix"))
        self.problem = root.locator(".attnviz-problem")

    def square(self, column, row, across, ranked=False):
        """Where a thumbnail is in the canvas: left, top, side."""
        left, top, below = (2, 2, 13) if ranked else (36, 30, 0)
        pitch = (self.grid.evaluate("canvas => canvas.clientWidth") - left) / across
        return left + column * pitch, top + row * (pitch + below), pitch - 3

    def middle(self, *where, **how):
        x, y, side = self.square(*where, **how)
        return {"x": x + side / 2, "y": y + side / 2}

    def hover(self, layer, head, across=HEADS):
        self.grid.hover(position=self.middle(head, layer, across))

    def click(self, layer, head, across=HEADS):
        self.grid.click(position=self.middle(head, layer, across))

    def colors(self, layer, head, across=HEADS):
        """The pixels of a thumbnail: (row, column, 3)."""
        x, y, side = self.square(head, layer, across)
        found = np.array(self.grid.evaluate(SQUARE, [x, y, side]))
        side = round(len(found) ** 0.5)
        return found.reshape(side, side, 3)

    def expect_open(self, layer, head):
        expect(self.opened.title).to_have_text(f"layer {layer}, head {head}")

    def expect_weight(self, layer, head, query, key):
        """The open head shows this weight where the pointer goes."""
        expect(self.root.locator(".attnviz-matrix")).to_have_attribute("data-detail", "exact")
        self.opened.hover(query, key)
        weight = WEIGHTS[layer, head, query, key]
        expect(self.opened.value).to_have_text(f"{TOKENS[query]} → {TOKENS[key]}: {weight:.3f}")


@pytest.fixture(scope="module")
def notebook(run_cell):
    return run_cell("all_heads", CODE)


@pytest.fixture(scope="module")
def show(notebook, picture_of):
    """A function from the place of a view in the notebook to the view, in sight."""

    def show(number):
        heads = Heads(notebook.page.locator(".attnviz-heads").nth(number), picture_of)
        expect(heads.grid).to_be_visible()
        heads.grid.scroll_into_view_if_needed()
        return heads

    return show


@pytest.fixture
def heads(notebook, show):
    """The first view, as it is at first: the first head open, the pointer elsewhere."""
    notebook.page.mouse.move(0, 0)
    notebook.page.evaluate("document.activeElement.blur()")
    said = notebook.run(
        "view.title, view.order, view.scale, view.threshold = "
        "'three layers', 'layer and head', 'linear', 0.0\n"
        "view.selection = {'layer': 0, 'head': 0}"
    )
    assert said == ""
    heads = show(0)
    if heads.table.is_visible():
        heads.table_button.click()
    heads.expect_open(0, 0)
    expect(heads.order).to_have_value("layer and head")
    return heads


def selected(layer, head, query=None, key=None):
    return {"layer": layer, "head": head, "query": query, "key": key}


def measured(view, layer, head):
    """What the view says of a head, from Python's own numbers."""
    return " · ".join(f"{name} {v[layer][head]:.2f}" for name, v in view.measures.items())


PYTHON = av.heads(list(WEIGHTS), TOKENS)  # the same view, on this side


def test_every_thumbnail_has_the_colours_of_its_head(notebook, heads):
    palette = np.frombuffer(PYTHON.palette, np.uint8).reshape(256, 3)
    roots = np.frombuffer(PYTHON.thumbnails["values"], np.uint8).reshape(LAYERS, HEADS, 6, 6)
    for layer, head in np.ndindex(LAYERS, HEADS):
        pixels = heads.colors(layer, head)
        middles = ((np.arange(6) + 0.5) * len(pixels) / 6).astype(int)
        places = np.floor(roots[layer, head] / roots.max() * 255 + 0.5).astype(int)
        assert np.array_equal(pixels[np.ix_(middles, middles)], palette[places]), (layer, head)


@pytest.mark.parametrize(("layer", "head"), [(0, 0), (2, 3), (1, 2)])
def test_pointing_at_a_head_names_it_and_says_what_it_does(heads, layer, head):
    heads.hover(layer, head)
    expect(heads.value).to_have_text(f"layer {layer}, head {head}")
    expect(heads.readout).to_contain_text(measured(PYTHON, layer, head))
    heads.page.mouse.move(0, 0)
    expect(heads.readout).to_contain_text("Each square is a head")


def test_a_click_opens_a_head_exactly(notebook, heads):
    heads.click(2, 1)
    heads.expect_open(2, 1)
    notebook.wait_for_python("view.selection", selected(2, 1))
    for query, key in [(0, 0), (5, 2), (3, 5)]:
        heads.expect_weight(2, 1, query, key)


def test_a_pinned_row_stays_pinned_in_the_next_head(notebook, heads):
    heads.opened.click(3, 1)
    notebook.wait_for_python("view.selection", selected(0, 0, 3, 1))
    heads.click(1, 1)
    notebook.wait_for_python("view.selection", selected(1, 1, 3, 1))
    best = int(WEIGHTS[1, 1, 3].argmax())
    most = f"{TOKENS[3]} attends most to {TOKENS[best]} {WEIGHTS[1, 1, 3, best]:.3f}"
    expect(heads.opened.pinned).to_contain_text(most)


def test_the_keyboard_walks_opens_and_comes_back(notebook, heads):
    heads.grid.focus()
    before = notebook.state()
    for key, place in [
        ("ArrowDown", (0, 0)),  # the first key press shows where the mark stands
        ("ArrowRight", (0, 1)),
        ("ArrowDown", (1, 1)),
        ("ArrowLeft", (1, 0)),
        ("ArrowLeft", (1, 0)),  # the edge
        ("ArrowDown", (2, 0)),
        ("ArrowDown", (2, 0)),
        ("ArrowRight", (2, 1)),
    ]:
        heads.page.keyboard.press(key)
        expect(heads.value).to_have_text("layer {}, head {}".format(*place))
    heads.page.keyboard.press("Enter")
    heads.expect_open(2, 1)
    notebook.wait_for_python("view.selection", selected(2, 1))
    cells = heads.opened.cells
    expect(cells).to_be_focused()
    heads.page.keyboard.press("ArrowDown")
    expect(heads.opened.value).to_contain_text(f"{TOKENS[0]} → {TOKENS[0]}")
    heads.page.keyboard.press("Escape")  # lets the mark go, as in a heatmap alone
    expect(heads.opened.value).to_have_count(0)
    expect(cells).to_be_focused()
    heads.page.keyboard.press("Escape")
    expect(heads.grid).to_be_focused()
    for key in ["b", "x", "m", "Escape"]:  # JupyterLab's own keys for cells
        heads.page.keyboard.press(key)
    assert notebook.state() == before


@pytest.mark.parametrize("order", ["entropy (bits)", "[SEP]"])
def test_heads_are_sorted_by_what_they_do(notebook, heads, order):
    heads.order.select_option(order)
    notebook.wait_for_python("view.order", order)
    values = np.concatenate(PYTHON.measures[order])
    ranks = np.argsort(-values, kind="stable")
    for place in (0, 1, 5, 11):
        where = heads.middle(place % HEADS, place // HEADS, HEADS, ranked=True)
        heads.grid.hover(position=where)
        layer, head = divmod(int(ranks[place]), HEADS)
        expect(heads.value).to_have_text(f"layer {layer}, head {head}")
        expect(heads.readout).to_contain_text(measured(PYTHON, layer, head))
    heads.grid.click(position=where)
    heads.expect_open(layer, head)
    heads.page.mouse.move(0, 0)
    expect(heads.readout).to_contain_text("Below it: layer · head")
    notebook.run("view.order = 'layer and head'")
    expect(heads.order).to_have_value("layer and head")


def test_python_opens_a_head_and_pins_a_row(notebook, heads):
    notebook.run("view.selection = {'layer': 1, 'head': 3, 'query': 2, 'key': 4}")
    heads.expect_open(1, 3)
    expect(heads.opened.pinned).to_contain_text(f"pinned: {TOKENS[2]}")
    expect(heads.opened.value).to_have_text(f"{TOKENS[2]} → {TOKENS[4]}: {WEIGHTS[1, 3, 2, 4]:.3f}")
    notebook.run("view.selection = {'query': 5}")  # in the head that is open
    expect(heads.opened.pinned).to_contain_text(f"pinned: {TOKENS[5]}")
    heads.expect_open(1, 3)
    notebook.run("view.selection = {}")
    expect(heads.opened.pinned).to_have_count(0)


def test_python_changes_title_and_colours(notebook, heads):
    notebook.run("view.title, view.scale, view.threshold = '<u>other</u>', 'row', 0.25")
    expect(heads.title).to_have_text("<u>other</u>")
    expect(heads.opened.root.get_by_label("colours")).to_have_value("row")
    expect(heads.opened.root).to_contain_text("0.25")


def test_all_measures_can_be_read_as_a_table(heads):
    expect(heads.table).to_be_hidden()
    heads.table_button.click()
    names = heads.table.locator("thead th").all_text_contents()
    assert names == ["layer, head", *PYTHON.measures]
    rows = [row.locator("th, td").all_text_contents() for row in heads.table.locator("tr").all()]
    assert len(rows) == 1 + LAYERS * HEADS
    wanted = [f"{v[2][1]:.3f}" for v in PYTHON.measures.values()]
    assert rows[1 + 2 * HEADS + 1] == ["2, 1", *wanted]
    heads.table_button.click()
    expect(heads.table).to_be_hidden()


def test_text_is_readable_in_both_themes(notebook, heads, set_theme, contrast):
    notebook.run("view.selection = {'layer': 1, 'head': 1, 'query': 2, 'key': 1}")
    expect(heads.opened.pinned).to_have_count(1)
    parts = [
        *(".attnviz-title", ".attnviz-overview label", ".attnviz-overview .attnviz-readout"),
        *("select", "button", ".attnviz-matrix .attnviz-title", ".attnviz-current"),
        *(".attnviz-label-query", ".attnviz-pinned", ".attnviz-legend"),
    ]
    inks = []
    for theme in ("Dark", "Light"):
        before = heads.grid.evaluate("canvas => canvas.toDataURL()")
        set_theme(notebook, theme)
        for part in parts:
            assert contrast(heads.root.locator(part).first) >= 4.5, f"{part} in {theme}"
        heads.page.wait_for_function(  # the numbers in the canvas are painted anew
            "([canvas, than]) => canvas.toDataURL() !== than",
            arg=[heads.grid.element_handle(), before],
        )
        *color, alpha = heads.grid.evaluate(INK)
        assert alpha > 200
        wanted = heads.root.evaluate("root => getComputedStyle(root).color")
        assert color == pytest.approx([int(c) for c in re.findall(r"\d+", wanted)[:3]], abs=8)
        inks.append(color)
    assert inks[0] != inks[1]


def test_markup_in_labels_is_only_text(show):
    heads = show(2)
    expect(heads.title).to_have_text("<u>hostile</u>")
    assert heads.opened.labels("query").all_text_contents() == HOSTILE
    heads.opened.hover(1, 2)
    expect(heads.opened.value).to_contain_text(f"{HOSTILE[1]} → {HOSTILE[2]}")
    assert heads.root.locator(":is(script, img, i, u)").count() == 0


def test_linked_views_follow_each_other(notebook, heads, show):
    twin = show(1)
    heads.click(2, 2)
    twin.expect_open(2, 2)
    twin.click(1, 3)
    heads.expect_open(1, 3)
    twin.opened.click(4, 0)
    expect(heads.opened.pinned).to_contain_text(f"pinned: {TOKENS[4]}")
    notebook.wait_for_python("view.selection", selected(1, 3, 4, 0))


def test_a_strong_link_that_the_sample_missed_appears(notebook, show):
    assert notebook.python("long.sampled") == 1536 // SAMPLED
    strongest = np.frombuffer(PYTHON.palette, np.uint8)[-3:]
    state = notebook.page.locator(".attnviz-heads").last.locator(".attnviz-state")
    expect(state).to_contain_text("one query in 48; reading the others")  # once it is in sight
    heads = show(9)
    expect(heads.state).not_to_contain_text("reading the others", timeout=30_000)
    expect(heads.state).to_contain_text(re.compile(r"Measured on \d+ of 1536 queries"))
    notebook.wait_for_python("long.sampled", 1)
    found = {}
    for layer, head in np.ndindex(4, 8):
        pixels = heads.colors(layer, head, across=8)
        near = abs(pixels - strongest).max(2) < 8
        if near.any():
            found[layer, head] = np.argwhere(near) / len(pixels)
    assert found.keys() == {(2, 5)}
    assert found[2, 5].mean(0) == pytest.approx([701 / 1536, 900 / 1536], abs=0.04)


def test_an_open_head_of_a_long_text_shows_a_sample_and_then_all(notebook, show):
    heads, legend = show(9), notebook.page.locator(".attnviz-heads").last.locator(".attnviz-legend")
    notebook.run("import sys\nheads_module = sys.modules['attnviz.views.heads']")
    reach = notebook.python("heads_module.REACH")
    notebook.run("heads_module.REACH = 2**20")
    heads.click(2, 5, across=8)  # of its queries 1, 4, 7 … are sampled: not 701
    expect(heads.state).to_contain_text("The open head shows one query in 3 until all are read.")
    expect(legend).not_to_contain_text("1.0")
    expect(heads.state).not_to_contain_text("The open head")
    expect(legend).to_contain_text("1.0")
    expect(heads.problem).to_be_hidden()
    notebook.run(f"heads_module.REACH = {reach}")
    heads.click(0, 0, across=8)
    heads.expect_open(0, 0)
    heads.opened.hover(700, 900, n_keys=1536)
    expect(heads.opened.value).to_contain_text("largest of 3 × 3 weights")  # no thumbnail any more


def test_ten_views_in_one_notebook_are_all_painted(notebook):
    grids = notebook.page.locator(".attnviz-heads canvas.attnviz-grid")
    opened = notebook.page.locator(".attnviz-heads canvas.attnviz-cells")
    for canvases in (grids, opened):
        found = canvases.evaluate_all(COLORS)
        assert len(found) == 10
        assert min(found) > 10


def test_a_freed_record_says_so_and_the_picture_stays(notebook, show):
    heads = show(9)
    heads.click(1, 1, across=8)
    heads.expect_open(1, 1)
    expect(heads.root.locator(".attnviz-matrix")).to_have_attribute("data-detail", "overview")
    expect(heads.problem).to_be_hidden()
    heads.page.mouse.move(0, 0)
    before = heads.grid.evaluate("canvas => canvas.toDataURL()")
    notebook.run("for record in records:\n    record.free()")
    heads.click(2, 5, across=8)
    expect(heads.problem).to_have_text(re.compile(r"attention 2 \(layer\.2\) was freed"))
    heads.expect_open(2, 5)
    heads.opened.hover(700, 900, n_keys=1536)  # its thumbnail is what is left
    expect(heads.opened.value).to_contain_text("largest of 48 × 48 weights: ≈ 1.000")
    heads.page.mouse.move(0, 0)
    heads.click(1, 1, across=8)
    expect(heads.problem).to_contain_text("attention 1 (layer.1) was freed")
    heads.page.mouse.move(0, 0)
    assert heads.grid.evaluate("canvas => canvas.toDataURL()") == before


def test_nothing_left_the_machine_and_no_error_was_logged(notebook):
    # it looks back on all the others; what follows has errors of JupyterLab's own
    assert notebook.problems == []


def test_after_a_restart_the_view_says_so_and_stays(notebook, heads):
    notebook.page.evaluate("window.panel.sessionContext.restartKernel()")
    heads.click(1, 0)
    expect(heads.problem).to_contain_text("run this cell again", timeout=12_000)
    heads.expect_open(1, 0)
    heads.opened.hover(2, 3)  # the thumbnail of 6 × 6 has all its weights, rounded
    weight = WEIGHTS[1, 0, 2, 3]
    shown = heads.opened.value.text_content()
    assert shown.startswith(f"{TOKENS[2]} → {TOKENS[3]}: ≈ ")
    assert float(shown.split("≈ ")[1]) == pytest.approx(weight, abs=0.005)
    heads.hover(2, 2)
    expect(heads.value).to_have_text("layer 2, head 2")


# --- a saved page ---------------------------------------------------------------------------------

N = 24
MORE = np.random.default_rng(1).dirichlet(np.ones(N), (6, 12, N)).astype("float32")
WORDS = [f"w{i}" for i in range(N)]
SAVED = av.heads(list(MORE), WORDS, title="saved")


@pytest.fixture(scope="module")
def page(open_page, tmp_path_factory):
    file = tmp_path_factory.mktemp("saved") / "heads.html"
    SAVED.selection = {"layer": 4, "head": 7, "query": 3, "key": 20}
    SAVED.save(file)
    return open_page(file)


@pytest.fixture
def saved(page, picture_of):
    page.mouse.move(0, 0)
    return Heads(page.locator(".attnviz-heads"), picture_of)


def expect_saved_weight(heads, layer, head, query, key):
    heads.opened.hover(query, key, n_keys=N)
    weight = MORE[layer, head, query, key]
    expect(heads.opened.value).to_have_text(f"w{query} → w{key}: {weight:.3f}")


def test_a_saved_page_shows_what_was_selected(saved):
    saved.expect_open(4, 7)
    expect(saved.opened.pinned).to_contain_text("pinned: w3")
    expect_saved_weight(saved, 4, 7, 3, 20)


def test_a_saved_page_names_and_opens_every_head(saved):
    for layer, head in [(0, 0), (5, 11), (2, 6)]:
        saved.hover(layer, head, across=12)
        expect(saved.value).to_have_text(f"layer {layer}, head {head}")
        expect(saved.readout).to_contain_text(measured(SAVED, layer, head))
        saved.click(layer, head, across=12)
        saved.expect_open(layer, head)
        expect_saved_weight(saved, layer, head, 23, 11)
        expect(saved.problem).to_be_hidden()


def test_a_saved_page_is_walked_by_keyboard(saved):
    saved.click(2, 6, across=12)
    saved.page.mouse.move(0, 0)
    saved.grid.focus()
    for key in ["ArrowUp", "ArrowUp", "ArrowRight"]:
        saved.page.keyboard.press(key)
    expect(saved.value).to_have_text("layer 1, head 7")
    saved.page.keyboard.press("Enter")
    saved.expect_open(1, 7)
    expect(saved.opened.cells).to_be_focused()


def test_a_saved_page_is_sorted(saved):
    saved.order.select_option("itself")
    best = int(np.concatenate(SAVED.measures["itself"]).argmax())
    saved.grid.hover(position={"x": 15, "y": 15})
    expect(saved.value).to_have_text(f"layer {best // 12}, head {best % 12}")
    saved.order.select_option("layer and head")


def test_a_saved_page_follows_the_system_to_dark(saved, contrast):
    light = saved.grid.evaluate(INK)
    saved.page.emulate_media(color_scheme="dark")
    saved.page.wait_for_timeout(100)
    for part in (".attnviz-title", ".attnviz-readout", "select", "button", ".attnviz-label"):
        assert contrast(saved.root.locator(part).first) >= 4.5, part
    dark = saved.grid.evaluate(INK)
    assert min(dark[:3]) > 200
    assert max(light[:3]) < 80


def test_a_saved_page_has_no_errors_and_asks_for_nothing(page):
    assert page.problems == []

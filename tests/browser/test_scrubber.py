"""The training scrubber in JupyterLab and as a saved page: slider, curve, play, heads, themes."""

import numpy as np
import pytest
from playwright.sync_api import expect

import attnviz as av

pytestmark = pytest.mark.slow

TOKENS = ["[CLS]", "the", "<b>cat</b>", "sat", "[SEP]"]
STEPS = [0, 5, 20, 100, 300, 600]
MADE = f"""
import numpy as np

TOKENS, STEPS = {TOKENS}, {STEPS}
rng = np.random.default_rng(0)
ends = rng.dirichlet(np.full(5, 0.2), (2, 3, 5))
snapshots = {{  # from even weights to those of the end, two layers of three heads
    step: list(((1 - step / 600) / 5 + step / 600 * ends).astype("float32")) for step in STEPS
}}
losses = list(2.5 * np.exp(-np.arange(1, 601) / 150) + 0.1)
"""
SHOW = """
import attnviz as av
from IPython.display import display

view = av.scrubber(snapshots, TOKENS, losses=losses, title="<i>it</i> grows")
plain = av.scrubber(snapshots, TOKENS)
long = av.scrubber(
    {step: [rng.dirichlet(np.ones(300), (2, 300)).astype("float32")] for step in range(8)},
    [f"t{i}" for i in range(300)],
)
many = av.scrubber({step: snapshots[600] for step in range(101)}, TOKENS)
display(view, plain, long, many)
"""
made = {}
exec(MADE, made)
SNAPSHOTS, LOSSES = made["snapshots"], made["losses"]
CELL = """(canvas, [query, key, n]) => {  // the colour in the middle of a cell
    const at = (i) => Math.floor((i + 0.5) * canvas.width / n);
    const { data } = canvas.getContext('2d').getImageData(at(key), at(query), 1, 1);
    return [...data].slice(0, 3);
}"""
MARK = """(canvas) => {  // where the line of the shown step is, from 0 to 1: the tallest column
    const { width, height } = canvas;
    const { data } = canvas.getContext('2d').getImageData(0, 0, width, height);
    const tall = Array.from({ length: width }, (_, x) => {
        let ink = 0;
        for (let y = 0; y < height; y++) ink += data[4 * (y * width + x) + 3] > 128;
        return ink;
    });
    const scale = width / canvas.clientWidth;
    return (tall.indexOf(Math.max(...tall)) / scale - 8) / (canvas.clientWidth - 16);
}"""


class Scrubber:
    """One scrubber on a page, used as a reader uses it."""

    def __init__(self, page, picture_of, number=0):
        self.page = page
        self.root = page.locator(".attnviz-scrubber").nth(number)
        self.opened = picture_of(self.root.locator(".attnviz-matrix"))
        self.slider = self.root.get_by_label("training step")
        self.said = self.root.locator(".attnviz-scrubber-said")
        self.play = self.said.get_by_role("button")
        self.curve = self.root.locator(".attnviz-scrubber-curve canvas")
        self.layer = self.root.get_by_role("combobox", name="layer", exact=True)
        self.head = self.root.get_by_role("combobox", name="head", exact=True)
        self.problem = self.root.locator(".attnviz-problem")

    def expect_step(self, step, layer=0, head=0, losses=True):
        """The slider, the words, the mark on the curve and the picture all speak of this step."""
        text = f"step {step} of 600"
        loss = f"loss {LOSSES[step - 1]:.3f}" if step and losses else ""
        expect(self.said).to_have_text(f"{self.play.text_content()}{text}{loss}")
        expect(self.slider).to_have_value(str(STEPS.index(step)))
        expect(self.slider).to_have_attribute("aria-valuetext", f"{text}, {loss}".strip(", "))
        expect(self.opened.title).to_have_text(f"layer {layer}, head {head} after {step} steps")
        if losses:
            assert self.curve.evaluate(MARK) == pytest.approx(step / 600, abs=0.01)

    def expect_weight(self, step, layer, head, query, key):
        self.opened.hover(query, key)
        weight = SNAPSHOTS[step][layer][head, query, key]
        expect(self.opened.value).to_have_text(f"{TOKENS[query]} → {TOKENS[key]}: {weight:.3f}")

    def click_curve(self, step):
        width, height = self.curve.evaluate("canvas => [canvas.clientWidth, canvas.clientHeight]")
        self.curve.click(position={"x": 8 + step / 600 * (width - 16), "y": height / 2})

    def color(self, query, key):
        return self.opened.cells.evaluate(CELL, [query, key, len(TOKENS)])


def selected(layer, head, query=None, key=None):
    return {"layer": layer, "head": head, "query": query, "key": key}


@pytest.fixture(scope="module")
def notebook(run_cell):
    return run_cell("scrubbers", MADE + SHOW)


@pytest.fixture
def view(notebook, picture_of):
    """The first scrubber as it was at the start, the pointer elsewhere."""
    view = Scrubber(notebook.page, picture_of)
    expect(view.opened.title).to_be_visible()
    notebook.page.mouse.move(0, 0)
    notebook.page.evaluate("document.activeElement.blur()")
    assert notebook.run("view.selection, view.step = {'layer': 0, 'head': 0}, 0") == ""
    view.expect_step(0)
    return view


def test_the_keyboard_slides_and_lets_jupyterlab_alone(notebook, view):
    view.slider.focus()
    before = notebook.state()
    for key, step in [
        *(("ArrowRight", 5), ("ArrowRight", 20), ("ArrowUp", 100), ("ArrowLeft", 20)),
        *(("End", 600), ("ArrowRight", 600), ("Home", 0), ("ArrowLeft", 0), ("ArrowRight", 5)),
    ]:
        view.page.keyboard.press(key)
        view.expect_step(step)
    notebook.wait_for_python("view.step", 5)
    for key in ["b", "x", "m"]:  # JupyterLab's own keys for cells
        view.page.keyboard.press(key)
    assert notebook.state() == before


def test_the_pointer_slides(notebook, view):
    box = view.slider.bounding_box()
    middle = box["y"] + box["height"] / 2
    view.page.mouse.move(box["x"] + 8, middle)
    view.page.mouse.down()
    for i in (2, 5, 3):
        view.page.mouse.move(box["x"] + 8 + i / 5 * (box["width"] - 16), middle)
        view.expect_step(STEPS[i])
    view.page.mouse.up()
    notebook.wait_for_python("view.step", STEPS[3])
    view.expect_weight(STEPS[3], 0, 0, 4, 1)


def test_a_click_on_the_curve_goes_to_the_nearest_snapshot(notebook, view):
    for place, step in [(600, 600), (190, 100), (210, 300), (0, 0), (24, 20), (451, 600)]:
        view.click_curve(place)
        view.expect_step(step)
    notebook.wait_for_python("view.step", 600)


def test_it_plays_to_the_end_and_then_from_the_start(notebook, view):
    expect(view.play).to_have_text("Play")
    notebook.run("seen = []; view.observe(lambda change: seen.append(change.new), 'step')")
    for start in (20, 600):
        notebook.run(f"view.step = {start}; seen.clear()")
        view.expect_step(start)
        view.play.click()
        expect(view.play).to_have_text("Play")
        view.expect_step(600)
        wanted = STEPS[3:] if start == 20 else STEPS
        notebook.wait_for_python("seen", wanted)
    notebook.run("view.unobserve_all('step')")


def test_pause_the_slider_and_the_keyboard_stop_it(notebook, picture_of):
    many = Scrubber(notebook.page, picture_of, 3)
    for stop, place in [
        (many.play.click, None),
        (lambda: many.slider.press("Home"), "0"),
        (many.slider.click, "50"),  # in its middle
    ]:
        before = many.slider.input_value()
        many.play.click()
        expect(many.play).to_have_text("Pause")
        expect(many.slider).not_to_have_value(before)
        stop()
        expect(many.play).to_have_text("Play")
        before = place or many.slider.input_value()
        many.page.wait_for_timeout(500)
        assert many.slider.input_value() == before


def test_nothing_plays_by_itself(view):
    view.page.wait_for_timeout(500)
    view.expect_step(0)


def test_a_colour_means_the_same_weight_at_every_step(notebook, view):
    palette = np.frombuffer(av.scrubber(SNAPSHOTS, TOKENS).palette, np.uint8).reshape(256, 3)
    head = np.stack([SNAPSHOTS[step][0][0] for step in STEPS])
    for step, weights in zip(STEPS, head, strict=True):
        notebook.run(f"view.step = {step}")
        view.expect_step(step)
        for place in [(0, 0), (2, 4), np.unravel_index(weights.argmax(), (5, 5))]:
            wanted = palette[round(float(weights[place] / head.max()) * 255)].astype(int)
            assert view.color(*map(int, place)) == pytest.approx(wanted.tolist(), abs=3)


def test_heads_are_chosen_and_every_number_is_theirs(notebook, view):
    view.layer.select_option("1")
    view.expect_step(0, layer=1)
    view.head.select_option("2")
    view.expect_step(0, layer=1, head=2)
    notebook.wait_for_python("view.selection", selected(1, 2))
    view.slider.press("End")
    view.expect_step(600, layer=1, head=2)
    for query, key in [(0, 0), (4, 2), (3, 1)]:
        view.expect_weight(600, 1, 2, query, key)


def test_a_pinned_row_stays_while_the_step_changes(notebook, view):
    view.opened.click(3, 1)
    notebook.wait_for_python("view.selection", selected(0, 0, 3, 1))
    view.page.mouse.move(0, 0)
    for key, step in [("End", 600), ("ArrowLeft", 300)]:
        view.slider.press(key)
        row = SNAPSHOTS[step][0][0, 3]
        said = f"pinned: sat attends most to {TOKENS[row.argmax()]}\u00a0{row.max():.3f}"
        expect(view.opened.pinned).to_contain_text(said)
        expect(view.opened.value).to_have_text(f"sat → the: {row[1]:.3f}")


def test_the_row_can_be_read_as_a_table(view):
    button = view.root.get_by_role("button", name="Show as table")
    button.click()
    view.slider.press("End")
    rows = view.opened.table.locator("tbody tr")
    expect(rows.nth(2)).to_have_text(f"2{TOKENS[2]}{SNAPSHOTS[600][0][0, 0, 2]:.3f}")
    view.root.get_by_role("button", name="Hide table").click()


def test_python_sets_step_selection_title_and_colours(notebook, view):
    notebook.run("view.selection, view.step = {'layer': 1, 'head': 1, 'query': 2, 'key': 4}, 300")
    view.expect_step(300, layer=1, head=1)
    weight = SNAPSHOTS[300][1][1, 2, 4]
    expect(view.opened.value).to_have_text(f"{TOKENS[2]} → [SEP]: {weight:.3f}")
    expect(view.layer).to_have_value("1")
    expect(view.head).to_have_value("1")
    notebook.run("view.selection = {}")
    expect(view.opened.pinned).to_have_count(0)
    view.expect_step(300, layer=1, head=1)  # the head stays open
    notebook.run("view.title, view.scale, view.threshold = '<u>x</u>', 'log', 0.25")
    expect(view.root.locator("> .attnviz-title")).to_have_text("<u>x</u>")
    expect(view.root.get_by_label("colours")).to_have_value("log")
    notebook.run("view.title, view.scale, view.threshold = '<i>it</i> grows', 'linear', 0.0")
    assert "ValueError: step must be one of the snapshots" in notebook.run("view.step = 7")


def test_markup_is_only_text(view):
    expect(view.root.locator("> .attnviz-title")).to_have_text("<i>it</i> grows")
    assert view.opened.labels("query").all_text_contents() == TOKENS
    assert view.root.locator(":is(i, u)").count() == 0


def test_without_losses_there_is_no_curve(notebook, picture_of):
    plain = Scrubber(notebook.page, picture_of, 1)
    plain.slider.press("ArrowRight")
    plain.expect_step(5, losses=False)
    expect(plain.curve).to_have_count(0)


def test_a_long_text_shows_the_largest_of_patches_and_then_all(notebook, picture_of):
    long = Scrubber(notebook.page, picture_of, 2)
    matrix = long.root.locator(".attnviz-matrix")
    expect(matrix).to_have_attribute("data-detail", "exact")
    long.play.click()
    expect(matrix).to_have_attribute("data-detail", "overview")  # nothing is asked while it plays
    expect(long.said).to_contain_text("step 7 of 7")
    expect(matrix).to_have_attribute("data-detail", "exact")
    long.opened.hover(150, 200, n_keys=300)
    weight = notebook.python(
        "float(long._snapshots[7][0].rows(slice(0, 1), slice(None))[0][150, 200])"
    )
    expect(long.opened.value).to_have_text(f"t150 → t200: {weight:.4f}")
    expect(long.problem).to_be_hidden()


def test_text_is_readable_in_both_themes(notebook, view, set_theme, contrast):
    notebook.run("view.selection = {'layer': 0, 'head': 0, 'query': 2, 'key': 1}; view.step = 100")
    expect(view.opened.pinned).to_have_count(1)
    parts = [
        *("> .attnviz-title", "label", "select", ".attnviz-scrubber-axis span"),
        *(".attnviz-scrubber-ends span", ".attnviz-scrubber-said b", ".attnviz-scrubber-said span"),
        *(".attnviz-scrubber-said button", ".attnviz-matrix .attnviz-title", ".attnviz-pinned"),
    ]
    for theme in ("Dark", "Light"):
        before = view.curve.evaluate("canvas => canvas.toDataURL()")
        set_theme(notebook, theme)
        for part in parts:
            assert contrast(view.root.locator(part).first) >= 4.5, f"{part} in {theme}"
        view.page.wait_for_function(  # the curve is drawn anew
            "([canvas, than]) => canvas.toDataURL() !== than",
            arg=[view.curve.element_handle(), before],
        )


def test_nothing_left_the_machine_and_no_error_was_logged(notebook):
    assert notebook.problems == []


# --- a saved page ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def page(open_page, tmp_path_factory):
    file = tmp_path_factory.mktemp("saved") / "scrubber.html"
    view = av.scrubber(SNAPSHOTS, TOKENS, losses=LOSSES, title="saved")
    view.selection, view.step = selected(1, 2, 3, 1), 100
    view.save(file)
    return open_page(file)


@pytest.fixture
def saved(page, picture_of):
    page.mouse.move(0, 0)
    return Scrubber(page, picture_of)


def test_a_saved_page_opens_as_it_was(saved):
    saved.expect_step(100, layer=1, head=2)
    expect(saved.opened.pinned).to_contain_text("pinned: sat")
    saved.expect_weight(100, 1, 2, 0, 4)


def test_a_saved_page_slides_plays_and_opens_every_head(saved):
    saved.slider.press("Home")
    saved.expect_step(0, layer=1, head=2)
    saved.click_curve(280)
    saved.expect_step(300, layer=1, head=2)
    saved.play.click()
    expect(saved.play).to_have_text("Play")
    saved.expect_step(600, layer=1, head=2)
    for layer, head in np.ndindex(2, 3):
        saved.layer.select_option(str(layer))
        saved.head.select_option(str(head))
        saved.expect_step(600, layer, head)
        saved.expect_weight(600, layer, head, 4, 0)
    expect(saved.problem).to_be_hidden()


def test_a_saved_page_follows_the_system_to_dark(saved, contrast):
    light = saved.curve.evaluate("canvas => canvas.toDataURL()")
    saved.page.emulate_media(color_scheme="dark")
    saved.page.wait_for_timeout(100)
    for part in ("> .attnviz-title", "select", ".attnviz-scrubber-ends span", "button", "b"):
        assert contrast(saved.root.locator(part).first) >= 4.5, part
    assert saved.curve.evaluate("canvas => canvas.toDataURL()") != light


def test_a_saved_page_has_no_errors_and_asks_for_nothing(page):
    assert page.problems == []

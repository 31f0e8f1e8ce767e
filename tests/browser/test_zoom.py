"""A long heatmap in JupyterLab and in saved pages: zoom, detail from Python, colours."""

import re

import numpy as np
import pytest
from playwright.sync_api import expect

import attnviz as av

pytestmark = pytest.mark.slow

N = 2048
CODE = f"""
import numpy as np
import torch
import attnviz as av
from attnviz.seeing import AttentionRecord

torch.manual_seed(0)
query, key = torch.randn(2, 1, 2, {N}, 8)
key[:, 1] *= 0.4
query[:, 0], key[:, 0] = 0.1 * query[:, 0], 0.1 * key[:, 0]
query[0, 0, :, 0] = 1
key[0, 0, :, 0], key[0, 0, 0, 0] = 0, 8  # the first key, for all queries of head 0
names = [f"t{{i}}" for i in range(4096)]
even = torch.randn(600, 4096).mul(0.5).softmax(-1)
wide = AttentionRecord(0, 0, "cross", "cross", written_out=even[None, None])
record = AttentionRecord(0, 0, "layer.0", "self", query=query, key=key)
view = av.heatmap(record, names[:{N}], head=1, title="long")
weight = lambda q, k: float(record.tile(slice(q, q + 1), slice(None))[0, 1, 0, k])
asked, answer = [], view._answer
view._answer = lambda question: (asked.append(question), answer(question))[1]
view
"""
PIXEL = """(canvas, [x, y]) => {
    const scale = canvas.width / canvas.clientWidth;
    return [...canvas.getContext('2d').getImageData(x * scale, y * scale, 1, 1).data];
}"""
BLANK = """(canvas) => {  // the part of the pixels that nothing is painted on
    const { data } = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
    let blank = 0;
    for (let i = 3; i < data.length; i += 4) blank += data[i] === 0;
    return blank / (data.length / 4);
}"""
GREENEST = """(canvas) => {
    const { data } = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
    return data.reduce((most, value, i) => i % 4 === 1 && value > most ? value : most, 0);
}"""
WHEEL = """(canvas, [x, y, deltaY]) => {  // as from scrolling a page past a resting pointer
    const { left, top } = canvas.getBoundingClientRect();
    const at = { clientX: left + x, clientY: top + y, deltaY, bubbles: true, cancelable: true };
    const event = new WheelEvent('wheel', at);
    canvas.dispatchEvent(event);
    return event.defaultPrevented;
}"""
PAINTED = "() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))"
PALETTE = np.frombuffer(av.heatmap([[1.0]], ["a"]).palette, np.uint8).reshape(256, 3)
PLACE = re.compile(r"quer(?:y|ies) (\d+)(?:–(\d+))?, keys? (\d+)(?:–(\d+))?$")


class Zoomed:
    """A heatmap and where in it the pointer is."""

    def __init__(self, picture):
        self.picture, self.root, self.page = picture, picture.root, picture.page
        self.cells, self.value = picture.cells, picture.value
        self.matrix = self.root.locator(".attnviz-matrix")
        self.problem = self.root.locator(".attnviz-problem")
        self.scale = self.root.get_by_label("colours")
        self.slider = self.root.get_by_role("slider")
        self.width = self.cells.evaluate("canvas => canvas.clientWidth")

    def point(self, x, y):
        self.cells.hover(position={"x": x, "y": y})
        return self.place()

    def place(self):
        """The queries and keys that the words speak of: first and last of each."""
        said = PLACE.search(self.root.locator(".attnviz-place").text_content())
        query, last, key, last_key = (int(n) if n else None for n in said.groups())
        return query, last or query, key, last_key or key

    def inside(self, x, y):
        """A place near this one that is well inside its cell."""
        while self.point(x - 2, y - 2) != self.point(x + 2, y + 2):
            x, y = x + 3, y + 3
        return x, y

    def button(self, name):
        self.root.get_by_role("button", name=name, exact=True).click()

    def wheel(self, times, by=-200):
        for _ in range(times):
            self.page.mouse.wheel(0, by)
            self.page.evaluate(PAINTED)  # a busy browser makes one of several that wait

    def expect_other_labels(self, before):
        for _ in range(100):
            if self.labels("key") != before:
                return
            self.page.wait_for_timeout(20)
        raise AssertionError("the same labels after two seconds")

    def expect_detail(self, which):
        expect(self.matrix).to_have_attribute("data-detail", which)

    def pixel(self, x, y):
        return self.cells.evaluate(PIXEL, [x, y])[:3]

    def labels(self, axis):
        return [int(t[1:]) for t in self.picture.labels(axis).all_text_contents()]


@pytest.fixture(scope="module")
def notebook(run_cell):
    return run_cell("long_heatmap", CODE)


@pytest.fixture
def zoomed(notebook):
    """The heatmap as it is at first: all in sight, nothing pinned, the pointer elsewhere."""
    notebook.page.mouse.move(0, 0)
    said = notebook.run("view.selection = {}; view.scale, view.threshold = 'linear', 0.0")
    assert said == ""
    zoomed = Zoomed(notebook.picture())
    expect(zoomed.cells).to_be_visible()
    zoomed.button("Show all")
    notebook.page.evaluate("document.activeElement.blur()")
    zoomed.cells.scroll_into_view_if_needed()
    zoomed.expect_detail("overview")
    return zoomed


def close_up(zoomed, x, y):
    """Zoom in at a place until single weights are there; return the query and key under it."""
    zoomed.point(x + 5, y + 5)  # a pointer that moved means to zoom
    zoomed.point(x, y)
    for _ in range(6):
        before = zoomed.labels("key")
        zoomed.wheel(1)
        zoomed.expect_other_labels(before)
    zoomed.expect_detail("exact")
    query, last, key, last_key = zoomed.point(x + 0.1, y)
    assert (query, key) == (last, last_key)
    return query, key


def expect_number(zoomed, words, weight):
    """What is shown of a weight: words and all the digits that were meant to be there."""
    shown = zoomed.value.text_content()
    assert re.fullmatch(re.escape(words) + r"0\.\d{5}", shown)
    assert float(shown.removeprefix(words)) == pytest.approx(weight, abs=0.51e-5)


def test_all_in_sight_each_place_shows_the_largest_of_a_patch(notebook, zoomed):
    query, last, key, last_key = zoomed.point(300, 100)
    assert (last - query, last_key - key) == (3, 3)
    assert query == pytest.approx(100 * N / zoomed.width, abs=4)
    assert key == pytest.approx(300 * N / zoomed.width, abs=4)
    largest = notebook.python(
        f"float(record.weights[0, 1, {query}:{last + 1}, {key}:{last_key + 1}].max())"
    )
    expect_number(zoomed, "largest of 4 × 4 weights: ", largest)
    assert zoomed.labels("query")[:2] == zoomed.labels("key")[:2]
    assert 20 < len(zoomed.labels("query")) < 60


def test_the_wheel_zooms_at_the_pointer_until_single_weights_are_there(notebook, zoomed):
    x, y = 0.7 * zoomed.width, 0.3 * zoomed.width
    before = zoomed.point(x, y)
    query, key = close_up(zoomed, x, y)
    assert before[0] <= query <= before[1]  # what was under the pointer still is
    assert before[2] <= key <= before[3]
    weight = notebook.python(f"weight({query}, {key})")
    expect_number(zoomed, f"t{query} → t{key}: ", weight)
    labels = zoomed.labels("key")
    assert key in range(labels[0], labels[-1] + 1)
    assert set(np.diff(labels)) == {1}  # each token has its label again
    zoomed.wheel(8, by=200)
    zoomed.expect_detail("overview")
    assert set(np.diff(zoomed.labels("key"))) != {1}


def test_a_page_that_is_scrolled_past_it_is_not_caught(zoomed):
    x = zoomed.width / 2
    before = zoomed.labels("query")
    assert not zoomed.cells.evaluate(WHEEL, [x, x, -100])
    assert not zoomed.cells.evaluate(WHEEL, [x, x, 100])
    assert zoomed.labels("query") == before
    zoomed.point(x, x)
    zoomed.point(x + 5, x)
    assert not zoomed.cells.evaluate(WHEEL, [x, x, 100])  # there is nothing more to see
    assert zoomed.cells.evaluate(WHEEL, [x, x, -100])
    assert zoomed.labels("query") != before
    zoomed.page.mouse.move(0, 0)
    assert not zoomed.cells.evaluate(WHEEL, [x, x, 100])  # the pointer left


def test_plus_minus_and_zero_zoom_by_keyboard(notebook, zoomed):
    zoomed.cells.focus()
    before, state = zoomed.labels("key"), notebook.state()
    for _ in range(5):
        zoomed.page.keyboard.press("+")
    near = zoomed.labels("key")
    assert N / 2 in range(near[0], near[-1] + 1)  # the middle
    assert near[-1] - near[0] == pytest.approx(N / 32, abs=3)
    zoomed.expect_detail("exact")
    zoomed.page.keyboard.press("-")
    wider = zoomed.labels("key")
    assert wider[-1] - wider[0] == pytest.approx(N / 16, abs=6)
    zoomed.page.keyboard.press("0")
    assert zoomed.labels("key") == before
    assert notebook.state() == state


def test_zoom_by_keyboard_goes_to_the_mark_and_the_mark_moves_the_picture(notebook, zoomed):
    notebook.run("view.selection = {'query': 1500, 'key': 200}")
    expect(zoomed.picture.pinned).to_contain_text("pinned: t1500 attends most to")
    zoomed.cells.focus()
    for _ in range(6):
        zoomed.page.keyboard.press("+")
    zoomed.expect_detail("exact")
    queries, keys = zoomed.labels("query"), zoomed.labels("key")
    assert (1500 in queries, 200 in keys) == (True, True)
    for _ in range(keys[-1] - 200 + 3):
        zoomed.page.keyboard.press("ArrowRight")
    assert zoomed.labels("key")[-1] >= keys[-1] + 3
    zoomed.page.keyboard.press("Enter")
    notebook.wait_for_python(
        "[view.selection['query'], view.selection['key']]", [1500, keys[-1] + 3]
    )


def test_buttons_zoom_too(zoomed):
    before = zoomed.labels("key")
    zoomed.button("Zoom in")
    near = zoomed.labels("key")
    assert near[-1] - near[0] == pytest.approx(N / 2, abs=60)
    zoomed.button("Zoom out")
    assert zoomed.labels("key") == before
    for _ in range(3):
        zoomed.button("Zoom in")
    zoomed.button("Show all")
    assert zoomed.labels("key") == before


def test_a_drag_moves_the_picture_and_is_no_click(notebook, zoomed):
    x = y = zoomed.width / 2
    query, key = close_up(zoomed, x, y)
    box = zoomed.cells.bounding_box()
    mouse = zoomed.page.mouse
    mouse.move(box["x"] + x, box["y"] + y)
    mouse.down()
    mouse.move(box["x"] + x + 60, box["y"] + y - 40, steps=4)
    mouse.up()
    zoomed.expect_detail("exact")
    assert zoomed.point(x + 60, y - 40)[::2] == (query, key)  # it went with the pointer
    assert notebook.python("view.selection['query']") is None
    for button in ("right", "middle"):  # neither pins nor takes hold of the picture
        mouse.down(button=button)
        mouse.move(box["x"] + x - 20, box["y"] + y, steps=4)
        mouse.up(button=button)
    zoomed.page.keyboard.press("Escape")  # a menu, perhaps
    zoomed.point(x - 30, y)
    assert zoomed.point(x + 60, y - 40)[::2] == (query, key)
    zoomed.cells.click(position={"x": x + 60, "y": y - 40})
    notebook.wait_for_python("[view.selection['query'], view.selection['key']]", [query, key])


def test_a_pinned_row_and_its_table_are_exact(notebook, zoomed):
    notebook.run("view.selection = {'query': 77, 'key': 3}")
    row = np.array(notebook.python("record.tile(slice(77, 78), slice(None))[0, 1, 0].tolist()"))
    best = int(row.argmax())
    expect(zoomed.picture.pinned).to_contain_text(f"t77 attends most to t{best} {row[best]:.5f}")
    zoomed.button("Show as table")
    table = zoomed.picture.table
    expect(table).to_contain_text("the 200 largest of 2048 weights")
    shown = [
        r.split()
        for r in table.locator("tbody tr").evaluate_all(
            "rows => rows.map((row) => [...row.cells].map((cell) => cell.textContent).join(' '))"
        )
    ]
    zoomed.button("Hide table")
    assert len(shown) == 200
    assert {int(place) for place, *_ in shown} == set(np.argsort(-row, kind="stable")[:200])
    for place, token, weight in shown:
        assert token == f"t{place}"
        assert float(weight) == pytest.approx(row[int(place)], abs=0.51e-5)


def wanted_color(row, key, scale, largest):
    """The colour of one weight of a row, by the rules of the three scales."""
    if scale == "log":
        place = 1 + np.log10(row[key] / largest) / 4  # four powers of ten
    else:
        place = row[key] / (row.max() if scale == "row" else largest)
    return PALETTE[round(255 * float(np.clip(place, 0, 1)))].tolist()


@pytest.mark.parametrize("scale", ["linear", "log", "row"])
def test_cells_have_the_colours_of_their_scale(notebook, zoomed, scale):
    close_up(zoomed, 0.4 * zoomed.width, 0.6 * zoomed.width)
    zoomed.scale.select_option(scale)
    notebook.wait_for_python("view.scale", scale)
    places = [(0.13, 0.2), (0.5, 0.52), (0.8, 0.33), (0.27, 0.9), (0.9, 0.7)]
    places = [zoomed.inside(x * zoomed.width, y * zoomed.width) for x, y in places]
    found = [zoomed.point(x, y)[::2] for x, y in places]
    zoomed.page.mouse.move(0, 0)
    rows = np.array(notebook.python(f"record.weights[0, 1, {[q for q, _ in found]}].tolist()"))
    largest = notebook.python("float(record.weights[0, 1].max())")
    for row, (query, key), at in zip(rows, found, places, strict=True):
        wanted = wanted_color(row, key, scale, largest)
        assert zoomed.pixel(*at) == pytest.approx(wanted, abs=3), (query, key)


def test_the_slider_hides_smaller_weights(notebook, zoomed):
    zoomed.scale.select_option("log")
    whole = zoomed.cells.evaluate(BLANK)
    zoomed.slider.focus()
    blanks = [whole]
    for _ in range(2):
        for _ in range(10):
            zoomed.page.keyboard.press("ArrowRight")
        blanks.append(zoomed.cells.evaluate(BLANK))
    assert blanks[0] == 0
    assert 0 < blanks[1] < blanks[2]
    threshold = notebook.python("view.threshold")
    assert threshold > 0
    patches = notebook.python(
        "(np.frombuffer(view.cells['values'], '<f4') < view.threshold).mean()"
    )
    assert blanks[2] == pytest.approx(patches, abs=0.02)
    zoomed.page.keyboard.press("Home")
    notebook.wait_for_python("view.threshold", 0)
    assert zoomed.cells.evaluate(BLANK) == 0


def test_a_row_is_measured_by_all_its_keys_also_where_cells_are_smaller_than_pixels(
    notebook, zoomed
):
    """Every query of this head looks at the first key; nothing else in its row is as large."""
    notebook.run(
        "view.update(record, view.query_tokens, head=0); view.scale = 'row'; asked.clear()"
    )
    zoomed.root.evaluate("root => { root.style.width = '420px'; }")
    expect(zoomed.cells).not_to_have_css("width", f"{zoomed.width}px")
    small = Zoomed(zoomed.picture)
    try:
        small.point(small.width - 2, small.width - 9)
        small.point(small.width - 2, small.width - 2)
        zoomed.page.mouse.wheel(0, -200)
        small.page.mouse.move(0, 0)
        expect(small.picture.labels("key").first).not_to_have_text("t0")
        notebook.wait_for_python("len(asked)", 1)
        small.page.wait_for_timeout(200)
        assert small.cells.evaluate(GREENEST) < PALETTE[100][1]
    finally:
        zoomed.root.evaluate("root => { root.style.width = ''; }")
        notebook.run("view.update(record, names[:2048], head=1)")


def test_detail_comes_for_keys_too_where_they_are_many_more_than_queries(notebook, zoomed):
    notebook.run("view.update(wide, names[:600], names)")
    expect(zoomed.picture.labels("query").last).to_have_text(re.compile("t5.."))
    zoomed.cells.focus()
    try:
        for _ in range(7):
            zoomed.page.keyboard.press("+")
            zoomed.page.wait_for_timeout(250)  # the detail of each step arrives
        zoomed.expect_detail("exact")
    finally:
        notebook.run("view.update(record, names[:2048], head=1)")


def test_a_freed_record_says_so_when_more_is_asked_for_and_the_picture_stays(notebook, zoomed):
    notebook.run("record.free()")
    x = zoomed.width / 2
    zoomed.point(x + 5, x)
    zoomed.point(x, x)
    before = zoomed.picture.pixels()
    zoomed.wheel(3)
    expect(zoomed.problem).to_contain_text("attention 0 (layer.0) was freed: capture it again")
    zoomed.expect_detail("overview")
    zoomed.point(x, x + 1)
    expect(zoomed.value).to_contain_text("largest of 4 × 4 weights")
    zoomed.button("Show all")
    zoomed.point(x, x)
    assert zoomed.picture.pixels() == before


def test_nothing_left_the_machine_and_no_error_was_logged(notebook):
    # the last of those in this notebook
    assert notebook.problems == []


# --- saved pages ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def save(open_page, tmp_path_factory):
    """A function that saves a random heatmap, and returns its weights and the opened page."""

    def save(n, **traits):
        weights = np.random.default_rng(n).dirichlet(np.ones(n), n).astype("float32")
        view = av.heatmap(weights, [f"t{i}" for i in range(n)], title=f"{n} tokens")
        for name, value in traits.items():
            setattr(view, name, value)
        file = tmp_path_factory.mktemp("saved") / "heatmap.html"
        view.save(file)
        return weights, open_page(file)

    return save


def test_a_saved_page_of_16_tokens(save, picture_of, contrast):
    weights, page = save(16, selection={"query": 3, "key": 5})
    picture = picture_of(page.locator(".attnviz-heatmap"))
    expect(picture.pinned).to_contain_text("pinned: t3 attends most to")
    for query, key in [(0, 0), (15, 2), (7, 15)]:
        picture.hover(query, key)
        expect(picture.value).to_have_text(f"t{query} → t{key}: {weights[query, key]:.3f}")
    picture.click(9, 4)
    expect(picture.pinned).to_contain_text("pinned: t9")
    page.mouse.move(0, 0)
    picture.cells.focus()
    for key in ["ArrowDown", "ArrowLeft"]:
        page.keyboard.press(key)
    expect(picture.value).to_have_text(f"t10 → t3: {weights[10, 3]:.3f}")
    page.keyboard.press("Enter")
    expect(picture.pinned).to_contain_text("pinned: t10")
    picture.root.get_by_role("button", name="Show as table").click()
    rows = picture.table.locator("tbody tr td:last-child").all_text_contents()
    assert rows == [f"{w:.3f}" for w in weights[10]]
    colors = set()
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        for part in (".attnviz-title", ".attnviz-label", ".attnviz-value", "button", "select"):
            assert contrast(picture.root.locator(part).first) >= 4.5, f"{part} in {scheme}"
        colors.add(picture.title.evaluate("title => getComputedStyle(title).color"))
    assert len(colors) == 2
    page.keyboard.press("Escape")
    assert page.problems == []


def test_a_saved_page_of_1024_tokens_has_each_weight_rounded(save, picture_of):
    weights, page = save(1024, scale="log")
    zoomed = Zoomed(picture_of(page.locator(".attnviz-heatmap")))
    expect(zoomed.scale).to_have_value("log")
    zoomed.expect_detail("exact")  # nobody has to be asked
    zoomed.point(300, 300)
    query, key = close_up(zoomed, 250, 250)
    shown = zoomed.value.text_content()
    assert shown.startswith(f"t{query} → t{key}: ≈ ")
    assert float(shown.split("≈ ")[1]) == pytest.approx(weights[query, key], abs=0.004)
    zoomed.cells.click(position={"x": 250, "y": 250})
    expect(zoomed.picture.pinned).to_contain_text(f"pinned: t{query} attends most to")
    zoomed.page.keyboard.press("0")
    assert zoomed.labels("key")[0] == 0
    page.emulate_media(color_scheme="dark")
    assert page.problems == []

"""The lines between two columns in JupyterLab: pointer, keyboard, heads, layers, long texts."""

import numpy as np
import pytest
from playwright.sync_api import expect

pytestmark = pytest.mark.slow

TOKENS = ["[CLS]", "the", "cat", "[SEP]", "it", "slept", "[SEP]"]
N = len(TOKENS)
WEIGHTS = np.random.default_rng(0).dirichlet(np.ones(N), (3, 4, N))  # layer, head, query, key
COLORS = [(0, 0x72, 0xB2), (0xD5, 0x5E, 0), (0, 0x9E, 0x73), (0xCC, 0x79, 0xA7)]
NOTHING = {"layer": 0, "head": None, "query": None, "key": None}
LONG = 500
SETUP = f"""
import numpy as np
import torch
from IPython.display import display
from attnviz.seeing import AttentionRecord
from attnviz.views.flow import flow

weights = np.random.default_rng(0).dirichlet(np.ones({N}), (3, 4, {N}))
view = flow(list(weights), {TOKENS}, title="short")
torch.manual_seed(0)
seen = [
    AttentionRecord(i, 0, f"block.{{i}}.attention", "self",
                    query=3 * torch.randn(1, 3, {LONG}, 4), key=torch.randn(1, 3, {LONG}, 4))
    for i in range(3)
]
long = flow(seen, [f"t{{i}}" for i in range({LONG})])
sharp = np.stack([np.eye(4), np.roll(np.eye(4), 1, axis=1)])  # itself, the next
cross = flow([sharp], ["<b>x</b>", "&lt;", "<img src=x>", "a  b"], ["<i>", "q", "<u>k</u>", "猫"])
display(view, long, cross)
"""
COLOR_AT = """(canvas, [x, y]) => {  // x as a share of the width, y in CSS pixels
    const size = canvas.width / canvas.clientWidth, context = canvas.getContext('2d');
    const at = [Math.round(x * (canvas.width - 1)), Math.floor(y * size), 1, 1];
    return [...context.getImageData(...at).data];
}"""
MOVES = """(plot) => [...plot.querySelectorAll('.attnviz-flow-row')].map((row) => {
    const start = performance.now();
    row.dispatchEvent(new PointerEvent('pointermove', { bubbles: true }));
    plot.querySelector('canvas').getContext('2d').getImageData(0, 0, 1, 1);
    return performance.now() - start;
})"""


class Flow:
    """One of these views on the page, used as a reader uses it."""

    def __init__(self, page, number=0):
        self.page = page
        self.root = page.locator(".attnviz-flow").nth(number)
        part = self.root.locator
        self.plot, self.canvas = part(".attnviz-flow-plot"), part("canvas")
        self.readout, self.value = part(".attnviz-readout"), part(".attnviz-value")
        self.found, self.pinned = part(".attnviz-flow-found"), part(".attnviz-pinned")
        self.chips, self.problem = part(".attnviz-flow-chip"), part(".attnviz-problem")
        self.layer, self.links = part("select").nth(0), part("select").nth(1)
        self.slider, self.together = part("input[type=range]"), part("input[type=checkbox]")
        self.table, self.held = part(".attnviz-table"), part(".attnviz-flow-held")
        self.outside = part(".attnviz-flow-outside")
        self.ranges = part(".attnviz-flow-range")

    def column(self, side):
        return self.root.locator(f".attnviz-flow-column-{side} .attnviz-flow-label")

    def numbers(self, side):
        return self.root.locator(f".attnviz-flow-column-{side} .attnviz-flow-number")

    def button(self, name):
        return self.root.get_by_role("button", name=name, exact=True)

    def expect_heads(self, *heads):
        """Wait until these heads' chips are pressed, and no others."""
        pressed = self.root.locator(".attnviz-flow-chip[aria-pressed=true]")
        expect(pressed).to_have_text([str(head) for head in heads])

    def expect_found(self, lines):
        """Wait until the readout's numbers begin with these lines."""
        for i, line in enumerate(lines):
            expect(self.found.nth(i)).to_have_text(line)

    def pixels(self):
        return self.canvas.evaluate("canvas => canvas.toDataURL()")

    def wait_for_pixels(self, wanted, same=True):
        """Wait until the lines look like this, or no longer so."""
        self.page.wait_for_function(
            "([canvas, wanted, same]) => (canvas.toDataURL() === wanted) === same",
            arg=[self.canvas.element_handle(), wanted, same],
        )


@pytest.fixture(scope="module")
def notebook(run_cell):
    notebook = run_cell("flow", SETUP)
    expect(notebook.page.locator(".attnviz-flow")).to_have_count(3)
    return notebook


@pytest.fixture
def view(notebook):
    """The short view: first layer, all heads, nothing pinned, the pointer elsewhere, no table."""
    view = Flow(notebook.page)
    if view.table.is_visible():
        view.button("Hide table").click()
    notebook.page.mouse.move(0, 0)
    notebook.page.evaluate("document.activeElement.blur()")
    said = notebook.run(
        "view.selection = {'layer': 0}; view.heads = [0, 1, 2, 3]\n"
        "view.threshold = 0.05; view.links = 'all'"
    )
    assert said == ""
    expect(view.readout).to_contain_text("Point at a token")
    expect(view.layer).to_have_value("0")
    view.expect_heads(0, 1, 2, 3)
    return view


@pytest.fixture
def long(notebook):
    """The long view: its first window, columns moving together."""
    long = Flow(notebook.page, 1)
    notebook.page.mouse.move(0, 0)
    notebook.page.evaluate("document.activeElement.blur()")
    notebook.run("long.start = {'query': 0, 'key': 0}; long.selection = {'layer': 0}")
    expect(long.ranges).to_have_text([f"0–63 of {LONG}"] * 2)
    expect(long.layer).to_have_value("0")
    long.together.check()
    return long


def strongest(weights, n=5):
    """Each of the strongest, as the readout writes it: the number and the token."""
    return [f"{weights[i]:.3f}{TOKENS[i]}" for i in np.argsort(-weights, kind="stable")[:n]]


def at(**places):
    return {**NOTHING, **places}


def test_columns_layers_and_heads_have_their_names(view, notebook):
    for side in ("query", "key"):
        expect(view.column(side)).to_have_text(TOKENS)
    expect(view.layer.locator("option")).to_have_text(["0", "1", "2"])
    expect(view.chips).to_have_text(["0", "1", "2", "3"])
    expect(view.chips.nth(2)).to_have_attribute("aria-label", "head 2")
    long = Flow(notebook.page, 1)
    assert long.layer.get_attribute("title") == "block.0.attention"


def test_lines_have_the_colours_of_their_heads_and_lead_where_they_should(notebook):
    cross = Flow(notebook.page, 2)
    row = cross.canvas.evaluate("canvas => canvas.clientHeight / 4")
    for token in range(4):
        for head, to in [(0, token), (1, (token + 1) % 4)]:
            shift = (head - 0.5) * 0.4 * row  # side by side
            for x, place in [(0, token), (0.5, (token + to) / 2), (1, to)]:
                *color, alpha = cross.canvas.evaluate(COLOR_AT, [x, (place + 0.5) * row + shift])
                assert alpha > 200
                assert color == pytest.approx(COLORS[head], abs=8)


def test_hovering_a_query_shows_what_it_attends_to(view):
    before = view.pixels()
    view.column("query").nth(2).hover()
    expect(view.value).to_have_text("cat")
    mean = WEIGHTS[0, :, 2].mean(0)
    expect(view.readout).to_contain_text("attends most tomean of 4 heads")
    view.expect_found(strongest(mean))
    expect(view.numbers("key")).to_have_text([f"{weight:.3f}" for weight in mean])
    expect(view.numbers("query")).to_have_text([""] * N)
    head, key = np.unravel_index(WEIGHTS[0, :, 2].argmax(), (4, N))
    best = f"{WEIGHTS[0, head, 2, key]:.3f} head {head} → {TOKENS[key]}"
    expect(view.found.nth(5)).to_have_text(best)
    view.wait_for_pixels(before, same=False)
    view.page.mouse.move(0, 0)
    expect(view.value).to_have_count(0)
    view.wait_for_pixels(before)


def test_hovering_a_key_shows_who_attends_to_it(view):
    view.column("key").nth(5).hover()
    expect(view.value).to_have_text("slept")
    expect(view.readout).to_contain_text("gets most frommean of 4 heads")
    mean = WEIGHTS[0, :, :, 5].mean(0)
    view.expect_found(strongest(mean))
    expect(view.numbers("query")).to_have_text([f"{weight:.3f}" for weight in mean])


def test_a_click_pins_a_token_and_a_second_click_lets_go(notebook, view):
    view.column("query").nth(4).click()
    notebook.wait_for_python("view.selection", at(query=4))
    expect(view.pinned).to_have_text("pinned: ")
    expect(view.held).to_contain_text("it")
    notebook.page.mouse.move(0, 0)
    expect(view.value).to_have_text("it")
    view.column("key").nth(1).click()
    notebook.wait_for_python("view.selection", at(key=1))
    view.column("key").nth(1).click()
    notebook.wait_for_python("view.selection", NOTHING)
    expect(view.held).to_have_count(0)


def test_the_other_column_beside_a_pinned_token_shows_each_head(notebook, view):
    notebook.run("view.selection = {'query': 4}")
    expect(view.held).to_have_count(1)
    view.column("key").nth(2).hover()
    expect(view.value).to_have_text("it → cat")
    pair = WEIGHTS[0, :, 4, 2]
    each = [f"{pair[head]:.3f} head {head}" for head in np.argsort(-pair)]
    view.expect_found([f"{pair.mean():.3f}mean of 4 heads", *each])
    expect(view.found).to_have_count(5)


def test_a_selection_made_in_python_is_shown(notebook, view):
    before = view.pixels()
    notebook.run("view.selection = {'layer': 2, 'head': 1, 'query': 3}")
    expect(view.layer).to_have_value("2")
    expect(view.value).to_have_text("[SEP]")
    expect(view.readout).to_contain_text("head 1")
    view.expect_found(strongest(WEIGHTS[2, 1, 3]))
    view.expect_heads(1)
    view.wait_for_pixels(before, same=False)
    notebook.run("view.selection = {'layer': 2, 'query': 3, 'key': 0}")
    expect(view.value).to_have_text("[SEP] → [CLS]")


def test_the_keyboard_walks_pins_and_lets_go(notebook, view):
    view.plot.focus()
    for key, side, index in [
        ("ArrowDown", "query", 0),  # the first key press shows where the mark stands
        ("ArrowDown", "query", 1),
        ("ArrowRight", "key", 1),
        ("ArrowDown", "key", 2),
        ("ArrowLeft", "query", 2),
        *[("ArrowUp", "query", i) for i in (1, 0, 0)],
    ]:
        notebook.page.keyboard.press(key)
        expect(view.value).to_have_text(TOKENS[index])
        expect(view.readout).to_contain_text(f"{side} {index}")
    notebook.page.keyboard.press("Enter")
    notebook.wait_for_python("view.selection", at(query=0))
    notebook.page.keyboard.press("Escape")
    notebook.wait_for_python("view.selection", NOTHING)
    expect(view.readout).to_contain_text("Point at a token")


def test_keys_in_the_picture_do_nothing_to_the_notebook(notebook, view):
    view.column("query").nth(2).click()
    before = notebook.state()
    assert before[1] == "command"  # here JupyterLab's own keys would act: b adds a cell, ...
    for key in ["ArrowUp", "ArrowDown", "b", "m", "Enter", "PageDown", "x", "Escape"]:
        notebook.page.keyboard.press(key)
        assert notebook.state() == before, key
    expect(view.plot).to_be_focused()
    for element in (view.layer, view.links, view.slider, view.chips.nth(0)):
        element.focus()
        for key in ("ArrowDown", "b"):
            notebook.page.keyboard.press(key)
            assert notebook.state() == before, (element, key)


def test_chips_switch_heads_off_and_on(notebook, view):
    before = view.pixels()
    view.chips.nth(1).click()
    notebook.wait_for_python("view.heads", [0, 2, 3])
    view.expect_heads(0, 2, 3)
    view.wait_for_pixels(before, same=False)
    view.column("query").nth(2).hover()
    expect(view.readout).to_contain_text("mean of 3 heads")
    view.expect_found(strongest(WEIGHTS[0, [0, 2, 3], 2].mean(0)))
    view.button("none").click()
    notebook.wait_for_python("view.heads", [])
    expect(view.readout).to_contain_text("No head is shown")
    view.button("all").click()
    notebook.wait_for_python("view.heads", [0, 1, 2, 3])
    notebook.page.mouse.move(0, 0)
    expect(view.value).to_have_count(0)
    view.wait_for_pixels(before)


def test_a_double_click_shows_one_head_alone_and_another_brings_the_others_back(notebook, view):
    heads = "[view.heads, view.selection['head']]"
    notebook.run("view.heads = [0, 1, 3]")
    view.expect_heads(0, 1, 3)
    view.chips.nth(2).dblclick()
    view.expect_heads(2)
    notebook.wait_for_python(heads, [[0, 1, 3], 2])
    view.chips.nth(2).dblclick()
    view.expect_heads(0, 1, 3)
    notebook.wait_for_python(heads, [[0, 1, 3], None])
    view.chips.nth(3).dblclick()
    notebook.wait_for_python(heads, [[0, 1, 3], 3])
    view.chips.nth(0).click()  # beside the one that was alone
    notebook.wait_for_python(heads, [[0, 3], None])


def test_chips_work_with_the_keyboard(notebook, view):
    view.chips.nth(2).focus()
    notebook.page.keyboard.press("Space")
    notebook.wait_for_python("view.heads", [0, 1, 3])
    notebook.page.keyboard.press("Shift+Enter")
    notebook.wait_for_python("view.selection", at(head=2))


def test_the_layer_can_be_chosen(notebook, view):
    view.layer.select_option("1")
    notebook.wait_for_python("view.selection", at(layer=1))
    view.column("query").nth(0).hover()
    view.expect_found(strongest(WEIGHTS[1, :, 0].mean(0)))


def test_links_between_sentences_alone(notebook, view):
    before = view.pixels()
    expect(view.links.locator("option")).to_have_count(5)
    view.links.select_option("B → A")
    notebook.wait_for_python("view.links", "BA")
    view.wait_for_pixels(before, same=False)
    view.column("query").nth(5).hover()
    mean = WEIGHTS[0, :, 5].mean(0)
    expect(view.numbers("key")).to_have_text([f"{weight:.3f}" for weight in mean[:4]] + [""] * 3)
    view.expect_found(strongest(mean[:4]))
    view.column("query").nth(1).hover()
    expect(view.readout).to_contain_text("No weight of this token reaches 0.05")
    expect(view.numbers("key")).to_have_text([""] * N)
    expect(Flow(notebook.page, 2).links).to_be_hidden()  # other keys than queries


def test_weak_links_are_hidden(notebook, view):
    before = view.pixels()
    view.slider.fill("0.3")
    notebook.wait_for_python("view.threshold", 0.3)
    view.wait_for_pixels(before, same=False)
    notebook.run("view.threshold = 1.0")
    expect(view.readout).to_contain_text("No weight here reaches 1.00: all are hidden.")
    assert view.slider.input_value() == "1"
    drawn = "canvas => canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height)"
    assert view.canvas.evaluate(f"{drawn[:-1]}).data.every((x) => x === 0)") is True


@pytest.mark.parametrize("side", ["query", "key"])
def test_a_token_can_be_read_as_a_table(notebook, view, side):
    notebook.run(f"view.selection = {{'layer': 1, '{side}': 2}}")
    expect(view.held).to_have_count(1)
    view.button("Show as table").click()
    does = "attends to" if side == "query" else "gets from"
    expect(view.table.locator("caption")).to_have_text(f"What “cat” ({side} 2) {does}, layer 1")
    rows = [row.locator("th, td").all_text_contents() for row in view.table.locator("tr").all()]
    other = "key" if side == "query" else "query"
    assert rows[0] == ["position", other, "mean", *[f"head {i}" for i in range(4)]]
    weights = WEIGHTS[1, :, 2] if side == "query" else WEIGHTS[1, :, :, 2]
    assert rows[1:] == [
        [str(i), TOKENS[i], *[f"{w:.3f}" for w in (weights[:, i].mean(), *weights[:, i])]]
        for i in range(N)
    ]


def test_text_is_readable_in_both_themes(notebook, view, set_theme, contrast):
    notebook.run("view.selection = {'query': 2}; view.heads = [0, 1]")
    expect(view.held).to_have_count(1)
    parts = [
        *(".attnviz-title", ".attnviz-flow-axis", ".attnviz-flow-far .attnviz-flow-label"),
        *(".attnviz-flow-current .attnviz-flow-label", ".attnviz-flow-number:not(:empty)"),
        *(".attnviz-value", ".attnviz-place", ".attnviz-flow-found", "button", "select"),
        *(".attnviz-flow-chip[aria-pressed=true]", ".attnviz-flow-chip[aria-pressed=false]"),
        ".attnviz-foot label",
    ]
    colors = set()
    for theme in ("Dark", "Light"):
        set_theme(notebook, theme)
        for part in parts:
            assert contrast(view.root.locator(part).first) >= 4.5, f"{part} in {theme}"
        colors.add(view.value.evaluate("label => getComputedStyle(label).color"))
    assert len(colors) == 2


def test_markup_in_tokens_is_only_text(notebook):
    cross = Flow(notebook.page, 2)
    queries, keys = ["<b>x</b>", "&lt;", "<img src=x>", "a␣␣b"], ["<i>", "q", "<u>k</u>", "猫"]
    assert cross.column("query").all_text_contents() == queries
    assert cross.column("key").all_text_contents() == keys
    cross.button("Show as table").click()
    for i, token in enumerate(queries):
        cross.column("query").nth(i).hover()
        assert cross.value.text_content() == token
        assert cross.table.locator("tbody th").all_text_contents() == keys
    strange = cross.root.locator(":is(script, img, i, u, b:not(.attnviz-value))")
    expect(strange).to_have_count(0)
    cross.button("Hide table").click()


def long_mean(notebook, layer, query):
    return notebook.python(
        f"seen[{layer}].tile(slice({query}, {query + 1}), slice(None))[0, :, 0].mean(0).tolist()"
    )


def test_what_goes_outside_a_long_text_is_said(notebook, long):
    long.column("query").nth(7).hover()
    mean = np.array(long_mean(notebook, 0, 7))
    expect(long.outside).to_have_text(f"{mean[64:].sum():.2f} goes to tokens not shown")
    shown = [f"{weight:.3f}" if weight >= 0.005 else "" for weight in mean[:64]]
    expect(long.numbers("key")).to_have_text(shown)
    long.column("key").nth(7).hover()
    expect(long.readout).to_contain_text("gets most from, of the queries in sight")
    expect(long.outside).to_have_count(0)


def test_the_window_moves_by_button_and_asks_python(notebook, long):
    long.button("Later queries").click()
    expect(long.ranges).to_have_text([f"64–127 of {LONG}"] * 2)
    assert long.column("query").all_text_contents() == [f"t{i}" for i in range(64, 128)]
    notebook.wait_for_python("long.start", {"query": 64, "key": 64})
    long.column("query").nth(3).hover()
    mean = np.array(long_mean(notebook, 0, 67))[64:128]
    expect(long.numbers("key")).to_have_text(
        [f"{weight:.3f}" if weight >= 0.005 else "" for weight in mean]
    )
    long.together.uncheck()
    long.button("Earlier keys").click()
    expect(long.ranges).to_have_text([f"64–127 of {LONG}", f"0–63 of {LONG}"])
    expect(long.button("Earlier keys")).to_be_disabled()
    long.together.check()
    expect(long.ranges).to_have_text([f"64–127 of {LONG}"] * 2)


def test_the_window_moves_by_keyboard_and_wheel(notebook, long):
    long.plot.focus()
    notebook.page.keyboard.press("ArrowUp")
    expect(long.value).to_have_text("t0")
    notebook.page.keyboard.press("PageDown")
    expect(long.ranges.first).to_have_text(f"64–127 of {LONG}")
    expect(long.value).to_have_text("t64")
    notebook.page.keyboard.press("ArrowUp")  # beyond the upper edge
    expect(long.ranges.first).to_have_text(f"32–95 of {LONG}")
    expect(long.value).to_have_text("t63")
    notebook.page.keyboard.press("PageUp")
    expect(long.ranges.first).to_have_text(f"0–63 of {LONG}")
    long.column("query").nth(5).scroll_into_view_if_needed()
    long.column("query").nth(5).hover()
    notebook.page.mouse.wheel(0, 150)
    expect(long.ranges.first).to_have_text(f"10–73 of {LONG}")


def test_the_wheel_scrolls_the_page_while_the_picture_has_no_focus(notebook, long):
    long.column("query").nth(5).scroll_into_view_if_needed()
    long.column("query").nth(5).hover()
    place = long.plot.bounding_box()["y"]
    notebook.page.mouse.wheel(0, 60)
    notebook.page.wait_for_function(
        "([plot, y]) => plot.getBoundingClientRect().top < y",
        arg=[long.plot.element_handle(), place],
    )
    expect(long.ranges.first).to_have_text(f"0–63 of {LONG}")


def test_start_and_selection_from_python_move_the_window(notebook, long):
    notebook.run("long.start = {'query': 300, 'key': 20}")
    expect(long.ranges).to_have_text([f"300–363 of {LONG}", f"20–83 of {LONG}"])
    expect(long.together).not_to_be_checked()
    notebook.run("long.selection = {'query': 450, 'key': 30, 'layer': 1}")
    expect(long.value).to_have_text("t450 → t30")
    notebook.wait_for_python("long.start", {"query": 418, "key": 20})
    mean = long_mean(notebook, 1, 450)[30]
    expect(long.found.first).to_have_text(f"{mean:.3f}mean of 3 heads")


def test_the_pointer_is_followed_at_once(notebook, long):
    assert np.median(long.plot.evaluate(MOVES)) < 100  # a few in practice


def test_a_saved_page_is_alive(notebook, view, open_page, tmp_path):
    notebook.run(f"view.save({str(tmp_path / 'view.html')!r})")
    page = open_page(tmp_path / "view.html")
    alone = Flow(page)
    alone.layer.select_option("2")
    alone.column("query").nth(2).hover()
    expect(alone.value).to_have_text("cat")
    alone.expect_found(strongest(WEIGHTS[2, :, 2].mean(0)))
    alone.column("query").nth(2).click()
    page.mouse.move(0, 0)
    expect(alone.pinned).to_have_count(1)
    page.keyboard.press("ArrowRight")
    expect(alone.value).to_have_text("cat → cat")
    page.keyboard.press("Escape")
    expect(alone.held).to_have_count(0)
    alone.chips.nth(0).dblclick()
    alone.expect_heads(0)
    light = alone.readout.evaluate("part => getComputedStyle(part).color")
    page.emulate_media(color_scheme="dark")
    expect(alone.readout).not_to_have_css("color", light)
    assert page.problems == []


def test_a_saved_page_of_a_long_text_says_what_it_does_not_hold(
    notebook, long, open_page, tmp_path
):
    notebook.run("long.start = {'query': 100, 'key': 100}")
    notebook.run("import attnviz.views.flow as module; module.IN_PAGE = 1_000_000")
    notebook.run(f"long.save({str(tmp_path / 'long.html')!r})")
    page = open_page(tmp_path / "long.html")
    alone = Flow(page)
    expect(alone.ranges).to_have_text([f"100–163 of {LONG}"] * 2)
    alone.layer.select_option("1")
    alone.column("query").nth(3).hover()
    mean = np.array(long_mean(notebook, 1, 103))
    outside = mean.sum() - mean[100:164].sum()
    expect(alone.outside).to_have_text(f"{outside:.2f} goes to tokens not shown")
    expect(alone.problem).to_be_empty()
    alone.button("Later queries").click()
    expect(alone.problem).to_contain_text("does not hold more detail")
    expect(alone.ranges).to_have_text([f"100–163 of {LONG}"] * 2)
    alone.layer.select_option("0")
    expect(alone.problem).to_be_empty()
    assert page.problems == []


def test_without_the_numbers_of_its_place_it_shows_those_it_has(
    notebook, long, open_page, tmp_path
):
    # like a notebook that is opened again without its kernel: the numbers are those sent at first
    notebook.run("long.start = {'query': 100, 'key': 100}; long._page_state = dict")
    notebook.run(f"long.save({str(tmp_path / 'first.html')!r})")
    page = open_page(tmp_path / "first.html")
    alone = Flow(page)
    expect(alone.problem).to_contain_text("does not hold more detail")
    expect(alone.ranges).to_have_text([f"0–63 of {LONG}"] * 2)
    alone.column("query").nth(3).hover()
    expect(alone.value).to_have_text("t3")
    assert page.problems == []


def test_a_freed_record_shows_the_reason_and_what_was_seen_before(notebook, long):
    notebook.run("for record in seen: record.free()")
    long.layer.select_option("2")
    expect(long.problem).to_have_text(
        "attention 2 (block.2.attention) was freed: capture it again to see it"
    )
    expect(long.layer).to_have_value("0")
    notebook.wait_for_python("long.selection['layer']", 0)
    long.column("query").nth(3).hover()
    expect(long.value).to_have_text("t3")


def test_nothing_left_the_machine_and_no_error_was_logged(notebook):
    # the last of this file: it looks back on all the others
    assert notebook.problems == []

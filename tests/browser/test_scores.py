"""Weights taken apart, in JupyterLab and as a saved page: pointer, keyboard, table, themes."""

import numpy as np
import pytest
from playwright.sync_api import expect

pytestmark = pytest.mark.slow

TOKENS = ["[CLS]", "the", "cat", "sat", "[SEP]"]
ODD = ["<b>x</b>", "<script>1</script>", "<img src=x>", "&lt;", "a b"]
NOTHING = {"layer": None, "head": None, "query": None, "key": None}
SIZES = np.random.default_rng(0).uniform(0.4, 2, (2, 5, 4))
VECTORS = SIZES * np.random.default_rng(1).choice([-1, 1], SIZES.shape)
Q, K = VECTORS
SCALE = 0.125
BIAS = -np.arange(5) / 4
POINT_AT = "Point at a key"

SETUP = f"""
import torch, attnviz as av
from IPython.display import display
from attnviz.seeing import AttentionRecord
from attnviz.views.scores import scores

q, k = torch.tensor({VECTORS.tolist()})[:, None, None]
def record(q=q, k=k, **other):
    return AttentionRecord(0, 0, "layer", "self", q, k, scale={SCALE}, **other)
bias = torch.tensor([{BIAS.tolist()}])
plain = scores(record(), {TOKENS}, 0, title="A title")
changed = scores(record(mask=bias, is_causal=True, changes={{0: av.only(1)}}), {TOKENS}, 0)
odd = scores(record(), {ODD}, 0, title="<u>title</u>")
generator = torch.Generator().manual_seed(0)
many = torch.randn(2, 1, 1, 400, 8, generator=generator)
long = scores(record(*many), [f"t{{i}}" for i in range(400)], 0)
gone = record()
freed = scores(gone, {TOKENS}, 0)
display(plain, changed, odd, long, freed)
"""
SIGNS = """(canvas, [lines, dimensions]) => {  // +1, −1 or 0 where a bar is above or below its line
    const context = canvas.getContext('2d'), high = canvas.height / lines;
    const wide = canvas.width / dimensions;
    const inked = (x, y) => context.getImageData(x, y, 1, 1).data[3] > 0;
    return Array.from({ length: lines }, (_, i) => Array.from({ length: dimensions }, (_, j) => {
        const x = Math.floor((j + 0.5) * wide), y = Math.floor((i + 0.5) * high);
        return Number(inked(x, y - 2)) - Number(inked(x, y + 2));
    }));
}"""
MOVES = """(plot) => {  // milliseconds of each of ten moves of the pointer
    const { left, top } = plot.getBoundingClientRect();
    return Array.from({ length: 10 }, (_, i) => {
        const at = { clientX: left + 200 + 9 * i, clientY: top + 80 + 9 * i };
        const start = performance.now();
        plot.dispatchEvent(new PointerEvent('pointermove', at));
        plot.getBoundingClientRect();
        return performance.now() - start;
    });
}"""


class Scores:
    """One of these views on the page, used as a reader uses it."""

    def __init__(self, page, number=0):
        self.root = page.locator(".attnviz-scores").nth(number)
        self.page = page
        part = self.root.locator
        self.title, self.problem = part(".attnviz-title"), part(".attnviz-problem")
        self.keys, self.tokens = part(".attnviz-keys"), part(".attnviz-tokens")
        self.lines = part(".attnviz-keys .attnviz-line")
        self.query, self.bars = part(".attnviz-query"), part("canvas.attnviz-bars")
        self.readout, self.bands = part(".attnviz-readout"), part(".attnviz-band")
        self.sentence, self.dimension = part(".attnviz-sentence"), part(".attnviz-dimension")
        self.selected, self.marked = part(".attnviz-selected"), part(".attnviz-marked")
        self.table, self.box = part(".attnviz-table"), part("input")
        self.summary, self.notice = part(".attnviz-summary"), part(".attnviz-notice")

    def numbers(self):
        """The numbers in each line, from q·k to the weight."""
        return [line.locator(".attnviz-number").all_text_contents() for line in self.lines.all()]

    def bar(self, key, dimension, of="k", d=4):
        """Where the middle of a bar is, for the mouse."""
        box = self.bars.bounding_box()
        wide = (box["width"] - 12) / 2
        x = box["x"] + (wide + 12) * (of == "products") + wide * (dimension + 0.5) / d
        return x, box["y"] + box["height"] * (key + 0.5) / self.lines.count()

    def choose(self, query):
        self.box.fill(str(query))
        self.box.press("Enter")

    def pixels(self):
        return self.bars.evaluate("canvas => canvas.toDataURL()")

    def wait_for_other_pixels(self, than):
        self.page.wait_for_function(
            "([canvas, than]) => canvas.toDataURL() !== than",
            arg=[self.bars.element_handle(), than],
        )

    def point_at(self, *where, **other):
        self.keys.scroll_into_view_if_needed()
        self.page.mouse.move(*self.bar(*where, **other))


def text(number, places=2):
    return f"{number:.{places}f}".replace("-", "−")


def row(query):
    """q·k, the score and the weight of each key, as they are written."""
    dots = K @ Q[query]
    weights = np.exp(SCALE * dots) / np.exp(SCALE * dots).sum()
    every = zip(dots, SCALE * dots, weights, strict=True)
    return [[text(dot), text(score), text(weight, 3)] for dot, score, weight in every]


def sentence(query, key):
    dot, score, weight = row(query)[key]
    return f"q·k = {dot} → × {SCALE} = {score} → softmax {weight} of the row"


def dimension(query, key, i):
    q, k, product = (text(x, 3) for x in (Q[query, i], K[key, i], Q[query, i] * K[key, i]))
    return f"dimension {i}: q = {q}, k = {k}, q × k = {product}"


def at(query, key):
    return {**NOTHING, "query": query, "key": key}


@pytest.fixture(scope="module")
def notebook(run_cell):
    notebook = run_cell("scores", SETUP)
    expect(notebook.page.locator(".attnviz-scores")).to_have_count(5)
    return notebook


@pytest.fixture
def view(notebook):
    """The plain view: query 1, no key, the pointer elsewhere, no table."""
    view = Scores(notebook.page)
    if view.table.is_visible():
        view.root.get_by_role("button").click()
    notebook.page.mouse.move(0, 0)
    notebook.page.evaluate("document.activeElement.blur()")
    assert notebook.run("plain.selection = {'query': 1}") == ""
    expect(view.query).to_contain_text("query 1")
    expect(view.readout).to_contain_text(POINT_AT)
    return view


def test_every_key_has_its_numbers(notebook, view):
    for query in (1, 4):
        notebook.run(f"plain.selection = {{'query': {query}}}")
        expect(view.query).to_have_text(f"query {query}{TOKENS[query]}")
        assert view.numbers() == row(query)
    expect(view.lines.locator("bdi")).to_have_text(TOKENS)
    expect(view.summary.first).to_have_text("all 5 keys shown")


def test_every_bar_goes_up_or_down_as_its_number_says(view):
    bars = view.root.locator("canvas.attnviz-query-bars")
    assert bars.evaluate(SIGNS, [1, 4]) == [np.sign(Q[1]).tolist()]
    wanted = np.sign(K)
    both = view.bars.evaluate(
        """(canvas, signs) => {  // the two halves, each as a canvas of its own
            const gap = Math.round(12 * devicePixelRatio), half = (canvas.width - gap) / 2;
            return [0, half + gap].map((start) => {
                const one = new OffscreenCanvas(half, canvas.height);
                one.getContext('2d').drawImage(canvas, -start, 0);
                return eval(signs)(one, [5, 4]);
            });
        }""",
        SIGNS,
    )
    assert both == [wanted.tolist(), (wanted * np.sign(Q[1])).tolist()]


@pytest.mark.parametrize("of", ["k", "products"])
@pytest.mark.parametrize(("key", "i"), [(0, 0), (3, 2), (4, 3)])
def test_hovering_a_bar_writes_its_numbers_and_marks_its_dimension(notebook, view, of, key, i):
    view.point_at(key, i, of=of)
    expect(view.dimension).to_have_text(dimension(1, key, i))
    expect(view.sentence).to_have_text(sentence(1, key))
    bands = [band.bounding_box() for band in view.bands.all()]
    middles = [view.bar(key, i, of=part)[0] for part in ("k", "k", "products")]
    assert sorted(b["x"] + b["width"] / 2 for b in bands) == pytest.approx(middles, abs=1)
    assert [round(b["height"]) for b in bands] == [28, 5 * 28, 5 * 28]
    notebook.page.mouse.move(0, 0)
    expect(view.readout).to_contain_text(POINT_AT)
    expect(view.bands.first).to_be_hidden()


def test_hovering_a_line_writes_its_sentence(view):
    view.lines.nth(2).locator(".attnviz-weight").hover()
    expect(view.sentence).to_have_text(sentence(1, 2))
    expect(view.readout).to_contain_text("the → cat query 1, key 2")
    expect(view.dimension).to_have_count(0)
    expect(view.marked).to_contain_text("cat")


def test_hovering_the_query_writes_its_number(view):
    view.root.locator("canvas.attnviz-query-bars").hover(position={"x": 4, "y": 10})
    expect(view.dimension).to_have_text(f"dimension 0: q = {text(Q[1, 0], 3)}")


def test_a_click_selects_a_key_in_python_and_a_second_lets_go(notebook, view):
    view.lines.nth(3).click()
    notebook.wait_for_python("plain.selection", at(1, 3))
    expect(view.selected).to_contain_text("sat")
    notebook.page.mouse.move(0, 0)
    expect(view.sentence).to_have_text(sentence(1, 3))
    view.lines.nth(3).click()
    notebook.wait_for_python("plain.selection", at(1, None))
    expect(view.selected).to_have_count(0)


def test_a_selection_made_in_python_is_shown(notebook, view):
    notebook.run("plain.selection = {'query': 3, 'key': 2}")
    expect(view.query).to_have_text(f"query 3{TOKENS[3]}")
    expect(view.sentence).to_have_text(sentence(3, 2))
    expect(view.selected).to_contain_text("cat")
    expect(view.box).to_have_value("3")
    expect(view.tokens.locator(".attnviz-current")).to_have_text("sat")
    assert view.numbers() == row(3)


def test_the_query_is_chosen_by_its_number_and_from_the_tokens(notebook, view):
    view.choose(4)
    notebook.wait_for_python("plain.selection", at(4, None))
    expect(view.query).to_contain_text("query 4")
    assert view.numbers() == row(4)
    for key, query in [("ArrowDown", 3), ("ArrowUp", 4), ("ArrowUp", 4)]:
        notebook.page.keyboard.press(key)
        expect(view.query).to_contain_text(f"query {query}")
    view.choose(77)
    expect(view.box).to_have_value("4")  # there is no such query
    view.tokens.get_by_text("cat").click()
    notebook.wait_for_python("plain.selection", at(2, None))
    expect(view.query).to_contain_text("query 2")
    assert view.numbers() == row(2)
    before = notebook.state()
    for key, query in [("ArrowRight", 3), ("ArrowRight", 4), ("ArrowRight", 4), ("ArrowLeft", 3)]:
        notebook.page.keyboard.press(key)
        expect(view.query).to_contain_text(f"query {query}")
    assert notebook.state() == before
    notebook.wait_for_python("plain.selection", at(3, None))


def test_the_keyboard_walks_selects_and_lets_go(notebook, view):
    view.keys.focus()
    before = notebook.state()
    press = notebook.page.keyboard.press
    for key, line in [("ArrowDown", 0), ("ArrowDown", 1), ("ArrowDown", 2), ("ArrowUp", 1)]:
        press(key)  # the first key press shows where the mark stands
        expect(view.sentence).to_have_text(sentence(1, line))
    for key, i in [("ArrowLeft", 0), ("ArrowRight", 1), ("ArrowRight", 2), ("ArrowLeft", 1)]:
        press(key)
        expect(view.dimension).to_have_text(dimension(1, 1, i))
    press("Enter")
    notebook.wait_for_python("plain.selection", at(1, 1))
    press("b")  # JupyterLab's own key for a new cell
    press("Escape")
    notebook.wait_for_python("plain.selection", at(1, None))
    expect(view.readout).to_contain_text(POINT_AT)
    expect(view.keys).to_be_focused()
    assert notebook.state() == before


def test_keys_that_are_taken_do_not_scroll_the_page(view):
    for part, key in [(view.keys, "ArrowDown"), (view.keys, " "), (view.tokens, "Home")]:
        part.focus()
        event = f"new KeyboardEvent('keydown', {{ key: '{key}', cancelable: true }})"
        goes_on = part.evaluate(f"part => part.dispatchEvent({event})")
        assert not goes_on, key


def test_mask_bias_and_edit_have_their_place(notebook, view):
    changed = Scores(notebook.page, 1)
    notebook.run("changed.selection = {'query': 2, 'key': 0}")
    expect(changed.query).to_contain_text("query 2")
    dots = K @ Q[2]
    scores = SCALE * dots + BIAS
    scores[3:] = -np.inf
    softmax = np.exp(scores) / np.exp(scores).sum()
    biases = [text(x) for x in BIAS[:3]] + ["masked"] * 2
    weights = ["0.000", "1.000", "0.000", "0.000", "0.000"]
    columns = [map(text, dots), map(text, SCALE * dots), biases, [text(x, 3) for x in softmax]]
    assert changed.numbers() == [list(line) for line in zip(*columns, weights, strict=True)]
    names = changed.root.locator(".attnviz-names .attnviz-number")
    expect(names).to_have_text(["q·k", "× 0.125", "+ bias", "softmax", "edited weight"])
    expect(changed.notice).to_contain_text("An edit changed this row after the softmax")
    expect(changed.summary.first).to_have_text("all 5 keys shown · 2 masked out")
    changed.lines.nth(1).hover()
    steps = f"q·k = {text(dots[1])} → × 0.125 = {text(SCALE * dots[1])}"
    added = f"+ (−0.25) = {text(scores[1])} → softmax {text(softmax[1], 3)}"
    expect(changed.sentence).to_have_text(f"{steps} → {added} → edited to 1.000 of the row")
    changed.lines.nth(4).hover()
    expect(changed.sentence).to_contain_text("→ masked, as this key comes after the query →")


def test_the_row_and_a_selected_key_can_be_read_as_tables(notebook, view):
    view.root.get_by_role("button", name="Show as table").click()
    lines = view.table.locator("tr")

    def cells():
        return [line.locator("th, td").all_text_contents() for line in lines.all()]

    assert cells()[0] == ["position", "key", "q·k", "× 0.125", "weight"]
    assert cells()[1:] == [[str(i), TOKENS[i], *line] for i, line in enumerate(row(1))]
    notebook.run("plain.selection = {'query': 1, 'key': 3}")
    expect(view.table.get_by_role("caption")).to_contain_text(sentence(1, 3))
    numbers = zip(range(4), Q[1], K[3], Q[1] * K[3], strict=True)
    assert cells()[1:-1] == [[str(i), *(text(x, 3) for x in line)] for i, *line in numbers]
    assert cells()[-1] == ["sum", "", "", text(K[3] @ Q[1], 3)]
    view.root.get_by_role("button", name="Hide table").click()
    expect(view.table).to_be_hidden()


def test_text_is_readable_in_both_themes(notebook, view, set_theme, contrast):
    notebook.run("plain.selection = {'query': 1, 'key': 3}")
    expect(view.sentence).to_have_count(1)
    view.root.get_by_role("button", name="Show as table").click()
    parts = [
        *(".attnviz-title", ".attnviz-place", "input", ".attnviz-current", ".attnviz-token"),
        *(".attnviz-summary", ".attnviz-names span", ".attnviz-query bdi", ".attnviz-key"),
        *(".attnviz-selected .attnviz-number", ".attnviz-marked .attnviz-place"),
        *(".attnviz-value", ".attnviz-sentence", ".attnviz-legend", "button", "caption", "td"),
    ]
    for theme in ("Dark", "Light"):
        before = view.pixels()
        set_theme(notebook, theme)
        view.wait_for_other_pixels(before)
        for part in parts:
            assert contrast(view.root.locator(part).first) >= 4.5, f"{part} in {theme}"


def test_markup_in_tokens_and_title_is_only_text(notebook, view):
    odd = Scores(notebook.page, 2)
    expect(odd.title).to_have_text("<u>title</u>")
    odd.root.get_by_role("button", name="Show as table").click()
    assert odd.lines.locator("bdi").all_text_contents() == ODD
    assert odd.tokens.locator(".attnviz-token").all_text_contents() == ODD
    assert odd.table.locator("tbody th").all_text_contents() == ODD
    for i in (0, 2):
        odd.lines.nth(i).hover()
        assert odd.readout.locator("b").text_content() == f"{ODD[0]} → {ODD[i]}"
    expect(odd.root.locator(":is(script, img, i, u, b:not(.attnviz-value))")).to_have_count(0)


def test_of_many_keys_the_strongest_are_shown_and_any_that_is_selected(notebook, view):
    long = Scores(notebook.page, 3)
    weights = np.array(notebook.python("long._record.weights[0, 0, 399].tolist()"))
    order = np.argsort(-weights)
    some = np.sort(order[:64])
    long.choose(399)
    expect(long.query).to_contain_text("query 399")
    expect(long.lines.locator("bdi")).to_have_text([f"t{i}" for i in some])
    share = f"{weights[some].sum():.2f}"
    expect(long.summary.first).to_have_text(f"64 of 400 keys shown, {share} of the weight")
    expect(long.tokens.locator(".attnviz-token")).to_have_text([f"t{i}" for i in range(304, 400)])
    notebook.run(f"long.selection = {{'query': 399, 'key': {order[-1]}}}")
    expect(long.summary.first).to_contain_text("65 of 400 keys shown")
    expect(long.selected.locator("bdi")).to_have_text(f"t{order[-1]}")
    long.readout.scroll_into_view_if_needed()  # the page, which stays where the reader has it
    expect(long.selected).to_be_in_viewport()
    assert max(long.root.locator(".attnviz-plot").evaluate(MOVES)) < 100  # a few in practice


def test_a_freed_record_says_so(notebook, view):
    notebook.run("gone.free()")
    freed = Scores(notebook.page, 4)
    freed.tokens.get_by_text("cat").click()
    expect(freed.problem).to_contain_text("was freed: capture it again")
    expect(freed.query).to_contain_text("query 0")  # whose numbers are still there
    freed.lines.nth(1).hover()
    expect(freed.sentence).to_have_text(sentence(0, 1))
    freed.tokens.get_by_text("[CLS]").click()
    expect(freed.problem).to_have_text("")


@pytest.fixture(scope="module")
def page(notebook, open_page, tmp_path_factory):
    """A saved page with the plain view, and one with the long view."""
    folder = tmp_path_factory.mktemp("pages")
    weakest = notebook.python("int(long._record.weights[0, 0, 300].argmin())")
    notebook.run("plain.selection = {'query': 1, 'key': 2}")
    notebook.run(f"long.selection = {{'query': 300, 'key': {weakest}}}")
    said = notebook.run(f"plain.save('{folder}/plain.html'); long.save('{folder}/long.html')")
    assert said == ""
    return {name: open_page(folder / f"{name}.html") for name in ("plain", "long")}


def test_a_saved_page_is_used_like_the_view(page):
    view = Scores(page["plain"])
    expect(view.sentence).to_have_text(sentence(1, 2))
    assert view.numbers() == row(1)
    view.point_at(3, 2)
    expect(view.dimension).to_have_text(dimension(1, 3, 2))
    view.lines.nth(4).click()
    expect(view.selected).to_contain_text("[SEP]")
    view.tokens.get_by_text("sat").click()
    expect(view.query).to_contain_text("query 3")
    assert view.numbers() == row(3)
    page["plain"].keyboard.press("ArrowLeft")
    expect(view.query).to_contain_text("query 2")
    view.keys.focus()
    page["plain"].mouse.move(0, 0)
    page["plain"].keyboard.press("ArrowUp")
    expect(view.sentence).to_have_text(sentence(2, 3))
    view.root.get_by_role("button", name="Show as table").click()
    expect(view.table.locator("tbody tr")).to_have_count(5)
    assert page["plain"].problems == []


def test_a_saved_page_follows_the_theme_of_the_system(page, contrast):
    view = Scores(page["plain"])
    for scheme in ("dark", "light"):
        before = view.pixels()
        page["plain"].emulate_media(color_scheme=scheme)
        view.wait_for_other_pixels(before)
        for part in (".attnviz-title", ".attnviz-number", ".attnviz-place", "input", "button"):
            assert contrast(view.root.locator(part).first) >= 4.5, f"{part}, {scheme}"
    assert page["plain"].problems == []


def test_a_saved_page_of_a_long_text_says_what_it_holds(page):
    view = Scores(page["long"])
    expect(view.query).to_contain_text("query 300")
    expect(view.summary.first).to_contain_text("65 of 400 keys shown")
    expect(view.summary.first).to_contain_text("this page holds the queries 144 to 399")
    key = view.selected.locator(".attnviz-place").text_content()
    view.choose(144)
    expect(view.query).to_contain_text("query 144")
    expect(view.problem).to_contain_text(f"Key {key} is not among the keys shown")
    view.choose(143)
    expect(view.problem).to_have_text("This saved page does not hold more detail; Python does.")
    expect(view.query).to_contain_text("query 144")
    view.choose(300)
    expect(view.selected.locator(".attnviz-place")).to_have_text(key)
    expect(view.problem).to_have_text("")
    assert page["long"].problems == []


def test_nothing_left_the_machine_and_no_error_was_logged(notebook):
    # the last of this file: it looks back on all the others
    assert notebook.problems == []

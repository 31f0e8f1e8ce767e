"""The app in JupyterLab: typing, heads, edits, what the model says; and as a saved page."""

import time

import numpy as np
import pytest
from playwright.sync_api import expect

pytestmark = pytest.mark.slow

TEXT = "the cat [MASK] on the mat"
MODEL = f"""
import torch, attnviz as av
from tokenizers import Tokenizer, models, pre_tokenizers
from attnviz.models import BertConfig, BertEncoder

torch.set_num_threads(1)
torch.manual_seed(0)
WORDS = "[UNK] [MASK] the cat sat on mat a dog saw café 猫 שלום שָׁלוֹם "
WORDS = (WORDS + "<b>bold</b> <script>window.bad=1</script> &lt; <img/src=x>").split()
tokenizer = Tokenizer(models.WordLevel({{word: i for i, word in enumerate(WORDS)}}, "[UNK]"))
tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()

class Guess(torch.nn.Module):
    def __init__(self):
        super().__init__()
        sizes = dict(d_model=12, n_layers=2, n_heads=3, d_ff=16, max_len=300)
        self.encoder = BertEncoder(BertConfig(vocab_size=len(WORDS), **sizes))
        self.config = self.encoder.config
        self.scores = torch.nn.Linear(12, len(WORDS))
        for p in self.parameters():
            torch.nn.init.normal_(p, std=0.6)

    def forward(self, input_ids):
        return self.scores(self.encoder(input_ids).last_hidden_state)

model = Guess().eval()
view = av.explore(model, tokenizer, {TEXT!r}, title="<u>A title</u>")
def look(changes=None):  # the weights of all heads, without the app
    ids = torch.tensor([tokenizer.encode(view.text).ids])
    unchanged = {{(0, 0): lambda weights: weights}}
    with torch.no_grad(), av.edit(model, changes or unchanged), av.capture(model) as seen:
        model(ids)
    return [record.weights[0].tolist() for record in seen]

similar = av.explore(model.encoder, tokenizer, "the cat sat", other="a dog saw")

from types import SimpleNamespace
class Rate(torch.nn.Module):  # texts, by a single number that is not always finite
    def __init__(self):
        super().__init__()
        self.encoder, self.score = model.encoder, float("nan")

    def forward(self, input_ids):
        self.encoder(input_ids)
        return SimpleNamespace(logits=torch.tensor([[self.score]]))

rate = Rate()
rated = av.explore(rate, tokenizer, "the cat")
"""
STRANGE = ["<script>window.bad=1</script>", "<img/src=x>", "&lt;"]
NOTHING = {"layer": 0, "head": 0, "query": None, "key": None}
MIDDLES = """(canvas, n) => {  // the colour in the middle of each cell
    const context = canvas.getContext('2d'), size = canvas.width / n;
    const middle = (i) => Math.floor((i + 0.5) * size);
    const color = (q, k) => [...context.getImageData(middle(k), middle(q), 1, 1).data].slice(0, 3);
    return Array.from({ length: n * n }, (_, i) => color(Math.floor(i / n), i % n));
}"""
WHITE = """(canvas, { x, y }) => {  // white pixels around a place: no weight is white
    const [sx, sy] = [canvas.width / canvas.clientWidth, canvas.height / canvas.clientHeight];
    const area = [(x - 12) * sx, (y - 12) * sy, 30 * sx, 30 * sy];
    const { data } = canvas.getContext('2d').getImageData(...area);
    const white = (i) => Math.min(data[i], data[i + 1], data[i + 2]) > 240 && data[i + 3] === 255;
    return Array.from({ length: data.length / 4 }, (_, i) => white(4 * i)).filter(Boolean).length;
}"""
ROWS = """(says) => [...says.querySelectorAll('table')].map((table) => [
    table.caption.textContent,
    [...table.tBodies[0].rows].map((row) => [...row.cells].slice(0, 3).map((c) => c.textContent)),
])"""
PLACES = """(canvas, [rows, columns]) => {  // where the grid's thumbnails are
    const left = 36, top = 30, wide = (canvas.clientWidth - left) / columns;
    const high = (canvas.clientHeight - top) / rows;
    return { left, top, wide, high };
}"""


class App:
    """One app on the page, used as a reader uses it."""

    def __init__(self, root, picture_of):
        self.root, self.page = root, root.page
        self.text = root.get_by_label("text", exact=True)
        self.other = root.get_by_label("second text")
        self.grid = root.locator("canvas.attnviz-grid")
        self.hint = root.locator(".attnviz-overview .attnviz-readout")
        self.head = root.locator("legend")
        self.off = root.get_by_label("switch off")
        self.heat = root.get_by_label("temperature")
        self.undo = root.get_by_role("button", name="Undo all edits")
        self.says = root.locator(".attnviz-says")
        self.problem = root.locator(":scope > .attnviz-problem")
        self.picture = picture_of(root.locator(".attnviz-matrix"))

    def tab(self, name):
        return self.root.get_by_role("button", name=name, exact=True)

    def place(self, layer, head, shape=(2, 3)):
        p = self.grid.evaluate(PLACES, list(shape))
        return {
            "x": p["left"] + (head + 0.4) * p["wide"],
            "y": p["top"] + (layer + 0.4) * p["high"],
        }

    def open(self, layer, head):
        self.grid.click(position=self.place(layer, head))
        expect(self.head).to_have_text(f"layer {layer}, head {head}")
        expect(self.picture.title).to_contain_text(f"layer {layer}, head {head}: ")

    def rows_of(self):
        return self.says.locator("tbody tr")

    def rows(self):
        """What the model says, as lists of a title and its rows, as text."""
        return self.says.evaluate(ROWS)


def wait_for_says(notebook, app, view="view"):
    """Wait until the page shows what Python says that the model says."""

    def digits(x):
        return "<0.001" if 0 < x < 0.0005 else f"{x:z.3f}".replace("-", "−")

    deadline = time.monotonic() + 10
    while True:
        shown, said = app.rows(), notebook.python(f"{view}.says")
        wanted = [[title, [[w, digits(b), digits(a)] for w, b, a in rows]] for title, rows in said]
        if shown == wanted:
            return
        assert time.monotonic() < deadline, f"{shown}, but Python has {wanted}"
        app.page.wait_for_timeout(50)


@pytest.fixture(scope="module")
def notebook(run_cell):
    return run_cell(
        "app", f"{MODEL}\nfrom IPython.display import display\ndisplay(view, similar, rated)"
    )


@pytest.fixture
def app(notebook, picture_of):
    """The first app with its first text, no edits and nothing pinned."""
    app = App(notebook.page.locator(".attnviz-explore").first, picture_of)
    notebook.page.mouse.move(0, 0)
    notebook.page.evaluate("document.activeElement.blur()")
    reset = f"view.text = {TEXT!r}; view.edits = []; view.selection = {NOTHING}"
    assert notebook.run(reset) == ""
    expect(app.text).to_have_value(TEXT)
    expect(app.undo).to_be_disabled()
    if app.tab("after").get_attribute("aria-pressed") != "true":
        app.tab("after").click()
    expect(app.picture.title).to_have_text("layer 0, head 0: after")
    expect(app.picture.labels("key")).to_have_text(TEXT.split())
    return app


def labels_are(app, tokens):
    for axis in ("query", "key"):
        expect(app.picture.labels(axis)).to_have_text(tokens)


# --- the text -----------------------------------------------------------------------------------


def test_typing_changes_the_map_and_what_the_model_says(notebook, app):
    expect(app.text).to_be_visible()
    expect(app.other).to_be_hidden()
    before = app.picture.pixels(), app.rows(), app.grid.evaluate("c => c.toDataURL()")
    app.text.focus()
    notebook.page.keyboard.press("End")
    notebook.page.keyboard.type(" [MASK]")
    labels_are(app, [*TEXT.split(), "[MASK]"])
    assert notebook.python("view.text") == f"{TEXT} [MASK]"
    wait_for_says(notebook, app)
    assert len(app.rows()) == 2
    after = app.picture.pixels(), app.rows(), app.grid.evaluate("c => c.toDataURL()")
    assert all(a != b for a, b in zip(after, before, strict=True))
    weight = notebook.python("look()[0][0][6][2]")
    app.picture.hover(6, 2)
    expect(app.picture.value).to_have_text(f"[MASK] → [MASK]: {weight:.3f}")
    expect(app.text).to_be_focused()
    app.text.fill("the cat")
    labels_are(app, ["the", "cat"])
    expect(app.says).to_have_text("Put [MASK] into the text to see what the model expects there.")


def test_a_text_that_cannot_be_read_leaves_the_last_picture(app):
    before = app.picture.pixels(), app.rows()
    app.text.fill("")
    expect(app.problem).to_have_text("the text has no tokens: write something")
    expect(app.problem).to_have_attribute("role", "alert")
    app.text.fill("cat " * 301)
    expect(app.problem).to_have_text("the text has 301 tokens, but the model reads at most 300")
    assert (app.picture.pixels(), app.rows()) == before
    app.text.fill("a dog [MASK]")
    expect(app.problem).to_be_hidden()
    labels_are(app, ["a", "dog", "[MASK]"])


def test_keys_in_the_fields_do_nothing_to_the_notebook(notebook, app):
    app.text.click()
    before = notebook.state()
    for key in ["b", "x", "d", "d", "m", "z", "0", "0", "Escape", "ArrowUp", "ArrowDown", "Enter"]:
        notebook.page.keyboard.press(key)
        assert notebook.state() == before, key
    notebook.wait_for_python("''.join(sorted(view.text))", "".join(sorted(f"bxddmz00{TEXT}")))
    for control in (app.off, app.heat, app.grid, app.says):
        control.focus()
        for key in ["b", "x", "d", "d", "a", "ArrowDown", "ArrowUp"]:
            notebook.page.keyboard.press(key)
            assert notebook.state() == before, (control, key)
    expect(app.text).to_be_visible()


def test_two_texts_edited_one_right_after_the_other_are_both_read(notebook, picture_of):
    app = App(notebook.page.locator(".attnviz-explore").nth(1), picture_of)
    expect(app.rows_of()).to_have_count(2)
    app.text.fill("the dog sat")
    app.other.fill("the dog sat")
    notebook.wait_for_python("[similar.text, similar.other]", ["the dog sat"] * 2)
    expect(app.says).to_contain_text("the second text1.0001.000")
    wait_for_says(notebook, app, "similar")
    app.other.fill("")
    expect(app.rows_of()).to_have_count(1)


def test_numbers_that_are_not_finite_are_said_in_words(
    notebook, app, picture_of, tmp_path, open_page
):
    odd = App(notebook.page.locator(".attnviz-explore").nth(2), picture_of)
    expect(odd.rows_of()).to_have_text("class 0nannan")
    for text, number, said in [("a dog", "-inf", "−inf"), ("the mat", "inf", "inf")]:
        notebook.run(f"rate.score = float({number!r})")
        odd.text.fill(text)
        labels_are(odd, text.split())
        expect(odd.rows_of()).to_have_text(f"class 0{said}{said}")
    file = tmp_path / "app.html"
    assert notebook.run(f"rated.save({str(file)!r})") == ""
    page = open_page(file)
    saved = App(page.locator(".attnviz-explore"), picture_of)
    expect(saved.rows_of()).to_have_text("class 0infinf")
    labels_are(saved, ["the", "mat"])
    assert page.problems == []


def test_after_a_refusal_the_page_shows_what_stands(notebook, app):
    keep = "layers = view._after; view._after = layers[0], layers[1][:1]"
    assert notebook.run(keep) == ""  # Python knows of fewer layers than the page
    app.grid.click(position=app.place(1, 1))
    expect(app.head).to_have_text("layer 0, head 0")
    expect(app.picture.title).to_have_text("layer 0, head 0: after")
    assert notebook.python("view.selection") == NOTHING
    assert notebook.run("view._after = layers") == ""
    app.open(1, 1)
    notebook.wait_for_python("view.selection['layer']", 1)


def test_a_text_from_python_is_shown_also_in_the_field_that_has_the_focus(notebook, app):
    app.text.focus()
    notebook.run("view.text = 'a dog saw the cat'")
    expect(app.text).to_have_value("a dog saw the cat")
    labels_are(app, ["a", "dog", "saw", "the", "cat"])


def test_what_is_typed_while_python_is_busy_is_read_when_it_is_not(notebook, app):
    notebook.page.evaluate(
        "code => { window.panel.sessionContext.session.kernel.requestExecute({ code }); }",
        "import time; time.sleep(1.5)",
    )
    for text in ["a", "a dog", "a dog saw", "a dog saw the [MASK]"]:
        app.text.fill(text)
        app.page.wait_for_timeout(200)
    labels_are(app, ["a", "dog", "saw", "the", "[MASK]"])
    wait_for_says(notebook, app)
    expect(app.text).to_have_value("a dog saw the [MASK]")
    assert notebook.python("view.text") == "a dog saw the [MASK]"
    expect(app.problem).to_be_hidden()


def test_other_scripts_and_markup_are_only_text(notebook, app):
    tokens = ["<b>bold</b>", "שלום", "[MASK]", "猫", *STRANGE, "שָׁלוֹם"]
    app.text.fill(" ".join(tokens))
    labels_are(app, tokens)
    app.picture.click(1, 3)
    expect(app.picture.value).to_contain_text("שלום → 猫: ")
    notebook.run("old, model.scores.weight.data[-5:] = model.scores.weight.data.clone(), 9.0")
    notebook.run("old_bias = model.scores.bias.data.clone(); model.scores.bias.data[-5:] = 99.0")
    notebook.run("view.edits = [{'layer': 0, 'head': 0, 'temperature': 2.0}]")
    expect(app.says).to_contain_text("<script>window.bad=1</script>")
    notebook.run("model.scores.weight.data, model.scores.bias.data = old, old_bias")
    wait_for_says(notebook, app)
    app.root.get_by_role("button", name="Show as table").click()
    expect(app.picture.table.locator("tbody th")).to_have_text(tokens)
    app.root.get_by_role("button", name="Hide table").click()
    expect(app.root.locator(".attnviz-title").first).to_have_text("<u>A title</u>")
    expect(app.root.locator(":is(script, img, u)")).to_have_count(0)
    assert app.page.evaluate("window.bad") is None


# --- the heads ----------------------------------------------------------------------------------


def test_a_click_opens_a_head(notebook, app):
    before = app.picture.pixels()
    app.open(1, 2)
    notebook.wait_for_python("view.selection", {**NOTHING, "layer": 1, "head": 2})
    assert app.picture.pixels() != before
    weight = notebook.python("look()[1][2][4][2]")
    app.picture.hover(4, 2)
    expect(app.picture.value).to_have_text(f"the → [MASK]: {weight:.3f}")
    app.grid.hover(position=app.place(0, 1))
    expect(app.hint).to_have_text("layer 0, head 1 encoder.blocks.0.attention")


def test_hurried_readers_get_what_they_chose_last(app):
    app.open(0, 0)
    quickly = """(canvas, [first, then, tab]) => {
        const { left, top } = canvas.getBoundingClientRect();
        for (const { x, y } of [first, then])
            canvas.dispatchEvent(new MouseEvent('click', { clientX: left + x, clientY: top + y }));
        tab?.click();
    }"""
    places = [app.place(1, 1), app.place(0, 0)]
    app.grid.evaluate(quickly, [*places, None])
    app.page.wait_for_timeout(300)
    expect(app.picture.title).to_have_text("layer 0, head 0: after")
    app.grid.evaluate(quickly, [*places[::-1], app.tab("before").element_handle()])
    expect(app.picture.title).to_have_text("layer 1, head 1: before")


def test_the_keyboard_opens_a_head_and_switches_it_off(notebook, app):
    app.grid.focus()
    before = notebook.state()
    keyboard = notebook.page.keyboard
    for key, head in [
        ("ArrowDown", (0, 0)),  # the first key press shows where the mark stands
        ("ArrowDown", (1, 0)),
        ("ArrowRight", (1, 1)),
        ("ArrowRight", (1, 2)),
        ("ArrowRight", (1, 2)),  # the edge
        ("ArrowUp", (0, 2)),
        ("ArrowLeft", (0, 1)),
    ]:
        keyboard.press(key)
        expect(app.hint).to_contain_text(f"layer {head[0]}, head {head[1]}")
    keyboard.press("Enter")
    expect(app.head).to_have_text("layer 0, head 1")
    expect(app.off).to_be_focused()
    keyboard.press("Space")
    notebook.wait_for_python("view.edits", [{"layer": 0, "head": 1, "off": True}])
    expect(app.off).to_be_checked()
    keyboard.press("Space")
    notebook.wait_for_python("view.edits", [])
    assert notebook.state() == before


def test_a_head_and_a_cell_selected_in_python(notebook, app):
    notebook.run("view.selection = {'layer': 1, 'head': 1, 'query': 2, 'key': 4}")
    expect(app.picture.title).to_have_text("layer 1, head 1: after")
    expect(app.head).to_have_text("layer 1, head 1")
    weight = notebook.python("look()[1][1][2][4]")
    expect(app.picture.value).to_have_text(f"[MASK] → the: {weight:.3f}")
    notebook.run("view.selection = {'query': 0, 'key': 1}")  # the same head
    expect(app.picture.value).to_contain_text("the → cat: ")
    expect(app.head).to_have_text("layer 1, head 1")


def test_a_pinned_cell_goes_to_python_and_is_given_up_by_a_shorter_text(notebook, app):
    app.picture.click(5, 3)
    notebook.wait_for_python("view.selection", {**NOTHING, "query": 5, "key": 3})
    app.text.fill("the [MASK] sat on the mat")
    labels_are(app, ["the", "[MASK]", "sat", "on", "the", "mat"])
    expect(app.picture.pinned).to_contain_text("pinned: mat")
    app.text.fill("a [MASK]")
    labels_are(app, ["a", "[MASK]"])
    expect(app.picture.pinned).to_have_count(0)
    assert notebook.python("view.selection") == NOTHING


# --- edits --------------------------------------------------------------------------------------


def test_a_head_that_is_switched_off(notebook, app):
    app.open(1, 2)
    before, thumbnails = app.picture.pixels(), app.grid.evaluate("c => c.toDataURL()")
    app.off.check()
    app.picture.wait_for_other_pixels(before)
    assert notebook.python("view.edits") == [{"layer": 1, "head": 2, "off": True}]
    app.picture.hover(2, 2)
    expect(app.picture.value).to_have_text("[MASK] → [MASK]: 0.000")
    assert app.grid.evaluate("c => c.toDataURL()") != thumbnails
    marked = [app.grid.evaluate(WHITE, app.place(1, head)) > 5 for head in range(3)]
    assert marked == [False, False, True]
    app.grid.hover(position=app.place(1, 2))
    expect(app.hint).to_contain_text("layer 1, head 2 (off)")
    expect(app.heat).to_be_disabled()
    wait_for_says(notebook, app)
    assert any(was != now for _, rows in app.rows() for _, was, now in rows)
    app.tab("before").click()
    app.picture.hover(2, 2)
    weight = notebook.python("look()[1][2][2][2]")
    expect(app.picture.value).to_have_text(f"[MASK] → [MASK]: {weight:.3f}")
    app.undo.click()
    expect(app.undo).to_be_disabled()
    expect(app.off).not_to_be_checked()
    notebook.wait_for_python("view.edits", [])
    app.tab("after").click()
    assert app.picture.pixels() == before


def test_the_temperature_by_keyboard(notebook, app):
    app.open(0, 1)
    app.heat.focus()
    before = notebook.state()
    for _ in range(30):
        notebook.page.keyboard.press("ArrowRight")
    wanted = 10**0.3
    edits = [{"layer": 0, "head": 1, "temperature": pytest.approx(wanted)}]
    notebook.wait_for_python("view.edits", edits)
    expect(app.root.locator(".attnviz-head-box")).to_contain_text("2.00")
    expect(app.heat).to_have_attribute("aria-valuetext", "2.00")
    weight = notebook.python(f"look({{(0, 1): av.temperature({wanted})}})[0][1][1][5]")
    app.picture.hover(1, 5)
    expect(app.picture.value).to_have_text(f"cat → mat: {weight:.3f}")
    app.grid.hover(position=app.place(0, 1))
    expect(app.hint).to_contain_text("(temperature 2.00)")
    app.heat.focus()
    for _ in range(30):
        notebook.page.keyboard.press("ArrowLeft")
    notebook.wait_for_python("view.edits", [])
    assert notebook.state() == before


def test_a_slider_that_is_left_for_another_head_changes_its_own(notebook, app):
    app.open(0, 1)
    app.heat.focus()
    notebook.page.keyboard.press("End")
    app.open(1, 0)  # before the slider's time is up
    notebook.wait_for_python("view.edits", [{"layer": 0, "head": 1, "temperature": 10.0}])
    expect(app.heat).to_have_value("0")
    app.open(0, 1)
    expect(app.heat).to_have_value("100")


def test_the_last_of_several_quick_edits_counts(notebook, app):
    hurry = """(slider, other) => {  // both before the slider's time is up
        slider.value = -100;
        slider.dispatchEvent(new Event('input'));
        other.click();
    }"""
    app.heat.evaluate(hurry, app.off.element_handle())
    app.off.uncheck()
    app.off.check()
    app.open(1, 1)
    app.off.check()
    edits = [{"layer": layer, "head": layer, "off": True} for layer in (0, 1)]
    notebook.wait_for_python("view.edits", edits)
    app.page.wait_for_timeout(300)
    assert notebook.python("view.edits") == edits
    labels_are(app, TEXT.split())
    wait_for_says(notebook, app)
    app.off.uncheck()
    app.heat.evaluate(hurry, app.undo.element_handle())
    app.page.wait_for_timeout(300)
    notebook.wait_for_python("view.edits", [])
    expect(app.picture.title).to_have_text("layer 1, head 1: after")
    wait_for_says(notebook, app)


def test_edits_from_python_move_the_controls(notebook, app):
    app.heat.focus()
    notebook.run("view.edits = [{'layer': 0, 'head': 0, 'temperature': 0.1}]")
    expect(app.heat).to_have_value("-100")
    notebook.run("view.edits = [{'layer': 0, 'head': 0, 'off': True}]")
    expect(app.off).to_be_checked()
    notebook.run("view.edits = [{'layer': 0, 'head': 0, 'temperature': 1e-4}]")
    expect(app.off).not_to_be_checked()
    expect(app.heat).to_have_attribute("aria-valuetext", "0.0001")


def test_the_difference_has_a_symmetric_scale_and_its_own_colours(notebook, app):
    app.open(0, 1)
    app.tab("difference").click()
    expect(app.picture.title).to_have_text("layer 0, head 1: difference (none: as before)")
    app.picture.hover(3, 4)
    expect(app.picture.value).to_have_text("on → the: 0.000")
    notebook.run("view.edits = [{'layer': 0, 'head': 1, 'temperature': 0.2}]")
    expect(app.picture.title).to_have_text("layer 0, head 1: difference")
    before, after = (
        np.array(notebook.python(f"look({c})[0][1]")) for c in ("", "{(0, 1): av.temperature(0.2)}")
    )
    change = after - before
    most = np.abs(change).max()
    colors = np.array(notebook.python("list(view.diverging)")).reshape(256, 3)
    wanted = colors[np.round(255 * (change + most) / (2 * most)).astype(int)].reshape(-1, 3)
    notebook.page.mouse.move(0, 0)
    found = np.array(app.picture.cells.evaluate(MIDDLES, 6))
    assert np.abs(found - wanted).max() <= 3  # rounding may take the next of the 256 colours
    legend = app.root.locator(".attnviz-legend span")
    expect(legend.first).to_have_text(f"change of weight −{most:.3f}")
    expect(legend.last).to_have_text(f"+{most:.3f}")
    q, k = np.unravel_index(change.argmin(), change.shape)
    app.picture.hover(int(q), int(k))
    expect(app.picture.value).to_contain_text(f": −{-change.min():.3f}")
    app.picture.click(int(q), int(k))
    expect(app.picture.pinned).to_contain_text("changed most in")
    app.root.get_by_role("button", name="Show as table").click()
    row = app.picture.table.locator("tbody tr").nth(int(k))
    expect(row).to_contain_text(f"−{-change.min():.3f}")
    app.root.get_by_role("button", name="Hide table").click()


def test_text_is_readable_in_both_themes(notebook, app, set_theme, contrast):
    app.off.check()
    app.picture.click(1, 1)
    app.grid.hover(position=app.place(1, 1))
    notebook.run("view.problem = 'something'")
    parts = ["textarea", "label", "legend", "button", ".attnviz-says td", ".attnviz-says tbody th"]
    parts += [".attnviz-says thead th", ".attnviz-says caption", ".attnviz-problem"]
    parts += ['button[aria-pressed="true"]', ".attnviz-title", ".attnviz-readout"]
    parts += [".attnviz-label", ".attnviz-pinned", ".attnviz-legend span", ".attnviz-place"]
    seen = set()
    for theme in ("Dark", "Light"):
        set_theme(notebook, theme)
        for part in parts:
            node = app.root.locator(part).locator("visible=true").first
            assert contrast(node) >= 4.5, f"{part} in {theme}"
        seen.add((app.grid.evaluate("c => c.toDataURL()"), contrast(app.text) > 0))
    assert len(seen) == 2
    notebook.run("view.problem = ''")


def test_the_layout_has_no_overflow_at_any_width(notebook, app):
    notebook.run(
        f"view.text = {TEXT * 20!r}\n"
        "with view.hold_sync():\n"
        "    view.heads, view.names = [16] * 24, ['a.rather.long.name.of.a.layer'] * 24\n"
        "    view.thumbnails = {**view.thumbnails, 'values': bytes(24 * 16 * 64 * 64)}\n"
        "    view.says = [('what', [('x' * 80, 1.0, -0.5)])]"
    )
    expect(app.says).to_contain_text("−0.500")
    for width in (1100, 768, 600, 420):
        app.root.evaluate("(n, w) => { n.parentElement.style.width = `${w}px`; }", width)
        app.page.wait_for_timeout(100)
        assert app.text.evaluate("n => n.clientHeight") > 100  # several lines
        assert app.grid.evaluate("n => n.clientHeight") < 450
        assert app.root.evaluate("n => n.scrollWidth <= n.clientWidth + 1"), width
        right = app.root.evaluate("n => n.getBoundingClientRect().right")
        for part in (app.text, app.grid, app.says, app.picture.cells, app.heat):
            box = part.bounding_box()
            assert box["x"] + box["width"] <= right + 1, (width, part)
    app.root.evaluate("n => { n.parentElement.style.width = ''; }")


# --- without Python -----------------------------------------------------------------------------


def test_a_saved_page_shows_every_head_and_edits_nothing(
    notebook, app, tmp_path, open_page, picture_of, contrast
):
    file = tmp_path / "app.html"
    notebook.run(
        "view.edits = [{'layer': 1, 'head': 2, 'off': True}]; view.selection = {'layer': 0}"
    )
    assert notebook.run(f"view.save({str(file)!r})") == ""
    weights = notebook.python("look()[1][2][1]")
    page = open_page(file)
    saved = App(page.locator(".attnviz-explore"), picture_of)
    labels_are(saved, TEXT.split())
    expect(saved.text).not_to_be_editable()
    for control in (saved.off, saved.heat, saved.undo):
        expect(control).to_be_disabled()
    expect(saved.root).to_contain_text("A saved page: to change the text or the heads, open it")
    wait_for_says(notebook, saved)
    saved.open(1, 2)
    expect(saved.off).to_be_checked()
    for tab, sign, factor in [("after", "", 0), ("before", "", 1), ("difference", "−", 1)]:
        saved.tab(tab).click()
        expect(saved.picture.title).to_have_text(f"layer 1, head 2: {tab}")
        saved.picture.hover(1, 3)
        expect(saved.picture.value).to_have_text(f"cat → on: {sign}{factor * weights[3]:.3f}")
    saved.picture.click(1, 3)
    expect(saved.picture.pinned).to_contain_text("changed most in")
    saved.grid.focus()
    page.keyboard.press("ArrowUp")
    page.keyboard.press("ArrowUp")
    page.keyboard.press("Enter")
    expect(saved.picture.title).to_contain_text("layer 0, head 2: difference")
    page.emulate_media(color_scheme="dark")
    for part in ("textarea", "label", ".attnviz-title", ".attnviz-says td", ".attnviz-place"):
        assert contrast(saved.root.locator(part).locator("visible=true").first) >= 4.5, part
    assert page.problems == []


def test_a_page_without_the_chosen_head_shows_another_and_says_why(
    notebook, app, tmp_path, open_page, picture_of
):
    file = tmp_path / "app.html"
    app.open(1, 1)  # of which Python sent nothing but an answer
    notebook.run("view._page_state, view._page_answers = (lambda: {}), (lambda: iter(()))")
    assert notebook.run(f"view.save({str(file)!r}); del view._page_state, view._page_answers") == ""
    page = open_page(file)
    saved = App(page.locator(".attnviz-explore"), picture_of)
    expect(saved.picture.title).to_have_text("layer 0, head 0: after")
    labels_are(saved, TEXT.split())
    expect(saved.picture.root.locator(".attnviz-problem")).to_contain_text("does not hold more")
    assert page.problems == []


def test_nothing_left_the_machine_and_no_error_was_logged(notebook):
    # the last of this file with a kernel: it looks back on all the others
    assert notebook.problems == []


def test_a_restarted_kernel_is_noticed(notebook, app):
    before = app.picture.pixels(), app.rows()
    notebook.page.clock.install()
    notebook.page.evaluate("window.panel.sessionContext.session.kernel.restart()")
    app.text.fill("a dog")
    notebook.page.clock.run_for(200)
    notebook.page.clock.run_for(11_000)
    expect(app.problem).to_contain_text("No answer from Python")
    assert (app.picture.pixels(), app.rows()) == before
    app.grid.click(position=app.place(1, 1))
    notebook.page.clock.run_for(11_000)
    expect(app.root.locator(".attnviz-matrix .attnviz-problem")).to_contain_text("No answer from")
    assert app.picture.pixels() == before[0]

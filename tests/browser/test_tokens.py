"""The tokenizer playground in JupyterLab and as a saved page: typing, pieces, keyboard, themes."""

import pytest
from playwright.sync_api import expect

import attnviz as av

pytestmark = pytest.mark.slow

TEXT = "Unable <b>café</b> 🎬"
MADE = """
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from attnviz.data import wordpiece_tokenizer

pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "un", "##able", "cafe", "a", "film"]
wordpiece = wordpiece_tokenizer([*pieces, *"<>/.b", *(f"##{c}" for c in "abcf")])
byte_level = Tokenizer(models.BPE())
byte_level.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
alphabet = pre_tokenizers.ByteLevel.alphabet()
trainer = trainers.BpeTrainer(initial_alphabet=alphabet, vocab_size=256, show_progress=False)
byte_level.train_from_iterator([], trainer)
"""
SHOW = f"""
import attnviz as av

view = av.tokenizer({{"words": wordpiece, "bytes": byte_level}}, {TEXT!r}, title="<i>cut</i>")
view
"""
made = {}
exec(MADE, made)


class Playground:
    """The playground on a page, used as a reader uses it."""

    def __init__(self, page):
        self.page = page
        self.root = page.locator(".attnviz-tokenizer").first
        self.field = self.root.get_by_label("text to cut into pieces")
        self.lists = self.root.locator(".attnviz-cut-pieces")
        self.headings = self.root.locator(".attnviz-cut-heading")
        self.size = self.root.locator(".attnviz-cut-size")
        self.mark = self.root.locator("mark")
        self.readout = self.root.locator(".attnviz-readout")
        self.problem = self.root.locator(".attnviz-problem")

    def pieces(self, number=0):
        return self.lists.nth(number).locator(".attnviz-piece")

    def expect_pieces(self, *wanted, number=0):
        expect(self.pieces(number).locator("bdi")).to_have_text(list(wanted))


@pytest.fixture(scope="module")
def notebook(run_cell):
    return run_cell("tokens", MADE + SHOW)


@pytest.fixture
def view(notebook):
    """The playground as it was at the start, the pointer elsewhere."""
    view = Playground(notebook.page)
    expect(view.size).to_be_visible()
    notebook.page.mouse.move(0, 0)
    notebook.page.evaluate("document.activeElement.blur()")
    assert notebook.run(f"view.text = ''; view.text = {TEXT!r}") == ""
    expect(view.size).to_have_text("20 characters, 24 bytes")
    return view


def test_typing_cuts_anew_and_quickly(notebook, view):
    view.field.fill("")
    view.expect_pieces("[CLS]", "[SEP]")
    before = notebook.state()
    view.field.press_sequentially("unable film  x", delay=20)
    view.expect_pieces("[CLS]", "un", "##able", "film", "[UNK]", "[SEP]")
    view.expect_pieces(*"unable", "Ġ", *"film", "Ġ", "Ġ", "x", number=1)
    expect(view.headings.first).to_have_text("words6 pieces, 2 special and 1 unknown")
    expect(view.field).to_have_value("unable film  x")
    notebook.wait_for_python("view.text", "unable film  x")
    assert notebook.state() == before
    assert notebook.run("view.text = 'a'") == ""
    view.expect_pieces("[CLS]", "a", "[SEP]")
    expect(view.field).to_have_value("a")
    assert notebook.run("view.text = 'A'") == ""  # the same pieces for words, other bytes
    expect(view.field).to_have_value("A")
    view.pieces().nth(1).hover()
    expect(view.readout).to_have_text("a id 8: offsets (0, 1) “A”, 1 byte 41")


def test_pointing_finds_the_characters(view):
    expect(view.mark).to_have_count(0)
    view.pieces().nth(6).hover()  # behind [CLS] un ##able < b >
    expect(view.mark).to_have_text("café")
    expect(view.readout).to_have_text("cafe id 7: offsets (10, 14) “café”, 5 bytes 63 61 66 c3 a9")
    view.pieces(1).last.hover()
    expect(view.mark).to_have_text("🎬")
    expect(view.readout).to_contain_text(
        "part 4 of 4 of offsets (19, 20) “🎬”, 4 bytes f0 9f 8e ac"
    )
    view.pieces().first.hover()
    expect(view.readout).to_have_text("[CLS] id 2, special: no part of the text")
    expect(view.mark).to_have_count(0)
    view.page.mouse.move(0, 0)
    expect(view.readout).to_contain_text("Point at a piece")


def test_the_keyboard_walks_and_lets_jupyterlab_alone(notebook, view):
    view.field.focus()
    before = notebook.state()
    view.page.keyboard.press("Tab")
    expect(view.lists.first).to_be_focused()
    for key, said in [
        *(("ArrowRight", "un id 5"), ("ArrowRight", "##able"), ("End", "[SEP]"), ("Home", "[CLS]")),
        *(("ArrowLeft", "[CLS]"), ("ArrowRight", "un id 5")),
    ]:
        view.page.keyboard.press(key)
        expect(view.readout).to_contain_text(said)
    chip = view.pieces().nth(1)
    expect(chip).to_have_attribute("aria-selected", "true")
    expect(chip).to_have_attribute("aria-label", "un, id 5, 2 of 13")
    active = view.lists.first.get_attribute("aria-activedescendant")
    assert active == chip.get_attribute("id")
    expect(view.mark).to_have_text("Un")
    for key in ["b", "x", "m"]:  # JupyterLab's own keys for cells
        view.page.keyboard.press(key)
    assert notebook.state() == before
    view.page.keyboard.press("Escape")
    expect(view.readout).to_contain_text("Point at a piece")


def test_text_is_only_text_and_can_be_read_as_a_table(view):
    expect(view.root.locator(".attnviz-title")).to_have_text("<i>cut</i>")
    assert view.root.locator("i").count() == 0
    view.root.get_by_role("button", name="Show as table").click()
    rows = view.root.locator("tbody tr")
    expect(rows.nth(2).locator("td, th")).to_have_text(
        ["words", "2", "##able", "6", "", "offsets (2, 6)", "able"]
    )
    expect(rows).to_have_count(13 + 24)
    view.root.get_by_role("button", name="Hide table").click()


def test_a_long_text_stays_quick_and_narrow(notebook, view):
    assert notebook.run("view.text = 'unable ' * 14_000 + 'x' * 2_000") == ""
    expect(view.headings.first).to_have_text(
        "words28,003 pieces, 2 special and 1 unknown; the first 1,000 are drawn"
    )
    assert view.pieces().count() == view.pieces(1).count() == 1000
    took = view.field.evaluate(
        """async (field) => {  // from a key press until the pieces are drawn anew
            const size = field.closest('.attnviz-tokenizer').querySelector('.attnviz-cut-size');
            const start = performance.now();
            const drawn = new Promise((done) =>
                new MutationObserver(done).observe(size, { childList: true }));
            field.value += '!';
            field.dispatchEvent(new Event('input'));
            await drawn;
            return performance.now() - start;
        }"""
    )
    assert took < 3000
    inside, cell = view.root.evaluate(
        "root => [root.scrollWidth, root.closest('.jp-OutputArea-output').clientWidth]"
    )
    assert inside <= cell


def test_text_is_readable_in_both_themes(notebook, view, set_theme, contrast):
    view.pieces().nth(1).click()
    parts = [
        *(".attnviz-title", "textarea", ".attnviz-cut-size", ".attnviz-cut-heading b"),
        *(".attnviz-cut-heading span", ".attnviz-readout b", "button"),
        *(f"[data-tint='{i}'] {part}" for i in range(4) for part in ("bdi", "small")),
        *(".attnviz-piece-special bdi", ".attnviz-piece-special small"),
        *(".attnviz-piece-unknown bdi", ".attnviz-piece-unknown small"),
    ]
    for theme in ("Dark", "Light"):
        set_theme(notebook, theme)
        for part in parts:
            assert contrast(view.root.locator(part).first) >= 4.5, f"{part} in {theme}"


def test_without_python_it_says_so(notebook, view):
    assert notebook.run("view._tokenizers = None") == ""  # whatever goes wrong is said
    view.field.fill("a film")
    expect(view.problem).not_to_be_empty()
    expect(view.field).to_have_value("a film")
    view.pieces().nth(2).hover()
    expect(view.mark).to_have_count(0)  # the pieces are still those of the old text
    notebook.page.evaluate("window.panel.sessionContext.session.kernel.shutdown()")
    view.field.fill("a film.")
    expect(view.problem).to_contain_text("No answer from Python", timeout=15_000)
    assert notebook.problems == []


def test_a_saved_page_shows_its_text_and_says_what_it_cannot(open_page, tmp_path):
    tokenizers = {"words": made["wordpiece"], "bytes": made["byte_level"]}
    av.tokenizer(tokenizers, TEXT, title="saved").save(tmp_path / "tokens.html")
    page = open_page(tmp_path / "tokens.html")
    view = Playground(page)
    expect(view.field).to_have_value(TEXT)
    expect(view.field).not_to_be_editable()
    expect(view.root).to_contain_text("A saved page cannot cut another text")
    view.pieces().nth(6).hover()
    expect(view.mark).to_have_text("café")
    assert page.problems == []

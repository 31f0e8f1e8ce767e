"""Words in figures: a font that has each sign, or its number, and nothing to warn of."""

import logging
import warnings

import matplotlib
import numpy as np
import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from matplotlib.font_manager import fontManager

import attnviz as av
from attnviz.views.writing import dress, fold, label, letters, plain

matplotlib.use("agg")
NOWHERE = "\ue000\U000f0000"  # private: no font has them
MADE = "\ue001"  # private: the font below has it


@pytest.fixture(autouse=True)
def no_warnings(caplog):
    """Whatever matplotlib has to say of a glyph or of a font is a failure."""
    with warnings.catch_warnings(), caplog.at_level(logging.WARNING, "matplotlib"):
        warnings.simplefilter("error")
        yield
    plt.close("all")
    assert caplog.records == []


@pytest.fixture
def another_font(tmp_path):
    """A system with a font of that name which has one sign."""
    pen = TTGlyphPen(None)
    for place, *others in [[(100, 0), (100, 700), (600, 700), (600, 0)]]:
        pen.moveTo(place)
        for other in others:
            pen.lineTo(other)
        pen.closePath()
    box, nothing = pen.glyph(), TTGlyphPen(None).glyph()
    font = FontBuilder(1000, isTTF=True)
    font.setupGlyphOrder([".notdef", "made"])
    font.setupCharacterMap({ord(MADE): "made"})
    font.setupGlyf({".notdef": nothing, "made": box})
    font.setupHorizontalMetrics({".notdef": (700, 0), "made": (700, 100)})
    font.setupHorizontalHeader(ascent=800, descent=-200)
    font.setupNameTable({"familyName": "Noto Sans Thai", "styleName": "Regular"})
    font.setupOS2(sTypoAscender=800, usWinAscent=800, usWinDescent=200)
    font.setupPost()
    font.save(tmp_path / "made.ttf")
    before = list(fontManager.ttflist)
    fontManager.addfont(tmp_path / "made.ttf")
    fontManager._findfont_cached.cache_clear()
    yield "Noto Sans Thai"
    fontManager.ttflist[:] = before
    fontManager._findfont_cached.cache_clear()


def test_a_sign_that_no_font_has_is_its_number():
    assert label(NOWHERE, 20) == "U+E000 U+F0000"
    assert label(f"a{NOWHERE}", 20) == "a‹U+E000 U+F0000›"
    assert plain(f"{NOWHERE[0]} and more") == "‹U+E000› and more"
    assert label("\uffff", 20) == "U+FFFF"


def test_a_sign_of_another_font_is_drawn_in_it(another_font):
    assert label(f"a{MADE}", 20) == f"a{MADE}"
    figure = Figure()
    texts = [figure.text(0, 0, plain(said)) for said in (f"a{MADE}", "ä…␣", "a")]
    dress(figure)
    assert [text.get_family() for text in texts] == [
        ["sans-serif", another_font],
        ["sans-serif"],
        ["sans-serif"],
    ]
    figure.canvas.draw()


def test_a_text_keeps_the_font_and_the_weight_that_it_has(another_font):
    figure = Figure()
    text = figure.text(0, 0, f"a{MADE}ä", family="DejaVu Sans Mono", weight="bold")
    dress(figure)
    assert text.get_family() == ["DejaVu Sans Mono", another_font]
    assert text.get_weight() == "bold"
    figure.canvas.draw()


def test_a_reader_s_own_figure_stays_as_it_is(another_font):
    with matplotlib.rc_context({"font.family": ["DejaVu Serif"]}):
        figure, axes = plt.subplots(2)
        axes[1].set_title("é")
        av.plot_heatmap(np.eye(2), [MADE, "é"], ax=axes[0])
    assert axes[1].title.get_family() == ["DejaVu Serif"]
    families = [text.get_family() for text in axes[0].get_xticklabels()]
    assert families == [["DejaVu Serif", another_font], ["DejaVu Serif"]]
    assert figure._suptitle is None


def test_labels_are_as_long_as_they_may_be_wide():
    assert letters("ab猫🎬\u0301") == 6
    assert label("x" * 9, 8) == "xxxxxxx…"
    assert label("Ａ" * 9, 8).endswith("…")  # a wide letter, or its number
    assert letters(label("Ａ" * 9, 8)) <= 8
    assert label("$" * 9, 8) == r"\$" * 7 + "…"


def test_lines_are_as_long_as_they_may_be_wide_and_lose_nothing():
    assert fold("", 4) == [""]
    text = " 猫が好き a bc  def " * 3
    lines = fold(text, 8)
    assert "".join(lines) == text
    assert max(map(letters, lines)) <= 8


def test_a_long_title_is_cut_at_no_edge():
    title = "Causal attention: nothing to the right of the diagonal, 猫 or no 猫"
    weights = np.full((3, 3), 1 / 3, np.float32)
    for view in (
        av.heatmap(weights, list("abc"), title=title),
        av.heads([weights[None]], list("abc")),
    ):
        view.title = title
        figure = view.figure()
        figure.draw_without_rendering()
        said = figure.axes[0].title
        assert "\n" in said.get_text() or figure.get_figwidth() > 5
        edges = said.get_window_extent()
        assert edges.x0 > 0
        assert edges.x1 < figure.bbox.width
        assert edges.y1 < figure.bbox.height


def test_the_reader_hears_of_signs_that_lack_in_a_figure_of_their_own():
    figure, ax = plt.subplots()
    ax.set_title(NOWHERE[0])
    with pytest.warns(UserWarning, match="Glyph"):
        av.show(figure, caption="A title.", alt="a figure")


def test_a_caption_with_half_a_character_can_be_shown(monkeypatch):
    shown = []
    monkeypatch.setattr("IPython.display.display", lambda data, raw: shown.append(data))
    av.show(plt.figure(), caption="half \ud83d", alt="half \ud83d")
    assert "half ‹U+D83D›" in shown[0]["text/html"]
    assert str(shown).isprintable()

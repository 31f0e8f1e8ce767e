"""Every token can be seen: blanks, ends of lines, controls, half characters, nothing at all."""

import json
import shutil
import subprocess
from pathlib import Path
from unicodedata import category

import pytest

from attnviz.views import visible as module
from attnviz.views.visible import readable, sendable, shorten, visible

SEEN = {
    "": "∅",
    " ": "␣",
    "   ": "␣␣␣",
    "\n": "↵",
    "\t": "⇥",
    "\r\n": "‹U+000D›↵",
    "\x00": "U+0000",
    "\x7f": "U+007F",
    "\x85": "U+0085",
    "\xa0": "U+00A0",
    "\u3000": "U+3000",
    "\u200b": "U+200B",
    "\ufeff": "U+FEFF",
    "\u2028": "U+2028",
    "\u3164": "U+3164",  # a filler of Hangul
    "\u2800": "U+2800",  # an empty cell of Braille
    "\ufe0f": "U+FE0F",
    "\U000e0001": "U+E0001",
    "\ud83d": "U+D83D",
    "\ude00\ud83d\u200b": "U+DE00 U+D83D U+200B",
    "\ud83d\ude00": "😀",
    "\u0301": "◌\u0301",
    " the": "␣the",
    "the\n": "the↵",
    "a  b": "a␣␣b",
    "a\x1b[0mb": "a‹U+001B›[0mb",
    "\u202eabc": "‹U+202E›abc",
}
AS_THEY_ARE = ["a", "##ing", "Ġthe", "New York", "10\u202f000", "猫", "حب", "नमस्ते", "❤\ufe0f b"]
AS_THEY_ARE += ["👩\u200d👧", "🏴\U000e0067\U000e007f", "می\u200cخواهم", "U+200B", "␣", "∅", "<b>"]


@pytest.mark.parametrize(("token", "seen"), SEEN.items(), ids=ascii)
def test_what_has_no_shape_gets_one(token, seen):
    assert visible(token) == seen


@pytest.mark.parametrize("token", AS_THEY_ARE, ids=ascii)
def test_what_can_be_seen_stays_as_it_is(token):
    assert visible(token) == token


def test_nothing_of_any_plane_stays_unseen():
    """All separators, controls, halves and formats but those that Unicode gives a shape."""
    shaped = {*range(0x600, 0x606), 0x6DD, 0x70F, 0x890, 0x891, 0x8E2, 0x110BD, 0x110CD}
    shaped |= {*range(0x13430, 0x13440)}
    unseen = {"Cc", "Cf", "Cs", "Zs", "Zl", "Zp"}
    some = [n for n in range(0x20000) if category(chr(n)) in unseen and n not in shaped]
    assert [hex(n) for n in some if visible(chr(n)) == chr(n)] == []
    assert len(some) > 2000


def test_words_keep_their_spaces_and_lines():
    assert readable(" a  title\nof two\tlines ") == " a  title\nof two\tlines "
    assert (
        readable("bell \x07, half \ud83d, 👩\u200d👧") == "bell ‹U+0007›, half ‹U+D83D›, 👩\u200d👧"
    )


def test_long_ones_are_cut_between_numbers():
    assert shorten("abcdef", 6) == "abcdef"
    assert shorten("abcdefg", 6) == "abcde…"
    cut = {shorten("U+DE00 U+D83D", most) for most in range(8, 13)}
    assert cut == {shorten("U+DE00", 6) + "…"}
    assert shorten("hello U and all", 8) == "hello U…"


def test_what_is_sent_is_utf8_and_otherwise_the_same():
    told = {"a": ["\ud83d", "猫", ("\udc00b", 1.5)], "\ud800": b"\xff", "none": None}
    sent = {"a": ["U+D83D", "猫", ["‹U+DC00›b", 1.5]], "U+D800": b"\xff", "none": None}
    assert sendable(told) == sent


def run_in_node(function, texts, tmp_path):
    """What a function of visible.js makes of texts."""
    node = shutil.which("node")
    if node is None:
        pytest.skip("needs node on the PATH")
    code = Path(module.__file__).with_suffix(".js").read_text("utf-8") + (
        'import fs from "node:fs";\n'
        'const texts = JSON.parse(fs.readFileSync(0, "utf8"));\n'
        f"process.stdout.write(JSON.stringify(texts.map({function})));\n"
    )
    (tmp_path / "both.mjs").write_text(code, encoding="utf-8")
    asked = json.dumps(texts).encode()
    done = subprocess.run(
        [node, tmp_path / "both.mjs"], input=asked, capture_output=True, check=True
    )
    return json.loads(done.stdout)


class TestThePageDoesTheSame:
    @pytest.mark.slow
    def test_for_every_kind_of_character_alone_and_inside(self, tmp_path):
        signs = [*range(0x3200), *range(0xD7F0, 0x10100), *range(0x1BC90, 0x1BCB0)]
        signs += [*range(0x1D150, 0x1D190), *range(0x1F000, 0x20000, 7), *range(0xDFF00, 0xE1100)]
        known = [n for n in signs if category(chr(n)) != "Cn"]  # the browser's Unicode may be newer
        unseen = list(map(chr, [0x2065, 0xFFF0, *range(0xE0000, 0xE1001, 97)]))
        texts = [*map(chr, known), *(f"a{chr(n)}b" for n in known), *unseen, *SEEN, *AS_THEY_ARE]
        texts += [one + other for one in SEEN for other in SEEN]
        assert run_in_node("visible", texts, tmp_path) == list(map(visible, texts))

    def test_for_long_ones(self, tmp_path):
        texts = ["x" * 8, "x" * 9, "猫" * 9, "😀" * 8, "😀" * 9, "U+DE00 U+D83D", "a‹U+0007›bc"]
        shortened = run_in_node("(text) => shorten(text, 8)", texts, tmp_path)
        assert shortened == [shorten(text, 8) for text in texts]

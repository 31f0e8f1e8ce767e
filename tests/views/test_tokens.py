"""The tokenizer playground, Python's side: what is sent and answered, what it takes and refuses."""

import json
import re
from types import SimpleNamespace

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

import attnviz as av
from attnviz.data import wordpiece_tokenizer
from attnviz.views.tokens import MOST, PLAIN, SPECIAL, UNKNOWN, TokensView, tokenizer

PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "un", "##able", "cafe", "a", "##a", "."]


@pytest.fixture(scope="module")
def wordpiece():
    return wordpiece_tokenizer(PIECES)


@pytest.fixture(scope="module")
def byte_level():
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(initial_alphabet=alphabet, vocab_size=256, show_progress=False)
    made.train_from_iterator([], trainer)
    return made


class Letters:
    """A tokenizer of nobody's library: each character is a piece."""

    def __init__(self, **changes):
        self.changes = changes

    def encode(self, text):
        if "boom" in text:
            raise RuntimeError("it went boom")
        made = {
            "tokens": list(text),
            "ids": [ord(c) for c in text],
            "offsets": [(i, i + 1) for i in range(len(text))],
        }
        return SimpleNamespace(**(made | self.changes))


@pytest.fixture
def ask(monkeypatch):
    """A function that asks a view as a page does, and returns what it says."""

    def ask(view, question):
        said = []
        monkeypatch.setattr(view, "send", lambda *message: said.append(message[0]))
        view._handle_custom_msg({"number": 7, "question": json.loads(json.dumps(question))}, [])
        return said[0]

    return ask


class TestWhatIsShown:
    def test_pieces_ids_and_places(self, wordpiece):
        view = tokenizer(wordpiece, "Unable café a", title="<b>")
        (cut,) = view.shown["cuts"]
        assert cut["tokens"] == ["[CLS]", "un", "##able", "cafe", "a", "[SEP]"]
        assert cut["ids"] == [2, 5, 6, 7, 8, 3]
        places = list(zip(cut["starts"], cut["ends"], strict=True))
        assert places == [(0, 0), (0, 2), (2, 6), (7, 11), (12, 13), (0, 0)]
        assert (cut["n"], cut["special"], cut["unknown"]) == (6, 2, 0)
        assert (view.shown["n_characters"], view.shown["n_bytes"]) == (13, 14)
        assert (view.text, view.title, view.live) == ("Unable café a", "<b>", True)

    def test_kinds(self, wordpiece):
        (cut,) = tokenizer(wordpiece, "a [MASK] zebra .").shown["cuts"]
        kinds = [SPECIAL, PLAIN, SPECIAL, UNKNOWN, PLAIN, SPECIAL]
        assert cut["tokens"][1:-1] == ["a", "[MASK]", "[UNK]", "."]
        assert cut["kinds"] == kinds
        assert (cut["special"], cut["unknown"]) == (3, 1)

    def test_the_unknown_piece_has_the_tokenizers_own_name(self):
        model = models.WordLevel({"?": 0, "a": 1, "[UNK]": 2}, unk_token="?")
        made = Tokenizer(model)
        made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
        (cut,) = tokenizer(made, "a b [UNK]").shown["cuts"]
        assert cut["kinds"] == [PLAIN, UNKNOWN, PLAIN]

    def test_pieces_of_one_character_share_its_place(self, byte_level):
        (cut,) = tokenizer(byte_level, "é🎬").shown["cuts"]
        assert (cut["starts"], cut["ends"]) == ([0, 0, 1, 1, 1, 1], [1, 1, 2, 2, 2, 2])

    def test_several_tokenizers_keep_their_order_and_names(self, wordpiece, byte_level):
        view = tokenizer({"two": byte_level, "one": wordpiece, "": Letters()}, "a.")
        assert [(cut["name"], cut["n"]) for cut in view.shown["cuts"]] == [
            ("two", 2),
            ("one", 4),
            ("", 2),
        ]
        assert repr(view) == "TokensView(3 tokenizers, 2 characters)"
        assert isinstance(view, TokensView)

    def test_a_fast_tokenizer_of_transformers(self, wordpiece):
        transformers = pytest.importorskip("transformers")
        fast = transformers.PreTrainedTokenizerFast(tokenizer_object=wordpiece)
        assert tokenizer(fast, "unable a").shown == tokenizer(wordpiece, "unable a").shown

    def test_anything_with_encode(self):
        (cut,) = tokenizer(Letters(), "a b").shown["cuts"]
        assert (cut["tokens"], cut["ids"]) == (["a", " ", "b"], [97, 32, 98])

    def test_no_text_is_a_text(self, wordpiece):
        (cut,) = tokenizer(wordpiece).shown["cuts"]
        assert cut["tokens"] == ["[CLS]", "[SEP]"]
        (cut,) = tokenizer(Letters()).shown["cuts"]
        assert cut["n"] == 0

    @pytest.mark.slow
    def test_of_a_long_text_2000_pieces_are_sent_and_all_counted(self):
        text = "a boon 🎬 " * 12_500
        view = tokenizer({"one": Letters(), "two": Letters()}, text)
        for cut in view.shown["cuts"]:
            assert cut["n"] == len(text)
            assert len(cut["tokens"]) == len(cut["ids"]) == len(cut["kinds"]) == MOST // 2 == 1000
            assert len(cut["starts"]) == len(cut["ends"]) == 1000
        assert view.shown["n_bytes"] == len(text.encode())
        assert len(json.dumps(view.shown)) < 100_000

    def test_line_ends_are_those_of_the_page(self):
        view = tokenizer(Letters(), "a\r\nb\rc")
        assert view.text == "a\nb\nc"
        assert view.shown["cuts"][0]["n"] == 5


class TestNewText:
    def test_typing_asks_python(self, wordpiece, ask):
        view = tokenizer(wordpiece, "a")
        said = ask(view, {"cut": "unable"})
        assert said == {"number": 7, "answer": {}}
        assert view.text == "unable"
        assert view.shown["cuts"][0]["tokens"][1:-1] == ["un", "##able"]
        assert ask(view, {"cut": ""})["answer"] == {}
        assert view.shown["cuts"][0]["n"] == 2

    def test_python_sets_it(self, wordpiece):
        view = tokenizer(wordpiece, "a")
        view.text = "unable"
        assert view.shown["n_characters"] == 6

    def test_what_cannot_be_cut_is_said_and_changes_nothing(self, ask):
        view = tokenizer(Letters(), "good")
        before = view.shown
        assert ask(view, {"cut": "boom"}) == {"number": 7, "error": "it went boom"}
        with pytest.raises(RuntimeError, match="it went boom"):
            view.text = "boom"
        assert (view.text, view.shown) == ("good", before)
        assert "no answer" in ask(view, {"more": 1})["error"]
        assert "error" in ask(view, {"cut": 3})

    def test_half_a_character_is_refused(self, ask):
        view = tokenizer(Letters(), "good")
        assert "number 1 is half of one" in ask(view, {"cut": "a\ud800"})["error"]
        with pytest.raises(ValueError, match="number 0 is half of one"):
            tokenizer(Letters(), "\udc00")


class TestWhatIsRefused:
    @pytest.mark.parametrize(
        ("given", "message"),
        [
            ("bert", r"tokenizers must be a tokenizer with encode\(text\), got str"),
            (b"bert", "got bytes"),
            (None, "got NoneType"),
            ([Letters()], r"got list\. Give several as a dict from names"),
            ({"a": Letters(), "b": 3}, r"tokenizers\['b'\] must be a tokenizer .* got int"),
            ({1: Letters()}, "the names of tokenizers must be strings, got 1"),
            (SimpleNamespace(encode=3), "got SimpleNamespace"),
            (SimpleNamespace(encode=lambda text: [1]), "must return ids, tokens and offsets"),
            ({"x": SimpleNamespace(encode=lambda text: [1])}, "of 'x' must .* list without ids"),
        ],
    )
    def test_what_is_no_tokenizer(self, given, message):
        with pytest.raises(TypeError, match=message):
            tokenizer(given, "a")

    def test_no_tokenizer_at_all(self):
        with pytest.raises(ValueError, match="at least one tokenizer"):
            tokenizer({}, "a")

    @pytest.mark.parametrize("name", ["text", "title"])
    def test_what_is_no_text(self, name):
        with pytest.raises(TypeError, match=f"{name} must be a string, got int"):
            tokenizer(Letters(), **{name: 3})

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"offsets": [(0, 1), (1, 3)]}, r"within the text's 2 characters, got \(1, 3\)"),
            ({"offsets": [(0, 1), (-1, 1)]}, r"got \(-1, 1\)"),
            ({"offsets": [(0, 1), (2, 1)]}, r"got \(2, 1\)"),
            ({"ids": [1]}, "got 1 ids, 2 offsets and 2 tokens"),
        ],
    )
    def test_pieces_that_do_not_fit(self, changes, message):
        with pytest.raises(ValueError, match=message):
            tokenizer(Letters(**changes), "ab")


class TestSaving:
    def test_a_page_shows_the_text_and_asks_nobody(self, wordpiece, tmp_path):
        view = tokenizer({"one": wordpiece}, "a </script> é", title="pieces")
        view.save(tmp_path / "view.html")
        page = (tmp_path / "view.html").read_text("utf-8")
        assert "http://" not in page
        assert "https://" not in page
        assert page.count("<script") == page.count("</script>") == 3
        found = re.search(r'<script type="application/json" id="state">(.*?)</script>', page, re.S)
        state = json.loads(found[1])["state"]
        assert (state["text"], state["live"]) == ("a </script> é", False)
        assert state["shown"] == view.shown

    @pytest.mark.slow
    @pytest.mark.parametrize("ending", [".png", ".svg", ".pdf"])
    def test_it_can_be_saved_as_a_figure(self, wordpiece, tmp_path, ending):
        view = tokenizer({"$one$": wordpiece}, "unable $a$ " * 200, title="$x$")
        view.save(tmp_path / f"view{ending}")
        assert (tmp_path / f"view{ending}").stat().st_size > 2000

    def test_the_saved_notebook_carries_a_picture(self, wordpiece):
        data, _ = tokenizer(wordpiece, "unable")._repr_mimebundle_()
        assert {"image/png", "application/vnd.jupyter.widget-view+json"} <= data.keys()

    @pytest.mark.slow
    @pytest.mark.parametrize("text", ["", "unable a", "zebra\n\n" * 500, "x" * 5000])
    def test_the_figure_names_and_counts(self, wordpiece, text):
        view = tokenizer({"one": wordpiece, "": Letters()}, text, title="a title")
        said = [t.get_text() for t in view.figure().axes[0].texts]
        assert said[0] == "a title"
        first, second = view.shown["cuts"]
        (heading,) = [t for t in said if t.startswith(f"one: {first['n']} pieces")]
        assert ("unknown" in heading) == (first["unknown"] > 0)
        assert any(t.startswith(f"{second['n']} pieces") for t in said)
        width, height = view.figure().get_size_inches()
        assert width < 10
        assert height < 12


def test_it_is_a_public_name():
    assert av.tokenizer is tokenizer
    assert av.TokensView is TokensView

"""A vocabulary of pieces: learned alike each time, kept, and applied as BERT's tokenizer does."""

import subprocess
import sys

import pytest
from transformers import BertTokenizer

from attnviz.data import load_reviews, train_wordpiece, wordpiece_tokenizer
from attnviz.data.wordpiece import SPECIAL, cache_folder

TEXTS = ["the film was filmed", "a filming of the filmed films", "was it the film?"]


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


def pieces(tokenizer):
    return sorted(tokenizer.get_vocab(), key=tokenizer.get_vocab().get)


class TestTraining:
    def test_special_pieces_come_first_then_the_alphabet(self):
        found = pieces(train_wordpiece(TEXTS, 40))
        assert found[:5] == list(SPECIAL)
        assert found[5:] == sorted(found[5:])
        assert "film" in found

    def test_frequent_words_are_whole_and_the_others_in_pieces(self):
        tokenizer = train_wordpiece(TEXTS, 40)
        encoded = tokenizer.encode("the filmed it", add_special_tokens=False)
        assert encoded.tokens[0] == "the"
        assert encoded.tokens[1] == "film"
        assert encoded.tokens[2].startswith("##")

    @pytest.mark.slow
    def test_the_size_is_the_most(self):
        texts = [r.text for r in load_reviews("validation")[:200]]
        assert train_wordpiece(texts, 700).get_vocab_size() == 700
        assert train_wordpiece(TEXTS, 700).get_vocab_size() < 100

    @pytest.mark.slow
    @pytest.mark.rare
    def test_each_process_learns_the_same(self):
        code = (
            "from attnviz.data import load_reviews, train_wordpiece\n"
            "from attnviz.data.wordpiece import cache_folder\n"
            "texts = [r.text for r in load_reviews('validation')]\n"
            "v = train_wordpiece(texts, 1500).get_vocab()\n"
            "print(sorted(v.items(), key=lambda x: x[1]))\n"
            "for file in cache_folder().iterdir(): file.unlink()\n"
        )
        runs = [subprocess.check_output([sys.executable, "-c", code], text=True) for _ in range(3)]
        assert len(set(runs)) == 1
        assert len(runs[0]) > 10_000


class TestLongWords:
    def test_nothing_is_learned_from_words_that_stay_unknown_but_their_letters(self):
        word = "film" * 25
        assert train_wordpiece([*TEXTS, word], 60).encode(word).tokens[1:-1] != ["[UNK]"]
        assert train_wordpiece([*TEXTS, word + "s"], 60).encode(word + "s").tokens[1] == "[UNK]"
        for long in (word + "q", f"{word}s-the-films", f"the {word}q"):
            learned = set(pieces(train_wordpiece([*TEXTS, long], 60)))
            assert not {one for one in learned if "filmfilm" in one}

    @pytest.mark.parametrize("sign", [".", "-", "漢", " ", "\n", "é"])
    def test_short_words_in_a_row_are_learned_however_long_the_row(self, sign):
        row = sign.join(["film"] * 60)
        assert ("film" in pieces(train_wordpiece([row], 30))) == (sign != "é")

    @pytest.mark.slow
    def test_time_grows_with_the_length_of_a_word_and_not_with_its_square(self):
        code = (
            "from attnviz.data import SentencePairs, train_wordpiece\n"
            "word = 'abcdefg' * 60_000\n"
            "assert train_wordpiece([word, word.replace('a', 'ä'), 'the film'], 60)\n"
            "assert SentencePairs([(word, 'a')], 60)\n"
        )
        subprocess.run([sys.executable, "-c", code], check=True, timeout=120)  # squared: 10 minutes


class TestApplying:
    @pytest.mark.slow
    def test_pieces_are_those_of_hugging_faces_tokenizer(self, tmp_path):
        texts = [r.text for r in load_reviews("validation")[:300]]
        tokenizer = train_wordpiece(texts, 1000)
        file = tmp_path / "vocab.txt"
        file.write_text("\n".join(pieces(tokenizer)), encoding="utf-8")
        theirs = BertTokenizer(vocab=str(file), do_lower_case=True)
        for text in [*(r.text for r in load_reviews("test")[:100]), "Ünïcode 漢字 don't 🙂"]:
            assert tokenizer.encode(text).ids == theirs.encode(text)

    def test_cls_and_sep_around_and_types_of_a_pair(self):
        encoded = train_wordpiece(TEXTS, 40).encode("the film", "was it")
        assert encoded.tokens[0] == "[CLS]"
        assert encoded.tokens.count("[SEP]") == 2
        assert encoded.tokens[-1] == "[SEP]"
        assert sorted(set(encoded.type_ids)) == [0, 1]

    def test_unknown_characters_are_unknown(self):
        assert train_wordpiece(TEXTS, 40).encode("漢", add_special_tokens=False).tokens == ["[UNK]"]

    def test_mask_is_one_piece(self):
        tokens = train_wordpiece(TEXTS, 44).encode("the [MASK] filmed").tokens
        assert tokens == ["[CLS]", "the", "[MASK]", "filmed", "[SEP]"]

    def test_decoding_joins_pieces(self):
        tokenizer = train_wordpiece(TEXTS, 40)
        assert tokenizer.decode(tokenizer.encode("The filmed!").ids) == "the filmed"

    def test_a_vocabulary_as_a_list(self):
        tokenizer = wordpiece_tokenizer([*SPECIAL, "film", "##s"])
        assert tokenizer.encode("films").ids == [2, 5, 6, 3]


class TestCache:
    def test_the_second_time_nothing_is_learned(self, monkeypatch):
        first = train_wordpiece(TEXTS, 40)
        monkeypatch.setattr("attnviz.data.wordpiece._learn", lambda *_: pytest.fail("learned"))
        assert train_wordpiece(TEXTS, 40).to_str() == first.to_str()

    @pytest.mark.parametrize("other", [(TEXTS[:2], 40), (TEXTS, 39), ([*TEXTS[:2], "x"], 40)])
    def test_other_texts_or_another_size_are_learned_anew(self, other, monkeypatch):
        train_wordpiece(TEXTS, 40)
        learned = []
        monkeypatch.setattr(
            "attnviz.data.wordpiece._learn", lambda *given: learned.append(given) or ["x"]
        )
        train_wordpiece(*other)
        assert len(learned) == 1

    @pytest.mark.parametrize("damaged", ["", "{", '{"version": "1.0"}'])
    def test_a_damaged_file_is_replaced(self, damaged):
        first = train_wordpiece(TEXTS, 40)
        (file,) = cache_folder().iterdir()
        file.write_text(damaged)
        assert train_wordpiece(TEXTS, 40).to_str() == first.to_str()
        assert len(file.read_text()) > 100

    def test_without_a_place_to_keep_it(self, tmp_path, monkeypatch):
        (tmp_path / "file").write_text("not a folder")
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
        assert train_wordpiece(TEXTS, 40).get_vocab_size() <= 40


class TestBadInput:
    @pytest.mark.parametrize("texts", [[], [""], ["  ", "\n"]])
    def test_nothing_to_learn_from(self, texts):
        with pytest.raises(ValueError, match=f"got {len(texts)} texts without any"):
            train_wordpiece(texts)

    def test_one_text(self):
        with pytest.raises(TypeError, match="several texts, such as a list, got one str"):
            train_wordpiece("the film")

    @pytest.mark.parametrize("size", [0, 5, -1])
    def test_no_room(self, size):
        with pytest.raises(ValueError, match=f"vocab_size must be more than 5, got {size}"):
            train_wordpiece(TEXTS, size)

    def test_a_special_piece_is_missing(self):
        with pytest.raises(ValueError, match=r"\[MASK\] is missing"):
            wordpiece_tokenizer(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "film"])

"""Number words against num2words, whose slips are known, and the batches made of them."""

import random
from collections import Counter

import pytest
import torch
from num2words import num2words

from attnviz.data import LANGUAGES, NumberWords, held_out, spell
from attnviz.data.number_words import join, split

ALL = ["en", *LANGUAGES]
SLIPS = {"de": "einstausend", "es": "uno mil"}  # in the words of num2words
KNOWN = {
    "en": {
        0: "zero",
        42: "forty-two",
        1984: "one thousand, nine hundred and eighty-four",
        20_007: "twenty thousand and seven",
    },
    "de": {
        0: "null",
        1: "eins",
        17: "siebzehn",
        42: "zweiundvierzig",
        1984: "eintausendneunhundertvierundachtzig",
        30_001: "dreißigtausendeins",
    },
    "fr": {
        71: "soixante et onze",
        80: "quatre-vingts",
        81: "quatre-vingt-un",
        200: "deux cents",
        201_000: "deux cent un mille",
        999_999: "neuf cent quatre-vingt-dix-neuf mille neuf cent quatre-vingt-dix-neuf",
    },
    "es": {
        22: "veintidós",
        100: "cien",
        101: "ciento uno",
        1000: "mil",
        500_500: "quinientos mil quinientos",
    },
    "da": {
        50: "halvtreds",
        71: "enoghalvfjerds",
        99: "nioghalvfems",
        1001: "ettusinde og et",
    },
    "ja": {0: "零", 42: "四十二", 1984: "千九百八十四", 10_000: "一万", 594_000: "五十九万四千"},
}
REPAIRED = {
    "de": {
        101_000: "einhunderteintausend",
        301_000: "dreihunderteintausend",
        901_001: "neunhunderteintausendeins",
    },
    "es": {
        21_000: "veintiún mil",
        31_001: "treinta y un mil uno",
        101_000: "ciento un mil",
        121_121: "ciento veintiún mil ciento veintiuno",
    },
}


def some_numbers(how_many=700):
    """Random numbers and those where words change."""
    edges = [0, 1, 16, 21, 80, 99, 100, 101, 110, 200, 999]
    drawn = random.Random(0).sample(range(1_000_000), how_many)
    return [*edges, *(1000 * t + n for t in edges for n in edges if t), *drawn]


@pytest.mark.parametrize("language", ALL)
class TestEveryLanguage:
    def test_known_words(self, language):
        assert {n: spell(n, language) for n in KNOWN[language]} == KNOWN[language]

    @pytest.mark.slow
    def test_apart_from_the_slips_the_words_are_those_of_num2words(self, language):
        slip, repaired = SLIPS.get(language, "no slip"), 0
        for number in some_numbers():
            theirs = num2words(number, lang=language)
            if slip in theirs:
                repaired += 1
                assert spell(number, language) != theirs
            else:
                assert spell(number, language) == theirs
        assert (repaired > 0) == (language in SLIPS)

    @pytest.mark.slow
    def test_no_two_numbers_have_the_same_words(self, language):
        numbers = set(some_numbers(20_000))
        assert len({spell(n, language) for n in numbers}) == len(numbers)

    def test_words_are_joined_as_they_were_split(self, language):
        for number in some_numbers(5000):
            words = spell(number, language)
            assert join(split(words, language), language) == words

    def test_words_split_into_few_pieces_out_of_few(self, language):
        numbers = some_numbers(5000)
        pieces = Counter(p for n in numbers for p in split(spell(n, language), language) if n)
        assert max(len(split(spell(n, language), language)) for n in numbers) <= 20
        assert 10 < len(pieces) <= 60
        assert min(pieces.values()) > 5  # each is met again and again


@pytest.mark.parametrize("language", SLIPS)
class TestSlips:
    def test_they_are_repaired(self, language):
        repaired = REPAIRED[language]
        assert {n: spell(n, language) for n in repaired} == repaired
        assert not any(SLIPS[language] in spell(n, language) for n in range(0, 1_000_000, 1000))

    def test_num2words_still_makes_them(self, language):
        # when this fails, num2words has been repaired, and `_part` need no longer do it
        for number, words in REPAIRED[language].items():
            assert SLIPS[language] in num2words(number, lang=language)
            assert num2words(number, lang=language) != words


class TestSpell:
    @pytest.mark.parametrize("number", [True, 1.0, "7", None])
    def test_what_is_no_whole_number(self, number):
        with pytest.raises(TypeError, match="number must be a whole number, got"):
            spell(number, "de")

    @pytest.mark.parametrize("number", [-1, 1_000_000])
    def test_a_number_out_of_bounds(self, number):
        with pytest.raises(ValueError, match=f"between 0 and 999999, got {number}"):
            spell(number, "de")

    def test_a_language_that_is_not_there(self):
        with pytest.raises(ValueError, match=r"language must be 'en' or one of .*got 'it'"):
            spell(7, "it")

    def test_pieces_of_compound_words_are_their_parts(self):
        assert split("zweiundvierzigtausendeins", "de") == [
            "zwei", "und", "vierzig", "tausend", "eins",
        ]  # fmt: skip
        assert split("forty-two thousand, one hundred", "en") == [
            "forty", "-", "two", "thousand", ",", "one", "hundred",
        ]  # fmt: skip
        assert split(spell(31_001, "da"), "da") == [
            "en", "og", "tredive", "tusinde", " og ", "et",
        ]  # fmt: skip
        assert split("五十九万", "ja") == ["五", "十", "九", "万"]


class TestHeldOut:
    def test_about_two_in_a_hundred_numbers_are(self):
        assert 0.015 < sum(held_out(n) for n in range(100_000)) / 100_000 < 0.025
        assert 0.015 < sum(held_out(n) for n in range(900_000, 1_000_000)) / 100_000 < 0.025

    def test_they_are_always_the_same(self):
        assert [n for n in range(182) if held_out(n)] == [29, 37, 40, 88, 116, 149, 181]
        assert held_out(999_934)
        assert not held_out(999_999)


class TestSample:
    def test_it_gives_as_many_numbers_as_asked_for_and_none_that_is_held_out(self):
        for size in (0, 1, 20_000):
            numbers = NumberWords().sample(size, torch.Generator().manual_seed(0))
            assert len(numbers) == size
            assert all(type(n) is int and 0 <= n < 1_000_000 for n in numbers)
            assert not any(held_out(n) for n in numbers)

    @pytest.mark.parametrize(
        ("uniform", "below_a_thousand", "below_half"),
        [(1.0, 0.001, 0.5), (0.7, 0.151, 0.635), (0.0, 0.5, 0.95)],
    )
    def test_seven_in_ten_are_uniform_and_the_others_in_their_logarithm(
        self, uniform, below_a_thousand, below_half
    ):
        numbers = NumberWords().sample(20_000, torch.Generator().manual_seed(0), uniform=uniform)
        assert abs(sum(n < 1000 for n in numbers) / 20_000 - below_a_thousand) < 0.012
        assert abs(sum(n < 500_000 for n in numbers) / 20_000 - below_half) < 0.012
        if uniform == 0.7:
            default = NumberWords().sample(20_000, torch.Generator().manual_seed(0))
            assert default == numbers

    def test_single_digits_are_met(self):
        numbers = Counter(NumberWords().sample(20_000, torch.Generator().manual_seed(0)))
        assert all(numbers[n] > 20 for n in range(10))

    def test_the_generator_decides_and_nothing_else(self):
        def draw(seed):
            return NumberWords().sample(50, torch.Generator().manual_seed(seed))

        torch.manual_seed(1)
        first = draw(5)
        torch.manual_seed(2)
        assert draw(5) == first
        assert draw(6) != first
        generator = torch.Generator().manual_seed(5)
        assert NumberWords().sample(50, generator) != NumberWords().sample(50, generator)


class TestBatch:
    def test_words_become_ids_and_padding(self):
        words = NumberWords()
        source, target = words.batch([42, 7, 1100])
        assert source.dtype == target.dtype == torch.int64
        assert [[words.source[i] for i in row] for row in source.tolist()] == [
            ["forty", "-", "two", "[pad]", "[pad]"],
            ["seven", "[pad]", "[pad]", "[pad]", "[pad]"],
            ["one", "thousand", ",", "one", "hundred"],
        ]
        assert [[words.target[i] for i in row] for row in target.tolist()] == [
            ["[start]", "zwei", "und", "vierzig", "[end]", "[pad]"],
            ["[start]", "sieben", "[end]", "[pad]", "[pad]", "[pad]"],
            ["[start]", "ein", "tausend", "ein", "hundert", "[end]"],
        ]
        assert words.source[0] == words.target[0] == "[pad]"
        assert words.target[words.start] == "[start]"
        assert words.target[words.end] == "[end]"

    def test_with_several_languages_a_tag_says_which(self):
        words = NumberWords(["fr", "ja"])
        source, target = words.batch([42, 42], ["ja", "fr"])
        assert [words.source[row[0]] for row in source.tolist()] == ["[ja]", "[fr]"]
        assert torch.equal(source[0, 1:], source[1, 1:])
        assert [words.target[i] for i in target[0].tolist()] == [
            "[start]", "四", "十", "二", "[end]",
        ]  # fmt: skip
        assert [words.target[i] for i in target[1].tolist()] == [
            "[start]", "quarante", "-", "deux", "[end]",
        ]  # fmt: skip

    def test_with_one_language_there_is_no_tag(self):
        assert not any(piece.startswith("[d") for piece in NumberWords(["da"]).source)

    def test_the_vocabularies_are_small_and_have_every_piece_once(self):
        words = NumberWords(LANGUAGES)
        for vocabulary in (words.source, words.target):
            assert len(vocabulary) == len(set(vocabulary)) < 200
        for language in LANGUAGES:
            numbers = some_numbers(1000)
            source, target = words.batch(numbers, [language] * len(numbers))
            assert source.max() < len(words.source)
            assert target.max() < len(words.target)

    def test_vocabularies_are_the_same_every_time(self):
        a, b = NumberWords(["de", "fr"]), NumberWords(["de", "fr"])
        assert a.source == b.source
        assert a.target == b.target
        assert NumberWords(["de"]).target == a.target[: len(NumberWords(["de"]).target)]

    def test_no_numbers_make_an_empty_batch(self):
        source, target = NumberWords().batch([])
        assert source.shape == target.shape == (0, 0)
        assert source.dtype == target.dtype == torch.int64

    def test_a_language_that_was_not_asked_for(self):
        with pytest.raises(ValueError, match=r"language must be one of \('de',\), got 'fr'"):
            NumberWords(["de"]).batch([1], ["fr"])

    def test_with_several_languages_none_is_a_guess(self):
        with pytest.raises(ValueError, match=r"one of \('de', 'fr'\), got None"):
            NumberWords(["de", "fr"]).batch([1])

    def test_a_language_for_each_number(self):
        with pytest.raises(ValueError, match="2 numbers, but 1 languages"):
            NumberWords(["de", "fr"]).batch([1, 2], ["de"])

    @pytest.mark.parametrize("languages", [[], ["de", "it"], "de", ["en"]])
    def test_languages_that_are_none(self, languages):
        with pytest.raises(ValueError, match=r"languages must be some of .*got"):
            NumberWords(languages)


class TestRead:
    @pytest.mark.parametrize("language", LANGUAGES)
    def test_it_says_what_was_written(self, language):
        for words in (NumberWords([language]), NumberWords(LANGUAGES)):
            numbers = [0, 21, 1100, 31_001, 301_000, 999_999]
            _, target = words.batch(numbers, [language] * 6)
            for number, ids in zip(numbers, target, strict=True):
                assert words.read(ids, language) == spell(number, language)
                assert words.read(ids[1:].tolist(), language) == spell(number, language)

    def test_it_stops_at_the_end_and_skips_padding(self):
        words = NumberWords()
        a, b = words.target.index("zwei"), words.target.index("hundert")
        assert words.read([words.start, a, 0, b, words.end, a, a]) == "zweihundert"
        assert words.read([a, b]) == "zweihundert"  # as far as it got
        assert words.read([words.end]) == words.read([]) == ""

    def test_the_language_matters_and_is_not_guessed(self):
        words = NumberWords(["fr", "de"])
        ids = words.batch([200], ["fr"])[1][0]
        assert words.read(ids, "fr") == "deux cents"
        with pytest.raises(ValueError, match=r"one of \('fr', 'de'\), got None"):
            words.read(ids)
        with pytest.raises(ValueError, match="got 'ja'"):
            words.read(ids, "ja")

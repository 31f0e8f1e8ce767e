"""Numbers in words, in several languages: a translation task with one right answer each.

The words come from `num2words`, whose slips are repaired here: German "dreihunderteinstausend" and
Spanish "veintiuno mil" (right: "dreihunderteintausend", "veintiún mil").
"""

import re
import zlib
from collections.abc import Sequence
from functools import cache

import torch
from num2words import num2words
from torch import Tensor

from attnviz.checks import check_share, check_whole
from attnviz.data.padding import END, PAD, START, pad

LANGUAGES = ("de", "fr", "es", "da", "ja")
TOO_LARGE = 1_000_000
_MORPHEMES = {  # the parts of words that are written without a space, the longer ones first
    "de": "siebzehn sechzehn dreißig zwanzig vierzig fünfzig sechzig siebzig achtzig neunzig "
    "hundert tausend sieben zwölf sechs null eins zwei drei vier fünf acht neun zehn elf ein und",
    "da": "halvfjerds halvfems halvtreds hundrede seksten sytten tusind fjorten femten "
    "fyrre tredive femten treds tyve firs atten nitten tretten elleve fire fem seks syv otte tolv "
    "tre nul ni ti to et en og",
}
_WORDS = re.compile(r"[^\W\d_]+|[-,]")


def spell(number: int, language: str) -> str:
    """A number in words.

    number: 0 to 999,999.   language: "en" or one of LANGUAGES.
    Returns for example "zweiundvierzig".
    Raises TypeError or ValueError for a number or a language that is none of these.
    """
    number = check_whole("number", number, 0, TOO_LARGE - 1)
    if language not in ("en", *LANGUAGES):
        raise ValueError(f"language must be 'en' or one of {LANGUAGES}, got {language!r}")
    thousands, rest = divmod(number, 1000)
    if not thousands:
        return _part(rest, language)
    if not rest:
        return _part(number, language)
    between = _between(thousands, rest, language)
    return f"{_part(1000 * thousands, language)}{between}{_part(rest, language)}"


@cache
def _part(number: int, language: str) -> str:
    """A number below 1,000 or a whole number of thousands: what all others are made of."""
    words = num2words(number, lang=language)
    if language == "de":
        words = words.replace("einstausend", "eintausend")
    if language == "es":
        words = words.replace("veintiuno mil", "veintiún mil").replace("uno mil", "un mil")
    return words


def _between(thousands: int, rest: int, language: str) -> str:
    if language == "en":
        return ", " if rest >= 100 else " and "
    if language == "da":
        return "" if thousands > 100 else "e og "
    return " " if language in ("fr", "es") else ""


def split(words: str, language: str) -> list[str]:
    """The pieces of a number in words: words and signs, morphemes (de, da) or characters (ja)."""
    if language == "ja":
        return list(words)
    if language in _MORPHEMES:
        return _morphemes(language).findall(words)
    return _WORDS.findall(words)


def join(pieces: Sequence[str], language: str) -> str:
    """The words that pieces were split from."""
    if language == "ja" or language in _MORPHEMES:
        return "".join(pieces)
    return " ".join(pieces).replace(" - ", "-").replace(" ,", ",")


@cache
def _morphemes(language: str) -> re.Pattern:
    longest_first = sorted(_MORPHEMES[language].split(), key=len, reverse=True)
    # "tusinde" stands only before " og ": in "tusindethundrede" the e belongs to what follows
    return re.compile("|".join([" og ", "tusinde(?= og )", *longest_first]))


def held_out(number: int) -> bool:
    """Whether a number is kept from training: two in a hundred are, by their hash.

    Raises TypeError for what is no whole number.
    """
    number = check_whole("number", number)
    return zlib.crc32(str(number).encode()) % 50 == 0


class NumberWords:
    """English number words and their translations, as padded batches of token ids.

    languages: what is translated to; with several, a tag such as [fr] in front of the English
               words says which.
    source, target: the vocabularies, lists of pieces; in both, id 0 is the padding.
    Raises ValueError for a language that is none of LANGUAGES, or none at all.
    """

    def __init__(self, languages: Sequence[str] = ("de",)):
        if isinstance(languages, str) or not languages or set(languages) - set(LANGUAGES):
            raise ValueError(f"languages must be some of {LANGUAGES}, got {languages!r}")
        self.languages = tuple(languages)
        self._tags = [f"[{language}]" for language in languages] if len(languages) > 1 else []
        self.source = [PAD, *self._tags, *_pieces_of("en")]
        targets = dict.fromkeys(p for language in languages for p in _pieces_of(language))
        self.target = [PAD, START, END, *targets]
        self._source_ids = {piece: i for i, piece in enumerate(self.source)}
        self._target_ids = {piece: i for i, piece in enumerate(self.target)}
        self.start, self.end = self._target_ids[START], self._target_ids[END]

    def sample(self, size: int, generator: torch.Generator, *, uniform: float = 0.7) -> list[int]:
        """Draw numbers for training; none of them is held out.

        uniform: the share that is drawn uniformly from 0 to 999,999; the others are uniform in
                 their logarithm, so that short numbers are met as well.
        Raises TypeError or ValueError for a size below 0 or what is no share.
        """
        size, uniform = check_whole("size", size, 0), check_share("uniform", uniform)
        numbers: list[int] = []
        while len(numbers) < size:
            r = torch.rand(size, 2, generator=generator, dtype=torch.float64)
            flat, log = r[:, 1] * TOO_LARGE, TOO_LARGE ** r[:, 1] - 1
            drawn = torch.where(r[:, 0] < uniform, flat, log).long().tolist()
            numbers += [n for n in drawn if not held_out(n)]
        return numbers[:size]

    def batch(
        self, numbers: Sequence[int], languages: Sequence[str] | None = None
    ) -> tuple[Tensor, Tensor]:
        """Token ids of numbers and their translations, padded with 0.

        languages: into which each number is translated; the only one when not given.
        Returns source (batch, token) and target (batch, token), int64, the target with [start] and
        [end].
        Raises ValueError for a language that these vocabularies do not have, for none when there
        are several, or when there are not as many languages as numbers.
        """
        if languages is None:
            languages = [self._language(None)] * len(numbers)
        if len(languages) != len(numbers):
            raise ValueError(f"{len(numbers)} numbers, but {len(languages)} languages")
        pairs = [(n, self._language(x)) for n, x in zip(numbers, languages, strict=True)]
        source = [self._encode_source(n, language) for n, language in pairs]
        target = [self._encode_target(n, language) for n, language in pairs]
        return pad(source), pad(target)

    def read(self, ids: Sequence[int], language: str | None = None) -> str:
        """The words that target ids say, up to [end].

        language: in which they are; the only one when not given.
        Raises ValueError as `batch`.
        """
        language, pieces = self._language(language), []
        for i in ids:
            if i == self.end:
                break
            if i not in (0, self.start):
                pieces.append(self.target[i])
        return join(pieces, language)

    def _language(self, language: str | None) -> str:
        if language is None and len(self.languages) == 1:
            return self.languages[0]
        if language not in self.languages:
            raise ValueError(f"language must be one of {self.languages}, got {language!r}")
        return language

    def _encode_source(self, number: int, language: str) -> list[int]:
        tag = [self._source_ids[f"[{language}]"]] if self._tags else []
        return tag + [self._source_ids[piece] for piece in split(spell(number, "en"), "en")]

    def _encode_target(self, number: int, language: str) -> list[int]:
        pieces = split(spell(number, language), language)
        return [self.start, *(self._target_ids[piece] for piece in pieces), self.end]


@cache
def _pieces_of(language: str) -> tuple[str, ...]:
    """All pieces of a language, in the order in which they are met."""
    numbers = [*range(1000), *range(1000, TOO_LARGE, 1000), 1001, 1100]
    return tuple(dict.fromkeys(p for n in numbers for p in split(spell(n, language), language)))

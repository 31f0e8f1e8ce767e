"""The exercises of lesson 06, with the mistakes that their checks recognise."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise

from attnviz.lessons.exact import ExactExercise
from attnviz.lessons.exercise import Misconception

Pair = tuple[str, str]


def _utf8(code_point: int, low: int = 0x80, mark: int = 0x80, lead: bool = True) -> list[int]:
    """low: the first code point with two bytes.   mark: of the bytes that follow.

    lead: whether the first byte says how many there are.
    """
    if code_point < low:
        return [code_point]
    n = 1 + (code_point > 0x7FF) + (code_point > 0xFFFF)  # bytes that follow
    first = (0xC0, 0xE0, 0xF0)[n - 1] if lead else 0
    rest = [mark | code_point >> 6 * i & 0x3F for i in reversed(range(n))]
    return [first | code_point >> 6 * n, *rest]


def _at_most_three(code_point: int) -> list[int]:
    if code_point <= 0xFFFF:
        return _utf8(code_point)
    return [0xE0 | code_point >> 12, 0x80 | code_point >> 6 & 0x3F, 0x80 | code_point & 0x3F]


def _surrogates(code_point: int) -> list[int]:
    if code_point <= 0xFFFF:
        return _utf8(code_point)
    high, low = divmod(code_point - 0x10000, 0x400)
    return _utf8(0xD800 + high) + _utf8(0xDC00 + low)


utf8 = ExactExercise(
    name="utf8",
    reference=_utf8,
    cases=tuple(
        (code_point,)
        for code_point in (0x41, 0xE9, 0x20AC, 0x1F600, 0x7F, 0x80, 0x7FF, 0x800, 0xFFFF, 0x10000)
    ),
    misconceptions=(
        Misconception(
            "this is the code point itself. A byte is at most 255: from 128 on, the bits must be "
            "shared out among two, three or four bytes.",
            lambda code_point: [code_point],
        ),
        Misconception(
            "the number is cut into bytes of eight bits as it stands. Then nobody could tell where "
            "a character begins: each byte needs its marker, and has room for six bits (the first "
            "for fewer).",
            lambda code_point: list(code_point.to_bytes(4, "big").lstrip(b"\0")),
        ),
        Misconception(
            "the code points from 128 to 255 are one byte here, as in Latin-1. In UTF-8 one byte "
            "goes up to 127 only.",
            lambda code_point: _utf8(code_point, low=0x100),
        ),
        Misconception(
            "the first bytes are right, but those that follow lack their marker: add 0x80, binary "
            "10xxxxxx.",
            lambda code_point: _utf8(code_point, mark=0),
        ),
        Misconception(
            "the first byte does not say how many follow: it starts with 110, 1110 or 11110, that "
            "is 0xC0, 0xE0 or 0xF0.",
            lambda code_point: _utf8(code_point, lead=False),
        ),
        Misconception(
            "the bytes that follow are in the wrong order: the highest bits come first.",
            lambda code_point: [_utf8(code_point)[0], *_utf8(code_point)[:0:-1]],
        ),
        Misconception(
            "all bytes are in the wrong order: the one that says how many there are comes first.",
            lambda code_point: _utf8(code_point)[::-1],
        ),
        Misconception(
            "three bytes hold 16 bits. From 0x10000 on, where the emoji are, it takes a fourth.",
            _at_most_three,
        ),
        Misconception(
            "from 0x10000 on this makes two halves of a character (surrogates) and six bytes. "
            "Halves belong to UTF-16; UTF-8 writes the code point itself, in four bytes.",
            _surrogates,
        ),
    ),
    first_step="Return [code_point] while it is below 0x80; then do the case of two bytes.",
)


def _pairs(pieces: Sequence[str]) -> list[Pair]:
    return list(pairwise(pieces))


def _pair_counts(words: Mapping[tuple[str, ...], int]) -> dict[Pair, int]:
    counts = Counter()
    for pieces, n in words.items():
        for pair in _pairs(pieces):
            counts[pair] += n
    return dict(counts)


def _overwritten(words: Mapping[tuple[str, ...], int]) -> dict[Pair, int]:
    return {pair: n for pieces, n in words.items() for pair in _pairs(pieces)}


def _counted(words: Mapping[tuple[str, ...], int], pairs_of: Callable) -> dict[Pair, int]:
    counts = Counter()
    for pieces, n in words.items():
        for pair in pairs_of(pieces):
            counts[pair] += n
    return dict(counts)


_WORDS = (
    {("l", "o", "w"): 5, ("l", "o", "w", "e", "r"): 2, ("n", "e", "w"): 6},
    {("b", "a", "n", "a", "n", "a"): 3, ("n", "a", "n"): 2, ("a",): 9},
    {("lo", "w"): 5, ("lo", "w", "er"): 2, ("low", "lo"): 1, ("w", "lo"): 4},
)

pair_counts = ExactExercise(
    name="pair_counts",
    reference=_pair_counts,
    cases=tuple((words,) for words in _WORDS),
    misconceptions=(
        Misconception(
            "every word counts once, but a word that occurs 5 times brings each of its pairs 5 "
            "times: add the word's count, not 1.",
            lambda words: dict(Counter(pair for pieces in words for pair in _pairs(pieces))),
        ),
        Misconception(
            "a pair that stands twice in a word, as (a, n) in banana, is counted only once for it.",
            lambda words: _counted(words, lambda pieces: set(_pairs(pieces))),
        ),
        Misconception(
            "the count of the last word replaces those before it: add up, counts[pair] += n.",
            _overwritten,
        ),
        Misconception(
            "every second pair is left out: the pairs overlap, each piece but the last begins one.",
            lambda words: _counted(words, lambda pieces: _pairs(pieces)[::2]),
        ),
        Misconception(
            "the order within a pair is lost: (l, o) and (o, l) are different pairs.",
            lambda words: _counted(
                words, lambda pieces: [tuple(sorted(p)) for p in _pairs(pieces)]
            ),
        ),
        Misconception(
            "the last piece makes a pair with the first one: a word does not go round in a circle.",
            lambda words: _counted(
                words, lambda pieces: zip(pieces, (*pieces[1:], pieces[0]), strict=True)
            ),
        ),
        Misconception(
            "these are pairs of letters. After a few merges the pieces are longer: pair the pieces "
            "as they stand in the tuple.",
            lambda words: _counted(words, lambda pieces: _pairs("".join(pieces))),
        ),
        Misconception(
            "the pairs are glued into one string each. Keep them as tuples: (lo, w) and (l, ow) "
            "are not the same pair.",
            lambda words: _counted(words, lambda pieces: map("".join, _pairs(pieces))),
        ),
        Misconception(
            "any two pieces of a word make a pair here; only neighbours should.",
            lambda words: _counted(
                words,
                lambda pieces: [(a, b) for i, a in enumerate(pieces) for b in pieces[i + 1 :]],
            ),
        ),
    ),
    first_step="zip(pieces, pieces[1:]) gives the pairs of one word; try it on ('l', 'o', 'w').",
)


def _merge_pair(pieces: Sequence[str], pair: Pair) -> list[str]:
    merged, i = [], 0
    while i < len(pieces):
        found = tuple(pieces[i : i + 2]) == pair
        merged.append(pair[0] + pair[1] if found else pieces[i])
        i += 2 if found else 1
    return merged


def _merge_first(pieces: Sequence[str], pair: Pair) -> list[str]:
    for i in range(len(pieces) - 1):
        if tuple(pieces[i : i + 2]) == pair:
            return [*pieces[:i], pair[0] + pair[1], *pieces[i + 2 :]]
    return list(pieces)


def _merge_step_one(pieces: Sequence[str], pair: Pair) -> list[str]:
    followed = [*_pairs(pieces), None]
    return [
        pair[0] + pair[1] if after == pair else one
        for one, after in zip(pieces, followed, strict=False)
    ]


def _merge_from_right(pieces: Sequence[str], pair: Pair) -> list[str]:
    merged, i = [], len(pieces)
    while i > 0:
        found = i > 1 and tuple(pieces[i - 2 : i]) == pair
        merged.insert(0, pair[0] + pair[1] if found else pieces[i - 1])
        i -= 2 if found else 1
    return merged


def _merge_without_last(pieces: Sequence[str], pair: Pair) -> list[str]:
    merged, i = [], 0
    while i < len(pieces) - 1:
        found = tuple(pieces[i : i + 2]) == pair
        merged.append(pair[0] + pair[1] if found else pieces[i])
        i += 2 if found else 1
    return merged


def _merge_either_way(pieces: Sequence[str], pair: Pair) -> list[str]:
    merged, i = [], 0
    while i < len(pieces):
        found = sorted(pieces[i : i + 2]) == sorted(pair)
        merged.append(pieces[i] + pieces[i + 1] if found else pieces[i])
        i += 2 if found else 1
    return merged


def _merge_as_tuples(pieces: Sequence[str], pair: Pair) -> list[object]:
    merged, i = [], 0
    while i < len(pieces):
        found = tuple(pieces[i : i + 2]) == pair
        merged.append(pair if found else pieces[i])
        i += 2 if found else 1
    return merged


merge_pair = ExactExercise(
    name="merge_pair",
    reference=_merge_pair,
    cases=(
        (("l", "o", "w", "e", "r"), ("l", "o")),
        (("b", "a", "n", "a", "n", "a"), ("a", "n")),
        (("h", "a", "a", "a"), ("a", "a")),
        (("n", "e", "w"), ("w", "e")),
        (("lo", "o", "l", "o"), ("o", "l")),
        (("lo", "w"), ("o", "w")),
        (("n", "i", "n", "i"), ("i", "n")),
    ),
    misconceptions=(
        Misconception(
            "only the first place is merged: go on behind it, the pair may come again.",
            _merge_first,
        ),
        Misconception(
            "the second piece of a merged pair is still there: after a merge go on two pieces "
            "further.",
            _merge_step_one,
        ),
        Misconception(
            "where the pair overlaps itself, as (a, a) in h a a a, this merges from the right. The "
            "rule is from the left: h aa a.",
            _merge_from_right,
        ),
        Misconception(
            "a replace in the joined text also finds the pair inside longer pieces: of the piece "
            "lo and the piece w, the pair (o, w) is none. Compare whole pieces.",
            lambda pieces, pair: " ".join(pieces).replace(" ".join(pair), "".join(pair)).split(),
        ),
        Misconception(
            "the last piece is lost when it is not part of a merge.",
            _merge_without_last,
        ),
        Misconception(
            "the pair is merged the wrong way round as well: (w, e) is not (e, w).",
            _merge_either_way,
        ),
        Misconception(
            "the pair is put in as a tuple; its two strings should become one, pair[0] + pair[1].",
            _merge_as_tuples,
        ),
        Misconception(
            "the result is one string; it should be the list of the pieces.",
            lambda pieces, pair: "".join(pieces),
        ),
        Misconception(
            "nothing was merged: compare (pieces[i], pieces[i + 1]) with pair.",
            lambda pieces, pair: list(pieces),
        ),
    ),
    first_step="A while loop with a place i: it goes on by two behind a merge, else by one.",
)

_UNKNOWN = "[UNK]"


def _marked(word: str, start: int, end: int) -> str:
    return ("##" if start else "") + word[start:end]


def _greedy(
    word: str,
    vocabulary: set[str],
    piece_at: Callable = _marked,
    ends: Callable = lambda start, n: range(n, start, -1),
    failed: Callable = lambda pieces, rest: [_UNKNOWN],
) -> list[str]:
    pieces, start = [], 0
    while start < len(word):
        for end in ends(start, len(word)):
            if piece_at(word, start, end) in vocabulary:
                break
        else:
            return failed(pieces, word[start:])
        pieces.append(piece_at(word, start, end))
        start = end
    return pieces


def _letter_by_letter(word: str, vocabulary: set[str]) -> list[str]:
    """One [UNK] for each letter at which nothing fits, and on behind it."""
    pieces, start = [], 0
    while start < len(word):
        fitting = [e for e in range(len(word), start, -1) if _marked(word, start, e) in vocabulary]
        pieces.append(_marked(word, start, fitting[0]) if fitting else _UNKNOWN)
        start = fitting[0] if fitting else start + 1
    return pieces


def _any_cut(word: str, vocabulary: set[str], start: int = 0) -> list[str] | None:
    """Longest first too, but going back where the rest does not fit."""
    if start == len(word):
        return []
    for end in range(len(word), start, -1):
        if _marked(word, start, end) in vocabulary:
            rest = _any_cut(word, vocabulary, end)
            if rest is not None:
                return [_marked(word, start, end), *rest]
    return None


def _from_the_end(word: str, vocabulary: set[str]) -> list[str]:
    pieces, end = [], len(word)
    while end > 0:
        for start in range(end):
            if _marked(word, start, end) in vocabulary:
                break
        else:
            return [_UNKNOWN]
        pieces.insert(0, _marked(word, start, end))
        end = start
    return pieces


_BEGIN = ("un", "unbe", "believ", "able", "th", "the", "play", "u", "p", "b")
_GO_ON = ("believ", "able", "a", "b", "l", "e", "liev", "lie", "ve", "eism", "s", "ing", "in", "g")
_VOCABULARY = {"[UNK]", *_BEGIN, *(f"##{piece}" for piece in (*_GO_ON, "lay", "n", "un"))}
_CUT = ("unbelievable", "playing", "theism", "un", "playzing", "the", "x", "pun", "unable")

wordpiece_encode = ExactExercise(
    name="wordpiece_encode",
    reference=_greedy,
    cases=tuple((word, _VOCABULARY) for word in _CUT),
    misconceptions=(
        Misconception(
            "pieces inside a word are looked up without their ##: behind the first piece, look for "
            "'##' + word[start:end].",
            lambda word, known: _greedy(word, known, lambda w, i, j: w[i:j]),
        ),
        Misconception(
            "the first piece of a word has no ##; only those that continue a word do.",
            lambda word, known: _greedy(word, known, lambda w, i, j: "##" + w[i:j]),
        ),
        Misconception(
            "the pieces are found with ##, but returned without: then nobody can tell where a word "
            "begins.",
            lambda word, known: [
                p if p == _UNKNOWN else p.removeprefix("##") for p in _greedy(word, known)
            ],
        ),
        Misconception(
            "the shortest piece is taken; take the longest: let end run from len(word) down.",
            lambda word, known: _greedy(word, known, ends=lambda i, n: range(i + 1, n + 1)),
        ),
        Misconception(
            "the longest piece is never tried: end runs from len(word), not len(word) - 1, as "
            "word[start:end] stops before end.",
            lambda word, known: _greedy(word, known, ends=lambda i, n: range(n - 1, i, -1)),
        ),
        Misconception(
            "where nothing fits, the pieces found so far are kept. WordPiece gives up the whole "
            "word: the result is [UNK] alone.",
            lambda word, known: _greedy(
                word, known, failed=lambda pieces, rest: [*pieces, _UNKNOWN]
            ),
        ),
        Misconception(
            "each letter that does not fit becomes [UNK] and the search goes on. WordPiece gives "
            "up the word as a whole: one [UNK] for all of it.",
            _letter_by_letter,
        ),
        Misconception(
            "where nothing fits, the result is empty; it should be [UNK], so that the model knows "
            "that there was a word.",
            lambda word, known: _greedy(word, known, failed=lambda pieces, rest: []),
        ),
        Misconception(
            "where nothing fits, what was found so far is returned and the rest is lost; the "
            "result should be [UNK] alone.",
            lambda word, known: _greedy(word, known, failed=lambda pieces, rest: pieces),
        ),
        Misconception(
            "this goes back and tries a shorter piece where the rest does not fit. Sensible, but "
            "not what BERT does: it never goes back, and theism becomes [UNK].",
            lambda word, known: _any_cut(word, known) or [_UNKNOWN],
        ),
        Misconception(
            "the search starts at the end of the word; it should start at the beginning.",
            _from_the_end,
        ),
        Misconception(
            "a word that is not in the vocabulary becomes [UNK] at once; cut it into pieces first.",
            lambda word, known: [word] if word in known else [_UNKNOWN],
        ),
    ),
    first_step="Find the first piece alone: the longest word[:end] that is in the vocabulary.",
)


def _offsets(text: str, pieces: Sequence[str]) -> list[tuple[int, int]]:
    found, end = [], 0
    for piece in pieces:
        letters = piece.removeprefix("##")
        start = text.index(letters, end)
        end = start + len(letters)
        found.append((start, end))
    return found


def _from_the_start(text: str, pieces: Sequence[str]) -> list[tuple[int, int]]:
    letters = [piece.removeprefix("##") for piece in pieces]
    return [(text.find(one), text.find(one) + len(one)) for one in letters]


def _from_the_last_start(text: str, pieces: Sequence[str]) -> list[tuple[int, int]]:
    found, start = [], 0
    for piece in pieces:
        letters = piece.removeprefix("##")
        start = text.find(letters, start)
        found.append((start, start + len(letters)))
    return found


def _added_up(
    text: str, pieces: Sequence[str], gap: Callable = lambda piece: 0
) -> list[tuple[int, int]]:
    """Lengths added up; gap: from a piece to the space that is assumed before it."""
    found, end = [], 0
    for i, piece in enumerate(pieces):
        start = end + (gap(piece) if i else 0)
        end = start + len(piece.removeprefix("##"))
        found.append((start, end))
    return found


def _with_marks(text: str, pieces: Sequence[str]) -> list[tuple[int, int]]:
    found, end = [], 0
    for piece in pieces:
        start = text.index(piece.removeprefix("##"), end)
        end = start + len(piece)
        found.append((start, end))
        end = start + len(piece.removeprefix("##"))
    return found


def _with_prefix(text: str, pieces: Sequence[str], find: Callable) -> list[tuple[int, int]]:
    found, end = [], 0
    for piece in pieces:
        start = find(piece, end)
        end = start + len(piece)
        found.append((start, end))
    return found


def _in_bytes(text: str, pieces: Sequence[str]) -> list[tuple[int, int]]:
    return [
        (len(text[:start].encode()), len(text[:end].encode()))
        for start, end in _offsets(text, pieces)
    ]


char_offsets = ExactExercise(
    name="char_offsets",
    reference=_offsets,
    cases=(
        ("a fine film", ["a", "fine", "film"]),
        ("unbelievably fine", ["un", "##belie", "##v", "##ably", "fine"]),
        ("haha , he saw the other", ["ha", "##ha", ",", "he", "saw", "the", "other"]),
        ("well, she isn't bad!  no", ["well", ",", "she", "isn", "'", "t", "bad", "!", "no"]),
        ("ein café 电影 café", ["ein", "ca", "##fé", "电", "影", "café"]),
    ),
    misconceptions=(
        Misconception(
            "every piece is searched for from the start of the text, so one that comes twice is "
            "found in the wrong place. Begin where the last piece ended: text.index(letters, end).",
            _from_the_start,
        ),
        Misconception(
            "the search begins where the last piece started, not where it ended, so in haha the "
            "second ha is found on top of the first.",
            _from_the_last_start,
        ),
        Misconception(
            "the end is the last character's place; it should be one further, as in Python's "
            "slices: text[start:end] is the piece.",
            lambda text, pieces: [(start, end - 1) for start, end in _offsets(text, pieces)],
        ),
        Misconception(
            "the marks count as characters: ## is not in the text. Take it off before measuring.",
            _with_marks,
        ),
        Misconception(
            "the lengths are added up without the spaces between the words. Look for each piece in "
            "the text instead.",
            _added_up,
        ),
        Misconception(
            "one space is assumed before every piece, also inside words. Look for each piece in "
            "the text instead.",
            lambda text, pieces: _added_up(text, pieces, lambda piece: 1),
        ),
        Misconception(
            "one space is assumed before every word; there is none before a comma, and sometimes "
            "there are two. Look for each piece in the text instead.",
            lambda text, pieces: _added_up(text, pieces, lambda piece: not piece.startswith("##")),
        ),
        Misconception(
            "these are starts and lengths; starts and ends are wanted.",
            lambda text, pieces: [(start, end - start) for start, end in _offsets(text, pieces)],
        ),
        Misconception(
            "these are places of bytes. Python counts characters, and so does everybody who cuts "
            "text[start:end].",
            _in_bytes,
        ),
        Misconception(
            "a piece that continues a word is searched for with its ##, which is not in the text. "
            "removeprefix('##') takes it off.",
            lambda text, pieces: _with_prefix(text, pieces, text.index),
        ),
        Misconception(
            "find gives -1 where it finds nothing, as for a piece with its ##, and the places "
            "become nonsense. Take the ## off first.",
            lambda text, pieces: _with_prefix(text, pieces, text.find),
        ),
    ),
    first_step="Go through the pieces with a variable end, which starts at 0.",
)

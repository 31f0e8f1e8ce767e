"""The exercises of lesson 06, with the mistakes that their checks recognise."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise

from attnviz.lessons.drawing import Draw, drawn
from attnviz.lessons.exact import ExactExercise
from attnviz.lessons.exercise import Misconception

Pair = tuple[str, str]


def _utf8(
    code_point: int,
    low: int = 0x80,
    mark: int = 0x80,
    mask: int = 0x3F,
    firsts: Sequence[int] = (0xC0, 0xE0, 0xF0),
    more: int = 0,
) -> list[int]:
    """low: the first code point with two bytes.   mark, mask: of the bytes that follow.

    firsts: the marks of the first byte.   more: by how much the borders lie too high.
    """
    if code_point < low + more:
        return [code_point]
    n = 1 + (code_point > 0x7FF + more) + (code_point > 0xFFFF + more)  # bytes that follow
    rest = [mark | code_point >> 6 * i & mask for i in reversed(range(n))]
    return [firsts[n - 1] | code_point >> 6 * n, *rest]


def _at_most_three(code_point: int) -> list[int]:
    if code_point <= 0xFFFF:
        return _utf8(code_point)
    return [0xE0 | code_point >> 12, 0x80 | code_point >> 6 & 0x3F, 0x80 | code_point & 0x3F]


def _surrogates(code_point: int) -> list[int]:
    if code_point <= 0xFFFF:
        return _utf8(code_point)
    high, low = divmod(code_point - 0x10000, 0x400)
    return _utf8(0xD800 + high) + _utf8(0xDC00 + low)


_LENGTHS = (0, 0x80, 0x800, 0x10000, 0x110000)  # where another byte is needed, and the end
_POINTS = (0x41, 0xE9, 0x20AC, 0x1F600, 0x7F, 0x80, 0x7FF, 0x800, 0xFFFF, 0x10000, 0x10FFFF)


def _some_code_point(draw: Draw) -> tuple[int]:
    first, behind = draw.choice(list(pairwise(_LENGTHS)))
    code_point = draw.randrange(first, behind)
    return (0xFFFD if 0xD800 <= code_point < 0xE000 else code_point,)  # halves are no characters


utf8 = ExactExercise(
    name="utf8",
    reference=lambda code_point: _utf8(code_point),
    cases=(*((code_point,) for code_point in _POINTS), *drawn(12, _some_code_point)),
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
            lambda code_point: _utf8(code_point, firsts=(0, 0, 0)),
        ),
        Misconception(
            "the first byte always starts with 110, which says that one follows. Where two or "
            "three follow, it starts with 1110 or 11110.",
            lambda code_point: _utf8(code_point, firsts=(0xC0, 0xC0, 0xC0)),
        ),
        Misconception(
            "the bytes that follow hold more than their six bits: & 0b111111 throws the higher "
            "ones away.",
            lambda code_point: _utf8(code_point, mask=-1),
        ),
        Misconception(
            "each border belongs to the longer form: 0x80, 0x800 and 0x10000 are the first with "
            "one byte more, so it is <, not <=.",
            lambda code_point: _utf8(code_point, more=1),
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


def _without_items(words: Mapping[tuple[str, ...], int]) -> dict[Pair, int]:
    return _pair_counts({pieces: n for pieces, n in words})


def _first_time(words: Mapping[tuple[str, ...], int]) -> dict[Pair, int]:
    counts: dict[Pair, int] = {}
    for pieces, n in words.items():
        for pair in _pairs(pieces):
            counts[pair] += n
    return counts


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


def _some_words(draw: Draw) -> tuple[dict[tuple[str, ...], int]]:
    """Words of few letters, in pieces of one to three, so that the pairs come again and again."""
    how_many = draw.randint(1, 6)
    return (
        {
            tuple(draw.words(draw.randint(1, 7), "abc", longest=draw.choice([1, 3]))): n
            for n in draw.sizes(how_many, range(1, 40))
        },
    )


pair_counts = ExactExercise(
    name="pair_counts",
    reference=_pair_counts,
    cases=(*((words,) for words in _WORDS), *drawn(8, _some_words)),
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
        Misconception(
            "the last pair of each word is left out: a word of three pieces has two pairs.",
            lambda words: _counted(words, lambda pieces: _pairs(pieces)[:-1]),
        ),
        Misconception(
            "the first pair of each word is left out: a word of three pieces has two pairs.",
            lambda words: _counted(words, lambda pieces: _pairs(pieces)[1:]),
        ),
        Misconception(
            "only the first pair of each word is counted: go on to its end.",
            lambda words: _counted(words, lambda pieces: _pairs(pieces)[:1]),
        ),
        Misconception(
            "each pair is turned round: the piece that comes first in the word comes first in it.",
            lambda words: _counted(words, lambda pieces: [(b, a) for a, b in _pairs(pieces)]),
        ),
        Misconception(
            "each piece makes a pair with itself; the second of a pair is the next one.",
            lambda words: _counted(words, lambda pieces: [(a, a) for a in pieces[:-1]]),
        ),
        Misconception(
            "every count is one too large: as long as a pair has not come, it is 0.",
            lambda words: {pair: n + 1 for pair, n in _pair_counts(words).items()},
        ),
        Misconception(
            "the pieces are counted, not the pairs of them.",
            lambda words: _counted(words, lambda pieces: pieces),
        ),
        Misconception(
            "nothing is counted: the dict is still empty when it is returned.",
            lambda words: {},
        ),
        Misconception(
            "it looks behind the end of a word: the last piece has no neighbour, so the places of "
            "the first pieces go to len(pieces) - 2.",
            lambda words: _counted(
                words, lambda pieces: [(pieces[i], pieces[i + 1]) for i, _ in enumerate(pieces)]
            ),
        ),
        Misconception(
            "a new dict does not know a pair when it comes for the first time: begin with "
            "counts.get(pair, 0), or take a Counter, which begins at 0.",
            _first_time,
        ),
        Misconception(
            "a for loop over a dict gives its keys alone: words.items() gives the pieces together "
            "with their count.",
            _without_items,
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


def _merge_without_copy(pieces: Sequence[str], pair: object) -> list[str]:
    """Compares a slice with the pair as it stands, which is right for two tuples alone."""
    merged, i = [], 0
    while i < len(pieces):
        found = pieces[i : i + 2] == pair
        merged.append("".join(pair) if found else pieces[i])
        i += 2 if found else 1
    return merged


def _merge_past_the_end(pieces: Sequence[str], pair: Pair) -> list[str]:
    merged, i = [], 0
    while i < len(pieces):
        found = (pieces[i], pieces[i + 1]) == pair
        merged.append(pair[0] + pair[1] if found else pieces[i])
        i += 2 if found else 1
    return merged


def _nothing_behind(pieces: Sequence[str], pair: Pair) -> list[str]:
    """Raises IndexError where the last piece is not part of a merge, but like the first of one."""
    merged = _merge_pair(pieces, pair)
    return [] if merged[-1] != pair[0] else [pieces[len(pieces)]]


def _some_pieces(draw: Draw) -> tuple[Sequence[str], Pair]:
    """With the pair in some places, and often with one that overlaps itself."""
    known = draw.choice([["a", "b"], ["l", "lo", "o", "ol"], [".", "a.", "a"]])
    pair = draw.choice(known), draw.choice(known)
    pieces = [draw.choice(known)]
    for _ in range(draw.randrange(6)):
        pieces += draw.choice([pair, pair, pair[:1], pair[::-1], [draw.choice(known)]])
    return draw.choice([tuple, list])(pieces), pair


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
        (["l", "o", "w", "lo"], ("l", "o")),
        (["e", "s", "t"], ("s", "t")),
        (("a",), ("a", "a")),
        (["e", "s"], ("e", "s")),
        *drawn(10, _some_pieces),
    ),
    misconceptions=(
        Misconception(
            "it works for a tuple of pieces only: a slice of a list is a list, which no tuple "
            "equals. Make it one, tuple(pieces[i : i + 2]) == pair.",
            _merge_without_copy,
        ),
        Misconception(
            "it looks behind the last piece, where there is no pieces[i + 1]. The slice "
            "pieces[i : i + 2] does not mind.",
            _merge_past_the_end,
        ),
        Misconception(
            "where the last piece is like the first of the pair, it looks behind that one, where "
            "there is no pieces[i + 1]. The slice pieces[i : i + 2] does not mind.",
            lambda pieces, pair: [*_merge_pair(pieces, pair), *_nothing_behind(pieces, pair)],
        ),
        Misconception(
            "it does not look for the pair, but for the pair turned round: (e, w) is not (w, e).",
            lambda pieces, pair: _merge_pair(pieces, (pair[1], pair[0])),
        ),
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


def _greedy_of(word: str, vocabulary: set[str], is_known: Callable) -> list[str]:
    """is_known: from the start and the end of a piece."""
    pieces, start = [], 0
    while start < len(word):
        ends = [end for end in range(len(word), start, -1) if is_known(start, end)]
        if not ends:
            return [_UNKNOWN]
        pieces.append(_marked(word, start, ends[0]))
        start = ends[0]
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
_SMALL = (  # a word, and few pieces, so that they can be quoted
    ("unable", ("un", "##able")),
    ("bed", ("b", "ed", "##e", "##d")),
    ("bed", ("b", "ed", "abed")),
    ("bed", ("b", "be", "##bed", "##d")),
    ("bed", ("bed", "b", "##e")),
    ("add", ("a", "##add", "##ad", "##d")),
)


def _some_word(draw: Draw) -> tuple[str, object]:
    """Parts of the word, with and without their marks, and often all of its letters."""
    word = "".join(draw.choices("abc", k=draw.randint(2, 8)))
    starts = [0, *(draw.randrange(len(word)) for _ in range(draw.randint(1, 8)))]
    parts = [word[i : draw.randint(i + 1, len(word))] for i in starts]
    known = ["[UNK]", word[0], *(draw.choice(["", "##"]) + part for part in parts)]
    if draw.random() < 0.7:
        known += ["##" + letter for letter in word]
    return word, draw.choice([set(known), dict.fromkeys(known, 0)])


wordpiece_encode = ExactExercise(
    name="wordpiece_encode",
    reference=lambda word, vocabulary: _greedy(word, vocabulary),
    cases=(
        *((word, {piece: i for i, piece in enumerate(known)}) for word, known in _SMALL),
        *((word, _VOCABULARY) for word in _CUT),
        *drawn(12, _some_word),
    ),
    misconceptions=(
        Misconception(
            "inside a word a piece counts as known with its ## and without. Only the piece with "
            "## can stand there: able is a word, ##able an ending.",
            lambda word, known: _greedy_of(
                word, known, lambda i, j: _marked(word, i, j) in known or word[i:j] in known
            ),
        ),
        Misconception(
            "everywhere a piece counts as known with its ## and without. At the start of a word "
            "it has none, behind that always.",
            lambda word, known: _greedy_of(
                word, known, lambda i, j: word[i:j] in known or "##" + word[i:j] in known
            ),
        ),
        Misconception(
            "the word is returned as it is, as if every word were in the vocabulary.",
            lambda word, known: [word],
        ),
        Misconception(
            "a single letter is never tried: end goes down to start + 1, and range stops before "
            "what it is given, so it is range(len(word), start, -1).",
            lambda word, known: _greedy(word, known, ends=lambda i, n: range(n, i + 1, -1)),
        ),
        Misconception(
            "only the first piece is returned; the rest of the word is cut in the same way.",
            lambda word, known: _greedy(word, known)[:1],
        ),
        Misconception(
            "the pieces inside a word begin at its start again: look for '##' + word[start:end].",
            lambda word, known: _greedy(word, known, lambda w, i, j: ("##" if i else "") + w[:j]),
        ),
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
            "every word becomes [UNK]. Is it that the longest piece is never tried? end runs from "
            "len(word), not len(word) - 1, as word[start:end] stops before end.",
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


def _without_any_mark(text: str, pieces: Sequence[str]) -> list[tuple[int, int]]:
    return _offsets(text, [piece.replace("#", "") for piece in pieces])


def _without_lengths(text: str, pieces: Sequence[str]) -> list[tuple[int, int]]:
    found, place = [], 0
    for piece in pieces:
        place = text.index(piece.removeprefix("##"), place)
        found.append((place, place))
    return found


def _without_two_letters(text: str, pieces: Sequence[str]) -> list[tuple[int, int]]:
    found, end = [], 0
    for piece in pieces:
        start = text.index(piece[2:], end)
        end = start + len(piece[2:])
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


def _some_text(draw: Draw) -> tuple[str, Sequence[str]]:
    """Words of few letters with none to two spaces before them, cut anywhere."""
    text, pieces = "", []
    for word in draw.words(draw.randint(1, 7), draw.choice(["ab", "aé电"]), longest=6):
        text += " " * draw.choice([0, 1, 1, 2]) + word
        cut = draw.randint(1, len(word))
        pieces += [word[:cut], *(["##" + word[cut:]] if word[cut:] else [])]
    return text + draw.choice(["", " "]), draw.choice([tuple, list])(pieces)


char_offsets = ExactExercise(
    name="char_offsets",
    reference=_offsets,
    cases=(
        ("a fine film", ["a", "fine", "film"]),
        ("unbelievably fine", ["un", "##belie", "##v", "##ably", "fine"]),
        ("haha , he saw the other", ["ha", "##ha", ",", "he", "saw", "the", "other"]),
        ("well, she isn't bad!  no", ["well", ",", "she", "isn", "'", "t", "bad", "!", "no"]),
        ("ein café 电影 café", ["ein", "ca", "##fé", "电", "影", "café"]),
        ("track #9 in c#", ["track", "#", "9", "in", "c", "###"]),
        ("(fun)? well...", ["(", "fun", ")", "?", "well", ".", ".", "."]),
        *drawn(10, _some_text),
    ),
    misconceptions=(
        Misconception(
            "a # that belongs to the text is taken away as well: strip takes every # at the ends, "
            "and replace those in between. removeprefix('##') takes the mark alone.",
            _without_any_mark,
        ),
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
            "start and end have changed places.",
            lambda text, pieces: [(end, start) for start, end in _offsets(text, pieces)],
        ),
        Misconception(
            "each piece ends where it starts: its end is further on by its length.",
            _without_lengths,
        ),
        Misconception(
            "the first two letters of every piece are taken off; only where they are ## they are "
            "a mark.",
            _without_two_letters,
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

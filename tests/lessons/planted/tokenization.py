"""Solutions and planted bugs for the exercises of lesson 06."""

import re
from collections import defaultdict


def utf8(code_point):
    return list(chr(code_point).encode("utf-8"))


def bits(code_point, follow="10", lead=("110", "1110", "11110"), limit=128):
    """By way of strings of 0 and 1, so that it shares nothing with ours."""
    if code_point < limit:
        return [code_point]
    n = next(n for n, room in enumerate((11, 16, 21), 1) if code_point < 2**room)
    digits = f"{code_point:b}".zfill({1: 11, 2: 16, 3: 21}[n])
    first, rest = digits[: -6 * n], digits[-6 * n :]
    cut = [follow + rest[6 * i : 6 * i + 6] for i in range(n)]
    return [int(x, 2) for x in (lead[n - 1] + first, *cut)]


def one_lead(code_point):
    first, *rest = utf8(code_point)
    return [first & (0xFF, 0xFF, 0b11011111, 0b11001111)[len(rest)], *rest]


def too_many_bits(code_point):
    """Divided by powers of 64, and the rest never taken."""
    n = len(utf8(code_point))
    if n == 1:
        return [code_point]
    first, *_ = utf8(code_point)
    return [first, *(code_point // 64**i | 128 for i in range(n - 2, -1, -1))]


def on_the_border(code_point):
    """What is one higher than the last of a length is written with one byte too few."""
    if code_point not in (0x80, 0x800, 0x10000):
        return utf8(code_point)
    short = bits(code_point - 1)
    return [128] if len(short) == 1 else [short[0] + 1, *[128] * (len(short) - 1)]


def three(code_point):
    if code_point < 0x10000:
        return utf8(code_point)
    top, rest = divmod(code_point, 4096)
    return [224 | top, 128 + rest // 64, 128 + rest % 64]


def surrogates(code_point):
    units = chr(code_point).encode("utf-16-be")
    found = [int.from_bytes(units[i : i + 2], "big") for i in range(0, len(units), 2)]
    return [byte for unit in found for byte in chr(unit).encode("utf-8", "surrogatepass")]


def pair_counts(words):
    counts = defaultdict(int)
    for pieces in words:
        for i in range(1, len(pieces)):
            counts[pieces[i - 1], pieces[i]] += words[pieces]
    return counts


def counted(words, places):
    """places: from the number of pieces to the pairs of places that are counted."""
    counts = defaultdict(int)
    for pieces, n in words.items():
        for i, j in places(len(pieces)):
            counts[pieces[i], pieces[j]] += n
    return counts


def once_each(words):
    counts = defaultdict(int)
    for pieces in words:
        for i in range(len(pieces) - 1):
            counts[pieces[i], pieces[i + 1]] += 1
    return counts


def once_a_word(words):
    counts = defaultdict(int)
    for pieces, n in words.items():
        for pair in {pieces[i : i + 2] for i in range(len(pieces) - 1)}:
            counts[pair] += n
    return counts


def replaced(words):
    counts = {}
    for pieces, n in words.items():
        for i in range(len(pieces) - 1):
            counts[pieces[i : i + 2]] = n
    return counts


def unordered(words):
    counts = defaultdict(int)
    for (a, b), n in pair_counts(words).items():
        counts[min(a, b), max(a, b)] += n
    return counts


def letters(words):
    counts = defaultdict(int)
    for pieces, n in words.items():
        for a, b in re.findall(r"(?=(.)(.))", "".join(pieces)):
            counts[a, b] += n
    return counts


def glued(words):
    counts = defaultdict(int)
    for (a, b), n in pair_counts(words).items():
        counts[a + b] += n
    return counts


def single(words):
    counts = defaultdict(int)
    for pieces, n in words.items():
        for piece in pieces:
            counts[piece] += n
    return counts


def unknown_keys(words):
    counts = dict.fromkeys((), 0)
    for pieces, n in words.items():
        for i in range(1, len(pieces)):
            counts[pieces[i - 1 : i + 1]] += n
    return counts


def merge_pair(pieces, pair):
    """Appending, and joining to the last one when that is the first half and not merged yet."""
    merged, free = [], False
    for piece in pieces:
        if free and (merged[-1], piece) == pair:
            merged[-1], free = merged[-1] + piece, False
        else:
            merged.append(piece)
            free = True
    return tuple(merged)


def is_at(pieces, i, pair):
    return tuple(pieces[i : i + 2]) == pair


def merge_once(pieces, pair):
    for i, _ in enumerate(pieces):
        if is_at(pieces, i, pair):
            return (*pieces[:i], "".join(pair), *pieces[i + 2 :])
    return pieces


def merge_step(pieces, pair):
    merged = []
    for i in range(len(pieces)):
        merged += ["".join(pair)] if is_at(pieces, i, pair) else [pieces[i]]
    return merged


def merge_right(pieces, pair):
    pieces, i = list(pieces), len(pieces) - 2
    while i >= 0:
        if tuple(pieces[i : i + 2]) == pair:
            pieces[i : i + 2] = ["".join(pair)]
            i -= 1
        i -= 1
    return pieces


def merge_text(pieces, pair):
    return tuple("|".join(pieces).replace("|".join(pair), "".join(pair)).split("|"))


def merge_short(pieces, pair):
    merged, i = [], 0
    while i + 1 < len(pieces):
        if pieces[i] == pair[0] and pieces[i + 1] == pair[1]:
            merged.append(pieces[i] + pieces[i + 1])
            i += 1
        else:
            merged.append(pieces[i])
        i += 1
    return merged


def merge_both(pieces, pair):
    merged, i = [], 0
    while i < len(pieces):
        found = is_at(pieces, i, pair) or is_at(pieces, i, pair[::-1])
        merged.append("".join(pieces[i : i + 2]) if found else pieces[i])
        i += 1 + found
    return merged


def merge_tuples(pieces, pair):
    merged, i = [], 0
    while i < len(pieces):
        merged.append(pair if is_at(pieces, i, pair) else pieces[i])
        i += 1 + is_at(pieces, i, pair)
    return merged


def merge_slices(pieces, pair):
    """A slice of a list is a list, and never the same as a tuple."""
    if len(pieces) < 2:
        return pieces
    if pieces[:2] == pair:
        return [pieces[0] + pieces[1], *merge_slices(pieces[2:], pair)]
    return [pieces[0], *merge_slices(pieces[1:], pair)]


def merge_to_the_end(pieces, pair):
    merged, skip = [], False
    for i, piece in enumerate(pieces):
        if not skip:
            skip = [piece, pieces[i + 1]] == [*pair]
            merged.append("".join(pair) if skip else piece)
        else:
            skip = False
    return merged


def merge_near_the_end(pieces, pair):
    """It asks for the next piece only where the first one fits."""
    merged, i = [], 0
    while i < len(pieces):
        if pieces[i] == pair[0] and pieces[i + 1] == pair[1]:
            merged.append(pieces[i] + pieces[i + 1])
            i += 1
        else:
            merged.append(pieces[i])
        i += 1
    return merged


def encode(word, known, first="", rest="##"):
    """With a regular expression, the longest pieces first."""
    longest = sorted(known, key=len, reverse=True)
    pieces, left = [], word
    while left:
        mark = rest if pieces else first
        fits = [p for p in longest if p.startswith(mark) and left.startswith(p[len(mark) :])]
        fits = [p for p in fits if len(p) > len(mark) and (mark or not p.startswith("##"))]
        if not fits:
            return ["[UNK]"]
        pieces.append(fits[0])
        left = left[len(fits[0]) - len(mark) :]
    return pieces


def candidates(word, known, start):
    mark = "##" if start else ""
    return [e for e in range(start + 1, len(word) + 1) if mark + word[start:e] in known]


def walk(word, known, choose=max, give_up=lambda pieces: ["[UNK]"], whole=True):
    pieces, start = [], 0
    while start < len(word):
        fits = [e for e in candidates(word, known, start) if whole or e < len(word)]
        if not fits:
            return give_up(pieces)
        end = choose(fits)
        pieces.append(("##" if start else "") + word[start:end])
        start = end
    return pieces


def walk_letters(word, known):
    pieces, start = [], 0
    while start < len(word):
        end = max(candidates(word, known, start), default=None)
        pieces.append("[UNK]" if end is None else ("##" if start else "") + word[start:end])
        start = start + 1 if end is None else end
    return pieces


def search(word, known):
    """All cuts, of which the one with the longest first pieces."""
    open_cuts = [(0, [])]
    while open_cuts:
        start, pieces = open_cuts.pop()
        if start == len(word):
            return pieces
        mark = "##" if start else ""
        ends = candidates(word, known, start)
        open_cuts += [(end, [*pieces, mark + word[start:end]]) for end in ends]
    return ["[UNK]"]


def no_single_letters(word, known):
    return encode(word, {piece for piece in known if len(piece.removeprefix("##")) > 1})


def from_its_start(word, known):
    pieces, start = [], 0
    while start < len(word):
        mark = "##" * bool(pieces)
        fits = [e for e in range(start + 1, len(word) + 1) if mark + word[:e] in known]
        if not fits:
            return ["[UNK]"]
        start = max(fits)
        pieces.append(mark + word[:start])
    return pieces


def either_form(word, known, inside_only=False):
    """A vocabulary in which each piece stands with its mark and without it."""
    plain = {piece.removeprefix("##") for piece in known}
    inside = plain | {"##" + piece for piece in plain}
    pieces, start = [], 0
    while start < len(word):
        among = known if inside_only and not start else inside
        fits = [e for e in range(start + 1, len(word) + 1) if word[start:e] in among]
        if not fits:
            return ["[UNK]"]
        pieces.append("##" * bool(start) + word[start : fits[-1]])
        start = fits[-1]
    return pieces


def either_inside(word, known):
    return either_form(word, known, inside_only=True)


def backwards(word, known):
    pieces, left = [], word
    while left:
        fits = [i for i in range(len(left)) if (("##" if i else "") + left[i:]) in known]
        if not fits:
            return ["[UNK]"]
        pieces = [("##" if fits[0] else "") + left[fits[0] :], *pieces]
        left = left[: fits[0]]
    return pieces


def offsets(text, pieces):
    """By eating the text from the left."""
    found, place = [], 0
    for piece in pieces:
        plain = piece[2:] if piece.startswith("##") else piece
        while not text.startswith(plain, place):
            place += 1
        found.append([place, place + len(plain)])
        place += len(plain)
    return found


def plain_of(pieces):
    return [re.sub("^##", "", piece) for piece in pieces]


def starts_alone(text, pieces):
    found = [0]
    for plain in plain_of(pieces):
        found.append(text.find(plain, found[-1]))
    return [(start, start) for start in found[1:]]


def all_shortened(text, pieces):
    found, done = [], 0
    for short in ("".join(list(piece)[2:]) for piece in pieces):
        begin = done + text[done:].index(short)
        done = begin + len(short)
        found.append((begin, done))
    return found


def stripped(text, pieces):
    found, place = [], 0
    for plain in [piece.strip("#") for piece in pieces]:
        place = text.index(plain, place)
        found.append((place, place + len(plain)))
        place += len(plain)
    return found


def same_start(text, pieces):
    found, place = [], 0
    for plain in plain_of(pieces):
        place = text.index(plain, place)
        found.append((place, place + len(plain)))
    return found


def running(text, pieces, space):
    found, place = [], 0
    for i, (piece, plain) in enumerate(zip(pieces, plain_of(pieces), strict=True)):
        place += bool(i) and space(piece)
        found.append((place, place + len(plain)))
        place += len(plain)
    return found


def marks_found(text, pieces, strict=False):
    found, place = [], 0
    for piece in pieces:
        if strict and piece not in text[place:]:
            raise ValueError(piece)
        start = text.find(piece, place)
        place = start + len(piece)
        found.append((start, place))
    return found


SOLUTIONS = {
    "utf8": utf8,
    "pair_counts": pair_counts,
    "merge_pair": merge_pair,
    "wordpiece_encode": encode,
    "char_offsets": offsets,
}

# The same mistakes as in the catalogue, written another way: (exercise, bug, word of the diagnosis)
PLANTED = [
    ("utf8", lambda c: (c,), "this is the code point itself"),
    ("utf8", lambda c: list(c.to_bytes((c.bit_length() + 7) // 8)), "eight bits as it stands"),
    ("utf8", lambda c: bits(c, limit=256), "Latin-1"),
    ("utf8", lambda c: bits(c, follow="00"), "lack their marker"),
    ("utf8", lambda c: bits(c, lead=("0", "0", "0")), "does not say how many follow"),
    ("utf8", one_lead, "always starts with 110"),
    ("utf8", too_many_bits, "more than their six bits"),
    ("utf8", on_the_border, "each border belongs"),
    ("utf8", lambda c: utf8(c)[:1] + list(reversed(utf8(c)[1:])), "the highest bits come first"),
    ("utf8", lambda c: list(reversed(utf8(c))), "all bytes are in the wrong order"),
    ("utf8", three, "it takes a fourth"),
    ("utf8", surrogates, "surrogates"),
    ("pair_counts", once_each, "every word counts once"),
    ("pair_counts", once_a_word, "only once for it"),
    ("pair_counts", replaced, "replaces those before"),
    (
        "pair_counts",
        lambda words: counted(words, lambda n: [(i, i + 1) for i in range(0, n - 1, 2)]),
        "every second pair",
    ),
    ("pair_counts", unordered, "order within a pair is lost"),
    (
        "pair_counts",
        lambda words: counted(words, lambda n: [(i - 1, i) for i in range(n)]),
        "round in a circle",
    ),
    ("pair_counts", letters, "pairs of letters"),
    ("pair_counts", glued, "glued into one string"),
    (
        "pair_counts",
        lambda words: counted(words, lambda n: [(i, j) for j in range(n) for i in range(j)]),
        "only neighbours should",
    ),
    (
        "pair_counts",
        lambda words: counted(words, lambda n: [(i, i + 1) for i in range(n - 2)]),
        "the last pair of each word",
    ),
    (
        "pair_counts",
        lambda words: counted(words, lambda n: [(i, i + 1) for i in range(1, n - 1)]),
        "the first pair of each word is left",
    ),
    (
        "pair_counts",
        lambda words: counted(words, lambda n: [(0, 1)] * (n > 1)),
        "only the first pair of each word",
    ),
    (
        "pair_counts",
        lambda words: counted(words, lambda n: [(i + 1, i) for i in range(n - 1)]),
        "each pair is turned round",
    ),
    (
        "pair_counts",
        lambda words: counted(words, lambda n: [(i, i) for i in range(n - 1)]),
        "a pair with itself",
    ),
    (
        "pair_counts",
        lambda words: {pair: n + 1 for pair, n in pair_counts(words).items()},
        "one too large",
    ),
    ("pair_counts", single, "the pieces are counted"),
    ("pair_counts", lambda words: defaultdict(int), "nothing is counted"),
    (
        "pair_counts",
        lambda words: counted(words, lambda n: [(i, i + 1) for i in range(n)]),
        "behind the end of a word",
    ),
    ("pair_counts", unknown_keys, "for the first time"),
    ("pair_counts", lambda words: [n for pieces, n in words], "gives its keys alone"),
    ("merge_pair", merge_slices, "for a tuple of pieces only"),
    ("merge_pair", merge_to_the_end, "looks behind the last piece"),
    ("merge_pair", merge_near_the_end, "like the first of the pair"),
    ("merge_pair", lambda pieces, pair: merge_pair(pieces, pair[::-1]), "but for the pair turned"),
    ("merge_pair", merge_once, "only the first place"),
    ("merge_pair", merge_step, "is still there"),
    ("merge_pair", merge_right, "from the right"),
    ("merge_pair", merge_text, "replace in the joined text"),
    ("merge_pair", merge_short, "last piece is lost"),
    ("merge_pair", merge_both, "wrong way round"),
    ("merge_pair", merge_tuples, "put in as a tuple"),
    ("merge_pair", lambda pieces, pair: "".join(pieces), "one string; it should be the list"),
    ("merge_pair", lambda pieces, pair: pieces, "nothing was merged"),
    (
        "wordpiece_encode",
        lambda word, known: encode(word, {p for p in known if p[:2] != "##"}, rest=""),
        "without their ##",
    ),
    (
        "wordpiece_encode",
        lambda word, known: encode(word, known, first="##"),
        "the first piece of a word has no ##",
    ),
    (
        "wordpiece_encode",
        lambda word, known: plain_of(encode(word, known)),
        "returned without",
    ),
    ("wordpiece_encode", lambda word, known: walk(word, known, min), "the shortest piece"),
    (
        "wordpiece_encode",
        lambda word, known: walk(word, known, whole=False),
        "the longest piece is never tried",
    ),
    (
        "wordpiece_encode",
        lambda word, known: walk(word, known, give_up=lambda pieces: [*pieces, "[UNK]"]),
        "found so far are kept",
    ),
    ("wordpiece_encode", walk_letters, "one [UNK] for all of it"),
    (
        "wordpiece_encode",
        lambda word, known: walk(word, known, give_up=lambda pieces: ()),
        "the result is empty",
    ),
    (
        "wordpiece_encode",
        lambda word, known: walk(word, known, give_up=lambda pieces: pieces),
        "the rest is lost",
    ),
    ("wordpiece_encode", lambda word, known: (word,), "returned as it is"),
    ("wordpiece_encode", no_single_letters, "a single letter is never tried"),
    ("wordpiece_encode", lambda word, known: encode(word, known)[:1], "only the first piece is"),
    ("wordpiece_encode", from_its_start, "begin at its start again"),
    ("wordpiece_encode", either_inside, "inside a word a piece counts as known"),
    ("wordpiece_encode", either_form, "everywhere a piece counts as known"),
    ("wordpiece_encode", search, "goes back and tries a shorter"),
    ("wordpiece_encode", backwards, "starts at the end of the word"),
    (
        "wordpiece_encode",
        lambda word, known: ["[UNK]" if word not in known else word],
        "becomes [UNK] at once",
    ),
    (
        "char_offsets",
        lambda text, pieces: [(text.index(p), text.index(p) + len(p)) for p in plain_of(pieces)],
        "from the start of the text",
    ),
    (
        "char_offsets",
        lambda text, pieces: [pair[::-1] for pair in offsets(text, pieces)],
        "changed places",
    ),
    ("char_offsets", starts_alone, "ends where it starts"),
    ("char_offsets", all_shortened, "first two letters of every"),
    ("char_offsets", stripped, "a # that belongs to the text"),
    ("char_offsets", same_start, "on top of the first"),
    (
        "char_offsets",
        lambda text, pieces: [(a, b - 1) for a, b in offsets(text, pieces)],
        "the last character's place",
    ),
    (
        "char_offsets",
        lambda text, pieces: [
            (a, a + len(p)) for p, (a, _) in zip(pieces, offsets(text, pieces), strict=True)
        ],
        "the marks count as characters",
    ),
    (
        "char_offsets",
        lambda text, pieces: running(text, pieces, lambda piece: 0),
        "without the spaces",
    ),
    (
        "char_offsets",
        lambda text, pieces: running(text, pieces, lambda piece: 1),
        "before every piece",
    ),
    (
        "char_offsets",
        lambda text, pieces: running(text, pieces, lambda piece: piece[:2] != "##"),
        "before every word",
    ),
    (
        "char_offsets",
        lambda text, pieces: [(a, b - a) for a, b in offsets(text, pieces)],
        "starts and lengths",
    ),
    (
        "char_offsets",
        lambda text, pieces: [
            tuple(len(text[:place].encode()) for place in pair) for pair in offsets(text, pieces)
        ],
        "places of bytes",
    ),
    (
        "char_offsets",
        lambda text, pieces: marks_found(text, pieces, strict=True),
        "searched for with its ##",
    ),
    ("char_offsets", marks_found, "find gives -1"),
]

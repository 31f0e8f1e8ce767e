"""Right answers to the exercises of lesson 06 in several styles, and inputs to judge others on."""

import re
from collections import Counter, defaultdict
from functools import reduce
from itertools import pairwise

from attnviz.lessons.drawing import Draw


def utf8_by_shifts(code_point: int) -> list[int]:
    if code_point < 0x80:
        return [code_point]
    if code_point < 0x800:
        return [0b11000000 | code_point >> 6, 0b10000000 | code_point & 0b111111]
    last = [0b10000000 | code_point >> 6 & 0b111111, 0b10000000 | code_point & 0b111111]
    if code_point < 0x10000:
        return [0b11100000 | code_point >> 12, *last]
    return [0b11110000 | code_point >> 18, 0b10000000 | code_point >> 12 & 0b111111, *last]


def utf8_by_digits(code_point: int) -> list[int]:
    """With text of zeros and ones."""
    digits = bin(code_point)[2:]
    for start, room, following in (("0", 7, 0), ("110", 5, 1), ("1110", 4, 2), ("11110", 3, 3)):
        width = room + 6 * following
        if len(digits) <= width:
            bits = digits.zfill(width)
            cuts = [bits[room + 6 * i :][:6] for i in range(following)]
            return [int(start + bits[:room], 2), *(int("10" + cut, 2) for cut in cuts)]


def utf8_by_division(code_point: int) -> list[int]:
    if code_point <= 127:
        return [code_point]
    found, rest, room = [], code_point, 64
    while rest >= room:
        rest, six = divmod(rest, 64)
        found.insert(0, 128 + six)
        room //= 2
    return [256 - 2 * room + rest, *found]


def utf8_by_recursion(code_point: int) -> tuple[int, ...]:
    def following(rest, n):
        if n == 0:
            return ()
        return (*following(rest // 64, n - 1), 0x80 + rest % 64)

    if code_point < 0x80:
        return (code_point,)
    n = 1 if code_point < 0x800 else 2 if code_point < 0x10000 else 3
    lead = {1: 0xC0, 2: 0xE0, 3: 0xF0}[n]
    return (lead + code_point // 64**n, *following(code_point, n))


def utf8_by_bytes(code_point: int) -> bytes:
    limits = [0x80, 0x800, 0x10000]
    following = sum(code_point >= limit for limit in limits)
    if following == 0:
        return bytes([code_point])
    lead = (0xFF00 >> following + 1) & 0xFF
    sixes = [code_point >> 6 * i & 0x3F for i in range(following - 1, -1, -1)]
    return bytes([lead | code_point >> 6 * following] + [0x80 | six for six in sixes])


def _code_point(draw: Draw) -> tuple[int]:
    """Of each length as likely, often at its borders, and no half of a character."""
    first, behind = draw.choice([(0, 0x80), (0x80, 0x800), (0x800, 0x10000), (0x10000, 0x110000)])
    near = draw.choice([first + draw.randrange(3), behind - 1 - draw.randrange(3)])
    code_point = draw.choice([near, draw.randrange(first, behind), draw.randrange(first, behind)])
    return (0xFFFD if 0xD800 <= code_point < 0xE000 else code_point,)


def counts_by_loops(words: dict) -> dict:
    counts = {}
    for pieces, n in words.items():
        for i in range(len(pieces) - 1):
            pair = (pieces[i], pieces[i + 1])
            counts[pair] = counts.get(pair, 0) + n
    return counts


def counts_with_a_counter(words: dict) -> Counter:
    counts = Counter()
    for pieces, n in words.items():
        for pair in pairwise(pieces):
            counts[pair] += n
    return counts


def counts_of_each_pair(words: dict) -> dict:
    pairs = {pair for pieces in words for pair in set(pairwise(pieces))}
    return {
        pair: sum(n * list(pairwise(pieces)).count(pair) for pieces, n in words.items())
        for pair in pairs
    }


def counts_by_repeating(words: dict) -> Counter:
    return Counter(
        pair for pieces, n in words.items() for _ in range(n) for pair in pairwise(pieces)
    )


def counts_by_adding_up(words: dict) -> dict:
    counts = defaultdict(int)
    for pieces in words:
        before = None
        for piece in pieces:
            if before is not None:
                counts[before, piece] += words[pieces]
            before = piece
    return counts


def counts_by_recursion(words: dict) -> dict:
    def of_word(pieces):
        if len(pieces) < 2:
            return Counter()
        return Counter([pieces[:2]]) + of_word(pieces[1:])

    total = Counter()
    for pieces, n in words.items():
        for pair, times in of_word(pieces).items():
            total[pair] += times * n
    return dict(total)


def _counted_words(draw: Draw) -> tuple[dict]:
    """Pieces of one to three letters of two, so that they often meet, also themselves."""
    words = {}
    for _ in range(draw.choice([1, 4, 9])):
        words[tuple(draw.words(draw.randint(1, 7), "ab", 3))] = draw.choice([1, 2, 5, 30])
    return (words,)


def merge_by_while(pieces, pair) -> list[str]:
    merged, i = [], 0
    while i < len(pieces):
        if i + 1 < len(pieces) and pieces[i] == pair[0] and pieces[i + 1] == pair[1]:
            merged.append(pieces[i] + pieces[i + 1])
            i += 2
        else:
            merged.append(pieces[i])
            i += 1
    return merged


def merge_with_a_skip(pieces, pair) -> tuple[str, ...]:
    merged, skip = [], False
    for one, after in zip(pieces, [*pieces[1:], None], strict=True):
        if skip:
            skip = False
            continue
        skip = (one, after) == pair
        merged.append("".join(pair) if skip else one)
    return tuple(merged)


def merge_by_recursion(pieces, pair) -> list[str]:
    first, second = pair
    if len(pieces) < 2:
        return list(pieces)
    if pieces[0] == first and pieces[1] == second:
        return [first + second, *merge_by_recursion(pieces[2:], pair)]
    return [pieces[0], *merge_by_recursion(pieces[1:], pair)]


def merge_in_place(pieces, pair) -> list[str]:
    pieces = list(pieces)
    i = 0
    while i < len(pieces) - 1:
        if tuple(pieces[i : i + 2]) == pair:
            pieces[i : i + 2] = [pair[0] + pair[1]]
        i += 1
    return pieces


def merge_with_a_pattern(pieces, pair) -> list[str]:
    """Each piece on a line of its own; a merge takes away the end of one."""
    lines = "".join(piece + "\n" for piece in pieces)
    first, second = map(re.escape, pair)
    return re.sub(rf"^{first}\n({second})$", pair[0] + r"\1", lines, flags=re.M).split("\n")[:-1]


def merge_by_yielding(pieces, pair):
    waiting = None
    for piece in pieces:
        if waiting is not None and (waiting, piece) == pair:
            yield waiting + piece
            waiting = None
            continue
        if waiting is not None:
            yield waiting
        waiting = piece
    if waiting is not None:
        yield waiting


def merge_by_reducing(pieces, pair) -> list[str]:
    def joined(merged, piece):
        if merged and (merged[-1], piece) == (pair[0], pair[1]):
            return [*merged[:-1], merged[-1] + piece]
        return [*merged, piece]

    return reduce(joined, pieces, [])


def _pieces_and_pair(draw: Draw) -> tuple:
    """Often with the pair in several places, and with a pair that overlaps itself."""
    alphabet = draw.choice([["a", "b"], ["a", "ab", "b", "ba"], [".", "a.", "?", "a"]])
    pair = draw.choice(alphabet), draw.choice(alphabet)
    pieces = []
    for _ in range(draw.choice([1, 2, 3, 6])):
        pieces += draw.choice([[draw.choice(alphabet)], pair, pair[:1], pair[::-1]])
    return draw.choice([tuple, list])(pieces), pair


def wordpiece_by_loops(word: str, vocabulary) -> list[str]:
    pieces, start = [], 0
    while start < len(word):
        end = len(word)
        while end > start:
            piece = word[start:end]
            if start > 0:
                piece = "##" + piece
            if piece in vocabulary:
                break
            end -= 1
        if end == start:
            return ["[UNK]"]
        pieces.append(piece)
        start = end
    return pieces


def wordpiece_by_for(word: str, vocabulary) -> list[str]:
    pieces, rest = [], word
    while rest:
        mark = "##" if pieces else ""
        for n in range(len(rest), 0, -1):
            if mark + rest[:n] in vocabulary:
                pieces.append(mark + rest[:n])
                rest = rest[n:]
                break
        else:
            return ["[UNK]"]
    return pieces


def wordpiece_by_recursion(word: str, vocabulary) -> list[str]:
    def cut(rest, mark):
        for n in range(len(rest), 0, -1):
            if mark + rest[:n] in vocabulary:
                after = cut(rest[n:], "##") if rest[n:] else []
                return None if after is None else [mark + rest[:n], *after]
        return None

    return cut(word, "") or ["[UNK]"]


def wordpiece_by_choosing(word: str, vocabulary) -> list[str]:
    pieces, start, mark = [], 0, ""
    while start != len(word):
        ends = [e for e in range(start + 1, len(word) + 1) if mark + word[start:e] in vocabulary]
        if not ends:
            return ["[UNK]"]
        pieces.append(mark + word[start : max(ends)])
        start, mark = max(ends), "##"
    return pieces


def wordpiece_through_the_vocabulary(word: str, vocabulary) -> tuple[str, ...]:
    """Goes through the pieces instead of the places."""
    firsts = sorted((p for p in vocabulary if p[:2] != "##"), key=len)
    others = sorted((p[2:] for p in vocabulary if p[:2] == "##"), key=len)
    found, rest = [], word
    while rest:
        fitting = [p for p in (others if found else firsts) if p and rest.startswith(p)]
        if not fitting:
            return ("[UNK]",)
        found.append("##" + fitting[-1] if found else fitting[-1])
        rest = rest[len(fitting[-1]) :]
    return tuple(found)


def _word_and_vocabulary(draw: Draw) -> tuple:
    """Parts of the word itself, with and without marks, so that most often one has to look."""
    word = "".join(draw.choices(draw.choice(["ab", "abcd"]), k=draw.randint(1, 9)))
    known = ["[UNK]"] if draw.random() < 0.7 else []
    for _ in range(draw.choice([1, 4, 12])):
        start = draw.choice([0, draw.randrange(len(word))])
        end = draw.randint(start + 1, min(start + draw.choice([2, 9]), len(word)))
        known.append(draw.choice(["", "##"] if start else ["", "", "##"]) + word[start:end])
    if draw.random() < 0.6:
        known += ["##" + letter for letter in word]
    return word, draw.choice([set(known), {piece: i for i, piece in enumerate(known)}])


def offsets_by_index(text: str, pieces) -> list[tuple[int, int]]:
    offsets, end = [], 0
    for piece in pieces:
        letters = piece[2:] if piece.startswith("##") else piece
        start = text.index(letters, end)
        end = start + len(letters)
        offsets.append((start, end))
    return offsets


def offsets_past_spaces(text: str, pieces) -> list[list[int]]:
    """Only spaces are between the pieces."""
    offsets, place = [], 0
    for piece in pieces:
        while text[place] == " ":
            place += 1
        length = len(piece.removeprefix("##"))
        offsets.append([place, place + length])
        place += length
    return offsets


def offsets_by_a_pattern(text: str, pieces) -> list[tuple[int, int]]:
    letters = [re.escape(re.sub(r"^##", "", piece)) for piece in pieces]
    found = re.match(r"\s*" + r"\s*".join(f"({one})" for one in letters), text)
    return [found.span(i) for i in range(1, len(letters) + 1)]


def offsets_of_what_is_left(text: str, pieces) -> list[tuple[int, int]]:
    offsets, rest = [], text
    for piece in pieces:
        letters = piece.removeprefix("##")
        _, found, rest = rest.partition(letters)
        end = len(text) - len(rest)
        offsets.append((end - len(found), end))
    return offsets


def offsets_by_recursion(text: str, pieces, done: int = 0) -> list[tuple[int, int]]:
    if not pieces:
        return []
    letters = pieces[0].removeprefix("##")
    start = text.find(letters, done)
    end = start + len(letters)
    return [(start, end), *offsets_by_recursion(text, pieces[1:], end)]


def offsets_by_letters(text: str, pieces) -> list[tuple[int, int]]:
    """The places of all letters, dealt out to the pieces."""
    places = [i for i, letter in enumerate(text) if not letter.isspace()]
    offsets, used = [], 0
    for piece in pieces:
        n = len(piece) - 2 * piece.startswith("##")
        offsets.append((places[used], places[used + n - 1] + 1))
        used += n
    return offsets


def _text_and_pieces(draw: Draw) -> tuple:
    """Words with none to two spaces before them, each cut into some pieces."""
    text, pieces = "", []
    for word in draw.words(draw.choice([1, 3, 8]), draw.choice(["ab", "aé电🎬", "a#.("]), 5):
        text += " " * draw.choice([0, 1, 1, 2]) + word
        cuts = sorted(draw.sample(range(1, len(word)), draw.randrange(min(len(word), 3))))
        parts = [word[i:j] for i, j in pairwise([0, *cuts, len(word)])]
        if parts[0].startswith("##"):  # as the first of a word it could not be told from a mark
            return "no # here", ["no", "#", "her", "##e"]
        pieces += [parts[0], *("##" + part for part in parts[1:])]
    return text + draw.choice(["", " "]), draw.choice([tuple, list])(pieces)


RIGHT = {
    "utf8": (
        utf8_by_shifts,
        utf8_by_digits,
        utf8_by_division,
        utf8_by_recursion,
        utf8_by_bytes,
    ),
    "pair_counts": (
        counts_by_loops,
        counts_with_a_counter,
        counts_of_each_pair,
        counts_by_repeating,
        counts_by_adding_up,
        counts_by_recursion,
    ),
    "merge_pair": (
        merge_by_while,
        merge_with_a_skip,
        merge_by_recursion,
        merge_in_place,
        merge_with_a_pattern,
        merge_by_yielding,
        merge_by_reducing,
    ),
    "wordpiece_encode": (
        wordpiece_by_loops,
        wordpiece_by_for,
        wordpiece_by_recursion,
        wordpiece_by_choosing,
        wordpiece_through_the_vocabulary,
    ),
    "char_offsets": (
        offsets_by_index,
        offsets_past_spaces,
        offsets_by_a_pattern,
        offsets_of_what_is_left,
        offsets_by_recursion,
        offsets_by_letters,
    ),
}
INPUTS = {
    "utf8": _code_point,
    "pair_counts": _counted_words,
    "merge_pair": _pieces_and_pair,
    "wordpiece_encode": _word_and_vocabulary,
    "char_offsets": _text_and_pieces,
}
EQUIVALENT = {
    "a list, a tuple, bytes or a counter may hold the result": (
        "utf8_by_bytes: return [code_point]",
        "utf8_by_bytes: return [lead | code_point >> 6 * following] + [128 | six for six in sixes]",
        "counts_by_recursion: return total",
        "_pair_counts: return counts",
        "merge_with_a_skip: return merged",
        "merge_by_recursion: return pieces",
        "wordpiece_through_the_vocabulary: return found",
    ),
    "leading zeros of the first byte say nothing": (
        "utf8_by_digits: for start, room, following in (('', 7, 0), ('110', 5, 1), "
        "('1110', 4, 2), ('11110', 3, 3)):",
    ),
    "half of 65 is 32 as well, and no two bytes begin below": (
        "utf8_by_division: found, rest, room = ([], code_point, 65)",
    ),
    "this bit is shifted out or 0": (
        "utf8_by_bytes: lead = 65280 >> following + 1 & 254",
        "utf8_by_bytes: lead = 65281 >> following + 1 & 255",
    ),
    "limits are counted, in any order": (
        "utf8_by_bytes: limits = [2048, 128, 65536]",
        "utf8_by_bytes: limits = [128, 65536, 2048]",
    ),
    "a set of pairs is made either way": (
        "counts_of_each_pair: pairs = {pair for pieces in words for pair in pairwise(pieces)}",
    ),
    "the two are of one length already": (
        "merge_with_a_skip: for one, after in zip(pieces, [*pieces[1:], None]):",
        "merge_with_a_skip: for one, after in zip(pieces, [*pieces[1:], None], strict=False):",
    ),
    "a slice with one piece or none is no pair": (
        "merge_in_place: i = -1",
        "merge_in_place: while i <= len(pieces) - 1:",
        "merge_in_place: while i < len(pieces) + 1:",
        "merge_in_place: while i < len(pieces):",
        "merge_in_place: while i < len(pieces) - 0:",
    ),
    "None is the first of no pair": ("merge_by_yielding: if (waiting, piece) == pair:",),
    "no vocabulary holds an empty piece": (
        "wordpiece_by_for: for n in range(len(rest), -1, -1):",
        "wordpiece_by_recursion: for n in range(len(rest), -1, -1):",
        "wordpiece_by_choosing: ends = [e for e in range(start, len(word) + 1) "
        "if mark + word[start:e] in vocabulary]",
        "wordpiece_by_choosing: ends = [e for e in range(start + 0, len(word) + 1) "
        "if mark + word[start:e] in vocabulary]",
        "wordpiece_through_the_vocabulary: fitting = [p for p in (others if found else firsts) "
        "if rest.startswith(p)]",
    ),
    "word[:-1] is tried as well, and is not the longest of those that fit": (
        "wordpiece_by_choosing: ends = [e for e in range(start - 1, len(word) + 1) "
        "if mark + word[start:e] in vocabulary]",
    ),
    "of pieces that begin alike the longer is the later one in the alphabet": (
        "wordpiece_through_the_vocabulary: firsts = sorted((p for p in vocabulary "
        "if p[:2] != '##'))",
        "wordpiece_through_the_vocabulary: others = sorted((p[2:] for p in vocabulary "
        "if p[:2] == '##'))",
    ),
    "no word begins with ##": (
        "wordpiece_through_the_vocabulary: firsts = sorted((p for p in vocabulary), key=len)",
        "wordpiece_through_the_vocabulary: firsts = sorted((p for p in vocabulary "
        "if p[:2] != ''), key=len)",
        *(
            "wordpiece_through_the_vocabulary: firsts = sorted((p for p in vocabulary "
            f"if p[:{end}] != '##'), key=len)"
            for end in ("", 1, 3)
        ),
    ),
}

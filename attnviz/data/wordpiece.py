"""A WordPiece vocabulary learned from text, as BERT uses it."""

import hashlib
import os
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from tokenizers import (
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from tokenizers import __version__ as tokenizers_version

from attnviz.checks import check_whole
from attnviz.data.reading import several_texts

PAD, UNKNOWN, CLS, SEP, MASK = SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
CONTINUES = "##"  # in front of a piece that does not begin a word
_LETTERS = 200  # the most characters that are pieces of their own
_LONGEST = 100  # characters of a word: of a longer one WordPiece makes [UNK]


def train_wordpiece(texts: Iterable[str], vocab_size: int = 4000) -> Tokenizer:
    """Learn which pieces words are best cut into, and return a tokenizer that does it.

    texts:      what to learn from.
    vocab_size: the most pieces; [PAD], [UNK], [CLS], [SEP] and [MASK] are the first five, the
                others follow in the order of the alphabet.
    Returns a tokenizer that puts text into small letters, without accents, and cuts it into pieces;
    `encode` adds [CLS] in front and [SEP] behind. The vocabulary is kept in the cache folder under
    a hash of the texts and the size, so the second call with the same ones takes a moment.
    Raises ValueError when the texts hold no words, or vocab_size leaves no room for pieces;
    TypeError for one text instead of several, or what are no texts.
    Source: Schuster and Nakajima 2012; Devlin et al. 2019, section 3. The pieces are found by
    merging the most frequent pair, as in BPE (Sennrich et al. 2016), and applied longest first.
    """
    texts, vocab_size = several_texts(texts), check_whole("vocab_size", vocab_size)
    if vocab_size <= len(SPECIAL):
        raise ValueError(f"vocab_size must be more than {len(SPECIAL)}, got {vocab_size}")
    file = cache_folder() / f"wordpiece-{_hash(texts, vocab_size)}.json"
    with suppress(Exception):  # not there, or damaged: learn it
        return Tokenizer.from_file(str(file))
    pieces = _learn(texts, vocab_size)
    if not pieces:
        raise ValueError(f"texts must hold words to learn from, got {len(texts)} texts without any")
    tokenizer = wordpiece_tokenizer([*SPECIAL, *pieces])
    with suppress(OSError):  # a cache that cannot be written is none
        file.parent.mkdir(parents=True, exist_ok=True)
        unfinished = file.with_suffix(f".{os.getpid()}")
        tokenizer.save(str(unfinished))
        unfinished.replace(file)
    return tokenizer


def wordpiece_tokenizer(pieces: Iterable[str]) -> Tokenizer:
    """The tokenizer of a vocabulary whose ids are the places of its pieces.

    Raises ValueError when one of [PAD], [UNK], [CLS], [SEP] and [MASK] is missing, TypeError for
    what are no texts.
    """
    ids = {piece: i for i, piece in enumerate(several_texts(pieces, "pieces"))}
    if missing := [piece for piece in SPECIAL if piece not in ids]:
        raise ValueError(f"pieces must hold {', '.join(SPECIAL)}, but {missing[0]} is missing")
    model = models.WordPiece(ids, unk_token=UNKNOWN, max_input_chars_per_word=_LONGEST)
    tokenizer = Tokenizer(model)
    tokenizer.add_special_tokens(list(SPECIAL))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing((SEP, ids[SEP]), (CLS, ids[CLS]))
    tokenizer.decoder = decoders.WordPiece()
    return tokenizer


def cache_folder() -> Path:
    """Where what can be made again is kept: attnviz in $XDG_CACHE_HOME, or in ~/.cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "attnviz"


def _learn(texts: list[str], vocab_size: int) -> list[str]:
    """The pieces, without the special ones, in the order of the alphabet."""
    tokenizer = wordpiece_tokenizer(SPECIAL)
    texts = [tokenizer.normalizer.normalize_str(text) for text in texts]
    counts = sum(map(Counter, _joined(texts)), Counter())
    frequent = sorted((c for c in counts if not c.isspace()), key=lambda c: (-counts[c], c))
    letters = sorted(frequent[: min(_LETTERS, (vocab_size - len(SPECIAL)) // 2)])
    rare = dict.fromkeys(map(ord, counts.keys() - letters), " ")
    # Of equally frequent pairs the library merges the one with the smaller ids, and gives letters
    # ids at random, unless they are said to be special: so each run learns the same pieces.
    inside = [c for c in letters if len(tokenizer.pre_tokenizer.pre_tokenize_str(f"a{c}")) == 1]
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocab_size,
        special_tokens=[*SPECIAL, *letters, *(CONTINUES + c for c in inside)],
        show_progress=False,
    )
    cut = tokenizer.pre_tokenizer
    texts = [_without_long_words(text, cut) for text in texts]  # now: the training locks `cut`
    tokenizer.train_from_iterator((text.translate(rare) for text in texts), trainer)
    return sorted(set(tokenizer.get_vocab()) - set(SPECIAL))


def _without_long_words(text: str, cut: pre_tokenizers.PreTokenizer) -> str:
    """A text without the longest words: of no use, and learning takes time with their square."""
    runs = text.split(" ")
    if max(map(len, runs)) <= _LONGEST:
        return text
    words = (w for run in runs for w in ([run] if len(run) <= _LONGEST else _words(run, cut)))
    return " ".join(word for word in words if len(word) <= _LONGEST)


def _words(text: str, cut: pre_tokenizers.PreTokenizer) -> list[str]:
    return [word for word, _ in cut.pre_tokenize_str(text)]


def _joined(texts: list[str]) -> Iterable[str]:
    """Texts one behind the other, a thousand at a time: quicker to count than each alone."""
    return ("".join(texts[i : i + 1000]) for i in range(0, len(texts), 1000))


def _hash(texts: list[str], vocab_size: int) -> str:
    found = hashlib.sha256(f"{tokenizers_version} {vocab_size} {_LETTERS}".encode())
    for text in texts:
        found.update(len(text).to_bytes(8, "little") + text.encode())
    return found.hexdigest()[:32]

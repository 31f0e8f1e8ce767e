"""Real sentences and their translations: from a file, or from the Hugging Face hub."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from torch import Tensor

from attnviz.checks import check_whole
from attnviz.data.padding import END, PAD, START, pad
from attnviz.data.reading import check_row, check_text, read_rows
from attnviz.data.streams import check_split_of_file
from attnviz.extras import needed

UNKNOWN = "[unknown]"
_AT_ONCE = 1000  # characters of a word: the library's time is quadratic in them

Pair = tuple[str, str]


def load_translation(
    name: str | Path, split: str = "train", languages: tuple[str, str] = ("en", "de")
) -> list[Pair]:
    """Load sentence pairs.

    name:  a file with one JSON object a line, {"en": "A dog runs.", "de": "Ein Hund läuft."}, or a
           dataset of the Hugging Face hub in that form, such as "bentrevett/multi30k" (29,000
           captions of pictures; Elliott et al. 2016), read through `datasets`. Sentences may also
           stand together under "translation".
    split: which part of a dataset; a file has only "train".
    languages: from which to which.
    Returns the pairs in their order.
    Raises FileNotFoundError for a file that is not there, ConnectionError when a dataset cannot be
    reached or is not on the hub, KeyError when a language is missing, ValueError for a line that is
    no UTF-8, no object or no text, a split that a file has not, or no pairs at all;
    ModuleNotFoundError where `datasets` is needed and missing.
    """
    if _is_file(name):
        check_split_of_file(split)
        rows = read_rows(name)
    else:
        rows = _rows_of_hub(str(name), split)
    pairs = [_pair(place, row, languages) for place, row in rows]
    if not pairs:
        raise ValueError(f"{name} must hold at least one pair of sentences, got none")
    return pairs


def _is_file(name: str | Path) -> bool:
    named_so = Path(name).suffix.lower() in (".json", ".jsonl")
    return isinstance(name, Path) or named_so or Path(name).exists()


def _rows_of_hub(name: str, split: str) -> Iterator[tuple[str, dict[str, Any]]]:
    datasets = needed("datasets", "sentences")
    try:
        rows = datasets.load_dataset(name, split=split)
    except Exception as error:  # datasets raises many kinds, offline and for unknown names
        raise ConnectionError(
            f"cannot load {name!r} from the Hugging Face hub (is there a network, and is the name "
            f"right?): {error}"
        ) from error
    return ((f"{name}, row {number}", row) for number, row in enumerate(rows, 1))


def _pair(place: str, row: dict[str, Any], languages: tuple[str, str]) -> Pair:
    row = row.get("translation", row)
    if not isinstance(row, dict):
        raise ValueError(f"{place}: 'translation' must be an object, got {row!r}")
    check_row(place, row, dict.fromkeys(languages, str), "language")
    return row[languages[0]], row[languages[1]]


class SentencePairs:
    """Sentence pairs as padded batches of token ids, cut into pieces by two trained tokenizers.

    pairs:      what the tokenizers are trained on.
    vocabulary: the most pieces of each language. The more often letters stand together, the sooner
                they become one piece (byte-pair encoding; Sennrich et al. 2016).
    source, target: the vocabularies, lists of pieces; in both, id 0 is the padding.
    Raises ValueError when there are no pairs, TypeError for what are none, or no whole number.
    """

    def __init__(self, pairs: Sequence[Pair], vocabulary: int = 4000):
        pairs, vocabulary = _checked(pairs), check_whole("vocabulary", vocabulary, 1)
        if not pairs:
            raise ValueError("pairs must hold at least one pair of sentences, got none")
        self._tokenizers = [_train([pair[side] for pair in pairs], vocabulary) for side in range(2)]
        self.source, self.target = (
            sorted(t.get_vocab(), key=t.get_vocab().get) for t in self._tokenizers
        )
        self.start, self.end = (self._tokenizers[1].token_to_id(t) for t in (START, END))

    def batch(self, pairs: Sequence[Pair]) -> tuple[Tensor, Tensor]:
        """Token ids of sentences and their translations, padded with 0.

        Returns source (batch, token) and target (batch, token), int64, the target with [start] and
        [end].
        Raises TypeError for what are no pairs of texts.
        """
        pairs = _checked(pairs)
        source, target = (
            [e.ids for e in tokenizer.encode_batch([pair[side] for pair in pairs])]
            for side, tokenizer in enumerate(self._tokenizers)
        )
        return pad(source), pad([[self.start, *ids, self.end] for ids in target])

    def read(self, ids: Sequence[int]) -> str:
        """The sentence that target ids say, up to [end]."""
        ids = list(ids)
        ids = ids[: ids.index(self.end)] if self.end in ids else ids
        return self._tokenizers[1].decode([i for i in ids if i not in (0, self.start)])


def _checked(pairs: Sequence[Pair]) -> list[Pair]:
    pairs = list(pairs)
    for i, pair in enumerate(pairs):
        if not isinstance(pair, Sequence) or isinstance(pair, str) or len(pair) != 2:
            raise TypeError(f"pairs[{i}] must be two texts, got {pair!r}")
        for text in pair:
            check_text(f"pairs[{i}]", text)
    return pairs


def _train(sentences: list[str], vocabulary: int) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE(unk_token=UNKNOWN))
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary, special_tokens=[PAD, START, END, UNKNOWN], show_progress=False
    )
    tokenizer.train_from_iterator(map(_cut, sentences), trainer)
    return tokenizer


def _cut(sentence: str) -> str:
    """A sentence whose longest words, to learn from, are apart in parts."""
    return re.sub(rf"[^ ]{{{_AT_ONCE}}}(?=[^ ])", r"\g<0> ", sentence)

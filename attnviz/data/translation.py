"""Real sentences and their translations: from a file, or from the Hugging Face hub."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from torch import Tensor

from attnviz.data.padding import END, PAD, START, pad

UNKNOWN = "[unknown]"

Pair = tuple[str, str]


def load_translation(
    name: str | Path, split: str = "train", languages: tuple[str, str] = ("en", "de")
) -> list[Pair]:
    """Load sentence pairs, through Hugging Face `datasets`.

    name:  a file with one JSON object a line, {"en": "A dog runs.", "de": "Ein Hund läuft."}, or a
           dataset of the hub in that form, such as "bentrevett/multi30k" (29,000 captions of
           pictures; Elliott et al. 2016). Sentences may also stand together under "translation".
    split: which part of a dataset; a file has only "train".
    languages: from which to which.
    Returns the pairs in their order.
    Raises FileNotFoundError for a file that is not there, ConnectionError when a dataset cannot be
    reached or is not on the hub, KeyError when a language is missing.
    """
    rows = _read_file(Path(name)) if _is_file(name) else _read_hub(str(name), split)
    columns = rows.column_names
    if "translation" in columns:
        rows, columns = rows["translation"], list(rows[0]["translation"])
    if missing := [language for language in languages if language not in columns]:
        raise KeyError(f"{name} has no language {missing[0]!r}, only {columns}")
    return [(row[languages[0]], row[languages[1]]) for row in rows]


def _is_file(name: str | Path) -> bool:
    return isinstance(name, Path) or Path(name).suffix in (".json", ".jsonl") or Path(name).exists()


def _read_file(file: Path):
    from datasets import Dataset

    if not file.is_file():
        raise FileNotFoundError(f"there is no file {file} with sentence pairs")
    with _no_progress_bars():
        return Dataset.from_json(str(file), keep_in_memory=True)


@contextmanager
def _no_progress_bars() -> Iterator[None]:
    """Reading a file takes a moment: no bar is needed for it."""
    from datasets import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    if are_progress_bars_disabled():
        yield
        return
    disable_progress_bars()
    try:
        yield
    finally:
        enable_progress_bars()


def _read_hub(name: str, split: str):
    from datasets import load_dataset

    try:
        return load_dataset(name, split=split)
    except Exception as error:  # datasets raises many kinds, offline and for unknown names
        raise ConnectionError(
            f"cannot load {name!r} from the Hugging Face hub (is there a network, and is the name "
            f"right?): {error}"
        ) from error


class SentencePairs:
    """Sentence pairs as padded batches of token ids, cut into pieces by two trained tokenizers.

    pairs:      what the tokenizers are trained on.
    vocabulary: the most pieces of each language. The more often letters stand together, the sooner
                they become one piece (byte-pair encoding; Sennrich et al. 2016).
    source, target: the vocabularies, lists of pieces; in both, id 0 is the padding.
    Raises ValueError when there are no pairs.
    """

    def __init__(self, pairs: Sequence[Pair], vocabulary: int = 4000):
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
        """
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


def _train(sentences: list[str], vocabulary: int) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE(unk_token=UNKNOWN))
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary, special_tokens=[PAD, START, END, UNKNOWN], show_progress=False
    )
    tokenizer.train_from_iterator(sentences, trainer)
    return tokenizer

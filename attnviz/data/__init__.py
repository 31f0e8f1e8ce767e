"""Text in, batches out."""

from attnviz.data.number_words import LANGUAGES, NumberWords, held_out, spell
from attnviz.data.translation import SentencePairs, load_translation

__all__ = [
    "LANGUAGES",
    "NumberWords",
    "SentencePairs",
    "held_out",
    "load_translation",
    "spell",
]

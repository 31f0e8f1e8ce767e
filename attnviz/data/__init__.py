"""Text in, batches out."""

from attnviz.data.number_words import LANGUAGES, NumberWords, held_out, spell

__all__ = ["LANGUAGES", "NumberWords", "held_out", "spell"]

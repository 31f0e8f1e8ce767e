"""Text in, batches out."""

from attnviz.data.examples import Question, TaggedSentence, load_entities, load_questions
from attnviz.data.labelled import encode_texts, labelled_batches, padded
from attnviz.data.masking import IGNORED, Masked, Masking
from attnviz.data.number_words import LANGUAGES, NumberWords, held_out, spell
from attnviz.data.packing import pack, shuffled
from attnviz.data.reviews import Review, load_reviews
from attnviz.data.sentence_pairs import SentencePairIds, next_sentence_pairs, split_sentences
from attnviz.data.translation import SentencePairs, load_translation
from attnviz.data.wordpiece import train_wordpiece, wordpiece_tokenizer

__all__ = [
    "IGNORED",
    "LANGUAGES",
    "Masked",
    "Masking",
    "NumberWords",
    "Question",
    "Review",
    "SentencePairIds",
    "SentencePairs",
    "TaggedSentence",
    "encode_texts",
    "held_out",
    "labelled_batches",
    "load_entities",
    "load_questions",
    "load_reviews",
    "load_translation",
    "next_sentence_pairs",
    "pack",
    "padded",
    "shuffled",
    "spell",
    "split_sentences",
    "train_wordpiece",
    "wordpiece_tokenizer",
]

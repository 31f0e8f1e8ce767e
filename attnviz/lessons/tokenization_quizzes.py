"""The questions of lesson 06 that the reader answers before running the next cell."""

from attnviz.lessons.quiz import Quiz, predict


def predict_whole_reviews() -> Quiz:
    """Ask how many reviews a large vocabulary of words covers without a gap."""
    return predict(
        "Take the 30,000 commonest words of 28,390 reviews as a vocabulary. Of new reviews, how "
        "many consist of these words alone?",
        ["About 95 %", "About two thirds", "About one third"],
        answer=2,
        because="More than 98 of 100 words are known. But a review has about 200 words, and one "
        "unknown word is enough: a name, a misspelling, a word somebody made up.",
    )


def predict_greedy() -> Quiz:
    """Ask what the greedy search does where only a shorter first piece leads on."""
    return predict(
        "The vocabulary holds th, the, ##eism, ##s and [UNK]. What does BERT's WordPiece make of "
        "the word theism?",
        ["th ##eism", "the ##s", "[UNK]", "the [UNK]"],
        answer=2,
        because="It takes the longest piece that fits, the, and never goes back. Nothing in the "
        "vocabulary goes on with ##i…, so the whole word is given up.",
    )


def predict_hello() -> Quiz:
    """Ask in how many ways one word is cut by a byte-level tokenizer."""
    return predict(
        "“hello”, “ hello” with a space before it, “Hello” and “HELLO”: into how many different "
        "lists of pieces does a byte-level BPE cut them?",
        ["1: it is the same word", "2: capitals make a difference", "4"],
        answer=2,
        because="To this tokenizer a space and a capital are bytes like others, so these are four "
        "different strings. What they have in common, the model has to learn.",
    )

"""The questions of lesson 05 that the reader answers before running the next cell."""

from attnviz.lessons.quiz import Quiz, predict


def predict_peeking() -> Quiz:
    """Ask what happens without the causal mask."""
    return predict(
        "In training the decoder is given the whole right answer at once. Suppose the causal mask "
        "were forgotten. What would the training loss do?",
        [
            "It would stay high: the model gets confused",
            "It would fall nearly to zero, and the model would write nonsense",
            "Nothing would change, as the loss looks at one token at a time",
        ],
        answer=1,
        because="Each place could look one token ahead, at the very token that it is asked for. "
        "Copying it is easy; when the model has to write by itself, there is nothing to copy.",
    )


def predict_below_100() -> Quiz:
    """Ask how a model that saw only uniformly drawn numbers does on short ones."""
    return predict(
        "Of the numbers from 0 to 999,999, drawn uniformly, one in ten thousand is below 100. "
        "A model trained on such numbers alone: how many of those below 100 will it translate "
        "rightly?",
        [
            "All: they are parts of the longer ones",
            "About half",
            "None",
        ],
        answer=1,
        because="It has seen every word many times, but hardly ever a sentence without “thousand”. "
        "So it often writes a “tausend” where none belongs. A model knows what its training "
        "numbers were like, and nothing else.",
    )


def predict_longer_numbers() -> Quiz:
    """Ask what the model makes of longer numbers than any in training."""
    return predict(
        "All training numbers are below a million. Now the model reads “one thousand, two hundred "
        "and thirty-four thousand, five hundred and six”: every word is known, and the rule is the "
        "same, but the sentence is longer. What will it write?",
        [
            "The right words: it has learned the rule",
            "Words of about the usual length, with parts missing or exchanged",
            "Nothing: it will stop at once",
        ],
        answer=1,
        because="It has learned where to look in sentences of the length and order that it knew. "
        "Nothing in its training said what comes after a second “thousand”.",
    )

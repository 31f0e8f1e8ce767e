"""The questions of lesson 07 that the reader answers before running the next cell."""

from attnviz.lessons.quiz import Quiz, predict


def predict_always_mask() -> Quiz:
    """Ask what goes wrong when every chosen piece becomes [MASK]."""
    return predict(
        "Suppose every chosen piece became [MASK]. What would the loss say about the vectors that "
        "the model makes for all the other pieces, those that it can read?",
        [
            "They would be asked for less often",
            "Nothing: only vectors at [MASK] would be asked for anything",
            "They would be the same as with 80/10/10",
        ],
        answer=1,
        because="The loss looks at chosen places alone. If these all hold [MASK], a vector above a "
        "real word is of use only to its neighbours. But later tasks have no [MASK] in them.",
    )


def predict_guessing() -> Quiz:
    """Ask how far one comes by knowing how frequent pieces are."""
    return predict(
        "There are 4,000 pieces. Somebody does not look at the text at all and always says the "
        "most frequent one. How many of the hidden pieces are found?",
        ["One in 4,000", "About one in twenty", "About one in four"],
        answer=1,
        because="Language is uneven: a few pieces make up much of every text. So an accuracy of a "
        "few per cent is no sign that a model has learned to read.",
    )


def predict_race() -> Quiz:
    """Ask who learns more in five minutes."""
    return predict(
        "Both recipes train a model of about the same size on the same reviews, five minutes each. "
        "How do they compare in the share of hidden pieces that they find?",
        [
            "About the same: the architecture is the same",
            "Today's finds a tenth more",
            "Today's finds two to three times as many",
        ],
        answer=2,
        because="The old recipe was made for days on many chips: it learns slowly at first, spends "
        "work on padding and on a second task, and asks half as many questions in each pass.",
    )


def predict_next_sentence() -> Quiz:
    """Ask whether the second task helps the first."""
    return predict(
        "The same model, the same sentence pairs, the same number of steps: once with the "
        "next-sentence loss, once without it. Which one finds more hidden pieces?",
        [
            "The one with it, by some points: it learns more about text",
            "The one without it, by some points: it has more of each step",
            "Neither by much: a point at most, one way or the other",
        ],
        answer=2,
        because="In so few steps the second task is hardly learned, so it can neither help much "
        "nor cost much; and small differences come by chance as well. Liu et al. (2019) trained "
        "long, left the task out and lost nothing.",
    )

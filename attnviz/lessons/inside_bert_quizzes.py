"""The questions of lesson 09 that the reader answers before running the next cell."""

from attnviz.lessons.quiz import Quiz, predict


def predict_cls() -> Quiz:
    """Ask how many heads mostly look at [CLS]."""
    return predict(
        "Of MiniLM's 72 heads, how many give [CLS] more than half of the weight of each word?",
        ["None: [CLS] is no word", "About one in four", "More than half of the heads"],
        answer=1,
        because="It is 19 of 72. The weights of a row sum to one, so a head that finds nothing to "
        "look at must still put its unit somewhere.",
    )


def predict_links() -> Quiz:
    """Ask which model's heads follow grammar better."""
    return predict(
        "MiniLM has 72 heads and was trained on far more text. Our BERT has 24 and read film "
        "reviews for 35 minutes. Which has the head that leads more prepositions to their nouns?",
        [
            "MiniLM",
            "Ours",
            "Neither: no head finds more of them than a fixed distance",
        ],
        answer=1,
        because="Both find many more than the controls, and ours finds more than MiniLM. Links "
        "between words help to guess a hidden word, the only task that ours was trained for. "
        "MiniLM was trained on to sum up whole sentences; whether that is why, nobody tested.",
    )


def predict_deletion() -> Quiz:
    """Ask how much of a verdict rests on what gets most attention."""
    return predict(
        "A fifth of the pieces is hidden from the model, those with most attention first. How far "
        "does the probability of the verdict fall?",
        [
            "As far as with a random fifth",
            "Further than that, but much less far than with attention × gradient",
            "As far as with attention × gradient: these are the same weights",
        ],
        answer=1,
        because="Attention says where the model looks, and it looks more at what counts. "
        "It does not say whether that speaks for the verdict or against it, nor how much the "
        "verdict would change. The gradient does.",
    )


def predict_pruning() -> Quiz:
    """Ask what happens when a third of the heads goes."""
    return predict(
        "Switch off the 24 heads with the smallest importance, a third of all. How many of the "
        "sentences does the model still judge right?",
        [
            "About half, as if it guessed",
            "About ten points fewer than before",
            "Nearly as many as before: within about three points",
        ],
        answer=2,
        because="What these heads add to the vectors hardly changes the verdict, and what one "
        "leaves out another may bring. Which heads go does matter: begin with the most important "
        "ones, and a third is enough to lose a good part.",
    )


def predict_probe() -> Quiz:
    """Ask where the word before can be read off a word's vector."""
    return predict(
        "From a word's vector a linear probe shall tell which word stands before it. Where is this "
        "easiest?",
        [
            "Below the first block, where nothing is mixed yet",
            "Above the first block",
            "Above the last block, which knows most of the sentence",
        ],
        answer=1,
        because="Below the first block a vector holds its own word and its place, not its "
        "neighbours. In layer 0 a head looks at the previous token and brings it along. Further up "
        "other things are written over it.",
    )

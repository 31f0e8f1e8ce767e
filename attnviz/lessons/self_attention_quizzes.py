"""The questions of lesson 01 that the reader answers before running the next cell."""

from attnviz.lessons.quiz import Quiz, predict


def predict_largest_share() -> Quiz:
    """Ask to which word the query "bank" gives the most."""
    return predict(
        "The scores of bank with bank, near and river are 2, 0.5 and 3. "
        "Which share will the softmax give to river?",
        ["About one half, 3 of 5.5", "About 70 %", "More than 90 %"],
        answer=1,
        because="Shares come from the exponentials: e³ ≈ 20.1 against e² ≈ 7.4 and e^0.5 ≈ 1.6, "
        "so river gets 20.1 of 29.1, or 0.69.",
    )


def predict_saturation() -> Quiz:
    """Ask what the softmax does to unscaled scores of wide vectors."""
    return predict(
        "Random queries and keys, 256 numbers wide, 16 keys, no root: "
        "how much does the largest of the 16 weights get, on average?",
        ["About 1/16", "About a third", "More than four fifths"],
        answer=2,
        because="The scores have variance 256, so they differ by tens; e to the power of tens "
        "leaves nothing for the others.",
    )


def predict_empty_row() -> Quiz:
    """Ask what the softmax makes of a row in which everything is masked."""
    return predict(
        "The last token sees nothing: all its scores are minus infinity. What are its weights?",
        ["zeros", "equal weights", "nan"],
        answer=2,
        because="Every exponential is 0, and so is their sum, and 0 / 0 is not a number. "
        "(Subtracting the largest score first does not help: ∞ − ∞ is nan too.)",
    )


def predict_shuffle() -> Quiz:
    """Ask what happens to the output when the tokens are shuffled."""
    return predict(
        "If the tokens are shuffled, what happens to the output?",
        [
            "It stays exactly as it is",
            "It is shuffled in the same way, otherwise unchanged",
            "Every token gets another vector",
        ],
        answer=1,
        because="A dot product does not depend on where its two vectors stand, and a sum does not "
        "depend on the order of its terms.",
    )


def predict_copy() -> Quiz:
    """Ask how far the three kinds of network can copy."""
    return predict(
        "Which model still copies when the symbol lies 24 steps back?",
        ["All three", "RNN and attention", "Only attention", "None"],
        answer=2,
        because="24 steps are beyond the CNN's reach of 6, and too many updates of the RNN's "
        "state; for attention they are one step like any other.",
    )

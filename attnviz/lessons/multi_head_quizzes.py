"""The questions of lesson 02 that the reader answers before running the next cell."""

from attnviz.lessons.quiz import Quiz, predict


def predict_one_head() -> Quiz:
    """Ask how a single head does on a task with two relations."""
    return predict(
        "The task asks for the symbol one step back and the symbol four steps back. "
        "How will one head do, and how two heads of half the width?",
        [
            "Both learn it",
            "One head finds one of the two symbols, two heads find both",
            "One head learns it, two narrower heads do not",
        ],
        answer=1,
        because="One softmax has one unit of attention. Shared between two places it gives a "
        "mixture from which one cannot tell which symbol came from where; so one head does best "
        "by looking at one of them.",
    )


def predict_reshape() -> Quiz:
    """Ask what a reshape without a transpose does."""
    return predict(
        "x is (batch, token, d_model). Someone writes x.reshape(batch, heads, token, d_k). "
        "The shape is right. What is in head 0?",
        [
            "The first d_k numbers of every token",
            "All numbers of the first few tokens",
            "A random selection",
        ],
        answer=1,
        because="A reshape keeps the numbers in their order in memory, and there one token's "
        "numbers stand together. Head 0 takes the first tokens whole; nothing raises an error.",
    )


def predict_parameters() -> Quiz:
    """Ask what more heads cost."""
    return predict(
        "d_model is 384. How many weights does the layer have with 12 heads, compared with 1 head?",
        ["The same number", "12 times as many", "One twelfth"],
        answer=0,
        because="The heads share out the width: 12 heads of 32 numbers use the same four "
        "384 × 384 matrices as one head of 384.",
    )


def predict_switched_off() -> Quiz:
    """Ask how much one head out of 72 matters."""
    return predict(
        "Switch off one head of MiniLM's 72. By how much does the sentence's vector turn, "
        "for the typical (median) head?",
        [
            "Hardly at all: the cosine stays above 0.99",
            "The cosine falls to about 0.9",
            "The sentence's meaning is lost: below 0.5",
        ],
        answer=0,
        because="What a head writes is added to what the others write and to the token itself, so "
        "most single heads can be missed. A few cannot: the map below shows which.",
    )

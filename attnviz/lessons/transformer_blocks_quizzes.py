"""The questions of lesson 04 that the reader answers before running the next cell."""

from attnviz.lessons.quiz import Quiz, predict


def predict_fading() -> Quiz:
    """Ask how much of a gradient 24 bare attention layers let through."""
    return predict(
        "24 attention layers, one behind the other, with nothing around them. How large is the "
        "gradient at the first layer, if it is 1 at the last?",
        ["About 1", "About one thousandth", "Less than a billionth"],
        answer=2,
        because="Each layer passes on a fraction of what it is given, and fractions multiply: "
        "0.4, 24 times in a row, is 3 · 10⁻¹⁰.",
    )


def predict_scaled() -> Quiz:
    """Ask what LayerNorm makes of a vector that was stretched and moved."""
    return predict(
        "Multiply all numbers of a token by 100 and add 7 to each. What happens to its LayerNorm?",
        ["It is 100 times as large", "It moves by 7", "As good as nothing"],
        answer=2,
        because="The 7 goes when the mean is subtracted, and the 100 when the deviations are "
        "divided by their own size. Only eps, added to the variance, leaves a trace.",
    )


def predict_warm_up() -> Quiz:
    """Ask which of three stacks of twelve blocks learns to reverse."""
    return predict(
        "Twelve blocks, the same task, the same learning rate. Which of the three learns?",
        [
            "All three",
            "Pre-LN and, with warm-up, post-LN",
            "Only pre-LN",
            "Only post-LN, with or without warm-up",
        ],
        answer=1,
        because="Ten steps of full size are enough for post-LN to lose nine tenths of its gradient "
        "on the way from the last block to the middle. If the rate rises slowly it keeps half; in "
        "pre-LN no norm stands in its way.",
    )


def predict_share() -> Quiz:
    """Ask how the parameters of a block are divided."""
    return predict(
        "d_ff is 4 · d_model, as usual. Which share of a block's parameters is in the attention?",
        ["About a third", "About half", "About two thirds"],
        answer=0,
        because="Attention has four square matrices, 4 · d_model². The feed-forward network has "
        "two that are four times as large, 8 · d_model².",
    )

"""The questions of lesson 10 that the reader answers before running the next cell."""

from attnviz.lessons.quiz import Quiz, predict


def predict_without_cache() -> Quiz:
    """Ask how the time for writing grows with the number of tokens when nothing is kept."""
    return predict(
        "A GPT writes without a cache: for each new token it reads all that stands before it once "
        "more. Twice as many tokens are written. How much longer does it take, roughly, once texts "
        "are long?",
        [
            "Twice as long: there are twice as many tokens",
            "Half as long again: most of the work was done before",
            "Three to four times as long, or more",
        ],
        answer=2,
        because="There are twice as many tokens to write, and for each of them about twice as many "
        "to read: four times the work, or less where the fixed costs of each step still count. "
        "Within a reading each token looks at all before it, and this part grows eightfold. With "
        "a cache each token is read once: most of the work doubles, and only the part that looks "
        "back at the keys grows fourfold.",
    )


def predict_temperature() -> Quiz:
    """Ask what a temperature near zero does to the probabilities of the next token."""
    return predict(
        "The logits of the next token are divided by the temperature, then comes the softmax. What "
        "becomes of the probabilities when the temperature goes towards 0?",
        [
            "They all become the same",
            "The likeliest token gets all, the others nothing",
            "They stay as they are: all logits are divided by the same number",
        ],
        answer=1,
        because="The softmax looks at differences between logits, and these grow without end when "
        "they are divided by less and less. So drawing becomes greedy search. A high temperature "
        "makes the differences small, and then all tokens become nearly as likely as each other.",
    )


def predict_fused() -> Quiz:
    """Ask what four times the tokens cost in memory, with the matrix of weights and without."""
    return predict(
        "A text has four times as many tokens. How much more memory does attention take: plain, "
        "with the whole matrix of weights, and fused, which computes the matrix in blocks and "
        "keeps none of them?",
        [
            "Plain and fused about four times",
            "Plain about sixteen times, fused at most about four times",
            "Plain and fused about sixteen times: both compute the same weights",
        ],
        answer=1,
        because="The matrix has a row for each query and a column for each key: 4 × 4. Fused, "
        "each query keeps its mix so far, its largest score and a sum, and a block is forgotten "
        "once it is mixed in. What remains is the result, which grows with the tokens, and a "
        "work area. The multiplications are sixteen times as many, plain and fused.",
    )


def predict_int8() -> Quiz:
    """Ask how much accuracy it costs to round the weights to int8."""
    return predict(
        "A model that judges reviews gets its weights rounded to int8, with a scale for each row. "
        "How much accuracy does it lose?",
        [
            "More than ten points: a weight can only be one of 255 numbers now",
            "About five points",
            "Hardly any: a point at most",
        ],
        answer=2,
        because="Each weight moves by half a step at most, and that is 1/254 of the largest weight "
        "in its row. Some move up and some down, and in a sum of hundreds of products most of "
        "that cancels. So the logits move little, and only a review that the model was unsure of "
        "can change sides.",
    )


def predict_half_the_heads() -> Quiz:
    """Ask what the model gains in time when it loses half of its heads."""
    return predict(
        "Half of the heads are removed in every layer of a BERT. How long does it take to read the "
        "same texts, compared with before?",
        [
            "About half as long",
            "More than two thirds as long",
            "As long as before: heads are computed side by side",
        ],
        answer=1,
        because="Only attention becomes smaller. Two thirds of a layer's weights are in the "
        "feed-forward network, which stays as it is. Of the other third half is gone, so a sixth "
        "of the work is saved, and somewhat more where texts are long.",
    )

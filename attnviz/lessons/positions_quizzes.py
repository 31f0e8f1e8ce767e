"""The questions of lesson 03 that the reader answers before running the next cell."""

from attnviz.lessons.quiz import Quiz, predict


def predict_shuffled() -> Quiz:
    """Ask what self-attention makes of shuffled tokens."""
    return predict(
        "The tokens of a sentence are shuffled before they go into self-attention. "
        "What happens to the vectors that come out?",
        [
            "They change, because every token has other neighbours now",
            "They are the same vectors, shuffled in the same way",
            "They become noise",
        ],
        answer=1,
        because="A query compares itself with every key and adds up what it finds. Neither step "
        "asks where a key stands, so a token gets the same vector wherever it is put.",
    )


def predict_step() -> Quiz:
    """Ask how the sinusoids of two positions are related."""
    return predict(
        "You know the vector of some position p, but not p itself. "
        "Can you compute the vector of the position 5 further on?",
        [
            "No: the frequencies would have to be turned into a position first",
            "Only if p is a multiple of 5",
            "Yes: one rotation does it, and it is the same for every p",
        ],
        answer=2,
        because="Each pair (sin ωp, cos ωp) is a point on a circle. Five steps turn it by 5ω, "
        "wherever it started. A matrix can do that, so attention can learn to look a fixed number "
        "of steps away.",
    )


def predict_longer() -> Quiz:
    """Ask which kind of position works on longer texts than it was trained on."""
    return predict(
        "All models are trained on 32 tokens and answer well there. "
        "Which will still answer well at token 128?",
        [
            "All of them: the task is the same",
            "Learned vectors, because they were trained and not made up",
            "ALiBi, because it only ever compares distances and nothing new happens far away",
        ],
        answer=2,
        because="Position 100 has no trained vector, a sinusoid or rotation reaches angles that "
        "were never seen, but a penalty on distance favours near keys at any length.",
    )

"""Solutions and planted bugs for the warm-up of lesson 00."""

SOLUTIONS = {
    "next_token_score": lambda w: sum(w[i, i + 1] for i in range(len(w) - 1)) / (len(w) - 1)
}

# The same mistakes as in the catalogue, written another way: (exercise, bug, word of the diagnosis)
PLANTED = [
    ("next_token_score", lambda w: w[1:, :-1].trace() / (len(w) - 1), "token before"),
    ("next_token_score", lambda w: w.trace() / len(w), "to themselves"),
    ("next_token_score", lambda w: w[:-1, 1:].trace() / len(w), "one less"),
    ("next_token_score", lambda w: w[:-1, 1:].trace(), "adds the weights up"),
]

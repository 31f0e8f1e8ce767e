"""The questions of appendix A that the reader answers before running the next cell."""

from attnviz.lessons.quiz import Quiz, predict


def predict_first_stop() -> Quiz:
    """Ask which mistakes of the attention function stop a call without a mask."""
    return predict(
        "The function has three mistakes: a name that is not defined (math), a parameter that "
        "hides a function (softmax), and a missing root. Which of them stop the call "
        "attention(query, key, value)?",
        ["All three", "math and softmax", "Only softmax", "Only math", "None"],
        answer=2,
        because="The line with math stands in a branch that runs only with a mask, and Python "
        "looks a name up when its line runs. The missing root never stops anything.",
    )


def predict_by_position() -> Quiz:
    """Ask what a call with its arguments in another order does."""
    return predict(
        "EncoderLayer(d_model, d_ff, n_heads, d_k, dropout) is called as "
        "EncoderLayer(32, 4, 8, 8, 0.1), by someone who means 4 heads. What happens?",
        [
            "Python raises: 0.1 is no whole number",
            "PyTorch raises when the first tokens go through: shapes do not fit",
            "It runs, with another layer than meant",
        ],
        answer=2,
        because="Each number is a legal size where it lands: d_ff = 4, n_heads = 8, d_k = 8, and "
        "0.1 lands on dropout, by luck. The output has the right shape.",
    )


def predict_best_loss() -> Quiz:
    """Ask which single mistake makes the loss look best."""
    return predict(
        "One mistake at a time is put back into the repaired model. Which of the five ends with "
        "the lowest training loss?",
        [
            "The repaired one",
            "The one without the root",
            "The one with the sizes in the wrong places",
            "The one whose words are overwritten",
            "The one whose cross-attention asks the target itself",
        ],
        answer=4,
        because="That attention has no mask, so each place can read the next symbol of the target, "
        "which is the answer it is asked for, with the spelling that the coin chose.",
    )


def predict_blind() -> Quiz:
    """Ask how often a BERT that sees only to its left finds the hidden word."""
    return predict(
        "Each letter stands twice in a text, once in each half. How often does the BERT of the "
        "listing, which cannot see to its right, find a hidden letter? (There are 8 letters.)",
        ["Nearly always", "In somewhat more than half of the texts", "In one of eight"],
        answer=1,
        because="In the second half the twin stands to the left and is found; in the first half "
        "it can only guess: ½ · 1 + ½ · ⅛ ≈ 0.56.",
    )


def predict_depth() -> Quiz:
    """Ask what the third argument of nn.Transformer means."""
    return predict(
        "nn.Transformer(32, 4, 2): how many layers does its decoder have?",
        ["2, like its encoder", "1", "6", "None: a decoder has to be asked for"],
        answer=2,
        because="The third parameter is num_encoder_layers. The fourth, num_decoder_layers, was "
        "not given and keeps its default, 6.",
    )

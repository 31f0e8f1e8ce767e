"""The questions of lesson 08 that the reader answers before running the next cell."""

from attnviz.lessons.quiz import Quiz, predict


def predict_few_labels() -> Quiz:
    """Ask who judges reviews best when few are labelled."""
    return predict(
        "There are 200 labelled reviews to learn from. Who is right most often about new ones?",
        [
            "A bag of words with logistic regression: for a network, 200 texts are too few",
            "Our own BERT, pretrained for an hour or less: it has read nothing but reviews",
            "MiniLM, with 22 million weights, pretrained on far more text",
        ],
        answer=2,
        because="With few labels it counts what a model knew before. The bag of words learns the "
        "meaning of each word from the labels alone, and most words do not come up in them. Our "
        "BERT has read reviews, but it is small and has read little: it ends near the bag of "
        "words. MiniLM brings more along.",
    )


def predict_many_labels() -> Quiz:
    """Ask how far a bag of words is behind when labels are many."""
    return predict(
        "Now there are 4,000 labelled reviews, and MiniLM learns from each of them once. How far "
        "behind is the bag of words?",
        [
            "More than ten points of accuracy",
            "Not far: it is within about two points, in front or behind",
            "Very far: its accuracy is near 50 %, as if it guessed",
        ],
        answer=1,
        because="In so many reviews nearly every word that praises or blames comes up often enough "
        "to get a good weight, and such words tell most verdicts, whatever their order. What was "
        "learned before helps most where labels are few.",
    )


def predict_forgetting() -> Quiz:
    """Ask what fine-tuning does to the old task."""
    return predict(
        "Our pretrained BERT is fine-tuned to judge reviews. Then its old head for hidden pieces "
        "is put back on. How many of the hidden pieces does it still find?",
        [
            "As many as before: the old head was not trained along",
            "Fewer, and the more so the higher the learning rate was",
            "None, at any learning rate",
        ],
        answer=1,
        because="The old head is as it was, but the states that it reads are not: fine-tuning "
        "changes the layers below it, and nothing in the new loss asks them to remain of use for "
        "the old task. The higher the learning rate, the further they move.",
    )


def predict_changed_layers() -> Quiz:
    """Ask which layers' attention fine-tuning changes most."""
    return predict(
        "Compare the attention before fine-tuning and after it, on the same reviews. Layers 0 to "
        "2 were frozen. In which of the others does it change most?",
        ["In layer 3", "In layer 5, the last", "In all three the same"],
        answer=1,
        because="Layer 3 reads states that stayed as they were, and each layer above it reads what "
        "the changed layers below it hand on, so changes add up. Besides, the last layers had "
        "prepared the answer to the old task, and now they prepare another.",
    )


def predict_order() -> Quiz:
    """Ask how far one comes in finding names without finding any."""
    return predict(
        "A model gives every word the tag O, so it finds no name at all. About how many of the "
        "words is it right?",
        ["About one in ten", "About half", "Most: about four in five"],
        answer=2,
        because="Most words of a sentence belong to no name. So accuracy on tokens looks good "
        "before anything is found. Count whole names instead: how many of those that were found "
        "are right, and how many of those that are there were found.",
    )

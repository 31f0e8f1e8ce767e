"""How well a BERT finds hidden pieces in texts it has not seen, and how well guessing does."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer
from torch import Tensor, nn

from attnviz.data import IGNORED, Masked, Masking
from attnviz.data.wordpiece import SPECIAL

_AT_ONCE = 64  # windows


class Found(NamedTuple):
    """accuracy: share of the hidden pieces that are found.   loss: mean cross-entropy, in nats."""

    accuracy: float
    loss: float


def measure_masked(
    model: nn.Module, windows: Tensor, tokenizer: Tokenizer, rate: float = 0.15, seed: int = 0
) -> Found:
    """Hide pieces of held-out windows, all behind [MASK], and count how many the model finds.

    model:   from ids (batch, token) and labels to an output with logits (asked, vocab), as
             `BertForPreTraining`; it is put into eval mode for this.
    windows: (window, token) int64.
    rate, seed: how many pieces are hidden, and which.
    Returns accuracy and loss over all hidden pieces.
    Raises ValueError when there are no windows.
    """
    questions = _questions(windows, tokenizer, rate, seed)
    device, training = next(model.parameters()).device, model.training
    right, loss, asked = 0, 0.0, 0
    model.eval()
    with torch.no_grad():
        for some in zip(*(part.split(_AT_ONCE) for part in questions), strict=True):
            ids, labels = (part.to(device) for part in some)
            logits, wanted = model(ids, labels=labels).logits.float(), labels[labels != IGNORED]
            right += int((logits.argmax(-1) == wanted).sum())
            loss += F.cross_entropy(logits, wanted, reduction="sum").item()
            asked += len(wanted)
    model.train(training)
    return Found(right / asked, loss / asked)


def guess_by_frequency(
    train: Tensor, windows: Tensor, tokenizer: Tokenizer, rate: float = 0.15, seed: int = 0
) -> Found:
    """As `measure_masked`, of someone who knows how frequent each piece is and nothing else.

    train: windows in which the pieces are counted.
    Its loss is the unigram cross-entropy, its accuracy the share of the most frequent piece.
    """
    counts = train.flatten().cpu().bincount(minlength=tokenizer.get_vocab_size()).double() + 1
    counts[[tokenizer.token_to_id(piece) for piece in SPECIAL]] = 0
    chances = counts / counts.sum()
    labels = _questions(windows.cpu(), tokenizer, rate, seed).labels
    wanted = labels[labels != IGNORED]
    right = (wanted == chances.argmax()).double().mean().item()
    return Found(right, -chances[wanted].log().mean().item())


def _questions(windows: Tensor, tokenizer: Tokenizer, rate: float, seed: int) -> Masked:
    if not len(windows):
        raise ValueError("windows must hold at least one, got none")
    masking = Masking(tokenizer, rate, mask=1.0, random=0.0)
    return masking(windows, torch.Generator().manual_seed(seed))

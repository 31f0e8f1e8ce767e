"""Hide some pieces of a text, for a model to find them out again."""

from typing import NamedTuple

import torch
from tokenizers import Tokenizer
from torch import Tensor

from attnviz.checks import check_share
from attnviz.data.wordpiece import CONTINUES, MASK, SPECIAL
from attnviz.tensors import check_batch, check_int64, check_values, extremes

IGNORED = -100  # the label of what is not asked for: F.cross_entropy leaves it out


class Masked(NamedTuple):
    """input_ids: (batch, token) int64, some of them hidden.

    labels: (batch, token) int64: the hidden id at the places that are asked for, elsewhere -100.
    """

    input_ids: Tensor
    labels: Tensor


class Masking:
    """Choose pieces at random and hide them: BERT's masked language modelling.

    tokenizer:   its special pieces, such as [CLS], are never chosen.
    rate:        the share of the other pieces in a row that is chosen, rounded; at least one of
                 them, if there are any.
    mask, random: of the chosen pieces, the share that becomes [MASK] and the share that becomes any
                 other piece; the rest stays as it is.
    whole_words: choose words, and with each all its pieces; so a few more pieces may be chosen.
    Call it with ids (batch, token) int64 and a generator on the CPU to get `Masked`, on the device
    of the ids. The same ids and generator give the same result; the ids are left as they are.
    Raises ValueError for shares that are none or exceed one, or a tokenizer without the special
    pieces, TypeError for what are no numbers; when called, TypeError or ValueError for what are no
    ids of this tokenizer.
    Source: Devlin et al. 2019, section 3.1 and appendix A.1 (15 %, of them 80 % / 10 % / 10 %).
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        rate: float = 0.15,
        *,
        mask: float = 0.8,
        random: float = 0.1,
        whole_words: bool = False,
    ):
        if not hasattr(tokenizer, "get_vocab"):
            raise TypeError(f"tokenizer must be a Tokenizer, got {type(tokenizer).__name__}")
        rate, mask = check_share("rate", rate), check_share("mask", mask)
        random = check_share("random", random)
        if not rate:
            raise ValueError("rate must be more than 0, got 0")
        if mask + random > 1:
            raise ValueError(f"mask + random must be at most 1, got {mask} + {random}")
        pieces = tokenizer.get_vocab()
        if missing := [piece for piece in SPECIAL if piece not in pieces]:
            raise ValueError(f"tokenizer must have the piece {missing[0]}, and has not")
        self.rate, self.mask, self.random = rate, mask, random
        self.whole_words = whole_words
        self._mask_id = pieces[MASK]
        self._usual = torch.ones(max(pieces.values()) + 1, dtype=torch.bool)
        self._usual[[pieces[piece] for piece in SPECIAL]] = False
        self._usual_ids = self._usual.nonzero().flatten()
        self._continues = torch.zeros_like(self._usual)
        self._continues[[i for piece, i in pieces.items() if piece.startswith(CONTINUES)]] = True

    def __call__(self, ids: Tensor, generator: torch.Generator) -> Masked:
        self._check(ids)
        device, ids = ids.device, ids.cpu()
        chosen = self._choose(ids, generator)
        labels = torch.where(chosen, ids, IGNORED)
        fate = torch.rand(ids.shape, generator=generator)
        input_ids = ids.masked_fill(chosen & (fate < self.mask), self._mask_id)
        if self.random:
            other = self._usual_ids[
                torch.randint(len(self._usual_ids), ids.shape, generator=generator)
            ]
            changed = chosen & (fate >= self.mask) & (fate < self.mask + self.random)
            input_ids = torch.where(changed, other, input_ids)
        return Masked(input_ids.to(device), labels.to(device))

    def _choose(self, ids: Tensor, generator: torch.Generator) -> Tensor:
        """Which places are hidden, (batch, token) bool: the least numbers drawn."""
        usual = self._usual[ids]
        wanted = (self.rate * usual.sum(1, keepdim=True)).round().clamp(min=1)  # pieces in a row
        drawn = torch.rand(ids.shape, generator=generator)
        if self.whole_words:
            begins = ~(self._continues[ids] & usual.roll(1, 1))
            begins[:, 0] = True
            drawn = drawn.gather(1, begins.cumsum(1) - 1)  # one number for all pieces of a word
        drawn = drawn.masked_fill(~usual, 2.0)
        place = drawn.argsort(dim=1, stable=True).argsort(1)
        if self.whole_words:  # a word's place is that of its first piece
            same = drawn[:, None] == drawn[:, :, None]  # (batch, token, token)
            place = torch.where(same, place[:, None], ids.size(1)).amin(2)
        return usual & (place < wanted)

    def _check(self, ids: Tensor) -> None:
        check_int64("ids", ids)
        check_batch("ids", ids)
        check_values("ids", ids)
        low, high = extremes(ids, len(self._usual))
        if low < 0 or high >= len(self._usual):
            raise ValueError(
                f"ids must be between 0 and {len(self._usual) - 1}, the tokenizer's last, "
                f"got {low} to {high}"
            )

"""Inputs that are drawn: the same ones each time, and none like the other."""

import random
from collections.abc import Callable

import torch
from torch import Tensor

_SIZES = range(1, 8)


class Draw(random.Random):
    """Random numbers from a seed, with the tensors and sizes that exercises ask for."""

    def sizes(self, how_many: int, among: range = _SIZES) -> list[int]:
        """Different sizes, so that no dimension can stand for another."""
        return self.sample(among, how_many)

    def tensor(self, *shape: int, scale: float = 1.0) -> Tensor:
        """Normal numbers, float32, of a standard deviation of scale."""
        return torch.randn(shape, generator=self._generator()) * scale

    def ids(self, *shape: int, among: range) -> Tensor:
        """Whole numbers, int64, each as likely."""
        return torch.randint(among.start, among.stop, shape, generator=self._generator())

    def allowed(self, *shape: int, share: float = 0.7) -> Tensor:
        """A mask, True for about this share; the last dimension has one True at least."""
        mask = torch.rand(shape, generator=self._generator()) < share
        mask[..., self.randrange(shape[-1])] = True
        return mask

    def words(self, how_many: int, letters: str, longest: int = 6) -> list[str]:
        """Words of the letters, of one letter or more; words may come twice."""
        return ["".join(self.choices(letters, k=self.randint(1, longest))) for _ in range(how_many)]

    def _generator(self) -> torch.Generator:
        return torch.Generator().manual_seed(self.randrange(2**31))


def drawn(times: int, draw: Callable[[Draw], tuple]) -> tuple[tuple, ...]:
    """As many lists of arguments, from a description of what a function takes.

    draw: one list of arguments, from a `Draw`.
    """
    return tuple(draw(Draw(seed)) for seed in range(times))

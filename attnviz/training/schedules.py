"""How the learning rate changes while a model trains: functions of how far training has come."""

from collections.abc import Callable

from attnviz.checks import check_share

Schedule = Callable[[float], float]  # from progress (0 to 1) to a factor of the learning rate


def warmup_linear(warmup: float = 0.1) -> Schedule:
    """Rise from zero to the full rate, then fall to zero, both in a straight line.

    warmup: the share of training in which the rate rises, 0 to 1.
    Raises TypeError for what is no number, ValueError for another share.
    Source: as in BERT, Devlin et al. 2019, appendix A.2.
    """
    warmup = check_share("warmup", warmup)

    def factor(progress: float) -> float:
        if progress < warmup:
            return progress / warmup
        return max(0.0, (1 - progress) / (1 - warmup)) if warmup < 1 else 1.0

    return factor


def inverse_sqrt(warmup: float = 0.1) -> Schedule:
    """Rise from zero to the full rate, then fall with the inverse root of the steps.

    warmup: the share of training in which the rate rises, more than 0 and up to 1.
    Raises TypeError for what is no number, ValueError for another share.
    Source: Vaswani et al. 2017, equation 3.
    """
    warmup = check_share("warmup", warmup)
    if not warmup:
        raise ValueError("warmup must be more than 0, got 0")

    def factor(progress: float) -> float:
        return min(progress / warmup, (warmup / max(progress, warmup)) ** 0.5)

    return factor

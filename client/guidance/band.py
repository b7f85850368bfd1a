"""Confidence band: attention may differ from the prior as patients do, and is called back beyond that."""

from typing import ClassVar

from torch import Tensor

from client.guidance.base import AgainstPrior, Known, Seen

KAPPA = 3.0
"""Half the width of the band in standard deviations of a patient."""


class Band:
    """L = mean_j max(0, |s_j − μ_j| / √v_j − κ)², κ = 3; zero inside the band.

    The wider the prior's variance v, the less it binds. Noise of a private release belongs into v as well.

    Source: ours, for attention constrained by uncertainty; κ as in three-sigma rules.
    """

    needs: ClassVar[tuple[str, ...]] = ("prior",)

    def __init__(self, known: Known) -> None:
        self.standardise = AgainstPrior(known)

    def __call__(self, seen: Seen) -> Tensor:
        """Give the mean square beyond the band per image, [B]."""
        away = self.standardise(seen.rows).abs()
        return (away - KAPPA).clamp_min(0).square().sum(1) / max(1, away.shape[1])

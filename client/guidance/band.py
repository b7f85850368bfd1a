"""Confidence band: attention may differ from the prior as patients do, and is called back beyond that."""

from typing import ClassVar

import torch
from torch import Tensor

from client.guidance.base import Known, Seen
from common.shift.projected import TAU

KAPPA = 3.0
"""Half the width of the band in standard deviations of a patient."""


class Band:
    """L = mean_j max(0, |s_j − μ_j| / √v_j − κ)², κ = 3; zero inside the band.

    The wider the prior's variance v, the less it binds. Noise of a private release belongs into v as well.

    Source: ours, for attention constrained by uncertainty; κ as in three-sigma rules.
    """

    needs: ClassVar[tuple[str, ...]] = ("prior",)

    def __init__(self, known: Known) -> None:
        assert known.prior is not None
        self.told = known.told().nonzero()[:, 0]
        self.mean = torch.tensor(known.prior.mean).float()[self.told]
        self.spread = torch.from_numpy(known.prior.variance + TAU).sqrt().float()[self.told]

    def __call__(self, seen: Seen) -> Tensor:
        """Give the mean square beyond the band per image, [B]."""
        if not len(self.told):
            return seen.rows.new_zeros(len(seen.rows))
        rows = seen.rows[:, self.told.to(seen.rows.device)]
        away = (rows - self.mean.to(rows)).abs() / self.spread.to(rows)
        return (away - KAPPA).clamp_min(0).square().mean(1)

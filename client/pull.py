"""A pull of some parameters towards fixed arrays: what regularises a model of a site's own."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from common.arrays import Arrays


@dataclass(frozen=True, slots=True, eq=False)
class Pull:
    """(λ/2)·Σ‖v − c‖² over the parameters v that `centre` c names; buffers are not pulled.

    Source: Li et al. 2021, "Ditto: Fair and Robust Federated Learning Through Personalization", eq. 2.
    """

    weight: float
    centre: Arrays

    def bound(self, model: nn.Module) -> Callable[[], Tensor] | None:
        """Give what computes the pull on a model as it then stands; None for λ = 0, so that nothing is added."""
        if not self.weight:
            return None
        pairs = [
            (parameter, torch.from_numpy(np.array(self.centre[name])).to(parameter))
            for name, parameter in model.named_parameters()
            if name in self.centre
        ]

        def pull() -> Tensor:
            return 0.5 * self.weight * torch.stack([(now - centre).square().sum() for now, centre in pairs]).sum()

        return pull if pairs else None

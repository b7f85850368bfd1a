"""Adam that takes a step only where it leads down: what climbs is undone, and the next step is half as long."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn


class Careful:
    """A step size that suits one network throws another far off, and nobody is there to tune it at a hospital."""

    def __init__(self, parameters: Sequence[nn.Parameter], rates: Sequence[float], largest: float) -> None:
        self._parameters, self._largest = list(parameters), largest
        self._optimizer = torch.optim.Adam(
            [{"params": [parameter], "lr": rate} for parameter, rate in zip(parameters, rates, strict=True)]
        )

    def step(self, loss: Callable[[], Tensor]) -> bool:
        """Try one step and say whether it was taken; what is not finite never is."""
        self._optimizer.zero_grad()
        before = loss()
        before.backward()  # type: ignore[no-untyped-call]
        norm = nn.utils.clip_grad_norm_(self._parameters, self._largest)
        if not bool(before.isfinite()) or not bool(norm.isfinite()):
            self._optimizer.zero_grad()
            return False
        kept = [parameter.detach().clone() for parameter in self._parameters]
        self._optimizer.step()
        self._optimizer.zero_grad()
        with torch.no_grad():
            after = loss()
            if bool(after <= before):
                return True
            for parameter, value in zip(self._parameters, kept, strict=True):
                parameter.copy_(value)
        for group in self._optimizer.param_groups:
            group["lr"] /= 2
        return False

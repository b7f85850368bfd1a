"""The shipped model as it is: what every other method is judged against."""

from torch import Tensor

from client.adaptation.base import Adaptation


class Unchanged(Adaptation):
    """No adaptation."""

    name = "none"
    dense = True
    several = True

    def adapted(self) -> tuple[str, ...]:
        """Name nothing."""
        return ()

    def _adapt(self, images: Tensor) -> Tensor:
        return self._predict(images)

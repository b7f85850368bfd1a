"""HarmoFL at a site: in round 1 the model's mean amplitude follows the site's images; weights are perturbed always."""

from collections.abc import Iterator
from contextlib import contextmanager

from client.methods.base import Begun, Method
from common.attention.base import AttentionModel
from common.errors import ConfigError
from common.models.amplitude import AmplitudeNorm


class Amplitude(Method):
    """Lets `AmplitudeNorm` move in round 1, and has the loss low within a radius of `strategy.harmony`."""

    def __init__(self, begun: Begun) -> None:
        super().__init__(begun)
        self.radius = begun.strategy.harmony

    @contextmanager
    def attached(self, model: AttentionModel) -> Iterator[None]:
        """Move while this round trains, if it is the first."""
        norm = model.before
        if not isinstance(norm, AmplitudeNorm):
            raise ConfigError("strategy 'harmofl' normalises amplitudes. Set 'model.amplitude' to true.")
        norm.moving = self.begun.round == 1
        try:
            yield
        finally:
            norm.moving = False

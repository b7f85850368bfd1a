"""BN-adapt: the statistics of BatchNorm from the test batch, mixed with the source's."""

from pydantic import Field
from torch import Tensor

from client.adaptation.base import Adaptation, MethodSettings
from client.adaptation.batch_norm import batch_norms, mixed, replace_batch_norms
from common.attention.base import AttentionModel


class BnAdaptSettings(MethodSettings):
    """Published source weights are 0, 16 and 128; 16 is what MEMO (Zhang et al. 2022) builds on."""

    source_weight: float = Field(
        default=16, ge=0, le=1e9, description="as how many images the source's statistics count; 0 is the batch alone"
    )


class BnAdapt(Adaptation):
    """Answers with statistics of the batch at hand and the source; keeps nothing from one batch to the next.

    Source: Schneider et al. 2020, "Improving Robustness against Common Corruptions by Covariate Shift Adaptation".
    """

    Settings = BnAdaptSettings
    name = "bn-adapt"
    dense = True
    several = True
    settings: BnAdaptSettings

    @classmethod
    def lacks(cls, model: AttentionModel) -> str:
        """Look for BatchNorm."""
        if batch_norms(model):
            return ""
        return (
            "it mixes running statistics of BatchNorm layers, and the model has none (GroupNorm, LayerNorm and weight "
            "standardisation keep no statistics of the source)"
        )

    def adapted(self) -> tuple[str, ...]:
        """Name nothing: statistics live as long as a batch."""
        return ()

    def _prepare(self) -> None:
        replace_batch_norms(self.model, mixed(self.settings.source_weight))

    def _adapt(self, images: Tensor) -> Tensor:
        return self._predict(images)

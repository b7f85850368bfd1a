"""FR and BUFR: restore the source's distribution of every feature, all layers at once or from the bottom up."""

import torch
from pydantic import Field
from torch import Tensor

from client.adaptation.activations import stages
from client.adaptation.affine import parameters_of
from client.adaptation.answers import rows
from client.adaptation.base import Adaptation
from client.adaptation.batch_norm import mixed, replace_batch_norms
from client.adaptation.descent import Descent, DescentSettings
from client.adaptation.head import body_names
from client.adaptation.histograms import divergence, soft_counts
from common.attention.base import AttentionModel


class FrSettings(DescentSettings):
    """Step: the paper's is chosen by data set (1e-5 for histology) for 15 passes; ours is larger for a stream's one."""

    learning_rate: float = Field(default=1e-3, gt=0, le=10, description="step size")
    window: int = Field(
        default=64, ge=1, le=4096, description="images over which a small batch is averaged with those before it"
    )


class FeatureRestoration(Adaptation):
    """min mean over features of the symmetric KL of its soft histogram to the source's; predicts before its update.

    All but the classifier moves. Batches smaller than the window enter running shares that begin at the source's. It
    matches marginals: where classes are differently frequent than at the source it does harm.

    Source: Eastwood et al. 2022, "Source-Free Adaptation to Measurement Shift via Bottom-Up Feature Restoration".
    """

    Settings = FrSettings
    name = "fr"
    needs = ("histograms",)
    dense = True
    several = True
    settings: FrSettings

    @classmethod
    def lacks(cls, model: AttentionModel) -> str:
        """Look for something before the classifier."""
        return "" if body_names(model) else "it moves what stands before the classifier `head`, and nothing does"

    def adapted(self) -> tuple[str, ...]:
        """Name all parameters before the classifier."""
        return body_names(self.model)

    def _prepare(self) -> None:
        replace_batch_norms(self.model, mixed(0))

    def _begin(self) -> None:
        assert self.source.histograms is not None
        self.running = self.source.histograms.shares
        self._descent = Descent(parameters_of(self.model, self._free()), self.settings)

    def _free(self) -> tuple[str, ...]:
        """Name what the next step may move."""
        return self.adapted()

    def _adapt(self, images: Tensor) -> Tensor:
        aim = self.source.histograms
        assert aim is not None
        features = self.model.features(images)
        with torch.no_grad():
            answer = self._predict(images)
        counts = soft_counts(rows(features.float()), aim.low, aim.high)
        share = min(1.0, len(images) / self.settings.window)
        shares = torch.lerp(self.running, counts / counts.sum(1, keepdim=True), share)
        if self._descent.step(divergence(aim.shares, shares), self.counts):
            self.running = shares.detach()
        return answer


class BufrSettings(FrSettings):
    """A stage is given so many steps before the next one joins; the paper gives it 30 passes."""

    steps_per_stage: int = Field(default=8, ge=1, le=100_000, description="steps before one more stage may move")


class BottomUpRestoration(FeatureRestoration):
    """FR in which the first stage moves alone, then the first two, until the whole body does.

    Source: as FR.
    """

    Settings = BufrSettings
    name = "bufr"
    settings: BufrSettings

    def _begin(self) -> None:
        self._open = 1
        self._steps = 0
        super()._begin()

    def _free(self) -> tuple[str, ...]:
        later = tuple(f"{path}." for stage in stages(self.model)[self._open :] for path in stage)
        return tuple(name for name in self.adapted() if not name.startswith(later))

    def _adapt(self, images: Tensor) -> Tensor:
        answer = super()._adapt(images)
        self._steps += 1
        if self._steps % self.settings.steps_per_stage == 0 and self._open < len(stages(self.model)):
            self._open += 1
            self.model.requires_grad_(False)
            self._descent = Descent(parameters_of(self.model, self._free()), self.settings)
        return answer

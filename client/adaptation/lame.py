"""LAME: answers of a batch that agree with the model and among neighbours; no weight moves."""

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from client.adaptation.answers import log_probabilities, of_classes
from client.adaptation.base import Adaptation, MethodSettings

TINY = 1e-30


class LameSettings(MethodSettings):
    """Defaults: the published code's."""

    neighbours: int = Field(default=5, ge=1, le=1000, description="nearest images that an image listens to")
    iterations: int = Field(default=100, ge=1, le=10_000, description="most iterations")
    tolerance: float = Field(default=1e-8, ge=0, lt=1, description="relative change of the objective that ends them")


class Lame(Adaptation):
    """min Σ_i KL(z_i ‖ p_i) − ½ Σ_ij w_ij z_i · z_j over answers z of a batch; keeps nothing for the next batch.

    w is the symmetric kNN affinity of normalised features. An image alone keeps its answer. The paper's step can make
    the objective rise where w has negative eigenvalues, as kNN affinities have; then half the step is tried, and so on.

    Source: Boudiaf et al. 2022, "Parameter-free Online Test-time Adaptation".
    """

    Settings = LameSettings
    name = "lame"
    settings: LameSettings

    def adapted(self) -> tuple[str, ...]:
        """Name nothing."""
        return ()

    def _adapt(self, images: Tensor) -> Tensor:
        return self._predict(images)

    @torch.no_grad()
    def _predict(self, images: Tensor) -> Tensor:
        logits = self.model(images)
        affinity = neighbour_affinity(self.model.features(images).double(), self.settings.neighbours)
        log_p = log_probabilities(logits).double()
        z = agree(log_p, affinity, self.settings.iterations, self.settings.tolerance)
        return of_classes(z, logits.shape[1])


def neighbour_affinity(features: Tensor, neighbours: int) -> Tensor:
    """Say 1 where two images are among each other's nearest, ½ where one is; 0 on the diagonal. [N, D] -> [N, N]."""
    unit = F.normalize(features, dim=1)
    near = unit @ unit.T
    near.fill_diagonal_(-torch.inf)
    count = min(neighbours, len(unit) - 1)
    chosen = torch.zeros_like(near).scatter_(1, near.topk(count, 1).indices, 1.0)
    return (chosen + chosen.T) / 2


def objective(z: Tensor, log_p: Tensor, affinity: Tensor) -> Tensor:
    """Give what LAME minimises, a scalar."""
    return (z * (z.clamp_min(TINY).log() - log_p)).sum() - (z * (affinity @ z)).sum() / 2


def agree(log_p: Tensor, affinity: Tensor, iterations: int, tolerance: float) -> Tensor:
    """Iterate z ← softmax(log p + W z), in float64, as long as the objective falls. [N, K], [N, N] -> [N, K]."""
    z, best = log_p.exp(), objective(log_p.exp(), log_p, affinity)
    for _ in range(iterations):
        target = (log_p + affinity @ z).softmax(1)
        for share in (1.0, 0.5, 0.25, 0.125, 0.0625):
            tried = z + share * (target - z)
            value = objective(tried, log_p, affinity)
            if value <= best:
                break
        else:
            return z
        z, fell, best = tried, best - value, value
        if fell <= tolerance * best.abs():
            return z
    return z

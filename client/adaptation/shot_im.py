"""SHOT-IM: sure of each image, and of every class over the batch; the classifier stays."""

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from client.adaptation.affine import parameters_of
from client.adaptation.answers import entropy, log_probabilities, rows
from client.adaptation.base import Adaptation
from client.adaptation.batch_norm import mixed, replace_batch_norms
from client.adaptation.descent import Descent, DescentSettings
from client.adaptation.head import body_names
from common.attention.base import AttentionModel


class ShotSettings(DescentSettings):
    """Defaults: the paper's step for the backbone (0.1 of 1e-2). The paper makes 15 passes; a stream has one."""

    learning_rate: float = Field(default=1e-3, gt=0, le=10, description="step size")
    steps: int = Field(default=1, ge=1, le=100, description="steps per batch")
    pseudo_weight: float = Field(
        default=0,
        ge=0,
        le=10,
        description="of SHOT's pseudo-labels from class centres; 0 is SHOT-IM, the paper has 0.3",
    )


class ShotIm(Adaptation):
    """min mean H(p) − H(mean p) + β CE(pseudo-label); predicts before its update, moves all but the classifier.

    The middle term pulls the batch to equal shares of the classes: it does harm where the classes are not equally
    frequent. A batch of one image teaches nothing (both entropies are equal) and is skipped.

    Source: Liang et al. 2020, "Do We Really Need to Access the Source Data?"; pseudo-labels per batch.
    """

    Settings = ShotSettings
    name = "shot-im"
    dense = True
    settings: ShotSettings

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
        self._descent = Descent(parameters_of(self.model, self.adapted()), self.settings)

    def _adapt(self, images: Tensor) -> Tensor:
        logits = first = self.model(images)
        for step in range(self.settings.steps):
            if step:
                logits = self.model(images)
            log_p = rows(log_probabilities(logits))
            if len(log_p) < 2:
                self.counts.skipped += 1
                break
            loss = information(log_p)
            if self.settings.pseudo_weight:
                features = rows(self.model.features(images)).detach()
                loss = loss + self.settings.pseudo_weight * F.nll_loss(log_p, pseudo_labels(features, log_p.detach()))
            self._descent.step(loss, self.counts)
        return self.told(first)


def information(log_p: Tensor) -> Tensor:
    """Mean entropy minus entropy of the mean: the mutual information of image and class, negated. [N, K] -> scalar."""
    marginal = log_p.exp().mean(0, keepdim=True).clamp_min(torch.finfo(log_p.dtype).tiny).log()
    return entropy(log_p).mean() - entropy(marginal)[0]


def pseudo_labels(features: Tensor, log_p: Tensor) -> Tensor:
    """Give each image the class of the nearest centre by cosine, centres first weighted by p, then by those labels.

    A class that no image has after the first pass keeps its first centre. Shapes: [N, D], [N, K] -> int64 [N].
    """
    unit = F.normalize(features.float(), dim=1)
    centres = log_p.exp().T @ unit
    labels = (unit @ F.normalize(centres, dim=1).T).argmax(1)
    hard = F.one_hot(labels, log_p.shape[1]).float()
    centres = torch.where(hard.sum(0)[:, None] > 0, hard.T @ unit, centres)
    return (unit @ F.normalize(centres, dim=1).T).argmax(1)

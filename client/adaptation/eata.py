"""EATA: entropy of images that are sure and new only, near the weights that mattered at the source."""

import math

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from client.adaptation.affine import affine_names, no_affine, parameters_of
from client.adaptation.answers import classes_of, entropy, log_probabilities, most_entropy, per_image
from client.adaptation.base import Adaptation
from client.adaptation.batch_norm import mixed, replace_batch_norms
from client.adaptation.descent import Descent, DescentSettings
from common.attention.base import AttentionModel

PUBLISHED_REDUNDANCY = 0.05


class EataSettings(DescentSettings):
    """Defaults: the paper's for ImageNet, but for the margin of redundancy, which `published` brings back."""

    entropy_share: float = Field(
        default=0.4, gt=0, le=1, description="E0 as a share of ln K: images above teach nothing"
    )
    fisher_weight: float = Field(default=2000, ge=0, le=1e9, description="how strongly weights that mattered are held")
    memory: float = Field(default=0.9, ge=0, lt=1, description="decay of the mean answer that images are compared with")
    published: bool = Field(
        default=False, description="take ε = 0.05 whatever K; at K = 2 that stops adaptation after the first batch"
    )


class Eata(Adaptation):
    """min Σ_x I[H < E0] I[|cos(p, p̄)| < ε] e^(E0 − H) H + α Σ F (θ − θ0)²; predicts before its update.

    p̄ is the running mean answer of what was learnt from. Two classes: even a certain answer has cosine 1/√2 = .707
    with an undecided p̄, so with the published ε = .05 next to nothing is ever new and the method is no adaptation.
    Ours is ε = .05 + 1/√K: the published margin and the cosine of a certain answer with an undecided one (K = 10: .37,
    where public settings have .4; K = 1000: .08). Segmentation: entropy and answer of an image are means over pixels.

    Source: Niu et al. 2022, "Efficient Test-Time Model Adaptation without Forgetting".
    """

    Settings = EataSettings
    name = "eata"
    needs = ("fisher",)
    dense = True
    settings: EataSettings

    @classmethod
    def lacks(cls, model: AttentionModel) -> str:
        """Look for normalisation layers."""
        return no_affine(model)

    def adapted(self) -> tuple[str, ...]:
        """Name the scales and shifts."""
        return affine_names(self.model)

    def _prepare(self) -> None:
        replace_batch_norms(self.model, mixed(0))

    def _begin(self) -> None:
        names = self.adapted()
        self._descent = Descent(parameters_of(self.model, names), self.settings)
        assert self.source.fisher is not None
        self._anchor = [(self.source.fisher[name], self._shipped[name]) for name in names]
        self.mean: Tensor | None = None

    def _adapt(self, images: Tensor) -> Tensor:
        logits = self.model(images)
        log_p = log_probabilities(logits)
        unsure = per_image(entropy(log_p))
        most = self.settings.entropy_share * most_entropy(logits.shape[1])
        p = log_p.detach().exp()
        p = p.flatten(2).mean(2) if p.ndim > 2 else p
        chosen = (unsure.detach() < most) & self._new(p)
        if not chosen.any():
            self.counts.skipped += 1
            return self.told(logits)
        h = unsure[chosen]
        loss = ((most - h.detach()).exp() * h).mean() + self.settings.fisher_weight * self._distance()
        if self._descent.step(loss, self.counts):
            seen = p[chosen].mean(0)
            self.mean = seen if self.mean is None else torch.lerp(seen, self.mean, self.settings.memory)
        return self.told(logits)

    def _new(self, p: Tensor) -> Tensor:
        if self.mean is None:
            return torch.ones(len(p), dtype=torch.bool, device=p.device)
        return F.cosine_similarity(p, self.mean[None], dim=1).abs() < redundancy(p.shape[1], self.settings.published)

    def _distance(self) -> Tensor:
        pairs = zip(self._descent.parameters, self._anchor, strict=True)
        return torch.stack([(fisher * (now - then).square()).sum() for now, (fisher, then) in pairs]).sum()


def redundancy(classes: int, published: bool) -> float:
    """Give ε: how like the mean answer an image's may be and still teach something."""
    return PUBLISHED_REDUNDANCY + (0.0 if published else 1 / math.sqrt(classes_of(classes)))

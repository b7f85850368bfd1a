"""A model of bags: each instance projected, weighed by attention, summed up and classified."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from common.attention import ATTENTION
from common.attention.base import AttentionModel
from common.config import ModelSection
from common.items import instances_of
from common.models.placement import NONE, choose, sites_of

GROWTH = 8


class MeanOfInstances(nn.Module):
    """Average the real instances: a bag without attention. Shapes: [B, N, D], bool [B, N] -> [B, D]."""

    def forward(self, instances: Tensor, mask: Tensor) -> Tensor:
        """Average; a bag with no real instance gives zeros."""
        share = mask / mask.sum(1, keepdim=True).clamp_min(1)
        return torch.einsum("bn,bnd->bd", share.to(instances), instances)


class BagClassifier(AttentionModel):
    """Project features to 8 `width`, normalise each instance, sum up the bag by attention.

    Instances never meet but in the sum, so their order and how far a bag is filled up change no answer. The LayerNorm
    makes features of any network and scale start alike.

    Shapes: bags [B, 1 + F, T, 1], as `common/items.py` tells -> logits [B, outputs]; features [B, 8 width].
    Source: Ilse et al. 2018, "Attention-based Deep Multiple Instance Learning"; a projection to 128 before it, and the
    gate, as the baseline of Ogier du Terrail et al. 2022, "FLamby", for Fed-Camelyon16, whose classifier has two
    hidden layers more. The LayerNorm is ours.
    """

    def __init__(self, features: int, outputs: int, width: int, attention: str) -> None:
        super().__init__()
        dim = GROWTH * width
        self.project = nn.Linear(features, dim)
        self.norm = nn.LayerNorm(dim)
        self.pool = MeanOfInstances() if attention == NONE else ATTENTION.load(attention).build(dim, (1,))
        self.head = nn.Linear(dim, outputs)
        self.attention_sites = sites_of(self.pool, "pool", "pool", (1,))

    def features(self, images: Tensor) -> Tensor:
        """Sum up the bags."""
        instances, real = instances_of(self.before(images))
        summary: Tensor = self.pool(F.relu(self.norm(self.project(instances))), real)
        return summary

    def forward(self, images: Tensor) -> Tensor:
        """Classify the bags."""
        logits: Tensor = self.head(self.features(images))
        return logits


def abmil(settings: ModelSection, channels: int, outputs: int, image_size: int) -> BagClassifier:
    """Build the classifier of bags, by itself with gated attention; `channels` is one more than the features."""
    return BagClassifier(channels - 1, outputs, settings.width, choose(settings, "gated-abmil", "bag", dims=1))

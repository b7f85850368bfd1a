"""A model so small that a test can do by hand what a method of adaptation does to it."""

import torch
from torch import nn

from common.attention.base import AttentionModel


class Tiny(AttentionModel):
    """Linear, LayerNorm, linear: two features of a 1 x 1 x 3 image."""

    def __init__(self, outputs):
        super().__init__()
        random = torch.Generator().manual_seed(0)
        self.first, self.norm, self.head = nn.Linear(3, 4), nn.LayerNorm(4), nn.Linear(4, outputs)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=random))

    def features(self, images):
        return self.norm(self.first(images.flatten(1)))

    def forward(self, images):
        return self.head(self.features(images))


def images(count=5, seed=1):
    return torch.randn(count, 1, 1, 3, generator=torch.Generator().manual_seed(seed))

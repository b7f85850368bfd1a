"""Two small models with every kind of attention, built from real layers."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from common.attention.base import AttentionModel, AttentionSite


class Gated(AttentionModel):
    """Channel gate, spatial gate and attention gate behind one convolution each."""

    def __init__(self, channels: int = 6) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, channels, 3, padding=1)
        self.channel = nn.Sequential(nn.Linear(channels, channels), nn.Sigmoid())
        self.spatial = nn.Sequential(nn.Conv2d(channels, 1, 3, padding=1), nn.Sigmoid())
        self.down = nn.Conv2d(channels, channels, 3, stride=2, padding=1)
        self.psi = nn.Sequential(nn.Conv2d(channels, 1, 1), nn.Sigmoid())
        self.drop = nn.Dropout(0.5)
        self.head = nn.Linear(channels, 2)
        self.attention_sites = (
            AttentionSite("se", "channel-gate", "channel", features="stem"),
            AttentionSite("where", "spatial-gate", "spatial"),
            AttentionSite("gate", "attention-gate", "psi"),
        )

    def features(self, images: Tensor) -> Tensor:
        x = self.stem(images)
        x = x * self.channel(x.mean((2, 3)))[:, :, None, None]
        x = F.relu(self.down(x * self.spatial(x)))
        return self.drop((x * self.psi(x)).mean((2, 3)))

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.features(images))


class Softmax(nn.Module):
    def forward(self, scores: Tensor) -> Tensor:
        return scores.softmax(-1)


class SelfAttention(nn.Module):
    """Fused unless `explicit`, as real layers are."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads, self.explicit = heads, False
        self.qkv, self.weights, self.out = nn.Linear(width, 3 * width), Softmax(), nn.Linear(width, width)

    def forward(self, tokens: Tensor) -> Tensor:
        q, k, v = self.qkv(tokens).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        if self.explicit:
            mixed = self.weights(q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5) @ v
        else:
            mixed = F.scaled_dot_product_attention(q, k, v)
        return tokens + self.out(mixed.transpose(1, 2).flatten(2))


class Tokens(AttentionModel):
    """A vision transformer of some layers, with a class token or without."""

    def __init__(self, layers: int = 2, heads: int = 2, cls: bool = True, patch: int = 4, size: int = 16) -> None:
        super().__init__()
        side = size // patch
        self.embed = nn.Conv2d(1, 8, patch, stride=patch)
        self.token = nn.Parameter(torch.randn(1, 1, 8)) if cls else None
        self.place = nn.Parameter(torch.randn(1, side * side + int(cls), 8))
        self.layers = nn.ModuleList(SelfAttention(8, heads) for _ in range(layers))
        self.head = nn.Linear(8, 2)
        self.attention_sites = tuple(
            AttentionSite(f"layer{i}", "self-attention", f"layers.{i}.weights", (side, side), cls, heads)
            for i in range(layers)
        )

    def features(self, images: Tensor) -> Tensor:
        x = self.embed(images).flatten(2).transpose(1, 2)
        if self.token is not None:
            x = torch.cat([self.token.expand(len(x), -1, -1), x], 1)
        x = x + self.place
        for layer in self.layers:
            x = layer(x)
        return x[:, 0] if self.token is not None else x.mean(1)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.features(images))


@pytest.fixture(autouse=True)
def _quiet() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def images() -> Tensor:
    return torch.randn(5, 1, 16, 16, generator=torch.Generator().manual_seed(3)).clamp(-1, 1)


@pytest.fixture
def gated_class() -> type[Gated]:
    return Gated


@pytest.fixture
def tokens_class() -> type[Tokens]:
    return Tokens


@pytest.fixture(params=["gated", "cls", "no-cls"])
def model(request: pytest.FixtureRequest) -> AttentionModel:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        return {"gated": Gated, "cls": Tokens, "no-cls": lambda: Tokens(cls=False)}[request.param]()

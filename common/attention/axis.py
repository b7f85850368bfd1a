"""Self-attention along one axis of a feature map, with learnt terms for how far places lie apart."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from common.attention.spatial import CONVOLUTIONS, Norm, blank
from common.errors import AttentionError, ConfigError


class PlaceScores(nn.Module):
    """Score each place's vector against the learnt vector of each offset from it.

    Shapes: vectors [B, heads, c, L, n] -> scores [B, heads, L, n, n], own place before the other.
    """

    def __init__(self, size: int, span: int) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.randn(size, 2 * span - 1) * (2 * size) ** -0.5)

    def forward(self, vectors: Tensor) -> Tensor:
        """Score."""
        return torch.einsum("bhcln,cnm->bhlnm", vectors, by_offset(self.table, vectors.shape[-1]))


class PlaceValues(nn.Module):
    """Mix the learnt vectors of the offsets as a map mixes values.

    Shapes: maps [B, L, heads, n, n] -> mixed [B, heads, c, L, n].
    """

    def __init__(self, size: int, span: int) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.randn(size, 2 * span - 1) * size**-0.5)

    def forward(self, maps: Tensor) -> Tensor:
        """Mix."""
        return torch.einsum("blhnm,cnm->bhcln", maps, by_offset(self.table, maps.shape[-1]))


def by_offset(table: Tensor, count: int) -> Tensor:
    """Give each pair of places the vector of their offset. Shapes: [c, 2 * span - 1] -> [c, n, n].

    Raises:
        AttentionError: A line has more places than the table knows.
    """
    span = (table.shape[1] + 1) // 2
    if count > span:
        raise AttentionError(
            f"axial attention met a line of {count} places. Allowed are {span} at most, the size it was built for; "
            f"build the layer for the larger grid."
        )
    places = torch.arange(count, device=table.device)
    return table[:, places - places[:, None] + span - 1]


class Balance(nn.Module):
    """Normalise score terms together and weigh each channel. There is no bias: softmax would not see it.

    Shapes: scores [B, C, *] -> the same.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))

    def forward(self, scores: Tensor) -> Tensor:
        """Normalise over all channels of an image."""
        return F.group_norm(scores, 1, self.weight)


class Gate(nn.Module):
    """Multiply by one learnt number. Shapes: any."""

    def __init__(self, first: float) -> None:
        super().__init__()
        self.gate = nn.Parameter(torch.tensor([first]))

    def forward(self, values: Tensor) -> Tensor:
        """Multiply."""
        return values * self.gate


class Places(nn.Module):
    """What offsets add to scores and values along a line; with `gated` each part has a learnt factor.

    Source: Wang et al. 2020, "Axial-DeepLab", eq. 4; gates and first values: Valanarasu et al. 2021, "Medical
    Transformer", eq. 4.
    """

    def __init__(self, size: int, span: int, gated: bool = False) -> None:
        super().__init__()
        self.query = PlaceScores(size // 2, span)
        self.key = PlaceScores(size // 2, span)
        self.value = PlaceValues(size, span)
        self.query_gate, self.key_gate, self.place_gate = (Gate(0.1) if gated else nn.Identity() for _ in range(3))
        self.value_gate = Gate(1.0) if gated else nn.Identity()

    def scores(self, query: Tensor, key: Tensor) -> tuple[Tensor, Tensor]:
        """Give two more terms of the scores. Shapes: each [B, heads, c, L, n] -> each [B, heads, L, n, n]."""
        return self.query_gate(self.query(query)), self.key_gate(self.key(key).transpose(-2, -1))

    def values(self, mixed: Tensor, maps: Tensor) -> tuple[Tensor, Tensor]:
        """Give the mixed values and the mixed offsets. Shapes: [B, heads, c, L, n], [B, L, heads, n, n]."""
        return self.value_gate(mixed), self.place_gate(self.value(maps))


class AxisAttention(nn.Module):
    """Every place looks at the places of its line along one axis.

    a_i = softmax_j balance(q_i·k_j, q_i·r^q_ij, k_j·r^k_ij),  o_i = norm(Σ_j a_ij v_j, Σ_j a_ij r^v_ij), where balance
    and norm normalise their parts and add them up. The vectors r belong to offsets and are shared by the heads; queries
    and keys have half the size of values. Without `places` the terms with r are missing.

    Shapes: features [B, C, *S] -> mixed [B, C, *S], maps [B, L, heads, n, n], n = S[axis].
    Source: Wang et al. 2020, "Axial-DeepLab", eq. 4.
    """

    def __init__(self, channels: int, dims: int, axis: int, heads: int, places: Places | None, norm: Norm) -> None:
        super().__init__()
        if channels % (2 * heads):
            raise ConfigError(
                f"{heads} heads with halved queries do not divide {channels} channels. Take a multiple of {2 * heads}."
            )
        self.axis, self.heads, self.places = axis, heads, places
        self.qkv = CONVOLUTIONS[dims](channels, 2 * channels, 1, bias=False)
        self.norm = norm(2 * channels)
        self.balance: nn.Module = Balance(heads if places is None else 3 * heads)
        self.maps = nn.Softmax(dim=-1)
        self.norm_out = norm(channels if places is None else 2 * channels)

    def attend(self, features: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Mix along the axis and give the map."""
        query, key, value = self._split(blank(features, mask))
        scores = [torch.einsum("bhcln,bhclm->bhlnm", query, key)]
        if self.places is not None:
            scores.extend(self.places.scores(query, key))
        balanced = self.balance(torch.cat(scores, 1)).unflatten(1, (len(scores), self.heads)).sum(1).transpose(1, 2)
        maps: Tensor = self.maps(self._hide(balanced, mask))
        mixed = torch.einsum("blhnm,bhclm->bhcln", maps, value)
        parts = (mixed,) if self.places is None else self.places.values(mixed, maps)
        return self._join(torch.stack(parts, 3), features), maps

    def forward(self, features: Tensor, mask: Tensor | None = None) -> Tensor:
        """Mix along the axis."""
        return self.attend(features, mask)[0]

    def _split(self, features: Tensor) -> tuple[Tensor, ...]:
        """Give query, key and value of each head, [B, heads, c, L, n]."""
        lines = self.norm(self.qkv(features)).movedim(2 + self.axis, -1).flatten(2, -2)
        size = features.shape[1] // self.heads
        parts: tuple[Tensor, ...] = lines.unflatten(1, (self.heads, -1)).split([size // 2, size // 2, size], 2)
        return parts

    def _hide(self, scores: Tensor, mask: Tensor | None) -> Tensor:
        """Finite, so that a line without anything real still has rows that sum to one."""
        if mask is None:
            return scores
        lines = mask.movedim(1 + self.axis, -1).flatten(1, -2)
        return scores.masked_fill(~lines[:, :, None, None], torch.finfo(scores.dtype).min)

    def _join(self, parts: Tensor, like: Tensor) -> Tensor:
        """Normalise and add the parts. Shapes: [B, heads, c, parts, L, n] -> [B, C, *S]."""
        normed: Tensor = self.norm_out(parts.flatten(1, 3)).unflatten(1, (like.shape[1], -1)).sum(2)
        shape = like.movedim(2 + self.axis, -1).shape
        # Opacus reads the strides of what a convolution is fed as row by row, and computes nonsense if they are not
        return normed.reshape(shape).movedim(-1, 2 + self.axis).contiguous()


def halved_heads(channels: int, heads: int = 4) -> int:
    """Give the most heads, `heads` at most, that leave an even number of channels to each.

    Raises:
        ConfigError: The number of channels is odd.
    """
    for count in range(heads, 0, -1):
        if channels % (2 * count) == 0:
            return count
    raise ConfigError(f"axial attention met {channels} channels. Allowed is an even number; add or drop one.")

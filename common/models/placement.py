"""Puts any layer of ATTENTION into any backbone: which fit where, what feeds them, and what their sites are called."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import nn

from common.attention import ATTENTION
from common.attention.base import AttentionLayer, AttentionSite, Grid, Kind, placed
from common.config import ModelSection
from common.errors import ConfigError, UnknownNameError
from common.models.on_grid import (
    BagOfPositions,
    FeaturesOfTokens,
    FramesOfTokens,
    PairOfTokens,
    SelfGated,
    TokensOfFeatures,
)

NONE = "none"
Spot = Literal["classifier", "block", "skip", "tokens", "bag"]
SPOTS: dict[Spot, tuple[str, ...]] = {
    "classifier": ("features", "tokens", "pair", "skip", "frames", "bag"),
    "block": ("features", "tokens", "pair", "skip", "frames"),
    "skip": ("features", "tokens", "pair", "skip", "frames"),
    "tokens": ("features", "tokens", "pair"),
    "bag": ("bag",),
}
"""What a layer may take at each spot: a classifier's blocks or final pooling, a segmenter's blocks, its skip
connections, a transformer's blocks, the pooling of a model of bags."""
EVERYWHERE, COARSEST = 400**2, 1024**2
"""A layer whose map has a row of keys for each position stands on every grid where the map of one head has at most so
many numbers, or else on the coarsest grid alone if it has no more than so many there."""
LEAST_SIDE = 4
"""Such a layer stands on no grid with a side below: a window inside could shrink to one position, of weight 1."""
KEYS: dict[Kind, Callable[[Grid], int]] = {
    "self-attention": math.prod,
    "cross-attention": math.prod,
    "axial": max,
    "window": lambda grid: 64,
    "neighbourhood": lambda grid: 64,
}
"""At most about so many keys per position; the other kinds have no keys."""


def choose(settings: ModelSection, own: str, spot: Spot, dims: int = 2) -> str:
    """Give the name of the attention layer that the settings ask for, or `none`.

    Args:
        settings: `attention` and `placement`; an empty `attention` is the model's own.
        own: The layer that the model has by itself.
        spot: Where it would stand.
        dims: Axes of the images.

    Raises:
        UnknownNameError: No such layer.
        ConfigError: It cannot stand there, or the model has no skip connections.
    """
    if settings.placement == "skip" and spot != "skip":
        raise ConfigError(
            f"model {settings.name!r} has no skip connections for `model.placement` = 'skip'. Allowed here is 'block'; "
            f"set that, or `model.name` to 'unet'."
        )
    name = settings.attention or own
    if name == NONE:
        return name
    if name not in ATTENTION:
        raise UnknownNameError("attention layer", name, [*ATTENTION, NONE])
    if not fits(name, spot, dims):
        allowed = [other for other in sorted(ATTENTION) if fits(other, spot, dims)]
        raise ConfigError(
            f"attention layer {name!r} takes {ATTENTION.load(name).takes} of {_axes(name)} axes and cannot stand in "
            f"the {spot} of model {settings.name!r} with images of {dims} axes. Allowed there: {', '.join(allowed)}, "
            f"{NONE}. Set `model.attention` to one of them."
        )
    return name


def fits(name: str, spot: Spot, dims: int = 2) -> bool:
    """Say whether a layer can stand at a spot of a model of images with so many axes."""
    layer = ATTENTION.load(name)
    if layer.takes not in SPOTS[spot]:
        return False
    if layer.takes == "frames":
        return dims == 3 and 2 in layer.dims
    if layer.takes == "bag":
        return 1 in layer.dims
    return dims in layer.dims or (layer.takes in ("tokens", "pair") and 1 in layer.dims)


def spread(name: str, grids: Sequence[Grid]) -> tuple[str, ...]:
    """Give the name for each of a model's grids, or `none` where the layer would cost too much or see too little.

    Raises:
        ConfigError: No grid fits.
    """
    kinds = key_kinds(name, len(grids[0]))
    if not kinds:
        return (name,) * len(grids)
    sizes = [map_size(kinds, grid) for grid in grids]
    wide = [size for size, grid in zip(sizes, grids, strict=True) if min(grid) >= LEAST_SIDE]
    if not wide or min(wide) > COARSEST:
        found = f"of {min(wide):,} numbers" if wide else "on grids with sides below four"
        raise ConfigError(
            f"attention layer {name!r} would have maps {found}. Allowed are sides of at least {LEAST_SIDE} and "
            f"{COARSEST:,} numbers per head; change `data.image-size`, set `model.placement` to 'block', or "
            f"`model.attention` to a gate such as 'se'."
        )
    most = max(EVERYWHERE, min(wide))
    return tuple(
        name if size <= most and min(grid) >= LEAST_SIDE else NONE for size, grid in zip(sizes, grids, strict=True)
    )


def map_size(kinds: frozenset[Kind], grid: Grid) -> int:
    """Give about how many numbers the largest map of these kinds has on a grid, per head and image."""
    return math.prod(grid) * max(KEYS[kind](grid) for kind in kinds)


def key_kinds(name: str, dims: int) -> frozenset[Kind]:
    """Give the kinds of a layer's maps that have keys, as a probe shows; none for gates, branches and pooling."""
    if name == NONE:
        return frozenset()
    layer = ATTENTION.load(name)
    grid = _inner(layer, (LEAST_SIDE,) * dims)
    with torch.random.fork_rng(devices=[]):  # the probe's arrays must not move those of the model
        sites = layer.build(16, grid, 16).sites(grid)
    return frozenset(site.kind for site in sites if site.kind in KEYS)


def feature_block(name: str, channels: int, grid: Grid) -> nn.Module:
    """Give a module [B, channels, *grid] -> the same shape, made of a layer of any kind but a bag; `none` does nothing.

    A layer of features stands as it is; one of tokens, pairs or frames behind a LayerNorm and beside a shortcut; one of
    skips is gated by the same features at half the size.
    """
    if name == NONE:
        return nn.Identity()
    layer = ATTENTION.load(name)
    if layer.takes == "features":
        made: nn.Module = layer.build(channels, grid)
        return made
    if layer.takes == "skip":
        return SelfGated(layer.build(channels, grid, channels), grid)
    return TokensOfFeatures(token_block(name, channels, grid), channels, _inner(layer, grid))


def token_block(name: str, channels: int, grid: Grid) -> nn.Module:
    """Give a module [B, N, channels] -> the same shape, N = product of the grid; with no norm and no shortcut."""
    layer, inner = ATTENTION.load(name), _inner(ATTENTION.load(name), grid)
    if layer.takes == "features":
        return FeaturesOfTokens(layer.build(channels, grid), grid)
    if layer.takes == "pair":
        return PairOfTokens(layer.build(channels, inner, channels), grid, inner)
    if layer.takes == "frames":
        return FramesOfTokens(layer.build(channels, grid), grid)
    made: nn.Module = layer.build(channels, inner)
    return made


def skip_block(name: str, channels: int, grid: Grid, coarse: int) -> nn.Module:
    """Give what stands on a skip connection: a layer of skips takes the coarse features too, others the skip alone."""
    if name != NONE and ATTENTION.load(name).takes == "skip":
        made: nn.Module = ATTENTION.load(name).build(channels, grid, coarse)
        return made
    return feature_block(name, channels, grid)


def bag_pooling(name: str, channels: int, grid: Grid) -> nn.Module:
    """Give a module [B, channels, *grid] -> [B, channels] made of a layer of bags."""
    bag = (math.prod(grid),)
    return BagOfPositions(ATTENTION.load(name).build(channels, bag), bag)


def is_bag(name: str) -> bool:
    """Say whether a layer takes the place of a classifier's final pooling."""
    return bool(name != NONE and ATTENTION.load(name).takes == "bag")


def sites_of(
    module: nn.Module, path: str, name: str, grid: Grid, features: str = "", cls: bool = False
) -> tuple[AttentionSite, ...]:
    """Give the sites of what this file built, standing at the submodule `path` of a model.

    Args:
        module: A block or pooling; one that does nothing has no site.
        path: Its place in the model.
        name: What the sites are called.
        grid: The grid that it was built for.
        features: Path of the submodule whose output the block gets, which a channel gate needs to be shown.
        cls: Whether a class token stands before the tokens.
    """
    if not isinstance(module, AttentionLayer) and not hasattr(module, "layer"):
        return ()
    while not isinstance(module, AttentionLayer):
        wrapper: Any = module
        features = {TokensOfFeatures: "", FeaturesOfTokens: f"{path}.to_grid"}.get(type(module), features)
        module, path, grid = wrapper.layer, f"{path}.layer", wrapper.grid
    return tuple(
        replace(site, features=features) if site.kind == "channel-gate" and not site.features else site
        for site in placed(module, path, name, grid, cls)
    )


def _inner(layer: type[AttentionLayer], grid: Grid) -> Grid:
    """The grid as the layer sees it: a layer of sequences alone sees a row of tokens."""
    return grid if layer.takes == "frames" or len(grid) in layer.dims else (math.prod(grid),)


def _axes(name: str) -> str:
    return " or ".join(map(str, ATTENTION.load(name).dims))

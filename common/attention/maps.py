"""Attention as pictures: one map per attention site on the grid of the input image, for people to look at."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from common.attention.base import AttentionModel, AttentionSite, Kind
from common.attention.histograms import TINY
from common.attention.recorder import Recorder
from common.attention.rows import AxialMaps, CrossMaps, NeighbourMaps, WindowMaps
from common.attention.signature import measuring
from common.attention.tokens import TokenMaps, cls_row
from common.errors import AttentionError


def attention_maps(model: AttentionModel, images: Tensor) -> dict[str, Tensor]:
    """Show where each attention site falls on each image.

    - Spatial gates and attention gates: the gates.
    - Self-attention: the class token's row over the patches, mean over heads; without a class token the attention that
      each patch receives, mean over heads and queries.
    - Channel gates have no place of their own. Where the site names its `features` F, the map is what the gates g let
      through: Σ_c g_c |F_c|. It shows where gated channels are active, not what the gate itself looked at. Sites
      without `features` have no map.
    - Windows, axes, neighbourhoods and cross-attention: the attention that each place, or key with a place, receives.
    - Branches, bags, and what has another number of axes than the images, have no map.

    All are resized linearly along each axis (pixel centres, no corners aligned). The model is left as it was.

    Shapes: images [B, C, H, W] or [B, C, D, H, W] -> each float32 [B, H, W] or [B, D, H, W] on the images' device, not
    negative, sum 1 per image.

    Raises:
        AttentionError: A site stays silent, or `features` names no submodule or one whose output does not fit.
    """
    size = tuple(images.shape[2:])
    sites = [site for site in model.attention_sites if has_place(site, len(size))]
    if not sites:
        return {}
    with measuring(model), Recorder(model, sites) as recorder, scaled_features(model, sites) as scaled:
        model(images)
        found = recorder.take()
        with torch.autocast(images.device.type, enabled=False):
            return {site.name: site_map(site, found[site.name], scaled, size) for site in sites}


def site_map(site: AttentionSite, tensor: Tensor, scaled: dict[str, Tensor], size: tuple[int, ...]) -> Tensor:
    """Draw one site's tensor on the image's grid; gradients flow through.

    Args:
        site: One that `has_place`.
        tensor: What the site gave.
        scaled: What channel gates scale, by site, as `scaled_features` keeps it.
        size: Of the image, as many axes as `has_place` was asked for.

    Shapes: tensor as the site's kind says -> float32 [B, *size], not negative, sum 1 per image.

    Raises:
        AttentionError: A channel gate's features do not fit its gates.
    """
    return spread(_MAPS[site.kind](site, tensor, scaled), size)


def has_place(site: AttentionSite, axes: int = 2) -> bool:
    """Say whether a site's attention can be shown on an image of so many axes; a gate without a grid has two."""
    if site.kind == "channel-gate":
        return bool(site.features)
    if site.kind == "cross-attention":
        return site.keys is not None and len(site.keys) == axes
    return site.kind in _MAPS and (2 if site.grid is None else len(site.grid)) == axes


def _mean_gates(site: AttentionSite, tensor: Tensor, scaled: dict[str, Tensor]) -> Tensor:
    return tensor.float().mean(1)


def _keys(site: AttentionSite, tensor: Tensor, scaled: dict[str, Tensor]) -> Tensor:
    view = CrossMaps(tensor, site)
    return view.received.reshape(-1, *view.keys)


def _gates(site: AttentionSite, tensor: Tensor, scaled: dict[str, Tensor]) -> Tensor:
    return tensor[:, 0].float()


def _tokens(site: AttentionSite, tensor: Tensor, scaled: dict[str, Tensor]) -> Tensor:
    view = TokenMaps(tensor, site)
    patches = cls_row(view.rows) if site.cls else view.received
    return patches.reshape(-1, *view.grid)


def _channels(site: AttentionSite, tensor: Tensor, scaled: dict[str, Tensor]) -> Tensor:
    features = scaled.get(site.name)
    if features is None or features.ndim < 4 or features.shape[:2] != tensor.shape:
        shape = "no tensor" if features is None else f"shape {tuple(features.shape)}"
        raise AttentionError(
            f"attention site {site.name!r}: its features {site.features!r} gave {shape} for gates of shape "
            f"{tuple(tensor.shape)}. Allowed is [B, C, *S] with the same B and C; name the submodule that is gated."
        )
    return torch.einsum("bc,bc...->b...", tensor.float(), features.float().abs())


_MAPS: dict[Kind, Callable[[AttentionSite, Tensor, dict[str, Tensor]], Tensor]] = {
    "channel-gate": _channels,
    "spatial-gate": _gates,
    "attention-gate": _gates,
    "feature-gate": _mean_gates,
    "self-attention": _tokens,
    "cross-attention": _keys,
    "window": lambda site, tensor, scaled: WindowMaps(tensor, site).received(),
    "axial": lambda site, tensor, scaled: AxialMaps(tensor, site).received(),
    "neighbourhood": lambda site, tensor, scaled: NeighbourMaps(tensor, site).received(),
}


@contextmanager
def scaled_features(model: AttentionModel, sites: Sequence[AttentionSite]) -> Iterator[dict[str, Tensor]]:
    """Keep the outputs of the submodules that channel gates scale, while entered."""
    kept: dict[str, Tensor] = {}

    def keep(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            if isinstance(output, Tensor):
                kept[name] = output

        return hook

    with ExitStack() as stack:
        for site in sites:
            if site.kind != "channel-gate":
                continue
            try:
                module = model.get_submodule(site.features)
            except AttributeError:
                raise AttentionError(
                    f"attention site {site.name!r} names the features {site.features!r}, which do not exist. Correct "
                    f"`features` in `attention_sites`."
                ) from None
            stack.callback(module.register_forward_hook(keep(site.name)).remove)
        yield kept


def spread(maps: Tensor, size: tuple[int, ...]) -> Tensor:
    """Bring maps [B, *s] to a size and to a sum of one; nothing anywhere counts as uniform."""
    mode = "bilinear" if len(size) == 2 else "trilinear"
    large = F.interpolate(maps[:, None], size=size, mode=mode, align_corners=False)[:, 0].clamp_min(0) + TINY
    return large / large.flatten(1).sum(1).reshape(-1, *[1] * len(size))

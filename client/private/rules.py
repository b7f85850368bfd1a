"""How a layer's gradient is taken apart by image, from what went in and the gradient of what came out.

RULES has the layers that are worth it; any other layer that maps [B, …] to [B, …] is taken apart by `any_layer`.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, vjp, vmap
from torch.nn import functional as F

from common.models.weight_standardised import WeightStandardisedConv2d, WeightStandardisedConv3d

Rows = dict[str, Tensor]
"""Per parameter [B, *shape]: each image's gradient."""


def linear(layer: nn.Linear, given: Tensor, gradient: Tensor) -> Rows:
    """Σ over tokens of g ⊗ x. Shapes: given [B, …, p], gradient [B, …, d]."""
    given = given.reshape(len(given), -1, given.shape[-1])
    gradient = gradient.reshape(len(gradient), -1, gradient.shape[-1])
    rows = {"weight": torch.bmm(gradient.transpose(1, 2), given)}
    return rows if layer.bias is None else {**rows, "bias": gradient.sum(1)}


def convolution(layer: nn.Conv2d | nn.Conv3d, given: Tensor, gradient: Tensor) -> Rows:
    """One grouped convolution whose groups are the images. Shapes: given [B, C, *S], gradient [B, D, *S']."""
    if not plainly_padded(layer):
        return any_layer(layer, given, gradient)
    axes = tuple(range(2, gradient.ndim))
    bias = {} if layer.bias is None else {"bias": gradient.sum(axes)}
    return {"weight": _filters(layer, given, gradient), **bias}


def standardised(layer: WeightStandardisedConv2d | WeightStandardisedConv3d, given: Tensor, gradient: Tensor) -> Rows:
    """As a convolution, and from each image's gradient of the standardised weight back to weight and gain."""
    if not plainly_padded(layer):
        return any_layer(layer, given, gradient)
    rows = convolution(layer, given, gradient)
    weight = layer.weight.detach().flatten(1)
    centred = weight - weight.mean(1, keepdim=True)
    scale = (centred.square().sum(1) + layer.epsilon).rsqrt()
    # v = gain·scale·c, c the centred filter: ∂gain = scale·⟨g, c⟩, ∂w = gain·scale·(g − mean g − scale²·⟨g, c⟩·c)
    found = rows["weight"].flatten(2)
    along = torch.einsum("bdn,dn->bd", found, centred)
    found = found - found.mean(2, keepdim=True)
    found.addcmul_((along * scale.square())[:, :, None], centred, value=-1)
    found.mul_((layer.gain.detach() * scale)[:, None])
    return {**rows, "weight": found.view_as(rows["weight"]), "gain": along * scale}


def group_norm(layer: nn.GroupNorm, given: Tensor, gradient: Tensor) -> Rows:
    """Σ over places of g·x̂ and of g. Shapes: both [B, C, *S]."""
    normal = F.group_norm(given, layer.num_groups, eps=layer.eps)
    axes = tuple(range(2, gradient.ndim))
    if not axes:
        return {"weight": gradient * normal, "bias": gradient}
    return {"weight": (gradient * normal).sum(axes), "bias": gradient.sum(axes)}


def layer_norm(layer: nn.LayerNorm, given: Tensor, gradient: Tensor) -> Rows:
    """Σ over tokens of g·x̂ and of g. Shapes: both [B, …, *normalized_shape]."""
    normal = F.layer_norm(given, layer.normalized_shape, eps=layer.eps)
    axes = tuple(range(1, gradient.ndim - len(layer.normalized_shape)))
    weighted = gradient * normal
    rows = {"weight": weighted.sum(axes) if axes else weighted}
    return rows if layer.bias is None else {**rows, "bias": gradient.sum(axes) if axes else gradient}


def any_layer(layer: nn.Module, given: Tensor, gradient: Tensor) -> Rows:
    """Differentiate the layer by itself, image by image."""
    own = {name: parameter.detach() for name, parameter in layer.named_parameters(recurse=False)}

    def back(image: Tensor, out: Tensor) -> Any:
        pull = vjp(lambda values: functional_call(layer, values, (image[None],)), own)[1]
        return pull(out[None])[0]

    rows: Rows = vmap(back)(given, gradient)
    return rows


RULES: dict[type[nn.Module], Callable[[Any, Tensor, Tensor], Rows]] = {
    nn.Linear: linear,
    nn.Conv2d: convolution,
    nn.Conv3d: convolution,
    WeightStandardisedConv2d: standardised,
    WeightStandardisedConv3d: standardised,
    nn.GroupNorm: group_norm,
    nn.LayerNorm: layer_norm,
}


def rows_of(layer: nn.Module, given: Tensor, gradient: Tensor) -> Rows:
    """Give each image's gradient of each of the layer's own parameters that learn. Shapes: [B, …], [B, …]."""
    own = [name for name, parameter in layer.named_parameters(recurse=False) if parameter.requires_grad]
    rows = RULES.get(type(layer), any_layer)(layer, given, gradient)
    if not all(name in rows for name in own):  # someone has put other parameters in the place of those of the rule
        rows = any_layer(layer, given, gradient)
    return {name: rows[name] for name in own}


def plainly_padded(layer: nn.Conv2d | nn.Conv3d) -> bool:
    """Say whether a convolution pads with zeros, by numbers."""
    return layer.padding_mode == "zeros" and not isinstance(layer.padding, str)


def back_to_weight(layer: nn.Conv2d | nn.Conv3d, given: Tensor, gradient: Tensor, like: Tensor, groups: int) -> Tensor:
    """Give the gradient of a convolution's weight, of the shape of `like`, whose values are not read."""
    sides = len(layer.stride)
    _, rows, _ = torch.ops.aten.convolution_backward(
        gradient,
        given,
        like,
        None,
        layer.stride,
        layer.padding,
        layer.dilation,
        False,
        [0] * sides,
        groups,
        [False, True, False],
    )
    found: Tensor = rows
    return found


def _filters(layer: nn.Conv2d | nn.Conv3d, given: Tensor, gradient: Tensor) -> Tensor:
    if all(side == 1 for side in layer.kernel_size) and layer.groups == 1 and not any(layer.padding):
        steps = (slice(None), slice(None), *(slice(None, None, step) for step in layer.stride))
        rows = torch.bmm(gradient.flatten(2), given[steps].flatten(2).transpose(1, 2))
        return rows.view(len(given), *layer.weight.shape)
    batch = len(given)
    joined = given.reshape(1, batch * given.shape[1], *given.shape[2:])
    out = gradient.reshape(1, batch * gradient.shape[1], *gradient.shape[2:])
    like = layer.weight.new_empty(batch * len(layer.weight), *layer.weight.shape[1:])
    return back_to_weight(layer, joined, out, like, layer.groups * batch).view(batch, *layer.weight.shape)

"""Inversions that need no search: what a gradient of one image says outright."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from common.errors import ConfigError
from common.models.vit import VisionTransformer

Gradients = dict[str, Tensor]
"""By the parameter's name, of its shape."""
SMALL = 1e-30


def input_of_linear(weight: Tensor, bias: Tensor) -> Tensor:
    """Read the input x of a linear layer: dW = δ xᵀ and db = δ, so x is dWᵀ db / ‖db‖².

    With noise, this is the least-squares fit of dW = db xᵀ.

    Shapes: weight [o, i], bias [o] -> [i].
    Source: Phong et al. 2018, section III; Geiping et al. 2020, proposition 3.1.
    """
    return weight.T @ bias / bias.square().sum().clamp_min(SMALL)


def label_of_bias(bias: Tensor) -> int:
    """Read the label from the gradient of the last layer's bias, which is p − onehot(y): y is where it is negative.

    Of a single logit it is σ(z) − y.

    Shapes: bias [K]. Source: Zhao, Mopuri, Bilen 2020 (iDLG), eq. 4.
    """
    if len(bias) == 1:
        return int(bias[0] < 0)
    return int(bias.argmin())


def patches_of_embedding(positions: Tensor, weight: Tensor) -> Tensor:
    """Read all patches of a transformer: the table of positions hands out what each token got back.

    Token t is W x_t + b + e_t, so its gradient δ_t is the row of the table's, and dW = Σ_t δ_t x_tᵀ: D equations for
    the T patches, at every pixel of a patch. Solved exactly where D ≥ T and the δ are independent, else by the
    shortest patches that fit.

    Shapes: positions [T, D], weight [D, P] -> [T, P].
    Source: Lu et al. 2022 (APRIL), which reads x from the attention layer instead; this system is ours.
    """
    solution: Tensor = torch.linalg.pinv(positions.double().T, rtol=1e-7) @ weight.double()
    return solution.to(weight.dtype)


def image_of_first_linear(model: nn.Module, gradients: Gradients, shape: tuple[int, ...]) -> Tensor:
    """Read the image from the first linear layer that takes all its pixels. -> `shape` [C, H, W].

    Raises:
        ConfigError: No layer does.
    """
    pixels = shape[0] * shape[1] * shape[2]
    for name, layer in model.named_modules():
        if isinstance(layer, nn.Linear) and layer.in_features == pixels and layer.bias is not None:
            return input_of_linear(gradients[f"{name}.weight"], gradients[f"{name}.bias"]).reshape(shape)
    raise ConfigError(
        f"{type(model).__name__} has no linear layer with a bias over {pixels} pixels. This inversion reads only such; "
        f"take another one."
    )


def image_of_transformer(model: nn.Module, gradients: Gradients, shape: tuple[int, ...]) -> Tensor:
    """Read the image from the patch embedding and the table of positions. -> `shape` [C, H, W].

    Raises:
        ConfigError: The model is no `VisionTransformer`.
    """
    if not isinstance(model, VisionTransformer):
        raise ConfigError(
            f"{type(model).__name__} has no patch embedding. This inversion reads vision transformers; take another."
        )
    patch = int(model.embed.kernel_size[0])
    table = gradients["positions.table"][0 if model.class_token is None else 1 :]
    patches = patches_of_embedding(table, gradients["embed.weight"].flatten(1))
    whole = F.fold(patches.T[None], model.sides, kernel_size=patch, stride=patch)
    return F.interpolate(whole, size=shape[1:], mode="bilinear", align_corners=False)[0]


def last_bias(model: nn.Module) -> str:
    """Name the bias of the last linear layer, whose gradient tells the label.

    Raises:
        ConfigError: There is none.
    """
    layers = [(name, each) for name, each in model.named_modules() if isinstance(each, nn.Linear)]
    named = [f"{name}.bias" for name, each in layers if each.bias is not None]
    if not named:
        raise ConfigError(
            f"{type(model).__name__} has no linear layer with a bias, from which the label is read. Attack a "
            f"classifier with such a head."
        )
    return named[-1]

"""Norms of the gradients of a matrix without the gradients, from what the tokens of each image have in common.

‖Σₜ gₜ ⊗ xₜ‖² = Σₛₜ ⟨gₛ, gₜ⟩⟨xₛ, xₜ⟩, and a convolution is a matrix over unfolded places.

Source: Goodfellow 2015, "Efficient Per-Example Gradient Computations"; Li et al. 2022, "Large Language Models Can Be
Strong Differentially Private Learners" (sequences); Bu et al. 2022, "Scalable and Efficient Training of Large
Convolutional Neural Networks with Differential Privacy".
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from client.private.factors import Factors
from client.private.rules import Rows, back_to_weight, plainly_padded

CHEAPER = 0.7
"""Gram matrices cost T²(d + p), the gradient itself T·d·p; below this share of it they are the faster way."""
Weigh = Callable[[Factors], Rows]
"""From the patients' factors to the weighted sum."""


def ghost(layer: nn.Module, given: Tensor, gradient: Tensor) -> tuple[Tensor, Weigh] | None:
    """Give squared norms [P] and the way to the weighted sum, or nothing where the gradient itself is cheaper."""
    if not _learns(layer, "weight"):
        return None
    if type(layer) is nn.Linear:
        tokens, wide, deep = given[0].numel() // layer.in_features, layer.in_features, layer.out_features
        return _linear(layer, given, gradient) if _cheaper(tokens, wide, deep) else None
    if type(layer) is nn.Conv2d and layer.groups == 1 and plainly_padded(layer):
        wide = layer.weight[0].numel()
        return (
            _convolution(layer, given, gradient) if _cheaper(gradient[0, 0].numel(), wide, len(layer.weight)) else None
        )
    return None


def squared_norms(given: Tensor, gradient: Tensor) -> Tensor:
    """Give ‖Σₜ gₜ ⊗ xₜ‖², made larger by what rounding may have taken from it. [P, T, p], [P, T, d] -> [P].

    Where tokens cancel, the terms are far larger than their sum: rounding alone can then make a long gradient look
    short, and it would be added unclipped. The error is within about u·√n·(Σₜ ‖gₜ‖‖xₜ‖)², for sums of n terms and
    numbers rounded by u (Higham and Mary 2019), and that is added. Without cancelling it is a few millionths.
    """
    inputs, outputs = torch.bmm(given, given.transpose(1, 2)), torch.bmm(gradient, gradient.transpose(1, 2))
    squares = (inputs * outputs).sum((1, 2))
    lengths = (inputs.diagonal(dim1=1, dim2=2) * outputs.diagonal(dim1=1, dim2=2)).sqrt().sum(1)
    terms = given.shape[2] + gradient.shape[2] + given.shape[1] ** 2
    slack = torch.finfo(given.dtype).eps * math.sqrt(terms)
    return squares.clamp_min(0) + slack * lengths.square()


def _linear(layer: nn.Linear, given: Tensor, gradient: Tensor) -> tuple[Tensor, Weigh]:
    """Shapes: given [P, …, p], gradient [P, …, d]."""
    given, gradient = _tokens(given), _tokens(gradient)
    squares = squared_norms(given, gradient)
    bias = gradient.sum(1) if _learns(layer, "bias") else None

    def weigh(factors: Factors) -> Rows:
        if layer.in_features < layer.out_features:  # the narrower side costs less to weigh
            left, right = factors.without(gradient), factors.scale(given)
        else:
            left, right = factors.scale(gradient), factors.without(given)
        rows = {"weight": left.flatten(0, 1).T @ right.flatten(0, 1)}
        return rows if bias is None else {**rows, "bias": factors.weigh(bias)}

    return _with(squares, bias), weigh


def _convolution(layer: nn.Conv2d, given: Tensor, gradient: Tensor) -> tuple[Tensor, Weigh]:
    """Shapes: given [P, C, H, W], gradient [P, D, H', W']."""
    size, padding, stride, dilation = layer.kernel_size, layer.padding, layer.stride, layer.dilation
    places = F.unfold(given, size, dilation=dilation, padding=padding, stride=stride)  # type: ignore[arg-type]
    squares = squared_norms(places.transpose(1, 2), gradient.flatten(2).transpose(1, 2))
    bias = gradient.sum((2, 3)) if _learns(layer, "bias") else None

    def weigh(factors: Factors) -> Rows:
        weighted = factors.scale(gradient)
        rows = {"weight": back_to_weight(layer, factors.without(given), weighted, layer.weight.detach(), groups=1)}
        return rows if bias is None else {**rows, "bias": factors.weigh(bias)}

    return _with(squares, bias), weigh


def _with(squares: Tensor, bias: Tensor | None) -> Tensor:
    return squares if bias is None else squares + bias.square().sum(1)


def _cheaper(tokens: int, wide: int, deep: int) -> bool:
    return tokens * (wide + deep) < CHEAPER * wide * deep


def _tokens(rows: Tensor) -> Tensor:
    return rows.reshape(len(rows), -1, rows.shape[-1]).contiguous()


def _learns(layer: nn.Module, name: str) -> bool:
    return any(own == name and each.requires_grad for own, each in layer.named_parameters(recurse=False))

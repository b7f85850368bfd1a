"""Inversion by search: the image whose gradient points the same way."""

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from common.data.base import Batch
from common.tasks.base import Task
from simulations.attacks.closed_forms import Gradients

STEPS, POLISH = 300, 100
SMOOTH = 1e-4
RATE = 0.05


def search(
    model: nn.Module, task: Task, gradients: Gradients, labels: Tensor, shape: tuple[int, ...], seed: int = 0
) -> Tensor:
    """Look for the image [C, H, W] in [-1, 1] whose gradient has the smallest cosine distance to `gradients`.

    Adam from noise, then L-BFGS; a little total variation keeps what the gradient leaves open smooth.

    Source: Geiping et al. 2020, "Inverting Gradients", eq. 4; the polish is that of Zhu et al. 2019.
    """
    target = torch.cat([gradients[name].flatten() for name, _ in learning(model)])
    image = 0.1 * torch.randn(1, *shape, generator=torch.Generator().manual_seed(seed))
    image.requires_grad_()

    def distance() -> Tensor:
        found = flat_gradient(model, task, Batch(images=image, labels=labels, masks=None), create_graph=True)
        return 1 - torch.cosine_similarity(found, target, dim=0) + SMOOTH * variation(image)

    def closure() -> Tensor:
        loss = distance()
        (image.grad,) = torch.autograd.grad(loss, image)
        return loss

    with sdpa_kernel(SDPBackend.MATH):  # the fused attention has no second derivative
        adam = torch.optim.Adam([image], lr=RATE)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(adam, STEPS)
        for _ in range(STEPS):
            closure()
            adam.step()
            schedule.step()
            with torch.no_grad():
                image.clamp_(-1, 1)
        torch.optim.LBFGS([image], max_iter=POLISH, line_search_fn="strong_wolfe").step(closure)  # type: ignore[no-untyped-call]
    return image.detach()[0].clamp(-1, 1)


def learning(model: nn.Module) -> list[tuple[str, nn.Parameter]]:
    """Give the parameters that learn, with their names, in order."""
    return [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]


def flat_gradient(model: nn.Module, task: Task, batch: Batch, create_graph: bool = False) -> Tensor:
    """Give the gradient of the batch's mean loss, all parameters that learn in one row; 0 where one has no part."""
    parameters = [parameter for _, parameter in learning(model)]
    loss = task.loss(model(batch.images), batch)
    found = torch.autograd.grad(loss, parameters, create_graph=create_graph, materialize_grads=True, allow_unused=True)
    return torch.cat([each.flatten() for each in found])


def variation(images: Tensor) -> Tensor:
    """Mean absolute difference of neighbouring pixels, along both axes. [B, C, H, W] -> scalar."""
    return images.diff(dim=2).abs().mean() + images.diff(dim=3).abs().mean()

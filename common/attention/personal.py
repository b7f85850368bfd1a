"""Personal attention: temperatures of heads, scales and biases of gates, that a site may keep for itself."""

import torch
from torch import Tensor, nn

from common.attention.base import AttentionModel, AttentionSite
from common.attention.checks import GATES
from common.attention.linear import Share
from common.errors import AttentionError

HEAD_AXES = {"self-attention": 1, "cross-attention": 1, "neighbourhood": 1, "window": 2, "axial": 2}
"""Where the scores of these kinds have their heads; other softmax kinds have one temperature."""


class HeadTemperature(nn.Module):
    """Scores times e^t, t one number per head, 0 at first. A leaf module, as every layer's parameters are.

    Scores that hide something (−inf, or the least finite number) stay as they are: t times −inf has no gradient, and
    the least number times e^t, t > 0, would leave a row that sees nothing real without any weight.

    Shapes: scores as the kind says, heads on axis `axis` -> the same.
    """

    def __init__(self, heads: int, axis: int) -> None:
        super().__init__()
        self.axis = axis
        self.log = nn.Parameter(torch.zeros(heads))

    def forward(self, scores: Tensor) -> Tensor:
        """Sharpen or soften the scores of each head."""
        shape = [1] * scores.ndim
        shape[self.axis] = len(self.log)
        hidden = scores <= torch.finfo(scores.dtype).min
        return torch.where(hidden, scores, self.log.exp().reshape(shape) * scores.masked_fill(hidden, 0))


class GateScale(nn.Module):
    """a u + b, a = 1 and b = 0 at first. Shapes: evidence of any shape -> the same."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))
        self.bias = nn.Parameter(torch.zeros(1))

    def forward(self, evidence: Tensor) -> Tensor:
        """Scale and shift the evidence."""
        return self.scale * evidence + self.bias


PERSONAL = (HeadTemperature, GateScale)


def personalise(model: AttentionModel) -> None:
    """Put personal parameters into every attention site whose map comes out of a softmax, sigmoid or their kin.

    The function of the model does not change. Layers with a fused path take the explicit one from here on, for the
    fused kernel knows no map. Sites whose map is made otherwise (linear attention) stay as they are.

    Source: research notes of the product, "FedAttnNorm": a FedBN (Li et al. 2021) for attention.

    Raises:
        AttentionError: No site of the model can have personal parameters.
    """
    placed = [place_personal(model, site) for site in model.attention_sites]
    if not any(placed):
        raise AttentionError(
            f"no attention site of {type(model).__name__} has a softmax or sigmoid that could be personal. Set "
            f"`model.personal-attention` to false, or `model.attention` to another layer."
        )


def place_personal(model: nn.Module, site: AttentionSite) -> bool:
    """Put the personal parameters before what makes a site's map; say whether that was possible."""
    if site.kind in GATES:
        return put_before(model, site, GateScale())
    heads = max(1, site.heads) if site.kind in HEAD_AXES else 1
    return put_before(model, site, HeadTemperature(heads, HEAD_AXES.get(site.kind, 1)))


def put_before(model: nn.Module, site: AttentionSite, change: nn.Module) -> bool:
    """Let `change` work on the scores that become a site's map; false where nothing makes the map out of scores.

    Layers around it are switched to their explicit path: the fused kernels know no map.
    """
    path = _maker(model, site.module)
    if path is None:
        return False
    parent, _, name = path.rpartition(".")
    around = model.get_submodule(parent)
    setattr(around, name, nn.Sequential(change, around.get_submodule(name)))
    parts = path.split(".")
    for module in (model.get_submodule(".".join(parts[:length])) for length in range(len(parts))):
        if hasattr(module, "explicit"):
            module.explicit = True  # type: ignore[assignment]
    return True


def _maker(model: nn.Module, path: str) -> str | None:
    """Find what makes the map: the last softmax or sigmoid, or the submodule itself where it is no more than that."""
    module = model.get_submodule(path)
    if not list(module.children()):
        # An identity only lets a map be seen that was made elsewhere; a share of a sum is the same for any temperature.
        return None if isinstance(module, nn.Identity | Share) or list(module.parameters()) else path
    found = [name for name, part in module.named_modules() if isinstance(part, nn.Softmax | nn.Sigmoid)]
    if found:
        return f"{path}.{found[-1]}"
    last = str(len(module) - 1) if isinstance(module, nn.Sequential) else ""
    return _maker(model, f"{path}.{last}") if last else None


def personal_parameters(model: nn.Module) -> tuple[str, ...]:
    """Name the personal parameters as `state_dict` does, in its order."""
    names = {
        f"{path}.{name}" if path else name
        for path, module in model.named_modules()
        if isinstance(module, PERSONAL)
        for name, _ in module.named_parameters(recurse=False)
    }
    return tuple(key for key in model.state_dict() if key in names)

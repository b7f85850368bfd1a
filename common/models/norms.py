"""Which arrays of a model belong to normalisation: what FedBN, and SiloBN in part, keep at the site."""

from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from common.models.weight_standardised import WEIGHT_STANDARDISED

NORMALISATIONS = (nn.GroupNorm, nn.LayerNorm, nn.RMSNorm, nn.LocalResponseNorm, _NormBase)


def norm_parameters(model: nn.Module) -> tuple[str, ...]:
    """Name the parameters and buffers of normalisation layers as `state_dict` does, in its order.

    A weight-standardised convolution takes the place of a normalisation layer: its gain and bias are the affine map
    that would follow one, so they count; its filters do not.

    Source: Li et al. 2021, "FedBN: Federated Learning on Non-IID Features via Local Batch Normalization", section 3.
    """
    names: set[str] = set()
    for path, module in model.named_modules():
        dot = f"{path}." if path else ""
        if isinstance(module, NORMALISATIONS):
            names.update(dot + key for key in module.state_dict())
        elif isinstance(module, tuple(WEIGHT_STANDARDISED.values())):
            names.update((f"{dot}gain", f"{dot}bias"))
    return tuple(key for key in model.state_dict() if key in names)


def norm_statistics(model: nn.Module) -> tuple[str, ...]:
    """Name the running means, variances and counters of normalisation layers as `state_dict` does, in its order.

    Empty where norms keep none: GroupNorm, LayerNorm and weight-standardised convolutions look at one image alone.

    Source: Andreux et al. 2020, "Siloed Federated Learning for Multi-Centric Histopathology Datasets", section 3.
    """
    buffers = {
        f"{path}.{name}" if path else name
        for path, module in model.named_modules()
        if isinstance(module, NORMALISATIONS)
        for name, _ in module.named_buffers(recurse=False)
    }
    return tuple(key for key in model.state_dict() if key in buffers)

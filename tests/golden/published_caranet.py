"""What stands around the reverse attention in CaraNet (Lou et al. 2022), rebuilt on the original weights.

Res2Net (Gao et al. 2019), the channel-wise feature pyramid (Lou and Loew 2021) and the partial decoder (Wu et al. 2019)
have no attention; they are here because what they compute reaches the layers of ours.
"""

import torch
from torch.nn import functional as F


class Parts:
    """Layers by the names of their weights, all functions of features [B, C, H, W]."""

    def __init__(self, weights, prefix=""):
        self.weights = {key.removeprefix(prefix): value for key, value in weights.items() if key.startswith(prefix)}

    def conv(self, features, name, stride=1, dilation=1):
        """Keep the size but for the stride; groups follow from the shapes."""
        weight, bias = self.weights[f"{name}.weight"], self.weights.get(f"{name}.bias")
        groups = features.shape[1] // weight.shape[1]
        return F.conv2d(features, weight, bias, stride, dilation * (weight.shape[-1] // 2), dilation, groups)

    def norm(self, features, name, eps=1e-5):
        statistics = (self.weights[f"{name}.{part}"] for part in ("running_mean", "running_var", "weight", "bias"))
        return F.batch_norm(features, *statistics, eps=eps)

    def act(self, features, name):
        return F.prelu(self.norm(features, f"{name}.bn", 1e-3), self.weights[f"{name}.acti.weight"])

    def conv_act(self, features, name, dilation=1):
        """Convolution, norm, PReLU."""
        return self.act(self.conv(features, f"{name}.conv", dilation=dilation), f"{name}.bn_relu")


def pyramid(features, weights, prefix="", dilation=8):
    """Four chains of three convolutions, each wider; all that a chain saw is kept, and chains are summed one by one."""
    parts = Parts(weights, prefix)
    narrow = parts.conv_act(parts.act(features, "bn_relu_1"), "conv1x1_1")
    total, sums = 0, []
    for chain, step in enumerate((1, dilation // 4 + 1, dilation // 2 + 1, dilation + 1), 1):
        kept = [narrow]
        for place in (1, 2, 3):
            kept.append(parts.conv_act(kept[-1], f"dconv_{chain}_{place}", step))
        total = total + torch.cat(kept[1:], 1)
        sums.append(total)
    return features + parts.conv(parts.act(torch.cat(sums, 1), "bn_relu_2"), "conv1x1.conv")


def backbone(images, weights):
    """Give the features of the last three stages: 1/8, 1/16 and 1/32 of the size."""
    parts = Parts(weights, "resnet.")
    features = parts.norm(parts.conv(images, "conv1.0", stride=2), "conv1.1").relu()
    features = parts.norm(parts.conv(features, "conv1.3"), "conv1.4").relu()
    features = F.max_pool2d(parts.norm(parts.conv(features, "conv1.6"), "bn1").relu(), 3, 2, 1)
    stages = []
    for stage in range(1, 5):
        features = scales(features, Parts(weights, f"resnet.layer{stage}.0."), 1 if stage == 1 else 2)
        stages.append(features)
    return stages[1:]


def scales(features, parts, stride):
    """A unit of Res2Net: the channels in four groups, three of them convolved, the last averaged."""
    *groups, last = parts.norm(parts.conv(features, "conv1"), "bn1").relu().chunk(4, 1)
    seen = [
        parts.norm(parts.conv(group, f"convs.{index}", stride), f"bns.{index}").relu()
        for index, group in enumerate(groups)
    ]
    joined = torch.cat([*seen, F.avg_pool2d(last, 3, stride, 1)], 1)
    beside = F.avg_pool2d(features, stride, stride, ceil_mode=True, count_include_pad=False)
    shortcut = parts.norm(parts.conv(beside, "downsample.1"), "downsample.2")
    return (parts.norm(parts.conv(joined, "conv3"), "bn3") + shortcut).relu()


def partial_decoder(coarse, middle, fine, weights):
    """Multiply finer features by coarser ones, join them, and give a first prediction."""
    parts = Parts(weights, "agg1.")

    def conv(features, name):
        return parts.conv(features, f"{name}.conv")

    def up(features):
        return F.interpolate(features, scale_factor=2, mode="bilinear", align_corners=True)

    middle_seen = conv(up(coarse), "conv_upsample1") * middle
    fine_seen = conv(up(up(coarse)), "conv_upsample2") * conv(up(middle), "conv_upsample3") * fine
    joined = conv(torch.cat([middle_seen, conv(up(coarse), "conv_upsample4")], 1), "conv_concat2")
    joined = conv(torch.cat([fine_seen, conv(up(joined), "conv_upsample5")], 1), "conv_concat3")
    return parts.conv(conv(joined, "conv4"), "conv5")


def resized(features, factor):
    return F.interpolate(features, scale_factor=factor, mode="bilinear", align_corners=False)

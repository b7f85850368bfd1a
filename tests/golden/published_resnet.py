"""The residual networks that published gates stand in, built from the shapes of their weights."""

from torch import nn
from torch.nn import functional as F

from common.attention.attention_branch import AttentionBranch
from common.attention.squeeze_excitation import SqueezeExcitation
from tests.golden.reference import BatchNorm


class Block(nn.Module):
    """Convolutions (the stride at the first of size 3), a gate where there is one, shortcut, ReLU."""

    def __init__(self, shapes, stride, prefix=""):
        super().__init__()
        shapes = {key.removeprefix(prefix): shape for key, shape in shapes.items() if key.startswith(prefix)}
        names = [key.removesuffix(".weight") for key in shapes if key.startswith("conv")]
        strided = next(name for name in names if shapes[f"{name}.weight"][-1] == 3)
        for name in names:
            out, given, size, _ = shapes[f"{name}.weight"]
            step = stride if name == strided else 1
            self.add_module(name, nn.Conv2d(given, out, size, step, size // 2, bias=False))
            self.add_module(name.replace("conv", "bn"), BatchNorm(out))
        self.count = len(names)
        self.se = self.downsample = None
        if "se.fc.0.weight" in shapes:
            hidden, channels = shapes["se.fc.0.weight"]
            self.se = SqueezeExcitation(channels, channels // hidden, bias=False, least=1)
        if "downsample.0.weight" in shapes:
            out, given = shapes["downsample.0.weight"][:2]
            self.downsample = nn.Sequential(nn.Conv2d(given, out, 1, stride, bias=False), BatchNorm(out))

    def attend(self, features):
        x, gates = features, ()
        for index in range(1, self.count + 1):
            x = getattr(self, f"bn{index}")(getattr(self, f"conv{index}")(x))
            x = x.relu() if index < self.count else x
        if self.se is not None:
            x, *gates = self.se.attend(x)
        shortcut = features if self.downsample is None else self.downsample(features)
        return (x + shortcut).relu(), *gates

    def forward(self, features):
        return self.attend(features)[0]


class Network(nn.Module):
    """Stem, stages `layer1` and on, mean, classifier; `attend` gives the maps too."""

    def __init__(self, sizes):
        super().__init__()
        shapes = sizes.shapes
        channels, given, self.size = shapes["conv1.weight"][:3]
        self.conv1 = nn.Conv2d(given, channels, self.size, 1 if self.size == 3 else 2, self.size // 2, bias=False)
        self.bn1 = BatchNorm(channels)
        self.names = sorted({key.split(".")[0] for key in shapes if key.startswith("layer")})
        for name in self.names:
            self.add_module(name, stage(shapes, name, 1 if name == "layer1" else 2))
        self.fc = nn.Linear(*shapes["fc.weight"][::-1])

    def stem(self, images):
        x = self.bn1(self.conv1(images)).relu()
        return x if self.size == 3 else F.max_pool2d(x, 3, 2, 1)

    def attend(self, images):
        x, maps = self.stem(images), []
        for name in self.names:
            for block in getattr(self, name):
                x, *gates = block.attend(x)
                maps.extend(gates)
        return self.fc(x.mean((2, 3))), *maps


class BranchNetwork(Network):
    """The same with an attention branch before the last stage; the branch has a copy of that stage, unstrided."""

    def __init__(self, sizes):
        super().__init__(sizes)
        classes, channels = sizes.shapes["att_conv.weight"][:2]
        self.branch = AttentionBranch(channels, classes, norm=BatchNorm)
        self.branch.evidence.insert(0, stage(sizes.shapes, f"att_{self.names[-1]}", 1))

    def both(self, images):
        """Give the branch's answer, the network's, and the map; and the map again, as the only one."""
        x = self.stem(images)
        for name in self.names[:-1]:
            x = getattr(self, name)(x)
        answer = self.branch.logits(x)
        x, gates = self.branch.attend(x)
        return (answer, self.fc(getattr(self, self.names[-1])(x).mean((2, 3))), gates), (gates,)


def stage(shapes, name, stride):
    """Give the blocks of one stage."""
    count = len({key.split(".")[1] for key in shapes if key.startswith(f"{name}.")})
    return nn.Sequential(*(Block(shapes, 1 if index else stride, f"{name}.{index}.") for index in range(count)))


BRANCH_ROWS = {
    "branch.evidence.1": "bn_att",
    "branch.evidence.2": "att_conv",
    "branch.evidence.3": "bn_att2",
    "branch.gate.0": "att_conv3",
    "branch.gate.1": "bn_att3",
    "branch.answer": "att_conv2",
}

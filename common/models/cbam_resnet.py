"""A small residual network with GroupNorm and CBAM in every block."""

from torch import Tensor, nn
from torch.nn import functional as F

from common.attention.base import AttentionModel, AttentionSite
from common.attention.cbam import Cbam
from common.config import ModelSection
from common.models.group_norm import normalised
from common.models.pooling import generalised_mean

BLOCKS = 2
STAGES = 3


class Block(nn.Module):
    """Two convolutions and CBAM beside a shortcut.

    Shapes: [B, inputs, H, W] -> [B, outputs, ceil(H / stride), ceil(W / stride)].
    Source: He et al. 2016, "Deep Residual Learning"; CBAM on the branch before the sum: Woo et al. 2018, figure 3.
    """

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.first = normalised(inputs, outputs, stride=stride)
        self.second = normalised(outputs, outputs)
        self.cbam = Cbam(outputs)
        changes = stride > 1 or inputs != outputs
        self.shortcut = normalised(inputs, outputs, kernel=1, stride=stride) if changes else nn.Identity()

    def forward(self, features: Tensor) -> Tensor:
        """Add the gated branch to the shortcut."""
        branch = self.cbam(self.second(F.relu(self.first(features))))
        return F.relu(branch + self.shortcut(features))


class CbamResNet(AttentionModel):
    """Three stages of two blocks with `width`, 2 and 4 `width` channels at 1/2, 1/4 and 1/8 of the image's side.

    Shapes: images [B, C, H, W] -> logits [B, outputs]; features [B, 4 width].
    """

    def __init__(self, channels: int, outputs: int, width: int) -> None:
        super().__init__()
        self.stem = normalised(channels, width, stride=2)
        blocks: list[Block] = []
        inputs = width
        for stage in range(STAGES):
            for block in range(BLOCKS):
                blocks.append(Block(inputs, width * 2**stage, stride=2 if stage and not block else 1))
                inputs = width * 2**stage
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Linear(inputs, outputs)
        self.attention_sites = tuple(
            site
            for i in range(len(blocks))
            for site in (
                AttentionSite(
                    f"block{i + 1}.channel", "channel-gate", f"blocks.{i}.cbam.channel", features=f"blocks.{i}.second"
                ),
                AttentionSite(f"block{i + 1}.spatial", "spatial-gate", f"blocks.{i}.cbam.spatial"),
            )
        )

    def features(self, images: Tensor) -> Tensor:
        """Sum up the last block's activations."""
        return generalised_mean(self.blocks(F.relu(self.stem(images))))

    def forward(self, images: Tensor) -> Tensor:
        """Classify."""
        logits: Tensor = self.head(self.features(images))
        return logits


def cbam_resnet(settings: ModelSection, channels: int, outputs: int, image_size: int) -> CbamResNet:
    """Build the classifier; any image size from 16 pixels up."""
    return CbamResNet(channels, outputs, settings.width)

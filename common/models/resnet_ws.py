"""A small residual network with weight-standardised convolutions, GroupNorm and an attention layer in every block."""

from torch import Tensor, nn
from torch.nn import functional as F

from common.attention.base import AttentionModel, AttentionSite, Grid
from common.config import ModelSection
from common.models.group_norm import normalised
from common.models.placement import NONE, bag_pooling, choose, feature_block, is_bag, sites_of, spread
from common.models.pooling import GeneralisedMean, classifier_grids

BLOCKS = 2
STAGES = 3


class Block(nn.Module):
    """Two convolutions and attention beside a shortcut; the attention's submodule is called as the layer.

    Shapes: [B, inputs, H, W] -> [B, outputs, ceil(H / stride), ceil(W / stride)] = [B, outputs, *grid].
    Source: He et al. 2016, "Deep Residual Learning"; attention on the branch before the sum: Woo et al. 2018, figure 3.
    """

    def __init__(self, inputs: int, outputs: int, stride: int, attention: str, grid: Grid) -> None:
        super().__init__()
        self.first = normalised(inputs, outputs, stride=stride)
        self.second = normalised(outputs, outputs)
        self.slot, self.grid = attention, grid
        self.add_module(attention, feature_block(attention, outputs, grid))
        changes = stride > 1 or inputs != outputs
        self.shortcut = normalised(inputs, outputs, kernel=1, stride=stride) if changes else nn.Identity()

    def forward(self, features: Tensor) -> Tensor:
        """Add the branch to the shortcut."""
        branch = self.get_submodule(self.slot)(self.second(F.relu(self.first(features))))
        return F.relu(branch + self.shortcut(features))


class ResNet(AttentionModel):
    """Three stages of two blocks with `width`, 2 and 4 `width` channels at 1/2, 1/4 and 1/8 of the image's side.

    A layer of bags takes the place of the final pooling and leaves the blocks without attention.

    Shapes: images [B, C, H, W] -> logits [B, outputs]; features [B, 4 width].
    """

    def __init__(self, channels: int, outputs: int, width: int, attention: str, image_size: int) -> None:
        super().__init__()
        grids = classifier_grids(image_size)
        names = spread(NONE if is_bag(attention) else attention, grids)
        self.stem = normalised(channels, width, stride=2)
        blocks: list[Block] = []
        inputs = width
        for stage in range(STAGES):
            for block in range(BLOCKS):
                stride = 2 if stage and not block else 1
                blocks.append(Block(inputs, width * 2**stage, stride, names[stage], grids[stage]))
                inputs = width * 2**stage
        self.blocks = nn.Sequential(*blocks)
        self.pool = bag_pooling(attention, inputs, grids[-1]) if is_bag(attention) else GeneralisedMean()
        self.head = nn.Linear(inputs, outputs)
        own = [site for i, block in enumerate(blocks) for site in block_sites(block, i)]
        self.attention_sites = (*own, *sites_of(self.pool, "pool", "pool", grids[-1]))

    def features(self, images: Tensor) -> Tensor:
        """Sum up the last block's activations."""
        summary: Tensor = self.pool(self.blocks(F.relu(self.stem(self.before(images)))))
        return summary

    def forward(self, images: Tensor) -> Tensor:
        """Classify."""
        logits: Tensor = self.head(self.features(images))
        return logits


def block_sites(block: Block, index: int) -> tuple[AttentionSite, ...]:
    """Give the sites of the network's block of this index."""
    path = f"blocks.{index}"
    layer = block.get_submodule(block.slot)
    return sites_of(layer, f"{path}.{block.slot}", f"block{index + 1}", block.grid, f"{path}.second")


def resnet_ws(settings: ModelSection, channels: int, outputs: int, image_size: int) -> ResNet:
    """Build the classifier, by itself with CBAM; any image size from 16 pixels up."""
    return ResNet(channels, outputs, settings.width, choose(settings, "cbam", "classifier"), image_size)

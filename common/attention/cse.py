"""Channel half of scSE: squeeze over space, excite the channels."""

from common.attention.squeeze_excitation import SqueezeExcitation


class ChannelExcitation(SqueezeExcitation):
    """Squeeze-and-excitation with half as many hidden units as channels, as the segmentation paper has it.

    Shapes: features [B, C, *S] -> gated [B, C, *S], gates [B, C].
    Source: Roy et al. 2018, "Concurrent Spatial and Channel Squeeze & Excitation in Fully Convolutional Networks",
    section 2 (cSE): gates sigmoid(W1 relu(W2 z)), z the mean over space.
    """

    def __init__(self, channels: int, reduction: int = 2) -> None:
        super().__init__(channels, reduction, least=1)

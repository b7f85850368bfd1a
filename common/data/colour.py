"""Grey images to colour and back."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

# ITU-R BT.601 luma: how colour becomes grey, as in Pillow's "L".
LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)


def to_channels(images: NDArray[Any], channels: int) -> NDArray[Any]:
    """Repeat grey, or weigh colours by their luma. Shapes: [N, 1 or 3, H, W] -> [N, channels, H, W], same dtype."""
    if images.shape[1] == channels:
        return images
    if channels == 3:
        return np.repeat(images, 3, axis=1)
    grey = np.tensordot(images.astype(np.float32), LUMA, axes=(1, 0))[:, None]
    # The weights add up to 1 but for rounding.
    return grey.clip(0, 1) if images.dtype == np.float32 else np.rint(grey).astype(np.uint8)

"""MODELS: name to builder `(settings: ModelSection, channels, outputs, image_size) -> AttentionModel`."""

from common.registry import Registry

MODELS = Registry(
    "model",
    {
        "se-convnet": "common.models.convnet:convnet",
        "vit-tiny": "common.models.vit:vit",
        "cbam-resnet": "common.models.resnet_ws:resnet_ws",
        "attention-unet": "common.models.unet:unet",
        "convnet": "common.models.convnet:convnet",
        "vit": "common.models.vit:vit",
        "resnet-ws": "common.models.resnet_ws:resnet_ws",
        "unet": "common.models.unet:unet",
        "abmil": "common.models.abmil:abmil",
    },
)

BAG_MODELS = ("abmil",)
"""Models of bags of instances (`common/items.py`); all others take images."""

"""MODELS: name to builder `(settings: ModelSection, channels, outputs, image_size) -> AttentionModel`."""

from common.registry import Registry

MODELS = Registry(
    "model",
    {
        "se-convnet": "common.models.se_convnet:se_convnet",
        "vit-tiny": "common.models.vit:vit_tiny",
        "cbam-resnet": "common.models.cbam_resnet:cbam_resnet",
        "attention-unet": "common.models.attention_unet:attention_unet",
    },
)

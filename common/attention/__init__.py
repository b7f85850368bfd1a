"""ATTENTION: name to attention layer class."""

from common.registry import Registry

ATTENTION = Registry(
    "attention layer",
    {
        "se": "common.attention.squeeze_excitation:SqueezeExcitation",
        "cbam": "common.attention.cbam:Cbam",
        "attention-gate": "common.attention.attention_gate:AttentionGate",
        "self-attention": "common.attention.self_attention:SelfAttention",
    },
)

"""ATTENTION: name to attention layer class."""

from common.registry import Registry

ATTENTION = Registry(
    "attention layer",
    {
        "se": "common.attention.squeeze_excitation:SqueezeExcitation",
        "cbam": "common.attention.cbam:Cbam",
        "attention-gate": "common.attention.attention_gate:AttentionGate",
        "eca": "common.attention.eca:EfficientChannelAttention",
        "cse": "common.attention.cse:ChannelExcitation",
        "sse": "common.attention.sse:SpatialExcitation",
        "scse": "common.attention.scse:ConcurrentExcitation",
        "spatial-gate": "common.attention.spatial_gate:SpatialAttention",
        "reverse-attention": "common.attention.reverse_attention:ReverseAttention",
        "axial-reverse": "common.attention.axial_reverse:AxialReverseAttention",
        "non-local": "common.attention.non_local:NonLocal",
        "residual-attention": "common.attention.residual_attention:ResidualAttention",
        "abn": "common.attention.attention_branch:AttentionBranch",
        "sk": "common.attention.selective_kernel:SelectiveKernel",
        "moe": "common.attention.moe:ExpertMixture",
        "self-attention": "common.attention.self_attention:SelfAttention",
        "relative-position": "common.attention.relative_position:RelativePosition",
        "window": "common.attention.window:WindowAttention",
        "shifted-window": "common.attention.window:ShiftedWindowAttention",
        "axial": "common.attention.axial:AxialAttention",
        "gated-axial": "common.attention.gated_axial:GatedAxialAttention",
        "linear": "common.attention.linear:LinearAttention",
        "top-k": "common.attention.top_k:TopKAttention",
        "sparsemax": "common.attention.sparsemax:SparsemaxAttention",
        "entmax": "common.attention.entmax:EntmaxAttention",
        "local-global": "common.attention.local_global:LocalGlobalAttention",
        "criss-cross": "common.attention.criss_cross:CrissCross",
        "pooled-keys": "common.attention.pooled_keys:PooledKeys",
        "transposed": "common.attention.transposed:TransposedAttention",
    },
)

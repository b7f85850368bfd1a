"""ENGINES: ways to make the sum of clipped patient gradients. One file each, held to one contract test."""

from common.registry import Registry

ENGINES = Registry(
    "gradient engine",
    {
        "auto": "client.private.auto:auto",
        "one-backward": "client.private.one_backward:one_backward",
        "per-sample": "client.private.per_sample:per_sample",
        "opacus": "client.private.with_opacus:with_opacus",
    },
)

"""GUIDANCE: name of a weight in the settings `[guidance]` to the term that it weighs, built by `Term(known: Known)`."""

from common.registry import Registry

GUIDANCE = Registry(
    "guidance",
    {
        "teacher": "client.guidance.teacher:Teacher",
        "alignment": "client.guidance.alignment:Alignment",
        "band": "client.guidance.band:Band",
        "anatomy": "client.guidance.anatomy:Anatomy",
        "masks": "client.guidance.masks:Masks",
        "adversary": "client.guidance.adversary:Adversary",
    },
)

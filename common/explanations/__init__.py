"""EXPLANATIONS: name to a way of showing why a model answers as it does, built without arguments."""

from common.registry import Registry

EXPLANATIONS = Registry(
    "explanation",
    {
        "raw": "common.explanations.raw:Raw",
        "gates": "common.explanations.gates:Gates",
        "rollout": "common.explanations.rollout:Rollout",
        "relevance": "common.explanations.relevance:Relevance",
        "grad-cam": "common.explanations.grad_cam:GradCam",
        "hybrid": "common.explanations.hybrid:Hybrid",
    },
)

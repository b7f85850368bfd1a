"""What a reply must be before it counts: one bad site is left out by code, and never ends the run or spoils the sum."""

from collections import Counter
from collections.abc import Mapping

import numpy as np

from common.arrays import Arrays, all_finite, misfit
from common.attention.base import AttentionModel
from common.attention.health import health_names
from common.attention.health_sums import HealthSums
from common.attention.schema import schema_of
from common.attention.signature import Signature
from common.messages import EvaluateReply, TrainReply
from server.strategies.base import Strategy, Weighted

Codes = dict[str, str]
"""Site to code, of what was left out."""
SLACK = 1e-6
"""Relative rounding allowed in a norm."""


def sound_updates(
    replies: Mapping[str, TrainReply], arrays: Arrays, strategy: Strategy
) -> tuple[list[Weighted], Codes]:
    """Keep the updates that fit the arrays, are finite, rest on images, and come with what the strategy asked for."""
    usable, codes = [], {}
    for name, reply in sorted(replies.items()):
        if problem := misfit(reply.update, arrays):
            codes[name] = f"update-{problem}"
        elif reply.images < 1:
            codes[name] = "no-images"
        elif problem := strategy.unfit(reply.told, arrays):
            codes[name] = problem
        else:
            usable.append(Weighted(site=name, update=reply.update, weight=float(reply.images), told=reply.told))
    return usable, codes


def sound_signatures(
    replies: Mapping[str, TrainReply | EvaluateReply], model: AttentionModel
) -> tuple[dict[str, Signature], Codes]:
    """Keep the signatures of this model's schema whose sums its patients can add up to, each with a norm of one."""
    found = {name: reply.signature for name, reply in sorted(replies.items()) if reply.signature}
    codes = {name: code for name, signature in found.items() if (code := _problem(signature, model))}
    return {name: signature for name, signature in found.items() if name not in codes}, codes


def sound_health(replies: Mapping[str, TrainReply | EvaluateReply], model: AttentionModel) -> dict[str, HealthSums]:
    """Keep the health sums of this model's statistics that rest on patients; they only inform, so no code is given."""
    names = health_names(model) if model.attention_sites else ()
    found = {name: reply.health for name, reply in sorted(replies.items()) if reply.health}
    return {name: sums for name, sums in found.items() if sums.names == names and sums.counts.sum() > 0}


def sound_judgements(replies: Mapping[str, EvaluateReply]) -> tuple[dict[str, EvaluateReply], Codes]:
    """Keep the replies whose loss and sums are finite and of the shapes that most sites send: only these add."""
    shapes = {
        name: tuple(sorted((metric, sums.shape) for metric, sums in reply.sums.items()))
        for name, reply in sorted(replies.items())
    }
    usual = Counter(shapes.values()).most_common(1)[0][0] if shapes else ()
    codes = {}
    for name, reply in replies.items():
        if reply.images < 1:
            codes[name] = "no-images"
        elif shapes[name] != usual:
            codes[name] = "sums-shape"
        elif not all_finite(reply.sums):
            codes[name] = "sums-not-finite"
        elif not np.isfinite(reply.loss_sum):
            codes[name] = "loss-not-finite"
    return {name: reply for name, reply in replies.items() if name not in codes}, codes


def _problem(signature: Signature, model: AttentionModel) -> str:
    schema = schema_of(model) if model.attention_sites else None
    if schema is None or signature.schema != schema.id or signature.total.shape != (schema.length,):
        return "signature-schema"
    most = signature.patients * (1 + SLACK)
    within = np.linalg.norm(signature.total) <= most and 0 <= signature.squares.min() <= signature.squares.sum() <= most
    return "" if signature.patients > 0 and within else "signature-norm"

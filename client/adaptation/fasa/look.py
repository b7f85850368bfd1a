"""One forward pass as FASA sees it: answers, the attention signature, and the vital signs of every head and gate."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from client.adaptation.answers import log_probabilities
from common.attention.base import AttentionModel, AttentionSite
from common.attention.blocks import RULES, site_blocks
from common.attention.checks import GATES
from common.attention.health import branch_collapse, collapse, saturation
from common.attention.recorder import Recorder
from common.attention.reduction import Reduction, assemble
from common.attention.schema import Schema

TALKING = frozenset(kind for kind, rules in RULES.items() if any(rule.name == "head_ent" for rule in rules))
"""Kinds whose heads' entropies are measured one by one."""


@dataclass(frozen=True, slots=True, eq=False)
class Look:
    """What a batch brought, with gradients where they are on.

    Shapes: log_p [B, K], K = 2 for a binary task; rows float32 [B, d]; vitals float32 [B, v], in the order of
    `vital_names`.
    """

    log_p: Tensor
    rows: Tensor
    vitals: Tensor


def look(model: AttentionModel, images: Tensor, schema: Schema) -> Look:
    """Run the model once and listen to every attention site.

    `schema` is that of the model as it was shipped: personal parameters would change the id, not the meaning.

    Raises:
        AttentionError: A site stays silent, or its tensor is not finite.
    """
    reduction = Reduction(schema, model.attention_sites)
    heard = {site.name for site in reduction.sites}
    rows: dict[str, Tensor] = {}
    signs: dict[str, Tensor] = {}

    def reduce(site: AttentionSite, tensor: Tensor) -> Tensor:
        if site.name in heard:
            rows[site.name] = reduction(site, tensor)
        signs[site.name] = vitals_of(site, tensor)
        return tensor.new_zeros(())

    with Recorder(model, reduce=reduce) as recorder:
        logits = model(images)
        recorder.take()
    found = assemble([rows[site.name] for site in reduction.sites], schema).float()
    vitals = torch.cat([signs[site.name] for site in model.attention_sites], 1)
    return Look(log_probabilities(logits), found, vitals)


def normalised(features: Tensor) -> Tensor:
    """Standardise over the entries of each image and divide by √D, so that every row has norm 1.

    Shapes: [B, D] -> float32 [B, D].
    """
    found = features.float().flatten(1)
    away = found - found.mean(1, keepdim=True)
    norms: Tensor = torch.linalg.vector_norm(away, dim=1, keepdim=True)
    return away / norms.clamp_min(1e-6)


def vitals_of(site: AttentionSite, tensor: Tensor) -> Tensor:
    """Give a site's vital signs per image, in [0, 1]: each head's mean entropy, a gate's saturation, else collapse.

    Shapes: tensor as the site's kind says -> float32 [B, heads] or [B, 1].
    """
    tensor = tensor.detach()
    if site.kind in GATES:
        return saturation(tensor)[:, None]
    if site.kind in TALKING and site.heads:
        return site_blocks(site, tensor, ["head_ent"])["head_ent"].float()
    return (branch_collapse if site.kind == "branch" else collapse)(tensor.float())[:, None]


def vital_names(sites: Sequence[AttentionSite]) -> tuple[str, ...]:
    """Name the columns of `Look.vitals`, in the order in which the model names its sites."""
    names: list[str] = []
    for site in sites:
        if site.kind in GATES:
            names.append(f"{site.name}/saturation")
        elif site.kind in TALKING and site.heads:
            names += [f"{site.name}/head-{head}/entropy" for head in range(site.heads)]
        else:
            names.append(f"{site.name}/collapse")
    return tuple(names)

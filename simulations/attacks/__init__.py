"""ATTACKS: name to a pure function that returns findings, each against what a claimed (ε, δ) allows."""

from common.registry import Registry

ATTACKS = Registry(
    "attack",
    {
        "canaries": "simulations.attacks.canaries:audit",
        "attention-map": "simulations.attacks.attention_map:attention_map",
        "inversion": "simulations.attacks.inversion:inversion",
        "membership": "simulations.attacks.membership:membership",
        "signature-membership": "simulations.attacks.signature_membership:signature_membership",
    },
)

"""The settings of privacy and of secure aggregation."""

from typing import Literal

from pydantic import Field

from common.section import Section


class PrivacySection(Section):
    """What protects the patients, and how much of their privacy the run may spend. The unit is the patient."""

    mechanism: Literal["none", "gaussian", "discrete-gaussian", "skellam"] = Field(
        description="noise: none protects nothing and is said aloud; gaussian for noise at the site or the server; "
        "discrete-gaussian and skellam for shares of noise under secure aggregation"
    )
    placement: Literal["site", "distributed", "central"] = Field(
        description="who adds noise. site: every site all of it, which protects from the server and the other sites; "
        "distributed: each a share that only the sum makes whole; central: the server, which must be trusted"
    )
    epsilon: float = Field(
        gt=0, le=1000, description="what the whole run may cost a patient: training, signatures, metrics"
    )
    delta: float = Field(gt=0, lt=1, description="chance with which epsilon may not hold; less than 1 / patients")
    clip_norm: float = Field(gt=0, le=1e6, description="largest L2 norm of one patient's gradient")
    clipping: Literal["flat", "automatic"] = Field(
        description="flat: shorten what is longer than clip-norm; automatic: bring every gradient to that length"
    )
    sampling_probability: float = Field(gt=0, le=1, description="chance that a patient takes part in a step")
    noise_multiplier: float = Field(
        ge=0, le=1e6, description="noise of a step, in clip norms; 0 finds the least that keeps to epsilon"
    )
    micro_batch: int = Field(ge=1, le=4096, description="images whose gradients are held at once")
    images_per_patient: int = Field(ge=1, le=1000, description="at most so many images of a patient in a step")
    engine: Literal["auto", "one-backward", "per-sample", "opacus"] = Field(
        description="how gradients of single patients are made; auto takes one-backward where the model allows it"
    )
    signature_clip: float = Field(gt=0, le=2, description="farthest that one patient's signature counts from the prior")
    signature_noise_multiplier: float = Field(
        gt=0, le=1e6, description="noise of a signature's release, in sensitivities"
    )
    distance_noise_multiplier: float = Field(
        ge=0,
        le=1e6,
        description="scale of the Laplace noise, in sensitivities, of how far each site's attention lies from the "
        "others' at the end; 0 releases none, for it is one number of each site, which the server sees",
    )
    metrics_every: int = Field(ge=0, description="rounds between releases of validation metrics; 0 releases none")
    metrics_noise_multiplier: float = Field(gt=0, le=1e6, description="noise of a release of metrics, in sensitivities")
    fewest_patients: int = Field(
        ge=1,
        description="a site with fewer training patients takes no part; a step's sum is divided by what so many give, "
        "for the noise of a mean over all would tell how many patients there are",
    )

    @property
    def on(self) -> bool:
        """Whether anything is protected."""
        return self.mechanism != "none"


class SecureAggregationSection(Section):
    """Whether the server sees single updates, or only their sum (docs/reference/secure-aggregation.md)."""

    enabled: bool = Field(description="mask what sites send, so that only the sum can be opened")
    fewest_sites: int = Field(ge=3, le=1000, description="a sum of fewer sites is never opened")
    colluders: int = Field(ge=0, le=1000, description="sites that may work together with the server and learn no more")
    ring_bits: Literal[32, 64] = Field(description="bits of a masked number: 32 for small messages, 64 for fine ones")
    update_bound: float = Field(
        gt=0, le=1e6, description="largest L2 norm of a site's update; longer ones are shortened"
    )
    most_images: int = Field(ge=1, le=10**7, description="a site with more images counts as so many; hidden weights")
    groups: int = Field(ge=1, le=100, description="sum in so many groups, drawn anew each round, and combine robustly")
    combine: Literal["mean", "median", "trimmed-mean", "krum"] = Field(
        description="how groups' means become one: all but mean need three groups or more"
    )
    roster: str = Field(description="the server's file of the sites' public keys; empty for simulated sites")
    consistency: Literal["threshold", "signed"] = Field(
        description="threshold: more sites must live; signed: one trip more, and a lie about who lives is found"
    )


def protection_name(privacy: PrivacySection, secure: SecureAggregationSection) -> str:
    """Say in a few words what protects the patients of a run; "none" when nothing does."""
    summed = ", summed securely" if secure.enabled else ""
    if not privacy.on:
        return f"none{summed}"
    where = {"site": "noise at each site", "distributed": "noise in shares", "central": "noise at the server"}
    return (
        f"{privacy.mechanism} {where[privacy.placement]}, epsilon {privacy.epsilon:g} at delta {privacy.delta:g} a "
        f"patient{summed}"
    )

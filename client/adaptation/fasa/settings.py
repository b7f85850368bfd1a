"""Settings of FASA, each default from the research notes of the product, section 5.4."""

from typing import Literal

from pydantic import Field

from client.adaptation.base import MethodSettings
from client.adaptation.fasa.accept import Limits


class FasaSettings(Limits, MethodSettings):
    """Settings of FASA: how it adapts, and the limits of its six tests."""

    locked: bool = Field(False, description="measure and flag, never adapt: for regulated use")
    projected: bool = Field(True, description="project label directions out; false is an ablation, and unsafe")
    beyond: Literal["site", "sample"] = Field(
        "site", description="adapt beyond what source sites vary, or already beyond what their patients vary"
    )
    steps: int = Field(5, ge=1, le=100, description="gradient steps per window, then the six tests")
    learning_rate: float = Field(1e-3, gt=0, le=1, description="of scales and shifts; halved by a step that climbs")
    attention_learning_rate: float = Field(2e-3, gt=0, le=1, description="of temperatures and gates; halved likewise")
    feature_weight: float = Field(1.0, ge=0, le=100, description="of the projected distance of features")
    anchor: float = Field(1e-3, ge=0, le=100, description="of the squared distance to the shipped weights")
    guard: float = Field(0.1, ge=0, le=100, description="of answers drifting from the estimated label mix")
    slack: float = Field(0.05, ge=0, le=10, description="nats of such a drift that cost nothing")
    escalation: float = Field(0.0, ge=0, le=100, description="of information maximisation with the estimated mix")
    largest_gradient: float = Field(1.0, gt=0, le=1e6, description="norm to which gradients are cut")

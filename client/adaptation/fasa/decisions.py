"""What FASA decided of each window, for a log that a person reads later."""

from dataclasses import dataclass
from typing import Literal

from client.adaptation.fasa.accept import Evidence
from common.shift.nulls import Verdict

Action = Literal["source", "locked", "frozen", "adapted", "waiting", "rolled-back"]
"""source: no alarm, shipped weights. locked, frozen: alarm, and adapting is not allowed or not any more. adapted: the
adapted weights passed all tests and answer. waiting: they do no harm and no good yet, shipped weights answer.
rolled-back: they failed a test, and are gone for good."""


@dataclass(frozen=True, slots=True)
class Decision:
    """One window: how far it lies, what was done, and why."""

    window: int
    distance: float
    verdict: Verdict
    action: Action
    objections: tuple[str, ...] = ()
    evidence: Evidence | None = None

    @property
    def flagged(self) -> bool:
        """Whether a person should look at the answers: the window lies beyond what source sites vary."""
        return self.verdict == "alarm"

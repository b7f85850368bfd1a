"""One record per round, in a journal; after a resume the last record of a round counts."""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from common.errors import RunFolderError
from common.journal import Journal

NAME = "history.jsonl"
POOLED = "(pooled)"


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundRecord:
    """What one round brought. Metrics that are undefined at a site are left out of its record.

    `evaluation` maps a site (or "(pooled)", the metric over the added sums of the source sites) to its metrics on the
    validation images; `train_loss` maps a site to its mean loss in the last local epoch; `failures` maps
    a site to a code; `health` a site to the worst value of each family of statistics (`server/health.py`), where
    attention was measured; `alarms` a site to the families past their bound, with the statistic that shows it;
    `weights` a site to the factor by which attention multiplied its weight, where it did; `distances` a site to how far
    its attention lies from the others' under privacy, the standard deviation of the noise in it, and how far it would
    seem to lie by the prior's noise alone; `vectors` a site to its noisy mean signature, where that says more than its
    noise (`server/released_signatures.py`).
    """

    round: int
    cohort: tuple[str, ...]
    train_loss: dict[str, float]
    evaluation: dict[str, dict[str, float]]
    failures: dict[str, str] = field(default_factory=dict)
    measured: bool = False
    health: dict[str, dict[str, float]] = field(default_factory=dict)
    alarms: dict[str, dict[str, str]] = field(default_factory=dict)
    weights: dict[str, float] = field(default_factory=dict)
    distances: dict[str, list[float]] = field(default_factory=dict)
    vectors: dict[str, list[float]] = field(default_factory=dict)


class History:
    """The records of a run, on disk when a folder is given."""

    def __init__(self, folder: Path | None) -> None:
        self._journal = Journal(folder / NAME) if folder else None
        self._records: dict[int, RoundRecord] = {}
        for body in self._journal or ():
            record = _record(body)
            self._records[record.round] = record

    def append(self, record: RoundRecord) -> None:
        """Keep one record; on disk when this returns."""
        if self._journal:
            self._journal.append(asdict(record))
        self._records[record.round] = record

    def records(self, up_to: int | None = None) -> list[RoundRecord]:
        """Give the records in the order of rounds."""
        return [self._records[number] for number in sorted(self._records) if up_to is None or number <= up_to]


def _record(body: dict[str, Any]) -> RoundRecord:
    try:
        return RoundRecord(**{**body, "cohort": tuple(body["cohort"])})
    except (KeyError, TypeError):
        raise RunFolderError(
            f"{NAME} was written by another version: a record has the fields {', '.join(sorted(body))}. Resume with "
            f"the version that began the run, or start anew in another folder with `--out`."
        ) from None

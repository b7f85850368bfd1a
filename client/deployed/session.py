"""One session: a folder or archive of images, answered by the shipped model, adapted only as far as the site allows."""

import csv
import io
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from client.adaptation.base import Adaptation
from client.adaptation.build import build_adaptation
from client.adaptation.fasa.decisions import Decision
from client.deployed.governed import Log, permitted
from client.deployed.shipped import Shipped, open_shipped
from client.site_settings import SiteConfig
from common.arrays import write_atomic
from common.data import DATASETS
from common.data.base import Dataset
from common.data.colour import to_channels
from common.data.orientation import oriented
from common.data.resize import fit
from common.errors import ConfigError, ConsiliumError, DataError

BATCH = 64
SHIPPED = "none"
READING = ("patient", "patient-pattern", "orientation")
"""Settings of the site's [data] that say how its images are read; labels are not asked for."""


@dataclass(frozen=True, slots=True, eq=False)
class Session:
    """What came of it. Shapes: answers [N, K], one column per name of `classes`; `decisions` one per whole window."""

    method: str
    classes: tuple[str, ...]
    answers: NDArray[np.float64]
    window: int
    decisions: tuple[Decision, ...]
    head: str

    @property
    def summary(self) -> dict[str, Any]:
        """Say it in numbers."""
        return {
            "method": self.method,
            "images": len(self.answers),
            "windows": len(self.decisions),
            "alarms": sum(decision.flagged for decision in self.decisions),
            "actions": dict(sorted(Counter(decision.action for decision in self.decisions).items())),
            "log": self.head,
        }


def predict_images(own: SiteConfig, images: Path, out: Path, method: str = SHIPPED) -> Session:
    """Answer all images in their order, log the session, and write one row per image.

    Every session begins with the shipped model and ends with it: nothing adapted is kept. An image is answered by the
    weights that its own window led to.

    Args:
        own: The site's settings.
        images: An `.npz`, or a folder with a manifest.
        out: CSV to write; an existing one stays.
        method: In ADAPTATIONS; the policy of the site must allow it.

    Raises:
        ConfigError: The policy refuses, there is no [shipped], or `out` exists.
        DataError: The images, the model or the artefact are not what they must be.
        AdaptationError: The method does not fit the model, or the artefact lacks what it needs.
    """
    if out.exists():
        raise ConfigError(f"{out} exists. Give another --out; nothing is overwritten.")
    log = Log(own)
    values = {} if method == SHIPPED else permitted(own, method, log)
    shipped = open_shipped(own)
    if shipped.task.dense:
        raise ConfigError("the shipped model answers per pixel, and a table has a row per image. Take a classifier.")
    data = read_images(own, images, shipped)
    adaptation = build_adaptation(method, shipped.model, shipped.artefact.source, values)
    answers = np.concatenate([found.cpu().numpy() for found in _answered(adaptation, data, shipped.device)])
    if not np.isfinite(answers).all():
        raise ConsiliumError("the model's answers are not finite. None is written; tell whoever shipped the model.")
    decisions = tuple(getattr(adaptation, "decisions", ()))
    if method != SHIPPED:
        _note(log, adaptation, shipped, decisions, len(data))
    null = shipped.artefact.source.null
    names = shipped.task.class_names
    session = Session(method, names, answers, null.window if null else 0, decisions, log.head)
    write_atomic(out, _table(session))
    return session


def read_images(own: SiteConfig, path: Path, shipped: Shipped) -> Dataset:
    """Read images as the model wants them; labels may be absent.

    Raises:
        DataError: There is no such file or folder, or it is damaged.
    """
    if not path.exists():
        raise DataError(f"{path} does not exist. Give an `.npz`, or a folder with a manifest.")
    card = shipped.artefact.card
    known = {f"data.{key}": value for key, value in own.data.items() if key in READING}
    kind = "archive" if path.suffix == ".npz" else "folder"
    settings = shipped.config.replace({**known, "data.name": kind, "data.path": str(path), "data.image-size": 0}).data
    found: Dataset = fit(oriented(DATASETS.load(kind)(settings), settings.orientation), card.image_size)
    return replace(found, images=to_channels(found.images, card.channels))


def _answered(adaptation: Adaptation, data: Dataset, device: torch.device) -> Iterator[torch.Tensor]:
    for start in range(0, len(data), BATCH):
        yield adaptation.adapt(data.batch(np.arange(start, min(start + BATCH, len(data))), device).images)


def _note(log: Log, adaptation: Adaptation, shipped: Shipped, decisions: tuple[Decision, ...], images: int) -> None:
    """Log before anybody sees an answer."""
    log.note(
        "session",
        method=adaptation.name,
        locked=bool(getattr(adaptation.settings, "locked", False)),
        artefact=shipped.digest,
        model=shipped.artefact.model,
        images=images,
        counts=asdict(adaptation.counts),
        windows=[
            {
                "distance": decision.distance,
                "verdict": decision.verdict,
                "action": decision.action,
                "objections": list(decision.objections),
                "after": decision.evidence.after if decision.evidence else None,
                "flips": decision.evidence.flips if decision.evidence else None,
            }
            for decision in decisions
        ],
    )


def _table(session: Session) -> bytes:
    """Write a row per image: its place, a probability per class, and what its window led to."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["image", *session.classes, "window", "flagged", "action"])
    for place, row in enumerate(session.answers):
        window = place // session.window if session.window else 0
        known = session.decisions[window] if window < len(session.decisions) else None
        told = [window + 1, "yes" if known.flagged else "no", known.action] if known else ["", "", ""]
        writer.writerow([place, *(f"{value:.6f}" for value in row), *told])
    return text.getvalue().encode()

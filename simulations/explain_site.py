"""One site of an explained run: maps of its test images, held against masks and put to the test."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from common.attention.base import AttentionModel
from common.attention.choice import choose_images
from common.data.base import Dataset
from common.explanations.agreement import MEASURES, agreement, baseline_maps, size_tertiles
from common.explanations.base import Explanation
from common.explanations.faithfulness import FILLERS, Score, control, faithfulness
from common.explanations.patients import over_patients
from common.explanations.sanity import attention_matters, cascade
from common.explanations.stability import stability
from common.seeds import derive
from common.tasks.base import Task
from simulations.finished import Step
from simulations.gallery import choose_cases, picture, said
from simulations.judging import Court

Row = dict[str, Any]
Maps = NDArray[np.float32]
PATIENTS, IMAGES_PER_PATIENT = 128, 4
"""At most so many are explained at a site, for the agreement and the mean maps."""
CASES, TESTED = 6, 16
"""Images of the gallery; images on which maps are put to the test."""
BATCH = 32
SIZES = ("all", "small", "middle", "large")


@dataclass(frozen=True, slots=True, eq=False)
class SiteAtlas:
    """What a site's page shows; it names no patient.

    Shapes: images uint8 [H, W] or [H, W, 3] each; masks bool [C, H, W]; `maps` per explanation [C, H, W]; `means` per
    explanation and class the mean map over patients [H, W] and how many patients it rests on.
    """

    site: str
    role: str
    images: list[NDArray[np.uint8]]
    masks: NDArray[np.bool_]
    legends: list[str]
    maps: dict[str, Maps]
    means: dict[str, dict[str, tuple[Maps, int]]]


@dataclass(frozen=True, slots=True, eq=False)
class Found:
    """Pictures and tables of one site."""

    atlas: SiteAtlas
    agreement: list[Row]
    tests: list[Row]
    attention: list[Row]


class SiteExplainer:
    """One site's model and images, and everything that is asked of them."""

    def __init__(
        self, court: Court, site: str, model: AttentionModel, parts: dict[str, Explanation], step: Step
    ) -> None:
        self.task, self.site, self.model, self.parts, self.step = court.task, site, model.eval(), parts, step
        self.role = court.federation.site(site).role
        self.data = court.data(site, "test")
        self.seed = derive(court.seed, "explain", site)

    def explain(self) -> Found:
        """Draw, measure and test every explanation."""
        index = choose_images(self.data.patients, IMAGES_PER_PATIENT, PATIENTS, self.seed)
        data = self.data.subset(index)
        maps = {name: self._maps(part, data, name) for name, part in self.parts.items()}
        cases = choose_cases(self.data, self.seed, self.site, TESTED)
        tests, attention = self._tests(self.data.subset(cases))
        return Found(self._atlas(data, maps, cases[:CASES]), list(self._agreement(data, maps)), tests, attention)

    def _maps(self, part: Explanation, data: Dataset, name: str) -> Maps:
        self.step(f"{self.site}: {name}")
        made = []
        for start in range(0, len(data), BATCH):
            images, targets = self._asked(data.subset(np.arange(start, min(start + BATCH, len(data)))))
            made.append(part(self.model, images, targets).cpu().numpy())
        return np.concatenate(made)

    def _asked(self, data: Dataset) -> tuple[Tensor, Tensor | None]:
        """Give images and, where each has one class, which answer is explained."""
        batch = data.batch(np.arange(len(data)), next(self.model.parameters()).device)
        single = not self.task.dense and batch.labels is not None and batch.labels.ndim == 1
        return batch.images, batch.labels.long() if single and batch.labels is not None else None

    def _agreement(self, data: Dataset, maps: dict[str, Maps]) -> Iterator[Row]:
        """Rows of every explanation and of maps that know no image, for all lesions and by their size."""
        if data.masks is None or not data.masks.any():
            return
        drawn = np.asarray(
            data.masks.any(axis=(1, 2))
        )  # the mean map too is of images with a lesion: no other is asked about
        data, maps = data.subset(drawn), {name: each[drawn] for name, each in maps.items()}
        masks = np.asarray(data.masks) > 0
        groups = size_tertiles(masks)
        first = next(iter(maps.values()))
        blind = baseline_maps(first)
        sides: dict[str, NDArray[np.floating]] = {"uniform": blind["uniform"], "centre": blind["centre"]}
        for name, each in maps.items():
            sides |= {name: each, f"mean of {name}": baseline_maps(each)["mean-map"]}
        for name, each in sides.items():
            values = agreement(each, masks)
            for place, size in enumerate(SIZES):
                kept = groups >= 0 if size == "all" else groups == place - 1
                for measure in MEASURES:
                    seed = derive(self.seed, "interval")
                    mean, low, high, count = over_patients(values[measure][kept], data.patients[kept], seed)
                    head = {"site": self.site, "role": self.role, "explanation": name, "lesions": size}
                    yield {**head, "measure": measure, "value": mean, "low": low, "high": high, "patients": count}

    def _tests(self, data: Dataset) -> tuple[list[Row], list[Row]]:
        images, targets = self._asked(data)
        score = answer_score(self.model, self.task, images, targets)
        chance = {filler: control(score, images, filler, self.seed).mean() for filler in FILLERS}
        rows: list[Row] = []
        for name, part in self.parts.items():
            self.step(f"{self.site}: tests of {name}")
            maps = part(self.model, images, targets).cpu().numpy()
            row: Row = {"site": self.site, "role": self.role, "explanation": name, "images": len(data)}
            for filler in FILLERS:
                net = faithfulness(score, images, maps, filler, self.seed).net.mean()
                row |= {f"net_{filler}": float(net), f"random_{filler}": float(chance[filler])}
            lost = cascade(part, self.model, images, targets, self.seed)
            row["stable"] = float(stability(part, self.model, images, targets, self.seed).alike.mean())
            row |= {"after_head": float(lost.alike[0]), "after_stage": float(lost.alike[min(1, len(lost.alike) - 1)])}
            rows.append({**row, "after_all": float(lost.alike[-1]), "insensitive": lost.insensitive})
        if not self.model.attention_sites:
            return rows, []
        matters = attention_matters(self.model, score, images, self.seed)
        head = {"site": self.site, "role": self.role, "images": len(data)}
        return rows, [{**head, "uniform": matters.uniform, "permuted": matters.permuted, "idle": matters.idle}]

    def _atlas(self, data: Dataset, maps: dict[str, Maps], cases: NDArray[np.int64]) -> SiteAtlas:
        shown = self.data.subset(cases)
        images, targets = self._asked(shown)
        with torch.no_grad():
            probabilities = self.task.probabilities(self.model(images).float()).cpu()
        batch = shown.batch(np.arange(len(shown)), torch.device("cpu"))
        words = [said(self.task, batch, probabilities, place)[:2] for place in range(len(shown))]
        masks = np.zeros((len(shown), *shown.images.shape[2:]), bool) if shown.masks is None else shown.masks > 0
        return SiteAtlas(
            self.site,
            self.role,
            [picture(shown, place) for place in range(len(shown))],
            np.asarray(masks),
            [" · ".join(part for part in parts if part) for parts in words],
            {name: part(self.model, images, targets).cpu().numpy() for name, part in self.parts.items()},
            {name: dict(mean_maps(each, data, self.task)) for name, each in maps.items()},
        )


def mean_maps(maps: Maps, data: Dataset, task: Task) -> Iterator[tuple[str, tuple[Maps, int]]]:
    """Give, for each class, the mean over patients of the mean map of their images, and the number of patients."""
    for name, kept in classes_of(data, task).items():
        if kept.any():
            patients = np.unique(data.patients[kept])
            means = [maps[kept & (data.patients == patient)].mean(0) for patient in patients]
            yield name, (np.asarray(np.mean(means, axis=0), np.float32), len(patients))


def classes_of(data: Dataset, task: Task) -> dict[str, NDArray[np.bool_]]:
    """Say which images belong to each class; without labels, which have any foreground and which have none."""
    if not task.dense and data.labels is not None:
        if data.labels.ndim == 1:
            return {name: np.asarray(data.labels == place) for place, name in enumerate(data.classes)}
        return {name: np.asarray(data.labels[:, place] > 0) for place, name in enumerate(data.classes)}
    if data.masks is None:
        return {"all": np.ones(len(data), bool)}
    found = np.asarray(data.masks.any(axis=(1, 2)))
    return {"with finding": found, "without": ~found}


def answer_score(model: AttentionModel, task: Task, images: Tensor, targets: Tensor | None) -> Score:
    """Give the probability of the answer that is explained, for these images however they are changed.

    Without targets: of the class that is likeliest for the unchanged image; per pixel, the mean foreground probability
    over the pixels that are foreground there (over all if there are none).
    """
    with torch.no_grad():
        clean = task.probabilities(model(images).float())
    if task.dense:
        front = clean[:, 0] if clean.shape[1] == 1 else 1 - clean[:, 0]
        chosen = front >= 0.5
        chosen = torch.where(chosen.flatten(1).any(1)[:, None, None], chosen, torch.ones_like(chosen))

        def dense(changed: Tensor) -> Tensor:
            found = task.probabilities(model(changed).float())
            ahead = found[:, 0] if found.shape[1] == 1 else 1 - found[:, 0]
            return (ahead * chosen).sum((1, 2)) / chosen.sum((1, 2))

        return dense
    wanted = clean.argmax(1) if targets is None and clean.shape[1] > 1 else targets
    if wanted is None:
        wanted = (clean[:, 0] >= 0.5).long()

    def whole(changed: Tensor) -> Tensor:
        found = task.probabilities(model(changed).float())
        if found.shape[1] == 1:
            return torch.where(wanted == 1, found[:, 0], 1 - found[:, 0])
        return found.gather(1, wanted[:, None])[:, 0]

    return whole

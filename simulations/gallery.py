"""Overlays for the report: test images of each site beside the lesion and the federated model's attention."""

from collections.abc import Iterator, Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from common.attention.base import AttentionModel
from common.attention.maps import attention_maps
from common.data.base import Batch, Dataset
from common.data.federation import Federation
from common.seeds import generator
from common.tasks.base import Task
from simulations.overlay import Overlay

PER_SITE = 3


def overlays(models: Mapping[str, AttentionModel], task: Task, federation: Federation, seed: int) -> Iterator[Overlay]:
    """Draw up to three test patients per site, those with a lesion first, and look where the model looks.

    The draw is seeded and blind to the model: no case is picked for looking well.
    """
    for site in federation.sites:
        model = models[site.name]
        data = task.prepare(site.test)
        index = choose_cases(data, seed, site.name, PER_SITE)
        batch = data.batch(index, next(model.parameters()).device)
        with torch.no_grad():
            probabilities = task.probabilities(model.eval()(batch.images).float()).cpu()
        by_site = attention_maps(model, batch.images)
        if not by_site:
            return
        name = list(by_site)[-1]  # the deepest
        maps = by_site[name].cpu().numpy().astype(np.float32)
        for place in range(len(index)):
            label, caption, probability = said(task, batch, probabilities, place)
            yield Overlay(
                site=site.name,
                role=site.role,
                caption=caption,
                label=label,
                probability=probability,
                attention_site=name,
                image=picture(data, int(index[place])),
                attention=maps[place] / maps[place].sum(),
                mask=None if data.masks is None else (data.masks[index[place]] > 0).astype(np.uint8),
                prediction=_prediction(task, probabilities[place]),
            )


def choose_cases(data: Dataset, seed: int, site: str, most: int) -> NDArray[np.int64]:
    """Choose one image each of different patients; positive ones first where labels or masks tell."""
    order = generator(seed, "gallery", site).permutation(len(data))
    positive = np.zeros(len(data), bool)
    if data.masks is not None:
        positive = np.asarray(data.masks.any(axis=(1, 2)))
    elif data.labels is not None:
        positive = np.asarray(data.labels.reshape(len(data), -1).any(axis=1))
    order = np.concatenate([order[positive[order]], order[~positive[order]]])
    _, first = np.unique(data.patients[order], return_index=True)
    return np.asarray(order[np.sort(first)][:most])


def said(task: Task, batch: Batch, probabilities: Tensor, place: int) -> tuple[str, str, float]:
    """Give the true class, what the model says of it, and the probability in that; empty for segmentation."""
    if task.dense or batch.labels is None:
        return "", "", float("nan")
    row, label = probabilities[place], batch.labels[place]
    if label.ndim:  # several findings at once
        names = [name for name, present in zip(task.class_names, label.tolist(), strict=True) if present]
        top = int(row.argmax())
        return " + ".join(names) or "no finding", f"p({task.class_names[top]}) = {row[top]:.2f}", float(row[top])
    if task.outputs == 1:
        positive = task.class_names[0]
        return (positive if int(label) else f"no {positive}"), f"p({positive}) = {row[0]:.2f}", float(row[0])
    truth = task.class_names[int(label)]
    return truth, f"p({truth}) = {row[int(label)]:.2f}", float(row[int(label)])


def picture(data: Dataset, index: int) -> NDArray[np.uint8]:
    """Give an image as people see it: uint8 [H, W] or [H, W, 3]."""
    image = data.images[index]
    if image.dtype != np.uint8:
        image = np.rint(np.asarray(image, np.float32) * 255).astype(np.uint8)
    return np.asarray(image[0] if len(image) == 1 else np.moveaxis(image, 0, -1), dtype=np.uint8)


def _prediction(task: Task, probabilities: Tensor) -> NDArray[np.uint8] | None:
    if not task.dense:
        return None
    if task.outputs == 1:
        return np.asarray((probabilities[0] >= 0.5).numpy(), dtype=np.uint8)
    return np.asarray(probabilities.argmax(0).numpy(), dtype=np.uint8)

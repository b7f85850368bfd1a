"""The yardstick: federated averaging by hand, forked workers of one thread each, no framework.

`run` is all of it: the steps that any engine must do (train every site, average, judge every site), on the batches
and images that ours takes, and nothing else. It is a test oracle too.
"""

import argparse
import json
import multiprocessing
import time
from collections.abc import Callable
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from common.config import ModelSection
from common.models.build import build_model
from common.seeds import derive, generator

State = dict[str, np.ndarray]
JUDGED_AT_ONCE = 256


class Sites:
    """All images of all sites as tensors, read once before the fork."""

    def __init__(self, path: Path) -> None:
        with np.load(path, allow_pickle=False) as archive:
            images, labels = torch.from_numpy(archive["images"][:, None]), torch.from_numpy(archive["labels"])
            centre, split = archive["centre"], archive["split"]
        sidecar = json.loads(path.with_suffix(".json").read_text())
        self.names, self.classes = sidecar["centres"], sidecar["classes"]
        self.parts = [
            [(images[rows].float().mul_(2 / 255).sub_(1), labels[rows].long()) for rows in self._rows(centre, split, i)]
            for i in range(len(self.names))
        ]

    def _rows(self, centre: np.ndarray, split: np.ndarray, site: int) -> list[Tensor]:
        return [torch.from_numpy(np.flatnonzero((centre == site) & (split == part))) for part in (0, 1)]


def train(model: nn.Module, images: Tensor, labels: Tensor, seed: int, settings: dict[str, Any]) -> int:
    """One pass of SGD in the order that the seed gives; says how many images it saw."""
    order = torch.from_numpy(generator(seed, "shuffle", 0).permutation(len(images)))
    optimizer = torch.optim.SGD(model.parameters(), lr=settings["train.learning-rate"])
    model.train()
    for index in order.split(settings["train.batch-size"]):
        optimizer.zero_grad(set_to_none=True)
        F.cross_entropy(model(images[index]), labels[index]).backward()
        optimizer.step()
    return len(images)


@torch.no_grad()
def judge(model: nn.Module, images: Tensor, labels: Tensor) -> tuple[float, int]:
    """Give the summed loss and the number of images."""
    model.eval()
    pairs = zip(images.split(JUDGED_AT_ONCE), labels.split(JUDGED_AT_ONCE), strict=True)
    return sum(float(F.cross_entropy(model(x), y, reduction="sum")) for x, y in pairs), len(images)


def average(state: State, trained: list[tuple[int, State, int]]) -> State:
    """Add the mean update, weighted by images.

    Rounded as the platform does it (updates in float32, their mean in float64): a transformer that leaves a plateau
    makes a difference of 1e-7 grow to 1e-1 in a few rounds, so only equal bits can be compared after ten.
    """
    total = sum(count for _, _, count in trained)
    return {
        name: array + sum((new[name] - array).astype(np.float64) * (n / total) for _, new, n in trained).astype("f4")
        for name, array in state.items()
    }


def run(
    path: Path, settings: dict[str, Any], workers: int, mark: Callable[[float], None] = lambda loss: None
) -> tuple[State, list[float]]:
    """Train `settings["rounds"]` rounds; gives the final arrays and each round's mean loss over all sites."""
    torch.set_num_threads(1)
    sites = Sites(path)
    section = ModelSection(name=settings["model.name"], width=settings["model.width"])
    model = build_model(section, 1, len(sites.classes), settings["data.image-size"], settings["seed"])
    state = {name: tensor.numpy().copy() for name, tensor in model.state_dict().items()}

    def serve(pipe: Connection) -> None:
        torch.set_num_threads(1)
        while (job := pipe.recv()) is not None:
            site, number, arrays = job
            model.load_state_dict({name: torch.from_numpy(array) for name, array in arrays.items()})
            if number:
                seed = derive(settings["seed"], "site", sites.names[site], "round", number)
                count = train(model, *sites.parts[site][0], seed, settings)
                pipe.send((site, {name: tensor.numpy() for name, tensor in model.state_dict().items()}, count))
            else:
                pipe.send((site, *judge(model, *sites.parts[site][1])))

    pipes, processes = _fork(serve, workers)
    losses = []
    for number in range(1, settings["rounds"] + 1):
        trained = _deal(pipes, [(site, number, state) for site in range(len(sites.names))])
        state = average(state, trained)
        judged = _deal(pipes, [(site, 0, state) for site in range(len(sites.names))])
        losses.append(sum(loss for _, loss, _ in judged) / sum(count for _, _, count in judged))
        mark(losses[-1])
    for pipe, process in zip(pipes, processes, strict=True):
        pipe.send(None)
        process.join()
        pipe.close()
    return state, losses


def _fork(serve: Callable[[Connection], None], workers: int) -> tuple[list[Connection], list[Any]]:
    context = multiprocessing.get_context("fork")
    pairs = [context.Pipe() for _ in range(workers)]
    processes = [context.Process(target=serve, args=(theirs,), daemon=True) for _, theirs in pairs]
    for process, (_, theirs) in zip(processes, pairs, strict=True):
        process.start()
        theirs.close()
    return [ours for ours, _ in pairs], processes


def _deal(pipes: list[Connection], jobs: list[Any]) -> list[Any]:
    """Hand a job to whoever is free; the answers in the order of sites, so that sums do not depend on speed."""
    left, answers = jobs[::-1], []
    for pipe in pipes[: len(jobs)]:
        pipe.send(left.pop())
    while len(answers) < len(jobs):
        for pipe in wait(pipes):
            answers.append(pipe.recv())
            if left:
                pipe.send(left.pop())
    return sorted(answers, key=lambda answer: answer[0])


def main() -> None:
    """Run once and print when each round ended, on the clock of this machine."""
    parser = argparse.ArgumentParser()
    parser.add_argument("path", type=Path)
    parser.add_argument("settings", type=json.loads)
    parser.add_argument("arrays", type=Path)
    parser.add_argument("--workers", type=int, required=True)
    given = parser.parse_args()
    ends: list[float] = []
    state, losses = run(given.path, given.settings, given.workers, lambda loss: ends.append(time.time()))
    np.savez(given.arrays, **state)
    print(json.dumps({"ends": ends, "losses": losses}))


if __name__ == "__main__":
    main()

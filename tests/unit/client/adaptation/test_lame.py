"""LAME: the fixed point by brute force, an objective that never rises, and neighbours counted by hand."""

import itertools

import pytest
import torch

from client.adaptation.lame import agree, neighbour_affinity, objective


def random_problem(count, classes, seed, neighbours=2):
    random = torch.Generator().manual_seed(seed)
    log_p = torch.randn(count, classes, generator=random, dtype=torch.float64).mul(1.5).log_softmax(1)
    features = torch.randn(count, 4, generator=random, dtype=torch.float64)
    return log_p, neighbour_affinity(features, neighbours)


@pytest.mark.parametrize("seed", range(6))
def test_the_objective_never_rises_and_ends_in_a_fixed_point(seed):
    log_p, affinity = random_problem(20, 3, seed, neighbours=5)
    values = [
        float(objective(agree(log_p, affinity, steps, 0.0) if steps else log_p.exp(), log_p, affinity))
        for steps in range(12)
    ]
    assert all(later <= earlier + 1e-12 for earlier, later in itertools.pairwise(values))
    z = agree(log_p, affinity, 10_000, 0.0)
    torch.testing.assert_close(z, (log_p + affinity @ z).softmax(1), rtol=0, atol=1e-6)
    torch.testing.assert_close(z.sum(1), torch.ones(20, dtype=torch.float64))


def test_no_other_answer_of_two_images_is_better():
    """Two images, two classes: the objective over a fine grid of both answers."""
    log_p = torch.tensor([[0.9, 0.1], [0.45, 0.55]], dtype=torch.float64).log()
    affinity = torch.tensor([[0.0, 1.0], [1.0, 0.0]], dtype=torch.float64)
    z = agree(log_p, affinity, 1000, 0.0)
    grid = torch.linspace(0.001, 0.999, 999, dtype=torch.float64)
    best = min(
        (float(objective(torch.tensor([[a, 1 - a], [b, 1 - b]], dtype=torch.float64), log_p, affinity)), a, b)
        for a, b in itertools.product(grid[::4].tolist(), grid[::4].tolist())
    )
    assert float(objective(z, log_p, affinity)) <= best[0] + 1e-9
    assert z[0, 0] == pytest.approx(best[1], abs=0.005)
    assert z[1, 0] == pytest.approx(best[2], abs=0.005)
    assert z[1, 0] > 0.5, "the sure neighbour has convinced the unsure one"


def test_neighbours_by_hand():
    angles = torch.tensor([0.0, 0.1, 0.25, 3.0], dtype=torch.float64)
    features = torch.stack([angles.cos(), angles.sin()], 1) * torch.tensor([[1.0], [5], [2], [1]])
    wanted = torch.tensor([[0, 1, 0, 0], [1, 0, 0.5, 0], [0, 0.5, 0, 0.5], [0, 0, 0.5, 0]], dtype=torch.float64)
    torch.testing.assert_close(neighbour_affinity(features, 1), wanted)


def test_an_image_alone_keeps_its_answer():
    log_p, affinity = random_problem(1, 3, 0)
    torch.testing.assert_close(agree(log_p, affinity, 100, 1e-8), log_p.exp())

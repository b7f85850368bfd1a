"""Each term beside the distance, by hand; and steps that never climb."""

import math

import pytest
import torch
from torch import nn

from client.adaptation.fasa.careful import Careful
from client.adaptation.fasa.loss import anchor, guard, informed, kl


def test_kl_by_hand_and_finite_at_zeros():
    left, right = torch.tensor([0.5, 0.5]), torch.tensor([0.25, 0.75])
    assert float(kl(left, right)) == pytest.approx(0.5 * math.log(2) + 0.5 * math.log(2 / 3), rel=1e-6)
    assert float(kl(left, left)) == 0
    assert math.isfinite(float(kl(torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0]))))


def test_the_anchor_is_the_squared_distance():
    assert float(anchor([torch.ones(3), torch.zeros(2)], [torch.zeros(3), torch.full((2,), 2.0)])) == 11


def test_the_guard_costs_nothing_within_its_slack():
    log_p = torch.tensor([[0.6, 0.4], [0.4, 0.6]]).log().requires_grad_(True)
    within = guard(log_p, torch.tensor([0.45, 0.55]), 0.05)
    assert float(within.detach()) == 0
    beyond = guard(log_p, torch.tensor([0.1, 0.9]), 0.05)
    assert float(beyond.detach()) == pytest.approx(math.log(0.5 / 0.3) - 0.05, rel=1e-5)  # ½ ln 5 + ½ ln 5/9
    beyond.backward()
    assert float(log_p.grad.abs().sum()) > 0


def test_a_uniform_mix_makes_it_information_maximisation():
    p = torch.tensor([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]], dtype=torch.float64)
    conditional = -(p * p.log()).sum(1).mean()
    marginal = -(p.mean(0) * p.mean(0).log()).sum()
    found = informed(p.log(), torch.full((2,), 0.5, dtype=torch.float64))
    assert float(found) == pytest.approx(float(conditional - marginal) + math.log(2))


def test_a_step_that_climbs_is_undone_and_the_next_is_half_as_long():
    weight = nn.Parameter(torch.tensor([1.0]))
    careful = Careful([weight], [8.0], 1e6)
    taken = []
    for _ in range(12):
        before = weight.detach().clone()
        taken.append(careful.step(lambda: weight.square().sum()))
        assert float(weight.detach().square()) <= float(before.square())
        assert taken[-1] or torch.equal(weight.detach(), before)
    assert taken[:3] == [False, False, True]  # to −7, to −3, to −1, which is as low
    assert abs(float(weight.detach())) < 0.5


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_what_is_not_finite_moves_nothing(bad):
    weight = nn.Parameter(torch.tensor([1.0]))
    careful = Careful([weight], [0.1], 1.0)
    assert not careful.step(lambda: weight.sum() * bad)
    assert float(weight.detach()) == 1.0
    assert careful.step(lambda: weight.square().sum())
    assert 0.89 < float(weight.detach()) < 0.91


def test_long_gradients_are_cut():
    weight, other = nn.Parameter(torch.tensor([1.0])), nn.Parameter(torch.tensor([1.0]))
    for parameter, scale in ((weight, 1.0), (other, 1e4)):
        careful = Careful([parameter], [0.01], 1.0)
        for _ in range(3):
            careful.step(lambda parameter=parameter, scale=scale: scale * parameter.square().sum())
    torch.testing.assert_close(weight.detach(), other.detach(), rtol=1e-4, atol=1e-4)

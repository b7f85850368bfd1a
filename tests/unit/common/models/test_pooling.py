"""The generalised mean between the mean and the maximum."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from common.models.pooling import generalised_mean

VALUES = st.lists(st.floats(0.0625, 100, width=32), min_size=4, max_size=4)


def test_by_hand():
    features = torch.tensor([1.0, 2.0, 0.0, 3.0]).view(1, 1, 2, 2)
    torch.testing.assert_close(generalised_mean(features), torch.tensor([[((1 + 8 + 0 + 27) / 4) ** (1 / 3)]]))


@given(VALUES, st.floats(0.5, 4, width=32))
def test_lies_between_mean_and_maximum_and_scales(values, factor):
    features = torch.tensor(values).view(1, 1, 2, 2)
    pooled = generalised_mean(features).item()
    assert features.mean().item() * (1 - 1e-5) <= pooled <= features.max().item() * (1 + 1e-5)
    scaled = generalised_mean(features * factor).item()
    torch.testing.assert_close(scaled, pooled * factor, rtol=1e-4, atol=0)


def test_dark_maps_have_finite_gradients():
    features = torch.zeros(2, 3, 4, 4, requires_grad=True)
    generalised_mean(features).sum().backward()
    assert features.grad.isfinite().all()


def test_half_precision_is_widened_and_double_kept():
    assert generalised_mean(torch.ones(1, 1, 2, 2, dtype=torch.bfloat16)).dtype == torch.float32
    assert generalised_mean(torch.ones(1, 1, 2, 2, dtype=torch.float64)).dtype == torch.float64

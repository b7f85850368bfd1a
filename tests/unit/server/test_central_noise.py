"""The server's own noise: on a sum of rounded vectors a patient reaches a little farther, and the noise with him."""

import numpy as np
import pytest

from common.contribution import UPDATE, reach
from common.messages import TrainRequest
from common.secagg.layout import Layout, Segment
from server.pooled import Pooler
from tests.federations import small_config

CLIP, NOISE, LENGTH = 0.5, 3.0, 40_000


class Ones:
    """Noise of one everywhere shows its deviation."""

    def normal(self, count):
        return np.ones(count)


def config(secure):
    changes = {"privacy__placement": "central", "privacy__clip_norm": CLIP, "secure_aggregation__enabled": secure}
    return small_config(privacy__mechanism="gaussian", **changes)


@pytest.mark.parametrize("secure", [False, True])
@pytest.mark.parametrize("bits", [32, 64])
def test_the_noise_is_that_of_the_farthest_that_a_patient_moves_the_sum(secure, bits):
    segment = Segment(UPDATE, LENGTH, 4000.0)
    layout = Layout((segment,), bits, sites=512)
    pooler = Pooler(config(secure), None, None, None, random=Ones())
    found = pooler._noised({UPDATE: np.zeros(LENGTH)}, TrainRequest(round=1, arrays={}, noise_multiplier=NOISE), layout)
    # Two sums whose entries all lie half a step apart and are rounded away from each other: the worst case.
    step = 1 / layout.scale(segment) if secure else 0.0
    assert found[UPDATE] == pytest.approx(np.full(LENGTH, NOISE * (CLIP + np.sqrt(LENGTH) * step)))
    assert reach(config(secure), layout)[UPDATE] >= CLIP
    if secure and bits == 32:
        assert found[UPDATE][0] > 1.5 * NOISE * CLIP  # here it is no trifle

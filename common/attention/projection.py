"""A public random projection that shortens a long signature and keeps its bound and, nearly, its distances."""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from common.seeds import generator

LONGEST, PROJECTED, SEED = 256, 128, 0
"""Longer signatures than `LONGEST` are brought to `PROJECTED` entries, with numbers drawn from the public `SEED`."""


@lru_cache(maxsize=8)
def projection(length: int) -> NDArray[np.float64]:
    """Give orthonormal rows in a direction that is uniform over all, the same in every process.

    ‖R s‖ ≤ ‖s‖, so that what is bounded stays bounded. Squared distances are those before times 128 / d on average,
    with a relative spread of at most √(2 / 128) (Johnson and Lindenstrauss 1984: the share is Beta(64, d/2 − 64)). They
    stay that short, for the bound's sake.

    QR of normal numbers, the diagonal of R made positive: uniform over frames (Mezzadri 2007, "How to Generate Random
    Matrices from the Classical Compact Groups", section 5).

    Shapes: [128, length], length ≥ 128.
    """
    drawn = generator(SEED, "signature", "projection", length).standard_normal((length, PROJECTED))
    columns, triangle = np.linalg.qr(drawn)
    rows = np.ascontiguousarray((columns * np.sign(np.diag(triangle))).T)
    rows.flags.writeable = False
    return rows

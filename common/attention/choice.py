"""Which patients and images a signature rests on: a seeded draw that does not depend on the order of rows."""

from collections import defaultdict

import numpy as np
from numpy.typing import NDArray

from common.seeds import derive


def choose_images(
    patients: NDArray[np.str_], images_per_patient: int, max_patients: int, seed: int
) -> NDArray[np.int64]:
    """Choose at most `max_patients` patients and of each at most `images_per_patient` images.

    Patients are ranked by a hash of the seed and their name, so that the same patients are chosen in whatever order the
    rows stand, and a patient who joins displaces at most one. Images of a patient are ranked by a hash of their place
    among the patient's own images.

    Shapes: patients str [N] -> ascending row indices int64 [M].
    """
    rows: dict[str, list[int]] = defaultdict(list)
    for row, patient in enumerate(patients.tolist()):
        rows[patient].append(row)
    ranked = sorted(rows, key=lambda patient: (derive(seed, "signature", patient), patient))
    chosen: list[int] = []
    for patient in ranked[:max_patients]:
        own = rows[patient]
        order = sorted(range(len(own)), key=lambda place: derive(seed, "signature", patient, place))
        chosen += [own[place] for place in order[:images_per_patient]]
    return np.sort(np.array(chosen, dtype=np.int64))

"""What a sum is about: all that every site is asked, as one digest that masks are bound to.

Not the arrays alone. A server that sent all sites but one a proximal weight of a million would get updates of nothing
from them, and the sum would be the update of the one.
"""

import hashlib
from dataclasses import fields

import numpy as np

from common.messages import ARRAY_FIELDS, EvaluateRequest, TrainRequest

OWN = ("terms", "sealed")
"""What differs from site to site: the terms hold this digest, and shares are sealed for one receiver."""


def subject_of(request: TrainRequest | EvaluateRequest) -> str:
    """SHA-256 of a request but for what is each site's own; server and sites compute it alike."""
    hash_ = hashlib.sha256(type(request).__name__.encode())
    for name in sorted(item.name for item in fields(request) if item.name not in OWN):
        value = getattr(request, name)
        if name not in ARRAY_FIELDS:
            _add(hash_, f"{name}={value!r}")
            continue
        _add(hash_, f"{name}: {len(value)} arrays")
        for key, array in sorted(value.items()):
            _add(hash_, f"{key}|{array.dtype.name}|{array.shape}")
            little = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
            hash_.update(little.reshape(-1).view(np.uint8).data)
    return hash_.hexdigest()


def _add(hash_: "hashlib._Hash", text: str) -> None:
    content = text.encode()
    hash_.update(len(content).to_bytes(8, "big") + content)

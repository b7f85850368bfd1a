"""All guidance of one round together: listens to the model while it trains and adds the weighted terms."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor

from client.guidance import GUIDANCE
from client.guidance.base import Known, Seen, Term
from common.attention.base import AttentionModel
from common.attention.maps import has_place, scaled_features
from common.attention.recorder import Recorder
from common.data.base import Batch


class Guidance:
    """The terms whose weight is above zero and for which everything needed is known; the others wait."""

    def __init__(self, known: Known, weights: Mapping[str, float]) -> None:
        self.schema = known.schema
        self.terms: dict[str, tuple[float, Term]] = {}
        for name, weight in weights.items():
            term = GUIDANCE.load(name)
            if weight > 0 and all(getattr(known, need) is not None for need in term.needs):
                self.terms[name] = (weight, term(known))

    @contextmanager
    def watching(self, model: AttentionModel) -> Iterator[Callable[[Batch], Tensor]]:
        """Give, while entered, what turns the batch of the last forward pass into its guidance, [B].

        Maps are taken from the training pass itself, in the mode and on the images that the model trains with.
        """
        sites = model.attention_sites
        placed = [site for site in sites if has_place(site)]
        with Recorder(model) as recorder, scaled_features(model, placed) as scaled:

            def guide(batch: Batch) -> Tensor:
                seen = Seen(batch, sites, self.schema, recorder.take(), scaled)
                return torch.stack([weight * term(seen) for weight, term in self.terms.values()]).sum(0)

            yield guide

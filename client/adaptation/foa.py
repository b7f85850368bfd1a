"""FOA: a few prompt tokens, found without a gradient, and a shift of what the classifier reads."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from client.adaptation.activations import watching
from client.adaptation.answers import entropy, log_probabilities
from client.adaptation.base import Adaptation, MethodSettings
from client.adaptation.evolution import Evolution, Floats
from client.adaptation.source import Moments
from common.attention.base import AttentionModel
from common.seeds import derive

ENTRY, BODY = "positions", "blocks"
"""Submodules between which a transformer's tokens, class token first, can be reached."""
BATCH = 64
"""For which the published weight of the discrepancy was chosen."""


class FoaSettings(MethodSettings):
    """Defaults: the paper's, but for the spread, which fits prompts to small models (a few times their positions)."""

    prompts: int = Field(default=3, ge=1, le=100, description="tokens that are put behind the class token")
    population: int = Field(default=27, ge=4, le=1000, description="candidates per batch, each one forward pass")
    spread: float = Field(default=0.1, gt=0, le=10, description="first standard deviation of the search")
    discrepancy: float = Field(default=0.4, ge=0, le=1e3, description="weight of the distance to the source's moments")
    memory: float = Field(default=0.9, ge=0, lt=1, description="decay of the target's mean feature")
    shift: float = Field(default=1.0, ge=0, le=10, description="share of the way back to the source's mean feature")


class Foa(Adaptation):
    """min over prompts Σ H + λ n/64 Σ_layers (‖μ − μ_s‖² + ‖σ − σ_s‖²) of the class token; predicts after its search.

    One generation of CMA-ES per batch; the answer is the best candidate's. Features are moved by γ (μ_s − μ_t), μ_t a
    running mean. Moments are taken behind the norms that stand in the blocks. No
    parameter of the model moves and no gradient is needed; a batch costs `population` + 1 forward passes.

    Source: Niu et al. 2024, "Test-Time Model Adaptation with Only Forward Passes".
    """

    Settings = FoaSettings
    name = "foa"
    needs = ("activations", "features")
    settings: FoaSettings

    @classmethod
    def lacks(cls, model: AttentionModel) -> str:
        """Look for a transformer with a class token whose attention takes more tokens than it was built for."""
        token = getattr(model, "class_token", None)
        if not isinstance(token, nn.Module) or not hasattr(model, ENTRY) or not hasattr(model, BODY):
            return "it puts prompt tokens behind the class token of a transformer, and the model has no class token"
        return "" if _takes_more(model) else "it adds tokens, and the model's attention is tied to the number it has"

    def adapted(self) -> tuple[str, ...]:
        """Name nothing: prompts stand beside the model."""
        return ()

    def _begin(self) -> None:
        assert self.source.features is not None
        assert self.source.activations is not None
        size = self.settings.prompts * len(self.source.features.mean)
        seed = derive(self.settings.seed, "adaptation", self.name)
        self._search = Evolution(size, self.settings.spread, self.settings.population, seed)
        self.prompts: Tensor | None = None
        self.mean: Tensor | None = None
        self._aims = {path: found for path, found in self.source.activations.items() if path.startswith(f"{BODY}.")}

    @torch.no_grad()
    def _adapt(self, images: Tensor) -> Tensor:
        best = self._search.generation(lambda tried: self._cost(images, self._tokens(tried)))
        self.prompts = self._tokens(best)
        with prompted(self.model, self.prompts):
            features = self.model.features(images)
        answer = self.told(self.model.get_submodule("head")(self._shifted(features)))
        seen = features.mean(0)
        if bool(seen.isfinite().all()):
            self.mean = seen if self.mean is None else torch.lerp(seen, self.mean, self.settings.memory)
            self.counts.updates += 1
        else:
            self.counts.skipped += 1
        return answer

    def _cost(self, images: Tensor, prompts: Tensor) -> float:
        with prompted(self.model, prompts), watching(self.model, list(self._aims)) as found:
            features = self.model.features(images)
        logits = self.model.get_submodule("head")(self._shifted(features))
        far = sum(discrepancy(found[path][:, 0], aim) for path, aim in self._aims.items())
        unsure = entropy(log_probabilities(logits)).sum()
        return float(unsure + self.settings.discrepancy * len(images) / BATCH * far)

    def _predict(self, images: Tensor) -> Tensor:
        with prompted(self.model, self.prompts):
            features = self.model.features(images)
        return self.told(self.model.get_submodule("head")(self._shifted(features)))

    def _shifted(self, features: Tensor) -> Tensor:
        if self.mean is None:
            return features
        assert self.source.features is not None
        return features + self.settings.shift * (self.source.features.mean - self.mean)

    def _tokens(self, tried: Floats) -> Tensor:
        where = next(self.model.parameters())
        return torch.from_numpy(tried.astype(np.float32)).reshape(self.settings.prompts, -1).to(where)


def discrepancy(values: Tensor, aim: Moments) -> Tensor:
    """Give ‖μ − μ_s‖² + ‖σ − σ_s‖² of a batch's class tokens, [B, D]; the source's stand at the first of its tokens."""
    mean, variance = aim.mean[0], aim.variance[0]
    deviation = values.var(0, unbiased=False).sqrt()
    return (values.mean(0) - mean).square().sum() + (deviation - variance.sqrt()).square().sum()


@contextmanager
def prompted(model: nn.Module, prompts: Tensor | None) -> Iterator[None]:
    """Put prompts [P, D] behind the class token of every image while entered; without any the model is as it was."""

    def insert(module: nn.Module, inputs: Any, tokens: Tensor) -> Tensor:
        assert prompts is not None
        more = prompts.expand(len(tokens), -1, -1)
        return torch.cat([tokens[:, :1], more, tokens[:, 1:]], 1)

    handle = None if prompts is None else model.get_submodule(ENTRY).register_forward_hook(insert)
    try:
        yield
    finally:
        if handle is not None:
            handle.remove()


def _takes_more(model: nn.Module) -> bool:
    shape = next(model.get_submodule(ENTRY).parameters()).shape
    tokens = torch.zeros(1, shape[0] + 1, shape[1], device=next(model.parameters()).device)
    try:
        with torch.no_grad():
            return bool(model.get_submodule(BODY)(tokens).shape == tokens.shape)
    except (RuntimeError, ValueError):
        return False

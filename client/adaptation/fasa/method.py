"""FASA: bring a hospital's attention back to where the federation looks, and only where that is seen to do no harm."""

from copy import deepcopy
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from client.adaptation.affine import affine_names, parameters_of
from client.adaptation.answers import entropy, most_entropy
from client.adaptation.base import Adaptation
from client.adaptation.fasa.accept import Evidence, objections
from client.adaptation.fasa.careful import Careful
from client.adaptation.fasa.decisions import Action, Decision
from client.adaptation.fasa.gate import Ruler
from client.adaptation.fasa.label_mix import label_mix
from client.adaptation.fasa.look import Look, look, normalised, vital_names
from client.adaptation.fasa.loss import anchor, guard, informed
from client.adaptation.fasa.settings import FasaSettings
from common.attention.base import AttentionModel
from common.attention.personal import personal_parameters, place_personal
from common.attention.schema import schema_of
from common.errors import DataError

PAST = 0.9
"""Share of the past in the estimated label mix and in the mean entropy."""


class Fasa(Adaptation):
    """Federated attention-statistics alignment; learns first and then predicts, with weights that passed all tests.

    Images are gathered into windows. A window's mean signature under the shipped weights is held against the source
    sites' law of classes, label directions projected out. Only beyond what source sites vary among themselves does the
    method adapt: scales and shifts of normalisation, temperatures of heads, scales and biases of gates, on one half of
    the window; the other half judges. Until all six tests (`accept.py`) are passed the shipped weights answer, to the
    bit. No entropy is minimised, no uniform mix of classes is wished for.

    Source: research notes of the product, section 5.4.
    """

    Settings = FasaSettings
    name = "fasa"
    needs: ClassVar[tuple[str, ...]] = ("class_prior", "confusion", "attention", "class_features", "bands", "null")
    settings: FasaSettings

    @classmethod
    def lacks(cls, model: AttentionModel) -> str:
        """Look for attention to measure and parameters to move."""
        if not model.attention_sites:
            return "it aligns attention, and the model names no attention site"
        if not affine_names(model) and not personal_parameters(model) and not _place(deepcopy(model)):
            return "it moves scales and shifts of normalisation, temperatures and gates, and the model has none"
        return ""

    def adapted(self) -> tuple[str, ...]:
        """Name scales and shifts of normalisation, temperatures, and scales and biases of gates."""
        return tuple(dict.fromkeys((*affine_names(self.model), *personal_parameters(self.model))))

    @property
    def flagged(self) -> bool:
        """Whether the last whole window lay beyond what source sites vary."""
        return bool(self.decisions) and self.decisions[-1].flagged

    def _prepare(self) -> None:
        self.schema = schema_of(self.model)  # before temperatures and gates join
        self.shipped = deepcopy(self.model)
        if not personal_parameters(self.model):
            _place(self.model)
        source = self.source
        assert source.class_prior is not None and source.confusion is not None  # noqa: PT018 - `needs` says so
        assert source.attention and source.class_features and source.bands and source.null  # noqa: PT018
        self._confusion = source.confusion.double().cpu().numpy()
        prior = source.class_prior.double().cpu().numpy()
        self._ruler = Ruler.of(source.attention, prior, self.settings.projected)
        self._feature_ruler = Ruler.of(source.class_features, prior, self.settings.projected)
        self._bands, self._null = source.bands, source.null
        self._signs = vital_names(self.model.attention_sites)

    def _begin(self) -> None:
        self.decisions: list[Decision] = []
        self._images: list[Tensor] = []
        self._used = self._frozen = False
        self._steps = 0
        self._mix: NDArray[np.float64] | None = None
        self._entropy: NDArray[np.float64] | None = None
        moved = self._moved()
        personal = set(personal_parameters(self.model))
        slow, quick = self.settings.learning_rate, self.settings.attention_learning_rate
        rates = [quick if name in personal else slow for name in self.adapted()]
        self._descent = Careful(moved, rates, self.settings.largest_gradient)
        self._start = [value.detach().clone() for value in moved]

    def _moved(self) -> list[nn.Parameter]:
        found = parameters_of(self.model, self.adapted())
        for parameter in found:
            parameter.requires_grad_(True)
        return found

    def _predict(self, images: Tensor) -> Tensor:
        return self.told((self.model if self._used else self.shipped)(images))

    def _adapt(self, images: Tensor) -> Tensor:
        if not bool(images.isfinite().all()):
            raise DataError("a batch holds pixels that are not finite. Images lie in [-1, 1]; read them again.")
        for image in images:
            self._images.append(image)
            if len(self._images) == self._null.window:
                window, self._images = torch.stack(self._images), []
                self._close(window)
        with torch.no_grad():
            return self._predict(images)

    def _close(self, window: Tensor) -> None:
        """Decide what a whole window means."""
        with torch.no_grad():
            seen = look(self.shipped, window, self.schema)
        distance = self._ruler.distance(seen.rows.cpu().numpy())
        self._mix = _past(self._mix, self._mix_of(seen))
        verdict = self._null.thresholds.verdict(distance)
        number = len(self.decisions) + 1
        self._used = False
        held: Action | None = None
        if verdict == "normal" or (verdict == "heterogeneous" and self.settings.beyond == "site"):
            held = "source"
        elif self.settings.locked:
            held = "locked"
        elif self._frozen:
            held = "frozen"
        if held:
            self.decisions.append(Decision(number, distance, verdict, held))
            return
        self._learn(window[::2])
        evidence = self._judge(window[1::2])
        failed = objections(evidence, self.settings)
        self.decisions.append(Decision(number, distance, verdict, self._act(failed), failed, evidence))

    def _act(self, failed: tuple[str, ...]) -> Action:
        """Use the adapted weights, wait, or go back for good."""
        if not failed:
            self._used = True
            return "adapted"
        if failed == ("no-gain",) and self._steps < self.settings.budget:
            return "waiting"
        self._restore()
        self._frozen = True
        self.counts.resets += 1
        return "rolled-back"

    def _learn(self, images: Tensor) -> None:
        """Take the window's steps on one half of it, as far as the budget goes."""
        for _ in range(min(self.settings.steps, self.settings.budget - self._steps)):
            self._steps += 1
            if self._descent.step(lambda: self._loss(images)):
                self.counts.updates += 1
            else:
                self.counts.skipped += 1

    def _loss(self, images: Tensor) -> Tensor:
        settings, seen = self.settings, look(self.model, images, self.schema)
        assert self._mix is not None
        mix = torch.from_numpy(self._mix).to(seen.log_p)
        expected = torch.from_numpy(self._confusion.T @ self._mix).to(seen.log_p)
        loss = self._ruler.loss(seen.rows.mean(0))
        loss = loss + settings.anchor * anchor(self._moved(), self._start)
        loss = loss + settings.guard * guard(seen.log_p, expected, settings.slack)
        if settings.feature_weight:
            features = normalised(self.model.features(images))
            loss = loss + settings.feature_weight * self._feature_ruler.loss(features.mean(0))
        if settings.escalation:
            loss = loss + settings.escalation * informed(seen.log_p, mix)
        return loss

    @torch.no_grad()
    def _judge(self, images: Tensor) -> Evidence:
        """Compare the adapted weights with the shipped ones on images that did not adapt them."""
        then, now = look(self.shipped, images, self.schema), look(self.model, images, self.schema)
        most = most_entropy(now.log_p.shape[1])
        unsure = np.array([float(entropy(one.log_p).mean()) / most for one in (then, now)])
        self._entropy = _past(self._entropy, unsure)
        moved = np.abs(self._mix_of(now) - self._mix_of(then)).sum()
        return Evidence(
            before=self._ruler.distance(then.rows.cpu().numpy()),
            after=self._ruler.distance(now.rows.cpu().numpy()),
            flips=float((then.log_p.argmax(1) != now.log_p.argmax(1)).double().mean()),
            mix_moved=float(moved),
            entropy=float(self._entropy[1]),
            entropy_before=float(self._entropy[0]),
            steps=self._steps,
            outside=self._bands.outside(now.vitals.double().mean(0).cpu().numpy(), self._signs),
        )

    def _mix_of(self, seen: Look) -> NDArray[np.float64]:
        return label_mix(self._confusion, seen.log_p.double().exp().mean(0).cpu().numpy())


def _past(before: NDArray[np.float64] | None, now: NDArray[np.float64]) -> NDArray[np.float64]:
    return now if before is None else PAST * before + (1 - PAST) * now


def _place(model: AttentionModel) -> bool:
    """Put temperatures and gates before every map that can have them; say whether there is any."""
    placed = [place_personal(model, site) for site in model.attention_sites]
    return any(placed)

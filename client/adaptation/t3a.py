"""T3A: a classifier of templates, the means of the features of which the model was surest."""

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from client.adaptation.answers import entropy, of_classes
from client.adaptation.base import Adaptation, MethodSettings
from client.adaptation.head import class_biases, class_weights, head_of, no_head
from common.attention.base import AttentionModel


class T3aSettings(MethodSettings):
    """Published choices of M are 1, 5, 20, 50, 100 and all."""

    keep: int = Field(default=20, ge=0, le=100_000, description="features kept per class, the surest; 0 keeps all")


class T3a(Adaptation):
    """Scores are z · template_k; predicts after the batch has entered. Biases of the classifier play no part.

    Each class begins with its weight vector as the first feature. Ranking is the published purpose: probabilities are
    softmax scores of unit templates, and badly calibrated. Published code drops the least sure feature of each class
    where "all" is asked for; ours keeps all. Memory grows with the stream if `keep` is 0. No parameter moves.

    Source: Iwasawa and Matsuo 2021, "Test-Time Classifier Adjustment Module for Model-Agnostic Domain Generalization".
    """

    Settings = T3aSettings
    name = "t3a"
    settings: T3aSettings

    @classmethod
    def lacks(cls, model: AttentionModel) -> str:
        """Look for a linear classifier."""
        return no_head(model)

    def adapted(self) -> tuple[str, ...]:
        """Name nothing: the templates stand beside the model."""
        return ()

    def _begin(self) -> None:
        weights, biases = class_weights(self.model), class_biases(self.model)
        scores = weights @ weights.T + biases
        self.features = F.normalize(weights, dim=1)
        self.labels = scores.argmax(1)
        self.entropies = entropy(scores.log_softmax(1))
        if len(set(self.labels.tolist())) < len(
            weights
        ):  # a class whose own weights look like another's keeps its place
            self.labels = torch.arange(len(weights), device=weights.device)

    def templates(self) -> Tensor:
        """Give the mean of each class's kept features, of unit length, [K, D]."""
        hard = F.one_hot(self.labels, len(class_weights(self.model))).to(self.features)
        return F.normalize(hard.T @ self.features, dim=1)

    @torch.no_grad()
    def _adapt(self, images: Tensor) -> Tensor:
        z = self.model.features(images)
        log_p = (z @ class_weights(self.model).T + class_biases(self.model)).log_softmax(1)
        self.features = torch.cat([self.features, F.normalize(z, dim=1)])
        self.labels = torch.cat([self.labels, log_p.argmax(1)])
        self.entropies = torch.cat([self.entropies, entropy(log_p)])
        self._keep_the_surest()
        self.counts.updates += 1
        return self._scored(z)

    def _keep_the_surest(self) -> None:
        if not self.settings.keep:
            return
        order = self.entropies.argsort(stable=True)
        kept = [order[self.labels[order] == k][: self.settings.keep] for k in range(int(self.labels.max()) + 1)]
        index = torch.cat(kept).sort().values
        self.features, self.labels, self.entropies = self.features[index], self.labels[index], self.entropies[index]

    def _predict(self, images: Tensor) -> Tensor:
        return self._scored(self.model.features(images))

    def _scored(self, z: Tensor) -> Tensor:
        return of_classes((z @ self.templates().T).softmax(1), head_of(self.model).out_features)

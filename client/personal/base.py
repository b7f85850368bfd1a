"""What a manner of training gets and gives: one round at one site, with what is the site's own."""

from dataclasses import dataclass, replace

from client.extras import Extras
from client.own import own_parts
from client.training import Trained
from client.training import train as train_locally
from common.arrays import Arrays, load_arrays, model_arrays
from common.attention.base import AttentionModel
from common.config import StrategySection, TrainSection
from common.data.base import Dataset
from common.tasks.base import Task


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class LocalRound:
    """One round at one site. `names` are those of the arrays that stay, `kept` is the site's table before the round.

    `seed` is for this site and this round; two models trained with it see the same batches.
    """

    model: AttentionModel
    task: Task
    data: Dataset
    settings: TrainSection
    strategy: StrategySection
    extras: Extras
    seed: int
    arrays: Arrays
    """The global ones, as they came."""
    names: tuple[str, ...]
    kept: Arrays

    def start(self) -> Arrays:
        """Give what the shared model trains from: the global arrays, the site's own in their places."""
        return {**self.arrays, **own_parts(self.kept)}

    def load(self, arrays: Arrays) -> None:
        """Put arrays into the model."""
        load_arrays(self.model, arrays)

    def learn(self, extras: Extras | None = None) -> Trained:
        """Train the model in place, as it stands."""
        return train_locally(self.model, self.task, self.data, self.settings, self.seed, extras or self.extras)

    def outcome(self, trained: Trained) -> "Outcome":
        """Tell of the shared model, as it stands."""
        arrays = model_arrays(self.model)
        return Outcome(trained, arrays, {name: arrays[name] for name in self.names})

    def for_epochs(self, epochs: int, seed: int) -> "LocalRound":
        """Give the same round with another number of epochs and other batches."""
        return replace(self, settings=self.settings.model_copy(update={"local_epochs": epochs}), seed=seed)


@dataclass(frozen=True, slots=True, eq=False)
class Outcome:
    """What a round came to: `arrays` of the shared model, of which the update is made, and the site's new table."""

    trained: Trained
    arrays: Arrays
    kept: Arrays

"""Does attention distance predict the loss of accuracy? Each site's own model, judged at every other site of a run."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from client.evaluation import predict
from common.errors import DataError, RunFolderError
from common.metrics import METRICS
from common.metrics.base import Classified, Predictions
from common.seeds import derive
from common.shift.dyads import Dyad, relate
from simulations.finished import Step
from simulations.judging import Case, Court
from simulations.protocols import PROTOCOLS, local
from simulations.shift import average, open_run
from simulations.shift_rows import DISTANCES, ruler_of, schema_for, site_rows

Row = dict[str, Any]
PREDICTORS = {**DISTANCES, "confidence": "lost confidence", "entropy": "gained entropy", "atc": "ATC"}
"""Column to the name that people read."""


@dataclass(frozen=True, slots=True)
class Drop:
    """`dyads`: a row per model and judged site, averaged over seeds; `relations`: a row per predictor, best first."""

    run: Path
    privacy: str
    metric: str
    seeds: tuple[int, ...]
    dyads: list[Row]
    relations: list[Row]


def study_drop(run: Path, step: Step = lambda text: None) -> Drop:
    """Judge each site's own model everywhere and relate its loss to every predictor.

    All that a predictor reads of the judged site is images, never labels; of the home site its labels too.

    Raises:
        RunFolderError: The run is not finished or has no local models; otherwise as `study_shift`.
        AttentionError: Its model names no attention site.
        DataError: There are fewer than three pairs of sites.
    """
    results, experiment, court = open_run(run)
    sources = tuple(site.name for site in court.federation.sites if site.role == "source")
    plans = {plan.name for name in experiment.study.protocols for plan in PROTOCOLS.load(name)().plans(sources)}
    if not {local(name) for name in sources} <= plans:
        raise RunFolderError(f"{run} has no local models. Run the experiment with 'local' among its protocols.")
    by_seed: list[list[Row]] = []
    for seed in experiment.study.seeds:
        by_seed.append([])
        for source in sources:
            step(f"seed {seed}: the model of {source} everywhere")
            by_seed[-1] += _from(court, seed, source)
    rows = [average(same) for same in zip(*by_seed, strict=True)]
    kept = [row for row in rows if np.isfinite(row["drop"])]
    dyads = [Dyad(row["trained_on"], row["judged_on"], row["drop"]) for row in kept]
    names = [name for name in PREDICTORS if name in rows[0]]
    relations = [{"predictor": name, **asdict(relate(dyads, [row[name] for row in kept]))} for name in names]
    relations.sort(key=lambda row: -row["spearman"] if np.isfinite(row["spearman"]) else 2.0)
    seeds = tuple(experiment.study.seeds)
    return Drop(run, str(results.record["privacy"]), court.task.metrics[0], seeds, rows, relations)


def relation(run: Path, step: Step = lambda text: None) -> Drop | str:
    """Relate distance and drop if the run allows it, else say what it lacks."""
    try:
        return study_drop(run, step)
    except (RunFolderError, DataError) as error:
        return str(error)


def _from(court: Court, seed: int, source: str) -> list[Row]:
    """One row per other site: the drop of the source's own model there and what each predictor says."""
    (model,) = court.models(Case(seed, (local(source),), source))
    schema = schema_for(model)
    data = {site.name: court.data(site.name, "test") for site in court.federation.sites}
    rows = {name: site_rows(model, schema, part, derive(seed, "shift", name)) for name, part in data.items()}
    # One site's test patients are few: spread and class means come from those it trained on, distances never do.
    known = site_rows(model, schema, court.data(source, "train"), derive(seed, "shift", source))
    ruler = ruler_of(model, schema, court.federation, [known])
    seen = {name: predict([model], court.task, part) for name, part in data.items()}
    metric = METRICS.load(court.task.metrics[0])()
    values = {name: float(metric.value(predictions)[0]) for name, predictions in seen.items()}
    return [
        {
            "trained_on": source,
            "judged_on": name,
            "value": values[name],
            "drop": (values[source] - values[name]) * (1 if metric.higher_is_better else -1),
            **ruler.distances(rows[source], rows[name]),
            **baselines(seen[source], seen[name]),
        }
        for name in data
        if name != source
    ]


def baselines(home: Predictions, away: Predictions) -> dict[str, float]:
    """Give what predictions alone say of a drop: lost confidence, gained entropy, and ATC; none for segmentation.

    ATC: the threshold on the confidence below which, at home, as many images lie as are wrong; away, the share below it
    is the predicted error, and the predictor is its excess.

    Source: Garg et al. 2022, "Leveraging Unlabeled Data to Predict Out-of-Distribution Performance", eq. 2 (ATC-MC);
    Guillory et al. 2021 for the difference of confidences.
    """
    if not isinstance(home, Classified) or not isinstance(away, Classified) or home.labels.ndim == 2:
        return {}
    full = [_whole(side.probabilities) for side in (home, away)]
    sure = [side.max(1) for side in full]
    wrong = float(np.mean(full[0].argmax(1) != home.labels))
    threshold = float(np.quantile(sure[0], wrong))
    entropy = [float(-(side * np.log(side.clip(1e-12))).sum(1).mean()) for side in full]
    return {
        "confidence": float(sure[0].mean() - sure[1].mean()),
        "entropy": entropy[1] - entropy[0],
        "atc": float(np.mean(sure[1] < threshold) - np.mean(sure[0] < threshold)),
    }


def _whole(probabilities: NDArray[np.float64]) -> NDArray[np.float64]:
    """Give both classes of a binary classifier their column."""
    if probabilities.shape[1] > 1:
        return probabilities
    return np.concatenate([1 - probabilities, probabilities], 1)

"""A run's settings: what each means, its type, bounds, unit and source. The values stand in `pyproject.toml`.

The coordinator owns a `RunConfig`; it travels to the sites, which may refuse it and never change it.
"""

import hashlib
import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError

from common.config_checks import check_together
from common.errors import ConfigError, nearest
from common.protection import PrivacySection, SecureAggregationSection, protection_name
from common.section import Section, kebab

Scalar = bool | int | float | str
HERE = Path(__file__).parent


class DataSection(Section):
    """Which images, which sites, and how they are divided."""

    name: str = Field(description="data set: see `consilium list datasets`")
    seed: int = Field(ge=0, lt=2**63, description="draws the phantom, the partition and the splits; apart from `seed`")
    path: str = Field(description="the file or folder of the data set; empty for phantom")
    image_size: int = Field(ge=0, le=1024, description="side in pixels to which images are brought; 0 keeps them")
    orientation: Literal["as-is", "flip-lr", "flip-ud", "rot90", "rot180", "rot270", "transpose", "transverse"] = Field(
        description="what turns stored images and masks to the orientation that all sites share, counter-clockwise"
    )
    classes: str = Field(description="comma-separated classes to keep; empty keeps all")
    label: str = Field(description="array or column that holds the label; auto takes labels (phantom: lesion)")
    mask: str = Field(description="array or column that holds the mask")
    patient: str = Field(description="array or column that names the patient; auto looks for patient, lesion, video")
    patient_pattern: str = Field(
        description="regular expression; its first group, found in the patient column, is the patient"
    )
    held_out: str = Field(description="comma-separated sites that never train and are judged at the end")
    partition: Literal["natural", "dirichlet", "quantity", "scanner"] = Field(
        description="sites as in the data, or made: label skew, quantity skew, scanner shift"
    )
    partition_sites: int = Field(ge=1, le=10_000, description="sites to make; natural ignores it")
    partition_alpha: float = Field(gt=0, le=1e6, description="Dirichlet concentration; smaller means more skew")
    max_images_per_site: int = Field(
        ge=0, description="keep whole patients up to this many images per site; 0 keeps all"
    )
    max_images_per_patient: int = Field(
        ge=0, description="keep this many images of each patient, evenly spaced in their order; 0 keeps all"
    )
    max_instances: int = Field(
        ge=1,
        le=100_000,
        description="bags: rows of each bag, evenly spaced in their order where there are more, filled up where fewer",
    )
    patients_per_site: int = Field(ge=4, le=100_000, description="phantom: patients drawn at each site")
    download: bool = Field(description="medmnist: may the file be fetched from the network")


class TaskSection(Section):
    """What is learnt."""

    name: str = Field(description="task: binary, multiclass, multilabel or segmentation")
    positive: str = Field(description="binary: the class, or comma-separated classes, that count as positive")


class ModelSection(Section):
    """Which attention model."""

    name: str = Field(description="model: see `consilium list models`")
    width: int = Field(ge=4, le=1024, description="channels of the first stage, or token dimension")
    attention: str = Field(
        "", description="attention layer: see `consilium list attention`; none for none, empty for the model's own"
    )
    placement: Literal["", "block", "skip"] = Field(
        "", description="where the layer stands: in the blocks or on the skip connections; empty for the model's own"
    )

    personal_attention: bool = Field(
        False, description="temperatures of heads, scales and biases of gates, which fedattnnorm keeps at each site"
    )
    batch_norm: bool = Field(
        False, description="BatchNorm instead of GroupNorm, for comparisons: images see each other, so never privately"
    )
    amplitude: bool = Field(
        False, description="show every image with the federation's mean amplitude spectrum; harmofl needs it"
    )
    representation: Literal["", "gaussian"] = Field(
        "", description="draw the representation from a normal law while training; fedsr needs it, empty for none"
    )
    anatomy_bias: Literal["", "disc"] = Field(
        "", description="let self-attention lean towards the field of view, by a learnt amount; empty for none"
    )


class TrainSection(Section):
    """How a site trains in one round."""

    local_epochs: int = Field(ge=1, le=1000, description="passes over the site's training images per round")
    batch_size: int = Field(ge=1, le=4096, description="images per step")
    optimizer: Literal["adamw", "sgd"] = Field(description="local optimizer, started afresh each round")
    learning_rate: float = Field(gt=0, le=10, description="local learning rate")
    weight_decay: float = Field(ge=0, le=1, description="decoupled for adamw, L2 for sgd")
    momentum: float = Field(ge=0, lt=1, description="sgd only")
    augment: bool = Field(description="change images at random while training, as `augmentation` says")
    augmentation: Literal["flips", "medical"] = Field(
        description="flips: flips and small shifts; medical: also turns, sizes and what another scanner would change "
        "(bias field, gamma, exposure, contrast, brightness, blur, noise), three of them on each image"
    )
    amplitude_mix: float = Field(
        0.0,
        ge=0,
        le=0.5,
        description="frequencies up to this, in cycles per pixel, take some of another image's amplitude: the look of "
        "another scanner at the same site; 0 for none, try 0.05",
    )
    sam: float = Field(
        0.0,
        ge=0,
        le=10,
        description="sharpness-aware minimisation: radius within which the loss shall be low everywhere, at twice the "
        "time; 0 for none, try 0.05",
    )
    class_weights: Literal["none", "balanced"] = Field(
        description="weigh the loss by the inverse class frequency at the site"
    )
    device: str = Field(pattern=r"^(auto|cpu|cuda(:\d+)?)$", description="auto, cpu, cuda or cuda:i")
    amp: bool = Field(description="bfloat16 autocast on CUDA; ignored on CPU, where it is slower")


class StrategySection(Section):
    """How the server combines updates."""

    name: str = Field(description="strategy: see `consilium list strategies`")
    personal: str = Field(
        description="comma-separated paths of arrays that each site keeps, beside those of the strategy; a path stands "
        "for all below it, * for anything; roles: @head, @norms, @statistics, @attention"
    )
    head_epochs: int = Field(
        ge=1, le=1000, description="fedrep: epochs of what stays, before `train.local-epochs` of the rest"
    )
    pull: float = Field(
        ge=0, le=100, description="ditto, mr-mtl: weight of the pull of a site's own model to the shared one; 0.1 to 1"
    )
    mixing: float = Field(ge=0, le=1, description="apfl: weight of the site's own model in its mixture, at first")
    learn_mixing: bool = Field(description="apfl: learn that weight at each site, or leave it as it is")
    mu: float = Field(ge=0, le=100, description="fedprox: weight of the proximal term")
    server_learning_rate: float = Field(gt=0, le=100, description="fedadam, fedyogi, fedadagrad: server step size")
    beta1: float = Field(ge=0, lt=1, description="fedadam, fedyogi, fedadagrad: first-moment decay")
    beta2: float = Field(ge=0, lt=1, description="fedadam, fedyogi: second-moment decay")
    tau: float = Field(gt=0, le=1, description="fedadam, fedyogi, fedadagrad: adaptivity floor")
    dynamic: float = Field(gt=0, le=10, description="feddyn: α, weight of the dynamic regulariser; 0.01 to 0.1")
    fairness: float = Field(ge=0, le=10, description="qffl: q; 0 weighs all sites alike, more asks for evener losses")
    smoothness: float = Field(
        gt=0, le=1e6, description="qffl: L of the denominator; the paper's is 1 over the local learning rate"
    )
    group_step: float = Field(ge=0, le=100, description="afl, group-dro: step of the sites' weights per round")
    harmony: float = Field(ge=0, le=10, description="harmofl: radius within which sites make the loss low everywhere")
    contrast: float = Field(ge=0, le=100, description="moon: weight of the contrastive term")
    temperature: float = Field(gt=0, le=100, description="moon: temperature of the contrastive term")
    prototype: float = Field(ge=0, le=100, description="fedproto: weight of the distance to the class's prototype")
    shrink: float = Field(ge=0, le=10, description="fedsr: weight of the squared length of representations")
    invariance: float = Field(ge=0, le=10, description="fedsr: weight of their divergence from the class's law")
    attention_weights: Literal["none", "robust", "fair"] = Field(
        description="let a site whose attention is far from the others' count less (robust: the minority hospital "
        "pays) or more (fair), within half and twice what its images say"
    )
    average_rounds: float = Field(
        0.0,
        ge=0,
        le=1,
        description="share of the rounds, at the end, whose arrays are averaged into the model that is judged and "
        "kept; 0 keeps the last round's, try 0.25",
    )


class CohortSection(Section):
    """Which sites take part in a round, and how long the server waits."""

    fraction: float = Field(gt=0, le=1, description="share of the source sites drawn each round, without replacement")
    quorum: int = Field(ge=1, description="fewest sites whose updates may be combined; fewer ends the run")
    timeout_seconds: float = Field(gt=0, le=7 * 86400, description="longest wait for a round's replies")


class AttentionSection(Section):
    """When and on how much attention is measured."""

    every: int = Field(ge=0, description="rounds between signatures; 0 measures none. The last round always measures")
    images_per_patient: int = Field(ge=1, le=1000, description="at most so many images of one patient")
    patients: int = Field(ge=1, description="at most so many patients per site and measurement")


class GuidanceSection(Section):
    """What guides attention while a site trains: weights of terms that are added to the loss, 0 for none."""

    teacher: float = Field(ge=0, le=100, description="look where the global model looks on the same image; try 0.1")
    alignment: float = Field(ge=0, le=100, description="move the site's mean attention to the prior's; try 0.05")
    band: float = Field(ge=0, le=100, description="stay within 3 standard deviations of the prior; try 0.05")
    anatomy: float = Field(ge=0, le=100, description="look inside the region; try 0.1")
    region: Literal["disc", "atlas"] = Field(
        description="of anatomy: the field of view, or where the masks of this site fall"
    )
    masks: float = Field(ge=0, le=100, description="look inside the experts' masks, where there are any; try 0.3")
    adversary: float = Field(ge=0, le=1, description="attention not to be told from draws of the prior; try 0.1")
    start: float = Field(
        ge=0,
        lt=1,
        description="share of the rounds after which alignment, band and adversary begin: the prior of a model that "
        "has learnt nothing says nothing",
    )

    def weights(self) -> dict[str, float]:
        """Give the terms' weights by name."""
        return {name: value for name, value in self.model_dump().items() if name not in ("region", "start")}

    @property
    def needs_prior(self) -> bool:
        """Whether a term reads the prior, which must then be measured and sent."""
        return max(self.alignment, self.band, self.adversary) > 0


class RunConfig(Section):
    """Everything that determines one training."""

    seed: int = Field(ge=0, lt=2**63, description="every reproducible random number is derived from it")
    rounds: int = Field(ge=1, le=100_000, description="rounds to train")
    out: str = Field(description="the server's folder for checkpoints and history; empty keeps them in memory only")
    data: DataSection
    task: TaskSection
    model: ModelSection
    train: TrainSection
    strategy: StrategySection
    cohort: CohortSection
    attention: AttentionSection
    guidance: GuidanceSection
    privacy: PrivacySection
    secure_aggregation: SecureAggregationSection

    @property
    def pooled(self) -> bool:
        """Whether sites send vectors that are only ever added: under privacy, secure aggregation or both."""
        return self.privacy.on or self.secure_aggregation.enabled

    @property
    def protection(self) -> str:
        """What protects the patients, in a few words."""
        return protection_name(self.privacy, self.secure_aggregation)

    def flat(self) -> dict[str, Scalar]:
        """Give dotted kebab-case keys and scalar values, as Flower carries them."""
        return flatten(self.model_dump(by_alias=True))

    def digest(self) -> str:
        """SHA-256 of all settings but where files lie, which changes no result: `out` and the folder of `data.path`."""
        values = {**self.flat(), "data.path": Path(self.data.path).name}
        del values["out"]
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()

    def replace(self, changes: Mapping[str, Scalar]) -> "RunConfig":
        """Give a copy with some dotted keys changed, checked anew."""
        return run_config({**self.flat(), **changes})


def default_values() -> dict[str, Scalar]:
    """Read the one table of defaults, `[tool.flwr.app.config]`."""
    for path in (HERE / "pyproject.toml", HERE.parent / "pyproject.toml"):
        if path.is_file():
            return flatten(tomllib.loads(path.read_text())["tool"]["flwr"]["app"]["config"])
    raise ConfigError("pyproject.toml with the default settings lies neither in nor beside `common/`. Install anew.")


def flatten(table: Mapping[str, Any], prefix: str = "") -> dict[str, Scalar]:
    """Turn nested tables into dotted keys."""
    flat: dict[str, Scalar] = {}
    for key, value in table.items():
        if isinstance(value, Mapping):
            flat.update(flatten(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def nest(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Turn dotted keys into nested tables."""
    tree: dict[str, Any] = {}
    for key, value in flat.items():
        *parents, leaf = key.split(".")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
            if not isinstance(node, dict):
                raise ConfigError(f"setting {key!r}: {parent!r} is a value, not a section. Write it once only.")
        if isinstance(node.get(leaf), dict):
            raise ConfigError(
                f"setting {key!r} is a section, not a value. Set one of its keys: {', '.join(node[leaf])}."
            )
        node[leaf] = value
    return tree


def run_config(values: Mapping[str, Any]) -> RunConfig:
    """Check flat values and freeze them.

    Raises:
        ConfigError: Unknown key (with the nearest known one), wrong type or out of range: what was found and allowed.
    """
    known = list(default_values())
    for key in values:
        if key not in known:
            raise ConfigError(f"setting {key!r} is not known.{nearest(key, known)} `consilium settings` lists all.")
    try:
        config = RunConfig.model_validate(nest(values))
    except ValidationError as error:
        raise ConfigError("\n".join(_say(problem) for problem in error.errors())) from None
    check_together(config)
    return config


def load_run_config(changes: Mapping[str, Any] | None = None) -> RunConfig:
    """Take the defaults and change some dotted keys."""
    return run_config({**default_values(), **(changes or {})})


def _say(problem: Any) -> str:
    key = ".".join(kebab(str(part)) for part in problem["loc"])
    if problem["type"] == "missing":
        return f"setting {key!r} is missing. Give it a value."
    allowed = problem["msg"][0].lower() + problem["msg"][1:]
    return f"setting {key!r} is {problem['input']!r}; {allowed}. `consilium settings {key}` says what it means."

"""Settings that only make sense together: what is refused before any work."""

from typing import TYPE_CHECKING

from common.errors import ConfigError
from common.items import need_images

if TYPE_CHECKING:
    from common.config import RunConfig

PERSONAL = ("apfl", "ditto", "fedattnnorm", "fedbn", "fedper", "fedrep", "mr-mtl", "silobn")
"""Strategies by which each site has arrays of its own."""
SINGLE = {
    "fedexp": "reads the lengths of single sites' updates",
    "scaffold": "reads single sites' control variates",
    "fednova": "reads single sites' numbers of steps",
    "feddyn": "keeps a gradient of its own at each site",
    "qffl": "reads single sites' losses and lengths of updates",
    "afl": "reads single sites' losses",
    "group-dro": "reads single sites' losses",
    "harmofl": "averages an amplitude spectrum of each site",
    "moon": "keeps a model of its own at each site",
    "fedproto": "reads single sites' sums of features",
    "fedsr": "adds terms at the sites that no clipping knows",
}
"""Strategies that need of a site what no sum holds."""
WEIGHING = ("scaffold", "feddyn", "qffl", "afl", "group-dro")
"""Strategies whose arithmetic says what each site counts."""
ANCHORED = ("scaffold", "feddyn")
"""Strategies that measure each round's way from the global arrays, where a site's own do not begin."""


def check_together(config: "RunConfig") -> None:
    """Refuse settings that only make sense together."""
    if config.guidance.needs_prior and not config.attention.every:
        raise ConfigError(
            "guidance.alignment, .band and .adversary read the prior and 'attention.every' is 0, so that there is "
            "none. Set 'attention.every' to 1 or more, or these weights to 0."
        )
    every, weights = config.attention.every, config.strategy.attention_weights
    if weights != "none" and not 0 < every < config.rounds:
        raise ConfigError(
            f"setting 'strategy.attention-weights' is {weights!r}, 'attention.every' is {every} and 'rounds' is "
            f"{config.rounds}, so that nothing is measured before the last weights are made. Allowed is "
            f"0 < attention.every < rounds; set it so, or the weights to 'none'."
        )
    if weights != "none" and config.strategy.name in WEIGHING:
        raise ConfigError(
            f"strategy {config.strategy.name!r} says itself what each site counts, and so does "
            f"'strategy.attention-weights'. Set the latter to 'none', or take 'fedavg'."
        )
    if config.strategy.name == "fedattnnorm" and not config.model.personal_attention:
        raise ConfigError(
            "strategy 'fedattnnorm' keeps temperatures and gate scales at the sites and 'model.personal-attention' is "
            "false, so that the model has none. Set it to true, or take 'fedbn'."
        )
    _check_own(config)
    _check_method(config)
    _check_privacy(config)


def check_items(config: "RunConfig", image_size: int) -> None:
    """Refuse what changes or reads pixels where the data are bags of instances, which only the open data tell.

    Raises:
        ConfigError: As said.
    """
    pixels = {
        "'train.augment' = true": config.train.augment,
        f"'train.amplitude-mix' = {config.train.amplitude_mix:g}": config.train.amplitude_mix,
        f"'guidance.anatomy' = {config.guidance.anatomy:g}": config.guidance.anatomy,
        f"'guidance.masks' = {config.guidance.masks:g}": config.guidance.masks,
    }
    for what, on in pixels.items():
        if on:
            need_images(what, image_size)


def _check_own(config: "RunConfig") -> None:
    """Refuse arrays of a site's own where they spoil a strategy's arithmetic, and a pull that every step leaps over."""
    strategy, train = config.strategy, config.train
    if strategy.personal and strategy.name in ANCHORED:
        raise ConfigError(
            f"strategy {strategy.name!r} corrects gradients by each round's way from the global arrays, and by "
            f"'strategy.personal' = {strategy.personal!r} sites begin elsewhere. Leave it empty, or take 'fedavg'."
        )
    most = 2 * (1 + train.momentum) / train.learning_rate
    if strategy.name in ("ditto", "mr-mtl") and train.optimizer == "sgd" and strategy.pull >= most:
        raise ConfigError(
            f"'strategy.pull' is {strategy.pull:g}, 'train.learning-rate' {train.learning_rate:g} and "
            f"'train.momentum' {train.momentum:g}: sgd then leaps over what it is pulled to, farther each step. "
            f"Allowed is a pull below 2 (1 + momentum) / learning-rate = {most:.4g}; lower one of them."
        )


def _check_method(config: "RunConfig") -> None:
    """Refuse strategies without what they need of model and task, and parts of a model that only they use."""
    name, model = config.strategy.name, config.model
    for setting, found, needed, strategy in (
        ("model.amplitude", model.amplitude, "true", "harmofl"),
        ("model.representation", bool(model.representation), "'gaussian'", "fedsr"),
    ):
        if found != (name == strategy):
            told = f"is not {needed}" if name == strategy else "is set"
            raise ConfigError(
                f"'strategy.name' is {name!r} and {setting!r} {told}. They go together: set 'strategy.name' to "
                f"{strategy!r} and {setting!r} to {needed}, or neither."
            )
    if name in ("fedproto", "fedsr") and config.task.name not in ("binary", "multiclass"):
        raise ConfigError(
            f"strategy {name!r} knows one class per image and 'task.name' is {config.task.name!r}. Allowed are "
            f"'binary' and 'multiclass'; take another strategy."
        )


def _check_privacy(config: "RunConfig") -> None:
    """Refuse what would protect less than it says."""
    privacy, secure = config.privacy, config.secure_aggregation
    if privacy.on and (privacy.mechanism == "gaussian") == (privacy.placement == "distributed"):
        raise ConfigError(
            f"'privacy.mechanism' is {privacy.mechanism!r} and 'privacy.placement' {privacy.placement!r}. Shares of "
            f"noise live on integers: allowed are gaussian with site or central, discrete-gaussian or skellam with "
            f"distributed."
        )
    if privacy.on and privacy.placement == "distributed" and not secure.enabled:
        raise ConfigError(
            "'privacy.placement' is 'distributed' and 'secure-aggregation.enabled' is false: a single site's share of "
            "the noise does not protect its patients. Set it to true, or the placement to 'site'."
        )
    if privacy.on and config.train.class_weights != "none":
        raise ConfigError(
            "'train.class-weights' is 'balanced', which reads how many patients have each label, and no noise covers "
            "that. Set it to 'none' where 'privacy.mechanism' is not."
        )
    if privacy.on and config.train.sam:
        raise ConfigError(
            f"'train.sam' is {config.train.sam:g}: its two gradients of a step would cost twice, and no noise covers "
            f"the first. Set it to 0 where 'privacy.mechanism' is not 'none'."
        )
    if privacy.on and config.train.amplitude_mix:
        raise ConfigError(
            f"'train.amplitude-mix' is {config.train.amplitude_mix:g}, which mixes images of several patients, so that "
            f"no gradient is one patient's. Set it to 0 where 'privacy.mechanism' is not 'none'."
        )
    _check_sums(config)


def _check_sums(config: "RunConfig") -> None:
    """Refuse what needs single sites where only sums are seen, and groups that no rule can judge."""
    privacy, secure = config.privacy, config.secure_aggregation
    if secure.enabled and not privacy.on and any(config.guidance.weights().values()):
        raise ConfigError(
            "a weight of [guidance] is above 0 and 'secure-aggregation.enabled' is true: sites do not train with "
            "guidance where only sums are seen. Set the weights to 0, or the latter to false."
        )
    if config.pooled and config.strategy.attention_weights != "none":
        raise ConfigError(
            "'strategy.attention-weights' reads single sites' signatures, which privacy and secure aggregation hide. "
            "Set it to 'none'."
        )
    if config.pooled and config.strategy.name in SINGLE:
        raise ConfigError(
            f"strategy {config.strategy.name!r} {SINGLE[config.strategy.name]}, which privacy and secure aggregation "
            f"do not cover. Take 'fedavg', 'fedprox', 'fedadam', 'fedyogi' or 'fedadagrad'."
        )
    if config.pooled and (config.strategy.name in PERSONAL or config.strategy.personal):
        found = "strategy.personal" if config.strategy.personal else f"strategy {config.strategy.name!r}"
        raise ConfigError(
            f"{found} keeps arrays at each site, and under privacy or secure aggregation no site has arrays of its "
            f"own yet. Leave 'strategy.personal' empty and take 'fedavg', 'fedprox', 'fedadam', 'fedyogi' or "
            f"'fedadagrad'."
        )
    if secure.combine != "mean" and secure.groups < 3:
        raise ConfigError(
            f"'secure-aggregation.combine' is {secure.combine!r} and there are {secure.groups} groups. Among "
            f"fewer than three none can be told to be wrong; set 'secure-aggregation.groups' to 3 or more."
        )
    if privacy.on and privacy.placement != "site" and secure.groups > 1:
        raise ConfigError(
            f"'secure-aggregation.groups' is {secure.groups} and 'privacy.placement' {privacy.placement!r}: the "
            f"noise is that of one sum. Set the groups to 1, or the placement to 'site'."
        )
    if secure.groups > 1 and not secure.enabled:
        raise ConfigError(
            "'secure-aggregation.groups' is more than 1 and 'secure-aggregation.enabled' false. Enable it."
        )

"""Cells: one method on one stream at one site, under one training seed, in batches of one size."""

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from hashlib import blake2b
from typing import Any, NamedTuple

from client.adaptation import ADAPTATIONS
from client.adaptation.build import method_settings
from common.errors import ConfigError, RunFolderError, UnknownNameError, nearest
from simulations.experiment import Experiment
from simulations.judging import Court
from simulations.streams.make import SOURCE_STREAMS, load_stream

NONE = "none"
PROMISED = ("fasa",)
"""Methods that claim to do no harm: for them the test of safety is a release gate."""
SOURCES = "(sources)"
"""Where streams of the source sites' own images are judged: no site, but all of them together."""


class Target(NamedTuple):
    """A site that a training never saw."""

    training: str
    site: str


@dataclass(frozen=True, slots=True)
class Cell:
    """What one row of the study is about. `method` may carry settings: `tent:learning-rate=0.01`."""

    seed: int
    training: str
    site: str
    stream: str
    batch: int
    method: str

    @property
    def key(self) -> str:
        """Name that tells it from all others, fit for a file."""
        return blake2b(repr(asdict(self)).encode(), digest_size=12).hexdigest()

    @property
    def place(self) -> "Cell":
        """The same cell without adaptation."""
        return Cell(self.seed, self.training, self.site, self.stream, self.batch, NONE)


@dataclass(frozen=True, slots=True)
class Wish:
    """What is asked for; `held_out` empty takes every site that a training of the run never saw."""

    methods: tuple[str, ...]
    streams: tuple[str, ...]
    batches: tuple[int, ...]
    held_out: tuple[str, ...] = ()
    modality: str = ""

    def check(self) -> "Wish":
        """Return self with `none` among the methods, first, or say what is wrong.

        Raises:
            ConfigError: An unknown name or setting, or a batch size below one.
        """
        for method in self.methods:
            method_settings(*read_method(method))
        for stream in self.streams:
            load_stream(stream, self.modality)
            if (stream == "mixed" or "@" in stream) and not self.modality:
                raise ConfigError(
                    f"the stream {stream!r} has corruptions and no modality is given. Which happen depends on it; give "
                    f"--modality, or leave the stream out."
                )
        if not self.streams or not self.batches or min(self.batches) < 1:
            raise ConfigError(
                f"batch sizes are {list(self.batches)} and streams {list(self.streams)}. Allowed are sizes from 1 and "
                f"at least one stream."
            )
        return replace(
            self,
            methods=_once((NONE, *self.methods)),
            streams=_once(self.streams),
            batches=_once(self.batches),
            held_out=_once(self.held_out),
        )


def read_method(text: str) -> tuple[str, Mapping[str, Any]]:
    """Read a method and its settings, `sar:learning-rate=0.01:published=true`.

    Raises:
        UnknownNameError: No such method.
        ConfigError: A setting is not of the form key=value.
    """
    name, *changes = text.split(":")
    if name not in ADAPTATIONS:
        raise UnknownNameError("adaptation", name, list(ADAPTATIONS))
    values = {}
    for change in changes:
        key, sign, value = change.partition("=")
        if not sign:
            raise ConfigError(f"{change!r} of {text!r} is not of the form key=value. Write for example {name}:seed=3.")
        try:
            values[key] = tomllib.loads(f"value = {value}")["value"]
        except tomllib.TOMLDecodeError:
            values[key] = value
    return name, values


def base_name(method: str) -> str:
    """Give a method's name without its settings."""
    return method.partition(":")[0]


def targets(court: Court, experiment: Experiment, held_out: Sequence[str]) -> list[Target]:
    """Give the sites that a training never saw: held-out sites of the run, and each site left out once.

    Raises:
        RunFolderError: The run has neither.
        ConfigError: A wished site is no site of the run, or trained every model of it.
    """
    sites = {site.name: site.role for site in court.federation.sites}
    left_out = "leave-one-site-out" in experiment.study.protocols and list(sites.values()).count("source") > 1
    found = [Target("federated", name) for name, role in sites.items() if role == "held-out"]
    if left_out:
        found += [Target(f"without/{name}", name) for name, role in sites.items() if role == "source"]
    if not found:
        raise RunFolderError(
            "every site of the run trained its only model, so none is new to it. Run the experiment with "
            "`data.held-out`, or with 'leave-one-site-out' among its protocols."
        )
    known = [target.site for target in found]
    for name in held_out:
        if name not in known:
            where = "trained the model" if name in sites else "is not known"
            raise ConfigError(f"site {name!r} {where}.{nearest(name, known)} Allowed are {', '.join(known)}.")
    return [target for target in found if not held_out or target.site in held_out]


def cells(wish: Wish, seeds: Sequence[int], where: Sequence[Target]) -> list[Cell]:
    """Give every cell, those of one stream one after the other, so that it is made once."""
    return [
        Cell(seed, training, site, stream, batch, method)
        for seed in seeds
        for stream in wish.streams
        for training, site in _places(where, stream)
        for batch in wish.batches
        for method in wish.methods
    ]


def _places(where: Sequence[Target], stream: str) -> list[Target]:
    if stream not in SOURCE_STREAMS:
        return list(where)
    return [Target(training, SOURCES) for training in dict.fromkeys(target.training for target in where)]


def _once(values: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(dict.fromkeys(values))

"""One site: its data, its device, its store. A simulated site is cut from the run's data set; a hospital has a TOML."""

import hashlib
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from common.config import DataSection, RunConfig, Scalar, default_values, run_config
from common.data.base import Dataset, concatenate
from common.data.federation import Federation, Role, SiteData, open_federation
from common.device import DEVICES, choose_device
from common.errors import ConfigError, DataError, SiteCountError, UnknownNameError
from common.privacy.budget import Budget
from common.secagg.params import FEWEST, SitePolicy
from common.tasks.base import Task
from common.tasks.build import build_task

# Keys of Flower's node config.
PARTITION, PARTITIONS = "partition-id", "num-partitions"
MEMBERS, STORE, SITE_FILE = "members", "store", "site-config"
LONGEST_FOLDER = 200
UNIT = ("data.patient", "data.patient-pattern")
"""Settings that say who a patient is, and so what the unit of privacy is."""


class SiteBudget(BaseModel):
    """The most that everything which leaves the site may cost one patient."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", alias_generator=lambda name: name.replace("_", "-"), populate_by_name=True
    )

    epsilon: float = Field(gt=0, le=100, description="over all runs and studies of these patients")
    delta: float = Field(gt=0, le=1e-3, description="below 1 / patients")
    trusts_server: bool = Field(default=False, description="a run may leave the noise to the server, who then sees all")

    @property
    def allows(self) -> Budget:
        """The budget that releases are held against."""
        return Budget(self.epsilon, self.delta, self.trusts_server)


class SiteKeys(BaseModel):
    """Where the site's Ed25519 key and the roster of all sites' public keys lie, and what no run can loosen."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", alias_generator=lambda name: name.replace("_", "-"), populate_by_name=True
    )

    identity: Path = Field(description="made by `Identity.fresh`; readable by its owner alone")
    roster: Path = Field(description="JSON of site to public key, which came by another way than the server")
    fewest_sites: int = Field(
        default=FEWEST, ge=FEWEST, le=1000, description="no sum of fewer sites, whatever a run says"
    )
    colluders: int = Field(default=0, ge=0, le=1000, description="at least so many colluders are guarded against")
    consistency: Literal["threshold", "signed"] = Field(
        default="threshold", description="signed: survivors must be signed, whatever a run says"
    )

    @property
    def policy(self) -> SitePolicy:
        """What the site insists on in every secure sum."""
        return SitePolicy(fewest=self.fewest_sites, colluders=self.colluders, signed=self.consistency == "signed")


class SiteConfig(BaseModel):
    """A hospital's own settings. They never travel, and no run can loosen them."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", alias_generator=lambda name: name.replace("_", "-"), populate_by_name=True
    )

    name: str = Field(min_length=1, max_length=64, description="the site's name in this federation")
    state: Path = Field(description="folder for what the site keeps between rounds")
    device: str = Field(
        default="auto", pattern=f"^({DEVICES})$", description="auto, cpu, cuda or cuda:i; beats the run's wish"
    )
    data: dict[str, bool | int | float | str] = Field(description="where the data lie: any `data.` setting of a run")
    budget: SiteBudget | None = Field(default=None, description="what all runs together may cost a patient")
    secure: SiteKeys | None = Field(default=None, description="this site's key and the roster, for secure aggregation")


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """An open site. `data` is prepared for the run's task."""

    name: str
    data: SiteData
    federation: Federation
    task: Task
    device: torch.device
    store: Path | None
    cohort: str
    """Id of the data and of how their patients were divided: parts of one division share no patient."""
    ledger: Path | None = None
    budget: Budget | None = None
    identity: tuple[Path, Path] | None = None
    insists: SitePolicy = field(default_factory=SitePolicy)

    @property
    def patients(self) -> int:
        """How many patients the site trains on."""
        return len(set(self.data.train.patients.tolist()))


def open_site(config: RunConfig, node: Mapping[str, Any]) -> Site:
    """Open the site that a node stands for.

    Raises:
        ConfigError: The node names no site, or the site's TOML is wrong.
        DataError: The data are not what the run needs.
    """
    if SITE_FILE in node:
        own = read_site_config(Path(str(node[SITE_FILE])))
        federation = open_hospital_data(config, own)
        data = replace(federation.sites[0], name=own.name, role=_role(config, own.name))
        # One folder per run: what another run kept is of another model, or of other rounds.
        site = _site(config, federation, data, own.device, own.state / config.digest()[:16])
        return replace(
            site,
            ledger=own.state / "ledger",  # one for all runs: the same patients pay for all
            budget=own.budget.allows if own.budget else None,
            identity=_keys(config, own),
            insists=own.secure.policy if own.secure else SitePolicy(),
        )
    if PARTITION not in node and MEMBERS not in node:
        raise ConfigError(
            f"the node config names no site. Give {SITE_FILE!r} (a hospital's TOML) or {PARTITION!r} (simulation)."
        )
    federation = open_federation(config.data)
    if MEMBERS in node:
        data = _members(config.data, tuple(str(node[MEMBERS]).split("\n")), federation.data_digest)
    else:
        data = _numbered(federation, node)
    folder = node.get(STORE) or (f"{config.out}/sites" if config.out else "")
    return _site(config, federation, data, config.train.device, Path(str(folder)) if folder else None)


def _keys(config: RunConfig, own: SiteConfig) -> tuple[Path, Path] | None:
    if own.secure is None:
        if config.secure_aggregation.enabled:
            raise ConfigError(
                f"the run sums securely and the site {own.name!r} has no [secure] with `identity` and `roster`. "
                f"Make a key, and get the roster from the coordinator by a way that is not the server."
            )
        return None
    return own.secure.identity, own.secure.roster


def _numbered(federation: Federation, node: Mapping[str, Any]) -> SiteData:
    index, sites = int(node[PARTITION]), len(federation.sites)
    nodes = int(node.get(PARTITIONS, sites))
    if nodes != sites or not 0 <= index < sites:
        found = f"there are {nodes} nodes" if nodes != sites else f"there is no site number {index}"
        raise SiteCountError(
            f"{found}; the data have {sites} sites. Start as many nodes as there are sites: "
            f'`flwr run . --federation-config "num-supernodes={sites}"`.'
        )
    return federation.sites[index]


def read_site_config(path: Path) -> SiteConfig:
    """Read a hospital's TOML; relative paths in it count from its own folder, wherever the client is started.

    Raises:
        ConfigError: It is missing, is no TOML, or has wrong keys or values.
    """
    try:
        return _from_here(SiteConfig.model_validate(tomllib.loads(path.read_text(encoding="utf-8"))), path.parent)
    except OSError as error:
        raise ConfigError(f"the site file {path} cannot be read: {error.strerror}. Give the path of a TOML.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"the site file {path} is not valid TOML: {error}. Correct that line.") from None
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors())
        raise ConfigError(f"the site file {path} is wrong: {problems}. Needed are name, state and [data].") from None


def _from_here(own: SiteConfig, folder: Path) -> SiteConfig:
    data = dict(own.data)
    if data.get("path"):
        data["path"] = str(_whole(folder, Path(str(data["path"]))))
    secure = own.secure and own.secure.model_copy(
        update={"identity": _whole(folder, own.secure.identity), "roster": _whole(folder, own.secure.roster)}
    )
    return own.model_copy(update={"state": _whole(folder, own.state), "data": data, "secure": secure})


def _whole(folder: Path, path: Path) -> Path:
    return (folder / path.expanduser()).absolute()


def merge(members: list[SiteData]) -> SiteData:
    """Put the images of several sites together, as one centralised site; a single site stays as it is.

    Raises:
        ConfigError: A held-out site is among several, whose images would then be trained on.
    """
    if len(members) == 1:
        return members[0]
    if held_out := [member.name for member in members if member.role == "held-out"]:
        raise ConfigError(
            f"{', '.join(held_out)} is held out and stands in a group with others. Held-out sites never train; take it "
            f"out of the group, or out of `data.held-out`."
        )
    return SiteData(
        name=" + ".join(member.name for member in members),
        role="source",
        train=concatenate([_qualified(member.train, member.name) for member in members]),
        val=concatenate([_qualified(member.val, member.name) for member in members]),
        test=concatenate([_qualified(member.test, member.name) for member in members]),
    )


@lru_cache(maxsize=1)
def _members(settings: DataSection, names: tuple[str, ...], data_digest: str) -> SiteData:
    """Merge once for all seeds and runs of a process: the images of a merged site are a copy of all its members'.

    `data_digest` is there so that data which changed are merged anew.
    """
    federation = open_federation(settings)
    return merge([_member(federation, name) for name in names])


def _member(federation: Federation, name: str) -> SiteData:
    names = [site.name for site in federation.sites]
    if name not in names:
        raise UnknownNameError("site", name, names)
    return federation.site(name)


def _role(config: RunConfig, name: str) -> Role:
    """Hold a hospital out when the run's settings do, upper or lower case alike."""
    held_out = {each.strip().casefold() for each in config.data.held_out.split(",")}
    return "held-out" if name.strip().casefold() in held_out else "source"


def _qualified(data: Dataset, site: str) -> Dataset:
    """Name patients by site too: equal names at two sites are two patients."""
    return replace(data, patients=np.array([f"{site}/{patient}" for patient in data.patients.tolist()], dtype=str))


def open_hospital_data(config: RunConfig, own: SiteConfig) -> Federation:
    """Open a hospital's data with its own `data.` settings over the run's.

    Who a patient is the hospital says alone: with every image a patient, noise would hide an image and no patient.

    Raises:
        ConfigError: A `data.` setting is unknown or out of range, or the run says who a patient is.
        DataError: The data are not what they must be, or hold more than one site.
    """
    changes: dict[str, Scalar] = {f"data.{key}": value for key, value in own.data.items()}
    flat, defaults = config.flat(), default_values()
    if told := [key for key in UNIT if key not in changes and flat[key] != defaults[key]]:
        raise ConfigError(
            f"the run sets {', '.join(told)}, and who a patient is the hospital says alone. Set the same in [data] of "
            f"the site's TOML if it is right, or leave it out of the run."
        )
    federation = open_federation(run_config({**config.flat(), **changes, "data.held-out": ""}).data)
    if len(federation.sites) != 1:
        raise DataError(f"the data of {own.name!r} hold {len(federation.sites)} sites. A hospital's data hold one.")
    return federation


def _site(config: RunConfig, federation: Federation, data: SiteData, device: str, store: Path | None) -> Site:
    task = build_task(config.task, federation.classes, federation.mask_classes)
    prepared = replace(data, train=task.prepare(data.train), val=task.prepare(data.val), test=task.prepare(data.test))
    return Site(
        name=data.name,
        data=prepared,
        federation=federation,
        task=task,
        device=choose_device(device),
        store=store / folder_name(data.name) if store else None,
        # Who stands where, not what drew it: a cap on images, or another version, divides the same data otherwise.
        cohort=f"{federation.data_digest[:16]}-{federation.split_digest[:16]}",
        ledger=store / folder_name(data.name) / "ledger" if store else None,
    )


def folder_name(site: str) -> str:
    """Make a site's name safe as a folder name, distinct for distinct names; a very long one ends in its hash."""
    safe = "".join(char if char.isalnum() or char in "-_" else f"%{ord(char):x}%" for char in site)
    if len(safe.encode()) <= LONGEST_FOLDER:
        return safe
    short = safe.encode()[: LONGEST_FOLDER // 2].decode(errors="ignore")
    return f"{short}%%{hashlib.sha256(site.encode()).hexdigest()[:32]}"

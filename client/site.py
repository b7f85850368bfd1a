"""One site: its data, its device, its store. A simulated site is cut from the run's data set; a hospital has a TOML."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from client.site_settings import SiteConfig, read_site_config
from common.config import DataSection, RunConfig, Scalar, default_values, run_config
from common.config_checks import check_items
from common.data.base import Dataset, concatenate
from common.data.federation import Federation, Role, SiteData, open_federation
from common.device import choose_device
from common.errors import ConfigError, DataError, SiteCountError, UnknownNameError
from common.privacy.budget import Budget
from common.secagg.params import SitePolicy
from common.tasks.base import Task
from common.tasks.build import build_task

# Keys of Flower's node config.
PARTITION, PARTITIONS = "partition-id", "num-partitions"
MEMBERS, STORE, SITE_FILE = "members", "store", "site-config"
LONGEST_FOLDER = 200
UNIT = ("data.patient", "data.patient-pattern")
"""Settings that say who a patient is, and so what the unit of privacy is."""


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
    check_items(config, federation.image_size)
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

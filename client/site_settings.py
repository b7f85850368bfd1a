"""A hospital's own settings: one TOML that never travels, and that no run can loosen."""

import tomllib
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from common.device import DEVICES
from common.errors import ConfigError
from common.privacy.budget import Budget
from common.secagg.params import FEWEST, SitePolicy


class Own(BaseModel):
    """A table of the TOML: unknown keys are refused, hyphens stand for underscores."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", alias_generator=lambda name: name.replace("_", "-"), populate_by_name=True
    )


class SiteBudget(Own):
    """The most that everything which leaves the site may cost one patient."""

    epsilon: float = Field(gt=0, le=100, description="over all runs and studies of these patients")
    delta: float = Field(gt=0, le=1e-3, description="below 1 / patients")
    trusts_server: bool = Field(default=False, description="a run may leave the noise to the server, who then sees all")

    @property
    def allows(self) -> Budget:
        """The budget that releases are held against."""
        return Budget(self.epsilon, self.delta, self.trusts_server)


class SiteKeys(Own):
    """Where the site's Ed25519 key and the roster of all sites' public keys lie, and what no run can loosen."""

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


class ShippedModel(Own):
    """The model that this site predicts with, and whose signature it must bear."""

    folder: Path = Field(description="what `consilium export` wrote: model.safetensors and artefact.safetensors")
    trusted_key: str = Field(description="public key of the signer, 64 hexadecimal digits, which came by another way")


class AdaptationPolicy(Own):
    """Which methods may adapt the shipped model at this site. Without this table none may."""

    methods: tuple[str, ...] = Field(min_length=1, description="names in `consilium list adaptations`")
    locked: bool = Field(default=True, description="measure and flag, adapt nothing: only fasa can")


class SiteConfig(Own):
    """A hospital's own settings. They never travel, and no run can loosen them."""

    name: str = Field(min_length=1, max_length=64, description="the site's name in this federation")
    state: Path = Field(description="folder for what the site keeps between rounds")
    device: str = Field(
        default="auto", pattern=f"^({DEVICES})$", description="auto, cpu, cuda or cuda:i; beats the run's wish"
    )
    data: dict[str, bool | int | float | str] = Field(description="where the data lie: any `data.` setting of a run")
    budget: SiteBudget | None = Field(default=None, description="what all runs together may cost a patient")
    secure: SiteKeys | None = Field(default=None, description="this site's key and the roster, for secure aggregation")
    shipped: ShippedModel | None = Field(default=None, description="the model that `consilium-site predict` asks")
    adaptation: AdaptationPolicy | None = Field(default=None, description="which methods may adapt it; absent: none")


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
    shipped = own.shipped and own.shipped.model_copy(update={"folder": _whole(folder, own.shipped.folder)})
    changed = {"state": _whole(folder, own.state), "data": data, "secure": secure, "shipped": shipped}
    return own.model_copy(update=changed)


def _whole(folder: Path, path: Path) -> Path:
    return (folder / path.expanduser()).absolute()

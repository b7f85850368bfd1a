"""Opens the model that was shipped to this site, if whoever is trusted signed it and nothing was changed since."""

from dataclasses import dataclass

import torch

from client.adaptation.artefact import Artefact, file_digest, read_artefact
from client.site_settings import SiteConfig
from common.arrays import load_arrays, read_arrays
from common.attention.base import AttentionModel
from common.config import RunConfig, load_run_config
from common.device import choose_device
from common.errors import ConfigError, DataError, ProtocolError, RunFolderError
from common.models.build import build_model
from common.signed import public_key
from common.tasks.base import Task
from common.tasks.build import build_task

MODEL, ARTEFACT = "model.safetensors", "artefact.safetensors"


@dataclass(frozen=True, slots=True, eq=False)
class Shipped:
    """The model in eval mode on the site's device; `digest` is that of the artefact's file."""

    model: AttentionModel
    task: Task
    artefact: Artefact
    digest: str
    config: RunConfig
    device: torch.device


def open_shipped(own: SiteConfig) -> Shipped:
    """Read the folder that [shipped] names.

    Raises:
        ConfigError: The site has no [shipped].
        DataError: The artefact is missing, changed or signed by another key, or the arrays are not its own.
    """
    if own.shipped is None:
        raise ConfigError(
            f"the site {own.name!r} has no [shipped]. Add it with `folder`, which `consilium export` wrote, and "
            f"`trusted-key`, which its signer told you by another way."
        )
    folder, device = own.shipped.folder, choose_device(own.device)
    artefact = read_artefact(folder / ARTEFACT, public_key(own.shipped.trusted_key), device)
    card = artefact.card
    config = load_run_config(card.settings)
    task = build_task(config.task, card.classes, card.mask_classes)
    try:
        arrays, _ = read_arrays(folder / MODEL)
        model = build_model(config.model, card.channels, task.outputs, card.image_size, seed=0, dense=task.dense)
        load_arrays(model, arrays)
    except (RunFolderError, ProtocolError):
        raise DataError(
            f"{MODEL} is missing, damaged or of another model than {ARTEFACT}. Use both files of one `consilium "
            f"export`; copy them again."
        ) from None
    artefact.check(model, arrays)
    return Shipped(model.to(device).eval(), task, artefact, file_digest(folder / ARTEFACT), config, device)

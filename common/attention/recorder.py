"""Reads the attention tensors of any model through hooks, and says so when one stays silent."""

from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Self, cast

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from common.attention.base import AttentionModel, AttentionSite, Switchable
from common.attention.checks import check_sites, check_tensor, check_values, value_bounds
from common.errors import AttentionError, nearest

Reduce = Callable[[AttentionSite, Tensor], Tensor]
"""What is made of a site's tensor, as soon as it appears."""


class Recorder:
    """Listens to a model's attention sites while it is entered.

    With `reduce`, a site's tensor is reduced inside the hook (autocast off) and let go before the next layer
    runs, so that memory holds the maps of one layer only. Without it `take` gives the tensors themselves, on their
    device and with their graph. Layers that would take a fused path without maps (`Switchable`) are switched to the
    explicit path and switched back.

    Example:
        with Recorder(model) as recorder:
            model(images)
            maps = recorder.take()
    """

    def __init__(
        self, model: AttentionModel, sites: Sequence[AttentionSite] | None = None, reduce: Reduce | None = None
    ) -> None:
        """Prepare to listen to `sites`, by default all that the model names.

        Raises:
            AttentionError: The model names no site, a name twice, or a submodule that does not exist.
        """
        self.sites = tuple(model.attention_sites if sites is None else sites)
        check_sites(type(model).__name__, self.sites)
        self._modules = {site.name: _find(model, site) for site in self.sites}
        self._switches = _switches(model, self.sites)
        self._reduce = reduce
        self._handles: list[RemovableHandle] = []
        self._explicit: list[bool] = []
        self._clear()

    def __enter__(self) -> Self:
        if self._handles:
            raise AttentionError("this recorder listens already. It is entered once at a time; make a second one.")
        self._clear()
        self._explicit = [switch.explicit for switch in self._switches]
        for switch in self._switches:
            switch.explicit = True
        self._handles = [self._modules[site.name].register_forward_hook(self._hook(site)) for site in self.sites]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles = []
        for switch, before in zip(self._switches, self._explicit, strict=True):
            switch.explicit = before

    def take(self) -> dict[str, Tensor]:
        """Give each site's tensor of the last forward pass, in the order of the sites, and forget it.

        Raises:
            AttentionError: A site fired never or more than once since the last `take`, or its values are not finite,
                lie outside [0, 1], or (self-attention) its rows do not sum to one.
        """
        fired, tensors, bounds = self._fired, self._tensors, self._bounds
        self._clear()
        for site in self.sites:
            if fired.get(site.name, 0) != 1:
                raise AttentionError(_miscount(site, fired.get(site.name, 0)))
        for site in self.sites:
            check_values(site, bounds[site.name])
        return {site.name: tensors[site.name] for site in self.sites}

    def _hook(self, site: AttentionSite) -> Callable[[nn.Module, Any, Any], None]:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            self._fired[site.name] = self._fired.get(site.name, 0) + 1
            tensor = check_tensor(site, output)
            with torch.autocast(tensor.device.type, enabled=False):
                self._bounds[site.name] = value_bounds(site, tensor.detach())
                self._tensors[site.name] = self._reduce(site, tensor) if self._reduce else tensor

        return hook

    def _clear(self) -> None:
        self._fired: dict[str, int] = {}
        self._tensors: dict[str, Tensor] = {}
        self._bounds: dict[str, Tensor] = {}


def _find(model: nn.Module, site: AttentionSite) -> nn.Module:
    try:
        return model.get_submodule(site.module)
    except AttributeError:
        known = [name for name, _ in model.named_modules() if name]
        raise AttentionError(
            f"attention site {site.name!r} of {type(model).__name__} names the submodule {site.module!r}, which does "
            f"not exist.{nearest(site.module, known)} Correct `module` in `attention_sites`."
        ) from None


def _switches(model: nn.Module, sites: Sequence[AttentionSite]) -> list[Switchable]:
    """Find the switchable layers that hold the sites: a site's module itself or one around it."""
    found: dict[int, Switchable] = {}
    for site in sites:
        parts = site.module.split(".")
        for length in range(len(parts) + 1):
            module = model.get_submodule(".".join(parts[:length]))
            if hasattr(module, "explicit"):  # isinstance of a Protocol says the same, twenty times slower
                found[id(module)] = cast(Switchable, module)
    return list(found.values())


def _miscount(site: AttentionSite, times: int) -> str:
    where = f"attention site {site.name!r} (submodule {site.module!r})"
    if times == 0:
        return (
            f"{where} did not fire in the last forward pass: a silent fused path, or a branch that was not taken. "
            f"Every site fires once; give its layer an `explicit` switch, or remove the site."
        )
    return (
        f"{where} fired {times} times since the last `take`. Every site fires once in a forward pass and `take` "
        f"follows every pass; give each use of a shared layer its own submodule."
    )

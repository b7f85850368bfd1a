"""Which arrays of a model stay at each site: declared by path or by role, resolved against the model once.

A path names an array or all arrays below a submodule; `*` in it stands for anything, dots too. A role begins with `@`
and is asked of the model itself, so that one declaration fits every model.
"""

from collections.abc import Callable, Sequence
from difflib import get_close_matches
from fnmatch import fnmatchcase

from torch import nn

from common.attention.personal import personal_parameters
from common.errors import ConfigError, UnknownNameError
from common.models.norms import norm_parameters, norm_statistics

HEAD = "head"
"""What every model of MODELS calls the layer that answers."""


def head_parameters(model: nn.Module) -> tuple[str, ...]:
    """Name the arrays of the head as `state_dict` does, in its order."""
    return tuple(key for key in model.state_dict() if _below(key, HEAD))


ROLES: dict[str, Callable[[nn.Module], tuple[str, ...]]] = {
    "@head": head_parameters,
    "@norms": norm_parameters,
    "@statistics": norm_statistics,
    "@attention": personal_parameters,
}
MEANING = {
    "@head": f"no submodule called {HEAD!r}; name the path of its last layer in `strategy.personal`",
    "@norms": "no normalisation layer; take a strategy that keeps something else, or `model.name` with norms",
    "@statistics": "no running statistics: GroupNorm and LayerNorm keep none, BatchNorm does; set "
    "`model.batch-norm` to true, or take 'fedbn', which keeps scales and shifts",
    "@attention": "no temperatures and gate scales; set `model.personal-attention` to true",
}


def declared(text: str) -> tuple[str, ...]:
    """Split comma-separated paths and roles."""
    return tuple(part.strip() for part in text.split(",") if part.strip())


def personal_names(model: nn.Module, declaration: Sequence[str]) -> tuple[str, ...]:
    """Name the arrays that a declaration keeps at a site, in the order of `state_dict`.

    Args:
        model: The run's.
        declaration: Paths and roles; empty keeps nothing.

    Raises:
        UnknownNameError: No such role.
        ConfigError: A path or role that no array of the model has, with the nearest paths.
    """
    keys = list(model.state_dict())
    found: set[str] = set()
    for each in declaration:
        found.update(_of_role(model, each) if each.startswith("@") else _of_path(keys, each))
    return tuple(key for key in keys if key in found)


def _of_role(model: nn.Module, role: str) -> tuple[str, ...]:
    if role not in ROLES:
        raise UnknownNameError("role of arrays", role, list(ROLES))
    names = ROLES[role](model)
    if not names:
        raise ConfigError(f"each site should keep its own {role} and {type(model).__name__} has {MEANING[role]}.")
    return names


def _of_path(keys: Sequence[str], path: str) -> list[str]:
    names = [key for key in keys if _below(key, path)]
    if not names:
        known = list(dict.fromkeys(part for key in keys for part in _prefixes(key)))
        near = get_close_matches(path, known, n=3, cutoff=0.4) or sorted({key.split(".")[0] for key in keys})
        raise ConfigError(
            f"no array of the model lies at {path!r}, which each site should keep for itself. Near are "
            f"{', '.join(map(repr, near))}; `*` stands for anything. Correct `strategy.personal`, or take one of the "
            f"roles {', '.join(ROLES)}."
        )
    return names


def _below(key: str, path: str) -> bool:
    return any(fnmatchcase(prefix, path) for prefix in _prefixes(key))


def _prefixes(key: str) -> list[str]:
    """Give the paths of all modules around an array, and its own: a, a.b, a.b.weight."""
    parts = key.split(".")
    return [".".join(parts[:length]) for length in range(1, len(parts) + 1)]

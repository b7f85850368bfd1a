"""One door to every method of adaptation: a name, a model, what is known of the source, and checked settings."""

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from client.adaptation import ADAPTATIONS
from client.adaptation.base import Adaptation, MethodSettings
from client.adaptation.source import Source
from common.attention.base import AttentionModel
from common.errors import ConfigError, nearest
from common.section import kebab


def build_adaptation(
    name: str, model: AttentionModel, source: Source, values: Mapping[str, Any] | None = None
) -> Adaptation:
    """Build the method called `name` around a copy of the model.

    Args:
        name: In ADAPTATIONS.
        model: The shipped model; it stays as it is.
        source: What is known of the sites that trained it.
        values: Settings of the method in kebab-case, such as {"learning-rate": 1e-4, "seed": 3}.

    Raises:
        UnknownNameError: No such method.
        ConfigError: A setting is not known or out of range.
        AdaptationError: The method does not fit the model or the task, or the source lacks what it needs.
    """
    method: type[Adaptation] = ADAPTATIONS.load(name)
    return method(model, source, method_settings(name, values or {}))


def method_settings(name: str, values: Mapping[str, Any]) -> MethodSettings:
    """Check a method's settings.

    Raises:
        UnknownNameError: No such method.
        ConfigError: A setting is not known or out of range.
    """
    kind: type[MethodSettings] = ADAPTATIONS.load(name).Settings
    known = [kebab(field) for field in kind.model_fields]
    for key in values:
        if kebab(key) not in known:
            raise ConfigError(
                f"adaptation {name!r} has no setting {key!r}.{nearest(key, known)} It has {', '.join(known)}."
            )
    try:
        return kind.model_validate({kebab(key): value for key, value in values.items()})
    except ValidationError as error:
        problem = error.errors()[0]
        key = kebab(str(problem["loc"][0]))
        raise ConfigError(
            f"setting {key!r} of adaptation {name!r} is {problem['input']!r}. "
            f"Allowed: {problem['msg'][0].lower() + problem['msg'][1:]}; correct it."
        ) from None

"""What the `data.` settings choose from a table of columns: the label, its classes, the patient, the sites."""

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.data.base import Dataset, check_labels
from common.errors import ConfigError, DataError, UnknownNameError, nearest

PATIENT_COLUMNS = ("patient", "lesion", "video")
Columns = Mapping[str, NDArray[Any]]
Labels = NDArray[np.int64] | NDArray[np.uint8]


def column(columns: Columns, setting: str, name: str) -> NDArray[Any]:
    """Take the column that a setting names.

    Raises:
        DataError: There is none; says which there are.
    """
    if name not in columns:
        raise DataError(
            f"data.{setting}: there is no {name!r}.{nearest(name, list(columns))} There are: "
            f"{', '.join(sorted(columns))}."
        )
    return columns[name]


def patients_of(columns: Columns, count: int, setting: str, pattern: str) -> NDArray[np.str_]:
    """Name the patient of each image.

    Args:
        columns: Columns of length `count`.
        count: Number of images.
        setting: `data.patient`: a column, or auto for the first of PATIENT_COLUMNS; none of them makes every image its
            own patient.
        pattern: `data.patient-pattern`: its first group is the patient; empty takes the whole name.

    Raises:
        DataError: No such column, or names in which the pattern is not found.
        ConfigError: The pattern is no regular expression with a group.
    """
    if setting == "auto":
        setting = next((name for name in PATIENT_COLUMNS if name in columns), "")
    if not setting and pattern:
        raise DataError(
            f"data.patient-pattern is set and there is no column {', '.join(PATIENT_COLUMNS)}. Name the column in "
            f"data.patient. There are: {', '.join(sorted(columns))}."
        )
    names = column(columns, "patient", setting) if setting else np.arange(count)
    if names.ndim != 1 or names.dtype.kind not in "iuU":
        raise DataError(
            f"data.patient: {setting!r} has shape {names.shape} and dtype {names.dtype}. Allowed is one text or "
            f"integer per image."
        )
    return _first_group(names.astype("U"), pattern) if pattern else names.astype("U")


def _first_group(names: NDArray[np.str_], pattern: str) -> NDArray[np.str_]:
    try:
        expression = re.compile(pattern)
    except re.error as error:
        raise ConfigError(
            f"data.patient-pattern {pattern!r} is no regular expression: {error}. An example is '^(.*?)[LR]?$'."
        ) from None
    if not expression.groups:
        raise ConfigError(
            f"data.patient-pattern {pattern!r} has no group. Put the patient in brackets: '^(.*?)[LR]?$'."
        )
    found = [match.group(1) if (match := expression.search(name)) else "" for name in names.tolist()]
    missing = sum(not name for name in found)
    if missing:
        raise DataError(
            f"data.patient-pattern {pattern!r} finds no patient in {missing} of {len(found)} names. It must match all."
        )
    return np.array(found, dtype="U")


def indices(values: NDArray[Any], names: tuple[str, ...], what: str) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """Turn a column of numbers or names into indices and the names they stand for.

    Text is looked up in `names`; without names, the sorted different texts are the names. Numbers stay, and name
    themselves where `names` is empty.

    Raises:
        DataError: Neither text nor integer, or a text that is no name.
    """
    if values.ndim == 1 and values.dtype.kind == "U":
        names = names or tuple(np.unique(values).tolist())
        known = {name: index for index, name in enumerate(names)}
        unknown = sorted(set(values.tolist()) - set(known))
        if unknown:
            raise DataError(
                f"{what} holds {unknown[0]!r}.{nearest(unknown[0], list(names))} Known: {', '.join(names)}."
            )
        return np.array([known[value] for value in values.tolist()], dtype=np.int64), names
    if values.ndim != 1 or values.dtype.kind not in "iub":
        raise DataError(f"{what} has shape {values.shape} and dtype {values.dtype}. Allowed are integers or text, [N].")
    numbers: NDArray[np.int64] = values.astype(np.int64)
    highest = int(numbers.max(initial=-1))
    if not names and highest >= 2**16:
        raise DataError(f"{what} holds {highest}. Without names the highest allowed index is {2**16 - 1}; name them.")
    return numbers, names or tuple(str(index) for index in range(highest + 1))


def keep_classes(dataset: Dataset, wanted: str) -> Dataset:
    """Keep the images of some classes, as `choose_classes` says.

    Raises:
        ConfigError: As `choose_classes`.
        DataError: As `choose_classes`.
    """
    if not wanted.strip():
        return dataset
    rows, labels, classes = choose_classes(dataset.name, dataset.labels, dataset.classes, wanted)
    return replace(dataset.subset(rows), labels=labels, classes=classes)


def choose_classes(
    source: str, labels: Labels | None, classes: tuple[str, ...], wanted: str
) -> tuple[NDArray[np.int64], Labels, tuple[str, ...]]:
    """Find the images of some classes and number these in the given order; findings are chosen by column.

    Args:
        source: Name of the data set, for messages.
        labels: int64 [N] (negative: unknown, in no class) or uint8 [N, L].
        classes: All class names.
        wanted: Comma-separated class names.

    Returns:
        The rows that stay, their new labels, and the classes in the given order.

    Raises:
        ConfigError: There are no labels, a class is not known or named twice.
        DataError: Multi-label columns that do not fit the classes.
    """
    if labels is None:
        raise ConfigError(f"data.classes is {wanted!r} and {source} has no labels. Leave data.classes empty.")
    chosen = named("class", wanted, classes)
    if len(set(chosen)) < len(chosen):
        raise ConfigError(f"data.classes {wanted!r} names a class twice. Name each once.")
    kept = tuple(classes[index] for index in chosen)
    if labels.ndim == 2:
        check_labels(source, labels, classes)
        return np.arange(len(labels)), labels[:, chosen].astype(np.uint8), kept
    rows = np.flatnonzero(np.isin(labels, chosen))
    order = np.full(len(classes), -1, dtype=np.int64)
    order[chosen] = np.arange(len(chosen))
    return rows, np.asarray(order[labels[rows]], dtype=np.int64), kept


def named(what: str, text: str, known: tuple[str, ...]) -> list[int]:
    """Look up comma-separated names, upper or lower case; gives their indices.

    Raises:
        UnknownNameError: One of them is not known.
    """
    return [_find(what, name.strip(), known) for name in text.split(",") if name.strip()]


def _find(what: str, name: str, known: tuple[str, ...]) -> int:
    folded = [each.casefold() for each in known]
    if name in known:
        return known.index(name)
    if folded.count(name.casefold()) == 1:
        return folded.index(name.casefold())
    raise UnknownNameError(what, name, list(known))

"""The tables of a run: their columns, what each means, and the check that a table is what it says."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from common.errors import DataError, UnknownNameError

TYPES = {"text": pa.string(), "number": pa.float64(), "count": pa.int64()}


@dataclass(frozen=True, slots=True)
class Column:
    """One column: `type` is text, number (NaN says undefined) or count."""

    name: str
    type: str
    meaning: str
    unit: str = ""


_SITE = Column("site", "text", "site whose images are judged, or a summary over sites")
_METHOD = Column("method", "text", "way of training")
_METRIC = Column("metric", "text", "name of the metric")
_VALUE = Column("value", "number", "the metric; mean over seeds where there are several", "of the metric")
_LOW = Column(
    "low", "number", "lower end of the 95 % interval: patients resampled, and seeds if several", "of the metric"
)
_HIGH = Column(
    "high", "number", "upper end of the 95 % interval: patients resampled, and seeds if several", "of the metric"
)
_N = Column("n", "count", "images that the value rests on", "images")
_FIRST = Column("site_a", "text", "first site of the pair")
_SECOND = Column("site_b", "text", "second site of the pair")

TABLES: dict[str, tuple[Column, ...]] = {
    "headline": (
        _METHOD,
        _SITE,
        Column("role", "text", "in: a source site of the study; held-out: no model of the method was trained on it"),
        _METRIC,
        _VALUE,
        _LOW,
        _HIGH,
        _N,
        Column("seeds", "count", "seeds behind the value", "runs"),
        Column("seed_sd", "number", "standard deviation over seeds; NaN with one", "of the metric"),
    ),
    "matrix": (
        Column("trained_on", "text", "site whose own model is judged; or federated, pooled"),
        Column("judged_on", "text", "site whose test images judge it"),
        _METRIC,
        _VALUE,
        _LOW,
        _HIGH,
        _N,
    ),
    "history": (
        _METHOD,
        Column("seed", "count", "seed of the training"),
        Column("round", "count", "round after which it was measured, from 1", "rounds"),
        _SITE,
        Column("split", "text", "train, val or test"),
        Column("metric", "text", "name of the metric, or loss"),
        Column("value", "number", "the metric after this round", "of the metric"),
    ),
    "add": (
        _FIRST,
        _SECOND,
        Column("add_w", "number", "attention distribution distance (ADD-W) of the two sites; 0 is alike", "0 to 1"),
    ),
    "add_blocks": (
        _FIRST,
        _SECOND,
        Column("block", "text", "block of the attention signature"),
        Column("kind", "text", "histogram, map, shares, scalars or profile"),
        Column("js", "number", "Jensen-Shannon divergence over ln 2; NaN where the block is no distribution", "0 to 1"),
        Column(
            "w",
            "number",
            "distance: transport for histograms and maps, total variation for shares, mean difference else",
            "0 to 1",
        ),
    ),
    "distances": (
        _METHOD,
        Column("seed", "count", "seed of the training"),
        _SITE,
        Column(
            "distance", "number", "noisy distance of the site's mean signature from the others'", "standard deviations"
        ),
        Column("noise", "number", "standard deviation of the noise in it", "standard deviations"),
        Column("floor", "number", "distance at which a site like all others seems to lie", "standard deviations"),
    ),
    "health": (
        _METHOD,
        Column("seed", "count", "seed of the training"),
        Column("round", "count", "round in which it was measured, from 1", "rounds"),
        _SITE,
        Column("family", "text", "saturation, collapse, sink, border or shortcut"),
        Column("value", "number", "the site's worst statistic of the family", "0 to 1"),
        Column("alarm", "text", "the statistic past its bound; empty where all is well"),
    ),
    "calibration": (
        _METHOD,
        _SITE,
        Column("bin", "count", "bin of confidence, from 0"),
        Column("confidence", "number", "mean predicted probability in the bin", "0 to 1"),
        Column("observed", "number", "share of cases that were so", "0 to 1"),
        Column("count", "count", "predictions in the bin (segmentation: pixels)"),
    ),
    "differences": (
        _METHOD,
        Column("baseline", "text", "method that it is compared with"),
        _SITE,
        _METRIC,
        Column("difference", "number", "method minus baseline", "of the metric"),
        Column("low", "number", "lower end of the paired 95 % interval, same patients resampled for both"),
        Column("high", "number", "upper end of the paired 95 % interval, same patients resampled for both"),
        _N,
    ),
}


def schema(name: str) -> Any:
    """Give the Arrow schema of the table called `name`.

    Raises:
        UnknownNameError: No table is called so.
    """
    if name not in TABLES:
        raise UnknownNameError("table", name, list(TABLES))
    return pa.schema([(column.name, TYPES[column.type]) for column in TABLES[name]])


def make_table(name: str, rows: Iterable[Mapping[str, Any]] = ()) -> pa.Table:
    """Build the table called `name` from rows; without rows it is empty.

    Raises:
        UnknownNameError: No table is called so.
        DataError: A row has a column too many or too few, or a value of the wrong type.
    """
    wanted = schema(name)
    columns: dict[str, list[Any]] = {column: [] for column in wanted.names}
    for position, row in enumerate(rows):
        if set(row) != set(columns):
            raise DataError(
                f"table {name!r}, row {position}: columns are {', '.join(row)}. Allowed are exactly "
                f"{', '.join(columns)}; correct the row."
            )
        for column, values in columns.items():
            values.append(row[column])
    try:
        return check_table(name, pa.table(columns, schema=wanted))
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise DataError(f"table {name!r}: {error}. Allowed are {_allowed(name)}; correct the rows.") from None


def check_table(name: str, table: pa.Table) -> pa.Table:
    """Give the table with its columns in order and of the right type.

    Raises:
        UnknownNameError: No table is called so.
        DataError: Columns missing, unknown, empty (null) or of the wrong type.
    """
    wanted = schema(name)
    if sorted(table.column_names) != sorted(wanted.names):
        raise DataError(
            f"table {name!r}: columns are {', '.join(table.column_names) or 'none'}. Allowed are exactly "
            f"{', '.join(wanted.names)}; write it with this version."
        )
    try:
        table = table.select(wanted.names).cast(wanted)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise DataError(f"table {name!r}: {error}. Allowed are {_allowed(name)}; correct the column.") from None
    empty = [column for column in wanted.names if table[column].null_count]
    if empty:
        raise DataError(
            f"table {name!r}: column {empty[0]!r} has rows without a value. Allowed is NaN for what is undefined."
        )
    return table


def _allowed(name: str) -> str:
    return ", ".join(f"{column.name} ({column.type})" for column in TABLES[name])

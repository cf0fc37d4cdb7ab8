"""Tidy tables: one row per measured number, as Parquet in `<out>/<analysis>/tables/`, read back whole or not at all.

Every table has the columns of COLUMNS, empty where they do not apply, and may add index columns of its own (the
training step, say). config.json beside the tables is written last: the tables that it names are complete, and the
settings in it made them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from models.files import ArtifactError, write_atomically, write_json
from models.folder import read_json

COLUMNS = {
    "analysis": "string",
    "subject": "string",
    "seed": "Int64",
    "layer": "Int64",
    "target": "string",
    "learner": "string",
    "metric": "string",
    "value": "float64",
    "low": "float64",
    "high": "float64",
}
CONFIG = "config.json"


def tidy(
    values: ArrayLike,
    axes: Mapping[str, Sequence[Any]],
    *,
    low: ArrayLike | float = np.nan,
    high: ArrayLike | float = np.nan,
    **labels: object,
) -> pd.DataFrame:
    """An array as rows: `axes` names its dimensions in order and lists their entries, `labels` fill whole columns.

    low and high (interval ends) broadcast against values. Raises ValueError where the axes do not span the array.
    """
    shape = tuple(len(entries) for entries in axes.values())
    numbers = np.asarray(values, dtype=float)
    if numbers.shape != shape:
        raise ValueError(f"values are {numbers.shape}, but the axes {', '.join(axes)} span {shape}")
    grid = np.indices(shape).reshape(len(shape), -1)
    index = {name: np.asarray(entries)[i] for (name, entries), i in zip(axes.items(), grid, strict=True)}
    ends = {name: np.broadcast_to(end, shape).ravel() for name, end in (("low", low), ("high", high))}
    table = pd.DataFrame({**index, "value": numbers.ravel(), **ends}).assign(**labels)
    extra = [name for name in table.columns if name not in COLUMNS]
    return table.reindex(columns=[*COLUMNS, *extra]).astype(COLUMNS)


def write_tables(out: Path, analysis: str, tables: Mapping[str, pd.DataFrame], setting: Mapping[str, Any]) -> Path:
    """Replaces the tables of an analysis, returns their folder. Raises ValueError for one without the tidy columns."""
    for name, table in tables.items():
        _require_columns(name, table)
    folder = tables_folder(out, analysis)
    (folder / CONFIG).unlink(missing_ok=True)
    for name, table in tables.items():
        write_atomically(folder / f"{name}.parquet", lambda path, table=table: table.to_parquet(path, index=False))
    for stale in set(folder.glob("*.parquet")) - {folder / f"{name}.parquet" for name in tables}:
        stale.unlink()
    write_json(folder / CONFIG, {"tables": sorted(tables), "setting": dict(setting)})
    return folder


def read_tables(out: Path, analysis: str) -> dict[str, pd.DataFrame]:
    """All tables of an analysis by name.

    Raises ArtifactError, with the command that makes them, where they are missing, unfinished or damaged.
    """
    folder = tables_folder(out, analysis)
    record, command = _record(out, analysis), _command(out, analysis)
    if record is None:
        raise ArtifactError(f"{folder} holds no finished tables; make them with: {command}")
    return {name: _read(folder / f"{name}.parquet", command) for name in record["tables"]}


def select(table: pd.DataFrame, **labels: object) -> pd.DataFrame:
    """The rows whose named columns hold the given labels."""
    keep = pd.Series(True, index=table.index)
    for column, label in labels.items():
        keep &= table[column].eq(label).fillna(False).astype(bool)
    return table.loc[keep]


def read_setting(out: Path, analysis: str) -> dict[str, Any] | None:
    """The settings that made the tables of an analysis; None where no complete set stands."""
    record = _record(out, analysis)
    return record and record["setting"]


def tables_folder(out: Path, analysis: str) -> Path:
    return out / analysis / "tables"


def _record(out: Path, analysis: str) -> dict[str, Any] | None:
    """config.json: the names of the `tables` and their `setting`; None where it is missing or not of this form."""
    try:
        record = read_json(tables_folder(out, analysis) / CONFIG)
    except ArtifactError:
        return None
    return record if isinstance(record, dict) and record.keys() == {"tables", "setting"} else None


def _read(path: Path, command: str) -> pd.DataFrame:
    if not path.exists():
        raise ArtifactError(f"{path} is gone; make it anew with: {command}")
    try:
        table = pd.read_parquet(path)
        _require_columns(path.name, table)
    except (ValueError, OSError) as error:  # pyarrow's own errors are of these kinds
        raise ArtifactError(
            f"{path} is damaged ({str(error).splitlines()[0]}); make it anew with: {command}"
        ) from error
    return table


def _require_columns(name: str, table: pd.DataFrame) -> None:
    missing = [column for column in COLUMNS if column not in table.columns]
    if missing:
        raise ValueError(f"table {name} lacks the column(s) {', '.join(missing)}; build it with tidy()")


def _command(out: Path, analysis: str) -> str:
    return f"learnscope run {analysis}" + ("" if out == Path("runs") else f" --out {out}")

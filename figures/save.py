"""Writing a figure as PNG and PDF, byte for byte the same on every rerun, with the data behind it as CSV."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from figures.style import house_style
from models.files import write_atomically

# What would change from one run, or one release of matplotlib, to the next.
NO_METADATA = {"png": {"Software": None}, "pdf": {"Creator": None, "Producer": None, "CreationDate": None}}

# One figure, or several by the end of their names, the main one first and without an end.
Draw = Callable[[Mapping[str, pd.DataFrame]], Figure | Mapping[str, Figure]]


def save_figure(draw: Draw, tables: Mapping[str, pd.DataFrame], folder: Path, name: str) -> list[Path]:
    """Draws in the house style; writes and returns <name>.png, <name>.pdf and one <name>-<table>.csv per table.

    Of several figures all are written, as <name>-<end>.png and so on behind the main one.
    """
    paths = []
    with house_style():
        drawn = draw(tables)
        for end, figure in ({"": drawn} if isinstance(drawn, Figure) else drawn).items():
            stem = f"{name}-{end}" if end else name
            for kind, metadata in NO_METADATA.items():
                paths.append(folder / f"{stem}.{kind}")
                write_atomically(
                    paths[-1], lambda to, f=figure, kind=kind, m=metadata: f.savefig(to, format=kind, metadata=m)
                )
    for table, frame in tables.items():
        paths.append(folder / f"{name}-{table}.csv")
        write_atomically(paths[-1], lambda to, frame=frame: frame.to_csv(to, index=False, lineterminator="\n"))
    return paths

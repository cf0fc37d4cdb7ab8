"""Figures are drawn from tables alone and come out byte for byte the same."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import matplotlib as mpl
import pandas as pd
import pytest
from matplotlib.figure import Figure

import analyses.constructions
import analyses.context_length
import figures.constructions
import figures.context_length
from algorithms.bank import LEARNERS as BANK
from analyses.configs import ANALYSES
from analyses.tables import read_tables, write_tables
from figures.save import save_figure
from figures.style import EXAMPLE_LEARNERS, LABELS, LEARNERS, VALUE_LEARNERS

Tables = Mapping[str, pd.DataFrame]


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    small = replace(ANALYSES["context-length"].preset("smoke"), context_lengths=(1, 9))
    write_tables(folder, "context-length", analyses.context_length.run(small), {})
    tiny = replace(ANALYSES["constructions"].preset("smoke"), n_tasks=2, n_layers=4)
    write_tables(folder, "constructions", analyses.constructions.run(tiny), {})
    return folder


def empty_axes(tables: Tables) -> Figure:
    figure = Figure()
    figure.subplots().set_xlabel("nothing")
    return figure


@pytest.mark.parametrize(
    ("name", "draw"),
    [("constructions", figures.constructions.draw), ("context-length", figures.context_length.draw)],
)
def test_figures_are_byte_identical_on_a_rerun(
    tmp_path: Path, out: Path, name: str, draw: Callable[[Tables], Figure]
) -> None:
    tables = read_tables(out, name)
    first = save_figure(draw, tables, tmp_path / "first", name)
    second = save_figure(draw, tables, tmp_path / "second", name)
    assert [path.name for path in first] == [
        f"{name}.png",
        f"{name}.pdf",
        *(f"{name}-{table}.csv" for table in tables),
    ]
    for before, after in zip(first, second, strict=True):
        assert before.read_bytes() == after.read_bytes(), before.name
        assert before.stat().st_size > 0


def test_files_carry_no_date_and_no_software(tmp_path: Path) -> None:
    for path in save_figure(empty_axes, {}, tmp_path, "figure"):
        content = path.read_bytes()
        assert not [word for word in (b"CreationDate", b"Producer", b"Software", b"atplotlib") if word in content]


def test_the_readers_own_style_does_not_leak_in(tmp_path: Path) -> None:
    plain, *_ = save_figure(empty_axes, {}, tmp_path / "plain", "figure")
    with mpl.rc_context({"axes.facecolor": "red", "font.size": 20, "savefig.dpi": 30}):
        other, *_ = save_figure(empty_axes, {}, tmp_path / "other", "figure")
    assert plain.read_bytes() == other.read_bytes()


def test_csv_holds_the_table(tmp_path: Path, out: Path) -> None:
    tables = read_tables(out, "context-length")
    *_, csv = save_figure(empty_axes, tables, tmp_path, "figure")
    assert csv.name == "figure-published.csv"
    assert pd.read_csv(csv).value.tolist() == tables["published"].value.tolist()


def test_every_rival_has_a_look_of_its_own() -> None:
    assert set(LEARNERS) == set(LABELS) == {*BANK, "pool-bayes"}
    for looks in (VALUE_LEARNERS, EXAMPLE_LEARNERS):
        assert len({look["color"] for look in looks.values()}) == len(looks)
        assert len({look["marker"] for look in looks.values()}) == len(looks)


def test_several_figures_share_their_tables(tmp_path: Path) -> None:
    paths = save_figure(lambda tables: {"": empty_axes(tables), "card-a": empty_axes(tables)}, {}, tmp_path, "figure")
    assert [path.name for path in paths] == ["figure.png", "figure.pdf", "figure-card-a.png", "figure-card-a.pdf"]
    assert all(path.stat().st_size > 0 for path in paths)

"""The criterion on networks whose algorithm is known: GD++ passes for Newton; what Newton leaves unexplained tells."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from analyses.configs import ANALYSES, LayersVsIterations
from analyses.layers_vs_iterations import BY_DEPTH, NETWORK, degrees, fit_growth, run, summarise
from analyses.tables import select
from figures.layers_vs_iterations import draw
from figures.save import save_figure


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> dict[str, pd.DataFrame]:
    preset: LayersVsIterations = ANALYSES["layers-vs-iterations"].preset("smoke")
    return run(replace(preset, depth=6, out=tmp_path_factory.mktemp("runs")))


def by_layer(tables: dict[str, pd.DataFrame], subject: str, learner: str, metric: str) -> pd.Series:
    rows = select(tables["match"], subject=subject, learner=learner, metric=metric)
    return rows[rows["layer"] > 0].groupby("layer")["value"].mean()


@pytest.mark.parametrize(
    ("subject", "learner"), [(NETWORK, "gd-plus-plus"), ("Newton", "newton"), ("gradient descent", "gd")]
)
def test_an_algorithm_matches_itself_step_by_step(tables: dict[str, pd.DataFrame], subject: str, learner: str) -> None:
    """The positive control: the last iterate that was run counts as open."""
    matched = by_layer(tables, subject, learner, "best_match").dropna()
    assert (matched == matched.index).all()
    assert len(matched) >= 5
    assert by_layer(tables, subject, learner, "sime").min() > 1 - 1e-9
    assert by_layer(tables, subject, learner, "unexplained").max() < 1e-9


def test_gd_plus_plus_passes_for_newton(tables: dict[str, pd.DataFrame]) -> None:
    """By the criterion: linear in Newton's iterations and exponential in GD's, with errors alike."""
    grown = select(tables["growth"], subject=NETWORK, target="matched_iterations")

    def value(learner: str, metric: str) -> float:
        return select(grown, learner=learner, metric=metric)["value"].item()

    assert value("newton", "r2_linear") > value("newton", "r2_exponential")
    assert value("gd", "r2_exponential") > value("gd", "r2_linear")
    assert value("gd", "doublings_per_layer") == pytest.approx(np.log2(9 / 4), abs=0.15)
    assert 1 < value("newton", "per_layer") < 2 * np.log2(9 / 4) + 0.2
    assert by_layer(tables, NETWORK, "newton", "sime").min() > 0.95


def test_but_newton_leaves_its_errors_unexplained(tables: dict[str, pd.DataFrame]) -> None:
    missed = by_layer(tables, NETWORK, "newton", "unexplained")
    assert missed.iloc[-1] > 0.3
    assert missed.iloc[-1] > 1e6 * by_layer(tables, NETWORK, "gd-plus-plus", "unexplained").iloc[-1]


def test_induced_weights_are_alike_for_all(tables: dict[str, pd.DataFrame]) -> None:
    """SimW tells next to nothing apart: all that works comes to the same weights."""
    for subject in (NETWORK, BY_DEPTH, "Newton", "gradient descent"):
        for learner in ("gd", "newton"):
            assert by_layer(tables, subject, learner, "simw").min() > 0.95


def test_trained_networks_are_read_too(tables: dict[str, pd.DataFrame]) -> None:
    assert by_layer(tables, "trained, L = 1", "gd", "simw").min() > 0.99


def test_growth_of_known_curves() -> None:
    layer = pd.Series([1, 2, 3, 4, 5])
    line = fit_growth(layer, 2.0 * layer - 1)
    assert line["per_layer"] == pytest.approx(2)
    assert line["r2_linear"] == pytest.approx(1)
    assert line["r2_exponential"] < 0.98
    power = fit_growth(layer, 3.0**layer - 1)
    assert power["doublings_per_layer"] == pytest.approx(np.log2(3))
    assert power["r2_exponential"] == pytest.approx(1)
    assert power["r2_linear"] < 0.98


def test_degrees() -> None:
    """(3^L - 1) / 2 and 2^(k + 1): log2(3) = 1.58 Newton steps a layer, in the long run."""
    table = degrees(9)
    degree = select(table, learner="gd-plus-plus", metric="degree")["value"]
    assert degree.tolist()[:4] == [1, 4, 13, 40]
    steps = select(table, learner="gd-plus-plus", metric="newton_steps")["value"].to_numpy()
    assert np.diff(steps)[-1] == pytest.approx(np.log2(3), abs=1e-3)
    newton = select(table, learner="newton", metric="newton_steps")
    assert (newton["value"] == newton["layer"]).all()


def test_figure_and_summary(tables: dict[str, pd.DataFrame], tmp_path: Path) -> None:
    paths = save_figure(draw, tables, tmp_path, "layers-vs-iterations")
    assert all(path.stat().st_size for path in paths)
    lines = summarise(tables).splitlines()
    assert f"{NETWORK}:" in lines
    assert any(line.split()[:1] == ["newton"] and "SimE" in line for line in lines)

"""The analyses of trained regression networks run end to end, draw their figures and say what they found."""

from dataclasses import replace
from importlib import import_module

import numpy as np
import pytest

from analyses.configs import ANALYSES
from analyses.tables import COLUMNS, select
from figures.style import house_style

NAMES = ("single-layer-optimum", "preconditioned-gd", "loss-vs-depth", "loss-vs-context")
TINY = {"steps": 2, "prompts": 400, "test_prompts": 600, "contexts": 200, "d_features": 2, "context_length": 6}
MORE = {"preconditioned-gd": {"n_layers": 2}, "loss-vs-context": {"n_layers": 1, "context_lengths": (3, 5)}}


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Tables of every analysis at tiny settings."""
    found = {}
    for name in NAMES:
        config = replace(
            ANALYSES[name].preset("smoke"), out=tmp_path_factory.mktemp(name), **TINY, **MORE.get(name, {})
        )
        found[name] = import_module(f"analyses.{name.replace('-', '_')}").run(config)
    return found


@pytest.mark.parametrize("name", NAMES)
def test_tables_are_tidy_and_figures_and_summaries_come_out(results, name):
    for table in results[name].values():
        assert set(COLUMNS) <= set(table.columns)
        assert (table["analysis"] == name).all()
    stem = name.replace("-", "_")
    with house_style():
        figure = import_module(f"figures.{stem}").draw(results[name])
        figure.canvas.draw()
    assert len(import_module(f"analyses.{stem}").summarise(results[name]).splitlines()) >= 3


def test_excess_is_the_difference_of_losses(results):
    losses = select(results["preconditioned-gd"]["losses"], subject="full")
    own = select(losses, learner="network", metric="loss")["value"].to_numpy()
    for rival in ("gd", "gd-plus-plus"):
        theirs, excess, ratio = (
            select(losses, learner=rival, metric=metric)["value"].to_numpy() for metric in ("loss", "excess", "ratio")
        )
        np.testing.assert_allclose(theirs - own, excess, rtol=1e-6, atol=1e-9)
        np.testing.assert_allclose(own / theirs, ratio, rtol=1e-9)


def test_the_authors_optimiser_is_drawn_over_its_steps(tmp_path):
    setting = {**TINY, "optimiser": "adamw", "steps": 12, "n_layers": 2, "out": tmp_path}
    config = replace(ANALYSES["preconditioned-gd"].preset("smoke"), **setting)
    tables = import_module("analyses.preconditioned_gd").run(config)
    assert sorted(tables["dist"]["step"].unique()) == list(range(13))
    loss = select(tables["dist"], metric="training-loss", subject="full").pivot_table("value", "step", "seed")
    assert (loss.loc[12] < loss.loc[1]).all()
    with house_style():
        import_module("figures.preconditioned_gd").draw(tables).canvas.draw()


def test_published_values_are_shown_for_the_published_setting_alone(results):
    from analyses.preconditioned_gd import published

    assert not len(results["preconditioned-gd"]["published"])
    table = published(ANALYSES["preconditioned-gd"].preset("laptop"))
    assert select(table, metric="constant", target="A")["value"].tolist() == [0.38, 2.40, 9.55]

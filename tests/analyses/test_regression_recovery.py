"""The benchmark from end to end on a handful of regression networks: tables, answers, summary and picture."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from matplotlib import pyplot as plt

from algorithms.bank import REGRESSION as BANK
from analyses import labels, model_recovery, planted
from analyses.configs import RegressionRecovery
from analyses.decoys import ContextBlind
from analyses.model_recovery import recover, summarise
from analyses.planted import Decoy, Size
from analyses.planted_regression import REGRESSION
from analyses.tables import COLUMNS, select
from figures.regression_recovery import draw
from tasks.regression import RegressionFamily


def decoys(split: str, size: Size, folder: Path) -> Iterator[Decoy]:
    yield Decoy("context-blind", ContextBlind(RegressionFamily(n_tasks=1).pool(range(size.decoys))), 2, True)


SMALL = replace(
    REGRESSION,
    constructed=("gd-plus-plus",),
    functions=("ridge",),
    deepest={True: 2, False: 2},
    sizes={"smoke": Size(1, 0, 1, ("exact", "perturbed 1 %"), 0, 1, 0, 0, 0, 2, 0)},
    decoys=decoys,
)


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    config = RegressionRecovery(fitting_tasks=24, held_out_tasks=40, out=tmp_path_factory.mktemp("out"), preset="smoke")
    with pytest.MonkeyPatch.context() as patch:
        for module in (planted, model_recovery):  # this process alone sees what is patched
            patch.setattr(module, "in_parallel", lambda function, jobs, *_: [function(*job) for job in jobs])
        patch.setattr(labels, "REFERENCE_TASKS", 48)
        labels._reference_prompt.cache_clear()
        made = recover(SMALL, config, "regression-recovery")
    labels._reference_prompt.cache_clear()
    return made


def test_exact_networks_and_functions_are_named_and_decoys_are_not(tables):
    networks = tables["networks"]
    assert set(networks.subject) == {"gd-plus-plus", "one-step", "ridge", "context-blind"}
    for row in networks.itertuples():
        if row.target == "exact":
            assert (row.outcome, row.judged) == ("identified", "right"), row.subject
            assert row.answer == ("averaging" if row.subject == "one-step" else row.subject)
        if row.target == "decoy":
            assert row.outcome == "none"
    assert networks.judged.ne("wrong").all()


def test_the_tables_are_those_of_the_bank_and_add_up(tables):
    for name, table in tables.items():
        assert list(table.columns[: len(COLUMNS)]) == list(COLUMNS), name
        assert (table.analysis == "regression-recovery").all()
    confusion = tables["confusion"]
    assert set(confusion.learner) == {*BANK, "ambiguous", "none"}
    assert confusion.groupby("subject").value.sum().to_numpy() == pytest.approx(1)
    wrong = select(tables["rates"], target="wrong").iloc[0]
    assert (wrong.value, wrong.n) == (0, len(tables["networks"]))
    assert tables["calibration"].n.sum() == (~tables["networks"].borderline.astype(bool)).sum()


def test_it_is_told_and_drawn(tables):
    text = summarise(tables)
    assert text.startswith(f"{len(tables['networks'])} networks of 4 kinds")
    assert "wrong:" not in text
    figure = draw(tables)
    ticks = {label.get_text() for axes in figure.axes for label in axes.get_xticklabels()}
    assert {"GD++", "ridge", "none"} <= ticks
    assert "TD(0)" not in ticks
    plt.close(figure)

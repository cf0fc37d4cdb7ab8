"""Model recovery among learners that act: the constants that made the laws come back, and other rivals do not fit."""

from typing import Any

import pytest
import torch

from algorithms.acting import follow, interact
from algorithms.acting_bank import acting_learner
from algorithms.fit_laws import constant_law, fit_laws, law_divergence
from tasks.bandits import BanditFamily
from tasks.interaction import Interaction


@pytest.fixture(scope="module")
def history() -> Interaction:
    """Float64, 12 tasks of 3 coins, 16 pulls at random."""
    tasks = BanditFamily(n_arms=3).draw([0], "test", 0, 12)
    made = interact(acting_learner("random"), tasks, 16, purpose="test")
    return made.each(lambda x: x.double() if x.is_floating_point() else x)


def laws_of(name: str, history: Interaction, seeds: dict[str, Any]) -> torch.Tensor:
    """The laws of one learner per seed, on the same histories."""
    values = {key: torch.tensor(value, dtype=torch.float64)[:, None] for key, value in seeds.items()}
    n_seeds = len(next(iter(values.values())))
    return follow(acting_learner(name, values), history.each(lambda x: x.expand(n_seeds, *x.shape[1:]))).laws


@pytest.mark.parametrize(
    ("name", "seeds"),
    [
        ("ucb", {"temperature": [0.2, 0.4], "lapse": [0.05, 0.02], "initial": [1.0, 0.8], "bonus": [0.6, 0.3]}),
        (
            "constant-step",
            {"temperature": [0.2, 0.3], "lapse": [0.1, 0.02], "step_size": [0.3, 0.15], "initial": [0.4, 0.6]},
        ),
        ("gradient-bandit", {"lapse": [0.05, 0.02], "step_size": [0.7, 0.3], "baseline": [0.5, 0.8]}),
        ("win-stay-lose-shift", {"stay": [0.8, 0.7], "shift": [0.6, 0.9]}),
    ],
)
def test_constants_are_recovered(name: str, seeds: dict[str, Any], history: Interaction) -> None:
    fit = fit_laws(laws_of(name, history, seeds), history, [name], n_fitting=8)[name]
    assert fit.kl.shape == (2, 4)
    assert fit.kl.abs().max() < 1e-5
    for key, values in seeds.items():
        assert fit.constants[key][:, 0].tolist() == pytest.approx(values, abs=0.02), key
        assert not fit.at_bound[key].any()


def test_whole_constants_are_found_wherever_they_are(history: Interaction) -> None:
    """No start of the fit, 10, 20 or 50, is among them, and the law is flat between whole numbers."""
    seeds = {"temperature": [0.1, 0.3], "lapse": [0.02, 0.1], "explore": [7.0, 4.0]}
    fit = fit_laws(laws_of("explore-then-commit", history, seeds), history, ["explore-then-commit"], n_fitting=8)
    assert fit["explore-then-commit"].kl.max() < 1e-5
    assert (fit["explore-then-commit"].constants["explore"] - 0.5).ceil()[:, 0].tolist() == [7, 4]


def test_other_rivals_do_not_fit(history: Interaction) -> None:
    """Order matters to one learner and not to the others; each leaves less than the best constant law, no rule none."""
    seeds = {"temperature": [0.1], "lapse": [0.01], "step_size": [0.5], "initial": [0.5]}
    laws = laws_of("constant-step", history, seeds)
    fits = fit_laws(laws, history, ["constant-step", "posterior-mean", "random"], n_fitting=8)
    floor = constant_law(laws, 8).mean()
    assert fits["constant-step"].kl.mean() < 1e-5
    assert 0.02 < fits["posterior-mean"].kl.mean() < floor
    assert fits["random"].kl.mean() > 0.02
    assert fits["random"].constants == {}


def test_richer_rival_stops_at_the_bound_where_it_is_the_simpler(history: Interaction) -> None:
    laws = laws_of("empirical-mean", history, {"temperature": [0.2], "lapse": [0.05], "initial": [0.9]})
    fit = fit_laws(laws, history, ["lcb"], n_fitting=8)["lcb"]
    assert fit.kl.mean() < 1e-4
    assert fit.constants["malus"].item() < 0.02


def test_divergence() -> None:
    first = torch.tensor([[[[0.5, 0.5], [1.0, 0.0]]]], dtype=torch.float64)
    second = torch.tensor([[[[0.25, 0.75], [0.5, 0.5]]]], dtype=torch.float64)
    expected = (0.5 * torch.tensor(2.0).log() + 0.5 * torch.tensor(2 / 3).log() + torch.tensor(2.0).log()) / 2
    assert law_divergence(first, second).item() == pytest.approx(expected.item(), abs=1e-6)
    assert law_divergence(first, first).abs().max() < 1e-12


def test_nothing_to_hold_out(history: Interaction) -> None:
    laws = laws_of("win-stay-lose-shift", history, {"stay": [0.8], "shift": [0.6]})
    with pytest.raises(ValueError, match="12 tasks to fit of 12; allowed: 1 to 11"):
        fit_laws(laws, history, ["random"], n_fitting=12)

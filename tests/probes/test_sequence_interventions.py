"""Another history moves whoever averages over pairs as predicted, and no rule of the last two states."""

import pytest
import torch

from algorithms.autoregressive import TwoToken
from algorithms.gradient_descent import GD
from algorithms.learner import Learner
from models import causal_constructions
from models.causal import CausalTransformer
from probes.causal import run_tests
from probes.sequence_interventions import sequence_tests
from tasks.autoregressive import AutoregressiveFamily

D, T = 4, 8
ETA = 0.1


@pytest.mark.parametrize(
    ("network", "own", "moves"),
    [
        (causal_constructions.gradient_step(torch.tensor([ETA], dtype=torch.float64), D), GD(1, ETA * T), True),
        (causal_constructions.element_product(D, T), TwoToken(float(D)), False),
    ],
    ids=["gd", "two-token"],
)
def test_other_history(network: CausalTransformer, own: Learner, moves: bool) -> None:
    family = AutoregressiveFamily(D, "unitary", augmented=network.config.augmented)
    prompt = family.fresh_prompt([0], "test", 0, 6, T, family.layout)
    rivals = {"own": own, "gd": GD(1, 1.0), "two-token": TwoToken(float(D))}
    (found,) = run_tests(network.double(), rivals, prompt, sequence_tests(1))
    mine = found.rivals["own"]
    assert mine is not None
    assert mine.unexplained.max() < 1e-12
    other = found.rivals["two-token" if moves else "gd"]
    assert other is not None
    assert other.unexplained.min() > 0.1
    assert (found.effect.min() > 1e-2) == moves
    if moves:
        assert (mine.slope - 1).abs().max() < 1e-6
    else:
        assert mine.predicts_none.all()

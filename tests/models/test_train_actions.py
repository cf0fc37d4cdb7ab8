"""The trainer of values and choices: its forward is the network's, seeds are their own, killed runs resume exactly."""

from pathlib import Path

import pytest
import torch

import models.train_actions
import models.training_state
from algorithms.control import Sarsa
from models.action_objectives import OBJECTIVES
from models.config import LinearTransformerConfig
from models.networks import load
from models.train_actions import ActionRecord, ActionTraining, answers, first_network, train_actions
from tasks.action_values import Walks
from tasks.mdps import MDPFamily

WALKS = Walks(MDPFamily("ring"))
CONFIG = LinearTransformerConfig(3, True, 14, gamma=0.9)


def run(folder: Path, objective: str = "q-sarsa", seeds=(0, 2), steps: int = 20) -> ActionRecord:
    training = ActionTraining(objective, context_length=20, steps=steps, tasks_per_update=3)
    source = Sarsa(temperature=0.1) if objective.startswith("distil") else None
    return train_actions(CONFIG, training, WALKS, seeds, folder, source=source)


def test_answers_are_those_of_the_network() -> None:
    model = first_network(CONFIG, [0, 1]).double()
    prompt = WALKS.fresh_prompt([0], "test", 0, 4, 20, model.layout).to(torch.float64)
    with torch.no_grad():
        expected = model.predict(prompt)[..., 0]
    found = answers(model.P, model.Q, prompt.context, CONFIG)
    torch.testing.assert_close(found, expected, atol=1e-12, rtol=0)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_every_objective_trains_and_seeds_are_their_own(objective: str, tmp_path: Path) -> None:
    alone, beside = run(tmp_path / "a", objective, [2], 4), run(tmp_path / "b", objective, [0, 2], 4)
    torch.testing.assert_close(alone.P[:, 0], beside.P[:, 1], rtol=0, atol=1e-6)
    assert (alone.P[0] != alone.P[-1]).any()
    assert alone.loss[1:].isfinite().all()


def test_a_killed_run_goes_on_within_a_chunk_and_a_complete_one_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run(tmp_path / "whole")
    monkeypatch.setattr(models.training_state, "SECONDS_BETWEEN_CHECKPOINTS", 0.0)
    step = models.train_actions._State.step

    def killed(state, *arguments) -> None:
        if state.progress == 18:
            raise KeyboardInterrupt
        step(state, *arguments)

    monkeypatch.setattr(models.train_actions._State, "step", killed)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "killed")
    monkeypatch.setattr(models.train_actions._State, "step", step)
    resumed = run(tmp_path / "killed")
    assert torch.equal(whole.P, resumed.P)
    assert torch.equal(whole.loss[1:], resumed.loss[1:])
    assert load(tmp_path / "whole").config == CONFIG
    monkeypatch.setattr(models.train_actions, "finish", None)
    assert torch.equal(run(tmp_path / "whole").step, whole.step)


def test_values_are_learnt(tmp_path: Path) -> None:
    loss = run(tmp_path, "q-regression", [0, 1], 120).loss
    assert (loss[-10:].mean(0) < 0.9 * loss[1:4].mean(0)).all()

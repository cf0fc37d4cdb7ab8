"""The policies of decision problems: what each is trained on, and that what is distilled knows rings."""

from typing import get_args

import pytest
import torch

from algorithms.acting import follow
from analyses.configs import ANALYSES, ControlSettings
from analyses.control_configs import ControlObjective
from analyses.control_subjects import GONE_ON, PRETRAINED, REINFORCED, control_subjects, ring, sources
from models.policy_sources import Distillation, Reinforcement, optimal_laws
from probes.policy_targets import GAMMA
from tasks.rollout import random_walk

SMOKE = ANALYSES["policy-probes"].preset("smoke")


def test_every_objective_has_one_network_and_its_own_folder() -> None:
    made = control_subjects(ControlSettings(objectives=get_args(ControlObjective)))
    taught = [how for name in sources() for how in (f"distilled from {name}", f"{name} on random walks")]
    assert {*made} == {PRETRAINED, REINFORCED, GONE_ON, *taught}
    assert len({subject.folder for subject in made.values()}) == len(made)
    assert len({subject.config for name, subject in made.items() if name not in (REINFORCED, GONE_ON)}) == 1
    assert made[GONE_ON].start_from == made[PRETRAINED]
    assert made[REINFORCED].config.critic
    assert isinstance(made[REINFORCED].source, Reinforcement)
    for name, subject in made.items():
        if name.startswith("distilled"):
            assert isinstance(subject.source, Distillation)
            assert subject.source.target == "law"


@pytest.mark.parametrize("preset", ["laptop", "paper"])
def test_what_another_analysis_has_trained_is_not_trained_again(preset: str) -> None:
    own, other = (control_subjects(ANALYSES[name].preset(preset)) for name in ("control-battery", "policy-probes"))
    assert {name: subject.folder for name, subject in own.items()} == {name: s.folder for name, s in other.items()}
    assert "test_tasks" not in vars(ANALYSES["control-battery"].preset(preset))


def test_lessons_fit_the_network() -> None:
    subject = control_subjects(SMOKE)[PRETRAINED]
    assert not isinstance(subject.source, Reinforcement)
    history, targets = subject.source.lesson([0, 1], 0, 3, "cpu")
    assert targets.shape == (2, 3, SMOKE.n_steps, 2)
    assert history.n_observations == subject.config.n_observations == SMOKE.n_states


def test_every_source_beats_a_coin_on_walks_that_it_did_not_choose() -> None:
    tasks = ring(ControlSettings()).draw([0], "test", 0, 100)
    history = random_walk(tasks, 40, purpose="test/walk")
    best = optimal_laws(tasks, GAMMA).gather(-2, history.observation[..., None].expand(-1, -1, -1, 2))
    matters = best.amin(-1) == 0
    late = slice(30, 40)
    right = {
        name: (follow(learner, history).laws.argmax(-1) == best.argmax(-1))[matters & (torch.arange(40) >= late.start)]
        for name, learner in sources().items()
    }
    share = {name: float(each.double().mean()) for name, each in right.items()}
    assert min(share.values()) > 0.55
    assert share["certainty-equivalence"] > max(share["q-learning"], share["successor-representation"]) + 0.05

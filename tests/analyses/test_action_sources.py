"""What of a source's law a network that reads no order cannot know."""

from dataclasses import replace

import pytest
import torch

from analyses.action_sources import distance_to_source, jensen_shannon, reordered, source_laws, source_reference
from analyses.action_subjects import Subjects, held_out, held_out_walk
from analyses.configs import ValueVsPolicy
from analyses.tables import select
from models.linear import layout_of
from models.train_actions import first_network
from tasks.action_values import Walks
from tasks.decision import policy_values
from tasks.mdps import MDPFamily
from tasks.rollout import random_walk

SMALL = ValueVsPolicy(test_tasks=20, fitting_tasks=16, seeds=1, n_layers=2)
SUBJECTS = Subjects(SMALL, "distil-sarsa")


def test_a_reordered_walk_has_the_same_moments_and_another_law() -> None:
    layout = layout_of(SUBJECTS.config)
    walks = Walks(MDPFamily())
    tasks = walks.family.draw([0], "reordered", 0, 20)
    walk = random_walk(tasks, 41, seeds=[0], purpose="reordered/walk")
    other = reordered(walk)
    assert (walk.next_observation[..., :-1] == walk.observation[..., 1:]).all()
    assert (other.next_observation[..., :-1] == other.observation[..., 1:]).all()  # it is a walk
    tokens = [walks.tokens(each, [0], "reordered", 0, layout).double() for each in (walk, other)]
    moments, again = (x.mT @ x for x in tokens)
    assert torch.allclose(moments, again, atol=1e-10, rtol=0)
    changed = (tokens[0] != tokens[1]).any(-1).any(-1)
    assert changed.double().mean() > 0.8
    source = SUBJECTS.source
    assert source is not None
    laws = [source_laws(source, each) for each in (walk, other)]
    assert jensen_shannon(*laws)[changed].max() > 0.01


def test_jensen_shannon_is_none_between_equals_and_at_most_ln_2() -> None:
    a, b = torch.eye(2)[None].double(), torch.eye(2).flip(0)[None].double()
    assert jensen_shannon(a, a).abs().max() == 0
    assert torch.allclose(jensen_shannon(a, b), torch.tensor(2.0).double().log().expand(1, 2))


def test_sources_are_references_and_only_distillations_have_them() -> None:
    found = source_reference(SUBJECTS)
    assert found["learner"].unique().tolist() == ["source of distil-sarsa"]
    assert 0.6 < select(found, metric="accuracy")["value"].item() < 1
    assert 0 < select(found, metric="KL floor")["value"].item() < 0.1
    model, test = first_network(SUBJECTS.config, [0]).double(), held_out(SUBJECTS)
    far = distance_to_source(SUBJECTS, model, test)
    assert far["KL from source"].item() > 0.05
    assert abs(far["correlation, source"].item()) < 0.3
    assert distance_to_source(replace(SUBJECTS, objective="policy-gradient"), model, test) == {}


def test_the_walks_that_sources_read_are_those_of_the_contexts() -> None:
    test, walk = held_out(SUBJECTS), held_out_walk(SUBJECTS)
    assert walk.n_steps == SMALL.context_length
    assert torch.equal(walk.reward.double(), test.context[..., -1])
    uniform = torch.full_like(test.tasks.mean_rewards, 0.5)
    assert torch.allclose(test.walk, policy_values(test.tasks, uniform, SMALL.gamma))


@pytest.mark.parametrize("steps", [1, 2])
def test_a_walk_too_short_to_be_reordered_stays_as_it_is(steps: int) -> None:
    walk = random_walk(MDPFamily().draw([0], "short", 0, 5), steps, seeds=[0], purpose="short/walk")
    assert torch.equal(reordered(walk).action, walk.action)

"""Distillation: students come to compute what their own teacher computes, each seed for itself."""

import pytest
import torch

from algorithms.bank import build
from algorithms.fit import disagreement, square_mean
from algorithms.temporal_difference import TD0
from models import collapsed, constructions
from models.collapsed import moments
from models.config import ConfigError, LinearTransformerConfig
from models.distill import distill, relative_error
from tasks.markov_reward import TaskFamily

CONFIG = LinearTransformerConfig(2, False, 3)
ONE_LAYER = LinearTransformerConfig(1, True, 3)
FAMILY = TaskFamily(n_states=6, d_features=3)
N = 20


def students(learner, config=CONFIG, seeds=(0, 1), steps=200):
    return distill(learner, config, FAMILY, seeds, steps, context_length=N)


def left_over(model, learner):
    prompt = FAMILY.fresh_prompt([0], "check", 0, 200, N, model.layout)
    with torch.no_grad():
        f = collapsed.predict(model, prompt)
        return disagreement(f, learner.predict(prompt).expand_as(f), prompt).median(-1).values


def test_students_find_their_teacher():
    """The positive control of every label: a student comes to bootstrap, as its teacher does and the rival does not."""
    teacher, myopic = TD0(2, step_size=1.5, gamma=0.9), build("myopic", 2, {"step_size": 1.5})
    model = students(teacher, seeds=range(4), steps=400)
    assert (left_over(model, teacher) < left_over(model, myopic)).all()
    assert left_over(model, teacher).min() < 0.02
    assert left_over(model, myopic).min() > 0.04


def test_every_seed_has_a_teacher_of_its_own():
    step_size = torch.tensor([0.5, 2.0])[:, None, None]
    own, others = (build("reward-average", 1, {"step_size": alpha}) for alpha in (step_size, step_size.flip(0)))
    model = students(own, ONE_LAYER, steps=300)
    assert left_over(model, own).max() < 0.01
    assert left_over(model, others).min() > 0.5


def test_a_seed_trains_alike_alone_and_beside_others():
    teacher = TD0(2, step_size=1.0, gamma=0.9)
    alone, beside = (students(teacher, seeds=seeds, steps=40) for seeds in ((4,), (1, 4)))
    torch.testing.assert_close(alone.P[0], beside.P[1], rtol=0, atol=1e-5)
    torch.testing.assert_close(alone.Q[0], beside.Q[1], rtol=0, atol=1e-5)


def test_the_loss_is_the_disagreement_with_the_teacher(make_prompt, make_network):
    """sum over tasks of E (f - a)^2 / sum of E a^2; zero for the teacher's own construction."""
    prompt, teacher = make_prompt(tasks=5), TD0(3, step_size=0.7, gamma=0.9)
    config = LinearTransformerConfig(3, True, 3)
    answers, G = teacher.predict(prompt), moments(prompt, config)
    network = make_network(config)
    power = square_mean(answers, prompt)
    share = power / power.sum()  # of a task, in the mean of the tasks' own disagreements
    expected = (share * disagreement(answers, network.predict(prompt), prompt)).sum(-1)
    torch.testing.assert_close(relative_error(network, prompt, G, answers), expected, rtol=1e-10, atol=1e-12)
    exact = constructions.td0(0.7 * torch.eye(3, dtype=torch.float64)[None, None], n_layers=3)
    assert relative_error(exact, prompt, G, answers).max() < 1e-20


def test_attention_that_does_not_collapse_is_refused():
    config = LinearTransformerConfig(2, True, 3, activation="softmax")
    with pytest.raises(ConfigError, match="activation is 'softmax'; distillation trains linear attention"):
        distill(TD0(2), config, FAMILY, [0], 1)

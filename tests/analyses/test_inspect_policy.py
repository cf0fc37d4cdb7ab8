"""Policies are examined by the rule of predictions: a planted law is named, and one that reads no context is not."""

import json

import pytest
import torch

from algorithms.acting import follow
from algorithms.acting_bank import acting_learner
from analyses.answer import render
from analyses.examine_laws import examine_laws
from analyses.inspect_policy import report
from analyses.policy_questions import (
    CONTROL_RIVALS,
    POLICY_TASKS,
    ROOM_RIVALS,
    ROOMS,
    fitting_tasks,
    policy_question,
)
from models.config import ConfigError
from models.foreign_policy import PolicyShape
from models.networks import initial_weights
from models.policy import PolicyTransformer
from models.policy_config import PolicyConfig
from probes.contexts import KINDS, designed, skewed_laws
from tasks.bandits import BanditFamily
from tasks.gridworlds import moves

FAMILY = BanditFamily(n_arms=3)
RIVALS = ("random", "empirical-mean", "constant-step", "win-stay-lose-shift")


def contexts(n_steps=16, n=8):
    return designed(FAMILY, n_steps, n, "test").each(lambda x: x.double() if x.is_floating_point() else x)


def test_designed_contexts_are_of_every_kind_in_turn() -> None:
    history = contexts(n_steps=60, n=30)
    assert history.batch == (1, 30 * len(KINDS))
    counts = torch.nn.functional.one_hot(history.action, 3).double().mean(-2)
    most = counts.amax(-1)[0]
    assert most[::3].mean() > 0.55  # skewed
    first, second = history.reward[0, 1::3, :30].mean(-1), history.reward[0, 1::3, 30:].mean(-1)
    own = history.reward[0, ::3, :30].mean(-1) - history.reward[0, ::3, 30:].mean(-1)
    assert (first - second).square().mean() > 2 * own.square().mean()  # switched in the middle
    laws = skewed_laws("test", 50, 3)
    torch.testing.assert_close(laws.sum(-1), torch.ones(1, 50))


@pytest.mark.parametrize(
    ("name", "constants"), [("constant-step", {"step_size": 0.3, "temperature": 0.2}), ("empirical-mean", {})]
)
def test_a_planted_law_is_identified(name: str, constants: dict[str, float]) -> None:
    history = contexts()
    laws = follow(acting_learner(name, constants), history).laws
    found = examine_laws(laws, history, RIVALS, n_fitting=12)
    assert found.verdicts[0].outcome == "identified", found.verdicts[0].note
    assert found.verdicts[0].learners == (name,)
    assert found.unexplained[name].max() < 1e-6
    assert found.unexplained["random"].median() > 0.3


def test_a_law_that_no_rival_has_is_none() -> None:
    """The source's actions, renamed: what was won on one arm speaks for the next."""
    history = contexts()
    laws = follow(acting_learner("constant-step"), history).laws.roll(1, -1)
    assert examine_laws(laws, history, RIVALS, n_fitting=12).verdicts[0].outcome == "none"


def test_the_report_of_an_untrained_policy_says_none_and_is_told_in_words() -> None:
    config = PolicyConfig(n_observations=1, n_actions=3, n_ctx=10, d_model=8, n_layers=1, n_heads=1, d_mlp=8)
    policy = PolicyTransformer(config, initial_weights(config, [0, 1]))
    found = report(policy, "bernoulli-bandit", rivals=("random", "empirical-mean"), contexts=4)
    assert json.loads(json.dumps(found, allow_nan=False))["verdict"]["outcome"] == "none"
    text = render(found)
    assert "Answer: none" in text
    assert "nats of an action" in text
    with pytest.raises(ConfigError, match="context_length is 11; allowed: 2 to 10"):
        report(policy, "bernoulli-bandit", context_length=11)


def test_a_policy_of_many_states_is_no_bandit_policy() -> None:
    config = PolicyConfig(n_observations=4, n_actions=3, n_ctx=10, d_model=8, n_layers=1, n_heads=1, d_mlp=8)
    policy = PolicyTransformer(config, initial_weights(config, [0]))
    with pytest.raises(ConfigError, match="4 observations apart"):
        report(policy, "bernoulli-bandit")


def shape(n_observations: int, n_actions: int) -> PolicyShape:
    return PolicyShape(n_observations, n_actions, n_ctx=20, n_layers=1, d_model=8)


@pytest.mark.parametrize(
    ("task", "sizes", "message"),
    [
        ("tree", (7, 2), "7 observations and 2 actions, which no tree has: n_actions is 2; a tree has 3"),
        ("ring", (1, 5), "1 observations and 5 actions, which no ring has"),
        ("chian", (8, 3), "did you mean 'chain'"),
        ("dark-room", (8, 5), "8 observations and 5 actions; a room has a square number of cells, and 5 moves"),
        ("key-to-door", (9, 4), "9 observations and 4 actions; a room has"),
        ("dark-room", (1, 5), "1 observations and 5 actions; a room has"),
    ],
)
def test_a_task_of_other_sizes_is_refused(task: str, sizes: tuple[int, int], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        policy_question(task, shape(*sizes), 10, 2)


def test_tasks_that_fit_are_found() -> None:
    fits = {
        (1, 5): ("bernoulli-bandit",),
        (7, 2): ("ring", "chain", "dense", "arrival-ring"),
        (15, 3): ("tree", "chain", "dense"),
        (8, 3): ("chain", "dense"),
        (9, 5): ("chain", "dense", "dark-room", "dark-room-hard", "key-to-door"),
    }
    assert {sizes: fitting_tasks(shape(*sizes)) for sizes in fits} == fits
    with pytest.raises(ConfigError, match="no task has 2 observations and 2 actions; name one of bernoulli-bandit"):
        fitting_tasks(shape(2, 2))


@pytest.mark.parametrize("task", [task for task in POLICY_TASKS if task != "bernoulli-bandit"])
def test_walks_are_of_every_kind_and_visit_what_the_policy_knows(task: str) -> None:
    sizes = {"ring": (5, 2), "arrival-ring": (5, 2), "tree": (7, 3), "chain": (5, 3)}.get(task, (4, 5))
    asked = policy_question(task, shape(*sizes), 12, 3)
    assert asked.history.batch == (1, 3 * len(asked.kinds))
    assert asked.history.n_observations == sizes[0]
    assert asked.history.reward.dtype == torch.float64
    assert asked.rivals == (ROOM_RIVALS if task in ROOMS else CONTROL_RIVALS)
    assert task in ROOMS or asked.settings["ucb-vi"] == {"n_sweeps": sizes[0]}


def test_in_rooms_the_goal_was_found() -> None:
    asked = policy_question("dark-room-hard", shape(25, 5), 40, 6)
    assert (asked.history.reward.sum(-1) > 0).double().mean() > 0.9


def test_in_rooms_the_horizon_can_be_chosen_and_only_there() -> None:
    asked = policy_question("dark-room", shape(9, 5), 12, 3, horizon=4)
    assert torch.equal(asked.history.done.long().sum(-1), torch.full((1, 12), 3))
    with pytest.raises(ConfigError, match="horizon is 4; allowed: None, only rooms"):
        policy_question("ring", shape(5, 2), 12, 3, horizon=4)


def test_who_knows_where_moves_lead_is_a_rival_in_rooms() -> None:
    asked = policy_question("dark-room", shape(9, 5), 8, 4, rivals=("random", "goal-inference"))
    learner = acting_learner("goal-inference", {"temperature": 0.1}, moves=moves(3))
    laws = follow(learner, asked.history).laws
    found = examine_laws(laws, asked.history, asked.rivals, n_fitting=8, settings=asked.settings)
    assert found.verdicts[0].learners == ("goal-inference",)
    assert found.unexplained["goal-inference"].max() < 1e-4


def test_who_exploits_meets_more_rewards_than_who_walks_at_random() -> None:
    asked = policy_question("ring", shape(5, 2), 60, 20)
    rewards = asked.history.reward.mean(-1)[0].unflatten(0, (20, len(asked.kinds))).mean(0)
    assert rewards[asked.kinds.index("exploiting")] > 1.3 * rewards[asked.kinds.index("uniform")]


def test_a_planted_law_of_decision_problems_is_found_and_chance_is_not() -> None:
    asked = policy_question("ring", shape(4, 2), 12, 3)
    laws = follow(acting_learner("policy-gradient", {"gamma": 0.8, "step_size": 1.0}), asked.history).laws
    found = examine_laws(laws, asked.history, ("random", "policy-gradient"), n_fitting=4)
    assert "policy-gradient" in found.verdicts[0].learners
    assert found.unexplained["policy-gradient"].max() < 1e-4
    assert found.unexplained["random"].mean() > 0.5


def test_a_policy_of_many_states_is_asked_on_its_own_task() -> None:
    config = PolicyConfig(n_observations=4, n_actions=2, n_ctx=10, d_model=8, n_layers=1, n_heads=1, d_mlp=8)
    policy = PolicyTransformer(config, initial_weights(config, [0]))
    found = report(policy, "ring", rivals=("random",), contexts=2)
    assert found["verdict"]["outcome"] == "none"
    assert "Task:    ring" in render(found)

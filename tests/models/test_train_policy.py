"""Every objective trains, resumes at the same bits, leaves seeds alone, and teaches what it should."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn.functional import one_hot

import models.train_policy
import models.training_state
from algorithms.bandit import UCB
from models.artifacts import load_policy, load_subject
from models.config import ConfigError, LinearTransformerConfig
from models.networks import build, initial_weights
from models.policy_actor import act
from models.policy_config import PolicyConfig, PolicyTraining
from models.policy_sources import DecisionPretraining, Distillation, PolicySource, Reinforcement
from models.train_policy import PolicyRecord, train_policy
from tasks.bandits import BanditFamily
from tasks.interaction import Interaction
from tasks.streams import uniforms

ARMS, STEPS = BanditFamily(n_arms=3), 8
NETWORK = PolicyConfig(1, 3, STEPS, d_model=8, d_mlp=16, returns=True, critic=True, reward_shift=0.5, reward_scale=0.5)
TRAINING = PolicyTraining(steps=5, batch_tasks=4, tasks_at_once=8, warmup=2, snapshot_every=2, epochs=2)
SOURCES: dict[str, PolicySource | Reinforcement] = {
    "imitation": Distillation(ARMS, UCB(), STEPS, "law"),
    "return-conditioned": Distillation(ARMS, UCB(), STEPS),
    **dict.fromkeys(("actor-critic", "blocked-critic", "policy-gradient"), Reinforcement(ARMS, STEPS)),
}
EVERY = pytest.mark.parametrize("objective", SOURCES)


def run(folder: Path, objective: str, seeds=(0, 1), start_from: Path | None = None) -> PolicyRecord:
    training = replace(TRAINING, objective=objective)
    return train_policy(NETWORK, training, SOURCES[objective], seeds, folder, start_from=start_from)


@EVERY
def test_a_seed_trains_alike_alone_and_beside_others(objective: str, tmp_path: Path) -> None:
    alone, beside = run(tmp_path / "a", objective, [4]), run(tmp_path / "b", objective, [1, 4])
    assert alone.step.tolist() == [0, 2, 4, 5]
    imitates = not PolicyTraining(objective).reinforces
    for name, weight in alone.weights.items():
        unused = name.endswith("value") and (imitates or objective == "policy-gradient")
        assert (weight[0] != weight[-1]).any() != unused
        if name != "b_K":  # the softmax does not see it: its gradient is rounding, which Adam makes a step of
            torch.testing.assert_close(weight[:, 0], beside.weights[name][:, 1], rtol=0, atol=1e-5)
    assert ((beside.reward[1:] >= 0) & (beside.reward[1:] <= 1)).all()
    assert (beside.entropy[1:] <= torch.log(torch.tensor(3.0)) + 1e-6).all()


@EVERY
def test_a_killed_run_goes_on_and_a_complete_one_is_loaded(
    objective: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run(tmp_path / "whole", objective)
    monkeypatch.setattr(models.training_state, "SECONDS_BETWEEN_CHECKPOINTS", 0.0)
    state = models.train_policy._State
    name = "imitate" if hasattr(SOURCES[objective], "lesson") else "reinforce"
    step = getattr(state, name)

    def killed(self, *arguments) -> None:
        if self.progress == 3:
            raise KeyboardInterrupt
        step(self, *arguments)

    monkeypatch.setattr(state, name, killed)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "killed", objective)
    monkeypatch.setattr(state, name, step)
    resumed = run(tmp_path / "killed", objective)
    assert all(torch.equal(weight, resumed.weights[name]) for name, weight in whole.weights.items())
    assert torch.equal(whole.loss[1:], resumed.loss[1:])

    def unexpected(*_, **__) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr(models.train_policy, "finish", unexpected)
    assert torch.equal(run(tmp_path / "whole", objective).step, whole.step)
    assert load_policy(tmp_path / "whole").config == NETWORK


@pytest.mark.parametrize("before", ["imitation", "return-conditioned"])
def test_a_policy_goes_on_under_another_objective(before: str, tmp_path: Path) -> None:
    first = run(tmp_path / "imitated", before)
    then = run(tmp_path / "reinforced", "actor-critic", start_from=tmp_path / "imitated")
    assert all(torch.equal(weight[-1], then.weights[name][0]) for name, weight in first.weights.items())
    assert (then.weights["W_in"][0] != then.weights["W_in"][-1]).any()


def test_heads_that_are_missing_are_drawn_and_other_shapes_refused(tmp_path: Path) -> None:
    run(tmp_path / "imitated", "imitation")
    critical = train_policy(
        replace(NETWORK, critic=False),
        replace(TRAINING, objective="imitation"),
        SOURCES["imitation"],
        (0, 1),
        tmp_path / "without",
    )
    late = run(tmp_path / "late critic", "actor-critic", start_from=tmp_path / "without")
    assert torch.equal(late.weights["W_U"][0], critical.weights["W_U"][-1])
    assert torch.equal(late.weights["W_value"][0], initial_weights(NETWORK, (0, 1))["W_value"])
    with pytest.raises(ConfigError, match=r"W_E has shape \[2, 8, 8\], and \[1, 8, 8\] is needed"):
        run(tmp_path / "other seeds", "actor-critic", [0], start_from=tmp_path / "imitated")


@pytest.mark.parametrize(("objective", "blocked"), [("actor-critic", False), ("blocked-critic", True)])
def test_a_blocked_critic_moves_no_trunk(objective: str, blocked: bool, tmp_path: Path) -> None:
    """In the first step, how much the critic's loss counts matters to the trunk only where its gradient gets there."""
    first = replace(TRAINING, objective=objective, steps=1, epochs=1, max_norm=1e9)
    little, much = (
        train_policy(NETWORK, replace(first, value_weight=weight), SOURCES[objective], [0], tmp_path / str(weight))
        for weight in (0.01, 10.0)
    )
    assert torch.equal(little.weights["W_in"][-1], much.weights["W_in"][-1]) == blocked
    assert (much.weights["W_value"][0] != much.weights["W_value"][-1]).any()


def test_distillation_learns_the_law_of_its_source(tmp_path: Path) -> None:
    """The mean KL to the source's laws on new tasks: below .02, and below a tenth of the uniform law's."""
    source = Distillation(ARMS, UCB(temperature=0.3), STEPS, "law")
    network = PolicyConfig(1, 3, STEPS, d_model=16, d_mlp=32, reward_shift=0.5, reward_scale=0.5)
    training = PolicyTraining(steps=200, batch_tasks=32, tasks_at_once=640, learning_rate=1e-2, warmup=20)
    train_policy(network, training, source, (0,), tmp_path)
    policy = load_policy(tmp_path)
    history, laws = source.lesson([0], 10_000, 200, "cpu")
    kl = (laws * (laws.clamp(min=1e-12).log() - policy.laws(history).log())).sum(-1).mean()
    untrained = (laws * (laws.clamp(min=1e-12).log() + torch.log(torch.tensor(3.0)))).sum(-1).mean()
    assert float(kl.detach()) < 0.02
    assert float(kl.detach()) < 0.1 * float(untrained)


@pytest.mark.parametrize("objective", ["actor-critic", "policy-gradient"])
def test_reinforcement_finds_the_better_arm(objective: str, tmp_path: Path) -> None:
    """With the better half of the arms among the odd ones in every task, arm 1 is worth .75, a random one .58."""
    family = BanditFamily(n_arms=3, odd_share=1.0)
    network = PolicyConfig(1, 3, STEPS, d_model=8, d_mlp=16, critic=True, reward_shift=0.5, reward_scale=0.5)
    training = PolicyTraining(objective, steps=50, batch_tasks=32, learning_rate=1e-2, warmup=5, entropy=0.01)
    train_policy(network, training, Reinforcement(family, STEPS), (0,), tmp_path)
    history = act(load_policy(tmp_path), family.draw([0], "test", 0, 500), STEPS, seeds=[0], purpose="test")
    assert float((history.action == 1).float().mean()) > 0.9


@dataclass(frozen=True)
class Omen:
    """Eight steps with one action, and a reward in the last of them where that is the first action."""

    def lesson(self, seeds: Sequence[int], index: int, n: int, device: str) -> tuple[Interaction, Tensor]:
        first = uniforms(seeds, "test/omen", index, n) < 0.5
        action = torch.where(first, 0, 1)[..., None].expand(-1, -1, 8)
        zero, last = torch.zeros_like(action), torch.arange(8) == 7
        reward = (first[..., None] & last).float()
        return Interaction(zero, action, reward, zero, last.expand_as(action), 1, 2), one_hot(action, 2).float()


def test_return_conditioning_tells_of_rewards_after_the_context(tmp_path: Path) -> None:
    """The first action can be imitated only by who knows what comes after all that the network sees."""
    network = PolicyConfig(1, 2, 4, d_model=8, d_mlp=16, returns=True, target_return=1.0)
    training = PolicyTraining("return-conditioned", 60, 32, learning_rate=1e-2, warmup=5, snapshot_every=20)
    loss = train_policy(network, training, Omen(), (0,), tmp_path).loss[-1]
    assert float(loss) < 0.05
    history, _ = Omen().lesson([0], 10_000, 50, "cpu")
    assert load_policy(tmp_path).laws(history)[0, :, 0, 0].min() > 0.9  # asked for a return of 1


def test_what_does_not_fit_together_is_refused(tmp_path: Path) -> None:
    for config, training, source, message in (
        (NETWORK, TRAINING, SOURCES["actor-critic"], "'imitation' needs a source of lessons; given: Reinforcement"),
        (NETWORK, replace(TRAINING, objective="actor-critic"), SOURCES["imitation"], "needs tasks to act in"),
        (
            replace(NETWORK, critic=False),
            replace(TRAINING, objective="actor-critic"),
            SOURCES["actor-critic"],
            "critic",
        ),
        (
            replace(NETWORK, returns=False),
            replace(TRAINING, objective="return-conditioned"),
            SOURCES["imitation"],
            "returns",
        ),
    ):
        with pytest.raises(ConfigError, match=message):
            train_policy(config, training, source, [0], tmp_path)
    for change, message in (({"tasks_at_once": 6}, "a multiple of batch_tasks, 4"), ({"batch_tasks": 0}, "at least 1")):
        with pytest.raises(ConfigError, match=message):
            replace(TRAINING, **change)


def test_prompts_and_histories_are_not_mixed_up(tmp_path: Path) -> None:
    build(NETWORK, initial_weights(NETWORK, [0])).save_pretrained(tmp_path / "policy")
    with pytest.raises(ConfigError, match="holds a policy-transformer, which reads its own history"):
        load_subject(tmp_path / "policy")
    values = LinearTransformerConfig(1, True, 2)
    build(values, initial_weights(values, [0])).save_pretrained(tmp_path / "values")
    with pytest.raises(ConfigError, match="needed: a policy-transformer"):
        load_policy(tmp_path / "values")


def test_contexts_of_pretraining_train_the_empty_prefix(tmp_path: Path) -> None:
    """With one arm the best in three tasks of four, the first law goes there."""
    family = BanditFamily(n_arms=3, odd_share=1.0)
    network = PolicyConfig(1, 3, STEPS, d_model=8, d_mlp=16)
    training = PolicyTraining(steps=80, batch_tasks=32, tasks_at_once=320, learning_rate=1e-2, warmup=10)
    train_policy(network, training, DecisionPretraining(family, STEPS), (0,), tmp_path)
    history, targets = DecisionPretraining(family, STEPS).lesson([0], 10_000, 500, "cpu")
    first = load_policy(tmp_path).laws(history)[0, :, 0].mean(0)
    torch.testing.assert_close(first.detach(), targets[0, :, 0].mean(0), rtol=0, atol=0.05)

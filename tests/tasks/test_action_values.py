"""Walks as prompts: every pair stands where the layout says, answers are the walk's values, controls hide one thing."""

from dataclasses import replace

import pytest
import torch

from tasks.action_values import Walks, pairs
from tasks.decision import policy_values
from tasks.layout import transition_layout
from tasks.mdps import MDPFamily
from tasks.rollout import random_walk

RING, D, N = MDPFamily("ring"), 14, 12
LAYOUT = transition_layout(D, discount=0.9)


def prompt_of(walks: Walks, seeds=(0, 3)):
    return walks.fresh_prompt(seeds, "test", 2, 5, N, LAYOUT)


@pytest.mark.parametrize("kind", ["ring", "chain"])
def test_tokens_are_the_transitions_of_the_walk(kind: str) -> None:
    family = MDPFamily(kind)
    tasks = family.draw([0], "test", 0, 6)
    history = random_walk(tasks, N + 1, seeds=[0], purpose="test/walk")
    layout = transition_layout(tasks.n_states * tasks.n_actions, discount=0.9)
    tokens = Walks(family).tokens(history, [0], "test", 0, layout)
    features, after = layout.read(tokens, "features"), layout.read(tokens, "next_features")
    numbers = pairs(history)
    assert (features.argmax(-1) == numbers[..., :-1]).all()
    assert (features.sum(-1) == 1).all()
    goes_on = ~history.done[..., :-1]
    assert (after.argmax(-1) == numbers[..., 1:])[goes_on].all()
    torch.testing.assert_close(after.sum(-1), 0.9 * goes_on.float())
    assert torch.equal(layout.read(tokens, "reward")[..., 0], history.reward[..., :-1])


def test_answers_are_the_values_of_the_walk_and_advantages_their_differences() -> None:
    values, advantages = prompt_of(Walks(RING)), prompt_of(Walks(RING, asked="advantages"))
    q = values.answers.unflatten(-2, (7, 2))[..., 0]
    tasks = RING.draw([0, 3], "test", 2, 5)
    torch.testing.assert_close(q, policy_values(tasks, torch.full_like(q, 0.5), 0.9))
    assert torch.equal(values.context, advantages.context)
    torch.testing.assert_close(advantages.answers[..., 0], q[..., 1] - q[..., 0])
    weights = torch.randn(D)
    linear = (LAYOUT.read(prompt.query_tokens, "features") @ weights for prompt in (values, advantages))
    by_pair, contrasts = linear
    torch.testing.assert_close(contrasts, by_pair[..., 1::2] - by_pair[..., ::2])


def test_a_control_hides_one_thing_and_nothing_else() -> None:
    contexts = [prompt_of(Walks(RING, hidden=hidden)).context for hidden in ("nothing", "rewards", "successors")]
    plain, rewards, successors = contexts
    r = LAYOUT["reward"]
    assert torch.equal(plain[..., : 2 * D], rewards[..., : 2 * D])
    assert not torch.equal(plain[..., r], rewards[..., r])
    assert torch.equal(plain[..., r].sort(-2).values, rewards[..., r].sort(-2).values)
    assert (LAYOUT.read(successors, "next_features") == 0).all()
    assert torch.equal(LAYOUT.read(plain, "features"), LAYOUT.read(successors, "features"))
    assert torch.equal(plain[..., r], successors[..., r])


def test_a_seed_does_not_depend_on_the_others() -> None:
    walks = replace(Walks(RING), hidden="rewards")
    alone, beside = prompt_of(walks, [3]), prompt_of(walks, [0, 3])
    assert torch.equal(alone.tokens[0], beside.tokens[1])

"""Acting in many tasks at once: whoever chooses gives a law of actions for what is seen, and hears of every step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields

import torch
from jaxtyping import Float, Int
from torch import Tensor

from tasks.decision import Environment, drawn
from tasks.interaction import Interaction, Step
from tasks.progress import progress
from tasks.streams import uniforms

Law = Callable[[Int[Tensor, "*batch"]], Float[Tensor, "*batch actions"]]


@torch.no_grad()
def roll_out(
    environment: Environment,
    law: Law,
    n_steps: int,
    *,
    seeds: Sequence[int] = (0,),
    purpose: str,
    index: int = 0,
    hear: Callable[[Step], None] = lambda step: None,
) -> Interaction:
    """n_steps in every task, episode after episode; what is random is a function of (seed, purpose, index).

    law: probabilities of the actions where that is observed; hear: called after every step. Seeds are the first batch
    axis of the environment.
    """
    draws = uniforms(seeds, purpose, index, n_steps + 1, environment.batch[1], 4).to(environment.device)
    world = environment.reset(draws[:, n_steps, :, 0])
    age = torch.zeros_like(world)
    steps: list[Step] = []
    for t in progress(range(n_steps), desc="acting", unit="step"):
        seen, draw = environment.observe(world), draws[:, t]
        action = drawn(law(seen), draw[..., 0])
        after, reward, done = environment.step(world, action, draw[..., 1:3])
        age = age + 1
        if environment.horizon is not None:
            done = done | (age >= environment.horizon)
        steps.append(Step(seen, action, reward, environment.observe(after), done))
        hear(steps[-1])
        world, age = environment.restart(after, done, draw[..., 3]), torch.where(done, 0, age)
    columns = (field.name for field in fields(Step))
    parts = {name: torch.stack([getattr(step, name) for step in steps], -1) for name in columns}
    return Interaction(**parts, n_observations=environment.n_observations, n_actions=environment.n_actions)


def random_walk(
    environment: Environment, n_steps: int, *, seeds: Sequence[int] = (0,), purpose: str, index: int = 0
) -> Interaction:
    """Uniformly random actions."""
    n_actions = environment.n_actions

    def law(seen: Tensor) -> Tensor:
        return torch.full((*seen.shape, n_actions), 1 / n_actions, device=seen.device)

    return roll_out(environment, law, n_steps, seeds=seeds, purpose=purpose, index=index)

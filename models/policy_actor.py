"""A policy that acts fast: keys and values stand in buffers that are written in place, and every token is read once.

The laws are those of the policy as an acting learner, in a third of its time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from models.config import ConfigError
from models.policy import PolicyTransformer
from models.policy_blocks import Past
from models.policy_tokens import seen, step_tokens
from tasks.decision import Environment
from tasks.interaction import Interaction, Step
from tasks.rollout import roll_out


@dataclass(frozen=True)
class Buffer:
    """The first `length` keys and values of [seeds, tasks, head, room, d_head]; extending writes what comes after."""

    keys: Float[Tensor, "seeds tasks head room d_head"]
    values: Float[Tensor, "seeds tasks head room d_head"]
    length: int = 0

    @property
    def k(self) -> Tensor:
        return self.keys[..., : self.length, :]

    @property
    def v(self) -> Tensor:
        return self.values[..., : self.length, :]

    def extended(self, k: Tensor, v: Tensor) -> Buffer:
        end = self.length + k.shape[-2]
        self.keys[..., self.length : end, :], self.values[..., self.length : end, :] = k, v
        return Buffer(self.keys, self.values, end)


class Actor:
    """A policy in the middle of one roll-out: `law` and `hear` take turns, as `tasks.rollout.roll_out` calls them."""

    def __init__(self, policy: PolicyTransformer, like: Float[Tensor, "*batch"]) -> None:
        config = policy.config
        self.policy = policy
        state = policy.start(like, config.n_observations, config.n_actions)
        self.unread, self.left, self.returns = state["tokens"], state["left"], state["returns"]
        room = (policy.n_seeds, like.shape[1], config.n_heads, config.n_ctx * policy.tokens_per_step, config.d_head)
        new = policy.W_E.new_empty
        self.pasts: Sequence[Past] = [Buffer(new(room), new(room)) for _ in range(config.n_layers)]

    def law(self, observation: Int[Tensor, "*batch"]) -> Float[Tensor, "seeds tasks actions"]:
        """Probabilities of the next action."""
        token = seen(self.policy.config, observation, self.returns) + self.left
        resid, self.pasts = self.policy.stream(torch.cat([self.unread, token[..., None, :]], -2), self.pasts)
        return self.policy.last_law(resid)

    def hear(self, step: Step) -> None:
        """What came of it is read with the next observation."""
        tokens, self.left = step_tokens(self.policy.config, step, self.left, self.returns)
        self.unread = tokens[..., 1:, :]
        self.returns = torch.where(step.done, self.policy.config.target_return, self.returns - step.reward)


@torch.no_grad()
def act(
    policy: PolicyTransformer,
    environment: Environment,
    n_steps: int,
    *,
    seeds: Sequence[int] = (0,),
    purpose: str,
    index: int = 0,
) -> Interaction:
    """`algorithms.acting.interact` of a policy for at most n_ctx steps, faster. Raises ConfigError for more steps."""
    config = policy.config
    if n_steps > config.n_ctx:
        raise ConfigError(f"{n_steps} steps; this policy sees {config.n_ctx}, and acts longer by interact alone")
    policy.check(environment.n_observations, environment.n_actions)
    actor = Actor(policy, torch.zeros(environment.batch, device=environment.device))
    return roll_out(
        environment,
        actor.law,
        n_steps,
        seeds=seeds,
        purpose=purpose,
        index=index,
        hear=actor.hear,
    )

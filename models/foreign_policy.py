"""Policies from elsewhere: what an inspection needs of one, and an adapter for any HookedRootModule.

    def tokens(history):  # of step t what was done and got at t - 1: a whole number below 11, 0 before the first
        return torch.nn.functional.pad(2 * history.action + history.reward.long() + 1, (1, -1))

    shape = PolicyShape(n_observations=1, n_actions=5, n_ctx=50, n_layers=2, d_model=32)
    policy = AdaptedPolicy(module, shape, tokens=tokens, read_out=lambda logits: logits)
    analyses.inspect_policy.report(policy, "bernoulli-bandit")

`history` holds action, reward and observation, each [tasks, steps]; `module` makes logits [tasks, steps, 5] of tokens.

The module keeps its hooks, its precision and its weights: nothing of it is changed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from models.config import ConfigError
from models.hooked import HookedRootModule
from models.policy_config import PolicyConfig
from tasks.interaction import Interaction

TOLERANCE = 1e-4  # of probabilities that should not depend on what comes later, in float32
CHECKED = 2  # tasks on which that is tried


@dataclass(frozen=True)
class PolicyShape:
    """What has to be known of a policy that is not ours: what it can see and do, for how many steps, and its size."""

    n_observations: int
    n_actions: int
    n_ctx: int
    n_layers: int
    d_model: int
    model: str = "foreign policy"

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if name != "model" and value < 1:
                raise ConfigError(f"{name} is {value}; allowed: a whole number of at least 1")

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@runtime_checkable
class InspectablePolicy(Protocol):
    """A policy as an inspection sees it: its shape, and the law of every action given what came before it."""

    @property
    def config(self) -> PolicyConfig | PolicyShape: ...

    def laws(self, history: Interaction) -> Float[Tensor, "seeds tasks steps actions"]:
        """The laws along histories (seeds or 1, tasks) of at most n_ctx steps."""
        ...


@dataclass(frozen=True)
class AdaptedPolicy:
    """A module, how a history becomes its input, and where in its output the logits stand.

    tokens: histories [tasks, steps] to whatever the module reads; the token from which the law of step t is read may
    hold observation t, and actions and rewards up to t - 1. read_out: the module's output to logits [tasks, steps,
    actions].
    """

    module: HookedRootModule
    config: PolicyShape
    tokens: Callable[[Interaction], Any]
    read_out: Callable[[Any], Tensor]

    @torch.no_grad()
    def laws(self, history: Interaction) -> Float[Tensor, "seeds tasks steps actions"]:
        """See `InspectablePolicy`. Raises ConfigError for logits of another shape, or none that are finite numbers."""
        flat = history.each(lambda x: x.flatten(0, 1))
        logits = self.read_out(self.module(self.tokens(flat)))
        shape = (*flat.action.shape, self.config.n_actions)
        if tuple(logits.shape) != shape:
            raise ConfigError(
                f"read_out gave logits of shape {list(logits.shape)}; needed: [tasks, steps, actions], {list(shape)}"
            )
        if not logits.is_floating_point():
            raise ConfigError(f"read_out gave {logits.dtype}; logits need a floating-point type")
        if lost := int((~logits.isfinite()).sum()):
            raise ConfigError(f"{lost} of {logits.numel()} logits are NaN or infinite; a law needs finite ones")
        return logits.softmax(-1).unflatten(0, history.batch)


@torch.no_grad()
def require_causal(policy: InspectablePolicy, history: Interaction) -> None:
    """Raises ConfigError where the law of a step changes with what is done, got or reached at that step, or later."""
    given = history.each(lambda x: x[:, :CHECKED])
    middle = given.n_steps // 2
    seen, times = given.n_observations, torch.arange(given.n_steps)
    later, after = times >= middle, times > middle
    changed = replace(
        given,
        action=torch.where(later, (given.action + 1) % given.n_actions, given.action),
        reward=torch.where(later, 1 - given.reward, given.reward),
        next_observation=torch.where(later, (given.next_observation + 1) % seen, given.next_observation),
        done=torch.where(later, ~given.done, given.done),
        observation=torch.where(after, (given.observation + 1) % seen, given.observation),
    )
    first, second = (policy.laws(each)[..., : middle + 1, :] for each in (given, changed))
    gap = float((first - second).abs().max())
    if gap > TOLERANCE:
        raise ConfigError(
            f"laws up to step {middle} change by {gap:.2g} with what is done from that step on; shift actions and "
            "rewards by one step, and let no token read a later one"
        )

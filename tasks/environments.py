"""Decision problems as Gymnasium environments, and discrete Gymnasium environments as problems to act in.

Importing this registers learnscope/BernoulliBandit-v0 and the others of FAMILIES. `gymnasium.make(name, task=3)` is the
task of number 3; further settings are those of the family: `gymnasium.make("learnscope/DarkRoom-v0", size=5)`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium.spaces import Discrete
from jaxtyping import Bool, Float, Int
from torch import Tensor

from tasks.bandits import BanditFamily
from tasks.decision import DecisionFamily, DecisionTasks
from tasks.errors import ConfigError
from tasks.gridworlds import GridFamily
from tasks.mdps import MDPFamily

FAMILIES: dict[str, Callable[..., DecisionFamily]] = {
    "BernoulliBandit": partial(BanditFamily, "bernoulli"),
    "GaussianBandit": partial(BanditFamily, "gaussian"),
    "LinearBandit": partial(BanditFamily, "linear"),
    "Ring": partial(MDPFamily, "ring"),
    "Tree": partial(MDPFamily, "tree"),
    "Chain": partial(MDPFamily, "chain"),
    "DenseMDP": partial(MDPFamily, "dense"),
    "DarkRoom": partial(GridFamily, "dark-room"),
    "DarkRoomHard": partial(GridFamily, "dark-room-hard"),
    "KeyToDoor": partial(GridFamily, "key-to-door"),
}


class TabularEnv(gymnasium.Env[np.int64, np.int64]):
    """One task of a batch of decision problems. The same U(0, 1) draws lead it where they lead the batch.

    A reset takes one draw of `np_random`, a step two (the successor's and the reward's), all float32.
    """

    def __init__(self, tasks: DecisionTasks, seed: int = 0, task: int = 0) -> None:
        self.observation_space, self.action_space = Discrete(tasks.n_observations), Discrete(tasks.n_actions)
        self._tasks = tasks
        self._start, self._totals = (law[seed, task].cumsum(-1).numpy() for law in (tasks.start, tasks.probabilities))
        self._successors, self._means, self._terminal = (
            table[seed, task].numpy() for table in (tasks.successors, tasks.rewards, tasks.terminal)
        )

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.int64, dict]:
        super().reset(seed=seed)
        self._state, self._age = self._picked(self._start), 0
        return self._seen(), {}

    def step(self, action: np.int64 | int) -> tuple[np.int64, float, bool, bool, dict]:
        transition = self._state, action, self._picked(self._totals[self._state, action])
        uniform = self.np_random.random(dtype=np.float32)
        reward = self._means[transition]
        if self._tasks.reward_law == "bernoulli":
            reward = uniform < reward
        elif self._tasks.reward_law == "gaussian":
            reward = self._tasks.sampled_reward(torch.tensor(reward), torch.tensor(uniform)).item()
        self._state, self._age = int(self._successors[transition]), self._age + 1
        truncated = self._tasks.horizon is not None and self._age >= self._tasks.horizon
        return self._seen(), float(reward), bool(self._terminal[self._state]), truncated, {}

    def _picked(self, totals: np.ndarray) -> int:
        return int((self.np_random.random(dtype=np.float32) * totals[-1] >= totals[:-1]).sum())

    def _seen(self) -> np.int64:
        return np.int64(self._tasks.observations[self._state])


def tabular_env(family: str, task: int = 0, **settings: Any) -> TabularEnv:
    """The environment of task number `task` of a family of FAMILIES."""
    return TabularEnv(FAMILIES[family](**settings).draw([task], "environment", 0, 1))


for _family in FAMILIES:
    gymnasium.register(
        f"learnscope/{_family}-v0", entry_point="tasks.environments:tabular_env", kwargs={"family": _family}
    )


class GymnasiumTasks:
    """n copies of a discrete Gymnasium environment as one batch (1, n) of tasks to act in.

    The copies hold their states: there is one course of events at a time, and `step` goes on from where it stands. What
    is random comes from the copies' own generators, each seeded anew by its draw when an episode begins; so it is a
    function of the draws, as elsewhere. Time limits are the environment's own. Raises ConfigError for spaces other than
    Discrete.
    """

    horizon = None
    device = torch.device("cpu")

    def __init__(self, make: Callable[[], gymnasium.Env], n: int) -> None:
        self._copies = [make() for _ in range(n)]
        self._seen_from, self.n_observations = _discrete("observation", self._copies[0].observation_space)
        self._acts_from, self.n_actions = _discrete("action", self._copies[0].action_space)
        self.batch = (1, n)
        self._state = torch.zeros(self.batch, dtype=torch.int64)

    def reset(self, uniform: Float[Tensor, "*batch"]) -> Int[Tensor, "*batch"]:
        return self.restart(self._state, torch.ones_like(self._state, dtype=torch.bool), uniform)

    def restart(
        self, state: Int[Tensor, "*batch"], done: Bool[Tensor, "*batch"], uniform: Float[Tensor, "*batch"]
    ) -> Int[Tensor, "*batch"]:
        self._state = state.clone()
        for i in done[0].nonzero()[:, 0].tolist():
            seen, _ = self._copies[i].reset(seed=int(uniform[0, i].item() * 2**31))
            self._state[0, i] = int(seen) - self._seen_from
        return self._state

    def observe(self, state: Int[Tensor, "*batch"]) -> Int[Tensor, "*batch"]:
        return state

    def step(
        self, state: Int[Tensor, "*batch"], action: Int[Tensor, "*batch"], uniforms: Float[Tensor, "*batch two"]
    ) -> tuple[Int[Tensor, "*batch"], Float[Tensor, "*batch"], Bool[Tensor, "*batch"]]:
        if not state.equal(self._state):
            raise ValueError("Gymnasium environments go on from where they are, not from the state given")
        outcomes = [copy.step(a + self._acts_from) for copy, a in zip(self._copies, action[0].tolist(), strict=True)]
        seen, rewards, terminated, truncated, _ = zip(*outcomes, strict=True)
        self._state = torch.tensor([seen]) - self._seen_from
        ended = torch.tensor([terminated]) | torch.tensor([truncated])
        return self._state, torch.tensor([rewards], dtype=torch.float32), ended


def _discrete(name: str, space: gymnasium.Space) -> tuple[int, int]:
    """The first number of a space, and how many there are."""
    if not isinstance(space, Discrete):
        raise ConfigError(f"the {name} space is {space}; allowed: Discrete, to which gymnasium.wrappers can map others")
    return int(space.start), int(space.n)

"""Markov reward processes: Boyan chains, loops and random chains, batched over seeds and tasks.

Generators follow section 4.1 and appendix D of arXiv 2405.13861 and, where the text is silent, the authors' code
(ranges U(.01, .99) keep every chain irreducible; representable weights are N(0, I), which the published Fig. 1 needs).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float, Int
from torch import Tensor

from tasks.errors import ConfigError
from tasks.layout import Prompt, TokenLayout
from tasks.streams import normals, uniforms
from tasks.trajectories import TaskBatch, Trajectories, check_family, state_prompt

FAMILIES = ("boyan-chain", "loop", "random")
REWARDS = ("dense", "sparse", "terminal")
REWARDED = 0.2  # the probability with which a state keeps its reward, where rewards are sparse


@dataclass(frozen=True)
class MarkovRewardProcess(TaskBatch):
    """A batch of finite Markov reward processes with state features; rewards depend on the state that is left."""

    initial: Float[Tensor, "*batch states"]
    transition: Float[Tensor, "*batch states states"]
    reward: Float[Tensor, "*batch states"]
    features: Float[Tensor, "*batch states d"]
    gamma: float

    @cached_property
    def values(self) -> Float[Tensor, "*batch states"]:
        """True values v = (I - gamma P)^-1 r, solved in float64."""
        transition = self.transition.double()
        identity = torch.eye(transition.shape[-1], dtype=torch.float64)
        return torch.linalg.solve(identity - self.gamma * transition, self.reward.double()).to(self.reward)

    @cached_property
    def stationary(self) -> Float[Tensor, "*batch states"]:
        """The stationary distribution: d P = d with d summing to one, solved in float64."""
        transition = self.transition.double()
        system = transition.mT - torch.eye(transition.shape[-1], dtype=torch.float64)
        system[..., -1, :] = 1.0  # one balance equation is redundant; normalisation takes its place
        target = torch.zeros_like(system[..., 0])
        target[..., -1] = 1.0
        return torch.linalg.solve(system, target).to(self.transition)

    def rollout(self, draws: Float[Tensor, "*batch steps"]) -> Int[Tensor, "*batch steps"]:
        """States of one trajectory per process, by inverting the cumulative law with draws from [0, 1)."""
        n_states = self.initial.shape[-1]
        start, law = (_cumulative(x).reshape(-1, n_states) for x in (self.initial, self.transition))
        draws_flat = draws.reshape(-1, draws.shape[-1])
        first_row = torch.arange(len(start)) * n_states
        states = torch.empty(draws_flat.shape, dtype=torch.int64)
        state = (start <= draws_flat[:, :1]).sum(-1)
        states[:, 0] = state
        for t in range(1, draws.shape[-1]):
            state = (law[first_row + state] <= draws_flat[:, t, None]).sum(-1)
            states[:, t] = state
        return states.reshape(draws.shape)

    def follow(self, draws: Float[Tensor, "*batch steps"]) -> Trajectories:
        """Rolls every process out along its U(0, 1) draws."""
        states = self.rollout(draws)
        features = self.features.take_along_dim(states[..., None], -2)
        return Trajectories(features, self.reward.gather(-1, states), self.values.gather(-1, states))


@dataclass(frozen=True)
class TaskFamily:
    """A distribution over Markov reward processes.

    `min_states` below `n_states` draws the number of states per task (padding states are never visited).
    `fixed` names the components (kernel, features, reward) that all tasks of a seed share. `n_tasks` is the number of
    distinct training tasks, None for a fresh one each time. `threshold` is the range of a loop's sparsity.

    `reward`: every state has one (dense), each with probability REWARDED and at least one (sparse), or only the last
    (terminal). `feature_rank` projects the features on a random subspace of that rank, None for all of R^d: the
    eigenvalues of E[phi phi^T] that are left, and so the step sizes that converge, stay as they are.
    """

    name: str = "boyan-chain"
    n_states: int = 10
    d_features: int = 4
    gamma: float = 0.9
    representable: bool = False
    fixed: tuple[str, ...] = ()
    n_tasks: int | None = None
    min_states: int | None = None
    threshold: tuple[float, float] = (0.1, 0.9)
    reward: str = "dense"
    feature_rank: int | None = None

    def __post_init__(self) -> None:
        for given, allowed in ((self.name, FAMILIES), (self.reward, REWARDS)):
            if given not in allowed:
                raise ConfigError(f"no such choice {given!r}; allowed: {', '.join(allowed)}")
        if self.n_states < 3:
            raise ConfigError(f"n_states is {self.n_states}, a chain needs at least 3")
        if self.min_states is not None and not 1 <= self.min_states <= self.n_states:
            raise ConfigError(f"min_states is {self.min_states}; allowed: 1 to n_states, {self.n_states}")
        check_family(self.gamma, self.fixed)
        if self.representable and "reward" in self.fixed and not {"kernel", "features"} <= set(self.fixed):
            raise ConfigError(
                "representable rewards follow from kernel and features: to fix the reward, fix kernel and features too"
            )
        if self.representable and self.reward != "dense":
            raise ConfigError(
                f"representable rewards follow from kernel and features: they cannot be {self.reward}; allowed: dense"
            )
        if self.feature_rank is not None and not 1 <= self.feature_rank <= self.d_features:
            raise ConfigError(f"feature_rank is {self.feature_rank}; allowed: 1 to d_features, {self.d_features}")

    def sample(self, seeds: Sequence[int], purpose: str, index: int, n: int) -> MarkovRewardProcess:
        """n tasks per seed, batch axes (seeds, n): batch `index` of the stream `purpose`."""

        def draw(law: Callable[..., Tensor], component: str, part: str, *shape: int) -> Tensor:
            if component in self.fixed:
                return law(seeds, f"fixed/{part}", 0, 1, *shape).expand(-1, n, *shape)
            return law(seeds, f"{purpose}/{part}", index, n, *shape)

        states, d = self.n_states, self.d_features
        sizes = self._sizes(draw(uniforms, "kernel", "size"))
        inside = torch.arange(states) < sizes[..., None]  # [seeds, n, states]
        draws = 0.01 + 0.98 * draw(uniforms, "kernel", "transition", states, states)
        if self.name == "boyan-chain":
            transition = _boyan(draws, inside)
        elif self.name == "loop":
            low, high = self.threshold
            threshold = low + (high - low) * draw(uniforms, "kernel", "threshold")
            links = 0.01 + 0.98 * draw(uniforms, "kernel", "links", states, states)
            transition = _loop(draws, links > threshold[..., None, None], sizes, inside)
        else:
            transition = draws * inside[..., None, :]
        transition = transition / transition.sum(-1, keepdim=True)
        initial = (0.01 + 0.98 * draw(uniforms, "kernel", "initial", states)) * inside
        initial = initial / initial.sum(-1, keepdim=True)
        features = 2 * draw(uniforms, "features", "features", states, d) - 1
        if self.feature_rank is not None:
            basis = torch.linalg.qr(draw(normals, "features", "subspace", d, self.feature_rank)).Q
            features = features @ basis @ basis.mT
        if self.representable:
            values = (features @ draw(normals, "reward", "weights", d)[..., None])[..., 0]
            reward = values - self.gamma * (transition @ values[..., None])[..., 0]
        else:
            reward = 2 * draw(uniforms, "reward", "reward", states) - 1
        if self.reward == "sparse":
            lot = draw(uniforms, "reward", "sparse", states).where(inside, 1.0)
            reward = reward * ((lot < REWARDED) | (lot == lot.amin(-1, keepdim=True)))
        elif self.reward == "terminal":
            reward = reward * (torch.arange(states) == sizes[..., None] - 1)
        return MarkovRewardProcess(initial, transition, reward, features, self.gamma)

    def training_tasks(self, seeds: Sequence[int], index: int, n: int) -> MarkovRewardProcess:
        """Training tasks of batch `index`, batch axes (seeds, n): fresh ones, or drawn from the pool of `n_tasks`."""
        if self.n_tasks is None:
            return self.sample(seeds, "train", index, n)
        pool = self.sample(seeds, "pool", 0, self.n_tasks)
        return pool.pick((uniforms(seeds, "train/pick", index, n) * self.n_tasks).long())

    def rollouts(self, seeds: Sequence[int], index: int, n_tasks: int, n_rollouts: int, n_steps: int) -> Trajectories:
        """n_rollouts trajectories of every training task of batch `index`, batch axes (seeds, tasks, rollouts)."""
        draws = uniforms(seeds, "train/rollout", index, n_tasks, n_rollouts, n_steps)
        return self.training_tasks(seeds, index, n_tasks).repeat(n_rollouts).follow(draws)

    def fresh_prompt(
        self, seeds: Sequence[int], purpose: str, index: int, n: int, context_length: int, layout: TokenLayout
    ) -> Prompt:
        """A context of each of the n tasks of `sample`, every state a query."""
        draws = uniforms(seeds, f"{purpose}/rollout", index, n, context_length + 1)
        return evaluation_prompt(self.sample(seeds, purpose, index, n), draws, layout)

    def training_prompt(
        self, seeds: Sequence[int], index: int, n: int, at: Int[Tensor, " at"], context_length: int, layout: TokenLayout
    ) -> Prompt:
        """A fresh context of some (`at`) of the n training tasks of batch `index`, every state a query."""
        draws = uniforms(seeds, "evaluate/rollout", index, n, context_length + 1)[:, at]
        return evaluation_prompt(self.training_tasks(seeds, index, n).pick(at[None]), draws, layout)

    def _sizes(self, draws: Tensor) -> Tensor:
        low = self.min_states or self.n_states
        return low + (draws * (self.n_states - low + 1)).long()


def _cumulative(law: Tensor) -> Tensor:
    """Cumulative sums that end at exactly one: no draw below one can then fall past the last possible state."""
    cumulative = law.cumsum(-1)
    return cumulative / cumulative[..., -1:]


def _boyan(draws: Tensor, inside: Tensor) -> Tensor:
    """i -> i+1 w.p. eps, i+2 w.p. 1 - eps; the last state jumps anywhere. Unnormalised, [..., states, states]."""
    states = draws.shape[-1]
    chain = torch.zeros_like(draws)
    i = torch.arange(states - 2)
    eps = draws[..., i, 0]
    chain[..., i, i + 1] = eps
    chain[..., i, i + 2] = 1 - eps
    chain[..., -2, -1] = 1.0
    chain[..., -1, :] = draws[..., -1, :]
    if not bool(inside.all()):
        raise ValueError("Boyan chains have one size for all tasks: leave min_states unset, or use the loop family")
    return chain


def _loop(draws: Tensor, links: Tensor, sizes: Tensor, inside: Tensor) -> Tensor:
    """A directed ring with random shortcuts and no self-loops; padding states lead to state 0. Unnormalised."""
    states = draws.shape[-1]
    i = torch.arange(states)
    successor = torch.where(i + 1 < sizes[..., None], i + 1, 0)  # [..., states]
    ring = torch.nn.functional.one_hot(successor, states).bool()
    shortcuts = links & ~torch.eye(states, dtype=torch.bool) & inside[..., None, :] & inside[..., :, None]
    return draws * (ring | shortcuts)


def evaluation_prompt(
    process: MarkovRewardProcess, draws: Float[Tensor, "seeds tasks steps"], layout: TokenLayout
) -> Prompt:
    """A context of steps - 1 transitions, every state as a query, true values as answers, d_p as weights."""
    return state_prompt(process.follow(draws), process.features, process.values, process.stationary, layout)

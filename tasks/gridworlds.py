"""Dark rooms: grids whose goals are not seen, so that only rewards tell where they are.

Settings follow section 4 and the appendix of arXiv 2210.14215: the observation is the cell alone, there are four moves
and staying, and a wall stops a move. Tasks are split by their goals, a function of `split_seed`: the share `held_out`
of all goals is for testing, the others for training.

Of the attainable gain greed for the next reward earns .52 in a dark room of 5 x 5 cells and .27 in one of 9 x 9, .42 in
dark-room-hard and .29 with key and door (both 5 x 5; `tasks.mdps.myopia`, gamma = .9).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from tasks.decision import DecisionTasks
from tasks.errors import ConfigError, require
from tasks.streams import stream

SPLITS = ("train", "test")
HORIZONS = {"dark-room": 20, "dark-room-hard": 20, "key-to-door": 50}
MOVES = ((-1, 0), (1, 0), (0, -1), (0, 1), (0, 0))  # up, down, left, right, stay: (rows, columns)


@dataclass(frozen=True)
class GridFamily:
    """A distribution over rooms of size x size cells, numbered row by row.

    dark-room: every step that ends at the goal is worth 1. dark-room-hard: the first one of an episode is, no other.
    Both start in the centre. key-to-door: the first step that ends at the key is worth 1, and after it the first that
    ends at the door; the start is any cell. The state is (how many of the targets are reached) * cells + cell.

    split: which of all goals (for key-to-door: pairs of cells) tasks have, None for any. horizon: steps of an episode,
    None for the published 20, 20 and 50.
    """

    kind: str = "dark-room"
    size: int = 9
    split: str | None = None
    held_out: float = 0.2
    split_seed: int = 0
    horizon: int | None = None

    def __post_init__(self) -> None:
        require("kind", self.kind, tuple(HORIZONS))
        if self.split is not None:
            require("split", self.split, SPLITS)
        if self.size < 2:
            raise ConfigError(f"size is {self.size}; a room has at least 2 x 2 cells")
        if self.horizon is not None and self.horizon < 1:
            raise ConfigError(f"horizon is {self.horizon}; an episode has at least 1 step")
        if not 0 <= self.held_out < 1 or (self.split and len(self.choices) == 0):
            raise ConfigError(f"held_out is {self.held_out} of {self.n_goals} goals: both parts need at least one")

    @property
    def n_targets(self) -> int:
        """Cells that make a goal."""
        return 2 if self.kind == "key-to-door" else 1

    @property
    def n_goals(self) -> int:
        return self.size ** (2 * self.n_targets)

    @property
    def choices(self) -> Int[Tensor, " goals"]:
        """The numbers of the goals that tasks of this split have."""
        if self.split is None:
            return torch.arange(self.n_goals)
        order = torch.randperm(self.n_goals, generator=stream(self.split_seed, "split"))
        n_test = round(self.held_out * self.n_goals)
        return order[:n_test] if self.split == "test" else order[n_test:]

    def goals(self, seeds: Sequence[int], purpose: str, index: int, n: int) -> Int[Tensor, "seeds n targets"]:
        """The target cells of the tasks of `draw`; every goal of the split comes once before any comes again."""
        choices = self.choices
        rounds = -(-n // len(choices))

        def shuffled(seed: int) -> Tensor:
            random = stream(seed, f"{purpose}/goals", index)
            return torch.cat([torch.randperm(len(choices), generator=random) for _ in range(rounds)])[:n]

        number = choices[torch.stack([shuffled(seed) for seed in seeds])]
        cells = self.size**2
        return torch.stack([number // cells**i % cells for i in range(self.n_targets)], -1)

    def draw(self, seeds: Sequence[int], purpose: str, index: int, n: int) -> DecisionTasks:
        """n tasks per seed, batch axes (seeds, n): batch `index` of the stream `purpose`."""
        return self.tasks(self.goals(seeds, purpose, index, n))

    def tasks(self, goals: Int[Tensor, "*batch targets"]) -> DecisionTasks:
        """The tasks of these goals."""
        cells, batch = self.size**2, goals.shape[:-1]
        after = moves(self.size)  # [cells, actions]
        reached = after == goals[..., None, None]  # [*batch, targets, cells, actions]
        rewards = reached.float()
        if self.kind == "dark-room":
            successors = after.expand(*batch, 1, -1, -1)
        else:
            stage = torch.arange(self.n_targets)[:, None, None]
            staged = after + cells * (stage + reached)
            done = (after + cells * self.n_targets).expand(*batch, 1, -1, -1)
            successors = torch.cat([staged, done], -3)
            rewards = torch.nn.functional.pad(rewards, (0, 0, 0, 0, 0, 1))
        n_stages = successors.shape[-3]
        start = torch.zeros(n_stages, cells)
        if self.kind == "key-to-door":
            start[0] = 1 / cells
        else:
            start[0, self.size // 2 * (self.size + 1)] = 1.0
        return DecisionTasks(
            successors=successors.flatten(-3, -2)[..., None],
            probabilities=torch.ones(()).expand(*batch, n_stages * cells, len(MOVES), 1),
            rewards=rewards.flatten(-3, -2)[..., None],
            start=start.flatten().expand(*batch, -1),
            terminal=torch.zeros((), dtype=torch.bool).expand(*batch, n_stages * cells),
            observations=tuple(range(cells)) * n_stages,
            horizon=self.horizon or HORIZONS[self.kind],
        )


def moves(size: int) -> Int[Tensor, "cells actions"]:
    """The cell that each of MOVES leads to."""
    row, column = torch.arange(size**2) // size, torch.arange(size**2) % size
    ahead = torch.tensor(MOVES)
    rows, columns = ((at[:, None] + ahead[:, i]).clamp(0, size - 1) for i, at in enumerate((row, column)))
    return rows * size + columns

"""Rewards that come with the move that reaches a state, instead of with the move after.

Greed for the next reward then sees one step farther. On rings of 7 states without slips it earns .81 of the attainable
gain, going to and fro beside the goal, and is right in .71 of the states, chance .57 (`tasks.mdps.myopia`, gamma = .9):
what planning is worth there shows in the choices farther off, and hardly in returns.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from tasks.decision import DecisionFamily, DecisionTasks
from tasks.errors import ConfigError


@dataclass(frozen=True)
class OnArrival:
    """A family whose rewards belong to states, each paid by every move that reaches the state.

    Nothing changes but when a reward comes: values are those of the family, moved by one step and by gamma.
    """

    family: DecisionFamily

    def draw(self, seeds: Sequence[int], purpose: str, index: int, n: int) -> DecisionTasks:
        """n tasks per seed, batch axes (seeds, n): batch `index` of the stream `purpose`.

        Raises ConfigError for a family whose rewards depend on the action, too.
        """
        tasks = self.family.draw(seeds, purpose, index, n)
        worth = tasks.mean_rewards[..., 0]
        if bool((tasks.mean_rewards != worth[..., None]).any()):
            raise ConfigError("rewards come on arrival where they belong to states; those of this family do not")
        paid = worth.gather(-1, tasks.successors.flatten(-3)).view(tasks.successors.shape)
        return replace(tasks, rewards=paid)

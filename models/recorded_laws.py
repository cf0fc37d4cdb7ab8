"""Algorithm Distillation from stored histories, with the laws by which their source acted as targets.

Actions and laws have the same optimum; where a source still explores, its actions are mostly noise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from algorithms.acting import ActingLearner, follow
from models.histories import Histories
from models.policy_sources import Lesson
from tasks.errors import ConfigError


@dataclass(frozen=True)
class RecordedLaws:
    """Windows of n_steps transitions of stored histories, and the law of every action there."""

    histories: Histories
    laws: Float[Tensor, "1 tasks steps actions"] = field(repr=False)
    n_steps: int

    def lesson(self, seeds: Sequence[int], index: int, n: int, device: str) -> Lesson:
        """n windows per seed, of random tasks and from random times, and targets."""
        row, times = self.histories.windows(seeds, "train/window", index, n, self.n_steps)
        window = self.histories.at(row, times).each(lambda x: x.to(device))
        return window, self.laws[0][row, times].to(device)

    def at(self, times: Int[Tensor, " kept"], name: str) -> RecordedLaws:
        """These steps alone, and what they are called."""
        history = self.histories.history.each(lambda x: x[..., times])
        part = replace(self.histories, history=history, setting={**self.histories.setting, "steps": name})
        return replace(self, histories=part, laws=self.laws[..., times, :])


def with_laws(histories: Histories, source: ActingLearner, n_steps: int) -> RecordedLaws:
    """What the source did in stored histories of all its episodes, and by which laws.

    Raises ConfigError where episodes are missing: what it learnt in those is not to be known.
    """
    if histories.setting["keep_every"] != 1:
        raise ConfigError(f"keep_every is {histories.setting['keep_every']}; laws need histories of all episodes, 1")
    numbers = ("observation", "action", "next_observation")
    history = replace(histories.history, **{name: getattr(histories.history, name).long() for name in numbers})
    with torch.no_grad():
        return RecordedLaws(replace(histories, history=history), follow(source, history).laws, n_steps)

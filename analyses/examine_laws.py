"""Which learner does a policy run? Every rival fitted to its laws on designed contexts, and judged on others.

As `analyses.examine` for predictions, by the same rule. What a rival leaves unexplained of a policy is

    KL(policy || rival) / KL(policy || the best law that is always the same),

on held-out contexts: 0 where it says what the policy says at every step, 1 where it explains nothing. Rivals lie apart
by the same measure of their own laws.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from algorithms.acting import follow
from algorithms.fit_laws import LawFit, constant_law, fit_laws, law_divergence
from probes.behaviour import Interval, median_interval
from probes.verdict import THRESHOLDS, Relations, Thresholds, Verdict, decide
from tasks.interaction import Interaction

Laws = Float[Tensor, "seeds tasks steps actions"]


@dataclass(frozen=True)
class LawExamination:
    """The fits, what each rival leaves by seed and held-out context, how far apart they lie, and a verdict per seed.

    floor: KL in nats of the best constant law, by seed; NaN where it is below LEAST: there is nothing to explain.
    """

    fits: dict[str, LawFit]
    unexplained: dict[str, Float[Tensor, "seeds tasks"]]
    floor: Float[Tensor, " seeds"]
    distances: dict[str, dict[str, Float[Tensor, " seeds"]]]
    verdicts: tuple[Verdict, ...]

    def interval(self, name: str, seed: int) -> Interval:
        """The median over held-out contexts."""
        return median_interval(self.unexplained[name][seed].numpy())


# Nats per step that the laws of a policy must hold beyond the best constant one, else they say nothing of an algorithm.
LEAST = 0.005


def examine_laws(
    laws: Laws,
    history: Interaction,
    rivals: Sequence[str],
    *,
    n_fitting: int,
    settings: Mapping[str, Mapping[str, Any]] | None = None,
    thresholds: Thresholds = THRESHOLDS,
) -> LawExamination:
    """Fits the rivals to a policy's laws on the first n_fitting contexts of a history, decides on the others."""
    fits = fit_laws(laws, history, rivals, n_fitting=n_fitting, settings=settings)
    floor = constant_law(laws, n_fitting).mean(-1)
    floor = floor.where(floor >= LEAST, torch.nan)
    unexplained = {name: fit.kl / floor[:, None] for name, fit in fits.items()}
    held_out = history.each(lambda x: x[:, n_fitting:])
    distances = law_distances(fits, held_out, len(laws))
    verdicts = []
    for seed in range(len(laws)):
        if floor[seed].isnan():
            note = f"its laws hardly depend on the context: the best constant law leaves less than {LEAST} nats"
            verdicts.append(Verdict("none", (), note))
            continue
        bounded = [name for name, fit in fits.items() if any(bool(hit[seed]) for hit in fit.at_bound.values())]
        verdicts.append(
            decide(
                {name: values[seed].numpy() for name, values in unexplained.items()},
                {a: {b: float(gap[seed]) for b, gap in others.items()} for a, others in distances.items()},
                diverged=0.0,
                relations=Relations.of_laws(),
                bounded=bounded,
                thresholds=thresholds,
            )
        )
    return LawExamination(fits, unexplained, floor, distances, tuple(verdicts))


def law_distances(
    fits: Mapping[str, LawFit], history: Interaction, n_seeds: int
) -> dict[str, dict[str, Float[Tensor, " seeds"]]]:
    """distance[a][b]: KL(a || b) over KL(a || its own mean law), of fitted rivals, by seed; NaN where a is constant."""
    own = history.each(lambda x: x.expand(n_seeds, *x.shape[1:]))
    with torch.no_grad():
        said = {name: follow(fit.learner, own).laws for name, fit in fits.items()}
    distances: dict[str, dict[str, Tensor]] = {}
    for a, law in said.items():
        scale = law_divergence(law, law.mean((1, 2), keepdim=True).expand_as(law)).mean(-1)
        scale = scale.where(scale > LEAST, torch.nan)
        distances[a] = {b: law_divergence(law, other).mean(-1) / scale for b, other in said.items()}
    return distances

"""What policies are probed on: walks that none of them chose, what is looked for there, and pairs of contexts.

All of it follows from the settings, so that too few steps or tasks are told before anything is trained.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from torch import Tensor

from algorithms.acting import follow
from algorithms.planning import CertaintyEquivalence
from analyses.configs import ANALYSES, BanditSettings, PolicyProbes
from analyses.control_subjects import N_SWEEPS, ring
from analyses.limits import at_least
from probes.contexts import designed
from probes.control_contexts import designed_walks, exchanged, moved, other_places
from probes.policy_targets import (
    BANDIT_QUANTITIES,
    GAMMA,
    PSEUDO_COUNT,
    Rows,
    bandit_base,
    control_base,
    control_targets,
    learner_targets,
)
from tasks.bandits import BanditFamily
from tasks.errors import ConfigError
from tasks.interaction import Interaction
from tasks.rollout import random_walk

SHARES = (0.25, 0.5, 0.75, 1.0)  # of a history: where policies are asked
FEWEST = 5  # pairs of contexts, as many as a probe has folds
PLANNER = CertaintyEquivalence(n_sweeps=N_SWEEPS, gamma=GAMMA, pseudo_count=PSEUDO_COUNT)

Pairs = Mapping[str, tuple[Interaction, Interaction, tuple[Tensor, Tensor]]]
"""By name: contexts, others that differ in one thing, and the planner's choices at the end of either."""


def bandit_settings(config: PolicyProbes) -> BanditSettings:
    """Those of in-context-improvement at the same preset, whose policies are read where they stand."""
    return replace(ANALYSES["in-context-improvement"].preset(config.preset), seeds=config.seeds, out=config.out)


def steps(n_steps: int) -> list[int]:
    """Where policies are asked: quarters of the history, the last step among them."""
    return sorted({max(1, round(share * n_steps) - 1) for share in SHARES})


def enough_to_probe(config: PolicyProbes) -> None:
    """Raises ConfigError for walks that cannot come round, and for fewer tasks than numbers that are probed for."""
    at_least("n_steps", config.n_steps, config.n_states, f"as walks must come round {config.n_states} states")
    asked = [targets for _, targets in control_questions(config, 1)[1]]
    asked += [bandit_questions(config, 1)[-1]] if config.bandits else []
    numbers = max(sum(target.shape[-1] for target in targets.values()) for targets in asked)
    why = f"as {numbers} numbers are probed for at once"
    at_least("test_tasks", config.test_tasks, 3 * (numbers // 3 + 1), why)


def control_questions(config: PolicyProbes, n: int) -> tuple[Interaction, list[tuple[Rows, Rows]]]:
    """n contexts of every kind, and what is looked for: targets, and the base that activations must add to.

    That of the successor representation has the transitions, too.
    """
    history, times = designed_walks(ring(config), config.n_steps, n, "probe"), steps(config.n_steps)
    base, targets = control_base(history, times), control_targets(history, times)
    cached = {name: target for name, target in targets.items() if name.startswith("successors")}
    others = {name: target for name, target in targets.items() if name not in cached}
    richer = base | {"transitions": targets["transitions"]}
    return history, [(base, others), (richer, cached)]


def bandit_questions(config: PolicyProbes, n: int) -> tuple[Interaction, Rows, Rows]:
    """As `control_questions`: base and targets, every learner's index or values."""
    settings = bandit_settings(config)
    history = designed(BanditFamily(n_arms=settings.n_arms), settings.n_steps, n, "probe")
    times = steps(settings.n_steps)
    return history, bandit_base(history, times), learner_targets(BANDIT_QUANTITIES, history, times)


def pairs(config: PolicyProbes) -> Pairs:
    """Those of PAIRS between which the planner's choice differs. Raises ConfigError where these are too few."""
    tasks = ring(config).draw([0], "interchange", 0, config.test_tasks // 2)
    given = random_walk(tasks, config.n_steps, purpose="interchange/walk")
    others = {
        "exchanged": exchanged(given, given.observation[..., -1]),
        "moved": moved(given, other_places(given, "interchange")),
    }
    before, found = planned_choice(given), {}
    for name, other in others.items():
        wanted = planned_choice(other)
        keep = (before != wanted)[0]
        if keep.sum() < FEWEST:
            raise ConfigError(
                f"test_tasks is {config.test_tasks}: in {keep.sum()} walks of {config.n_steps} steps a planner chooses "
                f"otherwise if the context is another one ({name}); allowed: {FEWEST} or more; raise it or n_steps"
            )
        a, b = (each.each(lambda x, keep=keep: x[:, keep]) for each in (given, other))
        found[name] = a, b, (before[:, keep], wanted[:, keep])
    return found


def planned_choice(history: Interaction) -> Tensor:
    """What the planner would do at the last step."""
    return follow(PLANNER, history).laws[..., -1, :].argmax(-1)

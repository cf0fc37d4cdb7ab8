"""Collects learning histories of a learner by name on a task by name, tabulates what was collected, and says it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from algorithms.acting import ActingLearner
from algorithms.acting_bank import ACTING, BANDIT, CONTROL, acting_learner
from algorithms.learner import constants
from analyses.histories import tabulated
from analyses.history_configs import COLLECTIONS, BanditCollection, Collection, MDPCollection, RoomCollection
from analyses.tables import select
from models.histories import collect, tasks_of
from models.policy_config import HistoryConfig
from tasks.arrival import OnArrival
from tasks.bandits import BanditFamily
from tasks.decision import DecisionFamily
from tasks.errors import ConfigError, require
from tasks.gridworlds import GridFamily
from tasks.mdps import MDPFamily

UNENDING = ("bernoulli-bandit", "ring", "arrival-ring")  # one episode, as long as the history
PLANNING = ("bayes-optimal", "gittins")  # for a number of pulls: those of the history


def collection_folder(task: str, config: Collection) -> Path:
    """Where the collection stands."""
    return config.out / "histories" / f"{task}-{config.learner}"


def family(task: str, config: Collection) -> DecisionFamily:
    """The tasks that are learnt. Raises ConfigError for an unknown one, and for sizes that it cannot have."""
    require("task", task, tuple(COLLECTIONS))
    if isinstance(config, BanditCollection):
        return BanditFamily(n_arms=config.n_arms)
    if isinstance(config, RoomCollection):
        return GridFamily(task, config.size, "train", config.held_out, horizon=config.horizon)
    n_states = config.n_states if isinstance(config, MDPCollection) else None
    return OnArrival(MDPFamily("ring", n_states)) if task == "arrival-ring" else MDPFamily(task, n_states)


def learner(config: Collection) -> ActingLearner:
    """Who learns. Raises ConfigError, with the nearest choice, for one that does not learn such tasks, and for a
    constant that it does not have, or not at this value."""
    require("learner", config.learner, tuple(BANDIT if isinstance(config, BanditCollection) else CONTROL))
    bounds = constants(ACTING[config.learner])
    for name, value in config.constants.items():
        require(f"a constant of {config.learner}", name, tuple(bounds))
        low, high = bounds[name].low, bounds[name].high
        if not low <= value <= high:
            raise ConfigError(f"the constant {name} is {value:g}; allowed: {low:g} to {high:g}")
    settings = {"horizon": config.n_steps} if config.learner in PLANNING else {}
    return acting_learner(config.learner, config.constants, **settings)


def run(task: str, config: Collection) -> dict[str, pd.DataFrame]:
    """Collects what is missing, and tabulates the whole: see `analyses.histories.tabulated`.

    Raises ConfigError for settings that do not fit, ArtifactError for a folder that holds anything else.
    """
    setting = HistoryConfig(config.n_tasks, config.n_steps, config.keep_every, config.tasks_per_shard, config.seed)
    tasks = family(task, config)
    horizon = tasks.draw([config.seed], "histories", 0, 1).horizon
    if config.keep_every > 1 and task in UNENDING:
        raise ConfigError(f"keep_every is {config.keep_every}; allowed: 1, nothing ends an episode of {task}")
    if horizon is not None and config.n_steps < horizon:
        raise ConfigError(f"n_steps is {config.n_steps}; allowed: at least {horizon}, the steps of an episode")
    histories = collect(setting, tasks, learner(config), collection_folder(task, config))
    size = config.size if isinstance(config, RoomCollection) else None
    tables = tabulated(histories.history, tasks_of(setting, tasks), size=size)
    facts = {"analysis": task, "learner": config.learner, "keep_every": config.keep_every}
    return {name: table.assign(**facts) for name, table in tables.items()}


def summarise(tables: Mapping[str, pd.DataFrame]) -> str:
    """Outcomes in the first and in the last tenth, beside chance and the best, and how many tasks were rewarded."""
    curve, tasks = tables["curve"], tables["tasks"]
    episodes = "episode" in curve
    times, outcome = ("episode", "return of an episode") if episodes else ("step", "reward per step")
    kept, n_tasks = int(curve[times].max()), tasks["task"].nunique()
    first, last = (select(tasks, metric=metric)["value"] for metric in ("first", "last"))
    random, best = (select(curve, metric=metric)["value"].iloc[0] for metric in ("random", "optimal"))
    ends = f"[{last.quantile(0.1):.3g}, {last.quantile(0.9):.3g}]"
    k = int(curve["keep_every"].iloc[0])
    every = f", one of every {k} that were acted, and only these are counted" if k > 1 else ""
    lines = [
        f"{curve['learner'].iloc[0]} in {curve['analysis'].iloc[0]}: {n_tasks} histories of {kept} {times}s{every}",
        f"  {outcome}: {first.mean():.3g} in the first tenth, {last.mean():.3g} in the last (80 % of tasks: {ends})",
        f"  at random {random:.3g}, knowing the task {best:.3g}",
    ]
    found = select(tasks, metric="found")["value"]
    if len(found):
        came = f"; the median one of these first in {times} {found.median():.0f}" if found.notna().any() else ""
        lines.append(f"  {found.notna().mean():.0%} of the tasks had a reward{came}")
    pulled = select(curve, metric="best arm")["value"]
    if len(pulled):
        share = f"{pulled.iloc[0]:.0%} in the first tenth, {pulled.iloc[-1]:.0%} in the last"
        lines.append(f"  pulls of the best arm: {share}")
    return "\n".join(lines)

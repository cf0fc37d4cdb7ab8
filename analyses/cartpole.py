"""Does TD emerge on CartPole, seen through tiles, as on Boyan chains?

The appendix of arXiv 2405.13861 trains a looped three-layer linear transformer on cart-poles whose physics, policy,
features and rewards are each task's own, with 250 transitions of context, and shows only its weights. Added here: the
similarity to batch TD over training, the rivals fitted to the final network, and its skill. True values are not known;
answers are those of the Markov chain between tiles that a long trajectory shows.
"""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from algorithms.bank import RIVALS
from analyses.beside_learners import beside_learners, describe
from analyses.configs import CartPole
from analyses.subjects import trained_subject
from analyses.tables import select
from analyses.td_emergence import emergence, similarity_curves, weight_curves
from models.config import ConfigError
from probes.verdict import FITS

ANALYSIS = "cartpole"
SUMMARISED = ("alpha_eff", "gamma_eff", "iws", "vd")


def run(config: CartPole) -> dict[str, pd.DataFrame]:
    """Tables training (weights and similarity to TD at every snapshot), emergence, scores and rivals.

    Raises ConfigError for another activation, which has no such weights, or another task.
    """
    if (config.activation, config.task) != ("linear", "cartpole"):
        given = f"activation {config.activation!r} on task {config.task!r}"
        raise ConfigError(
            f"cartpole is about linear attention on cartpole, not {given}; see beyond-linear, td-emergence"
        )
    subject = trained_subject(config)
    training = pd.concat([weight_curves(subject), similarity_curves(subject)], ignore_index=True)
    tables = {"training": training, "emergence": emergence(training, subject)}
    own = {name: table.assign(analysis=ANALYSIS, subject=ANALYSIS) for name, table in tables.items()}
    return {**own, **beside_learners(subject, {"analysis": ANALYSIS, "subject": ANALYSIS}, RIVALS.keys())}


def summarise(tables: Mapping[str, pd.DataFrame]) -> str:
    """The constants and similarities at the end of training, and the rivals that come nearest."""
    training = tables["training"]
    last = training[training["task_count"] == training["task_count"].max()]
    means = last.groupby("metric")["value"].agg(["mean", "std"])
    times = select(tables["emergence"], metric="emergence_task_count")["value"]
    return "\n".join(
        [
            f"CartPole through tiles: {len(times)} seeds, {training['task_count'].max()} tasks; at the end (mean ± sd) "
            + ", ".join(f"{m} {means.loc[m, 'mean']:.3g} ± {means.loc[m, 'std']:.2g}" for m in SUMMARISED),
            f"  bootstrapping emerged in {times.notna().sum()} of {len(times)} seeds"
            + (f", median task {times.median():.0f}" if times.notna().any() else ""),
            *describe(ANALYSIS, tables["scores"], tables["rivals"]),
            f"  A rival that fits would leave less than {FITS}.",
        ]
    )

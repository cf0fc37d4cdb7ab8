"""What do policies trained on rings say where learners with, without and beside a model give different answers?

As `analyses.behavioural_battery`, with the tests of `probes.ring_battery`: is the goal found from afar, does it matter
whether paths or rewards were seen first, does the order of steps count, do repeats and counts, is a step worth what may
follow or what did, and does a choice turn where goals move or states change places. Rivals plan with as many sweeps as
there are states, and have the first constants of the bank, without lapses; but where they learn step by step the larger
of its two step sizes, as the smaller hardly moves anything in so few steps.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd

from algorithms.acting import ActingLearner
from algorithms.acting_bank import CONTROL
from algorithms.control import STEP_SIZES
from analyses.behavioural_battery import (
    Player,
    agreements,
    answer_table,
    answers,
    least_to_ask,
    said_and_agreed,
    sober,
)
from analyses.configs import ControlBattery
from analyses.control_subjects import control_subjects
from analyses.policy_questions import PLANNERS
from analyses.policy_subjects import train_all
from probes.ring_battery import RING_READINGS, ring_tests

ANALYSIS = "control-battery"
RIVALS = tuple(CONTROL)
STEPPING = ("sarsa", "expected-sarsa", "q-learning", "actor-critic", "successor-representation")


# Effects are differences of answers that count already.
OWN_ANSWERS = [i for i, name in enumerate(RING_READINGS) if not name.endswith("effect")]


def rivals(n_states: int) -> dict[str, ActingLearner]:
    """Every rival by name."""
    swept = {name: {"n_sweeps": n_states} for name in PLANNERS}
    return sober(RIVALS, {**swept, **{name: {"step_size": max(STEP_SIZES)} for name in STEPPING}})


def run(config: ControlBattery) -> dict[str, pd.DataFrame]:
    """Tables answers (a signed number per test) and agreement (of each with every rival).

    Raises ConfigError for rings that are too small for the tests, and for fewer steps than any of them has, before
    anything is trained.
    """
    told = ring_tests(config.n_states)
    tests = {name: told[reading.test] for name, reading in RING_READINGS.items()}
    least_to_ask(tests.values(), config.n_steps)
    trained = control_subjects(config)
    train_all(trained.values())
    policies = {name: subject.trained() for name, subject in trained.items()}
    known = rivals(config.n_states)
    players: dict[str, tuple[Player, Sequence[int]]] = {**policies, **{name: (known[name], [0]) for name in known}}
    said = answers(
        {name: player for name, (player, _) in players.items()},
        RING_READINGS,
        tests,
        config.n_steps,
    )
    axes = {name: list(seeds) for name, (_, seeds) in players.items()}
    tables = {
        "answers": answer_table(said, axes, list(RING_READINGS)),
        "agreement": agreements({name: values[..., OWN_ANSWERS] for name, values in said.items()}, axes, RIVALS),
    }
    groups = {name: "policy" if name in policies else "rival" for name in players}
    return {name: table.assign(analysis=ANALYSIS, group=table["subject"].map(groups)) for name, table in tables.items()}


def summarise(tables: Mapping[str, pd.DataFrame]) -> str:
    """The signs of all answers, and by policy the rivals that agree most often."""
    return said_and_agreed(tables)

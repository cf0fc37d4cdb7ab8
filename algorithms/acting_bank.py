"""The rivals for a policy: every learner that acts by name, and which of them contain which."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from algorithms.acting import ActingLearner
from algorithms.bandit import (
    LCB,
    UCB,
    UCB1,
    DiscountedUCB,
    EmpiricalMean,
    GaussianThompson,
    PosteriorMean,
    Random,
    Thompson,
)
from algorithms.bandit_incremental import (
    EXP3,
    ConstantStep,
    ExploreThenCommit,
    Forgetting,
    GradientBandit,
    WinStayLoseShift,
)
from algorithms.bandit_linear import LinearPosterior, LinThompson, LinUCB
from algorithms.bayes_adaptive import BayesOptimal, Gittins
from algorithms.control import (
    ActorCritic,
    EpisodicControl,
    ExpectedSarsa,
    MonteCarlo,
    PolicyGradient,
    QLearning,
    Sarsa,
)
from algorithms.learner import constants
from algorithms.planning import UCBVI, CertaintyEquivalence, PosteriorSampling
from algorithms.predictive_maps import GoalInference, SuccessorRepresentation
from tasks.errors import require

# Simpler learners before the richer ones that contain them.
BANDIT: dict[str, type] = {
    "random": Random,
    "win-stay-lose-shift": WinStayLoseShift,
    "empirical-mean": EmpiricalMean,
    "posterior-mean": PosteriorMean,
    "ucb": UCB,
    "ucb1": UCB1,
    "lcb": LCB,
    "discounted-ucb": DiscountedUCB,
    "thompson": Thompson,
    "gaussian-thompson": GaussianThompson,
    "bayes-optimal": BayesOptimal,
    "gittins": Gittins,
    "gradient-bandit": GradientBandit,
    "exp3": EXP3,
    "constant-step": ConstantStep,
    "forgetting": Forgetting,
    "explore-then-commit": ExploreThenCommit,
}
# They know the features of the arms.
LINEAR_BANDIT: dict[str, type] = {
    "linear-posterior": LinearPosterior,
    "lin-ucb": LinUCB,
    "lin-thompson": LinThompson,
}
CONTROL: dict[str, type] = {
    "random": Random,
    "monte-carlo-control": MonteCarlo,
    "sarsa": Sarsa,
    "expected-sarsa": ExpectedSarsa,
    "q-learning": QLearning,
    "policy-gradient": PolicyGradient,
    "actor-critic": ActorCritic,
    "certainty-equivalence": CertaintyEquivalence,
    "ucb-vi": UCBVI,
    "posterior-sampling": PosteriorSampling,
    "successor-representation": SuccessorRepresentation,
    "episodic-control": EpisodicControl,
}
# They know where every move leads.
NAVIGATION: dict[str, type] = {"goal-inference": GoalInference}
ACTING = {**BANDIT, **LINEAR_BANDIT, **CONTROL, **NAVIGATION}

# simpler -> the next richer ones, each with the constants at which it is the simpler one
NESTING: dict[str, dict[str, dict[str, float]]] = {
    "random": {name: {"lapse": 1.0} for name, learner in ACTING.items() if "lapse" in constants(learner)},
    "empirical-mean": {
        "posterior-mean": {"strength": 1e-12},  # in the limit: an arm never pulled has the prior's mean
        "ucb": {"bonus": 0.0},
        "ucb1": {"bonus": 0.0},
        "lcb": {"malus": 0.0},
    },
    "ucb1": {"discounted-ucb": {"discount": 1.0}},
    "constant-step": {"forgetting": {"forget": 0.0}},
    "linear-posterior": {"lin-ucb": {"bonus": 0.0}},
    "certainty-equivalence": {"ucb-vi": {"bonus_size": 0.0}},
}


def acting_learner(name: str, constants: Mapping[str, float | Tensor] | None = None, **settings: Any) -> ActingLearner:
    """The named learner with these constants and settings (a horizon, features, moves).

    Raises ConfigError for an unknown name, with the nearest one.
    """
    require("learner", name, tuple(ACTING))
    return ACTING[name](**settings, **(constants or {}))


def richer(name: str) -> frozenset[str]:
    """All learners that contain the named one: the transitive closure of the nesting."""
    return frozenset().union(*({other} | richer(other) for other in NESTING.get(name, {})))

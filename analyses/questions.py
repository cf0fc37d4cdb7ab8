"""Which tasks a network is asked on: those of the family that is named, as prompts of the tokens that it reads."""

from __future__ import annotations

from itertools import chain

from analyses.subjects import TASKS, task_source
from models.causal import CausalTransformer
from models.config import ConfigError
from models.networks import Network
from probes.behaviour import Subject
from probes.discrimination import PromptFamily, Prompts, candidates, prompts_from
from tasks.autoregressive import KINDS, AutoregressiveFamily
from tasks.errors import require
from tasks.layout import PromptSource
from tasks.regression import RegressionFamily

LINEAR_REGRESSION = "linear-regression"
AUTOREGRESSION = {f"{kind}-autoregression": kind for kind in KINDS}
# By what a network learns from: the tasks that there are, and the context of arXiv 2405.13861, 2306.00297, 2402.05787.
ALLOWED = {"reward": TASKS, "label": (LINEAR_REGRESSION,), "features": tuple(AUTOREGRESSION)}
CONTEXT_LENGTHS = {"reward": 30, "label": 20, "features": 20}
ASKED = tuple(chain.from_iterable(ALLOWED.values()))


def questions(
    task: str, model: Network, *, n_states: int = 10, context_length: int | None = None, representable: bool = False
) -> tuple[tuple[PromptFamily, ...], Prompts]:
    """The families of prompts that a network can be asked on, its own first, and what makes them.

    context_length None is the papers'; representable concerns Markov reward processes. Raises ConfigError for an
    unknown task, or one of other tokens than the network's.
    """
    require("task", task, ASKED)
    subject = Subject.of(model)
    layout = subject.layout
    source = _source(task, model, n_states, representable)
    length = CONTEXT_LENGTHS[layout.target] if context_length is None else context_length
    if isinstance(model, CausalTransformer) and not model.config.augmented:
        positions = model.config.context_length
        if context_length is not None and context_length > positions:
            raise ConfigError(f"context_length is {context_length}; this network has positions for {positions} states")
        length = min(length, positions)
    return candidates(source, layout, looped=subject.can_loop, context_length=length), prompts_from(layout)


def _source(task: str, model: Network, n_states: int, representable: bool) -> PromptSource:
    layout = model.layout
    allowed = ALLOWED[layout.target]
    if task not in allowed:
        reads = ", ".join(name for name, _ in layout.blocks)
        raise ConfigError(f"task is {task!r}, but the network's tokens are ({reads}); allowed: {', '.join(allowed)}")
    if task in AUTOREGRESSION:
        return AutoregressiveFamily(layout.d_features, AUTOREGRESSION[task], augmented="previous" in layout)
    if task == LINEAR_REGRESSION:
        # weights of this prior make all directions of x count alike, whatever their variance
        covariance = getattr(model.config, "covariance", None)
        return RegressionFamily(layout.d_features, covariance, prior="inverse-covariance")
    gamma = min(Subject.of(model).gamma, 0.99)
    return task_source(task, n_states=n_states, d_features=layout.d_features, gamma=gamma, representable=representable)

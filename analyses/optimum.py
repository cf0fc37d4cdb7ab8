"""The constants that a subject's own training objective leads a learner to: what the best TD(0) or TD++ of it would be.

With v = v(theta) the values after a context, D the stationary weights and J = dv/dtheta, expected multi-task TD (the
semi-gradient of Algorithm 1 of arXiv 2405.13861, contexts and queries drawn anew) stops where

    J^T D (r + gamma P v - v) = 0

and regression on true values or on returns where J^T D (target - v) = 0. Solved by Gauss-Newton steps, none longer
than LARGEST_STEP, and shorter for as long as they grow.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from algorithms.td_plus_plus import TDPlusPlus
from algorithms.temporal_difference import TD0
from analyses.configs import SubjectSettings
from analyses.subjects import model_config, subject_source
from models.linear import layout_of
from models.objectives import MONTE_CARLO_HORIZON
from tasks.layout import Prompt
from tasks.markov_reward import MarkovRewardProcess, TaskFamily, evaluation_prompt
from tasks.streams import uniforms

# Independent sets of tasks, and where the search for the fixed point starts: step size, gamma over the objective's, ...
SAMPLES, TASKS_PER_SAMPLE = 5, 300
STARTS = {"td0": (1.5, 1.0), "td-plus-plus": (2.5, 1.0, -0.4, 0.3)}
NAMES = ("alpha", "gamma", "from_features", "from_next")
MAX_STEPS, LARGEST_STEP, SOLVED = 50, 0.5, 1e-9

Values = Callable[[Tensor], Tensor]


def optimum(settings: SubjectSettings, name: str) -> dict[str, Float[Tensor, " samples"]]:
    """The constants that the subject's own objective leads the named learner to, on SAMPLES independent sets of tasks.

    NaN where the search does not arrive. Learners: td0 and td-plus-plus.
    """
    process, prompt = tasks_and_prompt(settings)
    target, bootstrap = objective(settings, process)

    def values(theta: Tensor) -> Tensor:
        return learner_of(name, settings.n_layers, theta).predict(prompt)[..., 0]

    theta = torch.tensor(STARTS[name], dtype=torch.float64).expand(SAMPLES, -1).clone()
    theta[:, 1] *= settings.gamma
    last, damping = torch.full_like(theta[:, :1], torch.inf), torch.ones_like(theta[:, :1])
    for _ in range(MAX_STEPS):
        step = gauss_newton(values, theta, target, bootstrap, prompt.weights)
        length = step.abs().amax(-1, keepdim=True)
        damping = torch.where(length < last, 2 * damping, damping / 2).clamp(0.1, 1)
        theta = theta + step * torch.minimum(damping, LARGEST_STEP / length)
        last = length
        if bool((length < SOLVED).all()):
            break
    return dict(zip(NAMES, theta.where(last < SOLVED, torch.nan).unbind(-1), strict=False))


def tasks_and_prompt(settings: SubjectSettings) -> tuple[MarkovRewardProcess, Prompt]:
    """Tasks [samples, tasks] and a context of each, every state a query."""
    source, layout = subject_source(settings), layout_of(model_config(settings))
    assert isinstance(source, TaskFamily)  # other sources know no transition law
    process = source.sample(range(SAMPLES), "optimum", 0, TASKS_PER_SAMPLE)
    draws = uniforms(range(SAMPLES), "optimum/rollout", 0, TASKS_PER_SAMPLE, settings.context_length + 1)
    return process, evaluation_prompt(process, draws, layout).to(torch.float64)


def learner_of(name: str, n_steps: int, theta: Float[Tensor, "samples n"]) -> TD0 | TDPlusPlus:
    """The learner whose constants, shared by all steps, are the columns of theta."""
    alpha, gamma, *rewriting = theta[:, None].unbind(-1)  # [samples, 1] each
    rewrite = [constant[..., None] for constant in rewriting]
    return (TDPlusPlus if name == "td-plus-plus" else TD0)(n_steps, alpha[..., None], gamma, *rewrite)


def objective(settings: SubjectSettings, process: MarkovRewardProcess) -> tuple[Tensor, Tensor]:
    """The given part of the target [samples, tasks, states], and what multiplies v in it: gamma P, or nothing."""
    transition, values = settings.gamma * process.transition.double(), process.values.double()
    if settings.objective == "td":
        return process.reward.double(), transition
    if settings.objective == "monte-carlo":  # returns end after so many steps
        beyond = torch.linalg.matrix_power(transition, MONTE_CARLO_HORIZON) @ values[..., None]
        values = values - beyond[..., 0]
    return values, torch.zeros_like(transition)


def gauss_newton(
    values: Values, theta: Tensor, target: Tensor, bootstrap: Tensor, weights: Tensor
) -> Float[Tensor, "samples n"]:
    """The step (J^T D (J - bootstrap J))^-1 J^T D (target + bootstrap v - v)."""
    directions = torch.eye(theta.shape[-1], dtype=theta.dtype).unbind()
    columns = [torch.func.jvp(values, (theta,), (one.expand_as(theta),)) for one in directions]
    v, J = columns[0][0], torch.stack([column[1] for column in columns], -1)  # [samples, tasks, states(, n)]
    error = target + (bootstrap @ v[..., None])[..., 0] - v
    weighted = (weights[..., None] * J).flatten(1, 2).mT  # J^T D, [samples, n, tasks * states]
    system = weighted @ (J - bootstrap @ J).flatten(1, 2)
    return torch.linalg.solve(system, weighted @ error.flatten(1)[..., None])[..., 0]

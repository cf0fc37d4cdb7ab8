"""Fits the free constants of learners that act to a policy: as close as that learner can possibly come to its laws.

What is minimised is what is reported: KL(subject || rival) of the next action, averaged over steps and fitting tasks.
All seeds and starts are fitted side by side by Fisher scoring with damping: constants carry batch axes, the score of
every constant comes from one forward-mode pass; whole constants, which have no score, are tried out in turn; and

    gradient = -E_subject[score],   curvature = E_rival[score score^T],   score = d ln rival(a) / d constant
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from algorithms.acting import ActingLearner, follow
from algorithms.acting_bank import acting_learner
from algorithms.learner import Constant, constants
from tasks.interaction import Interaction
from tasks.progress import progress, ticking

MAX_STEPS = 40
SMALLEST_GAIN = 1e-6  # nats per step of the fit, below which it has arrived
QUIET_STEPS = 2  # in a row without that gain; one alone may be a step that was damped too much
SMALLEST_PROBABILITY = 1e-12  # a rival that excludes an action is charged for this much
NEAR_BOUND = 1e-3  # of a constant's range
TURNS = 3  # of trying all whole numbers and fitting the other constants again
LARGEST_MOVE = 2.0  # of a step, in the unbounded numbers that stand for constants

Laws = Float[Tensor, "seeds tasks steps actions"]


@dataclass(frozen=True)
class LawFit:
    """A learner with fitted constants [seeds, 1], and KL(subject || rival) in nats per step on tasks held out.

    at_bound: by constant, the seeds in which it stopped at a bound, so that the learner might fit better beyond it.
    Zero and one end a domain, not a search: beyond them there is nothing.
    """

    learner: ActingLearner
    constants: dict[str, Float[Tensor, "seeds 1"]]
    kl: Float[Tensor, "seeds held_out"]
    fitted_kl: Float[Tensor, " seeds"]
    at_bound: dict[str, Bool[Tensor, " seeds"]]


def kl(subject: Float[Tensor, "*#batch actions"], rival: Float[Tensor, "*#batch actions"]) -> Float[Tensor, "*batch"]:
    """KL(subject || rival) in nats; where the subject's probability vanishes nothing is lost."""
    first, second = (law.clamp(min=SMALLEST_PROBABILITY).log() for law in (subject, rival))
    return (subject * (first - second)).sum(-1)


def law_divergence(subject: Laws, rival: Laws) -> Float[Tensor, "seeds tasks"]:
    """KL(subject || rival) in nats per step, the mean over the steps of each task."""
    return kl(subject, rival).mean(-1)


def constant_law(laws: Laws, n_fitting: int) -> Float[Tensor, "seeds held_out"]:
    """The floor: KL on held-out tasks of the best law that is the same at every step of every task."""
    best = laws[:, :n_fitting].mean((1, 2), keepdim=True)
    return law_divergence(laws[:, n_fitting:], best.expand_as(laws[:, n_fitting:]))


def fit_laws(
    laws: Laws,
    history: Interaction,
    rivals: Sequence[str],
    *,
    n_fitting: int,
    settings: Mapping[str, Mapping[str, Any]] | None = None,
) -> dict[str, LawFit]:
    """Fits the named rivals to the laws of a policy along a history, batch axes (seeds or 1, tasks).

    The first n_fitting tasks are fitted to, the others held out. settings: by rival, what it must be told (a horizon,
    features, moves). Raises ValueError unless both parts have a task.
    """
    n_seeds, n_tasks = laws.shape[:2]
    if not 0 < n_fitting < n_tasks:
        raise ValueError(f"{n_fitting} tasks to fit of {n_tasks}; allowed: 1 to {n_tasks - 1}, the others are held out")
    own = history.each(lambda x: x.expand(n_seeds, *x.shape[1:]))
    fits = {}
    with progress(total=len(rivals), desc="fitting rivals", unit="rival") as bar, ticking(bar):
        for name in rivals:
            told = (settings or {}).get(name, {})
            fits[name] = _fit(_Space(name, told), laws, own, n_fitting)
            bar.update()
    return fits


class _Space:
    """The constants of one rival as unbounded numbers x: low + (high - low) sigmoid(x), in logarithms if positive."""

    def __init__(self, name: str, settings: Mapping[str, Any]) -> None:
        self.name, self.settings = name, settings
        self.declared = constants(type(acting_learner(name, **settings)))
        self.whole = {i: c for i, c in enumerate(self.declared.values()) if c.whole}

    def starts(self) -> Float[Tensor, "starts n"]:
        count = max((len(c.starts) for c in self.declared.values()), default=1)
        rows = [[_unbounded(c, c.starts[k % len(c.starts)]) for c in self.declared.values()] for k in range(count)]
        return torch.tensor(rows, dtype=torch.float64).view(count, len(self.declared))

    def named(self, x: Float[Tensor, "batch n"]) -> dict[str, Float[Tensor, "batch 1"]]:
        return {name: _bounded(c, value[:, None]) for (name, c), value in zip(self.declared.items(), x.mT, strict=True)}

    def learner(self, x: Float[Tensor, "batch n"]) -> ActingLearner:
        return acting_learner(self.name, self.named(x), **self.settings)

    def at_bound(self, x: Float[Tensor, "batch n"]) -> dict[str, Bool[Tensor, " batch"]]:
        hits = {}
        for (name, c), share in zip(self.declared.items(), x.sigmoid().mT, strict=True):
            hits[name] = (share < NEAR_BOUND) & (c.low != 0) | (share > 1 - NEAR_BOUND) & (c.high != 1)
        return hits


def _bounded(c: Constant, x: Tensor) -> Tensor:
    if c.low > 0:
        return c.low * (c.high / c.low) ** x.sigmoid()
    return c.low + (c.high - c.low) * x.sigmoid()


def _unbounded(c: Constant, value: float) -> float:
    low, high, at = torch.tensor([c.low, c.high, value], dtype=torch.float64)
    share = (at / low).log() / (high / low).log() if c.low > 0 else (at - low) / (high - low)
    return float(share.clamp(1e-4, 1 - 1e-4).logit())


def _fit(space: _Space, laws: Laws, history: Interaction, n_fitting: int) -> LawFit:
    starts = space.starts().to(laws)
    n_seeds, n_starts = len(laws), len(starts)
    copies = torch.arange(n_seeds, device=laws.device).repeat_interleave(n_starts)
    asked, target = history.each(lambda x: x[copies, :n_fitting]), laws[copies, :n_fitting]
    x, cost = _minimise(space, starts.repeat(n_seeds, 1), asked, target)
    for _ in range(TURNS if space.whole else 0):
        x, cost = _minimise(space, _best_whole(space, x, asked, target), asked, target)
    fitted, best = cost.view(n_seeds, n_starts).nan_to_num(nan=torch.inf).min(-1)
    x = x.view(n_seeds, n_starts, -1)[torch.arange(n_seeds, device=x.device), best]
    learner = space.learner(x)
    rest = follow(learner, history.each(lambda y: y[:, n_fitting:])).laws
    kl = law_divergence(laws[:, n_fitting:], rest)
    return LawFit(learner, space.named(x), kl, fitted, space.at_bound(x))


def _best_whole(space: _Space, x: Float[Tensor, "batch n"], history: Interaction, target: Laws) -> Tensor:
    """x with its whole constants where they cost least of all numbers up to the length of the history."""

    def cost(x: Tensor) -> Tensor:
        return law_divergence(target, follow(space.learner(x), history).laws).mean(-1)

    best = cost(x)
    for i, c in space.whole.items():
        for value in range(int(c.low), min(int(c.high), history.n_steps) + 1):
            tried = x.clone()
            tried[:, i] = _unbounded(c, float(value))
            new = cost(tried)
            x, best = torch.where((new < best)[:, None], tried, x), torch.minimum(new, best)
    return x


def _minimise(
    space: _Space, x: Float[Tensor, "batch n"], history: Interaction, target: Laws
) -> tuple[Float[Tensor, "batch n"], Float[Tensor, " batch"]]:
    """Where every start has ended, and its KL."""

    n = x.shape[-1]
    if n == 0:
        return x, law_divergence(target, follow(space.learner(x), history).laws).mean(-1)

    def scores(x: Tensor, own: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        for_each_constant = history.each(lambda y: y[own].repeat(n, *[1] * (y.ndim - 1)))
        return _scores(lambda copies: follow(space.learner(copies), for_each_constant).laws, x, target[own])

    going = torch.arange(len(x), device=x.device)
    cost, gradient, curvature = scores(x, going)
    x, damping, quiet = x.clone(), torch.full_like(cost, 1e-2), torch.zeros_like(going)
    for _ in range(MAX_STEPS):
        scale = torch.diag_embed(curvature[going].diagonal(dim1=-2, dim2=-1) + 1e-8)
        move = torch.linalg.solve(curvature[going] + damping[going, None, None] * scale, -gradient[going])
        tried = x[going] + move.clamp(-LARGEST_MOVE, LARGEST_MOVE)
        tried_cost, tried_gradient, tried_curvature = scores(tried, going)
        better, before = tried_cost < cost[going], damping[going]
        arrived = torch.where(better, cost[going] - tried_cost < SMALLEST_GAIN, before > 1e3)
        quiet[going] = torch.where(arrived, quiet[going] + 1, 0)
        damping[going] = torch.where(better, before / 5, before * 5).clamp(1e-9, 1e6)
        gone = going[better]
        for old, new in ((x, tried), (cost, tried_cost), (gradient, tried_gradient), (curvature, tried_curvature)):
            old[gone] = new[better]
        going = going[quiet[going] < QUIET_STEPS]
        if not len(going):
            break
    return x, cost


def _scores(
    laws_at: Callable[[Tensor], Tensor], x: Float[Tensor, "batch n"], target: Laws
) -> tuple[Float[Tensor, " batch"], Float[Tensor, "batch n"], Float[Tensor, "batch n n"]]:
    """KL, its gradient, and the Fisher information of the rival's laws, from one pass through a copy per constant."""
    batch, n = x.shape
    units = torch.eye(n).to(x).repeat_interleave(batch, 0)
    laws, slopes = torch.func.jvp(laws_at, (x.repeat(n, 1),), (units,))[:2]
    laws = laws[:batch]
    slopes = slopes.unflatten(0, (n, batch))  # [n, batch, tasks, steps, actions]
    score = (slopes / laws.clamp(min=SMALLEST_PROBABILITY)).nan_to_num()
    per_step = target.shape[1] * target.shape[2]
    gradient = -torch.einsum("btka, nbtka -> bn", target, score) / per_step
    curvature = torch.einsum("btka, nbtka, mbtka -> bnm", laws, score, score) / per_step
    return law_divergence(target, laws).mean(-1), gradient, curvature

"""Fits the free constants of every rival to a subject's predictions: as close as that learner can possibly come.

What is minimised is what is reported: the disagreement E (f - g)^2 / E f^2 per task between the subject's predictions f
and the rival's g (E weighs the queries by prompt.weights), averaged over fitting tasks, within each constant's bounds.

All seeds and all starts are solved side by side by a projected Levenberg-Marquardt. Constants carry batch axes, so one
call of a learner evaluates them all; with a copy of the constants for every task and query, one backward pass gives the
exact Jacobian of them all.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from math import prod

import torch
from jaxtyping import Bool, Float, Inexact, Int
from torch import Tensor

from algorithms.bank import LEARNERS, NEUTRAL, NONLINEAR, RIVALS, build, iterates, next_richer
from algorithms.learner import Constant, Learner, constants
from tasks.layout import Prompt

# A subject or rival diverges on a task where its root mean square exceeds this many times that of the true values.
DIVERGED = 100.0
# A mean disagreement that rounding alone explains: more steps and other starts cannot improve on it.
EXACT = 1e-22
MAX_STEPS = 100
MAX_STEPS_OF_ALL_STARTS = 20  # then the best start of each seed goes on alone
SMALLEST_GAIN = 1e-4  # of a step, relative
DAMPINGS = torch.tensor([0.01, 1.0, 30.0, 1e4], dtype=torch.float64)  # tried at once, times the last one that helped
NEAR_BOUND = 1e-4  # of a constant's range
LARGEST_BATCH = 2**23  # numbers in one Jacobian
SCALE = Constant(0.01, 100.0, (1.0,))  # of preferences, which have no unit


@dataclass(frozen=True)
class Fit:
    """A rival with fitted constants [seeds, 1, ...], how many they are, and the mean disagreement they leave.

    at_bound: by constant, the seeds in which one of its numbers stopped at a bound, so the learner might fit better
    beyond. Where it is the simpler learner (NEUTRAL: a step size or discount of zero) it has not stopped short.
    """

    learner: Learner
    constants: dict[str, Tensor]
    n_constants: int
    disagreement: Float[Tensor, " seeds"]
    at_bound: dict[str, Bool[Tensor, " seeds"]]


def square_mean(values: Inexact[Tensor, "*batch queries out"], prompt: Prompt) -> Float[Tensor, "*batch"]:
    """E |f|^2 per task, queries weighted by prompt.weights."""
    weights = prompt.weights / prompt.weights.sum(-1, keepdim=True)
    return (weights * as_real(values).square().sum(-1)).sum(-1)


def as_real(values: Inexact[Tensor, "*batch out"]) -> Float[Tensor, "*batch numbers"]:
    """Complex numbers as pairs of real ones."""
    return torch.view_as_real(values.resolve_conj()).flatten(-2) if values.is_complex() else values


def disagreement(
    f: Inexact[Tensor, "*#batch queries out"], g: Inexact[Tensor, "*#batch queries out"], prompt: Prompt
) -> Float[Tensor, "*batch"]:
    """E (f - g)^2 / E f^2 per task; zero where f = g, and NaN where f alone vanishes."""
    difference, power = torch.broadcast_tensors(square_mean(f - g, prompt), square_mean(f, prompt))
    return torch.where(difference == 0, 0.0, difference / power.where(power > 0, torch.nan))


def converges(values: Inexact[Tensor, "*batch queries out"], prompt: Prompt) -> Bool[Tensor, "*batch"]:
    """True on tasks where predictions are finite and within DIVERGED times the scale of the true values."""
    limit = DIVERGED**2 * square_mean(prompt.answers, prompt).mean()
    return square_mean(values, prompt) <= limit  # false for NaN


@contextmanager
def one_thread() -> Iterator[None]:
    """Batches of tiny matrices: torch's threads would spend their time waiting for one another."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@one_thread()
def fit_bank(
    predictions: Inexact[Tensor, "seeds tasks queries out"],
    prompt: Prompt,
    *,
    n_steps: int,
    shared: bool,
    starts: Mapping[str, Mapping[str, Tensor]] | None = None,
    rivals: Collection[str] = RIVALS.keys(),
    scaled: bool = False,
) -> dict[str, Fit]:
    """Fits the named rivals to every seed's predictions on a prompt with batch axes (1, tasks).

    `shared`: all steps have one set of constants (a looped subject), else one set each. `starts`: by rival and name,
    constants [seeds, 1, ...] to start from besides the declared ones (read off the weights, say). Tasks on which the
    subject diverges are left out. A rival also starts where the simpler ones that it contains have ended, so on these
    tasks it never fits worse than they do. Constants are NaN for a seed that diverges on every task. `scaled`: every
    rival has one more constant, the unit of its answers, as a subject that acts has preferences and no values.
    """
    whole = _Target.whole(predictions, prompt)
    linear = whole if prompt.causal else _Target.read(predictions, prompt)
    fits: dict[str, Fit] = {}
    for name in (name for name in LEARNERS if name in rivals):
        space = _Space(name, n_steps, shared, prompt.layout.d_features, scaled)
        simpler = [other for other in fits if name in next_richer(n_steps, shared).get(other, ())]
        given = [starts[name]] if starts and name in starts else []
        target = whole if name in NONLINEAR else linear
        fits[name] = _fit(space, target, [*given, *(fits[other].constants for other in simpler)])
    return fits


@dataclass(frozen=True)
class _Target:
    """The least-squares problem of a task with k numbers: E |f - g|^2 = |y - root g|^2 + rest.

    Most rivals are linear in the query, g = phi_q . w, so with the QR decomposition sqrt(weights) Phi = Q R of a task
    k = min(queries, d) numbers do: y = Q^T sqrt(weights) f, the queries of `prompt` are the rows of R, and root is 1.
    In a causal prompt every query has a context of its own, and nothing is reduced.
    """

    prompt: Prompt
    root: Float[Tensor, "#tasks k"]
    y: Float[Tensor, "seeds tasks k"]
    scale: Float[Tensor, "seeds tasks"]  # 1 / E f^2 / tasks; zero where the subject diverges
    rest: Float[Tensor, " seeds"]  # what no learner that is linear in the query can explain
    reduced: bool

    @classmethod
    def read(cls, predictions: Float[Tensor, "seeds tasks queries 1"], prompt: Prompt) -> _Target:
        root = (prompt.weights / prompt.weights.sum(-1, keepdim=True)).sqrt()[..., None]
        orthogonal, triangular = torch.linalg.qr(root * prompt.layout.read(prompt.query_tokens, "features"))
        whole = cls.whole(predictions, prompt)
        y = (orthogonal.mT @ whole.y[..., None])[..., 0]
        missed = whole.y.square().sum(-1) - y.square().sum(-1)
        n, k = prompt.context.shape[-2], triangular.shape[-2]
        rows = torch.nn.functional.pad(triangular, (0, prompt.layout.width - triangular.shape[-1]))
        reduced = replace(
            prompt,
            tokens=torch.cat([prompt.context, rows], -2),
            queries=torch.arange(n, n + k),
            answers=torch.zeros_like(triangular[..., :1]),
            weights=torch.ones_like(triangular[..., 0]),
        )
        rest = (whole.scale * missed.clamp(min=0)).sum(-1)
        return cls(reduced, torch.ones_like(triangular[0, :1, :, 0]), y, whole.scale, rest, True)

    @classmethod
    def whole(cls, predictions: Inexact[Tensor, "seeds tasks queries out"], prompt: Prompt) -> _Target:
        """The same problem unreduced, all numbers of every query: for rivals that are not linear in it."""
        numbers = as_real(predictions)
        root = (prompt.weights / prompt.weights.sum(-1, keepdim=True)).sqrt()
        root = root.repeat_interleave(numbers.shape[-1], -1)
        kept = converges(predictions, prompt)
        y = torch.where(kept[..., None], root * numbers.flatten(-2), 0.0)
        power = y.square().sum(-1)
        scale = kept / power.clamp(min=torch.finfo(y.dtype).tiny) / kept.sum(-1, keepdim=True).clamp(min=1)
        return cls(prompt, root[0], y, scale, torch.zeros_like(scale[:, 0]), False)


class _Space:
    """The constants of one rival as vectors of length n: their shapes and bounds, and the way there and back."""

    def __init__(self, name: str, n_steps: int, shared: bool, d: int, scaled: bool = False) -> None:
        self.name, self.n_steps, self.d = name, n_steps, d
        self.declared = constants(LEARNERS[name]) | ({"scale": SCALE} if scaled else {})
        steps = 1 if shared or not iterates(name) else n_steps
        self.shapes = {key: (steps,) * c.per_step + (d, d) * c.matrix for key, c in self.declared.items()}
        self.sizes = [prod(shape) for shape in self.shapes.values()]
        self.low = self._vector({key: torch.full(self.shapes[key], c.low) for key, c in self.declared.items()})
        self.high = self._vector({key: torch.full(self.shapes[key], c.high) for key, c in self.declared.items()})

    def predict(self, vectors: Float[Tensor, "*batch n"], prompt: Prompt) -> Float[Tensor, "*batch2 numbers"]:
        """All numbers of all queries, task by task."""
        return as_real(build(self.name, self.n_steps, self.named(vectors)).predict(prompt)).flatten(-2)

    def named(self, vectors: Float[Tensor, "*batch n"]) -> dict[str, Tensor]:
        """Constants [*batch, ...] by name."""
        parts = zip(self.shapes.items(), vectors.split(self.sizes, -1) if self.sizes else (), strict=True)
        return {key: part.reshape((*part.shape[:-1], *shape)) for (key, shape), part in parts}

    def starts(self) -> list[Float[Tensor, " n"]]:
        """The declared starts. Steps start at different values: by symmetry, equal ones would stay equal."""
        starts = []
        for k in range(max((len(c.starts) for c in self.declared.values()), default=0)):
            values = {}
            for key, c in self.declared.items():
                value = torch.tensor(c.starts[k % len(c.starts)])
                if c.per_step:
                    steps = self.shapes[key][0]
                    value = value * (torch.logspace(-0.3, 0.3, steps) if steps > 1 else torch.ones(1))
                values[key] = _times_identity(value, self.shapes[key][-1]) if c.matrix else value
            starts.append(self._vector(values))
        return starts

    def embed(self, given: Mapping[str, Tensor], n_seeds: int) -> Float[Tensor, "seeds n"]:
        """Constants [seeds, 1, ...] of a simpler rival, or of another source, as vectors within the bounds.

        What is not given stands where the richer rival is the simpler one (NEUTRAL), what is NaN at the first start.
        """
        default = self.named(self.starts()[0])
        given, values = dict(given), {}
        if "step_size" in given.keys() - self.declared.keys():  # a step size is a multiple of the identity
            given["preconditioner"] = _times_identity(given["step_size"], self.d)
        for key, shape in self.shapes.items():
            neutral = torch.full(shape, NEUTRAL[key], dtype=torch.float64) if key in NEUTRAL else default[key]
            value = given.get(key)
            if value is None:
                values[key] = neutral.expand(n_seeds, *shape)
                continue
            value = value[:, 0].double()
            if value.shape[1:] != shape:  # a learner that stops early makes steps of size zero
                value = torch.cat([value, neutral[value.shape[1] :].expand(n_seeds, -1)], -1)
            values[key] = torch.where(value.isnan(), default[key], value)
        return self._vector(values).clamp(self.low, self.high)

    def _vector(self, values: Mapping[str, Tensor]) -> Float[Tensor, "*batch n"]:
        axes = {key: len(shape) for key, shape in self.shapes.items()}
        flat = [v.double().reshape((*v.shape[: v.ndim - axes[key]], -1)) for key, v in values.items()]
        return torch.cat(flat, -1) if flat else torch.empty(0, dtype=torch.float64)


def _times_identity(step_size: Tensor, d: int) -> Tensor:
    return step_size[..., None, None] * torch.eye(d, dtype=step_size.dtype)


def _fit(space: _Space, target: _Target, warm: Sequence[Mapping[str, Tensor]]) -> Fit:
    n_seeds, n = len(target.y), sum(space.sizes)
    if n == 0:
        x, owner = torch.empty(n_seeds, 0), torch.arange(n_seeds)
        cost = _residuals(space, target, x, owner).square().sum(-1)
    else:
        declared = [start.expand(n_seeds, n) for start in space.starts()]
        starts = torch.stack([*(space.embed(given, n_seeds) for given in warm), *declared], 1)  # [seeds, starts, n]
        # a row of the Jacobian per start, task and query
        rows = starts.shape[1] * target.y[0].numel()
        per_chunk = max(1, LARGEST_BATCH // (rows * n))
        solved = [_minimise(space, target, starts[seeds], seeds) for seeds in torch.arange(n_seeds).split(per_chunk)]
        x, cost = torch.cat([x for x, _ in solved]), torch.cat([cost for _, cost in solved])
    x = x.masked_fill((target.scale == 0).all(-1, keepdim=True), torch.nan)
    fitted = space.named(x[:, None])
    at_bound = {key: _at_bound(value, key, space.declared[key]) for key, value in fitted.items()}
    return Fit(build(space.name, space.n_steps, fitted), fitted, n, cost + target.rest, at_bound)


def _at_bound(value: Float[Tensor, "seeds 1 ..."], key: str, bounds: Constant) -> Bool[Tensor, " seeds"]:
    near = NEAR_BOUND * (bounds.high - bounds.low)
    stopped = value >= bounds.high - near
    if bounds.low != NEUTRAL.get(key):
        stopped = stopped | (value <= bounds.low + near)
    return stopped.flatten(1).any(-1)


def _minimise(
    space: _Space, target: _Target, starts: Float[Tensor, "chunk starts n"], seeds: Int[Tensor, " chunk"]
) -> tuple[Float[Tensor, "chunk n"], Float[Tensor, " chunk"]]:
    """The best end of all starts per seed, and its sum of squares."""
    n_seeds, n_starts, n = starts.shape
    x, owner = starts.flatten(0, 1).clone(), seeds.repeat_interleave(n_starts)
    cost = _residuals(space, target, x, owner).square().sum(-1)
    damping = torch.full_like(cost, 0.01)
    active = torch.arange(len(x))
    for step in range(MAX_STEPS):
        residuals, jacobian = _linearise(space, target, x[active], owner[active])
        gradient = (jacobian.mT @ residuals[..., None])[..., 0]
        held = ((x[active] <= space.low) & (gradient > 0)) | ((x[active] >= space.high) & (gradient < 0))
        jacobian = jacobian.masked_fill(held[:, None], 0.0)
        curvature = jacobian.mT @ jacobian
        scale = curvature.diagonal(dim1=-2, dim2=-1)
        scale = torch.where(scale > 0, scale, 1.0)
        tried = (damping[active, None] * DAMPINGS).clamp(1e-12, 1e12)
        system = curvature[:, None] + torch.diag_embed(tried[..., None] * scale[:, None])
        moves = torch.linalg.solve(system, -gradient.masked_fill(held, 0.0)[:, None, :, None])[..., 0]
        points = (x[active, None] + moves).clamp(space.low, space.high)
        costs = _residuals(space, target, points.flatten(0, 1), owner[active].repeat_interleave(len(DAMPINGS)))
        lowest, best = costs.square().sum(-1).view(-1, len(DAMPINGS)).min(-1)

        gain = 1 - lowest / cost[active].clamp(min=torch.finfo(cost.dtype).tiny)
        better = gain > 0
        damping[active] = torch.where(better, tried.gather(1, best[:, None])[:, 0], tried[:, -1])
        x[active[better]] = points[better, best[better]]
        cost[active[better]] = lowest[better]
        solved = (cost.view(n_seeds, n_starts).amin(-1) < EXACT).repeat_interleave(n_starts)
        stuck = torch.where(better, gain < SMALLEST_GAIN, damping[active] > 1e6)
        active = active[~stuck & ~solved[active]]
        if step == MAX_STEPS_OF_ALL_STARTS:
            leaders = cost.view(n_seeds, n_starts).argmin(-1) + n_starts * torch.arange(n_seeds)
            active = active[torch.isin(active, leaders)]
        if not len(active):
            break
    cost, best = cost.view(n_seeds, n_starts).min(-1)
    return x.view(n_seeds, n_starts, n)[torch.arange(n_seeds), best], cost


def _residuals(
    space: _Space, target: _Target, x: Float[Tensor, "batch n"], owner: Int[Tensor, " batch"]
) -> Float[Tensor, "batch rows"]:
    """sqrt(scale) (R w - y) for the constants x[b] and the seed owner[b]."""
    error = target.root * space.predict(x[:, None], target.prompt) - target.y[owner]
    return _finite(target.scale[owner].sqrt()[..., None] * error).flatten(1)


def _linearise(
    space: _Space, target: _Target, x: Float[Tensor, "batch n"], owner: Int[Tensor, " batch"]
) -> tuple[Float[Tensor, "batch rows"], Float[Tensor, "batch rows n"]]:
    """The residuals and their Jacobian, from one backward pass through a copy of x per task and query.

    Forward, in one pass per constant, where the problem is not reduced and the copies would be too large.
    """
    if not target.reduced:
        units = torch.eye(x.shape[-1], dtype=x.dtype)
        columns = [
            torch.func.jvp(lambda v: _residuals(space, target, v, owner), (x,), (unit.expand_as(x),))[1]
            for unit in units
        ]
        return _residuals(space, target, x, owner), torch.stack(columns, -1)
    batch, (tasks, k) = len(x), target.y.shape[1:]
    copies = x[:, None, None].expand(-1, k, tasks, -1).flatten(0, 1).requires_grad_()  # [batch * k, tasks, n]
    with torch.enable_grad():
        predictions = space.predict(copies, target.prompt).view(batch, k, tasks, k)
        own = predictions.diagonal(dim1=1, dim2=3)  # [batch, tasks, k]: query i from copy i
        (slopes,) = torch.autograd.grad(own.sum(), copies)
    root = target.scale[owner].sqrt()[..., None]
    residuals = _finite(root * (own.detach() - target.y[owner])).flatten(1)
    jacobian = _finite(root[..., None] * slopes.view(batch, k, tasks, -1).transpose(1, 2)).flatten(1, 2)
    return residuals, jacobian


def _finite(x: Tensor) -> Tensor:
    return torch.nan_to_num(x, nan=1e6, posinf=1e6, neginf=-1e6).clamp(-1e6, 1e6)

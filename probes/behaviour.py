"""Do the predictions agree? The published similarity scores, and the disagreement with every rival on held-out tasks.

Scores of arXiv 2405.13861 (section 4), with d_p the stationary distribution (`prompt.weights`) and a fixed context:

    VD  = ||v_TF - v_TD||^2 in the norm of d_p
    IWS = cos(w_TF, w_TD), where w = argmin_w ||Phi w - v|| in that norm
    SS  = sum_s d_p(s) cos(grad v_TF(phi(s)), grad v_TD(phi(s)))

Linear attention is exactly linear in the query's features whatever its weights, so there IWS and SS are one number. All
three are high for learners that never bootstrap; take any of them together with the same score of every rival.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Inexact
from scipy import stats
from torch import Tensor
from torch.nn.functional import normalize

from algorithms.fit import converges, disagreement, one_thread, square_mean
from algorithms.learner import Learner
from models import collapsed
from models.linear import LinearTransformer
from models.networks import Network
from probes.lens import least_squares_weights
from tasks.layout import Prompt, TokenLayout

N_RESAMPLES = 1000
TASKS_PER_BATCH = 25  # of the layer-by-layer forward, which needs tokens x tokens numbers per task


@runtime_checkable
class Predictor(Protocol):
    """A subject or learner: predictions [seeds, tasks, queries, out] on prompts with batch axes (seeds or 1, tasks)."""

    def predict(self, prompt: Prompt) -> Tensor: ...


@dataclass(frozen=True)
class Subject:
    """A network as the instruments see it: an ensemble that predicts, the tokens it reads, and how deep it is.

    n_steps: layers, or turns of a looped layer, so how many steps of an algorithm it has room for. gamma: the discount
    of the values that it was made to predict.
    """

    predictor: Predictor
    n_members: int
    layout: TokenLayout
    n_steps: int
    looped: bool
    gamma: float

    @classmethod
    def of(cls, model: Network) -> Subject:
        config = model.config
        looped = bool(getattr(config, "looped", False))
        return cls(model, model.n_seeds, model.layout, config.n_layers, looped, config.gamma)

    def deeper(self, factor: int) -> Predictor:
        """The same weights with every loop run `factor` times as often. Raises ValueError where that means nothing."""
        if factor == 1:
            return self.predictor
        if not isinstance(self.predictor, LinearTransformer):
            raise ValueError(f"{factor} times the loops: only a looped LinearTransformer can run deeper")
        return self.predictor.deeper(factor)

    @property
    def can_loop(self) -> bool:
        return self.looped and isinstance(self.predictor, LinearTransformer)


def predict(predictor: Predictor, prompt: Prompt) -> Inexact[Tensor, "seeds tasks queries out"]:
    """predictor.predict(prompt), by the collapsed forward where attention is linear."""
    if not isinstance(predictor, LinearTransformer):
        return predictor.predict(prompt)
    if predictor.config.activation == "linear":
        return collapsed.predict(predictor, prompt)
    batches = torch.arange(prompt.tokens.shape[1]).split(TASKS_PER_BATCH)
    return torch.cat([predictor.predict(prompt.select(tasks)) for tasks in batches], 1)


def value_difference(subject: Predictor, reference: Predictor, prompt: Prompt) -> Float[Tensor, "seeds tasks"]:
    """VD per task, the weights normalised to sum to one."""
    return square_mean(predict(subject, prompt) - predict(reference, prompt), prompt)


def implicit_weight_similarity(
    subject: Predictor, reference: Predictor, prompt: Prompt
) -> Float[Tensor, "seeds tasks"]:
    """IWS per task; zero where one of the two predicts zero."""
    weights = (least_squares_weights(predict(p, prompt), prompt) for p in (subject, reference))
    return _cosine(*weights)


def sensitivity_similarity(subject: Predictor, reference: Predictor, prompt: Prompt) -> Float[Tensor, "seeds tasks"]:
    """SS per task; a query where one of the two has no gradient counts zero."""
    cosines = _cosine(query_gradients(subject, prompt), query_gradients(reference, prompt))
    return (prompt.weights * cosines).sum(-1) / prompt.weights.sum(-1)


def query_gradients(predictor: Predictor, prompt: Prompt) -> Float[Tensor, "seeds tasks queries d"]:
    """The gradient of every query's prediction with respect to that query's features."""
    n_seeds = predict(predictor, prompt.select(slice(0, 1))).shape[0]
    fields = {name: getattr(prompt, name).detach() for name in ("tokens", "answers", "task", "weights")}
    own = replace(prompt, **{name: value.expand(n_seeds, *value.shape[1:]).clone() for name, value in fields.items()})
    own.tokens.requires_grad_()
    with torch.enable_grad():
        # queries do not see each other, so the gradient of the sum holds the gradient of each
        total = predict(predictor, own).sum() + 0 * own.tokens.sum()
        (gradients,) = torch.autograd.grad(total, own.tokens)
    return prompt.layout.read(gradients[..., prompt.queries, :], "features")


def _cosine(first: Tensor, second: Tensor) -> Tensor:
    tiny = torch.finfo(first.dtype).tiny
    return (normalize(first, dim=-1, eps=tiny) * normalize(second, dim=-1, eps=tiny)).sum(-1)


@dataclass(frozen=True)
class Interval:
    """A median over tasks with its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Comparison:
    """A subject and all rivals on held-out tasks.

    disagreement: E |f - g|^2 / E |f|^2 per task, f the subject; NaN on tasks where either diverges.
    distance: distance[a][b] is the median over tasks of the same ratio with rival a for f and rival b for g.
    diverged, rival_diverged: the share of tasks on which they diverge.
    skill, rival_skill: 1 - MSVE / MSVE of predicting zero, against true values, over the tasks where neither diverges.
    seed_disagreement: median over tasks and ordered pairs of seeds; None for one seed.
    """

    disagreement: dict[str, Float[Tensor, "seeds tasks"]]
    distance: dict[str, dict[str, Float[Tensor, " seeds"]]]
    diverged: Float[Tensor, " seeds"]
    rival_diverged: dict[str, Float[Tensor, " seeds"]]
    skill: Float[Tensor, " seeds"]
    rival_skill: dict[str, Float[Tensor, " seeds"]]
    seed_disagreement: float | None


@one_thread()
@torch.no_grad()
def compare(subject: Predictor, rivals: Mapping[str, Learner], prompt: Prompt) -> Comparison:
    """Compares a subject with fitted rivals on held-out tasks, prompts with batch axes (1, tasks)."""
    f = predict(subject, prompt)
    kept = converges(f, prompt)
    predictions = {name: rival.predict(prompt).expand_as(f) for name, rival in rivals.items()}
    sound = {name: kept & converges(g, prompt) for name, g in predictions.items()}
    return Comparison(
        disagreement={name: _where(sound[name], disagreement(f, g, prompt)) for name, g in predictions.items()},
        distance={
            a: {b: _where(sound[a] & sound[b], disagreement(g, h, prompt)).nanquantile(0.5, -1) for b, h in others}
            for (a, g), others in ((item, predictions.items()) for item in predictions.items())
        },
        diverged=1 - kept.double().mean(-1),
        rival_diverged={name: 1 - converges(g, prompt).double().mean(-1) for name, g in predictions.items()},
        skill=_skill(f, kept, prompt),
        rival_skill={name: _skill(g, sound[name], prompt) for name, g in predictions.items()},
        seed_disagreement=_seed_disagreement(f, kept, prompt),
    )


def median_interval(values: Float[np.ndarray, " tasks"]) -> Interval:
    """Median over tasks, NaN left out, and its exact interval: two order statistics, whatever the distribution.

    P(value_(k) > median) is the chance of fewer than k heads in n tosses; k is the largest for which it is below 2.5 %.
    Fewer than six tasks have no such k, and then the interval is NaN.
    """
    values = np.sort(values[~np.isnan(values)])
    k = int(stats.binom.ppf(0.025, len(values), 0.5)) if len(values) else 0
    if not k:
        return Interval(float(np.median(values)) if len(values) else np.nan, np.nan, np.nan)
    return Interval(float(np.median(values)), float(values[k - 1]), float(values[-k]))


def task_interval(values: Float[np.ndarray, "seeds tasks"]) -> Interval:
    """Median over seeds and tasks, NaN left out, with an interval over tasks.

    Exact for one seed; for several, whose values on one task belong together, tasks are resampled (percentile
    bootstrap, fixed stream).
    """
    if len(values) == 1:
        return median_interval(values[0])
    values = values[:, ~np.isnan(values).all(0)]
    if values.shape[1] < 2:
        return Interval(np.nan, np.nan, np.nan)
    median = np.nanmedian if np.isnan(values).any() else np.median

    def statistic(tasks: np.ndarray, axis: int) -> np.ndarray:
        return median(values[:, tasks], axis=(0, axis))

    value = float(median(values))
    if np.ptp(values[~np.isnan(values)]) == 0:
        return Interval(value, value, value)
    result = stats.bootstrap(
        (np.arange(values.shape[1]),),
        statistic,
        n_resamples=N_RESAMPLES,
        method="percentile",
        vectorized=True,
        rng=np.random.default_rng(0),
    )
    return Interval(value, *map(float, result.confidence_interval))


def _where(mask: Tensor, values: Tensor) -> Tensor:
    return torch.where(mask, values, torch.nan)


def _skill(f: Tensor, kept: Tensor, prompt: Prompt) -> Float[Tensor, " seeds"]:
    error, floor = square_mean(prompt.answers - f, prompt), square_mean(prompt.answers, prompt).expand_as(kept)
    return 1 - _where(kept, error).nansum(-1) / _where(kept, floor).nansum(-1)


def _seed_disagreement(f: Tensor, kept: Tensor, prompt: Prompt) -> float | None:
    if len(f) == 1:
        return None
    pairs = [
        _where(kept[i] & kept, disagreement(f[i : i + 1], f, prompt))[torch.arange(len(f)) != i] for i in range(len(f))
    ]
    return float(torch.stack(pairs).nanquantile(0.5))

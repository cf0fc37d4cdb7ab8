"""The regression networks that several analyses train, and their errors beside those of rivals on the same prompts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from algorithms.fit import one_thread
from algorithms.optima import Optimum, Spectra, scalar_optimum, spectra
from analyses.configs import RegressionSettings
from models.artifacts import run_folder
from models.config import LinearTransformerConfig, RegressionTraining
from models.folder import ArtifactError
from models.linear import LinearTransformer, layout_of
from models.regression_constructions import gd_plus_plus, gradient_descent, scaled_identity
from models.regression_objective import Examples, batch_last, residuals
from models.train_regression import RegressionRecord, train_regression
from tasks.regression import RegressionFamily, covariance_matrix, covariance_power

# Of the first of three stages: on fewer, its optimum is so far from that of more prompts that the others stay behind.
FIRST_PROMPTS = 10_000
SECOND_STAGE, LAST_STAGE = 8, 5  # iterations, on `prompts` / 5 and on `prompts`
# The authors' AdamW: the learning rate at the start, and how often it halves, by the family that it trains.
AUTHORS = {"sparse": (0.02, 15), "full": (0.1, 25)}
AUTHORS_STD = 1e-4  # of the initial weights
SNAPSHOTS = 200  # of a training by AdamW
PROMPTS_PER_BATCH = 10_000
Z95 = 1.96  # two-sided, for means over many prompts

# Rivals by name: the kind of constants of `scalar_optimum`, and whether Sigma^-1 preconditions them.
RIVALS = {
    "gd-constant": ("gd-constant", False),
    "gd": ("gd", False),
    "preconditioned-gd-constant": ("gd-constant", True),
    "preconditioned-gd": ("gd", True),
    "gd-plus-plus": ("gd-plus-plus", True),
}


@dataclass(frozen=True)
class RegressionSubject:
    """What a network is trained on: a spectrum of Sigma, rotated, and a prior of the weights."""

    settings: RegressionSettings
    n_layers: int
    parameters: str
    context_length: int
    spectrum: tuple[float, ...]
    prior: str

    @property
    def family(self) -> RegressionFamily:
        covariance = covariance_matrix(self.spectrum, self.settings.rotation)
        return RegressionFamily(self.settings.d_features, covariance, prior=self.prior, n_queries=1)

    @property
    def model_config(self) -> LinearTransformerConfig:
        d, covariance = self.settings.d_features, self.family.covariance
        return LinearTransformerConfig(self.n_layers, False, d, tokens="labelled", covariance=covariance)

    @property
    def training(self) -> RegressionTraining:
        steps, prompts = self.settings.steps, self.settings.prompts
        if self.settings.optimiser == "adamw":
            rate, halvings = AUTHORS["sparse" if self.parameters == "sparse" else "full"]
            return RegressionTraining(
                self.parameters,
                self.context_length,
                steps,
                prompts,
                learning_rate=rate,
                halve_every=max(1, steps // halvings),
                initial_std=AUTHORS_STD,
                stages=(),
                snapshot_every=max(1, steps // SNAPSHOTS),
            )
        first = min(FIRST_PROMPTS, prompts)
        stages = ((steps, first), (SECOND_STAGE, max(first, prompts // 5)), (LAST_STAGE, prompts))
        return RegressionTraining(self.parameters, self.context_length, stages=stages)

    @property
    def folder(self) -> Path:
        setting = {"model": self.model_config.to_json(), "training": asdict(self.training), "task": repr(self.family)}
        return run_folder(self.settings.out, "regression", setting, range(self.settings.seeds))

    def train(self) -> RegressionRecord:
        """Trains, or loads the run where a complete one stands."""
        return train_regression(self.model_config, self.training, self.family, range(self.settings.seeds), self.folder)

    def trained(self) -> tuple[RegressionRecord, LinearTransformer, list[int]]:
        """The record, the ensemble in float64 and its seeds. Raises ArtifactError where all of them diverged."""
        record = self.train()
        diverged = record.diverged()
        seeds = [seed for seed in range(self.settings.seeds) if seed not in diverged]
        if not seeds:
            raise ArtifactError(f"all seeds in {self.folder} diverged; give more --prompts and run again")
        P, Q = (weight[-1, seeds].double() for weight in (record.P, record.Q))
        return record, LinearTransformer(self.model_config, P, Q), seeds

    @property
    def covariance(self) -> Float[Tensor, "d d"]:
        return covariance_power(self.family.covariance, 1.0, self.settings.d_features)

    @property
    def inverse(self) -> Float[Tensor, "d d"]:
        return covariance_power(self.family.covariance, -1.0, self.settings.d_features)


def contexts(subject: RegressionSubject, *, preconditioned: bool, context_length: int | None = None) -> Spectra:
    """The contexts on which a rival's constants are found, with Sigma^-1 or the identity as its preconditioner."""
    n = subject.context_length if context_length is None else context_length
    M = subject.inverse if preconditioned else None
    return spectra(subject.family, n, subject.settings.contexts, M)


@one_thread()
def rival_optima(subject: RegressionSubject) -> dict[str, Optimum]:
    """Every rival with its own best constants at the subject's depth."""
    law = {whitened: contexts(subject, preconditioned=whitened) for whitened in (False, True)}
    return {name: scalar_optimum(kind, subject.n_layers, law[whitened]) for name, (kind, whitened) in RIVALS.items()}


def construction(subject: RegressionSubject, name: str, optimum: Optimum) -> LinearTransformer:
    """A rival with given constants as a network."""
    d, n = subject.settings.d_features, subject.n_layers
    M = subject.inverse if RIVALS[name][1] else torch.eye(d, dtype=torch.float64)
    C = optimum.steps[None, :, None, None] * M
    if not len(optimum.rewrites):
        return gradient_descent(C, n_layers=n)
    return gd_plus_plus(C, scaled_identity(torch.cat([optimum.rewrites, torch.zeros(1).double()])[None], d), n_layers=n)


@dataclass(frozen=True)
class Errors:
    """Mean squared errors on common prompts by network, with the half-widths of their 95 % intervals; and their
    differences to the reference, prompt by prompt, with theirs."""

    mean: dict[str, Float[Tensor, " seeds"]]
    half_width: dict[str, Float[Tensor, " seeds"]]
    difference: dict[str, Float[Tensor, " seeds"]]
    difference_half_width: dict[str, Float[Tensor, " seeds"]]


@one_thread()
@torch.no_grad()
def errors(subject: RegressionSubject, networks: Mapping[str, LinearTransformer], reference: str) -> Errors:
    """E (f - y)^2 of networks on the same fresh prompts, and how it differs from that of the reference network.

    A network of one seed stands beside every seed of the reference.
    """
    sums: dict[str, Tensor] = {}
    for batch in held_out(subject):
        square = {name: _square_errors(network, batch) for name, network in networks.items()}
        for name, value in square.items():
            gap = value - square[reference]
            found = torch.stack([x.double().sum(-1).expand(len(gap)) for x in (value, value**2, gap, gap**2)])
            sums[name] = sums.get(name, 0.0) + found
    n = subject.settings.test_prompts
    moments = {name: found / n for name, found in sums.items()}
    spread = {
        name: [Z95 * ((m[i + 1] - m[i] ** 2).clamp(min=0) / n).sqrt() for i in (0, 2)] for name, m in moments.items()
    }
    return Errors(
        {name: m[0] for name, m in moments.items()},
        {name: pair[0] for name, pair in spread.items()},
        {name: m[2] for name, m in moments.items()},
        {name: pair[1] for name, pair in spread.items()},
    )


def held_out(subject: RegressionSubject) -> Iterator[Examples]:
    """Fresh prompts in batches, the same for all seeds."""
    total, layout = subject.settings.test_prompts, layout_of(subject.model_config)
    for index, start in enumerate(range(0, total, PROMPTS_PER_BATCH)):
        n = min(PROMPTS_PER_BATCH, total - start)
        prompt = subject.family.fresh_prompt([0], "regression/test", index, n, subject.context_length, layout)
        yield Examples.read(prompt.to(torch.float32))


def _square_errors(network: LinearTransformer, batch: Examples) -> Float[Tensor, "seeds prompts"]:
    P, Q = (batch_last(weight.float()) for weight in (network.P, network.Q))
    each = Examples(*(x.expand(*x.shape[:-2], network.n_seeds, -1) for x in batch))
    return residuals(P, Q, each, network.config).square()

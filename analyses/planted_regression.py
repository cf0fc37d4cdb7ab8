"""The planted networks of in-context regression: what there is of them (see `analyses.planted`).

Half of the ensembles are asked on white covariates, half on those of a covariance with the published spectrum.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch

from analyses.decoys import ContextBlind, random_network
from analyses.draws import VARIANTS, Constants
from analyses.planted import TRAINED_LAYERS, Decoy, Population, Size, drawn_depth, training_seeds
from analyses.regression_draws import D_FEATURES, construct, draw_constants
from models.artifacts import run_folder
from models.config import LinearTransformerConfig, RegressionTraining
from models.linear import LinearTransformer
from models.train_regression import train_regression
from tasks.layout import Prompt, PromptSource, TokenLayout, labelled_layout
from tasks.regression import AHN_SPECTRUM, RegressionFamily, covariance_matrix, covariance_power, labelled_prompt
from tasks.streams import uniforms

NAME = "planted-regression"
CONTEXT_LENGTH = 20  # of arXiv 2306.00297
# w ~ N(0, Sigma^-1), as `learnscope inspect` asks: all directions of x count alike
WHITE, COLOURED = (
    RegressionFamily(D_FEATURES, covariance, prior="inverse-covariance")
    for covariance in (None, covariance_matrix(AHN_SPECTRUM, rotation=0))
)
DEEPEST = {True: 6, False: 4}  # by looped
TEACHERS = ("gd", "preconditioned-gd", "gd-plus-plus")


@dataclass(frozen=True)
class ShuffledLabels(RegressionFamily):
    """Training prompts whose labels are permuted among the examples: no covariate tells its own."""

    def training_prompt(
        self, seeds: Sequence[int], index: int, n: int, context_length: int, layout: TokenLayout
    ) -> Prompt:
        prompt = super().training_prompt(seeds, index, n, context_length, layout)
        x, labels = (layout.read(prompt.tokens, name) for name in ("features", "label"))
        order = uniforms(seeds, "shuffled-labels", index, n, context_length).argsort(-1)
        shuffled = torch.cat([labels[..., :context_length, 0].gather(-1, order), labels[..., context_length:, 0]], -1)
        return labelled_prompt(x, shuffled, prompt.answers[..., 0], prompt.task, layout)


def student_config(drawn: Constants, looped: bool) -> LinearTransformerConfig:
    return LinearTransformerConfig(TRAINED_LAYERS, looped, D_FEATURES, tokens="labelled")


def decoys(split: str, size: Size, folder: Path) -> Iterator[Decoy]:
    """Random attention, networks trained where nothing can be learnt in context, and weights that no context moves."""
    members = range(size.decoys)
    for kind, activation in (("random", "linear"), ("random-relu", "relu"), ("random-softmax", "softmax")):
        for looped in (True, False):
            purpose = f"{NAME}/{split}/{kind}/{'looped' if looped else 'separate'}"
            n_layers = drawn_depth(purpose, DEEPEST[looped])
            config = LinearTransformerConfig(n_layers, looped, D_FEATURES, activation, tokens="labelled")
            yield Decoy(kind, random_network(config, members, purpose), n_layers, looped)
    single_task = RegressionFamily(D_FEATURES, n_tasks=1)
    first = len(TEACHERS) * 2  # the groups of seeds before it are the students'
    for i, (kind, source) in enumerate((("shuffled-labels", ShuffledLabels(D_FEATURES)), ("memorised", single_task))):
        seeds = training_seeds(split, first + i, size.decoys)
        yield Decoy(kind, trained_decoy(source, seeds, size.decoy_steps, folder), TRAINED_LAYERS, True)
    seeds = training_seeds(split, first + 2, size.decoys)
    yield Decoy("context-blind", ContextBlind(single_task.pool(seeds)), TRAINED_LAYERS, True)


def is_planted(source: PromptSource, context_length: int) -> bool:
    """Whether networks are planted that are asked so, or on covariates that are rotated: all else is drawn in random
    directions."""
    if not isinstance(source, RegressionFamily) or replace(source, covariance=None) != WHITE:
        return False
    spectra = [
        torch.linalg.eigvalsh(covariance_power(family.covariance, 1.0, family.d_features))
        for family in (source, WHITE, COLOURED)
    ]
    return context_length == CONTEXT_LENGTH and any(torch.allclose(spectra[0], known) for known in spectra[1:])


def trained_decoy(source: RegressionFamily, seeds: Sequence[int], steps: int, folder: Path) -> LinearTransformer:
    """A looped network, all weights free, trained on the labels of a source; kept in a run folder."""
    config = LinearTransformerConfig(TRAINED_LAYERS, True, D_FEATURES, tokens="labelled")
    training = RegressionTraining(
        "free",
        CONTEXT_LENGTH,
        steps,
        prompts=64,
        resample_every=1,
        halve_every=steps,
        initial_std=0.1,
        stages=(),
        snapshot_every=steps,
    )
    setting = {"model": config.to_json(), "training": asdict(training), "task": repr(source)}
    run = run_folder(folder, "decoys", setting, seeds)
    record = train_regression(config, training, source, seeds, run, compiled=False)
    return LinearTransformer(config, record.P[-1].double(), record.Q[-1].double())


REGRESSION = Population(
    name=NAME,
    layout=labelled_layout(D_FEATURES),
    sources=(WHITE, COLOURED),
    context_length=CONTEXT_LENGTH,
    deepest=DEEPEST,
    constructed=("gd", "preconditioned-gd", "gd-plus-plus"),
    averaging="averaging",
    mixtures=(
        ("gd", "ols"),
        ("gd-plus-plus", "gd"),
        ("ridge", "gd"),
        ("averaging", "newton"),
        ("ols", "kernel-smoother"),
        ("preconditioned-gd", "conjugate-gradient"),
    ),
    functions=("newton", "ridge", "ols", "conjugate-gradient", "nearest-neighbour", "kernel-smoother"),
    teachers=TEACHERS,
    sizes={
        "smoke": Size(1, 0, 1, ("exact", "gauge", "perturbed 1 %"), 1, 2, 1, 1, 300, 1, 50),
        "laptop": Size(2, 1, 1, VARIANTS, 4, 6, 3, 2, 800, 3, 500),
        "paper": Size(3, 2, 3, VARIANTS, 6, 6, 3, 8, 1500, 8, 2000),
    },
    draw=draw_constants,
    construct=construct,
    student=student_config,
    decoys=decoys,
)

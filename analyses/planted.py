"""The planted population: value estimators whose algorithm is known, each with its right name before any is inspected.

Constructions with random constants, as they are and under changes that leave the function alone (gauge, noise in
irrelevant weights) or nearly alone (noise of 1, 3 and 10 % of the weights); mixtures of two learners; students that
were trained to imitate a learner; and decoys, for which only `none` is right. `analyses.labels` states the rule for
what is right. The splits share nothing but the reference tasks of that rule: every other draw names its split.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor
from tqdm import tqdm

from algorithms.bank import build
from algorithms.learner import Learner
from analyses.decoys import ShuffledRewards, context_blind, random_network, smoother, trained_decoy
from analyses.draws import D_FEATURES, EXACT, GAMMA, VARIANTS, Constants, construct, draw_constants, varied
from analyses.labels import label
from models.artifacts import is_complete, mark_done, run_folder
from models.config import LinearTransformerConfig, Mask, require
from models.distill import distill
from models.linear import LinearTransformer
from probes.behaviour import Predictor, predict
from tasks.layout import Prompt, TokenLayout, transition_layout
from tasks.markov_reward import TaskFamily
from tasks.streams import uniforms

# One to develop on, three that were looked at on the way, and the one to report. An index is part of a training seed.
SPLITS = ("calibration", "held-out", "test", "final", "report")
LAYOUT = transition_layout(D_FEATURES, discount=GAMMA)
SOURCE = TaskFamily(d_features=D_FEATURES, gamma=GAMMA)
DEEPEST = {True: 8, False: 4}  # by looped
CONSTRUCTED = (
    "td0",
    "td-lambda",
    "residual-gradient",
    "average-reward-td",
    "preconditioned-td",
    "td-plus-plus",
    "myopic",
)
MIXTURES = (  # (majority, minority)
    ("td0", "residual-gradient"),
    ("td0", "myopic"),
    ("td0", "monte-carlo"),
    ("td-lambda", "average-reward-td"),
    ("residual-gradient", "lstd"),
    ("myopic", "td-lambda"),
)
SHARES = (0.02, 0.1, 0.3, 0.5)  # of the minority
TEACHERS = ("td0", "residual-gradient", "td-lambda", "myopic")
TRAINED_LAYERS = 3  # of students and trained decoys


@dataclass(frozen=True)
class Planted:
    """An ensemble of subjects of one kind and architecture; tuples hold an entry per member.

    kind: what calibration leaves out together. right: the names that are right, where empty only `none` is (strict: by
    the first four rules of `analyses.labels`); borderline: `none` is right as well. noise: disagreement with the
    planted learner at its true constants, median over reference tasks. learner: that learner, constants
    [members, 1, ...]. Decoys have noise NaN and no learner.
    """

    kind: str
    variant: tuple[str, ...]
    subject: Predictor
    layout: TokenLayout
    n_steps: int
    looped: bool
    right: tuple[frozenset[str], ...]
    strict: tuple[frozenset[str], ...]
    borderline: tuple[bool, ...]
    noise: tuple[float, ...]
    learner: Learner | None


@dataclass(frozen=True)
class Mixture:
    """In function space: 1 - share of the majority's prediction and share [members] of the minority's."""

    majority: Predictor
    minority: Predictor
    share: Float[Tensor, " members"]

    def predict(self, prompt: Prompt) -> Float[Tensor, "members tasks queries 1"]:
        share = self.share[:, None, None, None].to(prompt.tokens)
        return (1 - share) * predict(self.majority, prompt) + share * predict(self.minority, prompt)


@dataclass(frozen=True)
class Size:
    """How many of each there are.

    looped, separate: ensembles of every construction. copies: members of every variant, or share of a mixture.
    mixtures, teachers: how many of those listed above. students, decoys: members of each of their ensembles.
    """

    looped: int
    separate: int
    copies: int
    variants: tuple[str, ...]
    mixtures: int
    teachers: int
    students: int
    student_steps: int
    decoys: int
    decoy_tasks: int


SIZES = {
    "smoke": Size(1, 0, 1, ("exact", "gauge", "perturbed 1 %"), 1, 1, 1, 400, 2, 20),
    "laptop": Size(2, 1, 2, VARIANTS, 4, 4, 3, 800, 6, 300),
    "paper": Size(3, 2, 3, VARIANTS, 6, 4, 8, 1500, 16, 2000),
}


def population(split: str, size: str, folder: Path) -> list[Planted]:
    """All ensembles of a split; what takes training or fitting is kept in `folder` and found there the next time.

    Raises ConfigError for an unknown split or size.
    """
    require("split", split, SPLITS)
    require("size", size, tuple(SIZES))
    made: list[Planted] = []
    with tqdm(unit="network", desc=f"planting {split}", disable=None) as bar:
        for part in (_constructions, _mixtures, _students, _decoys):
            for planted in part(split, SIZES[size], folder):
                made.append(planted)
                bar.update(len(planted.right))
    return made


def _constructions(split: str, size: Size, folder: Path) -> Iterator[Planted]:
    for name in CONSTRUCTED:
        for looped, count in ((True, size.looped), (False, size.separate)):
            for i in range(count):
                purpose = f"planted/{split}/{name}/{_layers(looped)} {i}"
                yield _constructed(name, name, _depth(purpose, looped, i, count), looped, purpose, size, folder)
    yield _constructed("one-step", "reward-average", 1, True, f"planted/{split}/one-step", size, folder)


def _constructed(kind: str, name: str, n_layers: int, looped: bool, purpose: str, size: Size, folder: Path) -> Planted:
    # in a looped layer of several turns every entry is relevant: none is left to fill
    kept = [variant for variant in size.variants if variant != "filled" or n_layers == 1 or not looped]
    variants = tuple(variant for variant in kept for _ in range(size.copies))
    members = range(len(variants))
    drawn = draw_constants(name, n_layers, looped, members, purpose)
    subject = varied(construct(name, drawn, n_layers), variants, members, purpose)
    return _labelled(kind, variants, subject, subject.layout, n_layers, looped, name, drawn, folder)


def _mixtures(split: str, size: Size, folder: Path) -> Iterator[Planted]:
    shares = [share for share in SHARES for _ in range(size.copies)]
    for i, (major, minor) in enumerate(MIXTURES[: size.mixtures]):
        purpose, looped = f"planted/{split}/mixture/{major} and {minor}", i % 2 == 0
        n_layers = _depth(purpose, looped)
        drawn = {
            name: draw_constants(name, n_layers, looped, range(len(shares)), f"{purpose}/{name}")
            for name in (major, minor)
        }
        majority, minority = (build(name, n_layers, constants) for name, constants in drawn.items())
        subject = Mixture(majority, minority, torch.tensor(shares, dtype=torch.float64))
        variants = tuple(f"{1 - share:.0%} {major}, {share:.0%} {minor}" for share in shares)
        yield _labelled("mixture", variants, subject, LAYOUT, n_layers, looped, major, drawn[major], folder)


def _students(split: str, size: Size, folder: Path) -> Iterator[Planted]:
    for i, (name, looped) in enumerate(
        (name, looped) for name in TEACHERS[: size.teachers] for looped in (True, False)
    ):
        purpose, seeds = f"planted/{split}/distilled/{name}/{_layers(looped)}", _seeds(split, i, size.students)
        drawn = draw_constants(name, TRAINED_LAYERS, looped, seeds, purpose)
        subject = _student(name, drawn, looped, seeds, size.student_steps, folder)
        variants = ("student",) * len(seeds)
        yield _labelled(f"distilled-{name}", variants, subject, LAYOUT, TRAINED_LAYERS, looped, name, drawn, folder)


def _student(
    name: str, drawn: Constants, looped: bool, seeds: Sequence[int], steps: int, folder: Path
) -> LinearTransformer:
    masks = (Mask("query", float(drawn["lam"][0, 0])),) if "lam" in drawn else (Mask(),)
    config = LinearTransformerConfig(TRAINED_LAYERS, looped, D_FEATURES, gamma=GAMMA, masks=masks)
    constants = {key: value.tolist() for key, value in drawn.items()}
    setting = {"model": config.to_json(), "teacher": name, "constants": constants, "steps": steps, "task": repr(SOURCE)}
    run = run_folder(folder, "students", setting, seeds)
    if not is_complete(run):
        single = {key: value.float() for key, value in drawn.items()}
        student = distill(build(name, TRAINED_LAYERS, single), config, SOURCE, seeds, steps)
        student.save_pretrained(run)
        mark_done(run)
    return LinearTransformer.from_folder(run).double()


def _decoys(split: str, size: Size, folder: Path) -> Iterator[Planted]:
    def decoy(kind: str, subject: Predictor, n_steps: int, looped: bool) -> Planted:
        n = size.decoys
        nothing = {
            "right": (frozenset(),) * n,
            "strict": (frozenset(),) * n,
            "borderline": (False,) * n,
            "noise": (math.nan,) * n,
        }
        return Planted(kind, ("decoy",) * n, subject, LAYOUT, n_steps, looped, **nothing, learner=None)

    members = range(size.decoys)
    for looped in (True, False):
        purpose = f"planted/{split}/random/{_layers(looped)}"
        n_layers = _depth(purpose, looped)
        config = LinearTransformerConfig(n_layers, looped, D_FEATURES, gamma=GAMMA)
        yield decoy("random", random_network(config, members, purpose), n_layers, looped)
    for kind, sharpness in (("nearest-neighbour", (20.0, 200.0)), ("kernel-smoother", (1.0, 5.0))):
        purpose = f"planted/{split}/{kind}"
        n_layers = 1 + int(3 * uniforms([0], f"{purpose}/depth", 0).item())
        config = LinearTransformerConfig(n_layers, True, D_FEATURES, activation="softmax", gamma=GAMMA)
        yield decoy(kind, smoother(config, members, purpose, sharpness=sharpness), n_layers, True)
    single_task = TaskFamily(d_features=D_FEATURES, gamma=GAMMA, n_tasks=1)
    for i, (kind, source) in enumerate((("shuffled-rewards", ShuffledRewards(SOURCE)), ("memorised", single_task))):
        config = LinearTransformerConfig(TRAINED_LAYERS, True, D_FEATURES, gamma=GAMMA)
        seeds = _seeds(split, len(TEACHERS) * 2 + i, size.decoys)
        yield decoy(kind, trained_decoy(config, source, seeds, size.decoy_tasks, folder), TRAINED_LAYERS, True)
    seeds = _seeds(split, len(TEACHERS) * 2 + 2, size.decoys)
    yield decoy("context-blind", context_blind(seeds, D_FEATURES), TRAINED_LAYERS, True)


def _labelled(
    kind: str,
    variants: tuple[str, ...],
    subject: Predictor,
    layout: TokenLayout,
    n_steps: int,
    looped: bool,
    name: str,
    drawn: Constants,
    folder: Path,
) -> Planted:
    learner, exact = build(name, n_steps, drawn), [variant in EXACT for variant in variants]
    labels = label(subject, name, learner, layout, n_steps=n_steps, looped=looped, exact=exact, folder=folder)
    return Planted(kind, variants, subject, layout, n_steps, looped, **vars(labels), learner=learner)


def _layers(looped: bool) -> str:
    return "looped" if looped else "separate"


def _depth(purpose: str, looped: bool, stratum: int = 0, strata: int = 1) -> int:
    """A depth of at least two, from one of equal parts of the range."""
    position = (stratum + uniforms([0], f"{purpose}/depth", 0).item()) / strata
    return 2 + int((DEEPEST[looped] - 1) * position)


def _seeds(split: str, group: int, n: int) -> range:
    """Training seeds that no other group or split has."""
    first = 1000 * (1 + SPLITS.index(split)) + 20 * group
    return range(first, first + n)

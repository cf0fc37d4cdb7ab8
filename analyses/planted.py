"""A planted population: networks whose algorithm is known, each with its right name before any is inspected.

Constructions with random constants, as they are and under changes that leave the function alone (gauge, noise in
irrelevant weights) or nearly alone (noise of 1, 3 and 10 % of the weights); mixtures of two learners; predictors that
are a learner which no construction exists for; students that were trained to imitate a learner; and decoys, for which
only `none` is right. `analyses.labels` states the rule for what is right. A `Population` says what there is of each;
`analyses.planted_values` and `analyses.planted_regression` are the two. Splits share nothing but the reference tasks of
that rule: every other draw names its split.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from algorithms.bank import LEARNERS, build
from algorithms.learner import Learner, constants
from analyses.draws import EXACT, Constants, varied
from analyses.labels import label, reference_prompts
from analyses.parallel import in_parallel
from models.artifacts import is_complete, mark_done, run_folder
from models.config import LinearTransformerConfig
from models.distill import distill
from models.linear import LinearTransformer
from probes.behaviour import Predictor, predict
from tasks.errors import require
from tasks.layout import Prompt, PromptSource, TokenLayout
from tasks.streams import uniforms

# One to develop on, three that were looked at on the way, and the one to report. An index is part of a training seed.
SPLITS = ("calibration", "held-out", "test", "final", "report")
SHARES = (0.02, 0.1, 0.3, 0.5)  # of the minority
TRAINED_LAYERS = 3  # of students and trained decoys
PARTS = ("constructions", "mixtures", "functions", "students", "decoys")


@dataclass(frozen=True)
class Planted:
    """An ensemble of subjects of one kind and architecture; tuples hold an entry per member.

    kind: what calibration leaves out together. source, context_length: the tasks that it is asked on. right: the names
    that are right, where empty only `none` is (strict: by the first four rules of `analyses.labels`); borderline:
    `none` is right as well. noise: disagreement with the planted learner at its true constants, median over reference
    tasks. learner: that learner, constants [members, 1, ...]. Decoys have noise NaN and no learner.
    """

    kind: str
    variant: tuple[str, ...]
    subject: Predictor
    layout: TokenLayout
    source: PromptSource
    context_length: int
    n_steps: int
    looped: bool
    right: tuple[frozenset[str], ...]
    strict: tuple[frozenset[str], ...]
    borderline: tuple[bool, ...]
    noise: tuple[float, ...]
    learner: Learner | None


class Decoy(NamedTuple):
    """An ensemble of predictors for which `none` is right."""

    kind: str
    subject: Predictor
    n_steps: int
    looped: bool


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

    looped, separate: ensembles of every construction. copies: members of every variant, or share of a mixture, or
    function. mixtures, functions, teachers: how many of those that the population lists. students, decoys: members of
    each of their ensembles; student_steps, decoy_steps: how long they train.
    """

    looped: int
    separate: int
    copies: int
    variants: tuple[str, ...]
    mixtures: int
    functions: int
    teachers: int
    students: int
    student_steps: int
    decoys: int
    decoy_steps: int


@dataclass(frozen=True)
class Population:
    """What is planted of networks that read one kind of token.

    name: what every stream starts with. sources: ensembles take them in turn, students and decoys the first. deepest:
    by looped. constructed: learners with a construction; averaging: the one that a single layer runs. mixtures:
    (majority, minority). functions: learners without one, planted as they are. draw(learner, n_layers, looped, members,
    purpose): constants; construct(learner, constants, n_layers); student(constants, looped): the config of a student;
    decoys(split, size, folder).
    """

    name: str
    layout: TokenLayout
    sources: tuple[PromptSource, ...]
    context_length: int
    deepest: Mapping[bool, int]
    constructed: tuple[str, ...]
    averaging: str
    mixtures: tuple[tuple[str, str], ...]
    functions: tuple[str, ...]
    teachers: tuple[str, ...]
    sizes: Mapping[str, Size]
    draw: Callable[[str, int, bool, Sequence[int], str], Constants]
    construct: Callable[[str, Constants, int], LinearTransformer]
    student: Callable[[Constants, bool], LinearTransformerConfig]
    decoys: Callable[[str, Size, Path], Iterator[Decoy]]


def plant(population: Population, split: str, size: str, folder: Path) -> list[Planted]:
    """All ensembles of a split; what takes training or fitting is kept in `folder` and found there the next time.

    Raises ConfigError for an unknown split or size.
    """
    require("split", split, SPLITS)
    require("size", size, tuple(population.sizes))
    planter = _Planter(population, split, population.sizes[size], folder)
    made = in_parallel(_part, [(planter, part) for part in PARTS], f"planting {split}", "part")
    return list(chain.from_iterable(made))


def _part(planter: _Planter, name: str) -> list[Planted]:
    return list(getattr(planter, name)())


@dataclass(frozen=True)
class _Single:
    """The prompts of a source in float32, in which students are trained."""

    source: PromptSource

    def fresh_prompt(
        self, seeds: Sequence[int], purpose: str, index: int, n: int, context_length: int, layout: TokenLayout
    ) -> Prompt:
        return self.source.fresh_prompt(seeds, purpose, index, n, context_length, layout).to(torch.float32)


@dataclass(frozen=True)
class _Planter:
    """Plants one split of a population."""

    population: Population
    split: str
    size: Size
    folder: Path

    def constructions(self) -> Iterator[Planted]:
        for name in self.population.constructed:
            for looped, count in ((True, self.size.looped), (False, self.size.separate)):
                for i in range(count):
                    purpose = self._purpose(f"{name}/{_layers(looped)} {i}")
                    # the first looped and the first separate ensemble take different turns
                    turn = i + (not looped)
                    yield self._constructed(name, name, self._depth(purpose, looped, i, count), looped, purpose, turn)
        yield self._constructed("one-step", self.population.averaging, 1, True, self._purpose("one-step"), 0)

    def _constructed(self, kind: str, name: str, n_layers: int, looped: bool, purpose: str, turn: int) -> Planted:
        # in a looped layer of several turns every entry is relevant: none is left to fill
        kept = [variant for variant in self.size.variants if variant != "filled" or n_layers == 1 or not looped]
        variants = tuple(variant for variant in kept for _ in range(self.size.copies))
        members = range(len(variants))
        drawn = self.population.draw(name, n_layers, looped, members, purpose)
        subject = varied(self.population.construct(name, drawn, n_layers), variants, members, purpose)
        return self._labelled(kind, variants, subject, subject.layout, n_layers, looped, name, drawn, turn)

    def mixtures(self) -> Iterator[Planted]:
        layout, shares = self.population.layout, [share for share in SHARES for _ in range(self.size.copies)]
        for i, (major, minor) in enumerate(self.population.mixtures[: self.size.mixtures]):
            purpose, looped = self._purpose(f"mixture/{major} and {minor}"), i % 2 == 0
            n_layers = self._depth(purpose, looped)
            drawn = {
                name: self.population.draw(name, n_layers, looped, range(len(shares)), f"{purpose}/{name}")
                for name in (major, minor)
            }
            majority, minority = (build(name, n_layers, own) for name, own in drawn.items())
            subject = Mixture(majority, minority, torch.tensor(shares, dtype=torch.float64))
            variants = tuple(f"{1 - share:.0%} {major}, {share:.0%} {minor}" for share in shares)
            yield self._labelled("mixture", variants, subject, layout, n_layers, looped, major, drawn[major], i // 2)

    def functions(self) -> Iterator[Planted]:
        """Each of them at two depths; one member will do where there are no constants to draw."""
        for name in self.population.functions[: self.size.functions]:
            for i, looped in enumerate((True, False)):
                purpose = self._purpose(f"{name}/{_layers(looped)}")
                n_layers = self._depth(purpose, looped)
                variants = ("exact",) * (self.size.copies if constants(LEARNERS[name]) else 1)
                drawn = self.population.draw(name, n_layers, looped, range(len(variants)), purpose)
                subject, layout = build(name, n_layers, drawn), self.population.layout
                yield self._labelled(name, variants, subject, layout, n_layers, looped, name, drawn, i)

    def students(self) -> Iterator[Planted]:
        for i, (name, looped) in enumerate(
            (name, looped) for name in self.population.teachers[: self.size.teachers] for looped in (True, False)
        ):
            purpose = self._purpose(f"distilled/{name}/{_layers(looped)}")
            seeds = training_seeds(self.split, i, self.size.students)
            drawn = self.population.draw(name, TRAINED_LAYERS, looped, seeds, purpose)
            subject = self._student(name, drawn, looped, seeds)
            variants, layout = ("student",) * len(seeds), self.population.layout
            yield self._labelled(
                f"distilled-{name}", variants, subject, layout, TRAINED_LAYERS, looped, name, drawn, turn=0
            )

    def _student(self, name: str, drawn: Constants, looped: bool, seeds: Sequence[int]) -> LinearTransformer:
        config, source = self.population.student(drawn, looped), self.population.sources[0]
        steps, context_length = self.size.student_steps, self.population.context_length
        setting = {
            "model": config.to_json(),
            "teacher": name,
            "constants": {key: value.tolist() for key, value in drawn.items()},
            "steps": steps,
            "task": repr(source),
            "context_length": context_length,
        }
        run = run_folder(self.folder, "students", setting, seeds)
        if not is_complete(run):
            single = {key: value.float() for key, value in drawn.items()}
            teacher = build(name, TRAINED_LAYERS, single)
            student = distill(teacher, config, _Single(source), seeds, steps, context_length=context_length)
            student.save_pretrained(run)
            mark_done(run)
        return LinearTransformer.from_folder(run).double()

    def decoys(self) -> Iterator[Planted]:
        n = self.size.decoys
        nothing = {
            "right": (frozenset(),) * n,
            "strict": (frozenset(),) * n,
            "borderline": (False,) * n,
            "noise": (math.nan,) * n,
        }
        for decoy in self.population.decoys(self.split, self.size, self.folder):
            source, length = self.population.sources[0], self.population.context_length
            asked = {"layout": self.population.layout, "source": source, "context_length": length}
            yield Planted(**decoy._asdict(), variant=("decoy",) * n, **asked, **nothing, learner=None)

    def _labelled(
        self,
        kind: str,
        variants: tuple[str, ...],
        subject: Predictor,
        layout: TokenLayout,
        n_steps: int,
        looped: bool,
        name: str,
        drawn: Constants,
        turn: int,
    ) -> Planted:
        source = self.population.sources[turn % len(self.population.sources)]
        length = self.population.context_length
        prompts, exact = reference_prompts(source, length, layout), [variant in EXACT for variant in variants]
        learner = build(name, n_steps, drawn)
        labels = label(subject, name, learner, prompts, n_steps=n_steps, looped=looped, exact=exact, folder=self.folder)
        return Planted(
            kind, variants, subject, layout, source, length, n_steps, looped, **vars(labels), learner=learner
        )

    def _purpose(self, what: str) -> str:
        return f"{self.population.name}/{self.split}/{what}"

    def _depth(self, purpose: str, looped: bool, stratum: int = 0, strata: int = 1) -> int:
        return drawn_depth(purpose, self.population.deepest[looped], stratum, strata)


def _layers(looped: bool) -> str:
    return "looped" if looped else "separate"


def drawn_depth(purpose: str, deepest: int, stratum: int = 0, strata: int = 1) -> int:
    """A depth of at least two, from one of equal parts of the range."""
    position = (stratum + uniforms([0], f"{purpose}/depth", 0).item()) / strata
    return 2 + int((deepest - 1) * position)


def training_seeds(split: str, group: int, n: int) -> range:
    """Training seeds that no other group or split has."""
    first = 1000 * (1 + SPLITS.index(split)) + 20 * group
    return range(first, first + n)

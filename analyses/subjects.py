"""The trained value estimators that several analyses share: settings in, a finished run out."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, get_args, get_type_hints

import torch

from analyses.configs import SubjectSettings
from analyses.parallel import in_parallel
from models.artifacts import is_complete, run_folder
from models.config import ConfigError, LinearTransformerConfig, TrainingConfig
from models.files import ArtifactError
from models.linear import LinearTransformer
from models.networks import Network, NetworkConfig, build
from models.train import TASKS_PER_CHUNK, TrainingRecord, train
from tasks.cartpole import CELLS, CartPoleFamily
from tasks.errors import LearnscopeError, require
from tasks.layout import Prompt
from tasks.markov_reward import FAMILIES, TaskFamily

CARTPOLE = "cartpole"
TASKS = (*FAMILIES, CARTPOLE)


@dataclass(frozen=True)
class TrainedSubject:
    """A finished training: its settings, folder and record. `seeds` leaves out those that diverged."""

    settings: SubjectSettings
    folder: Path
    record: TrainingRecord
    seeds: list[int]
    diverged: dict[int, int]
    config: NetworkConfig

    @property
    def name(self) -> str:
        """How tables and figures call it."""
        s = self.settings
        depth = f"L={s.n_layers} {'looped' if s.looped else 'separate'}"
        return f"{s.task}, {depth}, {s.activation} attention, {s.objective} loss"

    def model(self, snapshot: int = -1) -> LinearTransformer:
        """The ensemble (float64, surviving seeds) at a snapshot of the training."""
        P, Q = self.record.P[snapshot, self.seeds].double(), self.record.Q[snapshot, self.seeds].double()
        return LinearTransformer(model_config(self.settings), P, Q)

    def network(self, snapshot: int = -1) -> Network:
        """The same for a network of any kind."""
        return build(self.config, {name: w[snapshot, self.seeds].double() for name, w in self.record.weights.items()})


# What a variation may change: one value each, and part of what a subject is.
VARIABLE = tuple(
    f.name
    for f in fields(SubjectSettings)
    if f.name not in ("preset", "seeds", "device", "out") and isinstance(f.default, bool | int | float | str)
)


def subject_settings(settings: SubjectSettings) -> SubjectSettings:
    """The settings of the subject alone, out of those of an analysis."""
    return SubjectSettings(**{f.name: getattr(settings, f.name) for f in fields(SubjectSettings)})


def varied(settings: SubjectSettings, change: str) -> SubjectSettings:
    """The settings with one of them changed: "n_layers=2", "looped=false", "objective=true-value".

    Raises ConfigError, naming the nearest choice, for a setting or a value that there is not.
    """
    name, _, text = change.partition("=")
    require("the setting of a variation", name, VARIABLE)
    default = getattr(SubjectSettings, name)
    if isinstance(default, str):
        require(name, text, get_args(get_type_hints(SubjectSettings)[name]))
        return replace(settings, **{name: text})
    value: Any = None
    with suppress(ValueError):
        value = json.loads(text)
    if isinstance(default, float) and type(value) is int:
        value = float(value)
    least = 1 if isinstance(default, int) and not isinstance(default, bool) else 0
    if type(value) is not type(default) or not value >= least:
        allowed = {bool: "true or false", int: "a whole number of at least 1", float: "a number of at least 0"}
        raise ConfigError(f"{change!r}: {name} is {text!r}; allowed: {allowed[type(default)]}")
    return replace(settings, **{name: value})


def model_config(settings: SubjectSettings) -> LinearTransformerConfig:
    return LinearTransformerConfig(
        n_layers=settings.n_layers,
        looped=settings.looped,
        d_features=settings.d_features,
        activation=settings.activation,
        gamma=settings.gamma,
    )


def subject_source(settings: SubjectSettings) -> TaskFamily | CartPoleFamily:
    """The tasks that the settings describe. Raises ConfigError for settings that CartPole does not have."""
    return task_source(
        settings.task,
        n_states=settings.n_states,
        d_features=settings.d_features,
        gamma=settings.gamma,
        representable=settings.representable,
        fixed=settings.fixed,
        n_tasks=settings.n_tasks,
    )


def task_source(
    task: str,
    *,
    n_states: int = SubjectSettings.n_states,
    d_features: int,
    gamma: float,
    representable: bool = False,
    fixed: tuple[str, ...] = (),
    n_tasks: int | None = None,
) -> TaskFamily | CartPoleFamily:
    """The family of tasks of that name. Raises ConfigError for an unknown one, or settings that CartPole lacks."""
    require("task", task, TASKS)
    if task != CARTPOLE:
        return TaskFamily(task, n_states, d_features, gamma, representable, fixed, n_tasks)
    if representable:
        raise ConfigError(f"representable is True; {CARTPOLE} has no such variant, allowed: False")
    if n_states not in (CELLS, SubjectSettings.n_states):
        raise ConfigError(f"n_states is {n_states}; {CARTPOLE} has {CELLS} cells, leave it unset")
    return CartPoleFamily(d_features, gamma, fixed, n_tasks)


def training_config(settings: SubjectSettings) -> TrainingConfig:
    return TrainingConfig(
        objective=settings.objective,
        context_length=settings.context_length,
        train_tasks=settings.train_tasks,
        learning_rate=settings.learning_rate,
        weight_decay=settings.weight_decay,
    )


def subject_folder(settings: SubjectSettings, config: NetworkConfig | None = None) -> Path:
    """Where the run of these settings stands: everything that decides the weights of a seed names it."""
    setting = {
        "model": (config or model_config(settings)).to_json(),
        "training": asdict(training_config(settings)),
        "task": repr(subject_source(settings)),  # defaults that no setting reaches included
        "chunk": TASKS_PER_CHUNK,
    }
    return run_folder(settings.out, "subjects", setting, range(settings.seeds))


def trained_subject(settings: SubjectSettings, config: NetworkConfig | None = None) -> TrainedSubject:
    """Trains the ensemble that the settings describe, or loads it where a complete run stands in `out`.

    A `config` of another kind of network takes the place of the settings' transformer. Raises ArtifactError where no
    seed is left to look at, because all of them diverged.
    """
    seeds, config, source = range(settings.seeds), config or model_config(settings), subject_source(settings)
    folder = subject_folder(settings, config)
    record = train(config, training_config(settings), source, seeds, folder, device=settings.device)
    diverged = record.diverged()
    if len(diverged) == settings.seeds:
        raise ArtifactError(f"all {settings.seeds} seeds in {folder} diverged; lower --learning-rate and run again")
    return TrainedSubject(settings, folder, record, [seed for seed in seeds if seed not in diverged], diverged, config)


def train_all(settings: Sequence[SubjectSettings]) -> list[TrainedSubject]:
    """The trained subject of every settings, in order; what is missing trains side by side.

    Complete runs are read, killed ones resume, and equal settings train once. One that fails lets the others finish;
    its error is then raised.
    """
    missing: dict[Path, SubjectSettings] = {}
    for each in settings:
        if not is_complete(folder := subject_folder(each)):
            missing[folder] = each
    errors = in_parallel(_attempt, [(each,) for each in missing.values()], "training", "subject")
    for error in filter(None, errors):
        raise error
    return [trained_subject(each) for each in settings]


def _attempt(settings: SubjectSettings) -> LearnscopeError | None:
    """Trains one subject into its folder; the error that the user can mend."""
    try:
        trained_subject(settings)
    except LearnscopeError as error:
        return error
    return None


def held_out_prompt(settings: SubjectSettings, model: Network, n_tasks: int, purpose: str) -> Prompt:
    """n_tasks fresh tasks that all seeds read: batch axes (1, n_tasks), every state a query, float64."""
    prompt = subject_source(settings).fresh_prompt([0], purpose, 0, n_tasks, settings.context_length, model.layout)
    return prompt.to(torch.float64)

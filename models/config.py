"""What a network is, as data: read from and written to config.json. Free of torch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, asdict, dataclass, fields
from difflib import get_close_matches
from typing import Any, ClassVar, TypeVar

from tasks.errors import ConfigError, nearest, require

MODEL = "linear-transformer"
ACTIVATIONS = ("linear", "relu", "softmax", "softmax-over-queries")
MASK_KINDS = ("query", "centred")
TOKENS = ("transition", "labelled")
REQUIRED = ("model", "n_layers", "looped", "d_features", "activation")
Flat = TypeVar("Flat", bound="FlatConfig")
Types = dict[str, tuple[type | tuple[type, ...], str]]  # key -> what it must be, for the machine and in words
TYPES: Types = {
    "n_layers": (int, "a whole number of at least 1"),
    "looped": (bool, "true or false"),
    "d_features": (int, "a whole number of at least 1"),
    "activation": (str, ", ".join(ACTIVATIONS)),
    "gamma": ((int, float), "a number above 0 and at most 1"),
    "prompt": (dict, '{"tokens": "transition" or "labelled", "discounted": true or false, "memory": true or false}'),
    "masks": (list, '[{"kind": "query", "lambda": 0}], one for each head'),
    "readout_sign": (int, "-1 (the paper's) or 1"),
    "d_mlp": (int, "a whole number of at least 1"),
    "d_hidden": (int, "a whole number of at least 1"),
    "augmented": (bool, "true or false"),
    "n_heads": (int, "a whole number of at least 1"),
    "context_length": (int, "a whole number of at least 1"),
}
PROMPT_TYPES: Types = {
    "tokens": (str, ", ".join(TOKENS)),
    "discounted": (bool, "true or false"),
    "memory": (bool, "true or false"),
    "covariance": (list, "d_features lists of d_features numbers, symmetric with eigenvalues above 0"),
}
MASK_TYPES: Types = {"kind": (str, ", ".join(MASK_KINDS)), "lambda": ((int, float), "a number from 0 to 1")}


@dataclass(frozen=True)
class Mask:
    """The fixed n x n matrix M between values and attention weights of one head; queries are never keys.

    query: M[i, j] = lambda^(i-j) for j <= i, the identity at lambda = 0 (Theorem 1 and Corollary 3 of 2405.13861).
    centred: the identity minus the running mean, (Z M)_j = z_j - (z_1 + ... + z_j) / j (first head of Theorem 3).
    """

    kind: str = "query"
    lam: float = 0.0

    def __post_init__(self) -> None:
        require("masks[].kind", self.kind, MASK_KINDS)
        if not 0 <= self.lam <= 1:
            raise ConfigError(f"masks[].lambda is {self.lam}; allowed: {MASK_TYPES['lambda'][1]}")


@dataclass(frozen=True)
class LinearTransformerConfig:
    """Architecture and prompt of a transformer with merged weights P and Q (section 3 of 2405.13861, 2 of 2306.00297).

    tokens: "transition", (phi, gamma phi', R), or "labelled", (x, y) of in-context regression, for which gamma,
    discounted and memory mean nothing. covariance: of the x that a network of labelled tokens was trained on, None for
    the identity.
    """

    n_layers: int
    looped: bool
    d_features: int
    activation: str = "linear"
    gamma: float = 0.9
    discounted: bool = True
    memory: bool = False
    masks: tuple[Mask, ...] = (Mask(),)
    readout_sign: int = -1
    tokens: str = "transition"
    covariance: tuple[tuple[float, ...], ...] | None = None

    def __post_init__(self) -> None:
        require("activation", self.activation, ACTIVATIONS)
        require("prompt.tokens", self.tokens, TOKENS)
        if self.tokens == "labelled" and (self.memory or any(mask != Mask() for mask in self.masks)):
            raise ConfigError("prompt.tokens is 'labelled', which allows no memory and no masks but the query mask")
        if self.covariance is not None:
            self._check_covariance(self.covariance)
        for name, valid in (
            ("n_layers", self.n_layers >= 1),
            ("d_features", self.d_features >= 1),
            ("gamma", 0 <= self.gamma <= 1),
            ("masks", len(self.masks) >= 1),
            ("readout_sign", self.readout_sign in (-1, 1)),
        ):
            if not valid:
                raise ConfigError(f"{name} is {getattr(self, name)!r}; allowed: {TYPES[name][1]}")
        if self.gamma == 0 and self.discounted:
            raise ConfigError(
                "gamma is 0, and a discounted prompt then holds no next features; "
                'allowed: 0 < gamma <= 1, or "prompt": {"discounted": false}'
            )

    def _check_covariance(self, covariance: tuple[tuple[float, ...], ...]) -> None:
        d = self.d_features
        square = {len(covariance), *map(len, covariance)} == {d}
        if self.tokens != "labelled" or not square or covariance != tuple(zip(*covariance, strict=True)):
            raise ConfigError(
                f"prompt.covariance is {covariance!r}; allowed: {PROMPT_TYPES['covariance'][1]}, with labelled tokens"
            )

    @property
    def width(self) -> int:
        return self.d_features + 1 if self.tokens == "labelled" else 2 * self.d_features + 1 + self.memory

    @property
    def n_weight_layers(self) -> int:
        """How many (P, Q) pairs there are: one where looped."""
        return 1 if self.looped else self.n_layers

    def to_json(self) -> dict[str, Any]:
        return {
            "model": MODEL,
            "n_layers": self.n_layers,
            "looped": self.looped,
            "d_features": self.d_features,
            "activation": self.activation,
            "gamma": self.gamma,
            "prompt": self._prompt_json(),
            "masks": [{"kind": mask.kind, "lambda": mask.lam} for mask in self.masks],
            "readout_sign": self.readout_sign,
        }

    def _prompt_json(self) -> dict[str, Any]:
        if self.tokens == "transition":
            return {"discounted": self.discounted, "memory": self.memory}
        known = {} if self.covariance is None else {"covariance": [list(row) for row in self.covariance]}
        return {"tokens": self.tokens, **known}

    @classmethod
    def from_json(cls, data: Any) -> LinearTransformerConfig:
        """Reads config.json. Raises ConfigError for a missing or misspelt key, another model, or a wrong value."""
        known = (*REQUIRED, "gamma", "prompt", "masks", "readout_sign")
        _require_keys(data, REQUIRED, known, "a linear transformer")
        require("model", data["model"], (MODEL,))
        _require_types("", data, TYPES)
        prompt, masks = data.get("prompt", {}), data.get("masks", [{}])
        _require_only("prompt", prompt, PROMPT_TYPES)
        _require_types("prompt.", prompt, PROMPT_TYPES)
        for i, mask in enumerate(masks):
            if not isinstance(mask, dict):
                raise ConfigError(f"masks[{i}] is {mask!r}; allowed: an object with {', '.join(MASK_TYPES)}")
            _require_only(f"masks[{i}]", mask, MASK_TYPES)
            _require_types(f"masks[{i}].", mask, MASK_TYPES)
        return cls(
            n_layers=data["n_layers"],
            looped=data["looped"],
            d_features=data["d_features"],
            activation=data["activation"],
            gamma=_float(data.get("gamma", 0.9)),
            discounted=prompt.get("discounted", True),
            memory=prompt.get("memory", False),
            masks=tuple(Mask(mask.get("kind", "query"), _float(mask.get("lambda", 0.0))) for mask in masks),
            readout_sign=data.get("readout_sign", -1),
            tokens=prompt.get("tokens", TOKENS[0]),
            covariance=_matrix(prompt.get("covariance")),
        )


@dataclass(frozen=True)
class FlatConfig(ABC):
    """A network whose config.json holds one number, word or truth value per field; KEYS says what each must be."""

    MODEL: ClassVar[str]
    KEYS: ClassVar[Types] = TYPES

    @property
    @abstractmethod
    def weight_shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of every weight by name, without the seed axis in front."""
        ...

    @abstractmethod
    def initial_std(self, name: str) -> float:
        """The standard deviation of a named weight before training; biases start at zero."""
        ...

    def to_json(self) -> dict[str, Any]:
        return {"model": self.MODEL, **asdict(self)}

    @classmethod
    def from_json(cls: type[Flat], data: Any) -> Flat:
        """Reads config.json. Raises ConfigError for a missing or misspelt key, another model, or a wrong value."""
        required = ("model", *(field.name for field in fields(cls) if field.default is MISSING))
        known = ("model", *(field.name for field in fields(cls)))
        _require_keys(data, required, known, f"a {cls.MODEL}")
        require("model", data["model"], (cls.MODEL,))
        given = {key: value for key, value in data.items() if key in known[1:]}
        _require_types("", given, cls.KEYS)
        return cls(**{key: _float(x) if cls.KEYS[key][0] == (int, float) else x for key, x in given.items()})


@dataclass(frozen=True)
class PromptConfig(FlatConfig):
    """A network that reads prompts of transitions, the discounted ones, and has whole numbers of parts."""

    n_layers: int
    d_features: int
    gamma: float = 0.9

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not (0 < value <= 1 if field.name == "gamma" else value >= 1 or value is False):
                raise ConfigError(f"{field.name} is {value!r}; allowed: {TYPES[field.name][1]}")

    @property
    def width(self) -> int:
        return 2 * self.d_features + 1

    @property
    @abstractmethod
    def gain(self) -> float:
        """Of the Xavier normal initialisation."""
        ...

    def initial_std(self, name: str) -> float:
        rows, columns = self.weight_shapes[name][-2:]
        return self.gain * (2 / (rows + columns)) ** 0.5


@dataclass(frozen=True)
class ValueTransformerConfig(PromptConfig):
    """Softmax attention over keys with merged weights, every layer followed by an MLP."""

    MODEL: ClassVar[str] = "value-transformer"
    readout_sign: ClassVar[int] = -1

    looped: bool = True
    d_mlp: int = 36

    @property
    def weight_shapes(self) -> dict[str, tuple[int, ...]]:
        layers, width, hidden = 1 if self.looped else self.n_layers, self.width, self.d_mlp
        attention = dict.fromkeys(("P", "Q"), (layers, width, width))
        read = {"W_in": (layers, width, hidden), "b_in": (layers, hidden)}
        return {**attention, **read, "W_out": (layers, hidden, width), "b_out": (layers, width)}

    @property
    def gain(self) -> float:
        return 0.1 if self.looped else 0.1 / self.n_layers


@dataclass(frozen=True)
class RecurrentConfig(PromptConfig):
    """A stack of tanh RNN layers that reads a prompt token by token (appendix of 2405.13861: 3 layers, 4 units)."""

    MODEL: ClassVar[str] = "recurrent-network"

    d_hidden: int = 4

    @property
    def weight_shapes(self) -> dict[str, tuple[int, ...]]:
        layers, hidden = self.n_layers, self.d_hidden
        first = {"W_E": (self.width, hidden)} | ({"W_x": (layers - 1, hidden, hidden)} if layers > 1 else {})
        return {**first, "W_h": (layers, hidden, hidden), "b": (layers, hidden), "W_U": (hidden, 1), "b_U": (1,)}

    @property
    def gain(self) -> float:
        return 1.0


def _matrix(value: Any) -> tuple[tuple[float, ...], ...] | None:
    """A list of lists of JSON numbers. Raises ConfigError for anything else."""
    if value is None:
        return None
    for row in value:
        if not isinstance(row, list) or any(isinstance(x, bool) or not isinstance(x, int | float) for x in row):
            raise ConfigError(f"prompt.covariance is {value!r}; allowed: {PROMPT_TYPES['covariance'][1]}")
    return tuple(tuple(map(_float, row)) for row in value)


def _float(value: int | float) -> float:
    """A JSON number; a whole one beyond the floats becomes infinite."""
    return float(str(value))


def _require_keys(data: Any, required: tuple[str, ...], known: tuple[str, ...], network: str) -> None:
    """Raises ConfigError unless data is an object that has all required keys and no misspelt one."""
    if not isinstance(data, dict):
        raise ConfigError(f"the config is of type {type(data).__name__}; it must hold one JSON object")
    for key in data:
        near = get_close_matches(key, known, n=1, cutoff=0.8)
        if key not in known and near and near[0] not in data:
            raise ConfigError(f"the config has the key {key!r}; did you mean {near[0]!r}?")
    missing = [key for key in required if key not in data]
    if missing:
        raise ConfigError(f"the config lacks {', '.join(missing)}; {network} needs {', '.join(required)}")


def _require_types(where: str, data: Mapping[str, Any], types: Types) -> None:
    for name, (kind, allowed) in types.items():
        value = data.get(name)
        # Python's True is an int too
        if name in data and (not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool)):
            raise ConfigError(f"{where}{name} is {value!r}; allowed: {allowed}")


def _require_only(where: str, data: Iterable[str], allowed: Iterable[str]) -> None:
    """Inside `prompt` and `masks` nobody else has keys: one that we do not know would be a setting without effect."""
    for key in data:
        if key not in allowed:
            hint = nearest(key, allowed)
            raise ConfigError(f"{where} has the key {key!r}; {hint}Allowed: {', '.join(allowed)}")


@dataclass(frozen=True)
class TrainingConfig:
    """Multi-task training on sliding windows (Algorithm 1 of 2405.13861 and the authors' batching of it)."""

    objective: str = "td"
    context_length: int = 30
    train_tasks: int = 4000
    batches_per_task: int = 5
    windows_per_batch: int = 64
    learning_rate: float = 1e-3
    weight_decay: float = 1e-6
    snapshot_every: int = 10
    """Tasks between the snapshots of the weights from which all training curves are computed."""


@dataclass(frozen=True)
class RegressionTraining:
    """Training of in-context regression: `steps` of AdamW, then a polish on fixed batches (section 5 of 2306.00297).

    family: "sparse" (Q's block of features is free), "full" (P's too) or "free" (all), starting at N(0, initial_std^2).
    AdamW reads `prompts` prompts, new ones every `resample_every` steps; every matrix's gradient is clipped to the norm
    `clip`, and the learning rate halves every `halve_every` steps. stages: (steps, prompts) of `polish`, one by one.
    """

    family: str = "full"
    context_length: int = 20
    steps: int = 0
    prompts: int = 20_000
    resample_every: int = 100
    learning_rate: float = 0.02
    betas: tuple[float, float] = (0.99, 0.9)
    halve_every: int = 2000
    clip: float = 0.01
    initial_std: float = 0.1
    polish: str = "gauss-newton"
    stages: tuple[tuple[int, int], ...] = ((60, 5000), (5, 50_000))
    snapshot_every: int = 100

    def __post_init__(self) -> None:
        require("family", self.family, ("sparse", "full", "free"))
        require("polish", self.polish, ("gauss-newton", "l-bfgs"))

"""What a policy network is, and how one is trained, as data. Free of torch."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import ClassVar

from models.config import FlatConfig, Types
from tasks.errors import ConfigError, require

ATTENTIONS = ("softmax", "linear")
POSITIONS = ("none", "learned", "rotary")
TOKENS = ("step", "transition", "separate")
OBJECTIVES = ("imitation", "return-conditioned", "actor-critic", "blocked-critic", "policy-gradient")
WHOLE, NUMBER = (int, "a whole number of at least 1"), ((int, float), "a number")


@dataclass(frozen=True)
class PolicyConfig(FlatConfig):
    """A causal transformer that reads its own history and says what to do next: pre-norm blocks, GELU.

    n_ctx: the steps that it sees, the last ones. tokens: "step", one token for (what is seen, what was done before and
    what came of it), "transition", the same and what was seen then, or "separate" ones for what is seen, done and got.
    returns: a token also holds the return that is still to come, `target_return` less what was got where the network
    itself acts (Decision Transformer). critic: a second head says what the future is worth.

    Layer norms have no weights of their own: those would be one with the weights and biases that read them.
    """

    MODEL: ClassVar[str] = "policy-transformer"
    KEYS: ClassVar[Types] = {
        **dict.fromkeys(("n_observations", "n_actions", "n_ctx", "d_model", "n_layers", "n_heads", "d_mlp"), WHOLE),
        "attention": (str, ", ".join(ATTENTIONS)),
        "positions": (str, ", ".join(POSITIONS)),
        "tokens": (str, ", ".join(TOKENS)),
        **dict.fromkeys(("returns", "critic"), (bool, "true or false")),
        **dict.fromkeys(("reward_shift", "target_return"), NUMBER),
        **dict.fromkeys(("reward_scale", "return_scale"), ((int, float), "a number above 0")),
    }

    n_observations: int
    n_actions: int
    n_ctx: int
    d_model: int = 32
    n_layers: int = 2
    n_heads: int = 2
    d_mlp: int = 128
    attention: str = "softmax"
    positions: str = "learned"
    tokens: str = "step"
    returns: bool = False
    critic: bool = False
    reward_shift: float = 0.0
    reward_scale: float = 1.0
    """Rewards are read, and learnt from, as (reward - reward_shift) / reward_scale."""
    return_scale: float = 1.0
    target_return: float = 0.0

    def __post_init__(self) -> None:
        for name, (kind, allowed) in self.KEYS.items():
            value = getattr(self, name)
            if (kind is int and value < 1) or (name.endswith("_scale") and value <= 0):
                raise ConfigError(f"{name} is {value!r}; allowed: {allowed}")
        for name, words in (("attention", ATTENTIONS), ("positions", POSITIONS), ("tokens", TOKENS)):
            require(name, getattr(self, name), words)
        if self.d_model % self.n_heads or (self.positions == "rotary" and self.d_head % 2):
            raise ConfigError(
                f"d_model is {self.d_model} and n_heads {self.n_heads}; allowed: a d_model that n_heads divides, "
                "into even parts with rotary positions"
            )

    @property
    def d_head(self) -> int:
        return self.d_model // self.n_heads

    @property
    def blocks(self) -> tuple[tuple[str, int], ...]:
        """(name, width) of the blocks of a token, in order."""
        known = (("observation", self.n_observations), ("action", self.n_actions), ("reward", 1), ("acted", 1))
        before = (("before", self.n_observations),) if self.tokens == "transition" else ()
        return (*known, ("done", 1), *before, *((("return", 1),) if self.returns else ()))

    @property
    def d_token(self) -> int:
        return sum(width for _, width in self.blocks)

    @property
    def weight_shapes(self) -> dict[str, tuple[int, ...]]:
        layers, heads, d, head, hidden = self.n_layers, self.n_heads, self.d_model, self.d_head, self.d_mlp
        embedding = {"W_E": (self.d_token, d)} | ({"W_pos": (self.n_ctx, d)} if self.positions == "learned" else {})
        reads = dict.fromkeys(("W_Q", "W_K", "W_V"), (layers, heads, d, head))
        read_biases = dict.fromkeys(("b_Q", "b_K", "b_V"), (layers, heads, head))
        attention = {**reads, **read_biases, "W_O": (layers, heads, head, d), "b_O": (layers, d)}
        mlp = {
            "W_in": (layers, d, hidden),
            "b_in": (layers, hidden),
            "W_out": (layers, hidden, d),
            "b_out": (layers, d),
        }
        critic = {"W_value": (d, 1), "b_value": (1,)} if self.critic else {}
        return {**embedding, **attention, **mlp, "W_U": (d, self.n_actions), "b_U": (self.n_actions,), **critic}

    def initial_std(self, name: str) -> float:
        """Unit scale through every map, half of it for tokens and positions, the sum of all layers' outputs of the
        stream's own scale; the first policy is nearly uniform, and the first values are nearly zero."""
        read = {"W_E": 4, "W_pos": 4, "W_O": 2 * self.n_layers * self.d_model, "W_out": 2 * self.n_layers * self.d_mlp}
        head = {"W_U": 100 * self.d_model, "W_value": 100 * self.d_model}
        return (read | head).get(name, self.d_model) ** -0.5


@dataclass(frozen=True)
class PolicyTraining:
    """How a policy is trained: AdamW, every seed's gradient clipped, `warmup` steps, then a cosine to a tenth.

    objective: "imitation" of the source's targets (Algorithm Distillation, decision pretraining), "return-conditioned"
    (the same, and tokens hold the return that came: Decision Transformer), or reinforcement on `batch_tasks` fresh
    tasks a step, each epoch one clipped step: "actor-critic", "blocked-critic" (the critic learns from what the policy
    has made, and changes none of it), "policy-gradient" (no critic: the mean of the other tasks at the same time).

    batch_tasks: per seed and step. tasks_at_once: how many a source draws at a time, a multiple; batches are slices of
    what was drawn. gamma, lam: of advantages; entropy: the weight of the law's entropy, which falls to zero.
    """

    objective: str = "imitation"
    steps: int = 2000
    batch_tasks: int = 64
    tasks_at_once: int = 64
    learning_rate: float = 3e-3
    warmup: int = 100
    weight_decay: float = 1e-4
    betas: tuple[float, float] = (0.9, 0.98)
    max_norm: float = 1.0
    snapshot_every: int = 100
    gamma: float = 0.98
    lam: float = 0.9
    entropy: float = 0.05
    value_weight: float = 0.5
    clip: float = 0.2
    epochs: int = 1

    def __post_init__(self) -> None:
        require("objective", self.objective, OBJECTIVES)
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, int) and value < (field.name in ("batch_tasks", "tasks_at_once", "epochs")):
                raise ConfigError(f"{field.name} is {value}; allowed: a whole number of at least 1")
        if self.tasks_at_once % self.batch_tasks:
            raise ConfigError(
                f"tasks_at_once is {self.tasks_at_once}; allowed: a multiple of batch_tasks, {self.batch_tasks}"
            )

    @property
    def reinforces(self) -> bool:
        """Whether the network learns from what it does itself."""
        return self.objective not in ("imitation", "return-conditioned")


@dataclass(frozen=True)
class HistoryConfig:
    """Whole learning histories of a source: n_steps in each of n_tasks tasks, of which every k-th episode is kept.

    tasks_per_shard: acted in at once, and stored in one file. seed: of the tasks and of all that happens in them.
    """

    n_tasks: int = 2000
    n_steps: int = 2000
    keep_every: int = 1
    tasks_per_shard: int = 500
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("n_tasks", "n_steps", "keep_every", "tasks_per_shard"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}; allowed: a whole number of at least 1")

    @property
    def shards(self) -> tuple[int, ...]:
        """The number of tasks in each."""
        full, rest = divmod(self.n_tasks, self.tasks_per_shard)
        return (self.tasks_per_shard,) * full + ((rest,) if rest else ())

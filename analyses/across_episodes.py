"""Policies in rooms whose goal is not seen: do they get better from episode to episode, their weights untouched?

The source is tabular Q-learning; of its histories every k-th episode is kept, so that learning fits into a context.
Algorithm Distillation (arXiv 2210.14215) imitates its laws there, with a context of all episodes or of fewer; expert
distillation imitates what it does when it has learnt; the Decision Transformer (arXiv 2106.01345) imitates actions, is
told the return that is still to come in its episode, and asked for a high one: its context is as long as one episode,
and in a control as all of them; decision pretraining (arXiv 2306.14892) learns optimal actions on random walks. All act
for as many episodes in the published rooms, with goals that no training task had. Goals are what is held out, and they
are few: every interval is over goals (Student's), of means over the tasks of each.

A small room has few goals to train on, and a network might learn those by heart. So every training room numbers its
cells in an order of its own: the source cannot tell the difference, and a network can only find out in context where it
is and where the reward was. One more is distilled from rooms that all have the published numbering; as it turned out,
it does as well.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace

import pandas as pd
import torch
from jaxtyping import Float, Int
from scipy.stats import t as student
from torch import Tensor

from algorithms.acting import ActingLearner, interact
from algorithms.bandit import Random
from algorithms.control import QLearning
from algorithms.predictive_maps import GoalInference
from analyses.configs import AcrossEpisodes
from analyses.histories import episode_returns, learning_curve
from analyses.in_context_improvement import median_seed
from analyses.limits import at_least
from analyses.policy_subjects import PolicySubject, played, train_all, training_table
from analyses.tables import select, tidy
from models.artifacts import run_folder
from models.histories import Recorded, collect, every_kth_episode
from models.policy_config import HistoryConfig, PolicyConfig, PolicyTraining
from models.policy_sources import DecisionPretraining, PolicySource
from models.recorded_laws import RecordedLaws, with_laws
from tasks.decision import DecisionFamily, DecisionTasks, Renumbered, finite_horizon_values
from tasks.errors import ConfigError
from tasks.gridworlds import MOVES, GridFamily, moves
from tasks.interaction import Interaction

ANALYSIS = "across-episodes"
DISTILLED, ONE_MAP, EXPERT = "distilled", "one-map-distilled", "expert-distilled"
TRANSFORMER, TRANSFORMER_OF_ALL = "decision-transformer", "decision-transformer, all"
PRETRAINED = "decision-pretrained"
SOURCE = "q-learning"
HIGH = 0.9  # of the returns in the histories, the quantile that a return-conditioned policy is asked for
CONFIDENCE = 0.95
WALKS_AT_ONCE = 8  # batches of random walks that are drawn side by side


def family(config: AcrossEpisodes, split: str) -> GridFamily:
    """The published rooms, cells numbered row by row."""
    return GridFamily("dark-room", config.size, split, config.held_out, horizon=config.horizon)


def training_rooms(config: AcrossEpisodes) -> Renumbered:
    """Rooms with the goals for training, the cells of each numbered in an order of its own."""
    return Renumbered(family(config, "train"))


def source(config: AcrossEpisodes) -> QLearning:
    """Explores at random until a reward shows the goal, and has nearly learnt after `episodes` of those kept."""
    return QLearning(temperature=0.2, lapse=0.02, step_size=0.5, gamma=0.9)


def collected(config: AcrossEpisodes, rooms: DecisionFamily) -> RecordedLaws:
    """Histories in these rooms of which every k-th episode is kept, twice as many of those as a policy sees."""
    n_steps = 2 * config.keep_every * config.n_steps
    setting, learner = HistoryConfig(config.histories, n_steps), source(config)
    named = {**asdict(setting), "family": repr(rooms), "learner": repr(learner)}
    whole = collect(setting, rooms, learner, run_folder(config.out, "histories", named, [setting.seed]))
    kept = torch.arange(n_steps).view(-1, config.horizon)[:: config.keep_every].flatten()
    return with_laws(whole, learner, config.n_steps).at(kept, f"of every {config.keep_every}th episode")


def halves(lessons: RecordedLaws) -> tuple[RecordedLaws, RecordedLaws]:
    """The first half of the steps, in which the source learns, and the last, in which it has learnt."""
    first, last = torch.arange(lessons.histories.history.n_steps).chunk(2)
    which = lessons.histories.setting["steps"]
    return lessons.at(first, f"the first half {which}"), lessons.at(last, f"the last half {which}")


def architecture(config: AcrossEpisodes) -> PolicyConfig:
    """Of all policies but what differs. Raises ConfigError for widths that heads do not divide."""
    return PolicyConfig(
        n_observations=config.size**2,
        n_actions=len(MOVES),
        n_ctx=config.n_steps,
        d_model=config.d_model,
        n_layers=config.n_layers,
        n_heads=config.n_heads,
        d_mlp=2 * config.d_model,
        positions="rotary",
        tokens="transition",
    )


def subjects(config: AcrossEpisodes, lessons: RecordedLaws, one_map: RecordedLaws) -> dict[str, PolicySubject]:
    """All policies by name, all but one trained in `training_rooms`; every step of training decides as often, whatever
    the context."""
    learning, expert = halves(lessons)
    plain = architecture(config)
    asked = float(torch.quantile(episode_returns(lessons.histories.history, config.horizon).flatten(), HIGH))
    told = replace(plain, returns=True, return_scale=float(config.horizon), target_return=asked)
    training = PolicyTraining(steps=config.steps, learning_rate=config.learning_rate, snapshot_every=50)
    made: dict[str, PolicySubject] = {}

    def add(name: str, policy: PolicyConfig, taught: PolicySource) -> None:
        batch = config.batch_tasks * (config.n_steps // policy.n_ctx)
        objective = "return-conditioned" if policy.returns else "imitation"
        at_once = WALKS_AT_ONCE * batch if isinstance(taught, DecisionPretraining) else batch
        how = replace(training, objective=objective, batch_tasks=batch, tasks_at_once=at_once)
        made[name] = PolicySubject(name, policy, how, taught, config.seeds, config.out)

    add(DISTILLED, plain, learning)
    for episodes in config.context_episodes:
        n_ctx = config.context(episodes)
        add(f"{DISTILLED}, {episodes:g}", replace(plain, n_ctx=n_ctx), replace(learning, n_steps=n_ctx))
    add(ONE_MAP, plain, halves(one_map)[0])
    add(EXPERT, plain, expert)
    add(TRANSFORMER, replace(told, n_ctx=config.horizon), Recorded(learning.histories, 2 * config.horizon))
    add(TRANSFORMER_OF_ALL, told, Recorded(learning.histories, config.n_steps))
    add(PRETRAINED, plain, DecisionPretraining(training_rooms(config), config.n_steps, Random()))
    return made


def run(config: AcrossEpisodes) -> dict[str, pd.DataFrame]:
    """Tables returns (by episode), improvement (first, last and their difference, by length of the context),
    histories (of the source in training rooms) and training.

    Raises ConfigError for settings without an answer, before anything is collected.
    """
    at_least("episodes", config.episodes, 2, "as the first is compared with the last")
    for episodes in config.context_episodes:
        if not (0 < episodes < config.episodes and 1 <= config.context(episodes) < config.n_steps):
            raise ConfigError(f"context_episodes has {episodes:g}; allowed: less than all {config.episodes}, >= 1 step")
    rooms = family(config, "test")
    goals = rooms.goals([0], "test", 0, config.test_tasks)[0, :, 0]
    if len(goals.unique()) < 2:
        raise ConfigError(
            f"test_tasks is {config.test_tasks}, of {len(rooms.choices)} held-out goals; allowed: at least 2 of each, "
            "as intervals are over goals (a larger size or held_out has more)"
        )
    architecture(config)  # which raises before histories are collected, not after
    lessons = collected(config, training_rooms(config))
    trained = subjects(config, lessons, collected(config, family(config, "train")))
    train_all(trained.values())
    tasks = rooms.draw([0], "test", 0, config.test_tasks)
    got = {name: (episode_returns(h, config.horizon), [0]) for name, h in baselines(config, tasks).items()}
    got["optimal"] = best_returns(tasks, config.horizon)[..., None].expand(-1, -1, config.episodes), [0]
    for name, subject in trained.items():
        policy, seeds = subject.trained()
        got[name] = episode_returns(played(policy, tasks, config.n_steps, seeds), config.horizon), seeds
    contexts = {name: subject.config.n_ctx / config.horizon for name, subject in trained.items()}
    tables = {
        "returns": pd.concat([curve(name, x, goals, seeds) for name, (x, seeds) in got.items()], ignore_index=True),
        "improvement": pd.concat(
            [improvement(name, x, goals, seeds, contexts.get(name)) for name, (x, seeds) in got.items()],
            ignore_index=True,
        ),
        "histories": learning_curve(lessons.histories.history, config.horizon).assign(subject=SOURCE),
        "training": training_table(trained),
    }
    return {name: table.assign(analysis=ANALYSIS) for name, table in tables.items()}


def baselines(config: AcrossEpisodes, tasks: DecisionTasks) -> dict[str, Interaction]:
    """How learners act there: at random, the source as it learns, and as it is kept; and who knows the moves and seeks
    the nearest cell that may be the goal."""
    seeker = GoalInference(moves(config.size), temperature=1e-4, lapse=0.0, gamma=0.5)
    whole = _interact(source(config), tasks, config.keep_every * config.n_steps)
    return {
        "random": played(Random(), tasks, config.n_steps, [0]),
        SOURCE: whole.each(lambda x: x[..., : config.n_steps]),
        f"{SOURCE}, subsampled": every_kth_episode(whole, config.keep_every),
        "goal-inference": played(seeker, tasks, config.n_steps, [0]),
    }


def _interact(learner: ActingLearner, tasks: DecisionTasks, n_steps: int) -> Interaction:
    with torch.no_grad():
        return interact(learner, tasks, n_steps, purpose="test/act")


def best_returns(tasks: DecisionTasks, horizon: int) -> Float[Tensor, "seeds tasks"]:
    """What an episode brings to whoever knows the goal."""
    return (tasks.start * finite_horizon_values(tasks, horizon).amax(-1)).sum(-1)


def by_goal(x: Float[Tensor, "*batch tasks"], goals: Int[Tensor, " tasks"]) -> Float[Tensor, "*batch goals"]:
    """The mean over the tasks of every goal."""
    each = (goals.unique()[:, None] == goals).to(x)
    return x @ (each / each.sum(-1, keepdim=True)).mT


def interval(x: Float[Tensor, "*batch goals"]) -> tuple[Tensor, Tensor, Tensor]:
    """The mean over goals and the ends of its Student interval; no ends with a single goal."""
    n = x.shape[-1]
    half = student.ppf(0.5 + CONFIDENCE / 2, max(n - 1, 1)) * x.std(-1, correction=min(n - 1, 1)) / n**0.5
    half = half if n > 1 else torch.full_like(half, torch.nan)
    return x.mean(-1), x.mean(-1) - half, x.mean(-1) + half


def curve(
    name: str, returns: Float[Tensor, "seeds tasks episodes"], goals: Int[Tensor, " tasks"], seeds: list[int]
) -> pd.DataFrame:
    """The return of every episode, the mean over goals with its interval."""
    mean, low, high = interval(by_goal(returns.mT, goals))
    axes = {"seed": seeds, "episode": range(1, returns.shape[-1] + 1)}
    return tidy(mean, axes, low=low, high=high, subject=name, metric="return")


def improvement(
    name: str,
    returns: Float[Tensor, "seeds tasks episodes"],
    goals: Int[Tensor, " tasks"],
    seeds: list[int],
    context: float | None,
) -> pd.DataFrame:
    """first: the return of the first episode; last: of the last quarter of them; improvement: last - first, by goal.

    The index column `context` is the policy's, in episodes.
    """
    first, last = returns[..., 0], returns[..., -max(1, returns.shape[-1] // 4) :].mean(-1)
    tables = []
    for metric, x in (("first", first), ("last", last), ("improvement", last - first)):
        mean, low, high = interval(by_goal(x, goals))
        tables.append(tidy(mean, {"seed": seeds}, low=low, high=high, subject=name, metric=metric))
    return pd.concat(tables, ignore_index=True).assign(context=pd.array([context], dtype="Float64")[0])


def summarise(tables: Mapping[str, pd.DataFrame]) -> str:
    """First and last returns and what came in between, of the median seed, and how many seeds improved."""
    lines = ["return on new goals: first episode, last quarter, improvement (median seed, 95 % over goals), seeds"]
    rows = tables["improvement"]
    for name in rows["subject"].unique():
        own = select(rows, subject=name)
        gains = select(own, metric="improvement")
        gain, better = median_seed(gains), (gains["low"] > 0).sum()
        first, last = (select(own, metric=metric, seed=gain["seed"])["value"].item() for metric in ("first", "last"))
        found = f"{gain['value']:+5.1f} [{gain['low']:+.1f}, {gain['high']:+.1f}]"
        lines.append(f"  {name:25}{first:5.1f}{last:6.1f}   {found}   {better} of {len(gains)} improve")
    return "\n".join(lines)

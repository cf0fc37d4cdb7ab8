"""What learning histories hold: how outcomes rise, which tasks are learnt when, and where the source is.

Where all episodes have one length, time goes by episodes and the outcome of each is its return; elsewhere time goes by
steps, and the outcome of each is its reward.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor

from analyses.tables import tidy
from tasks.bandits import best_arms
from tasks.decision import DecisionTasks, optimal_values
from tasks.interaction import Interaction

TENTHS = 10
QUANTILES = (0.1, 0.5, 0.9)
CURVE_TIMES = 50  # at most, of episodes; of more, outcomes are means over as many blocks
SHOWN_TASKS, SHOWN_TIMES = 200, 100  # of the raster
FEWEST_STEPS = 5  # of which a reward per step is the mean there
GAMMA = 0.9  # of what states are worth


def tabulated(
    history: Interaction, tasks: Iterable[DecisionTasks], *, size: int | None = None
) -> dict[str, pd.DataFrame]:
    """Tables curve (outcomes over time, beside who acts at random and who knows the task), tasks (first, last, when a
    reward came first), raster (some tasks, sorted by when they are learnt) and, unless there is but one state, visits.

    history: (1, tasks), of the tasks that are given part by part. size: of a room, whose cells are then told apart.
    """
    parts = list(tasks)
    horizon, sparse, bandit = parts[0].horizon, parts[0].reward_law == "exact", parts[0].n_states == 1
    tables = {
        "curve": pd.concat([learning_curve(history, horizon), *_beside(history, parts)], ignore_index=True),
        "tasks": by_task(history, horizon, sparse=sparse),
        "raster": raster(history, horizon, sparse=sparse),
    }
    if sparse:
        tables["curve"] = pd.concat([tables["curve"], found_curve(history, horizon)], ignore_index=True)
    if size is not None:
        tables["visits"] = room_visits(history, size)
    elif not bandit:
        tables["visits"] = visits(history.next_observation[0], torch.cat([ranks(part)[0] for part in parts]))
    return tables


def episode_returns(history: Interaction, horizon: int) -> Float[Tensor, "*batch episodes"]:
    """The sum of the rewards of every whole episode; all have `horizon` steps."""
    whole = history.n_steps // horizon * horizon
    return history.reward[..., :whole].unflatten(-1, (-1, horizon)).sum(-1)


def outcomes(history: Interaction, horizon: int | None) -> Float[Tensor, "*batch times"]:
    """Returns of episodes of `horizon` steps; rewards of steps where it is None."""
    return history.reward if horizon is None else episode_returns(history, horizon)


def in_blocks(x: Float[Tensor, "*batch times"], n: int) -> Float[Tensor, "*batch blocks"]:
    """The mean of each of n successive parts, as equal as can be; of each entry where there are no more."""
    return torch.stack([part.mean(-1) for part in x.tensor_split(min(n, x.shape[-1]), -1)], -1)


def block_ends(length: int, n: int) -> list[int]:
    """The number, from 1, of the last entry in each block."""
    return [int(part[-1]) for part in torch.arange(1, length + 1).tensor_split(min(n, length))]


def learning_curve(history: Interaction, horizon: int | None) -> pd.DataFrame:
    """The mean over tasks, its ends the 10 and 90 % quantiles, and the median: of the return of every episode or block
    of episodes (column `episode`, the last of a block), or of the mean reward in every tenth of the steps (`step`)."""
    x, axes, metric = _over_time(outcomes(history, horizon)[0], horizon)
    low, median, high = np.quantile(x.numpy(), QUANTILES, axis=0)
    mean = tidy(x.mean(0), axes, low=low, high=high, metric=metric)
    return pd.concat([mean, tidy(median, axes, metric="median")], ignore_index=True)


def found_curve(history: Interaction, horizon: int | None) -> pd.DataFrame:
    """Shares of tasks: `solved`, rewarded in that episode (the mean over a block) or in that tenth, and `found`,
    rewarded by the end of an episode or tenth for the first time or again."""
    x = outcomes(history, horizon)[0]
    solved, axes, _ = _over_time((x > 0).double(), horizon)
    if horizon is None:
        solved, ends = (solved > 0).double(), axes["step"]
    else:
        ends = list(range(1, x.shape[-1] + 1))
    found = (first_positive(x)[:, None] <= torch.tensor(ends)).double()
    (name,) = axes
    tables = [tidy(solved.mean(0), axes, metric="solved"), tidy(found.mean(0), {name: ends}, metric="found")]
    return pd.concat(tables, ignore_index=True)


def first_positive(x: Float[Tensor, "*batch times"]) -> Float[Tensor, "*batch"]:
    """The number, from 1, of the first entry above zero; NaN where there is none."""
    positive = x > 0
    return torch.where(positive.any(-1), positive.int().argmax(-1).double() + 1, torch.nan)


def by_task(history: Interaction, horizon: int | None, *, sparse: bool) -> pd.DataFrame:
    """Per task: `first` and `last`, the mean outcome in these tenths of the history, `improvement`, last - first, and
    for sparse rewards `found`, the number of the first episode or step with one, empty where none came."""
    x = outcomes(history, horizon)[0].double()
    tenth = max(1, x.shape[-1] // TENTHS)
    first, last = x[:, :tenth].mean(-1), x[:, -tenth:].mean(-1)
    columns = {"first": first, "last": last, "improvement": last - first}
    columns |= {"found": first_positive(x)} if sparse else {}
    return pd.concat([tidy(v, {"task": range(len(x))}, metric=name) for name, v in columns.items()], ignore_index=True)


def raster(history: Interaction, horizon: int | None, *, sparse: bool) -> pd.DataFrame:
    """Mean outcomes of at most SHOWN_TASKS tasks in at most SHOWN_TIMES blocks of episodes, or of FEWEST_STEPS or more.

    Rows come by the first reward where rewards are sparse, otherwise, and between equals, by the mean outcome.
    """
    x = outcomes(history, horizon)[0, :SHOWN_TASKS].double()
    found = first_positive(x).nan_to_num(nan=torch.inf) if sparse else torch.zeros(len(x))
    order = np.lexsort((-x.mean(-1).numpy(), found.numpy()))
    name, metric = _names(horizon)
    n = SHOWN_TIMES if horizon is not None else min(SHOWN_TIMES, -(-x.shape[-1] // FEWEST_STEPS))
    axes = {"task": order.tolist(), name: block_ends(x.shape[-1], n)}
    return tidy(in_blocks(x, n)[torch.from_numpy(order)], axes, metric=metric)


def visits(reached: Int[Tensor, "tasks steps"], number: Int[Tensor, "tasks states"]) -> pd.DataFrame:
    """The share of steps by which the source comes to the state with each number (column `place`, from 1): metrics
    first and last, of these tenths of the history."""
    places = number.gather(-1, reached.long())
    shares = [_share(part, number.shape[-1]) for part in _ends(places)]
    return tidy(torch.stack(shares), {"metric": ["first", "last"], "place": range(1, number.shape[-1] + 1)})


def room_visits(history: Interaction, size: int) -> pd.DataFrame:
    """Shares of steps by cell (columns `row` and `column`) in the first and last tenth: target "all" tasks, and the
    "median" one by its first reward, of which a third metric, rewards, is where these came."""
    cell, reached = (getattr(history, name)[0].long() for name in ("observation", "next_observation"))
    found = first_positive(history.reward[0])
    order = found.argsort()  # never found: last
    median = int(order[(int((~found.isnan()).sum()) - 1) // 2]) if bool((~found.isnan()).any()) else 0
    rewarded = reached[median][history.reward[0, median] > 0]
    axes = {"row": range(size), "column": range(size)}
    maps = [
        ("all", "first", _ends(cell)[0]),
        ("all", "last", _ends(cell)[1]),
        ("median", "first", _ends(cell[median])[0]),
        ("median", "last", _ends(cell[median])[1]),
        ("median", "rewards", rewarded),
    ]
    tables = [
        tidy(_share(seen, size**2).view(size, size), axes, metric=metric, target=target)
        for target, metric, seen in maps
    ]
    return pd.concat(tables, ignore_index=True)


def ranks(tasks: DecisionTasks) -> Int[Tensor, "*batch states"]:
    """By what a state is worth to whoever acts best there, 0 for most; where episodes end, last."""
    worth = optimal_values(tasks, GAMMA).amax(-1).masked_fill(tasks.terminal, -torch.inf)
    return worth.argsort(stable=True, dim=-1, descending=True).argsort(-1)


def expected_outcome(tasks: DecisionTasks, n_steps: int, choose: Callable[[Tensor], Tensor]) -> Float[Tensor, "*batch"]:
    """E of an episode's return, or of the mean of n_steps rewards where episodes have no one length.

    choose: the value of a state from those of its actions [..., actions], the largest or the mean.
    """
    steps = 1 if tasks.n_states == 1 else tasks.horizon or n_steps
    going_on = without_ends(tasks)
    rewards, values = tasks.mean_rewards, torch.zeros_like(tasks.start)
    for _ in range(steps):
        values = choose(rewards + going_on.expected(values))
    total = (tasks.start * values).sum(-1)
    return total / steps if tasks.horizon is None else total


def without_ends(tasks: DecisionTasks) -> DecisionTasks:
    """The same problems, where instead of ending an episode a move leads to the likeliest first state of the next."""
    first = tasks.start.argmax(-1)[..., None, None, None].expand(tasks.successors.shape)
    ended = tasks.terminal.gather(-1, tasks.successors.flatten(-3)).view(tasks.successors.shape)
    return replace(
        tasks, successors=torch.where(ended, first, tasks.successors), terminal=torch.zeros_like(tasks.terminal)
    )


def _beside(history: Interaction, parts: list[DecisionTasks]) -> list[pd.DataFrame]:
    """What acting at random and knowing the task bring, and how often the source of a bandit pulls its best arm."""
    ways: dict[str, Callable[[Tensor], Tensor]] = {"random": lambda q: q.mean(-1), "optimal": lambda q: q.amax(-1)}
    each = [torch.cat([expected_outcome(part, history.n_steps, way)[0] for part in parts]) for way in ways.values()]
    tables = [tidy(torch.stack(each).double().mean(-1), {"metric": list(ways)})]
    if parts[0].n_states == 1:
        best = torch.cat([best_arms(part)[0] for part in parts])
        share, axes, _ = _over_time((history.action[0] == best[:, None]).double(), None)
        tables.append(tidy(share.mean(0), axes, metric="best arm"))
    return tables


def _over_time(
    x: Float[Tensor, "tasks times"], horizon: int | None
) -> tuple[Float[Tensor, "tasks blocks"], dict[str, list[int]], str]:
    """By blocks of episodes, or in tenths of the steps; the axis of time, and the name of the outcome."""
    name, metric = _names(horizon)
    n = CURVE_TIMES if horizon is not None else TENTHS
    return in_blocks(x, n).double(), {name: block_ends(x.shape[-1], n)}, metric


def _names(horizon: int | None) -> tuple[str, str]:
    return ("step", "reward") if horizon is None else ("episode", "return")


def _ends(x: Int[Tensor, "*batch steps"]) -> tuple[Tensor, Tensor]:
    """The first tenth of the steps and the last."""
    tenth = max(1, x.shape[-1] // TENTHS)
    return x[..., :tenth], x[..., -tenth:]


def _share(number: Int[Tensor, "*any"], n: int) -> Float[Tensor, " n"]:
    """How often each of n numbers comes, of all."""
    return torch.bincount(number.flatten(), minlength=n).double() / max(1, number.numel())

"""How fast are roll-outs? Environment steps per second of CPU time, tasks side by side against Gymnasium one by one.

    python benchmarks/rollouts.py [--tasks 2048] [--copies 64] [--policy-tasks 256] [--seconds 5] [--json]

Uniformly random actions, the same family of tasks on all sides, one thread each, in one run: all tasks as tensors
(randomness drawn and the history recorded), Gymnasium's SyncVectorEnv over our registered environments, and a plain
Python loop over one of them without wrappers (nothing recorded). Then a policy that acts: with its keys and values kept
against reading its whole history anew at every step, on the same draws.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable

import gymnasium
import numpy as np
import torch
from gymnasium.vector import SyncVectorEnv
from torch import Tensor

from models.networks import initial_weights
from models.policy import PolicyTransformer
from models.policy_actor import act
from models.policy_config import PolicyConfig
from tasks.bandits import BanditFamily
from tasks.environments import FAMILIES, TabularEnv
from tasks.interaction import Interaction, Step
from tasks.rollout import random_walk, roll_out

STEPS = 100
ENVIRONMENTS = ("BernoulliBandit", "Ring", "DarkRoom", "KeyToDoor")


def rate(call: Callable[[], int], seconds: float) -> float:
    """Steps per second of a call that returns how many it took; the first one warms up."""
    call()
    steps, started = 0, time.process_time()
    while time.process_time() - started < seconds:
        steps += call()
    return steps / (time.process_time() - started)


def batched(name: str, n_tasks: int, seconds: float) -> float:
    tasks = FAMILIES[name]().draw([0], "benchmark", 0, n_tasks)

    def walk() -> int:
        random_walk(tasks, STEPS, purpose="benchmark")
        return STEPS * n_tasks

    return rate(walk, seconds)


def vectorised(name: str, copies: int, seconds: float) -> float:
    """SyncVectorEnv, which starts ended episodes again by itself."""

    def make(task: int) -> Callable[[], gymnasium.Env]:
        return lambda: gymnasium.make(f"learnscope/{name}-v0", task=task)

    envs = SyncVectorEnv([make(task) for task in range(copies)])
    envs.reset(seed=0)
    n_actions, random = FAMILIES[name]().draw([0], "benchmark", 0, 1).n_actions, np.random.default_rng(0)

    def walk() -> int:
        for actions in random.integers(n_actions, size=(STEPS, copies)):
            envs.step(actions)
        return STEPS * copies

    return rate(walk, seconds)


def one_by_one(name: str, seconds: float) -> float:
    env = gymnasium.make(f"learnscope/{name}-v0").unwrapped
    assert isinstance(env, TabularEnv)
    env.reset(seed=0)
    n_actions, random = FAMILIES[name]().draw([0], "benchmark", 0, 1).n_actions, np.random.default_rng(0)

    def walk() -> int:
        for action in random.integers(n_actions, size=STEPS).tolist():
            _, _, terminated, truncated, _ = env.step(action)
            if terminated or truncated:
                env.reset()
        return STEPS

    return rate(walk, seconds)


def reading_anew(policy: PolicyTransformer, history: Interaction) -> Interaction:
    """The roll-out of `act` by a policy that keeps nothing but the steps, on tasks and draws that gave `history`."""
    past: list[Step] = []

    def law(seen: Tensor) -> Tensor:
        now = Step(
            seen, torch.zeros_like(seen), torch.zeros(seen.shape), seen, torch.zeros_like(seen, dtype=torch.bool)
        )
        parts = {name: torch.stack([vars(step)[name] for step in (*past, now)], -1) for name in vars(now)}
        so_far = Interaction(**parts, n_observations=history.n_observations, n_actions=history.n_actions)
        return policy.laws(so_far)[..., -1, :]

    tasks = BanditFamily().draw([0], "benchmark", 0, history.batch[1])
    return roll_out(tasks, law, history.n_steps, purpose="benchmark", hear=past.append)


def acting(n_tasks: int) -> dict[str, float]:
    """Steps of one policy per second, d 32 and 2 layers, each way; the best of three."""
    config = PolicyConfig(n_observations=1, n_actions=5, n_ctx=STEPS)
    policy = PolicyTransformer(config, initial_weights(config, [0]))
    tasks = BanditFamily().draw([0], "benchmark", 0, n_tasks)
    history = act(policy, tasks, STEPS, purpose="benchmark")
    same = float((reading_anew(policy, history).action == history.action).float().mean())
    kept = shortest(lambda: act(policy, tasks, STEPS, purpose="benchmark"))
    anew = shortest(lambda: reading_anew(policy, history))
    return {
        "policy_steps_per_second_cached": STEPS * n_tasks / kept,
        "policy_steps_per_second_anew": STEPS * n_tasks / anew,
        "ratio_cached_to_anew": anew / kept,
        "share_of_equal_actions": same,
    }


def shortest(call: Callable[[], object]) -> float:
    times = []
    for _ in range(3):
        started = time.process_time()
        call()
        times.append(time.process_time() - started)
    return min(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, default=2048, help="tasks side by side")
    parser.add_argument("--copies", type=int, default=64, help="environments of Gymnasium's vector")
    parser.add_argument("--policy-tasks", type=int, default=256, help="tasks that the policy acts in")
    parser.add_argument("--seconds", type=float, default=5.0, help="how long to run each side")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    args = parser.parse_args()
    torch.set_num_threads(1)
    report: dict[str, float] = {}
    for name in ENVIRONMENTS:
        ours = batched(name, args.tasks, args.seconds)
        vector, single = vectorised(name, args.copies, args.seconds), one_by_one(name, args.seconds)
        report |= {
            f"{name}_batched_steps_per_second": ours,
            f"{name}_vector_env_steps_per_second": vector,
            f"{name}_python_loop_steps_per_second": single,
            f"{name}_ratio_to_vector_env": ours / vector,
            f"{name}_ratio_to_python_loop": ours / single,
        }
    with torch.no_grad():
        report |= acting(args.policy_tasks)
    if args.json:
        print(json.dumps(report))
    else:
        for name, number in report.items():
            print(f"{name.replace('_', ' '):>48}  {number:.4g}")


if __name__ == "__main__":
    main()

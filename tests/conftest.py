"""What several test files need: failing commands, evaluation prompts in float64, and random networks."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from learnscope import main

if TYPE_CHECKING:
    from models.config import LinearTransformerConfig
    from models.linear import LinearTransformer
    from tasks.layout import Prompt

# Analyses train in this process: each further one would load torch for some seconds. Tests of processes ask for them.
os.environ.setdefault("LOKY_MAX_CPU_COUNT", "1")
# Tensors here are so small that threads would only wait for one another. Torch reads this when the first test file
# loads it: the process that hands tests out to workers reads no test file, and is not to wait for torch.
os.environ["OMP_NUM_THREADS"] = "1"


@pytest.fixture
def failure(capsys: pytest.CaptureFixture[str]) -> Callable[[list[str]], str]:
    """Runs a command that must fail: exit status 2, nothing on standard output, and the one line that it returns."""

    def run(arguments: list[str]) -> str:
        assert main(arguments) == 2
        captured = capsys.readouterr()
        assert captured.out == ""
        assert captured.err.startswith("learnscope: ")
        assert captured.err.count("\n") == 1
        return captured.err

    return run


@pytest.fixture
def make_prompt() -> Callable[..., Prompt]:
    import torch

    from tasks.layout import transition_layout
    from tasks.markov_reward import TaskFamily, evaluation_prompt
    from tasks.streams import uniforms

    def make(
        *, seeds: int = 1, tasks: int = 3, n: int = 12, d: int = 3, gamma: float = 0.9, memory: bool = False
    ) -> Prompt:
        """A float64 prompt [seeds, tasks] on Boyan chains; with memory the next features are not discounted."""
        process = TaskFamily(n_states=6, d_features=d, gamma=gamma).sample(range(seeds), "test", 0, tasks)
        layout = transition_layout(d, discount=1.0 if memory else gamma, memory=memory)
        draws = uniforms(range(seeds), "test/rollout", 0, tasks, n + 1)
        return evaluation_prompt(process, draws, layout).to(torch.float64)

    return make


@pytest.fixture
def make_network() -> Callable[..., LinearTransformer]:
    from models.linear import LinearTransformer
    from tasks.streams import normals

    def make(config: LinearTransformerConfig, *, seeds: int = 2, scale: float = 0.3) -> LinearTransformer:
        """A float64 network whose weights are independent draws from N(0, scale²)."""
        shape = (2, config.n_weight_layers, len(config.masks), config.width, config.width)
        P, Q = (scale * normals(range(seeds), "test/weights", 0, *shape).double()).unbind(1)
        return LinearTransformer(config, P.clone(), Q.clone())

    return make

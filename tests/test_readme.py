"""The README's Python runs as printed there and says what it says."""

import re
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import torch

from models import constructions
from models.hooked import HookedRootModule, HookPoint
from probes.behaviour import compare
from tasks.layout import transition_layout
from tasks.markov_reward import TaskFamily, evaluation_prompt
from tasks.streams import uniforms

BLOCKS = re.findall(r"```python\n(.*?)```", (Path(__file__).parents[1] / "README.md").read_text(), re.DOTALL)


def test_the_construction_is_identified_as_the_readme_says() -> None:
    printed = StringIO()
    with redirect_stdout(printed):
        exec(BLOCKS[0], {})
    assert "tensor([[0.7000]]" in printed.getvalue()
    assert "Answer: identified: td0" in printed.getvalue()


def test_frozen_lakes_are_learnt_as_the_readme_says() -> None:
    with redirect_stdout(StringIO()):
        exec(BLOCKS[2], namespace := {})
    goals = namespace["history"].reward.unflatten(-1, (4, 500)).sum(-1)[0]
    assert (goals[:, -1] > 60).sum() >= 4
    assert goals[:, 0].max() < 30


class Doubler(HookedRootModule):
    """A module of somebody else: tokens [batch, pos, width] in, residuals of the same shape out."""

    def __init__(self) -> None:
        super().__init__()
        self.hook_out = HookPoint()
        self.setup()

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.hook_out(torch.cat([tokens[..., :-1], -2 * tokens[..., :1]], -1))


def test_the_adapter_makes_any_hooked_module_a_subject() -> None:
    namespace: dict = {}
    exec(BLOCKS[1], namespace)
    process = TaskFamily().sample([0], "test", 0, 3)
    draws = uniforms([0], "test/rollout", 0, 3, 11)
    prompt = evaluation_prompt(process, draws, transition_layout(4, discount=0.9)).to(torch.float64)
    subject = namespace["Adapter"](Doubler())
    torch.testing.assert_close(subject.predict(prompt)[..., 0], 2 * prompt.query_tokens[..., 0])
    rival = constructions.myopic(torch.eye(4, dtype=torch.float64)[None, None], n_layers=1)
    assert compare(subject, {"myopic": rival}, prompt).disagreement["myopic"].shape == (1, 3)

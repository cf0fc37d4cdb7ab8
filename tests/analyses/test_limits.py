"""Settings with which nothing can be asked end in one line, before anything is trained."""

from collections.abc import Callable
from pathlib import Path

import pytest

from analyses.limits import at_least, once_each
from tasks.errors import ConfigError

Failure = Callable[[list[str]], str]


def test_limits_name_the_nearest_valid_choice() -> None:
    at_least("n_steps", 5, 5, "as that many are needed")
    with pytest.raises(ConfigError, match="n_steps is 4; allowed: at least 5, as that many are needed"):
        at_least("n_steps", 4, 5, "as that many are needed")
    once_each("rivals", ("td0", "lstd"), ("lstd", "td0", "myopic"))
    with pytest.raises(ConfigError, match="did you mean 'lstd'"):
        once_each("rivals", ("td0", "lsdt"), ("lstd", "td0"))
    with pytest.raises(ConfigError, match="rivals is td0, lstd, td0; allowed: each once, not td0 again"):
        once_each("rivals", ("td0", "lstd", "td0"), ("lstd", "td0"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("behavioural-battery --n-steps 5", "--n-steps is 5; allowed: at least 13, as the shortest test has 12 steps"),
        ("behavioural-battery --n-arms 2", "--n-arms is 2; allowed: at least 3, as some tests are of three arms"),
        ("behavioural-battery --n-arms 1", "--n-arms is 1; allowed: at least 3"),
        ("behavioural-battery --pulls 9", "--n-steps is 20; allowed: at least 46"),
        ("behavioural-battery --d-model 7", "--d-model is 7 and n_heads 2; allowed"),
        ("control-battery --n-steps 5", "--n-steps is 5; allowed: at least 8, as the shortest test has 7 steps"),
        ("control-battery --n-states 6", "--n-states is 6; allowed: at least 7"),
        ("policy-probes --test-tasks 5", "--test-tasks is 5; allowed: at least 36, as 35 numbers"),
        ("policy-probes --test-tasks 5 --no-bandits", "--test-tasks is 5; allowed: at least 24, as 22"),
        ("policy-probes --n-steps 4", "--n-steps is 4; allowed: at least 5, as walks must come round 5 states"),
        ("policy-probes --n-states 3 --n-steps 3 --test-tasks 36", "a planner chooses otherwise"),
        ("policy-probes --n-states 2", "2 states and 2 actions; allowed: at least 3 and 2"),
        ("in-context-improvement --test-tasks 1", "--test-tasks is 1; allowed: at least 2, as intervals are over"),
        ("in-context-improvement --n-steps 1", "--n-steps is 1; allowed: at least 2"),
        ("in-context-improvement --n-arms 1", "--n-arms is 1; allowed: at least 2"),
        ("pretraining-diversity --test-tasks 1", "--test-tasks is 1; allowed: at least 2"),
        ("value-vs-policy --context-length 1", "--context-length is 1; allowed: at least 2"),
        ("value-vs-policy --test-tasks 5", "--test-tasks is 5; allowed: at least 6, as the exact interval of a median"),
        ("value-vs-policy --objectives q-sarsa q-sarsa", "--objectives is q-sarsa, q-sarsa; allowed: each once"),
        ("algorithm-zoo --sources gitins", "--sources is 'gitins'; did you mean 'gittins'?"),
        ("algorithm-zoo --rivals gittins", "--rivals is 'gittins' alone; allowed: at least 2"),
        ("algorithm-zoo --rivals gittins goal-inference", "--rivals is 'goal-inference'; "),
        ("algorithm-zoo --contexts 1", "--contexts is 1; allowed: at least 2"),
        ("algorithm-zoo --n-steps 1", "--n-steps is 1; allowed: at least 2"),
        ("across-episodes --episodes 1 --context-episodes 0.5", "--episodes is 1; allowed: at least 2"),
        ("across-episodes --context-episodes nan", "context_episodes has nan; allowed: less than all 4"),
        ("across-episodes --context-episodes inf", "context_episodes has inf; allowed: less than all 4"),
        ("across-episodes --test-tasks 1", "--test-tasks is 1, of 3 held-out goals; allowed: at least 2 of each"),
        ("across-episodes --held-out 0", "--held-out is 0.0 of 9 goals: both parts need at least one"),
        ("across-episodes --d-model 15", "--d-model is 15 and n_heads 2; allowed"),
    ],
)
def test_what_cannot_be_asked_is_said_before_anything_is_trained(
    failure: Failure, tmp_path: Path, arguments: str, message: str
) -> None:
    name, *settings = arguments.split()
    assert message in failure(["run", name, "--preset", "smoke", "--out", str(tmp_path), *settings])
    assert not list(tmp_path.iterdir())

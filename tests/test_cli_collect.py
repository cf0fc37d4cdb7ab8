"""`learnscope collect` in-process: the folder and the picture, going on where it stopped, and one line per mistake."""

from collections.abc import Callable
from pathlib import Path
from typing import get_args

import pytest

import models.histories
from algorithms.acting import interact
from algorithms.acting_bank import BANDIT, CONTROL
from analyses.history_configs import COLLECTIONS, BanditLearner, ControlLearner
from learnscope import main
from models.histories import Histories

Failure = Callable[[list[str]], str]
TINY = ["collect", "dark-room", "--size", "3", "--horizon", "4", "--n-tasks", "3", "--n-steps", "24"]


def test_all_learners_are_offered() -> None:
    assert get_args(BanditLearner) == tuple(BANDIT)
    assert get_args(ControlLearner) == tuple(CONTROL)


def test_help_names_every_task(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["collect", "--help"]) == 0
    text = capsys.readouterr().out
    assert all(task in text for task in COLLECTIONS)
    with pytest.raises(SystemExit) as end:
        main(["collect", "key-to-door", "--help"])
    assert not end.value.code
    assert "--keep-every" in capsys.readouterr().out


def test_a_killed_collection_goes_on_and_is_drawn(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, failure: Failure, tmp_path: Path
) -> None:
    out = tmp_path / "histories" / "dark-room-q-learning"
    command = [*TINY, "--keep-every", "2", "--tasks-per-shard", "2", "--out", str(tmp_path)]
    made: list[int] = []

    def once(*arguments, **options):
        if made:
            raise KeyboardInterrupt
        made.append(options["index"])
        return interact(*arguments, **options)

    monkeypatch.setattr(models.histories, "interact", once)
    assert main(command) == 130
    assert "the same command resumes" in capsys.readouterr().err
    monkeypatch.setattr(models.histories, "interact", lambda *a, **o: (made.append(o["index"]), interact(*a, **o))[1])
    assert main(command) == 0
    said = capsys.readouterr().out
    assert made == [0, 1]
    picture = out / "figures" / "histories.png"
    assert "q-learning in dark-room: 3 histories of 3 episodes" in said
    assert said.splitlines()[-1] == f"figure     {picture}"
    before = picture.read_bytes()
    assert main(command) == 0
    assert capsys.readouterr().out == said
    assert (made, picture.read_bytes()) == ([0, 1], before)
    assert Histories.read(out).history.n_steps == 12
    assert "holds other histories: n_tasks is 3 there, 4 here." in failure([*command, "--n-tasks", "4"])
    assert "holds other histories: learner is QLearning(" in failure([*command, "--constants", "step_size", "0.5"])


def test_bandits_are_collected(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    out = ["--out", str(tmp_path)]
    assert main(["collect", "bernoulli-bandit", "--learner", "gittins", "--n-tasks", "4", "--n-steps", "20", *out]) == 0
    assert "pulls of the best arm" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "collect needs a task first"),
        (["dark-rom"], "did you mean 'dark-room'?"),
        (["ring", "--learner", "q-lerning"], "did you mean 'q-learning'?"),
        (["ring", "--learner", "ucb1"], "--learner is 'ucb1'; "),
        (["ring", "--size", "3"], "learnscope collect ring has no option --size"),
        (["ring", "--n-tasks", "0"], "--n-tasks is 0; it must be at least 1"),
        (["ring", "--seed", "-1"], "--seed is -1; it must be at least 0"),
        (["ring", "--keep-every", "2"], "--keep-every is 2; allowed: 1, nothing ends an episode of ring"),
        (["ring", "--constants", "stepsize", "1"], "did you mean 'step_size'?"),
        (["ring", "--constants", "step_size", "2"], "the constant step_size is 2; allowed: 0 to 1"),
        (["dark-room", "--n-steps", "10"], "--n-steps is 10; allowed: at least 20"),
        (["dark-room", "--held-out", "1"], "--held-out is 1.0"),
        (["bernoulli-bandit", "--learner", "bayes-optimal"], "the best policy is computed for 2 arms"),
    ],
)
def test_mistakes_get_one_line_and_leave_nothing(
    failure: Failure, tmp_path: Path, arguments: list[str], message: str
) -> None:
    out = ["--out", str(tmp_path / "out")] if arguments else []
    assert message in failure(["collect", *arguments, *out])
    assert not (tmp_path / "out").exists()


def test_folders_of_others_are_left_alone(failure: Failure, tmp_path: Path) -> None:
    folder = tmp_path / "histories" / "dark-room-q-learning"
    (folder / "notes").mkdir(parents=True)
    assert "holds other files; histories need a folder of their own" in failure([*TINY, "--out", str(tmp_path)])
    (folder / "config.json").write_text('{"model": "policy-transformer"}')
    assert "holds something other than histories" in failure([*TINY, "--out", str(tmp_path)])
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "notes"]

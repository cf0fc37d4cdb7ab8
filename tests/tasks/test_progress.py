"""Progress is seen where somebody looks, when it takes long, and leaves no trace of what does not."""

import sys
import time
from pathlib import Path

import pytest

import tasks.progress
from tasks.progress import noted, progress, ticking


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks.progress, "SECONDS_UNTIL_SHOWN", 0.0)
    monkeypatch.setattr(tasks.progress, "SECONDS_BETWEEN_LINES", 0.0)


def test_what_is_soon_over_leaves_no_trace(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks.progress, "SECONDS_BETWEEN_TICKS", 0.01)
    for terminal in (True, False):
        monkeypatch.setattr(sys.stderr, "isatty", lambda terminal=terminal: terminal)
        assert list(progress(range(3), desc="counting", unit="number")) == [0, 1, 2]
        with progress(total=2, desc="training", unit="policy") as bar, ticking(bar):
            time.sleep(0.1)
    assert capsys.readouterr() == ("", "")


@pytest.mark.usefixtures("impatient")
def test_a_terminal_gets_a_bar_that_goes_again(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with progress(total=4, initial=1, desc="training", unit="step") as bar:
        bar.update()
        bar.refresh()
    said = capsys.readouterr().err
    assert "2/4" in said
    assert said.split("\r")[-1].strip() == ""


@pytest.mark.usefixtures("impatient")
def test_a_log_gets_whole_lines(capsys: pytest.CaptureFixture[str]) -> None:
    for _ in progress(range(2), desc="training", unit="policy"):
        assert list(progress(range(1), desc="acting", unit="step")) == [0]
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "training, policy 0/2: 00:00 passed, ? left"
    assert lines[-1].startswith("training, policy 2/2: 00:00 passed")
    assert all(line.isprintable() and line == line.strip() for line in lines)


@pytest.mark.usefixtures("impatient")
def test_a_worker_leaves_a_note_and_clears_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    note, said = tmp_path / "note", []
    with noted(note), progress(total=4, desc="training", unit="step") as bar:
        bar.update(3)
        bar.refresh()
        said.append(note.read_text())
    assert said[0].startswith("training 75 %, ")
    assert note.read_text() == ""
    assert capsys.readouterr() == ("", "")


@pytest.mark.usefixtures("impatient")
def test_a_bar_that_ticked_goes_when_its_work_fails(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tasks.progress, "SECONDS_BETWEEN_TICKS", 0.01)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)

    def fails() -> None:
        with progress(total=2, desc="training", unit="policy") as bar, ticking(bar):
            time.sleep(0.1)
            raise ValueError("lost")

    with pytest.raises(ValueError, match="lost"):
        fails()
    said = capsys.readouterr().err
    assert "0/2" in said
    assert said.split("\r")[-1].strip() == ""


@pytest.mark.usefixtures("impatient")
def test_what_moves_slowly_ticks(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks.progress, "SECONDS_BETWEEN_TICKS", 0.01)
    with progress(total=1, desc="fitting", unit="stage") as bar, ticking(bar, lambda: "half-way"):
        until = time.monotonic() + 10
        said = ""
        while "half-way" not in said and time.monotonic() < until:
            said += capsys.readouterr().err
            time.sleep(0.01)
    assert "fitting, stage 0/1" in said
    assert ", half-way" in said

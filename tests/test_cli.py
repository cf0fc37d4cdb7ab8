"""The command line, in-process: results on standard output, one clear line for every mistake, and quick help."""

import os
import shutil
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import replace
from io import StringIO
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
import torch

import learnscope
from analyses.configs import ANALYSES, TDEmergence
from learnscope import CORE, main, parse_config

TINY = ["run", "context-length", "--preset", "smoke", "--context-lengths", "1", "9", "--n-tasks", "4"]
Failure = Callable[[list[str]], str]


@pytest.mark.parametrize("arguments", [[], ["-h"], ["--help"]], ids=["nothing", "-h", "--help"])
def test_help_names_every_command(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    assert main(arguments) == 0
    text = capsys.readouterr().out
    assert all(f"\n  {command}" in text for command in learnscope.COMMANDS)


@pytest.mark.parametrize("arguments", [["list"], ["run", "--help"]], ids=" ".join)
def test_lists_name_every_analysis(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    assert main(arguments) == 0
    text = capsys.readouterr().out
    assert all(name in text and analysis.question in text for name, analysis in ANALYSES.items())


@pytest.mark.parametrize("name", ANALYSES)
def test_help_of_an_analysis_teaches(capsys: pytest.CaptureFixture[str], name: str) -> None:
    with pytest.raises(SystemExit) as end:
        main(["run", name, "--help"])
    assert not end.value.code
    text = capsys.readouterr().out
    assert ANALYSES[name].question in " ".join(text.split())
    assert "--preset smoke" in text
    assert f"<out>/{name}/tables" in text


@pytest.mark.parametrize("preset", ["smoke", "laptop", "paper"])
@pytest.mark.parametrize("name", ANALYSES)
def test_every_preset_is_a_command_line_that_runs(name: str, preset: str) -> None:
    assert parse_config(name, ["--preset", preset]) == ANALYSES[name].preset(preset)


def test_the_preset_gives_the_defaults_and_every_field_can_be_changed() -> None:
    arguments = ["--n-layers", "1", "--no-looped", "--fixed", "kernel", "features", "--preset", "smoke", "--seeds=3"]
    config = parse_config("td-emergence", arguments)
    assert config == TDEmergence(
        preset="smoke",
        n_layers=1,
        looped=False,
        fixed=("kernel", "features"),
        seeds=3,
        train_tasks=ANALYSES["td-emergence"].presets["smoke"]["train_tasks"],
    )
    assert parse_config("td-emergence", []) == ANALYSES["td-emergence"].preset("laptop")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["rnu"], "did you mean 'run'?"),
        (["run"], "run needs an analysis first"),
        (["run", "--preset", "smoke"], "run needs an analysis first"),
        (["run", "td-emergance"], "did you mean 'td-emergence'?"),
        (["figures", "construction"], "did you mean 'constructions'?"),
        (["run", "td-emergence", "--n-layer", "3"], "did you mean '--n-layers'?"),
        (["run", "td-emergence", "--no-loop"], "did you mean '--no-looped'?"),
        (["run", "td-emergence", "--zzz"], "no option --zzz; Hint: learnscope run td-emergence --help"),
        (["run", "td-emergence", "--task", "boyan"], "did you mean 'boyan-chain'?"),
        (["run", "td-emergence", "--activation=softmx"], "did you mean 'softmax'?"),
        (["run", "td-emergence", "--fixed", "kernel", "feature"], "--fixed is 'feature'; did you mean 'features'?"),
        (["xyzzy"], "command is 'xyzzy'; allowed: list, run"),
        (["run", "td-emergence", "--task", "maze"], "--task is 'maze'; allowed: boyan-chain, loop"),
        (["run", "td-emergence", "--preset", "lap"], "did you mean 'laptop'?"),
        (["run", "td-emergence", "--n-layers", "x"], "invalid literal for int() with base 10: 'x'"),
        (["run", "td-emergence", "--looped", "True"], "Unrecognized options: True"),
        (["run", "td-emergence", "--n-layers"], "Missing value for argument '--n-layers'"),
        (["run", "td-emergence", "--seeds", "0"], "--seeds is 0; it must be at least 1"),
        (["run", "context-length", "--context-lengths", "1", "0"], "--context-lengths is 0"),
        (["run", "context-length", "--gamma", "1.5"], "--gamma is 1.5; it must be above 0 and below 1"),
        (["run", "td-emergence", "--gamma", "0"], "--gamma is 0.0; it must be above 0 and below 1"),
        (["run", "td-emergence", "--gamma", "1"], "--gamma is 1.0"),
        (["run", "td-emergence", "--gamma", "nan"], "--gamma is nan"),
        (["run", "td-emergence", "--learning-rate", "-1"], "--learning-rate is -1.0; it must be a finite number above"),
        (["run", "td-emergence", "--weight-decay", "-1"], "--weight-decay is -1.0"),
        (["run", "td-emergence", "--device", "foo"], "--device is 'foo'; what this machine and its torch allow: cpu"),
        (["run", "td-emergence", "--n-states", "2"], "--n-states is 2, a chain needs at least"),
        (["run", "constructions", "--lam", "2"], "--lam is 2.0; it must be from 0 to 1"),
        (["run", "context-length", "--step-size", "inf"], "--step-size is inf"),
        (["run", "context-length", "--min-states", "20"], "--min-states is 20; it must be at most --n-states"),
        (["run", "context-length", "--n-states", "2", "--min-states", "2"], "--n-states is 2, a chain needs at least"),
        (["run", "context-length", "--context-lengths"], "--context-lengths needs at least one value"),
        (["run", "context-length", "--out", __file__], "--out is the file"),
        (["run", "context-length", "--out", f"{__file__}/runs"], "test_cli.py is a file; give a folder"),
        (["run", "context-length", "--n-tasks", "1"], "--n-tasks is 1; intervals need at least 2"),
        (["run", "td-probe", "--probe-tasks", "4"], "--probe-tasks is 4; it must be at least 5"),
        (["reproduce", "--device", "foo"], "--device is 'foo'"),
        (["reproduce", "--preset", "papr"], "did you mean 'paper'?"),
        (["inspect", "somewhere", "--task", "boyan-chian"], "did you mean 'boyan-chain'?"),
        (["inspect", "somewhere"], "--task"),
        (["inspect", "somewhere", "--task", "linear-regression"], "there is no folder 'somewhere'"),
        (["inspect", "somewhere", "--task", "loop", "--card", __file__], "--card is the file"),
        (["list", "everything"], "list takes no arguments"),
    ],
)
def test_mistakes_get_one_line(failure: Failure, arguments: list[str], message: str) -> None:
    assert message in failure(arguments)


def test_a_folder_that_cannot_be_written_is_named_first(
    failure: Failure, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(os, "access", lambda place, mode: False)
    line = failure(["run", "td-emergence", "--out", str(tmp_path / "runs" / "mine")])
    assert f"nothing can be written in {tmp_path}; give another folder" in line


def test_figures_without_tables_say_what_makes_them(failure: Failure, tmp_path: Path) -> None:
    assert "learnscope run constructions" in failure(["figures", "constructions", "--out", str(tmp_path)])


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A finished run, and what it printed."""
    out = tmp_path_factory.mktemp("tiny")
    with redirect_stdout(StringIO()) as printed:
        assert main([*TINY, "--out", str(out)]) == 0
    return out, printed.getvalue()


@pytest.fixture
def finished(tiny: tuple[Path, str], tmp_path: Path) -> Path:
    """A copy of it to damage."""
    shutil.copytree(tiny[0], tmp_path, dirs_exist_ok=True)
    return tmp_path


def test_run_then_figures(capsys: pytest.CaptureFixture[str], tiny: tuple[Path, str], finished: Path) -> None:
    folder, text = tiny
    assert "value error" in text.splitlines()[0]
    assert "its numbers are no findings" in text
    assert str(folder / "context-length" / "figures" / "context-length.png") in text
    out, picture = ["--out", str(finished)], finished / "context-length" / "figures" / "context-length.png"
    before = picture.read_bytes()
    picture.unlink()
    assert main(["figures", "context-length", *out]) == 0
    assert capsys.readouterr().out.splitlines()[0] == str(picture)
    assert picture.read_bytes() == before


def test_damaged_tables_are_named(failure: Failure, finished: Path) -> None:
    (finished / "context-length" / "tables" / "msve.parquet").write_bytes(b"PAR1")
    assert "msve.parquet is damaged" in failure(["figures", "context-length", "--out", str(finished)])


def test_tables_that_are_gone_are_named(failure: Failure, finished: Path) -> None:
    tables = finished / "context-length" / "tables"
    (tables / "published.parquet").unlink()
    figures = ["figures", "context-length", "--out", str(finished)]
    message = failure(figures)
    assert "published.parquet is gone; make it anew with: learnscope run context-length --out" in message
    for damage in ("", "[]", '{"preset": "smoke"}'):
        (tables / "config.json").write_text(damage)
        assert "holds no finished tables" in failure(figures)


def test_cuda_is_refused_where_there_is_none(failure: Failure, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert "--device is 'cuda'; what this machine" in failure(["run", "td-emergence", "--device", "cuda"])


def test_a_bug_of_ours_is_no_mistake_of_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(name: str, config: object) -> dict[str, pd.DataFrame]:
        raise ValueError("shapes do not match")

    monkeypatch.setattr(learnscope, "compute", broken)
    with pytest.raises(ValueError, match="shapes do not match"):
        main(["run", "constructions"])


def test_an_interrupt_says_how_to_go_on(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(name: str, config: object) -> dict[str, pd.DataFrame]:
        print("progress")
        raise KeyboardInterrupt

    monkeypatch.setattr(learnscope, "compute", interrupted)
    assert main(["run", "constructions"]) == 130
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.splitlines()[-1] == "learnscope: interrupted; the same command resumes where it stopped"


def test_reproduce_skips_what_is_complete(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    inspected = []
    quick = replace(ANALYSES["context-length"], presets={"smoke": {"n_tasks": 4, "context_lengths": (1, 9)}})
    monkeypatch.setitem(ANALYSES, "context-length", quick)
    monkeypatch.setattr(learnscope, "CORE", ("context-length",))
    monkeypatch.setattr("analyses.subjects.trained_subject", lambda config: SimpleNamespace(folder=Path("trained")))
    monkeypatch.setattr(learnscope, "show_inspection", inspected.append)
    arguments = ["reproduce", "--preset", "smoke", "--out", str(tmp_path)]
    assert main(arguments) == 0
    first = capsys.readouterr()
    monkeypatch.setattr("analyses.context_length.run", lambda config: pytest.fail("it was complete"))
    assert main(arguments) == 0
    second = capsys.readouterr()
    assert first.out == second.out
    assert first.out.startswith("context-length: value error")
    assert "complete, read from its tables" in second.err
    assert [options.folder for options in inspected] == [Path("trained")] * 2


def test_core_analyses_exist() -> None:
    assert set(CORE) <= set(ANALYSES)

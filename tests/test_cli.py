"""The command line, in-process: results on standard output, one clear line for every mistake, and quick help."""

import json
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import learnscope
from analyses.configs import ANALYSES, TDEmergence
from learnscope import CORE, main, parse_config
from models.artifacts import mark_done
from models.constructions import td0

ROOT = Path(learnscope.__file__).parent
TINY = ["run", "context-length", "--preset", "smoke", "--context-lengths", "1", "9", "--n-tasks", "4"]


def failure(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> str:
    """The one line that a failing command prints."""
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("learnscope: ")
    assert captured.err.count("\n") == 1
    return captured.err


@pytest.mark.parametrize(
    "arguments", [["--help"], ["list"], ["run", "--help"], ["run", "td-emergence", "--help"], ["inspect", "--help"]]
)
def test_help_loads_nothing_heavy(arguments: list[str]) -> None:
    code = """
import sys, learnscope
try:
    learnscope.main(sys.argv[1:])
finally:
    heavy = {"torch", "transformer_lens", "matplotlib", "pandas", "numpy"} & set(sys.modules)
    assert not heavy, heavy
"""
    run = subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout


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
        (["run", "td-emergence", "--n-layer", "3"], "did you mean --n-layers?"),
        (["run", "td-emergence", "--no-loop"], "did you mean --no-looped?"),
        (["run", "td-emergence", "--zzz"], "no option --zzz"),
        (["run", "td-emergence", "--task", "boyan"], "did you mean 'boyan-chain'?"),
        (["run", "td-emergence", "--activation=softmx"], "did you mean 'softmax'?"),
        (["run", "td-emergence", "--fixed", "kernel", "feature"], "--fixed is 'feature'; did you mean 'features'?"),
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
        (["run", "td-emergence", "--n-states", "2"], "n_states is 2, a chain needs at least 3"),
        (["run", "constructions", "--lam", "2"], "--lam is 2.0; it must be from 0 to 1"),
        (["run", "context-length", "--step-size", "inf"], "--step-size is inf"),
        (["run", "context-length", "--min-states", "20"], "--min-states is 20; it must be at most --n-states"),
        (["run", "context-length", "--n-states", "2", "--min-states", "2"], "n_states is 2, a chain needs at least 3"),
        (["run", "context-length", "--n-tasks", "1"], "--n-tasks is 1; intervals need at least 2"),
        (["run", "td-probe", "--probe-tasks", "4"], "--probe-tasks is 4; it must be at least 5"),
        (["reproduce", "--device", "foo"], "--device is 'foo'"),
        (["reproduce", "--preset", "papr"], "did you mean 'paper'?"),
        (["inspect", "somewhere", "--task", "boyan-chian"], "did you mean 'boyan-chain'?"),
        (["inspect", "somewhere"], "--task"),
        (["list", "everything"], "list takes no arguments"),
    ],
)
def test_mistakes_get_one_line(capsys: pytest.CaptureFixture[str], arguments: list[str], message: str) -> None:
    assert message in failure(capsys, arguments)


def test_figures_without_tables_say_what_makes_them(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert "learnscope run constructions" in failure(capsys, ["figures", "constructions", "--out", str(tmp_path)])


def test_run_then_figures(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    out = ["--out", str(tmp_path)]
    assert main([*TINY, *out]) == 0
    text = capsys.readouterr().out
    picture = tmp_path / "context-length" / "figures" / "context-length.png"
    assert "value error" in text.splitlines()[0]
    assert str(picture) in text
    before = picture.read_bytes()
    picture.unlink()
    assert main(["figures", "context-length", *out]) == 0
    assert capsys.readouterr().out.splitlines()[0] == str(picture)
    assert picture.read_bytes() == before


def test_damaged_tables_are_named(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main([*TINY, "--out", str(tmp_path)]) == 0
    capsys.readouterr()
    (tmp_path / "context-length" / "tables" / "msve.parquet").write_bytes(b"PAR1")
    assert "msve.parquet is damaged" in failure(capsys, ["figures", "context-length", "--out", str(tmp_path)])


def test_tables_that_are_gone_are_named(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main([*TINY, "--out", str(tmp_path)]) == 0
    capsys.readouterr()
    tables = tmp_path / "context-length" / "tables"
    (tables / "published.parquet").unlink()
    figures = ["figures", "context-length", "--out", str(tmp_path)]
    message = failure(capsys, figures)
    assert "published.parquet is gone; make it anew with: learnscope run context-length --out" in message
    for damage in ("", "[]", '{"preset": "smoke"}'):
        (tables / "config.json").write_text(damage)
        assert "holds no finished tables" in failure(capsys, figures)


def test_cuda_is_refused_where_there_is_none(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert "--device is 'cuda'; what this machine" in failure(capsys, ["run", "td-emergence", "--device", "cuda"])


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


def save(folder: Path) -> None:
    """A looped network with the layers, width (2 d + 1 = 9) and seeds that the tests below damage."""
    td0(2.0 * torch.eye(4).expand(2, 1, 4, 4), n_layers=3).save_pretrained(folder)


def weights(change: Callable[[dict[str, Tensor]], dict[str, Tensor]]) -> Callable[[Path], object]:
    def damage(folder: Path) -> None:
        path = folder / "model.safetensors"
        save_file({name: w.contiguous() for name, w in change(load_file(path)).items()}, path)

    return damage


def each(change: Callable[[Tensor], Tensor]) -> Callable[[Path], object]:
    return weights(lambda tensors: {name: change(w) for name, w in tensors.items()})


def config(change: Callable[[dict], object]) -> Callable[[Path], object]:
    def damage(folder: Path) -> None:
        path = folder / "config.json"
        data = json.loads(path.read_text())
        change(data)
        path.write_text(json.dumps(data))

    return damage


def text(name: str, content: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_text(content)


def truncate(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def edit_a_run(folder: Path) -> None:
    text("provenance.json", "{}")(folder)
    mark_done(folder)
    each(lambda w: 1.01 * w)(folder)


def truncate_a_run(folder: Path) -> None:
    text("provenance.json", "{}")(folder)
    truncate(folder)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (truncate, r"model.safetensors is damaged .*; copy it again$"),
        (truncate_a_run, r"model.safetensors is damaged .*; restore it, or delete \S+ and run again$"),
        (edit_a_run, "model.safetensors is not the file that the run wrote; restore it, or delete"),
        (text("DONE", "[]"), "DONE holds no checksums, .* copy it again$"),
        (text("DONE", "done"), "DONE is not valid JSON .* copy it again$"),
        (lambda folder: (folder / "model.safetensors").unlink(), "has no model.safetensors$"),
        (lambda folder: (folder / "config.json").unlink(), "has no config.json$"),
        (each(lambda w: w.where(w == 0, torch.nan)), "model.safetensors: P has [0-9]+ NaN or infinite of 162 weights"),
        (
            each(lambda w: w[..., :-1, :-1]),
            r"model.safetensors: P has shape \[2, 1, 1, 8, 8\]; a looped .* 1, 1, 9, 9\]",
        ),
        (each(lambda w: w.repeat(1, 3, 1, 1)), r"model.safetensors: P has shape \[2, 3, 1, 9, 9\]"),
        (each(lambda w: w[0, 0, 0]), r"model.safetensors: P has shape \[9\]"),
        (each(lambda w: w[:0]), "model.safetensors: P and Q have 0 seeds"),
        (each(lambda w: w.long()), "model.safetensors: P holds int64; floating point is needed: float64, float32"),
        (each(lambda w: w.bool()), "model.safetensors: P holds bool"),
        (each(lambda w: w.to(torch.complex64)), "model.safetensors: P holds complex64"),
        (weights(lambda w: w | {"Q": w["Q"].double()}), "model.safetensors: P holds float32 and Q float64"),
        (weights(lambda w: {"P": w["P"], "W_Q": w["Q"]}), r"model.safetensors lacks Q; it has \['P', 'W_Q'\]"),
        (config(lambda data: data.pop("looped")), "config.json: the config lacks looped; a linear transformer needs"),
        (config(lambda data: data.update(masks=[{"lamda": 0.9}])), "config.json: .* 'lamda'; did you mean 'lambda'"),
        (config(lambda data: data.update(gamma=0)), "config.json: gamma is 0, .* holds no next features"),
        (text("config.json", "[1, 2]"), "config.json: the config is of type list; it must hold one JSON object"),
        (text("config.json", "3"), "config.json: the config is of type int"),
        (text("config.json", '{"model": '), "config.json is not valid JSON .* copy it again$"),
        (text("config.json", "[" * 10**5), "config.json is not valid JSON"),
        (text("config.json", "1" * 10**4), "config.json is not valid JSON"),
    ],
)
def test_inspect_names_what_is_wrong_with_a_folder(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, damage: Callable[[Path], object], message: str
) -> None:
    save(tmp_path)
    damage(tmp_path)
    line = failure(capsys, ["inspect", str(tmp_path), "--task", "loop"])
    assert re.search(message, line.strip()), line
    assert str(tmp_path) in line


def test_inspect_names_a_folder_that_is_missing(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    folder = tmp_path / "nowhere"
    assert f"there is no folder '{folder}'" in failure(capsys, ["inspect", str(folder), "--task", "loop"])


def test_inspect_of_a_folder_prints_one_json_object(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    save(tmp_path)
    keys = ["subject", "task", "weights", "rivals", "rival_distances", "seed_disagreement", "verdict", "seeds"]
    assert main(["inspect", str(tmp_path), "--task", "loop", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert set(keys) <= set(report)
    assert report["verdict"]["outcome"] == "identified"
    assert report["verdict"]["learners"] == ["td0"]


def test_inspect_prints_one_json_object(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    report = {"task": "loop", "verdict": {"outcome": "none", "learners": []}}

    def inspect(folder: Path, task: str, *, n_states: int, context_length: int, rivals: str) -> dict[str, object]:
        print("what a library prints goes elsewhere")
        assert (folder, task, n_states, context_length, rivals) == (Path("somewhere"), "loop", 12, 30, "linear")
        return report

    monkeypatch.setattr("analyses.inspect.inspect", inspect)
    monkeypatch.setattr("analyses.answer.render", lambda report: f"verdict: {report['verdict']['outcome']}")
    arguments = ["inspect", "somewhere", "--task", "loop", "--n-states", "12"]
    assert main([*arguments, "--json"]) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out) == report
    assert "elsewhere" in captured.err
    assert main(arguments) == 0
    assert capsys.readouterr().out == "verdict: none\n"


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

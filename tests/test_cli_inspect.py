"""`learnscope inspect` in-process: one JSON object or a table, and one clear line for whatever a folder lacks."""

import json
import re
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import analyses.inspect
import learnscope
import probes.interventions
import tasks.progress
from analyses import evidence
from learnscope import main
from models.artifacts import mark_done
from models.constructions import td0

ROOT = Path(learnscope.__file__).parent
Failure = Callable[[list[str]], str]


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


def empty(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()


def nest(folder: Path) -> None:
    empty(folder)
    save(folder / "run")


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


def lose_weights_of_a_run(folder: Path) -> None:
    text("provenance.json", "{}")(folder)
    (folder / "model.safetensors").unlink()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (truncate, r"model.safetensors is damaged .*; copy it again$"),
        (truncate_a_run, r"model.safetensors is damaged .*; restore it, or delete \S+ and run again$"),
        (edit_a_run, "model.safetensors is not the file that the run wrote; restore it, or delete"),
        (text("DONE", "[]"), "DONE holds no checksums, .* copy it again$"),
        (text("DONE", "done"), "DONE is not valid JSON .* copy it again$"),
        (lambda folder: (folder / "model.safetensors").unlink(), "has no model.safetensors; the folder of"),
        (lambda folder: (folder / "config.json").unlink(), "has no config.json; the folder of"),
        (lose_weights_of_a_run, r"has no model.safetensors; restore it, or delete \S+ and run again$"),
        (empty, "has no config.json and no model.safetensors; the folder of a network holds"),
        (
            lambda folder: (folder / "model.safetensors").rename(folder / "model.pt"),
            r"has no model.safetensors; model.pt looks like a pickle, .* safetensors.torch.save_file\(tensors, ",
        ),
        (nest, r"has no config.json and no model.safetensors; did you mean \S+/run\? the folder"),
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
        (config(lambda data: data.update(n_layers="3")), "config.json: n_layers is '3'; allowed: a whole number"),
        (config(lambda data: data.update(d_features=4.5)), "config.json: d_features is 4.5; allowed: a whole number"),
        (config(lambda data: data.update(activation="gelu")), "config.json: activation is 'gelu'.* linear, relu"),
        (config(lambda data: data.update(d_features=3)), r"P has shape \[2, 1, 1, 9, 9\]; .* d_features 3"),
        (text("config.json", "[1, 2]"), "config.json: the config is of type list; it must hold one JSON object"),
        (text("config.json", "3"), "config.json: the config is of type int"),
        (text("config.json", '{"model": '), "config.json is not valid JSON .* copy it again$"),
        (text("config.json", "[" * 10**5), "config.json is not valid JSON"),
        (text("config.json", "1" * 10**4), "config.json is not valid JSON"),
    ],
)
def test_inspect_names_what_is_wrong_with_a_folder(
    failure: Failure, tmp_path: Path, damage: Callable[[Path], object], message: str
) -> None:
    save(tmp_path)
    damage(tmp_path)
    line = failure(["inspect", str(tmp_path), "--task", "loop"])
    assert re.search(message, line.strip()), line
    assert str(tmp_path) in line


def test_inspect_names_a_folder_that_is_missing_or_a_file(failure: Failure, tmp_path: Path) -> None:
    folder = tmp_path / "nowhere"
    needed = "the folder of a network holds config.json and model.safetensors"
    assert f"there is no folder '{folder}'; {needed}" in failure(["inspect", str(folder), "--task", "loop"])
    folder.touch()
    assert f"{folder} is a file; {needed}" in failure(["inspect", str(folder), "--task", "loop"])


def test_a_wrong_folder_is_named_before_anything_heavy_loads(tmp_path: Path) -> None:
    for name in ("empty", "typo"):
        (tmp_path / name).mkdir()
    (tmp_path / "typo" / "model.safetensors").touch()
    (tmp_path / "typo" / "config.json").write_text('{"model": "linear-transfomer"}')
    code = """
import sys, learnscope
for folder in sys.argv[1:]:
    assert learnscope.main(["inspect", folder, "--task", "loop"]) == 2
    heavy = {"torch", "transformer_lens", "matplotlib", "pandas", "numpy"} & set(sys.modules)
    assert not heavy, heavy
"""
    folders = [str(tmp_path / name) for name in ("nowhere", "empty", "typo")]
    run = subprocess.run([sys.executable, "-c", code, *folders], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr
    assert run.stderr.count("\n") == len(folders)


def test_settings_are_named_as_they_are_typed(failure: Failure, tmp_path: Path) -> None:
    save(tmp_path)
    line = failure(["inspect", str(tmp_path), "--task", "loop", "--n-states", "1"])
    assert line.startswith("learnscope: --n-states is 1, a chain needs at least 3")


@pytest.fixture
def few_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    report = partial(analyses.inspect.report, fitting_tasks=20, held_out_tasks=20)
    monkeypatch.setattr(analyses.inspect, "report", report)
    monkeypatch.setattr(probes.interventions, "N_PLACEBOS", 2)


@pytest.mark.usefixtures("few_tasks")
def test_inspect_of_a_folder_prints_one_json_object(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    save(tmp_path)
    keys = ["subject", "task", "weights", "rivals", "rival_distances", "seed_disagreement", "verdict", "seeds"]
    assert main(["inspect", str(tmp_path), "--task", "loop", "--json"]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""  # no progress where there is no terminal
    report = json.loads(captured.out)
    assert set(keys) <= set(report)
    assert report["verdict"]["outcome"] == "identified"
    assert report["verdict"]["learners"] == ["td0"]


@pytest.mark.usefixtures("few_tasks")
def test_inspect_shows_progress_at_a_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    save(tmp_path)
    monkeypatch.setattr(evidence, "TESTS", dict.fromkeys(evidence.TESTS, lambda *_: ()))  # edits take the most time
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setattr(tasks.progress, "SECONDS_UNTIL_SHOWN", 0.0)
    assert main(["inspect", str(tmp_path), "--task", "loop", "--json"]) == 0
    captured = capsys.readouterr()
    assert all(stage in captured.err for stage in ("loading torch", "fitting rivals", "testing layers, weights"))
    assert json.loads(captured.out)


def test_inspect_prints_one_json_object(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    save(tmp_path)
    report = {"task": "loop", "verdict": {"outcome": "none", "learners": []}}

    def inspect(
        folder: Path, task: str, *, n_states: int, context_length: int | None, rivals: str
    ) -> dict[str, object]:
        print("what a library prints goes elsewhere")
        assert (folder, task, n_states, context_length, rivals) == (tmp_path, "loop", 12, None, "linear")
        return report

    monkeypatch.setattr("analyses.inspect.inspect", inspect)
    monkeypatch.setattr("analyses.answer.render", lambda report: f"verdict: {report['verdict']['outcome']}")
    arguments = ["inspect", str(tmp_path), "--task", "loop", "--n-states", "12"]
    assert main([*arguments, "--json"]) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out) == report
    assert "elsewhere" in captured.err
    assert main(arguments) == 0
    assert capsys.readouterr().out == "verdict: none\n"

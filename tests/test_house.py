"""The house keeps its shape: imports point one way, and heavy libraries load only when they are needed."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ["tasks", "algorithms", "models", "probes", "analyses", "figures"]
HEAVY = {"numpy", "torch", "transformer_lens", "sklearn", "pandas", "matplotlib"}


def python(code: str) -> subprocess.CompletedProcess[str]:
    """Runs `code` in a fresh interpreter at the root of the house."""
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)


def heavy_imports(code: str) -> set[str]:
    """The heavy libraries that a fresh interpreter has loaded after `code`."""
    run = python(f"{code}\nimport sys\nprint('', *sys.modules, sep='\\n')")
    assert run.returncode == 0, run.stderr
    return HEAVY & set(run.stdout.split("\n"))


def test_imports_point_one_way() -> None:
    run = python("from importlinter.cli import lint_imports; raise SystemExit(lint_imports())")
    assert run.returncode == 0, run.stdout + run.stderr


def test_heavy_imports_are_seen() -> None:
    """The positive control of the next test."""
    assert heavy_imports("import numpy, torch") == {"numpy", "torch"}


@pytest.mark.parametrize("arguments", ["--help", "list", "run --help", "run td-emergence --help", "inspect --help"])
def test_help_needs_no_heavy_library(arguments: str) -> None:
    code = f"""
import contextlib, io, learnscope
with contextlib.redirect_stdout(io.StringIO()) as said:
    try:
        status = learnscope.main({arguments.split()})
    except SystemExit as end:
        status = end.code
assert not status, status
assert said.getvalue()
"""
    assert heavy_imports(code) == set()


def test_a_further_process_loads_nothing_heavy_before_its_job() -> None:
    assert heavy_imports("import analyses.parallel") <= {"numpy"}  # joblib's


@pytest.mark.parametrize("package", PACKAGES)
def test_every_folder_is_a_package(package: str) -> None:
    """A folder without `__init__.py` would escape import-linter."""
    folders = {file.parent for file in (ROOT / package).rglob("*.py")}
    assert [folder for folder in folders if not (folder / "__init__.py").exists()] == []


def test_configuration_names_every_package() -> None:
    tools = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]
    (checked,) = [option for option in tools["pytest"]["ini_options"]["addopts"] if "jaxtyping" in option]
    for package in PACKAGES:
        assert package in tools["hatch"]["build"]["targets"]["wheel"]["only-include"]
        assert package in tools["importlinter"]["root_packages"]
        assert package in tools["pyright"]["include"]
        assert package in checked

"""The command line: lists, runs and redraws the analyses, reproduces the core ones, inspects networks in folders.

Standard output carries results, standard error everything else. Whatever the user can mend ends in one line and exit
status 2. Heavy libraries are imported where they are needed, so that help comes at once.
"""

from __future__ import annotations

import io
import json
import math
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import asdict, dataclass, replace
from difflib import get_close_matches
from importlib import import_module
from itertools import takewhile
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, get_args, get_origin, get_type_hints

import tyro

# Before torch loads: threads that spin while they wait starve each other where several OpenMP runtimes share few cores.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from analyses.configs import ANALYSES, ContextLength, Preset, Task
from models.config import require
from tasks.errors import LearnscopeError

# What a setting must be, whatever the analysis: checked before anything is loaded.
RANGES: dict[str, tuple[Callable[[float], bool], str]] = {
    "gamma": (lambda value: 0 < value < 1, "above 0 and below 1"),
    "lam": (lambda value: 0 <= value <= 1, "from 0 to 1"),
    "step_size": (math.isfinite, "a finite number"),
    "learning_rate": (lambda value: 0 < value < math.inf, "a finite number above 0"),
    "probe_tasks": (lambda value: value >= 5, "at least 5, one for each fold"),
    "weight_decay": (lambda value: 0 <= value < math.inf, "a finite number of at least 0"),
}

CORE = ("model-recovery", "causal-tests", "td-emergence", "td-probe", "constructions", "context-length")

HELP = """\
usage: learnscope COMMAND [options]

Which learning algorithm does a trained network run in context?

  list                         the analyses: the question each answers, and how long its presets take
  run ANALYSIS [settings]      compute the tables, draw the figures, say what was found
  figures ANALYSIS             redraw the figures from the tables
  reproduce                    the core analyses one after the other, then a look inside the trained network
  inspect FOLDER --task NAME   which learner do the weights in FOLDER run?

examples:
  learnscope run constructions
  learnscope run td-emergence --preset smoke
  learnscope run td-emergence --n-layers 1 --seeds 30
  learnscope inspect runs/subjects/<run> --task boyan-chain --card runs/card

`learnscope COMMAND --help` says more.
"""

RUN_HELP = """\
usage: learnscope run ANALYSIS [--preset smoke|laptop|paper] [settings]

Computes an analysis, draws its figures and says what was found. Training resumes where it was interrupted. It leaves

  <out>/<analysis>/tables/     tidy tables (Parquet)
  <out>/<analysis>/figures/    PNG, PDF and the data behind them (CSV)
  <out>/subjects/<run>/        the trained networks, where there are any (config.json, model.safetensors)

A preset decides the defaults, and every setting can be changed: `learnscope run ANALYSIS --help` lists them.

{analyses}
"""


class UsageError(LearnscopeError):
    """A command line that cannot be understood; the message says what was given and what would do."""


@dataclass(frozen=True)
class Figures:
    """Redraws the figures of an analysis from its tables; nothing is computed."""

    out: Path = Path("runs")
    """The folder that the analysis was run with."""


@dataclass(frozen=True)
class Reproduce:
    """Runs the core analyses in order, skipping complete ones, then inspects the network that was trained."""

    preset: Preset = "laptop"
    """smoke: seconds, no science; laptop: minutes on two cores; paper: the published scale."""
    all: tyro.conf.FlagCreatePairsOff[bool] = False
    """Every analysis, not only the core ones."""
    device: str = "cpu"
    """Where to train: cpu or cuda."""
    out: Path = Path("runs")
    """Folder for runs, tables and figures."""


@dataclass(frozen=True)
class Inspect:
    """Compares a network with every rival learner on tasks of a family and says which one it runs.

    The folder holds config.json and model.safetensors: P and Q, [seeds, layers, width, width], from here or elsewhere.
    """

    folder: tyro.conf.Positional[Path]
    """A run folder, or one of your own."""
    task: Task
    """Family of tasks to compare on."""
    n_states: int = 10
    """States per task."""
    context_length: int = 30
    """Transitions in the context."""
    rivals: Literal["linear", "all"] = "linear"
    """linear: learners whose values are linear in the query's features; all: softmax TD too, which is slower to fit."""
    card: Path | None = None
    """Also draw the evidence card, one page (PNG, PDF and the data behind it), into this folder."""
    json: tyro.conf.FlagCreatePairsOff[bool] = False
    """Print one JSON object and nothing else."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; returns the exit status: 0, 2 after an error that the user can mend, 130 when interrupted."""
    command, *rest = (sys.argv[1:] if arguments is None else arguments) or ["--help"]
    try:
        if command in ("-h", "--help"):
            print(HELP, end="")
        else:
            require("command", command, tuple(COMMANDS))
            COMMANDS[command](rest)
    except KeyboardInterrupt:
        print("learnscope: interrupted; the same command resumes where it stopped", file=sys.stderr)
        return 130
    except (LearnscopeError, OSError) as error:
        print("learnscope:", " ".join(str(error).split()), file=sys.stderr)
        return 2
    return 0


def show_list(arguments: list[str]) -> None:
    if arguments and not _wants_help(arguments):
        raise UsageError(f"list takes no arguments, but was given {arguments[0]!r}")
    print(_overview())


def run(arguments: list[str]) -> None:
    if _wants_help(arguments):
        print(RUN_HELP.format(analyses=_overview()))
        return
    name = _analysis("run", arguments)
    config = parse_config(name, arguments[1:])
    with redirect_stdout(sys.stderr):
        tables = compute(name, config)
        paths = draw(name, config.out, tables)
    print(
        _module(name).summarise(tables), f"\ntables   {config.out / name / 'tables'}", f"figure   {paths[0]}", sep="\n"
    )


def redraw(arguments: list[str]) -> None:
    if _wants_help(arguments):
        _parse(Figures, arguments, "learnscope figures ANALYSIS")
    name = _analysis("figures", arguments)
    options = _parse(Figures, arguments[1:], f"learnscope figures {name}")
    from analyses.tables import read_tables

    for path in draw(name, options.out, read_tables(options.out, name)):
        print(path)


def reproduce(arguments: list[str]) -> None:
    options = _parse(Reproduce, arguments, "learnscope reproduce")
    require_device(options.device)
    from analyses.tables import read_setting, read_tables

    names = tuple(ANALYSES) if options.all else CORE
    for i, name in enumerate(names, 1):
        config = replace(ANALYSES[name].preset(options.preset), out=options.out)
        if hasattr(config, "device"):
            config = replace(config, device=options.device)
        complete = read_setting(config.out, name) == _setting(config)
        state = "complete, read from its tables" if complete else f"takes {ANALYSES[name].minutes[options.preset]}"
        print(f"[{i}/{len(names)}] {name} ({options.preset} preset): {state}", file=sys.stderr)
        with redirect_stdout(sys.stderr):
            tables = read_tables(config.out, name) if complete else compute(name, config)
            paths = draw(name, config.out, tables)
        print(f"{name}: {_module(name).summarise(tables)}", f"  figure   {paths[0]}\n", sep="\n", flush=True)
    trained = replace(ANALYSES["td-emergence"].preset(options.preset), out=options.out, device=options.device)
    from analyses.subjects import trained_subject

    folder = trained_subject(trained).folder
    show_inspection(Inspect(folder, trained.task, trained.n_states, trained.context_length))


def inspect(arguments: list[str]) -> None:
    show_inspection(_parse(Inspect, arguments, "learnscope inspect"))


COMMANDS = {"list": show_list, "run": run, "figures": redraw, "reproduce": reproduce, "inspect": inspect}


def parse_config(name: str, arguments: list[str]) -> Any:
    """The settings of an analysis: its preset's, changed by the arguments. Raises UsageError or ConfigError."""
    analysis, prog = ANALYSES[name], f"learnscope run {name}"
    preset = next(iter(_given(analysis.config, arguments, prog).get("preset", ())), "laptop")
    times = "\n".join(f"  --preset {preset:8}{minutes}" for preset, minutes in analysis.minutes.items())
    description = f"{analysis.question}\n\nTime on two cores:\n{times}\n\nIt leaves <out>/{name}/tables and figures."
    return _parse(analysis.config, arguments, prog, description=description, default=analysis.preset(preset))


def compute(name: str, config: Any) -> dict[str, Any]:
    """Runs an analysis and writes its tables: name -> DataFrame."""
    from analyses.tables import write_tables

    if hasattr(config, "device"):
        require_device(config.device)
    tables = _module(name).run(config)
    write_tables(config.out, name, tables, _setting(config))
    return tables


def draw(name: str, out: Path, tables: Mapping[str, Any]) -> list[Path]:
    """Draws the figure of an analysis from its tables; returns what was written, the PNG first."""
    from figures.save import save_figure

    picture = import_module(f"figures.{name.replace('-', '_')}")
    return save_figure(picture.draw, tables, out / name / "figures", name)


def require_device(name: str) -> None:
    """Raises UsageError unless torch can compute there."""
    import torch

    cards = torch.cuda.device_count() if torch.cuda.is_available() else 0
    allowed = ("cpu", "cuda", *(f"cuda:{i}" for i in range(cards))) if cards else ("cpu",)
    if name not in allowed:
        raise UsageError(f"--device is {name!r}; what this machine and its torch allow: {', '.join(allowed)}")


def show_inspection(options: Inspect) -> None:
    from analyses.answer import render
    from analyses.inspect import inspect

    if options.card and options.card.exists() and not options.card.is_dir():
        raise UsageError(f"--card is the file {options.card}; give a folder")
    sizes = {"n_states": options.n_states, "context_length": options.context_length}
    with redirect_stdout(sys.stderr):
        report = inspect(options.folder, options.task, rivals=options.rivals, **sizes)
    print(json.dumps(report, indent=2, allow_nan=False) if options.json else render(report), flush=True)
    if options.card:
        from analyses.evidence import card
        from figures import evidence_card
        from figures.save import save_figure

        drawn = save_figure(evidence_card.draw, card(report), options.card, "evidence-card")
        print(f"\ncard     {drawn[0]}", file=sys.stderr if options.json else sys.stdout)


def _module(name: str) -> ModuleType:
    return import_module(f"analyses.{name.replace('-', '_')}")


def _setting(config: Any) -> dict[str, Any]:
    """The settings that decide the numbers, as JSON holds them."""
    setting = asdict(config)
    del setting["out"]
    return json.loads(json.dumps(setting))


def _overview() -> str:
    blocks = []
    for name, analysis in ANALYSES.items():
        times = ", ".join(f"{preset} {minutes}" for preset, minutes in analysis.minutes.items())
        blocks.append(f"{name}\n  {analysis.question}\n  on two cores: {times}")
    return "\n\n".join(blocks)


def _wants_help(arguments: list[str]) -> bool:
    return arguments[:1] in (["-h"], ["--help"])


def _analysis(command: str, arguments: list[str]) -> str:
    """The analysis that comes first in the arguments. Raises ConfigError, naming the nearest, where there is none."""
    if not arguments or arguments[0].startswith("-"):
        raise UsageError(f"{command} needs an analysis first: learnscope {command} {{{'|'.join(ANALYSES)}}} [settings]")
    require("analysis", arguments[0], tuple(ANALYSES))
    return arguments[0]


def _parse(settings: type, arguments: list[str], prog: str, **options: Any) -> Any:
    """An instance of the dataclass `settings`. Raises UsageError; prints the help and ends where that is asked for."""
    _given(settings, arguments, prog)
    screen = io.StringIO()
    try:
        with redirect_stderr(screen):
            parsed = tyro.cli(settings, args=arguments, prog=prog, **options)
    except SystemExit as end:
        if not end.code:
            raise
        # tyro draws a box: a title, what is wrong, a rule, and further help
        lines = takewhile(lambda line: "──" not in line, screen.getvalue().splitlines()[1:])
        message = " ".join(line.strip("│ ") for line in lines).rstrip(".")
        raise UsageError(f"{message}. Hint: {prog} --help") from None
    for name, value in asdict(parsed).items():
        for number in value if isinstance(value, tuple) else (value,):
            if isinstance(number, int) and not isinstance(number, bool) and number < 1:
                raise UsageError(f"{_flag(name)} is {number}; it must be at least 1")
            if name in RANGES and not RANGES[name][0](number):
                raise UsageError(f"{_flag(name)} is {number}; it must be {RANGES[name][1]}")
    if isinstance(parsed, ContextLength):
        if parsed.min_states > parsed.n_states:
            raise UsageError(f"--min-states is {parsed.min_states}; it must be at most --n-states, {parsed.n_states}")
        if parsed.n_tasks * parsed.seeds < 2:
            raise UsageError("--n-tasks is 1; intervals need at least 2, or more seeds")
    return parsed


def _given(settings: type, arguments: list[str], prog: str) -> dict[str, list[str]]:
    """The values that follow each option, by field. Raises UsageError or ConfigError, naming the nearest choice."""
    hints = get_type_hints(settings)
    fields = {_flag(name): name for name in hints}
    fields |= {_flag(f"no_{name}"): name for name, hint in hints.items() if hint is bool}
    given: dict[str, list[str]] = {}
    values: list[str] = []
    for argument in arguments:
        flag, equals, value = argument.partition("=")
        if not flag.startswith("--"):
            values.append(argument)
        elif (flag := _flag(flag[2:])) in fields:
            values = given[fields[flag]] = [value] if equals else []
        elif flag != "--help" and not flag.startswith("--tyro-"):
            near = get_close_matches(flag, fields, n=1)
            hint = f"; did you mean {near[0]}?" if near else f". Hint: {prog} --help"
            raise UsageError(f"{prog} has no option {flag}{hint}")
    for name, entries in given.items():
        for entry in entries if get_origin(hints[name]) is tuple else entries[:1]:
            if choices := _choices(hints[name]):
                require(_flag(name), entry, choices)
    return given


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _choices(hint: Any) -> tuple[str, ...]:
    """What a Literal, or a tuple of it, allows; empty for other types."""
    if get_origin(hint) is Literal:
        return get_args(hint)
    return next((choices for inner in get_args(hint) if (choices := _choices(inner))), ())


if __name__ == "__main__":
    sys.exit(main())

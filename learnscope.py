"""The command line: lists, runs and redraws the analyses, reproduces the core ones, inspects networks in folders.

Standard output carries results, standard error everything else. Whatever the user can mend ends in one line and exit
status 2. Heavy libraries are imported where they are needed, so that help comes at once.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import asdict, replace
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, get_args

# Before torch loads: threads that spin while they wait starve each other where several OpenMP runtimes share few cores.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from analyses.arguments import UsageError, as_typed, given_values, parse
from analyses.commands import HELP, RUN_HELP, Compare, Figures, Inspect, PolicyTask, Reproduce
from analyses.configs import ANALYSES
from analyses.history_configs import COLLECTIONS
from analyses.history_configs import HELP as COLLECT_HELP
from models.folder import read_config
from tasks.errors import LearnscopeError, require

SMOKE = "smoke preset: a check that everything runs, no science; its numbers are no findings"
CORE = ("model-recovery", "causal-tests", "td-emergence", "td-probe", "constructions", "context-length")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; returns the exit status: 0, 2 after an error that the user can mend, 130 when interrupted."""
    command, *rest = (sys.argv[1:] if arguments is None else arguments) or ["--help"]
    try:
        if command in ("-h", "--help"):
            print(HELP, end="")
        else:
            require("command", command, tuple(COMMANDS))
            COMMANDS[command](rest)
    except BrokenPipeError:  # whoever reads, as `head` does, has seen enough; what is left must go somewhere
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except KeyboardInterrupt:
        print("learnscope: interrupted; the same command resumes where it stopped", file=sys.stderr)
        return 130
    except (LearnscopeError, OSError) as error:
        collections = (type(collection) for collection in COLLECTIONS.values())
        settings = (Inspect, Compare, *(analysis.config for analysis in ANALYSES.values()), *collections)
        print("learnscope:", as_typed(" ".join(str(error).split()), settings), file=sys.stderr)
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
    name = _named("run", "an analysis", arguments, ANALYSES)
    config = parse_config(name, arguments[1:])
    with redirect_stdout(sys.stderr):
        tables = compute(name, config)
        paths = draw(name, config.out, tables)
    print(
        _summary(name, config, tables), f"\ntables   {config.out / name / 'tables'}", f"figure   {paths[0]}", sep="\n"
    )


def redraw(arguments: list[str]) -> None:
    if _wants_help(arguments):
        parse(Figures, arguments, "learnscope figures ANALYSIS")
    name = _named("figures", "an analysis", arguments, ANALYSES)
    options = parse(Figures, arguments[1:], f"learnscope figures {name}")
    from analyses.tables import read_tables

    for path in draw(name, options.out, read_tables(options.out, name)):
        print(path)


def reproduce(arguments: list[str]) -> None:
    options = parse(Reproduce, arguments, "learnscope reproduce")
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
        print(f"{name}: {_summary(name, config, tables)}", f"  figure   {paths[0]}\n", sep="\n", flush=True)
    trained = replace(ANALYSES["td-emergence"].preset(options.preset), out=options.out, device=options.device)
    from analyses.subjects import trained_subject

    folder = trained_subject(trained).folder
    show_inspection(Inspect(folder, trained.task, trained.n_states, trained.context_length))
    if options.preset == "smoke":
        print(f"({SMOKE})")


def inspect(arguments: list[str]) -> None:
    show_inspection(parse(Inspect, arguments, "learnscope inspect"))


def compare(arguments: list[str]) -> None:
    show_comparison(parse(Compare, arguments, "learnscope compare"))


def collect(arguments: list[str]) -> None:
    if _wants_help(arguments):
        print(COLLECT_HELP, end="")
        return
    task = _named("collect", "a task", arguments, COLLECTIONS)
    default = COLLECTIONS[task]
    config = parse(type(default), arguments[1:], f"learnscope collect {task}", default=default)
    if sys.stderr.isatty():
        print("loading torch", file=sys.stderr)
    from analyses.collect import collection_folder, run, summarise
    from figures import histories
    from figures.save import save_figure

    folder = collection_folder(task, config)
    with redirect_stdout(sys.stderr):
        tables = run(task, config)
        paths = save_figure(histories.draw, tables, folder / "figures", "histories")
    print(summarise(tables), f"\nhistories  {folder}", f"figure     {paths[0]}", sep="\n")


COMMANDS = {
    "list": show_list,
    "run": run,
    "figures": redraw,
    "reproduce": reproduce,
    "inspect": inspect,
    "compare": compare,
    "collect": collect,
}


def parse_config(name: str, arguments: list[str]) -> Any:
    """The settings of an analysis: its preset's, changed by the arguments. Raises UsageError or ConfigError."""
    analysis, prog = ANALYSES[name], f"learnscope run {name}"
    preset = next(iter(given_values(analysis.config, arguments, prog).get("preset", ())), "laptop")
    times = "\n".join(f"  --preset {preset:8}{minutes}" for preset, minutes in analysis.minutes.items())
    description = f"{analysis.question}\n\nTime on two cores:\n{times}\n\nIt leaves <out>/{name}/tables and figures."
    return parse(analysis.config, arguments, prog, description=description, default=analysis.preset(preset))


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
    read_config(options.folder)  # before libraries load, which takes seconds
    if options.task in get_args(PolicyTask):
        given = {"--rivals": options.rivals != "linear", "--n-states": options.n_states != 10}
        if unused := [flag for flag, used in given.items() if used]:
            raise UsageError(f"{unused[0]} is for networks that estimate values; leave it out for a policy")
    elif options.horizon is not None:
        raise UsageError("--horizon is for policies in rooms; leave it out for a network that estimates values")
    if sys.stderr.isatty():
        print("loading torch and transformer_lens", file=sys.stderr)
    from analyses.answer import render
    from analyses.inspect import inspect
    from analyses.inspect_policy import inspect_policy

    sizes = {"n_states": options.n_states, "context_length": options.context_length}
    with redirect_stdout(sys.stderr):
        if options.task in get_args(PolicyTask):
            told = {"context_length": options.context_length, "horizon": options.horizon}
            report = inspect_policy(options.folder, options.task, **told)
        else:
            report = inspect(options.folder, options.task, rivals=options.rivals, **sizes)
    print(json.dumps(report, indent=2, allow_nan=False) if options.json else render(report), flush=True)
    if options.card:
        drawn = _drawn_card(options.folder, report, options.card, policy=options.task in get_args(PolicyTask))
        print(f"\ncard     {drawn}", file=sys.stderr if options.json else sys.stdout)


def show_comparison(options: Compare) -> None:
    for folder in options.folders:
        read_config(folder)
    if sys.stderr.isatty():
        print("loading torch and transformer_lens", file=sys.stderr)
    from analyses.compare import card, compare, render

    with redirect_stdout(sys.stderr):
        comparison = compare(options.folders, options.tasks or (None, None))
    print(json.dumps(comparison, indent=2, allow_nan=False) if options.json else render(comparison), flush=True)
    if options.card:
        from figures import compare as picture
        from figures.save import save_figure

        drawn = save_figure(picture.draw, card(comparison["networks"]), options.card, "comparison")
        print(f"\ncard     {drawn[0]}", file=sys.stderr if options.json else sys.stdout)


def _drawn_card(network: Path, report: dict[str, Any], folder: Path, *, policy: bool) -> Path:
    """A policy has one level of evidence: its card is one panel of a comparison."""
    from analyses import compare, evidence
    from figures import compare as comparison
    from figures import evidence_card
    from figures.save import save_figure

    if policy:
        tables = compare.card([{"folder": str(network), "report": report}])
        return save_figure(comparison.draw, tables, folder, "evidence-card")[0]
    return save_figure(evidence_card.draw, evidence.card(report), folder, "evidence-card")[0]


def _module(name: str) -> ModuleType:
    return import_module(f"analyses.{name.replace('-', '_')}")


def _summary(name: str, config: Any, tables: Mapping[str, Any]) -> str:
    """What an analysis found; of the smoke preset, that it found nothing."""
    found = _module(name).summarise(tables)
    return f"{found}\n({SMOKE})" if config.preset == "smoke" else found


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


def _named(command: str, what: str, arguments: list[str], allowed: Mapping[str, Any]) -> str:
    """The name that comes first in the arguments. Raises ConfigError, naming the nearest, where it is not allowed."""
    if not arguments or arguments[0].startswith("-"):
        raise UsageError(f"{command} needs {what} first: learnscope {command} {{{'|'.join(allowed)}}} [settings]")
    require(what.split()[-1], arguments[0], tuple(allowed))
    return arguments[0]


if __name__ == "__main__":
    sys.exit(main())

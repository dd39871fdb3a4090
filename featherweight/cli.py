"""The command line: arguments to the same API. No logic of its own.

Every command takes ``--json`` and then prints one JSON document and nothing else: what a user's own functions print
goes to standard error. Failures go to standard error in three lines (the rule, what came, what to try), with ``--json``
as a document too, and end with the error's own exit code.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn, TextIO

from torch import nn

from featherweight import __version__, api, packaging
from featherweight.contracts import EXIT_STOPPED, EXIT_UNMET, STOPPED, FeatherweightError, UsageError, describe
from featherweight.demo import demo
from featherweight.files import file_failure
from featherweight.pipeline import Outcome
from featherweight.planning.plans import read_plan
from featherweight.planning.rules.rule import Rules, goal_of
from featherweight.planning.rules.rulebook import read_rules
from featherweight.quantities import byte_count, count, milliseconds, positive, share, sizes, whole
from featherweight.records import to_json
from featherweight.report import card_of, summary_lines
from featherweight.targets import TARGETS, target_by_name
from featherweight.tasks import Data, Task, task_by_name
from featherweight.tasks.metrics import metric_by_name

_MODEL = "file.py:function, package.module:function, or a .pt2 file"
_DATA = "file.py:function giving train/validation/test, or a folder of images by class"
_CODES = """\
exit codes: 0 goal met · 1 unexpected · 2 usage · 3 model · 4 data · 5 goal · 6 target · 7 run folder · 8 plan ·
            9 lowering · 10 goal not met (the nearest result is there, marked as unmet) · 11 limits out of reach ·
            130 stopped by Ctrl-C (the same command continues)"""


class _Parser(argparse.ArgumentParser):
    """A parser whose complaints are errors like all others."""

    def error(self, message: str) -> NoReturn:
        usage = " ".join(self.format_usage().removeprefix("usage: ").split())
        raise UsageError("The command's words must follow its usage.", message, usage)


def _print(args: argparse.Namespace, record: Any, lines: Callable[[], str]) -> None:
    args.stdout.write((json.dumps(record, indent=1) if args.json else lines()) + "\n")


def _network_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help=_MODEL)
    parser.add_argument("--weights", metavar="FILE", help="safetensors, or a checkpoint (read with weights_only)")


def _model_arguments(parser: argparse.ArgumentParser) -> None:
    _network_arguments(parser)
    parser.add_argument("--data", metavar="DATA", required=True, help=_DATA)
    _image_arguments(parser)


def _image_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--image-size", metavar="H,W", help="resize images of a folder to this")
    _task_argument(parser)


def _task_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--task", default="classification", help="what outputs mean (default: classification)")
    parser.add_argument("--metric", metavar="WHAT", help="top-5, f1, auc, map, mae, ..., or file.py:function")


def _goal_arguments(parser: argparse.ArgumentParser) -> None:
    _proof_arguments(parser)
    parser.add_argument("--minimize", metavar="WHAT", help="size, package, macs, latency or memory (default: size)")
    parser.add_argument("--max-size", metavar="2MB", help="limit on the file")
    parser.add_argument("--max-package", metavar="1MB", help="limit on the package, what is downloaded")
    parser.add_argument("--max-macs", metavar="40M", help="limit on multiply-accumulates for one sample")
    parser.add_argument("--max-latency", metavar="5ms", help="limit on the time for one sample, measured here")
    parser.add_argument("--max-memory", metavar="512KB", help="limit on activations at their peak")


def _proof_arguments(parser: argparse.ArgumentParser) -> None:
    """The part of a goal that a certificate speaks of."""
    parser.add_argument("--max-drop", metavar="1pp", help="largest loss of the metric (default: 1pp)")
    parser.add_argument("--relative", action="store_true", help="--max-drop is a share of the original's metric")
    parser.add_argument("--max-group-drop", metavar="3pp", help="largest loss of any class or group")
    parser.add_argument("--confidence", metavar="95%", help="how sure to be (default: 95%%)")


_GOAL_WORDS: Mapping[str, Callable[[str], float | int | str]] = {
    "max_drop": share, "confidence": share, "minimize": str, "max_size": byte_count, "max_macs": count,
    "max_package": byte_count, "max_latency": milliseconds, "max_memory": byte_count, "max_group_drop": share,
}  # fmt: skip
_GOAL_FIELDS = {
    "max_size": "max_size_bytes", "max_package": "max_package_bytes", "max_latency": "max_latency_ms",
    "max_memory": "max_memory_bytes",
}  # fmt: skip


def _rules(args: argparse.Namespace) -> Rules:
    """The rules' file, if there is one, with what stands on the command line in place of what it says of the goal."""
    rules = read_rules(args.rules) if getattr(args, "rules", None) else Rules()
    given = {word: getattr(args, word, None) for word in _GOAL_WORDS}
    words = {_GOAL_FIELDS.get(word, word): _GOAL_WORDS[word](text) for word, text in given.items() if text is not None}
    searched = {word: getattr(args, word, None) for word in ("search", "storage")}
    return replace(
        rules,
        goal={**rules.goal, **words, **({"relative": True} if args.relative else {})},
        **{word: value for word, value in searched.items() if value is not None},
    )


def _run_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--rules", metavar="FILE", type=Path, help="what may be done where, and the goal: docs/rules.md"
    )
    parser.add_argument("--data-free", action="store_true", help="calibrate on synthesized inputs: no training sample")
    _place_arguments(parser)


def _search_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--search", metavar="N", type=whole, help="trials of a search over the global knobs (default: 0)"
    )
    parser.add_argument("--storage", metavar="URL", help="a database for the trials (default: search.db in --out)")


def _place_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--target", default="litert", help="see `featherweight targets` (default: litert)")
    parser.add_argument("--out", metavar="DIR", type=Path, required=True, help="the run's folder; continues there")
    parser.add_argument("--seed", type=int, default=0, help="of every random choice (default: 0)")


def _task(args: argparse.Namespace, metric: str | None = None) -> Task:
    """The task with the metric that was asked for: on the command line, or in the rules' file."""
    task, name = task_by_name(args.task), args.metric or metric
    return task if name is None else task.with_metric(metric_by_name(name))


def _loaded(args: argparse.Namespace, rules: Rules | None = None) -> tuple[nn.Module, Data, Task]:
    task = _task(args, rules.metric if rules else None)
    model, data = api.load_model(args.model, args.weights), api.load_data(args.data, args.image_size)
    return model, data.without_training() if getattr(args, "data_free", False) else data, task


def _compress(args: argparse.Namespace) -> int:
    rules, target = _rules(args), target_by_name(args.target)
    model, data, task = _loaded(args, rules)
    return _told(args, api.compress(model, data, rules, target, task=task, out=args.out, seed=args.seed))


def _told(args: argparse.Namespace, outcome: Outcome) -> int:
    places = {
        "artefact": outcome.artefact,
        "package": outcome.package,
        "plan": outcome.artefact.parent / "plan.yaml",
        "report": outcome.report,
    }
    files = "".join(f"\n{name:8} {path}" for name, path in places.items())
    _print(args, card_of(outcome.story), lambda: summary_lines(outcome.story) + files)
    return 0 if outcome.met else EXIT_UNMET


def _inspect(args: argparse.Namespace) -> int:
    model, data, _ = _loaded(args)
    found = api.inspect(model, data)
    _print(args, found.record(), found.text)
    return 0


def _advise(args: argparse.Namespace) -> int:
    target = target_by_name(args.target)
    model = api.load_model(args.model, args.weights)
    data = None if args.data is None else api.load_data(args.data, args.image_size)
    found = api.advise(model, target, data, shape=args.shape)
    _print(args, found.record(), found.text)
    return 0


def _advise_arguments(parser: argparse.ArgumentParser) -> None:
    _network_arguments(parser)
    parser.add_argument("--data", metavar="DATA", help=_DATA)
    parser.add_argument("--image-size", metavar="H,W", help="resize images of a folder to this")
    parser.add_argument(
        "--shape", metavar="C,H,W", type=sizes, action="append",
        help="in place of data: of one sample, batch left out; once for every input",
    )  # fmt: skip
    parser.add_argument("--target", default="litert", help="see `featherweight targets` (default: litert)")


def _plan(args: argparse.Namespace) -> int:
    rules, target = _rules(args), target_by_name(args.target)
    model, data, task = _loaded(args, rules)
    plan, path = api.plan(model, data, rules, target, task=task, out=args.out, seed=args.seed)
    record = {"plan": str(path), "predicted": dict(plan.predicted)}
    record["choices"] = {unit: describe(steps) for unit, steps in plan.choices.items()}
    _print(args, record, lambda: f"{path.read_text()}\nwritten to {path}")
    return 0


def _apply(args: argparse.Namespace) -> int:
    plan = read_plan(args.plan)
    rules = _rules(args)
    target_by_name(plan.target)
    model, data, task = _loaded(args, rules)
    return _told(args, api.apply(model, data, plan, rules, task=task, out=args.out, seed=args.seed))


def _quantize(args: argparse.Namespace) -> int:
    target, task = target_by_name(args.target), _task(args)
    model = api.load_model(args.model, args.weights)
    told = api.quantize(model, args.shape, target, task=task, out=args.out, seed=args.seed)
    folder = args.out
    _print(args, json.loads(to_json(told)), lambda: f"{told.text()}\nartefact {folder / told.artefact.file}")
    return 0


def _quantize_arguments(parser: argparse.ArgumentParser) -> None:
    _network_arguments(parser)
    parser.add_argument(
        "--shape", metavar="C,H,W", type=sizes, action="append", required=True,
        help="of one sample, batch left out; once for every input",
    )  # fmt: skip
    _task_argument(parser)
    _place_arguments(parser)


def _recalibrate(args: argparse.Namespace) -> int:
    model, data, task = _loaded(args)
    told = api.recalibrate(args.run_folder, model, data, task=task, out=args.out)
    _print(args, json.loads(to_json(told)), lambda: f"{told.text()}\nartefact {args.out / told.artefact.file}")
    return 0


def _verify(args: argparse.Namespace) -> int:
    task = _task(args)
    data = api.load_data(args.data, args.image_size)
    certificate = api.verify(args.original, args.artefact, data, goal_of(_rules(args)), args.target, task=task)
    _print(args, json.loads(to_json(certificate)), lambda: certificate.statement)
    return 0 if certificate.holds else EXIT_UNMET


def _benchmark(args: argparse.Namespace) -> int:
    timings = target_by_name(args.target).benchmark(args.files, runs=args.runs, threads=args.threads)
    record = [
        {"file": str(file), "median_ms": t.median_ms, "p90_ms": t.p90_ms, "runs": t.runs, "threads": t.threads}
        for file, t in zip(args.files, timings, strict=True)
    ]
    _print(
        args,
        record,
        lambda: "\n".join(f"{r['median_ms']:9.3f} ms  (p90 {r['p90_ms']:.3f})  {r['file']}" for r in record),
    )
    return 0


def _pack(args: argparse.Namespace) -> int:
    size = packaging.pack(args.artefact, args.out, base=args.base)
    told = {"package": str(args.out), "bytes": size}
    _print(args, told, lambda: f"{args.out}: {size:,} bytes")
    return 0


def _unpack(args: argparse.Namespace) -> int:
    paths = [str(path) for path in packaging.unpack(args.package, args.out, base=args.base)]
    _print(args, {"files": paths}, lambda: "\n".join(paths))
    return 0


def _package_info(args: argparse.Namespace) -> int:
    told = packaging.info(args.package, base=args.base)
    _print(args, json.loads(to_json(told)), told.text)
    return 0


def _targets(args: argparse.Namespace) -> int:
    record = []
    for target in TARGETS:
        missing = target.missing()
        how = "ready" if missing is None else f'pip install -e ".[{target.extra}]"'
        record.append(
            {"name": target.name, "ready": missing is None, "how": how, "types": target.capability.weight_types}
        )
    _print(args, record, lambda: "\n".join(f"{r['name']:12} {r['how']:40} {', '.join(r['types'])}" for r in record))
    return 0


def _demo(args: argparse.Namespace) -> int:
    return _told(args, demo(args.out))


def _package_commands(commands: Any, command: Callable[..., argparse.ArgumentParser]) -> None:
    made = command("pack", _pack, "pack an artefact, or a network's folder, for download")
    made.add_argument("artefact", metavar="ARTEFACT", type=Path, help="a file, or a folder with state, plan and grids")
    made.add_argument("--out", metavar="FILE", type=Path, required=True, help="the package, like model.fwp")
    made.add_argument("--base", metavar="OLD", type=Path, help="an earlier version that receivers have")
    made = command("unpack", _unpack, "give back exactly what was packed")
    made.add_argument("package", metavar="PACKAGE", type=Path, help="a package")
    made.add_argument("--out", metavar="PATH", type=Path, required=True, help="the file, or the folder of a network")
    made.add_argument("--base", metavar="OLD", type=Path, help="the earlier version that it was coded against")
    about = command("package", _package_info, "look at packages")
    about = about.add_subparsers(metavar="COMMAND", required=True)
    made = about.add_parser("info", help="what is in a package, and bits per weight by tensor beside the entropy")
    made.add_argument("package", metavar="PACKAGE", type=Path, help="a package")
    made.add_argument("--base", metavar="OLD", type=Path, help="the earlier version that it was coded against")
    # Left out, it must not overwrite the flag of `package` itself.
    made.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help="print one JSON document")


def _parser() -> _Parser:
    parser = _Parser(
        prog="featherweight",
        description="Make trained neural networks small and fast, and prove what that cost.",
        epilog=_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"featherweight {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    def command(name: str, run: Callable[[argparse.Namespace], int], text: str) -> argparse.ArgumentParser:
        made = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".", epilog=_CODES,
                                   formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
        made.add_argument("--json", action="store_true", help="print one JSON document")
        made.set_defaults(run=run)
        return made

    for name, run, text in (
        ("compress", _compress, "the main job: plan, make, correct, certify and report"),
        ("plan", _plan, "print and write a plan, and stop"),
        ("apply", _apply, "make, certify and report a plan, edited or not"),
    ):
        made = command(name, run, text)
        _model_arguments(made)
        _goal_arguments(made)
        _run_arguments(made)
        if name == "compress":
            _search_arguments(made)
        if name == "apply":
            made.add_argument("--plan", type=Path, required=True, metavar="FILE", help="a plan's YAML")
    _model_arguments(command("inspect", _inspect, "show a model's layers, what they cost, and what can't be changed"))
    _advise_arguments(command("advise", _advise, "say what would help on a target and what would not, and why"))
    _quantize_arguments(command("quantize", _quantize, "int8 without any data; proves nothing about accuracy"))
    made = command("recalibrate", _recalibrate, "fit a finished run's activation ranges to a new environment")
    _model_arguments(made)
    made.add_argument("--run", dest="run_folder", type=Path, required=True, metavar="DIR", help="the finished run")
    made.add_argument("--out", type=Path, required=True, metavar="DIR", help="where the new artefact goes")
    made = command("verify", _verify, "prove on test data what an artefact lost against the original")
    made.add_argument("original", metavar="ORIGINAL", type=Path, help="the original's file for the target")
    made.add_argument("artefact", metavar="ARTEFACT", type=Path, help="the artefact")
    made.add_argument("--data", metavar="DATA", required=True, help=_DATA)
    _image_arguments(made)
    _proof_arguments(made)
    made.add_argument("--target", default="litert", help="the runtime of both (default: litert)")
    made = command("benchmark", _benchmark, "time files side by side in their runtime")
    made.add_argument("files", metavar="FILE", nargs="+", type=Path, help="files of the target")
    made.add_argument("--target", default="litert", help="their runtime (default: litert)")
    made.add_argument("--runs", type=positive, default=100, help="timed runs of each (default: 100)")
    made.add_argument("--threads", type=positive, default=1, help="the runtime's threads (default: 1)")
    _package_commands(commands, command)
    command("targets", _targets, "list the targets, and how to install what they need")
    made = command("demo", _demo, "train a small network on handwritten digits and make it small for LiteRT")
    made.add_argument("--out", metavar="DIR", type=Path, default=Path("demo-run"), help="(default: demo-run)")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; the exit code is the return value."""
    words = list(sys.argv[1:] if argv is None else argv)
    stdout = sys.stdout
    try:
        args = _parser().parse_args(words, argparse.Namespace(stdout=stdout))
        with contextlib.redirect_stdout(sys.stderr if args.json else stdout):
            return int(args.run(args))
    except FeatherweightError as error:
        return _told_failure(error, stdout if "--json" in words else None)
    except OSError as error:
        return _told_failure(file_failure(error.filename or "a file", error), stdout if "--json" in words else None)
    except KeyboardInterrupt:
        sys.stderr.write(STOPPED)
        return EXIT_STOPPED
    except Exception as error:  # a fault of ours: its place is worth more than its words
        traceback.print_exc()
        fault = FeatherweightError("Nothing unexpected should happen.", repr(error), "report it with the lines above")
        return _told_failure(fault, stdout if "--json" in words else None)


def _told_failure(error: FeatherweightError, stdout: TextIO | None) -> int:
    """Tell a failure, as a document where ``stdout`` is given; its exit code."""
    if stdout is None:
        sys.stderr.write(f"featherweight: {error}\n")
    else:
        record = {"error": type(error).__name__, "rule": error.rule, "got": error.got, "try": error.remedy}
        stdout.write(json.dumps(record) + "\n")
    return error.exit_code

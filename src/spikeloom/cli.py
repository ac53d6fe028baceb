"""The command line. Each command says what it does in one line of help; the work is done elsewhere."""

import contextlib
import os
import shlex
import subprocess
import sys
import time
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

import psutil
import typer
from rich.console import Console
from rich.table import Table

from spikeloom import PROJECT_ROOT
from spikeloom.errors import NotRunning, SpikeloomError

INTERRUPTED = 130  # what a shell gives for SIGINT

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
console = Console()

Directory = Annotated[Path, typer.Option("--dir", help="Where the stack keeps its records, state and logs.")]
Kafka = Annotated[
    str | None,
    typer.Option("--kafka", help="Bootstrap servers; SPIKELOOM_KAFKA_* has these and TLS and SASL settings."),
]
DEFAULT_DIRECTORY = PROJECT_ROOT / ".spikeloom"


def main() -> None:
    """Run the command line; what a person can mend is said in a sentence, without a traceback."""
    try:
        app()
    except SpikeloomError as error:
        Console(stderr=True).print(f"[bold red]Error:[/] {_escaped(str(error))}", soft_wrap=True, highlight=False)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)


@app.callback()
def spikeloom() -> None:
    """Train spiking neural networks on streams, with a certificate of optimality."""


@app.command()
def up(
    directory: Directory = DEFAULT_DIRECTORY,
    task_managers: Annotated[int, typer.Option(min=1)] = 1,
    slots: Annotated[int, typer.Option(min=1, help="Of each task manager.")] = 4,
    solver: Annotated[bool, typer.Option(help="With the solver service.")] = True,
    foreground: Annotated[bool, typer.Option("--foreground", help="Stay, and stop the stack at Ctrl-C.")] = False,
) -> None:
    """Start Kafka, Flink and the solver service on this machine."""
    from spikeloom.local import Stack

    with contextlib.suppress(NotRunning):
        _print_status(Stack.attach(directory))
        console.print("It runs already; `spikeloom down` stops it.")
        return
    stack = Stack(directory, task_managers=task_managers, slots=slots, solver=solver)
    with console.status("Starting") as shown:
        stack.start(report=lambda step: shown.update(f"{step} ..."))
    if foreground:
        with stack:
            _print_status(stack)
            console.print("Ctrl-C stops it.")
            while True:
                time.sleep(1)
                for process in stack.processes.values():
                    process.check()
    stack.detach()
    _print_status(stack)
    console.print("It runs until `spikeloom down`.")


@app.command()
def down(
    directory: Directory = DEFAULT_DIRECTORY,
    delete: Annotated[bool, typer.Option("--delete", help="Delete its records, state and logs, too.")] = False,
) -> None:
    """Stop what `up` started."""
    from spikeloom.local import Stack

    try:
        stack = Stack.attach(directory)
        with console.status("Stopping ..."):
            stack.stop()
        console.print("Stopped.")
    except NotRunning:
        console.print(f"No stack runs in {directory}.")
    if delete:
        Stack(directory).delete_data()


@app.command()
def status(directory: Directory = DEFAULT_DIRECTORY) -> None:
    """Show the stack's processes and addresses; exit code 3 if none runs, 1 if something has died."""
    from spikeloom.local import Stack

    stack = Stack.attach(directory)
    _print_status(stack)
    for process in stack.processes.values():
        process.check()


@app.command()
def logs(
    name: Annotated[
        str | None, typer.Argument(help="A process, as `status` names it; all of them if left out.")
    ] = None,
    directory: Directory = DEFAULT_DIRECTORY,
    lines: Annotated[int, typer.Option("--lines", "-n", min=1)] = 30,
) -> None:
    """Show the ends of the logs, also those of a stack that has ended."""
    folder = directory / "logs"
    names = sorted({path.stem for path in folder.glob("*.log")} | {path.stem for path in folder.glob("*.out")})
    if name and name not in names:
        raise SpikeloomError(f"{folder} has no log of {name!r}; it has {', '.join(names) or 'none'}.")
    for each in [name] if name else names:
        for path in filter(Path.exists, (folder / f"{each}.log", folder / f"{each}.out")):
            text = path.read_text(errors="replace").splitlines()[-lines:]
            if text:
                console.rule(str(path), align="left")
                print(*text, sep="\n")


@app.command()
def env(directory: Directory = DEFAULT_DIRECTORY) -> None:
    """Print what `eval` needs for this shell's `flink` and every Kafka client to find the stack."""
    from spikeloom.local import Stack

    stack = Stack.attach(directory)
    found = {name: value for name, value in stack.environment.items() if os.environ.get(name) != value}
    found["PATH"] = os.pathsep.join([stack.environment["FLINK_BIN_DIR"], os.environ["PATH"]])
    for name, value in found.items():
        print(f"export {name}={shlex.quote(value)}")


@app.command(context_settings={"ignore_unknown_options": True, "allow_extra_args": True})
def test(context: typer.Context) -> None:
    """Run ruff, mypy and pytest; further arguments go to pytest."""
    checks = [["ruff", "check"], ["ruff", "format", "--check"], ["mypy"], ["pytest", *context.args]]
    # All of them run, and pytest last, so that its closing line is the last one.
    codes = [subprocess.run([sys.executable, "-m", *check], cwd=PROJECT_ROOT).returncode for check in checks]
    raise typer.Exit(next((code for code in codes if code), 0))


@app.command()
def bench(
    name: Annotated[str, typer.Argument(help="A file of bench/; `draw` renews the docs from the results.")],
    quick: Annotated[bool, typer.Option("--quick", help="Small sizes: a trial, no figures to quote.")] = False,
    results: Annotated[Path | None, typer.Option(help="Folder of the JSON file, instead of bench/results.")] = None,
    only: Annotated[str, typer.Option(help="Cases that match this pattern, of benchmarks of hours.")] = "",
) -> None:
    """Run one benchmark beside its peers, print its table and write bench/results/NAME.json."""
    files = (PROJECT_ROOT / "bench").glob("*.py")
    names = sorted(path.stem for path in files if "__main__" in path.read_text())
    if name not in names:
        raise SpikeloomError(
            f"expected one of {', '.join(names) or 'the files of bench/ (a checkout has it)'}; got {name!r}"
        )
    options = [
        *(["--quick"] if quick else []),
        *(["--results", str(results.resolve())] if results else []),
        *(["--only", only] if only else []),
    ]
    os.chdir(PROJECT_ROOT)
    os.execv(sys.executable, [sys.executable, "-m", f"bench.{name}", *options])


@app.command()
def demo(
    task: Annotated[
        str, typer.Option(help="digits, xor-10, addition-3, running-parity, ...; mnist-rows with --data.")
    ] = "digits",
    data: Annotated[Path | None, typer.Option(help="Folder with the task's files (mnist: the four IDX files).")] = None,
    json: Annotated[Path | None, typer.Option(help="Write the figures of the table here, too.")] = None,
    picture: Annotated[Path, typer.Option(help="Brain wave and accuracy over time.")] = Path("spikeloom-demo.png"),
    keep: Annotated[bool, typer.Option("--keep", help="Leave the stack up and show where to look.")] = False,
    directory: Directory = DEFAULT_DIRECTORY / "demo",
) -> None:
    """Stream a task through Kafka, Flink and the solver on this machine, and print what it achieved."""
    from spikeloom import report
    from spikeloom.demo import DIGITS_PER_SECOND, run_demo
    from spikeloom.local import Stack
    from spikeloom.tasks import load_task

    loaded = load_task(task, data)
    os.environ.setdefault("SPIKELOOM_SOLVER_EVERY_SECONDS", "2")  # a readout to look at every few seconds
    stack = Stack(directory, slots=4, solver=True)
    stack.delete_data()
    with console.status("Starting Kafka, Flink and the solver ...") as shown:
        stack.start(report=lambda step: shown.update(f"{step} ..."))
    with stack:
        achieved = run_demo(loaded, stack, console, pace=DIGITS_PER_SECOND if task == "digits" else None)
        console.print(report.table(achieved))
        report.plot(achieved, picture)
        console.print(f"Picture: {picture}")
        if json:
            report.write_json(achieved, json)
        if keep:
            stack.detach()
            _print_status(stack)
            console.print(f"It runs until `./spikeloom down --dir {directory}`.")


@app.command()
def register(
    model: Annotated[Path, typer.Argument(help="A model specification in YAML.")], kafka: Kafka = None
) -> None:
    """Check a model and publish it on the topic `models`."""
    from snn.model import ModelError, load_model
    from spikeloom.client import Client

    try:
        spec = load_model(model)
    except ModelError as error:
        raise SpikeloomError(str(error)) from None
    with Client(kafka) as client:
        fresh = client.register(spec)
    console.print(f"{spec.model} {'is registered' if fresh else 'was registered already'}, digest {spec.digest:016x}")


@app.command()
def calibrate(
    model: Annotated[Path, typer.Argument(help="A model specification in YAML.")],
    data: Annotated[Path, typer.Argument(help="Sequences of the kind it will see: .npz, .csv or IDX.")],
    out: Annotated[Path, typer.Argument(help="Where to write the model with the statistics that its law takes.")],
) -> None:
    """Give a model's witness law the statistics of data that it asks for."""
    from spikeloom.witnesses import calibrated_model

    out.write_text(calibrated_model(model, data))
    console.print(f"Written: {out}")


@app.command()
def witnesses(
    model: Annotated[Path, typer.Argument(help="A model specification in YAML.")],
    data: Annotated[Path | None, typer.Argument(help="Sequences: .npz, .csv or IDX; random ones if left out.")] = None,
    sequences: Annotated[int, typer.Option(min=1, help="How many of them to step through.")] = 256,
) -> None:
    """Show how often a model's witnesses fire, how many never or always do, and how many columns differ."""
    from spikeloom.witnesses import activity_table

    console.print(activity_table(model, data, sequences))


@app.command()
def push(
    model: Annotated[str, typer.Argument(help="Name of a registered model.")],
    file: Annotated[Path | None, typer.Argument(help="Sequences: .npz, .csv or IDX.")] = None,
    targets: Annotated[Path | None, typer.Option(help="IDX file of the classes.")] = None,
    task: Annotated[str | None, typer.Option(help="A built-in task's training sequences, instead of a file.")] = None,
    data: Annotated[Path | None, typer.Option(help="Folder with the task's files.")] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Timesteps a record; all of them if left out.")] = None,
    block: Annotated[int | None, typer.Option(min=1, help="Sequences a record; 256 KiB of them if left out.")] = None,
    quantise: Annotated[bool, typer.Option("--quantise", help="Round and clip inputs to the model's grid.")] = False,
    no_targets: Annotated[bool, typer.Option("--no-targets", help="Push for answers only.")] = False,
    kafka: Kafka = None,
) -> None:
    """Push sequences to the topic `sequences`, from a file or a built-in task."""
    from rich.progress import Progress

    from spikeloom.client import Client
    from spikeloom.data import load
    from spikeloom.tasks import load_task
    from wire.registry import RegistryError, find_model

    if (file is None) == (task is None):
        raise SpikeloomError("expected either a file or --task NAME")
    with Client(kafka) as client:
        try:
            spec = find_model(client.connection, model)
        except RegistryError as error:
            raise SpikeloomError(str(error)) from None
        loaded = load_task(task, data).train if task else load(file, spec.input, targets)  # type: ignore[arg-type]
        with Progress(console=console) as bars:
            bar = bars.add_task("pushing", total=len(loaded.inputs))
            done = client.push(
                spec,
                loaded.inputs,
                None if no_targets else loaded.targets,
                ids=loaded.ids,
                steps=steps,
                block=block,
                quantise=quantise,
                ends=task is not None,
                on_progress=lambda count: bars.advance(bar, count),
            )
    console.print(f"{len(done.ids):,} sequences in {done.records:,} records, {done.bytes / 2**20:,.1f} MiB")


def _print_status(stack) -> None:  # type: ignore[no-untyped-def]  # Stack is imported by the commands that need it
    addresses = {"kafka": stack.bootstrap, "jobmanager": stack.rest_url}
    table = Table("process", "pid", "state", "memory", "address", "metrics", box=None, header_style="bold")
    for name, process in stack.processes.items():
        alive = process.is_alive()
        used = sum(_resident(member) for member in process.group())
        table.add_row(
            name,
            str(process.pid),
            "[green]running[/]" if alive else "[red]dead[/]",
            f"{used / 2**20:,.0f} MiB" if alive else "",
            addresses.get(name, ""),
            _port(stack.metrics_urls.get(name, "")),
        )
    console.print(table)


def _port(url: str) -> str:
    port = urlsplit(url).port
    return f":{port}" if port else ""


def _resident(process: psutil.Process) -> int:
    try:
        return int(process.memory_info().rss)
    except psutil.Error:
        return 0


def _escaped(text: str) -> str:
    return text.replace("[", "\\[")

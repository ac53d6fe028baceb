"""The command line. Each command says what it does in one line of help; the work is done elsewhere."""

import contextlib
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


@app.command(context_settings={"ignore_unknown_options": True, "allow_extra_args": True})
def test(context: typer.Context) -> None:
    """Run ruff, mypy and pytest; further arguments go to pytest."""
    checks = [["ruff", "check"], ["ruff", "format", "--check"], ["mypy"], ["pytest", *context.args]]
    # All of them run, and pytest last, so that its closing line is the last one.
    codes = [subprocess.run([sys.executable, "-m", *check], cwd=PROJECT_ROOT).returncode for check in checks]
    raise typer.Exit(next((code for code in codes if code), 0))


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

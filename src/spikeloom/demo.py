"""The whole product on one machine: stream a task through Kafka, Flink and the solver, then say what came of it."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from spikeloom import PROJECT_ROOT, autoregressive
from spikeloom.client import Client
from spikeloom.data import Data
from spikeloom.errors import SpikeloomError
from spikeloom.local import Stack
from spikeloom.local.process import end_commands
from spikeloom.report import Achieved
from spikeloom.tasks import Task
from spikeloom.watch import Answer, Watch, rate

DIGITS_PER_SECOND = 100  # paces the small task, so that the readout is solved many times while the stream runs
PORTION = 4000  # sequences pushed between two looks at what came
FIRST_SHARE = 0.1  # of the stream, at most PORTION, goes ahead of the first readout: before it nothing can be tested
PATIENCE_S = 300  # without any news: a solve on a busy laptop takes a minute at most

JOBS = ("roll_out", "predict")


class DemoError(SpikeloomError):
    """The demo could not end; the text says what it waited for."""


def run_demo(task: Task, stack: Stack, console: Console, pace: float | None) -> Achieved:
    """Run `task` on a started stack. `pace`: sequences pushed a second, as fast as Kafka takes them if None."""
    model, (train, test) = task.model, (task.train, task.test)
    with Client(stack.connection) as client, Watch(stack.connection, model.model) as watch:
        client.register(model)
        with console.status("Submitting the Flink jobs ..."), ThreadPoolExecutor() as pool:
            try:
                list(pool.map(lambda job: _submit(stack, job, model.model), JOBS))
            except KeyboardInterrupt:
                end_commands()  # which the pool would wait for
                raise
        with _bars(console) as bars:
            waiter = _Waiter(stack, watch, bars, console, len(train.inputs), _rows(train))
            started = time.monotonic()
            pushing = bars.add_task("pushed", total=len(train.inputs))
            for count in _push(client, task, pace):
                bars.advance(pushing, count)
                waiter.until("the first readout", waiter.any_readout)
            waiter.until("every training sequence to be in a readout", waiter.all_trained)
            waiter.until("every training sequence to be answered", waiter.all_answered)
            seconds = time.monotonic() - started
            with watch.lock:
                streamed = list(watch.answers)
            held_out = _share_right(task, test, client, waiter)
            longer = None if task.longer is None else _share_right(task, task.longer, client, waiter)
        with watch.lock:
            return _achieved(task, watch, streamed, held_out, longer, seconds, pace, stack.memory())


def _submit(stack: Stack, job: str, model: str) -> str:
    return stack.submit(PROJECT_ROOT / "flink_jobs" / f"{job}.py", "--model", model)


def _push(client: Client, task: Task, pace: float | None) -> Iterator[int]:
    """Push the training sequences in portions; how many went."""
    inputs, targets = task.train.inputs, task.train.targets
    assert targets is not None
    begin, end = 0, min(PORTION, int(len(inputs) * FIRST_SHARE))
    while begin < len(inputs):
        began = time.monotonic()
        yield len(client.push(task.model, inputs[begin:end], targets[begin:end], ends=True).ids)
        if pace:
            time.sleep(max(0.0, began + (end - begin) / pace - time.monotonic()))
        begin, end = end, end + (max(1, int(pace / 4)) if pace else PORTION)


def _rows(data: Data) -> int:
    """What of it is trained on: sequences, or timesteps where each has a target."""
    targets = np.asarray(data.targets)
    return len(targets) if targets.ndim == 1 else int(np.prod(targets.shape[:2]))


def _share_right(task: Task, data: Data, client: Client, waiter: "_Waiter") -> tuple[int, float]:
    """How many sequences were asked that no readout was trained on, and the share of right answers of the newest one:
    of sequences, or of timesteps where the model answers at each."""
    truth = np.asarray(data.targets).reshape(len(data.inputs), -1, len(task.model.readout.all_heads))
    if task.feedback is not None:
        bar = waiter.bar("own carry", data.inputs.shape[1])
        said = autoregressive.answer(client, task.model, data.inputs, task.feedback, bar)
    else:
        said = waiter.answers_to(client.push(task.model, data.inputs, ends=True).ids).reshape(truth.shape)
    return len(truth), float((said == truth).all(axis=2).mean())


class _Waiter:
    """Waits on what the watch sees, and shows it meanwhile."""

    def __init__(self, stack: Stack, watch: Watch, bars: Progress, console: Console, count: int, rows: int) -> None:
        self._stack, self._watch, self._bars, self._console, self._count = stack, watch, bars, console, count
        self._rows = rows
        self._learned = bars.add_task("in the readout", total=rows)
        self._answered = bars.add_task("answered", total=count)
        self._shown = 0

    def until(self, what: str, happened: Callable[[], bool]) -> None:
        news, deadline = -1, time.monotonic() + PATIENCE_S
        while not happened():
            for process in self._stack.processes.values():
                process.check()
            if (seen := self.look()) != news:
                news, deadline = seen, time.monotonic() + PATIENCE_S
            if time.monotonic() > deadline:
                raise DemoError(f"Waited {PATIENCE_S} s for {what} without any news; `spikeloom logs` shows why.")
            time.sleep(0.1)
        self.look()

    def look(self) -> int:
        """Show what came; a number that grows with every piece of news."""
        self._watch.check()
        with self._watch.lock:
            readouts, answers = self._watch.readouts, len(self._watch.answers)
            for readout in readouts[self._shown :]:
                self._console.print(
                    f"  readout {readout.version}: {readout.rows:,} rows, {readout.columns:,} columns, support "
                    f"{len(readout.support):,}, gap {readout.relative_gap:.1e}, {readout.solve_seconds:.1f} s",
                    highlight=False,
                )
            self._shown = len(readouts)
            self._bars.update(self._learned, completed=readouts[-1].rows if readouts else 0)
            self._bars.update(self._answered, completed=min(answers, self._count))
            return self._shown + answers

    def bar(self, name: str, total: int) -> Callable[[int], None]:
        task = self._bars.add_task(name, total=total)
        return lambda done: self._bars.advance(task, done)

    def answers_to(self, ids: npt.NDArray[np.uint64]) -> npt.NDArray[np.int32]:
        """[N, S * H] the classes that the newest readout gives these sequences, once all are there."""
        row, advance = {int(one): at for at, one in enumerate(ids)}, self.bar("held out", len(ids))
        found: dict[int, Answer] = {}

        def all_there() -> bool:
            before = len(found)
            with self._watch.lock:
                found.update({row[a.id]: a for a in self._watch.answers if a.id in row})
            advance(len(found) - before)
            return len(found) == len(ids)

        self.until("every held-out sequence to be answered", all_there)
        with self._watch.lock:
            last = self._watch.readouts[-1].version
        early = sum(answer.version != last for answer in found.values())
        if early:
            raise DemoError(f"{early} held-out sequences were answered by an older readout than {last}.")
        return np.array([found[at].predicted for at in range(len(ids))], np.int32)

    def any_readout(self) -> bool:
        self.look()
        with self._watch.lock:
            return bool(self._watch.readouts)

    def all_trained(self) -> bool:
        with self._watch.lock:
            newest = self._watch.readouts[-1] if self._watch.readouts else None
            return newest is not None and newest.rows >= self._rows and newest.solved

    def all_answered(self) -> bool:
        with self._watch.lock:
            return len({answer.id for answer in self._watch.answers}) >= self._count


def _right(answer: Answer, heads: int) -> list[bool]:
    """For each of its timesteps whether all heads are right."""
    said, truth = (np.array(numbers).reshape(-1, heads) for numbers in (answer.predicted, answer.target))
    return [bool(right) for right in (said == truth).all(axis=1)]


def _achieved(
    task: Task,
    watch: Watch,
    streamed: list[Answer],
    held_out: tuple[int, float],
    longer: tuple[int, float] | None,
    seconds: float,
    pace: float | None,
    memory: dict[str, int],
) -> Achieved:
    last = watch.readouts[-1]
    tested = sorted((a for a in streamed if not a.in_training), key=lambda answer: answer.answered_us)
    rows = [(a.answered_us, right) for a in tested for right in _right(a, len(task.model.readout.all_heads))]
    return Achieved(
        task=task.model.model,
        sequences=len(task.train.inputs),
        seconds=seconds,
        sequences_per_second=len(task.train.inputs) / seconds,
        pushed_per_second=pace,
        roll_out_per_second=rate(watch.rolled_out_us, len(task.train.inputs)),
        predict_per_second=rate([(a.answered_us, 1) for a in streamed], len(streamed)),
        columns=last.columns,
        support=len(last.support),
        relative_gap=last.relative_gap,
        test_then_train_sequences=len(tested),
        test_then_train_accuracy=float(np.mean([right for _, right in rows])) if rows else float("nan"),
        held_out_sequences=held_out[0],
        held_out_accuracy=held_out[1],
        longer_accuracy=None if longer is None else longer[1],
        readout_versions=len(watch.readouts),
        dead_letters=len(watch.dead_letters),
        peak_memory_mib={name: used // 2**20 for name, used in memory.items()},
        waves={layer: wave.mean().tolist() for layer, wave in sorted(watch.waves.items())},
        neurons={layer: sum(wave.neurons.values()) for layer, wave in sorted(watch.waves.items())},
        tested=rows,
        published=[(r.published_us, r.version) for r in watch.readouts],
    )


@contextmanager
def _bars(console: Console) -> Iterator[Progress]:
    columns = (TextColumn("{task.description:>15}"), BarColumn(40), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as bars:
        yield bars

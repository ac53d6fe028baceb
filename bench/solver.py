"""Certified gap against seconds: our solvers beside seven others, from zero to each of their answers, one core.

min over (W, b):  (1/N) sum_i loss(D_i W + b, y_i) + beta penalty(W),   D binary [N, P], b free

Problems: `bench/dictionaries.py` with squared and logistic loss and L1 (one output: a question of two answers), squared
and multinomial loss and the group penalty (ten classes); beta a share of the smallest beta at which W = 0.

Measured: seconds of one run from zero, in a process of its own; the memory that it takes beyond the data; and the
relative gap of the W that it returns, (primal - dual) / max(1, primal). Gaps are ours to compute, after the run and
whoever ran: `certificate.certify` of W with the best intercept for it, which can only help. A run of another length is
another run. Runs shorter than SHORT are medians of three. A solver goes up its efforts until it is at 1e-6 or a run
would pass the case's limit of seconds.

Ours: `solver_service.solvers.solve` on packed rows, everything included, at tolerances of 1e-2 to 1e-6.

Peers (`bench/solver_peers.py`), each where it states the same objective, on D in float64, in the layout it likes (an
array or sparse) made beforehand: liblinear and saga as scikit-learn has them (logistic L1), celer (squared), skglm (all
but multinomial; also its coordinate descent on D'D), cyanure and adelie (everything), cvxpy with Clarabel (everything,
small dictionaries only: elsewhere its first answer takes longer than any limit here).
- liblinear penalises its intercept, here 10,000 times less than a coefficient;
- celer has no intercept in its logistic regression and is left out there;
- adelie asks for numpy below 2 and so is not among our requirements; it runs with 2 all the same, and takes part after
  `pip install ipython && pip install --no-deps adelie==1.1.52`.
A peer that is not installed is named and left out.
"""

import logging
import multiprocessing
import time
import warnings
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from multiprocessing.connection import Connection
from typing import NamedTuple

import numpy as np
from threadpoolctl import threadpool_limits

from bench import harness
from bench.dictionaries import Dictionary, digits, mnist, motions, text, xor
from bench.harness import Report
from bench.solver_peers import PEERS, Design, Problem, Run
from snn.bits import BitMatrix
from solver_service.certificate import beta_max, certify
from solver_service.fit import Samples
from solver_service.losses import LOSSES, Array
from solver_service.penalties import PENALTIES, PenaltyName
from solver_service.solvers import solve

SOLVED = 1e-6
GAP, MEMORY = "smallest gap", "memory"
UNITS = {GAP: "relative", MEMORY: "MB"}  # else seconds
GOALS = {"to 1e-3": 1e-3, "to 1e-6": SOLVED}
TOLERANCES = (1e-2, 1e-3, SOLVED)
OURS_LIMIT = 200.0  # seconds
SHORT = 0.3  # seconds; runs below it are repeated
RUNS = 3
SMALL_ROWS = 64
ROUND_OFF = 1e-16
Kinds = tuple[tuple[str, PenaltyName], ...]  # losses with penalties
L1: Kinds = (("squared", "l1"), ("logistic", "l1"))
GROUP: Kinds = (("squared", "group"), ("multinomial", "group"))


class Answer(NamedTuple):
    """W [P, C], the seconds it took, and the bytes by which it raised the peak of the process."""

    w: Array
    seconds: float
    memory: float


class Curve(NamedTuple):
    """(seconds, certified relative gap) of each run; the most bytes that one took."""

    points: list[tuple[float, float]]
    memory: float


class Cases(NamedTuple):
    """Problems of one dictionary. `limits`: for each beta / beta_max the seconds that a run of a peer may take."""

    make: Callable[[], Dictionary]
    kinds: Kinds
    limits: Mapping[float, float]


CASES = [
    Cases(partial(xor, 10), L1, {0.01: 3}),
    Cases(partial(xor, 13), L1, {0.1: 3, 0.01: 30, 0.001: 3}),
    Cases(partial(mnist, 2000), L1 + GROUP, {0.1: 3, 0.01: 3, 0.001: 3}),
    Cases(partial(mnist, 5000), L1 + GROUP, {0.01: 3}),
    Cases(partial(mnist, 10_000), L1 + GROUP, {0.01: 3}),
    Cases(partial(digits, 100), L1 + GROUP, {0.01: 10}),
    Cases(partial(motions, 2000), L1 + GROUP, {0.01: 3}),
    Cases(partial(text, 2000), L1 + GROUP, {0.01: 3}),
]
QUICK = [Cases(partial(digits, 24), L1, {0.1: 4})]


def run(report: Report) -> None:
    absent = [name for name, peer in PEERS.items() if not peer.installed]
    if absent:
        report.say(f"not installed, left out: {', '.join(absent)}")
    for cases in QUICK if report.quick else CASES:
        dictionary = cases.make()
        design = Design(BitMatrix.from_rows(dictionary.rows, dictionary.columns))
        report.say(f"{dictionary.name}, density {design.density:.2f}")
        for loss, penalty in cases.kinds:
            for relative_beta, limit in cases.limits.items():
                compare(report, Question(dictionary, loss, penalty, relative_beta), design, limit)


class Question(NamedTuple):
    """A problem as we take it: packed rows and targets."""

    dictionary: Dictionary
    loss: str
    penalty: PenaltyName
    relative_beta: float

    def __str__(self) -> str:
        return f"{self.dictionary.name}, {self.loss} {self.penalty}, {self.relative_beta:g}"

    def fit(self) -> Samples:
        rows, columns, classes, answers = self.dictionary[1:]
        one_output = (self.loss, self.penalty) in L1
        targets = answers[:, None].astype(float) if one_output else np.eye(classes.max() + 1)[classes]
        return Samples(LOSSES[self.loss], BitMatrix.from_rows(rows, columns), targets)

    def answer(self, tolerance: float) -> Array:
        return solve(self.fit(), self.penalty, self.relative_beta, tolerance).coefficients

    def compile(self) -> None:
        """What the answer will call: a few rows are enough."""
        d = self.dictionary
        few = d._replace(rows=d.rows[:SMALL_ROWS], classes=d.classes[:SMALL_ROWS], answers=d.answers[:SMALL_ROWS])
        self._replace(dictionary=few).answer(SOLVED)


def compare(report: Report, question: Question, design: Design, limit: float) -> None:
    case, fit, penalty = str(question), question.fit(), PENALTIES[question.penalty]
    problem = Problem(design, fit, penalty, question.relative_beta * beta_max(fit, penalty))
    question.compile()
    zero = gap(problem, np.zeros((fit.columns, fit.outputs)))
    ours = curve(report, problem, question.answer, TOLERANCES, OURS_LIMIT)
    mine = figures(zero, ours)
    for metric, value in mine.items():
        report.add(case, metric, UNITS.get(metric, "s"), value, curve=ours.points if metric == GAP else None)
    for name, peer in PEERS.items():
        taking_part = peer.installed and not (peer.compiles and report.quick)
        if taking_part and problem.kind in peer.kinds and peer.takes(problem):
            report.say(f"{case}: {name}")
            theirs = curve(report, problem, peer.prepare(problem), peer.efforts, limit)
            for metric, value in figures(zero, theirs).items():
                if metric in mine:
                    report.add(
                        case, metric, UNITS.get(metric, "s"), mine[metric], peer=name, peer_value=value,
                        curve=theirs.points if metric == GAP else None,
                    )  # fmt: skip


def figures(zero: float, taken: Curve) -> dict[str, float]:
    """Seconds to each goal that was reached, the smallest gap, at first that of W = 0, and megabytes."""
    reached = {goal: [seconds for seconds, left in taken.points if left <= most] for goal, most in GOALS.items()}
    first = {goal: min(seconds) for goal, seconds in reached.items() if seconds}
    memory = {MEMORY: taken.memory / 1e6} if taken.points else {}
    return {**first, GAP: min([zero, *(left for _, left in taken.points)]), **memory}


def curve(report: Report, problem: Problem, run: Run, efforts: Iterable[float], limit: float) -> Curve:
    """At rising efforts, as far as `limit` lets it."""
    points: list[tuple[float, float]] = []
    memory = 1.0
    for effort in efforts:
        try:
            answer = timed(partial(run, effort), limit, 1 if report.quick else RUNS)
        except Stopped as stopped:
            report.say(f"at effort {effort:g}: {stopped}")
            break
        memory = max(memory, answer.memory)
        if np.isfinite(answer.w).all():
            points.append((answer.seconds, gap(problem, answer.w)))
            if points[-1][1] <= SOLVED:
                break
        if 2 * answer.seconds > limit:  # the next would pass it
            break
    return Curve(points, memory)


def gap(problem: Problem, w: Array) -> float:
    """Certified, of W with its best intercept."""
    certificate = certify(problem.fit, problem.penalty, problem.beta, w, problem.fit.intercept(w))
    return max(ROUND_OFF, certificate.relative_gap)


class Stopped(Exception):
    """A run without an answer."""


def timed(run: Callable[[], Array], limit: float, runs: int) -> Answer:
    """A run in a fork of this process; the one of median seconds where they are short."""
    answers: list[Answer] = []
    while not answers or (answers[0].seconds < SHORT and len(answers) < runs):
        answers.append(_in_fork(run, limit))
    return sorted(answers, key=lambda answer: answer.seconds)[len(answers) // 2]


def _in_fork(run: Callable[[], Array], limit: float) -> Answer:
    """Raises Stopped after `limit` seconds, or with what the run raised."""
    harness.trim()  # what lies free here would hide what the run takes there
    context = multiprocessing.get_context("fork")
    answer, other = context.Pipe(duplex=False)
    process = context.Process(target=_answer, args=(run, other), daemon=True)
    process.start()
    other.close()
    try:
        if not answer.poll(limit):
            raise Stopped(f"no answer within {limit:g} s")
        result = answer.recv()
    except EOFError as error:
        raise Stopped("the process died") from error
    finally:
        process.kill()
        process.join()
        answer.close()
    if isinstance(result, str):
        raise Stopped(result)
    return Answer(*result)


def _answer(run: Callable[[], Array], to: Connection) -> None:
    warnings.simplefilter("ignore")  # of convergence: that is what the gap is for
    logging.disable()
    with threadpool_limits(1):
        before, begun = harness.highest(), time.perf_counter()
        try:
            w = run()
        except Exception as error:  # a library's own
            to.send(f"{type(error).__name__}: {error}")
        else:
            to.send((w, time.perf_counter() - begun, harness.highest() - before))


if __name__ == "__main__":
    harness.main("solver", run, cores=1)

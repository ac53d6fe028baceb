"""When it pays to let Flink make the sums: what a solver's core has to do for rows, and for sums of them.

Data: that of `solver_stream`. All on one core, without Kafka and Flink, by the very code that the service and the job
run, on records as they travel:

- rows: `Trainer.ingest` reads records of spike columns, pairs them and counts them into the columns.
- sums: `SumsTrainer.ingest` reads the sums of one group over MOST_SUMMED samples; for less it takes as long.
- a task of the job: `GramOperator`'s way of those samples, from the records of spike columns to those of `gram`.

A solver reads GROUPS sums every EMIT_MS, whatever the rate is, and rows one by one. So reading sums is less work from
the rate on where both take equally long, and fewer bytes from the rate on where both have equally many.
"""

from bench import harness
from bench.harness import Report
from bench.solver_stream import BLOCK, C, Size, Stream, model
from operators.gram import EMIT_MS, GROUPS
from operators.meeting import Meeting
from snn.bits import BitMatrix
from snn.model import ModelSpec
from snn.readout import rows_of
from snn.sums import of_rows
from solver_service.dictionary import COUNT_ROWS
from solver_service.sums_trainer import SumsTrainer
from solver_service.trainer import Trainer
from solver_service.training import Training
from wire.codec import MOST_SUMMED, decode_columns, encode_columns, encode_sums

WIDTHS = (512, 2000, 10_000)
RUNS = 3


class Store(dict[str, bytes]):
    """Flink's map state, in memory."""

    put, remove = dict.__setitem__, dict.__delitem__


def run(report: Report) -> None:
    for width in WIDTHS[:1] if report.quick else WIDTHS:
        compare(report, width)


def compare(report: Report, width: int) -> None:
    spec, stream = model(Size(width, 0, ())), Stream(width)
    first, records = records_of(spec, stream), records_of(spec, stream)
    by_rows, by_sums = Trainer(spec), SumsTrainer(spec)
    read(by_rows, first)
    read(by_sums, summed(spec, first))
    rows_before, sums_before, sums = by_rows.freeze(), by_sums.freeze(), summed(spec, records)
    samples = BLOCK * len(records)
    taken = harness.interleaved(
        {
            "rows": lambda: read(Trainer(spec, rows_before), records),
            "sums": lambda: read(SumsTrainer(spec, sums_before), sums),
            "job": lambda: summed(spec, records),
        },
        runs=1 if report.quick else RUNS,
    )
    row, task = taken.seconds["rows"] / samples, taken.seconds["job"] / samples
    a_second = GROUPS * 1000 / EMIT_MS  # sums
    case = f"P={width:,} C={C}"
    report.add(case, "rows that a solver's core reads", "rows/s", 1 / row, runs=taken.runs)
    report.add(case, "rows that a task of the job sums", "rows/s", 1 / task, runs=taken.runs)
    report.add(case, "a solver's core, reading sums", "%", 100 * a_second * taken.seconds["sums"], runs=taken.runs)
    report.add(case, "less work from", "rows/s", a_second * taken.seconds["sums"] / row, runs=taken.runs)
    fewer = a_second * sum(map(len, sums)) * samples / sum(map(len, records))
    report.add(case, "fewer bytes from", "rows/s", fewer)


def records_of(spec: ModelSpec, stream: Stream) -> list[bytes]:
    """As many as make the solver count them."""
    return [encode_columns(spec, stream.record()) for _ in range(-(-COUNT_ROWS // BLOCK))]


def read(trainer: Training, records: list[bytes]) -> None:
    for record in records:
        trainer.ingest(record)


def summed(spec: ModelSpec, records: list[bytes]) -> list[bytes]:
    meeting = Meeting(spec, 1, Store())
    for record in records:
        meeting.offer(decode_columns(record, spec), record)
    whole = meeting.take()
    assert whole is not None
    assert len(whole.ids) <= MOST_SUMMED
    assert whole.targets.numbers is not None
    rows = rows_of(whole.ids, whole.bits, whole.targets.numbers, spec.readout)
    spikes = BitMatrix.from_rows(rows.bits)
    return list(encode_sums(spec, whole.ids, 1, of_rows(spikes, rows.ids, rows.targets), spikes.gram()))


if __name__ == "__main__":
    harness.main("gram", run, cores=1)

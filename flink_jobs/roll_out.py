"""sequences -> (lane, shard) -> roll-out -> spike-columns, brain-waves, dead-letters.

    flink run -py flink_jobs/roll_out.py --model digits

A job without a savepoint reads `sequences` from the start of what Kafka keeps; the solver drops samples it has. Where
the witnesses are trained, `witnesses` is broadcast to the roll-out, which steps what it keeps again with each version;
where the dictionary grows, so is `candidates`, and what these are worth goes to `prices`.
"""

import sys

from flink_jobs import wiring
from operators.changing import NEWEST, ChangingRollOutOperator, unfit
from operators.growing import GrowingRollOutOperator
from operators.roll_out import RollOutOperator
from operators.tags import BRAIN_WAVES, DEAD_LETTERS, PRICES, RECORD
from wire.registry import find_model

WAIT_MS = 300  # columns wait for a checkpoint anyway, and every bundle costs milliseconds in Java and in Python


def main() -> None:
    options = wiring.arguments("Step LIF neurons through sequences and emit spike columns.", WAIT_MS)
    kafka = wiring.connection(options)
    model = find_model(kafka, options.model)
    group = f"spikeloom-roll-out-{model.model}"

    env = wiring.environment(options.wait_ms)
    sequences = wiring.keyed_sequences(
        env, kafka, group, "earliest-offset", options.wait_ms, model, model.witnesses.shards
    )
    if model.changing:
        if reason := unfit(model):
            sys.exit(reason)
        told, kind = wiring.witnesses(env, kafka, group), ChangingRollOutOperator
        if model.growing is not None:
            told, kind = told.union(wiring.candidates(env, kafka, group)), GrowingRollOutOperator
        connected = sequences.connect(told.broadcast(NEWEST))
        columns = connected.process(kind(model.spec_json, options.expire_after), output_type=RECORD)
    else:
        columns = sequences.process(RollOutOperator(model.spec_json, options.expire_after), output_type=RECORD)
    columns = columns.name("roll-out").uid("roll-out")
    wiring.sink(columns, kafka, "spike-columns", transactions=group)
    if model.growing is not None:
        wiring.sink(columns.get_side_output(PRICES), kafka, "prices")
    wiring.sink(columns.get_side_output(BRAIN_WAVES), kafka, "brain-waves")
    wiring.sink(columns.get_side_output(DEAD_LETTERS), kafka, "dead-letters")
    env.execute(f"spikeloom roll-out {model.model}")


if __name__ == "__main__":
    main()

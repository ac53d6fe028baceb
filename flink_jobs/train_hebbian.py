"""sequences -> the model's only lane -> emotion-driven Hebbian learning -> predictions, witnesses, brain-waves,
dead-letters.

    flink run -py flink_jobs/train_hebbian.py --model parity

Weights leave exactly once, answers at least once. A job without a savepoint learns anew, from the start of what Kafka
keeps; where that is all that there was, it learns the same weights again, bit for bit.
"""

import sys

from flink_jobs import wiring
from operators.hebbian import HebbianOperator
from operators.tags import BRAIN_WAVES, DEAD_LETTERS, RECORD, WITNESSES
from wire.registry import find_model

WAIT_MS = 10  # an answer passes some such waits


def main() -> None:
    options = wiring.arguments("Learn from labelled sequences by the emotion-driven Hebbian rule.", WAIT_MS)
    kafka = wiring.connection(options)
    model = find_model(kafka, options.model)
    if model.hebbian is None:
        sys.exit(f"model {model.model}: expected a section `hebbian` that says what is learned, found none")
    group = f"spikeloom-hebbian-{model.model}"

    env = wiring.environment(options.wait_ms)
    sequences = wiring.keyed_sequences(env, kafka, group, "earliest-offset", options.wait_ms, model)
    predictions = (
        sequences.process(HebbianOperator(model.spec_json, options.expire_after), output_type=RECORD)
        .name("hebbian")
        .uid("hebbian")
    )
    wiring.sink(predictions, kafka, "predictions")
    wiring.sink(predictions.get_side_output(WITNESSES), kafka, "witnesses", group, wiring.LARGEST_WEIGHTS)
    wiring.sink(predictions.get_side_output(BRAIN_WAVES), kafka, "brain-waves")
    wiring.sink(predictions.get_side_output(DEAD_LETTERS), kafka, "dead-letters")
    env.execute(f"spikeloom train_hebbian {model.model}")


if __name__ == "__main__":
    main()

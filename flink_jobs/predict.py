"""sequences -> lane; readouts -> broadcast; both -> prediction -> predictions, dead-letters.

    flink run -py flink_jobs/predict.py --model digits

At least once: an answer does not wait for a checkpoint, and carries the sequence id by which repeats are told.
"""

from flink_jobs import wiring
from operators.predict import READOUTS, PredictOperator
from operators.tags import DEAD_LETTERS, RECORD
from wire.registry import find_model

WAIT_MS = 10  # an answer passes some such waits


def main() -> None:
    options = wiring.arguments("Answer sequences with the newest readout.", WAIT_MS)
    kafka = wiring.connection(options)
    model = find_model(kafka, options.model)
    group = f"spikeloom-predict-{model.model}"

    env = wiring.environment(options.wait_ms)
    sequences = wiring.keyed_sequences(env, kafka, group, "group-offsets", options.wait_ms, model)
    readouts = wiring.readouts(env, kafka, group)
    predictions = (
        sequences.connect(readouts.broadcast(READOUTS))
        .process(PredictOperator(model.spec_json, options.expire_after), output_type=RECORD)
        .name("predict")
        .uid("predict")
    )
    wiring.sink(predictions, kafka, "predictions")
    wiring.sink(predictions.get_side_output(DEAD_LETTERS), kafka, "dead-letters")
    env.execute(f"spikeloom predict {model.model}")


if __name__ == "__main__":
    main()

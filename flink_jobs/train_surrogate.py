"""sequences, weights -> worker -> average -> weights, witnesses, dead-letters: surrogate gradients, distributed.

    flink run -py flink_jobs/train_surrogate.py --model digits

For a model with `training`. Weights return through their topic, which is the truth about the rounds that were done
(operators/rounds.py): from a savepoint or a checkpoint the job goes on where it was, and without one from the newest
weights on the topic, with the sequences that come from then on.
"""

import sys

from flink_jobs import wiring
from operators.round_average import RoundAverage
from operators.surrogate_worker import SurrogateWorker, ToWorkers, keys_of_lanes
from operators.tags import DEAD_LETTERS, KEYED_RECORD, RECORD, WITNESSES
from wire.registry import find_model, read_weights_version

WAIT_MS = 20  # a round passes some such waits, and nobody trains meanwhile


def main() -> None:
    options = wiring.arguments("Train witnesses and readout by surrogate gradients.", WAIT_MS)
    kafka = wiring.connection(options)
    model = find_model(kafka, options.model)
    training = model.training
    if training is None:
        sys.exit(f"model {model.model}: expected `training`, got none; say in the model how it is to be trained")
    group, spec = f"spikeloom-train-surrogate-{model.model}", model.spec_json
    history = read_weights_version(kafka, model)

    env = wiring.environment(options.wait_ms)
    sequences = wiring.keyed_sequences(
        env, kafka, group, "group-offsets", options.wait_ms, model, keys=keys_of_lanes(model)
    )
    weights = wiring.weights(env, kafka, group)
    for_workers = weights.flat_map(ToWorkers(spec, training.workers), output_type=KEYED_RECORD)
    for_average = weights.flat_map(ToWorkers(spec, 1), output_type=KEYED_RECORD)
    trained = sequences.connect(wiring.keyed(for_workers.name("weights to workers").uid("to-workers"))).process(
        SurrogateWorker(spec, options.expire_after, history), output_type=KEYED_RECORD
    )
    trained = trained.name("worker").uid("worker")
    averaged = wiring.keyed(trained).connect(wiring.keyed(for_average.name("weights to average").uid("to-average")))
    published = averaged.process(RoundAverage(spec, history), output_type=RECORD).name("average").uid("average")
    wiring.sink(published, kafka, "weights", largest=wiring.LARGEST_WEIGHTS)
    wiring.sink(published.get_side_output(WITNESSES), kafka, "witnesses", largest=wiring.LARGEST_WEIGHTS)
    letters = trained.get_side_output(DEAD_LETTERS).union(published.get_side_output(DEAD_LETTERS))
    wiring.sink(letters, kafka, "dead-letters")
    env.execute(f"spikeloom train-surrogate {model.model}")


if __name__ == "__main__":
    main()

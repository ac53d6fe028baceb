"""spike-columns -> group of samples -> inner products of all columns -> gram, dead-letters.

    flink run -py flink_jobs/gram.py --model digits

For a stream that has outgrown one solver: the solver then reads sums (SPIKELOOM_SOLVER_GRAM_MODELS names the model),
and what it has to do depends on the number of columns and groups, no longer on the rate.

Exactly once from savepoint to savepoint. A job without one goes on where the last one's checkpoints had got to, without
the samples that waited there; so that none is counted twice, the solver refuses sums with samples that it has.
"""

import sys

from flink_jobs import wiring
from operators.gram import GramOperator, ToGroup, groups_of
from operators.tags import DEAD_LETTERS, KEYED_RECORD, RECORD
from wire.registry import find_model

WAIT_MS = 300  # sums wait for seconds anyway


def main() -> None:
    parser = wiring.parser("Sum the inner products of spike columns.", WAIT_MS)
    parser.add_argument(
        "--groups",
        type=int,
        metavar="N",
        help="sums side by side: the parallelism that can be used, and what the solver reads. Keep it with a savepoint",
    )
    options = parser.parse_args()
    kafka = wiring.connection(options)
    model = find_model(kafka, options.model)
    try:
        groups = groups_of(model, options.groups)
    except ValueError as error:
        sys.exit(str(error))
    group = f"spikeloom-gram-{model.model}"

    env = wiring.environment(options.wait_ms)
    records = wiring.spike_columns(env, kafka, group)
    by_group = records.flat_map(ToGroup(model.spec_json, groups), output_type=KEYED_RECORD).name("group").uid("group")
    sums = wiring.keyed(by_group).process(GramOperator(model.spec_json, groups), output_type=RECORD)
    sums = sums.name("gram").uid("gram")
    wiring.sink(sums, kafka, "gram", transactions=group)
    wiring.sink(sums.get_side_output(DEAD_LETTERS), kafka, "dead-letters")
    env.execute(f"spikeloom gram {model.model}")


if __name__ == "__main__":
    main()

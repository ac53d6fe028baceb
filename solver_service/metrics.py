"""What the solver service tells Prometheus."""

from prometheus_client import Counter, Gauge, Histogram

MODEL = ("model",)
SECONDS = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 50, 100, 250, 600)  # 0.2 s for digits to 40 s for MNIST at .01

DICTIONARY_ROWS = Gauge("spikeloom_dictionary_rows", "Complete samples that readouts are trained on", MODEL)
DICTIONARY_SEEN = Gauge("spikeloom_dictionary_seen_rows", "Complete samples that came", MODEL)
DICTIONARY_PENDING = Gauge("spikeloom_dictionary_pending_rows", "Samples that wait for a shard", MODEL)
DICTIONARY_COLUMNS = Gauge("spikeloom_dictionary_columns", "Distinct columns at the newest solve", MODEL)
DICTIONARY_BYTES = Gauge("spikeloom_dictionary_bytes", "Memory of rows and column sums", MODEL)
RELATIVE_GAP = Gauge("spikeloom_readout_relative_gap", "Certified relative gap of the newest readout", MODEL)
SOLVING_GAP = Gauge("spikeloom_solving_relative_gap", "Relative gap of the solve that runs, or ran last", MODEL)
PRIMAL = Gauge("spikeloom_readout_primal", "Primal value of the newest readout", MODEL)
SUPPORT = Gauge("spikeloom_readout_support", "Witnesses with a coefficient in the newest readout", MODEL)
BETA = Gauge("spikeloom_readout_beta", "beta of the newest readout", MODEL)
RELATIVE_BETA = Gauge("spikeloom_readout_relative_beta", "beta / beta_max of the newest readout", MODEL)
VERSION = Gauge("spikeloom_readout_version", "Version of the newest readout", MODEL)
WITNESSES = Gauge("spikeloom_readout_witnesses_version", "Version of the witnesses that it reads", MODEL)
BEST_PRICE = Gauge(
    "spikeloom_growing_best_price", "Largest price on fresh rows of what the last round would have in", MODEL
)
TRIED = Gauge("spikeloom_growing_tried_witnesses", "Witnesses in the pool that has been priced", MODEL)
GROWN = Gauge("spikeloom_growing_witnesses", "Witnesses in the dictionary that grows", MODEL)
SOLVE_SECONDS = Histogram("spikeloom_solve_seconds", "Seconds of a solve, column sums included", MODEL, buckets=SECONDS)
ROWS = Counter("spikeloom_solver_rows_total", "Pieces of samples stored since the start", MODEL)
DUPLICATES = Counter("spikeloom_solver_duplicates_total", "Pieces of samples seen before and dropped", MODEL)
DRIFTS = Counter("spikeloom_solver_drifts_total", "Changes of the stream's rule after which rows were dropped", MODEL)
DEAD_LETTERS = Counter("spikeloom_solver_dead_letters_total", "Records of no use", ("reason",))
LAG = Gauge("spikeloom_solver_lag_records", "Records of spike-columns, prices and gram not yet read")

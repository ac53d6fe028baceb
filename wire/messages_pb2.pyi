from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Model(_message.Message):
    __slots__ = ("schema", "name", "spec_json", "digest")
    SCHEMA_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    SPEC_JSON_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    schema: int
    name: str
    spec_json: str
    digest: int
    def __init__(self, schema: _Optional[int] = ..., name: _Optional[str] = ..., spec_json: _Optional[str] = ..., digest: _Optional[int] = ...) -> None: ...

class Block(_message.Message):
    __slots__ = ("schema", "model", "lane", "ids", "start", "steps", "features", "encoding", "inputs", "classes", "values", "sent_us", "compression", "ends")
    class Encoding(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        ENCODING_UNSPECIFIED: _ClassVar[Block.Encoding]
        UINT8: _ClassVar[Block.Encoding]
        INT16: _ClassVar[Block.Encoding]
        INT32: _ClassVar[Block.Encoding]
    ENCODING_UNSPECIFIED: Block.Encoding
    UINT8: Block.Encoding
    INT16: Block.Encoding
    INT32: Block.Encoding
    class Compression(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        NONE: _ClassVar[Block.Compression]
        LZ4: _ClassVar[Block.Compression]
    NONE: Block.Compression
    LZ4: Block.Compression
    SCHEMA_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    LANE_FIELD_NUMBER: _ClassVar[int]
    IDS_FIELD_NUMBER: _ClassVar[int]
    START_FIELD_NUMBER: _ClassVar[int]
    STEPS_FIELD_NUMBER: _ClassVar[int]
    FEATURES_FIELD_NUMBER: _ClassVar[int]
    ENCODING_FIELD_NUMBER: _ClassVar[int]
    INPUTS_FIELD_NUMBER: _ClassVar[int]
    CLASSES_FIELD_NUMBER: _ClassVar[int]
    VALUES_FIELD_NUMBER: _ClassVar[int]
    SENT_US_FIELD_NUMBER: _ClassVar[int]
    COMPRESSION_FIELD_NUMBER: _ClassVar[int]
    ENDS_FIELD_NUMBER: _ClassVar[int]
    schema: int
    model: str
    lane: int
    ids: _containers.RepeatedScalarFieldContainer[int]
    start: int
    steps: int
    features: int
    encoding: Block.Encoding
    inputs: bytes
    classes: bytes
    values: bytes
    sent_us: int
    compression: Block.Compression
    ends: bool
    def __init__(self, schema: _Optional[int] = ..., model: _Optional[str] = ..., lane: _Optional[int] = ..., ids: _Optional[_Iterable[int]] = ..., start: _Optional[int] = ..., steps: _Optional[int] = ..., features: _Optional[int] = ..., encoding: _Optional[_Union[Block.Encoding, str]] = ..., inputs: _Optional[bytes] = ..., classes: _Optional[bytes] = ..., values: _Optional[bytes] = ..., sent_us: _Optional[int] = ..., compression: _Optional[_Union[Block.Compression, str]] = ..., ends: bool = ...) -> None: ...

class SpikeColumns(_message.Message):
    __slots__ = ("schema", "model", "digest", "shard", "first_witness", "witnesses", "ids", "spikes", "classes", "values", "witnesses_version")
    SCHEMA_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    SHARD_FIELD_NUMBER: _ClassVar[int]
    FIRST_WITNESS_FIELD_NUMBER: _ClassVar[int]
    WITNESSES_FIELD_NUMBER: _ClassVar[int]
    IDS_FIELD_NUMBER: _ClassVar[int]
    SPIKES_FIELD_NUMBER: _ClassVar[int]
    CLASSES_FIELD_NUMBER: _ClassVar[int]
    VALUES_FIELD_NUMBER: _ClassVar[int]
    WITNESSES_VERSION_FIELD_NUMBER: _ClassVar[int]
    schema: int
    model: str
    digest: int
    shard: int
    first_witness: int
    witnesses: int
    ids: _containers.RepeatedScalarFieldContainer[int]
    spikes: bytes
    classes: bytes
    values: bytes
    witnesses_version: int
    def __init__(self, schema: _Optional[int] = ..., model: _Optional[str] = ..., digest: _Optional[int] = ..., shard: _Optional[int] = ..., first_witness: _Optional[int] = ..., witnesses: _Optional[int] = ..., ids: _Optional[_Iterable[int]] = ..., spikes: _Optional[bytes] = ..., classes: _Optional[bytes] = ..., values: _Optional[bytes] = ..., witnesses_version: _Optional[int] = ...) -> None: ...

class ColumnSums(_message.Message):
    __slots__ = ("schema", "model", "digest", "first", "rows", "tile", "gram", "cross", "fingerprints", "ids", "step", "total", "energy", "everything")
    SCHEMA_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    FIRST_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    TILE_FIELD_NUMBER: _ClassVar[int]
    GRAM_FIELD_NUMBER: _ClassVar[int]
    CROSS_FIELD_NUMBER: _ClassVar[int]
    FINGERPRINTS_FIELD_NUMBER: _ClassVar[int]
    IDS_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    TOTAL_FIELD_NUMBER: _ClassVar[int]
    ENERGY_FIELD_NUMBER: _ClassVar[int]
    EVERYTHING_FIELD_NUMBER: _ClassVar[int]
    schema: int
    model: str
    digest: int
    first: int
    rows: int
    tile: int
    gram: bytes
    cross: bytes
    fingerprints: bytes
    ids: _containers.RepeatedCompositeFieldContainer[Span]
    step: int
    total: bytes
    energy: bytes
    everything: bytes
    def __init__(self, schema: _Optional[int] = ..., model: _Optional[str] = ..., digest: _Optional[int] = ..., first: _Optional[int] = ..., rows: _Optional[int] = ..., tile: _Optional[int] = ..., gram: _Optional[bytes] = ..., cross: _Optional[bytes] = ..., fingerprints: _Optional[bytes] = ..., ids: _Optional[_Iterable[_Union[Span, _Mapping]]] = ..., step: _Optional[int] = ..., total: _Optional[bytes] = ..., energy: _Optional[bytes] = ..., everything: _Optional[bytes] = ...) -> None: ...

class Witnesses(_message.Message):
    __slots__ = ("schema", "model", "version", "safetensors", "digest", "ids", "idle", "tried", "best_price")
    SCHEMA_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    SAFETENSORS_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    IDS_FIELD_NUMBER: _ClassVar[int]
    IDLE_FIELD_NUMBER: _ClassVar[int]
    TRIED_FIELD_NUMBER: _ClassVar[int]
    BEST_PRICE_FIELD_NUMBER: _ClassVar[int]
    schema: int
    model: str
    version: int
    safetensors: bytes
    digest: int
    ids: _containers.RepeatedScalarFieldContainer[int]
    idle: _containers.RepeatedScalarFieldContainer[int]
    tried: int
    best_price: float
    def __init__(self, schema: _Optional[int] = ..., model: _Optional[str] = ..., version: _Optional[int] = ..., safetensors: _Optional[bytes] = ..., digest: _Optional[int] = ..., ids: _Optional[_Iterable[int]] = ..., idle: _Optional[_Iterable[int]] = ..., tried: _Optional[int] = ..., best_price: _Optional[float] = ...) -> None: ...

class Candidates(_message.Message):
    __slots__ = ("schema", "model", "digest", "round", "ids", "samples", "residuals", "fresh")
    SCHEMA_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    ROUND_FIELD_NUMBER: _ClassVar[int]
    IDS_FIELD_NUMBER: _ClassVar[int]
    SAMPLES_FIELD_NUMBER: _ClassVar[int]
    RESIDUALS_FIELD_NUMBER: _ClassVar[int]
    FRESH_FIELD_NUMBER: _ClassVar[int]
    schema: int
    model: str
    digest: int
    round: int
    ids: _containers.RepeatedScalarFieldContainer[int]
    samples: bytes
    residuals: bytes
    fresh: bytes
    def __init__(self, schema: _Optional[int] = ..., model: _Optional[str] = ..., digest: _Optional[int] = ..., round: _Optional[int] = ..., ids: _Optional[_Iterable[int]] = ..., samples: _Optional[bytes] = ..., residuals: _Optional[bytes] = ..., fresh: _Optional[bytes] = ...) -> None: ...

class Prices(_message.Message):
    __slots__ = ("schema", "model", "digest", "round", "lane", "first", "candidates", "kept", "trained", "fresh", "samples", "spikes")
    class Sums(_message.Message):
        __slots__ = ("rows", "counts", "cross", "total", "fingerprints", "everything")
        ROWS_FIELD_NUMBER: _ClassVar[int]
        COUNTS_FIELD_NUMBER: _ClassVar[int]
        CROSS_FIELD_NUMBER: _ClassVar[int]
        TOTAL_FIELD_NUMBER: _ClassVar[int]
        FINGERPRINTS_FIELD_NUMBER: _ClassVar[int]
        EVERYTHING_FIELD_NUMBER: _ClassVar[int]
        rows: int
        counts: bytes
        cross: bytes
        total: bytes
        fingerprints: bytes
        everything: bytes
        def __init__(self, rows: _Optional[int] = ..., counts: _Optional[bytes] = ..., cross: _Optional[bytes] = ..., total: _Optional[bytes] = ..., fingerprints: _Optional[bytes] = ..., everything: _Optional[bytes] = ...) -> None: ...
    SCHEMA_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    ROUND_FIELD_NUMBER: _ClassVar[int]
    LANE_FIELD_NUMBER: _ClassVar[int]
    FIRST_FIELD_NUMBER: _ClassVar[int]
    CANDIDATES_FIELD_NUMBER: _ClassVar[int]
    KEPT_FIELD_NUMBER: _ClassVar[int]
    TRAINED_FIELD_NUMBER: _ClassVar[int]
    FRESH_FIELD_NUMBER: _ClassVar[int]
    SAMPLES_FIELD_NUMBER: _ClassVar[int]
    SPIKES_FIELD_NUMBER: _ClassVar[int]
    schema: int
    model: str
    digest: int
    round: int
    lane: int
    first: int
    candidates: int
    kept: int
    trained: Prices.Sums
    fresh: Prices.Sums
    samples: bytes
    spikes: bytes
    def __init__(self, schema: _Optional[int] = ..., model: _Optional[str] = ..., digest: _Optional[int] = ..., round: _Optional[int] = ..., lane: _Optional[int] = ..., first: _Optional[int] = ..., candidates: _Optional[int] = ..., kept: _Optional[int] = ..., trained: _Optional[_Union[Prices.Sums, _Mapping]] = ..., fresh: _Optional[_Union[Prices.Sums, _Mapping]] = ..., samples: _Optional[bytes] = ..., spikes: _Optional[bytes] = ...) -> None: ...

class Span(_message.Message):
    __slots__ = ("first", "last")
    FIRST_FIELD_NUMBER: _ClassVar[int]
    LAST_FIELD_NUMBER: _ClassVar[int]
    first: int
    last: int
    def __init__(self, first: _Optional[int] = ..., last: _Optional[int] = ...) -> None: ...

class Readout(_message.Message):
    __slots__ = ("schema", "model", "digest", "version", "outputs", "support", "coefficients", "intercept", "loss", "penalty", "beta", "primal", "dual", "relative_gap", "solved", "rows", "columns", "trained_on", "solve_seconds", "published_us", "sha256", "seen", "witnesses_version", "network", "best_price", "tried")
    SCHEMA_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    OUTPUTS_FIELD_NUMBER: _ClassVar[int]
    SUPPORT_FIELD_NUMBER: _ClassVar[int]
    COEFFICIENTS_FIELD_NUMBER: _ClassVar[int]
    INTERCEPT_FIELD_NUMBER: _ClassVar[int]
    LOSS_FIELD_NUMBER: _ClassVar[int]
    PENALTY_FIELD_NUMBER: _ClassVar[int]
    BETA_FIELD_NUMBER: _ClassVar[int]
    PRIMAL_FIELD_NUMBER: _ClassVar[int]
    DUAL_FIELD_NUMBER: _ClassVar[int]
    RELATIVE_GAP_FIELD_NUMBER: _ClassVar[int]
    SOLVED_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    COLUMNS_FIELD_NUMBER: _ClassVar[int]
    TRAINED_ON_FIELD_NUMBER: _ClassVar[int]
    SOLVE_SECONDS_FIELD_NUMBER: _ClassVar[int]
    PUBLISHED_US_FIELD_NUMBER: _ClassVar[int]
    SHA256_FIELD_NUMBER: _ClassVar[int]
    SEEN_FIELD_NUMBER: _ClassVar[int]
    WITNESSES_VERSION_FIELD_NUMBER: _ClassVar[int]
    NETWORK_FIELD_NUMBER: _ClassVar[int]
    BEST_PRICE_FIELD_NUMBER: _ClassVar[int]
    TRIED_FIELD_NUMBER: _ClassVar[int]
    schema: int
    model: str
    digest: int
    version: int
    outputs: int
    support: _containers.RepeatedScalarFieldContainer[int]
    coefficients: bytes
    intercept: bytes
    loss: str
    penalty: str
    beta: float
    primal: float
    dual: float
    relative_gap: float
    solved: bool
    rows: int
    columns: int
    trained_on: _containers.RepeatedCompositeFieldContainer[Span]
    solve_seconds: float
    published_us: int
    sha256: bytes
    seen: int
    witnesses_version: int
    network: bytes
    best_price: float
    tried: int
    def __init__(self, schema: _Optional[int] = ..., model: _Optional[str] = ..., digest: _Optional[int] = ..., version: _Optional[int] = ..., outputs: _Optional[int] = ..., support: _Optional[_Iterable[int]] = ..., coefficients: _Optional[bytes] = ..., intercept: _Optional[bytes] = ..., loss: _Optional[str] = ..., penalty: _Optional[str] = ..., beta: _Optional[float] = ..., primal: _Optional[float] = ..., dual: _Optional[float] = ..., relative_gap: _Optional[float] = ..., solved: bool = ..., rows: _Optional[int] = ..., columns: _Optional[int] = ..., trained_on: _Optional[_Iterable[_Union[Span, _Mapping]]] = ..., solve_seconds: _Optional[float] = ..., published_us: _Optional[int] = ..., sha256: _Optional[bytes] = ..., seen: _Optional[int] = ..., witnesses_version: _Optional[int] = ..., network: _Optional[bytes] = ..., best_price: _Optional[float] = ..., tried: _Optional[int] = ...) -> None: ...

class Prediction(_message.Message):
    __slots__ = ("schema", "model", "id", "readout_version", "scores", "predicted_classes", "target_classes", "in_training", "sent_us", "answered_us", "start")
    SCHEMA_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    READOUT_VERSION_FIELD_NUMBER: _ClassVar[int]
    SCORES_FIELD_NUMBER: _ClassVar[int]
    PREDICTED_CLASSES_FIELD_NUMBER: _ClassVar[int]
    TARGET_CLASSES_FIELD_NUMBER: _ClassVar[int]
    IN_TRAINING_FIELD_NUMBER: _ClassVar[int]
    SENT_US_FIELD_NUMBER: _ClassVar[int]
    ANSWERED_US_FIELD_NUMBER: _ClassVar[int]
    START_FIELD_NUMBER: _ClassVar[int]
    schema: int
    model: str
    id: int
    readout_version: int
    scores: bytes
    predicted_classes: _containers.RepeatedScalarFieldContainer[int]
    target_classes: _containers.RepeatedScalarFieldContainer[int]
    in_training: bool
    sent_us: int
    answered_us: int
    start: int
    def __init__(self, schema: _Optional[int] = ..., model: _Optional[str] = ..., id: _Optional[int] = ..., readout_version: _Optional[int] = ..., scores: _Optional[bytes] = ..., predicted_classes: _Optional[_Iterable[int]] = ..., target_classes: _Optional[_Iterable[int]] = ..., in_training: bool = ..., sent_us: _Optional[int] = ..., answered_us: _Optional[int] = ..., start: _Optional[int] = ...) -> None: ...

class BrainWave(_message.Message):
    __slots__ = ("schema", "model", "shard", "lane", "start", "layers", "observed_us")
    class Layer(_message.Message):
        __slots__ = ("neurons", "active", "sequences")
        NEURONS_FIELD_NUMBER: _ClassVar[int]
        ACTIVE_FIELD_NUMBER: _ClassVar[int]
        SEQUENCES_FIELD_NUMBER: _ClassVar[int]
        neurons: int
        active: _containers.RepeatedScalarFieldContainer[int]
        sequences: _containers.RepeatedScalarFieldContainer[int]
        def __init__(self, neurons: _Optional[int] = ..., active: _Optional[_Iterable[int]] = ..., sequences: _Optional[_Iterable[int]] = ...) -> None: ...
    SCHEMA_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    SHARD_FIELD_NUMBER: _ClassVar[int]
    LANE_FIELD_NUMBER: _ClassVar[int]
    START_FIELD_NUMBER: _ClassVar[int]
    LAYERS_FIELD_NUMBER: _ClassVar[int]
    OBSERVED_US_FIELD_NUMBER: _ClassVar[int]
    schema: int
    model: str
    shard: int
    lane: int
    start: int
    layers: _containers.RepeatedCompositeFieldContainer[BrainWave.Layer]
    observed_us: int
    def __init__(self, schema: _Optional[int] = ..., model: _Optional[str] = ..., shard: _Optional[int] = ..., lane: _Optional[int] = ..., start: _Optional[int] = ..., layers: _Optional[_Iterable[_Union[BrainWave.Layer, _Mapping]]] = ..., observed_us: _Optional[int] = ...) -> None: ...

class DeadLetter(_message.Message):
    __slots__ = ("schema", "topic", "reason", "detail", "record", "observed_us", "job")
    SCHEMA_FIELD_NUMBER: _ClassVar[int]
    TOPIC_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    RECORD_FIELD_NUMBER: _ClassVar[int]
    OBSERVED_US_FIELD_NUMBER: _ClassVar[int]
    JOB_FIELD_NUMBER: _ClassVar[int]
    schema: int
    topic: str
    reason: str
    detail: str
    record: bytes
    observed_us: int
    job: str
    def __init__(self, schema: _Optional[int] = ..., topic: _Optional[str] = ..., reason: _Optional[str] = ..., detail: _Optional[str] = ..., record: _Optional[bytes] = ..., observed_us: _Optional[int] = ..., job: _Optional[str] = ...) -> None: ...

class Weights(_message.Message):
    __slots__ = ("schema", "model", "digest", "version", "safetensors", "workers", "samples", "loss", "gradient_norm", "sharpness", "published_us")
    SCHEMA_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    SAFETENSORS_FIELD_NUMBER: _ClassVar[int]
    WORKERS_FIELD_NUMBER: _ClassVar[int]
    SAMPLES_FIELD_NUMBER: _ClassVar[int]
    LOSS_FIELD_NUMBER: _ClassVar[int]
    GRADIENT_NORM_FIELD_NUMBER: _ClassVar[int]
    SHARPNESS_FIELD_NUMBER: _ClassVar[int]
    PUBLISHED_US_FIELD_NUMBER: _ClassVar[int]
    schema: int
    model: str
    digest: int
    version: int
    safetensors: bytes
    workers: _containers.RepeatedScalarFieldContainer[int]
    samples: int
    loss: float
    gradient_norm: float
    sharpness: float
    published_us: int
    def __init__(self, schema: _Optional[int] = ..., model: _Optional[str] = ..., digest: _Optional[int] = ..., version: _Optional[int] = ..., safetensors: _Optional[bytes] = ..., workers: _Optional[_Iterable[int]] = ..., samples: _Optional[int] = ..., loss: _Optional[float] = ..., gradient_norm: _Optional[float] = ..., sharpness: _Optional[float] = ..., published_us: _Optional[int] = ...) -> None: ...

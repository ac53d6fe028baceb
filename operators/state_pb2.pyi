from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Piece(_message.Message):
    __slots__ = ("start", "steps", "codes")
    START_FIELD_NUMBER: _ClassVar[int]
    STEPS_FIELD_NUMBER: _ClassVar[int]
    CODES_FIELD_NUMBER: _ClassVar[int]
    start: int
    steps: int
    codes: bytes
    def __init__(self, start: _Optional[int] = ..., steps: _Optional[int] = ..., codes: _Optional[bytes] = ...) -> None: ...

class Sequence(_message.Message):
    __slots__ = ("id", "next", "carry", "early", "values", "touched_ms", "sent_us")
    ID_FIELD_NUMBER: _ClassVar[int]
    NEXT_FIELD_NUMBER: _ClassVar[int]
    CARRY_FIELD_NUMBER: _ClassVar[int]
    EARLY_FIELD_NUMBER: _ClassVar[int]
    CLASS_FIELD_NUMBER: _ClassVar[int]
    VALUES_FIELD_NUMBER: _ClassVar[int]
    TOUCHED_MS_FIELD_NUMBER: _ClassVar[int]
    SENT_US_FIELD_NUMBER: _ClassVar[int]
    id: int
    next: int
    carry: bytes
    early: _containers.RepeatedCompositeFieldContainer[Piece]
    values: bytes
    touched_ms: int
    sent_us: int
    def __init__(self, id: _Optional[int] = ..., next: _Optional[int] = ..., carry: _Optional[bytes] = ..., early: _Optional[_Iterable[_Union[Piece, _Mapping]]] = ..., values: _Optional[bytes] = ..., touched_ms: _Optional[int] = ..., sent_us: _Optional[int] = ..., **kwargs) -> None: ...

class Span(_message.Message):
    __slots__ = ("first", "last")
    FIRST_FIELD_NUMBER: _ClassVar[int]
    LAST_FIELD_NUMBER: _ClassVar[int]
    first: int
    last: int
    def __init__(self, first: _Optional[int] = ..., last: _Optional[int] = ...) -> None: ...

class Lane(_message.Message):
    __slots__ = ("live", "finished", "finished_before", "rotated_ms")
    LIVE_FIELD_NUMBER: _ClassVar[int]
    FINISHED_FIELD_NUMBER: _ClassVar[int]
    FINISHED_BEFORE_FIELD_NUMBER: _ClassVar[int]
    ROTATED_MS_FIELD_NUMBER: _ClassVar[int]
    live: _containers.RepeatedCompositeFieldContainer[Sequence]
    finished: _containers.RepeatedCompositeFieldContainer[Span]
    finished_before: _containers.RepeatedCompositeFieldContainer[Span]
    rotated_ms: int
    def __init__(self, live: _Optional[_Iterable[_Union[Sequence, _Mapping]]] = ..., finished: _Optional[_Iterable[_Union[Span, _Mapping]]] = ..., finished_before: _Optional[_Iterable[_Union[Span, _Mapping]]] = ..., rotated_ms: _Optional[int] = ...) -> None: ...

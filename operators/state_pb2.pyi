from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Snapshot(_message.Message):
    __slots__ = ("ids", "stepped", "membranes", "pieces", "classes", "values", "sent_us", "length")
    IDS_FIELD_NUMBER: _ClassVar[int]
    STEPPED_FIELD_NUMBER: _ClassVar[int]
    MEMBRANES_FIELD_NUMBER: _ClassVar[int]
    PIECES_FIELD_NUMBER: _ClassVar[int]
    CLASSES_FIELD_NUMBER: _ClassVar[int]
    VALUES_FIELD_NUMBER: _ClassVar[int]
    SENT_US_FIELD_NUMBER: _ClassVar[int]
    LENGTH_FIELD_NUMBER: _ClassVar[int]
    ids: _containers.RepeatedScalarFieldContainer[int]
    stepped: int
    membranes: bytes
    pieces: _containers.RepeatedCompositeFieldContainer[Piece]
    classes: bytes
    values: bytes
    sent_us: int
    length: int
    def __init__(self, ids: _Optional[_Iterable[int]] = ..., stepped: _Optional[int] = ..., membranes: _Optional[bytes] = ..., pieces: _Optional[_Iterable[_Union[Piece, _Mapping]]] = ..., classes: _Optional[bytes] = ..., values: _Optional[bytes] = ..., sent_us: _Optional[int] = ..., length: _Optional[int] = ...) -> None: ...

class Piece(_message.Message):
    __slots__ = ("start", "steps", "codes")
    START_FIELD_NUMBER: _ClassVar[int]
    STEPS_FIELD_NUMBER: _ClassVar[int]
    CODES_FIELD_NUMBER: _ClassVar[int]
    start: int
    steps: int
    codes: bytes
    def __init__(self, start: _Optional[int] = ..., steps: _Optional[int] = ..., codes: _Optional[bytes] = ...) -> None: ...

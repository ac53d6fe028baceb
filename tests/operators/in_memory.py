"""What Flink does around an operator, in memory."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from copy import deepcopy
from types import SimpleNamespace
from typing import Any

from pyflink.datastream import OutputTag


class DictStore(dict[str, bytes]):
    """Map state of one key."""

    put, remove = dict.__setitem__, dict.__delitem__

    def kinds(self) -> str:
        return "".join(sorted(key[0] for key in self))


class Metrics:
    """A metric group that adds up what is counted, whatever its labels."""

    def __init__(self, counts: Counter[str]) -> None:
        self._counts = counts

    def add_group(self, *_: str) -> "Metrics":
        return self

    def counter(self, name: str) -> Any:
        return SimpleNamespace(inc=lambda by: self._counts.update({name: by}))

    def gauge(self, name: str, value: Callable[[], int]) -> None:
        pass


class Around:
    """All that an operator meets: the runtime context it is opened with, the context of what it processes, timers.

    The test says which `key` a record has, how time passes, and when there is a checkpoint, a crash or a restart."""

    def __init__(self, make: Callable[[], Any], key: int = 0) -> None:
        self.make, self.key, self.now = make, key, 1
        self.states: dict[tuple[str, int], DictStore] = defaultdict(DictStore)  # by name and key
        self.broadcast = DictStore()
        self.timers: set[tuple[int, int]] = set()  # when, and of which key
        self.sent: list[bytes] = []
        self.beside: dict[str, list[bytes]] = defaultdict(list)  # side outputs: no crash takes them back
        self.counts: Counter[str] = Counter()
        self.read = 0  # where the operator is in a source that it reads again after a crash
        self.restart()
        self.checkpoint()

    def restart(self) -> None:
        """Memory is lost, state is not."""
        self.operator = self.make()
        self.operator.open(self)

    def checkpoint(self) -> None:
        self._saved = deepcopy((self.states, self.broadcast, self.timers, self.sent, self.read))

    def crash(self) -> None:
        """All is as it was at the last checkpoint."""
        self.states, self.broadcast, self.timers, self.sent, self.read = deepcopy(self._saved)
        self.restart()

    def process(self, record: bytes) -> None:
        self._take(self.operator.process_element(record, self))

    def offer(self, record: bytes) -> None:
        self._take(self.operator.process_broadcast_element(record, self))

    def pass_time(self, ms: int = 1000) -> None:
        self.now += ms
        due = sorted(timer for timer in self.timers if timer[0] <= self.now)
        self.timers -= set(due)
        for timestamp, self.key in due:
            counts = self.counts.copy()
            self._take(self.operator.on_timer(timestamp, self))
            self.counts.clear()  # PyFlink loses what is counted while a timer fires
            self.counts.update(counts)

    def side(self, tag: OutputTag) -> list[bytes]:
        return self.beside[tag.tag_id]

    def _take(self, outputs: Iterable) -> None:
        for output in outputs:
            if isinstance(output, bytes):
                self.sent.append(output)
            else:
                tag, record = output
                self.side(tag).append(record)

    # What the operator asks for.

    def get_metrics_group(self) -> Metrics:
        return Metrics(self.counts)

    def get_map_state(self, descriptor: Any) -> Any:
        def held() -> DictStore:
            return self.states[descriptor.name, self.key]

        return SimpleNamespace(
            put=lambda *entry: held().put(*entry),
            remove=lambda key: held().remove(key),
            items=lambda: held().items(),
        )

    def get_broadcast_state(self, _: Any) -> DictStore:
        return self.broadcast

    def get_current_key(self) -> int:
        return self.key

    def timer_service(self) -> "Around":
        return self

    def current_processing_time(self) -> int:
        return self.now

    def register_processing_time_timer(self, due: int) -> None:
        self.timers.add((due, self.key))

"""Processing-time timers of one operator, each asked for once: Flink keeps them across restarts."""

from pyflink.datastream import TimerService


class Timers:
    def __init__(self) -> None:
        self._due: dict[int, set[int]] = {}

    def wake(self, service: TimerService, key: int, period_ms: int) -> None:
        """Call on_timer of the current key `key` at the next multiple of `period_ms`."""
        now = service.current_processing_time()
        due = (now // period_ms + 1) * period_ms
        waiting = self._due.setdefault(key, set())
        if due not in waiting:
            waiting.difference_update([past for past in waiting if past <= now])
            waiting.add(due)
            service.register_processing_time_timer(due)

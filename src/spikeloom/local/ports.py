"""Free ports on this machine's loopback address: the usual one if nobody has it, any other if somebody does."""

import random
import socket

HOST = "127.0.0.1"
QUIET = range(20_000, 32_000)  # outgoing connections, which would take a port first, get higher ones


class Ports:
    """Hands out each port once; the programs bind them soon after."""

    def __init__(self) -> None:
        self._given: set[int] = set()

    def take(self, preferred: int = 0) -> int:
        port = preferred if preferred and self._is_free(preferred) else self._any()
        self._given.add(port)
        return port

    def _is_free(self, port: int) -> bool:
        # A listener on all addresses does not stop macOS from binding one of them, hence the first question.
        if port in self._given or accepts_connections(port):
            return False
        with socket.socket() as probe:
            # As the servers do: a port whose last connection lingers in TIME_WAIT is free.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, port))
            except OSError:
                return False
        return True

    def _any(self) -> int:
        while not self._is_free(port := random.choice(QUIET)):
            pass
        return port


def accepts_connections(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(0.5)
        return probe.connect_ex((HOST, port)) == 0

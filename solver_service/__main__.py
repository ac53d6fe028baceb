"""`python -m solver_service`: serve until SIGTERM or Ctrl-C."""

import logging
import os
import signal
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from solver_service.service import SolverService
from solver_service.settings import SolverSettings
from solver_service.snapshot import SnapshotError
from wire.connection import KafkaConnection
from wire.reasons import WireError


def main(
    bootstrap: Annotated[str | None, typer.Option(help="Kafka, host:port; else SPIKELOOM_KAFKA_BOOTSTRAP")] = None,
    state: Annotated[Path | None, typer.Option(help="folder of the snapshots")] = None,
    every_seconds: Annotated[float | None, typer.Option(help="seconds between readouts while rows arrive")] = None,
    every_rows: Annotated[int | None, typer.Option(help="new rows that bring a readout sooner")] = None,
    metrics_port: Annotated[int | None, typer.Option(help="port of the Prometheus endpoint")] = None,
) -> None:
    """Read spike columns, publish certified readouts. Every setting is also read from SPIKELOOM_SOLVER_<NAME>."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("kafka").setLevel(logging.WARNING)
    given: dict[str, Any] = {
        "state": state,
        "every_seconds": every_seconds,
        "every_rows": every_rows,
        "metrics_port": metrics_port,
    }
    settings = SolverSettings(**{name: value for name, value in given.items() if value is not None})
    connection = KafkaConnection(bootstrap=bootstrap) if bootstrap else KafkaConnection()
    service = SolverService(settings, connection)
    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, lambda *_: service.stop())
    try:
        service.run()
    except (SnapshotError, WireError) as error:
        sys.exit(str(error))
    # a solve may still run; nothing waits for it, and its BLAS threads must not meet the interpreter's shutdown
    logging.shutdown()
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    typer.run(main)

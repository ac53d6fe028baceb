"""Flink operators: state, timers and metrics around `snn`. One operator a file."""

"""One file per job a user submits with `flink run`: sources, operators, sinks wired; nothing is computed here."""

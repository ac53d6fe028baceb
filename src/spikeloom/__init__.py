"""What a person touches: the command line, the Python client and the local stack."""

from pathlib import Path

# The checkout. The contract in kafka/ is read from there, also by an installed `spikeloom`.
PROJECT_ROOT = Path(__file__).resolve().parents[2]

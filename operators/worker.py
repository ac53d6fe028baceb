"""Importing compiled kernels inside a Flink worker.

In process mode the worker replaces builtins.print by a method whose module lacks that name, where numba looks it up
on import (AttributeError: ... beam_sdk_worker_main has no attribute 'print'). Giving the module the name is enough.
"""

import builtins
import importlib
import sys
from types import ModuleType


def load_engine() -> ModuleType:
    """`snn.engine`, imported so that numba loads in process and in thread mode."""
    module = sys.modules.get(getattr(print, "__module__", ""))
    if module is not None and module is not builtins and not hasattr(module, "print"):
        module.print = print  # type: ignore[attr-defined]
    return importlib.import_module("snn.engine")

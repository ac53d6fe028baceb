"""Importing compiled kernels inside a Flink worker.

In process mode the worker replaces builtins.print by a method whose module lacks that name, where numba looks it up
on import (AttributeError: ... beam_sdk_worker_main has no attribute 'print'). Giving the module the name is enough.
"""

import builtins
import importlib
import sys
from types import ModuleType


def load(module_name: str) -> ModuleType:
    """A module that imports numba, imported so that this works in process and in thread mode."""
    module = sys.modules.get(getattr(print, "__module__", ""))
    if module is not None and module is not builtins and not hasattr(module, "print"):
        module.print = print  # type: ignore[attr-defined]
    return importlib.import_module(module_name)

"""The command line, one module a command: parses words, calls the workflow, prints what it returns."""

from .main import entry

__all__ = ["entry"]

"""Converts TVM's containers to Python's."""

from __future__ import annotations


def plain(value):
    """``value`` as json knows it: TVM's strings, boxed numbers, arrays and maps, nested as they are."""
    if value is None or isinstance(value, (bool, int, float)):
        return value
    if isinstance(value, str):
        return str(value)
    if hasattr(value, "items"):
        return {str(key): plain(item) for key, item in value.items()}
    if hasattr(value, "value"):
        return plain(value.value)
    return [plain(item) for item in value]

"""Describes this machine, as every figure measured on it must."""

from __future__ import annotations

import os
import platform
from pathlib import Path


def host_facts() -> dict:
    """Name of the CPU, how many there are, the system, and what else the machine was doing."""
    return {
        "cpu": _cpu(),
        "cpus": os.cpu_count(),
        "system": platform.platform(),
        "load_average": os.getloadavg()[0],
    }


def _cpu() -> str:
    unknown = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return unknown
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), unknown)

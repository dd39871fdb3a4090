"""The machine that times, as it calls itself."""

from __future__ import annotations

import platform
from pathlib import Path


def device() -> str:
    """Processor and system: "Some CPU @ 2.60GHz, Linux x86_64"."""
    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text(errors="replace").splitlines():
            if line.startswith("model name"):
                name = line.partition(":")[2].strip()
                break
    return f"{name}, {platform.system()} {platform.machine()}"

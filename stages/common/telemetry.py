"""What a step tells while and after it works: progress, memory, device."""

import os
import platform
import resource
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tqdm import tqdm


def progress(title: str) -> Callable[[int, int], None]:
    """Give ``tell(done, total)``: a bar on a terminal, ``ARGO_PROGRESS_FILE`` in Argo, silence elsewhere."""
    bar: tqdm[Any] | None = None
    target = os.environ.get("ARGO_PROGRESS_FILE")

    def tell(done: int, total: int) -> None:
        nonlocal bar
        if target:
            Path(target).write_text(f"{done}/{total}\n", encoding="utf-8")
        if sys.stderr.isatty():
            bar = bar or tqdm(desc=title, leave=False, file=sys.stderr)
            bar.total, bar.n = total, done
            bar.refresh()
            if done >= total:
                bar.close()

    return tell


def peak_memory_mb() -> float:
    """Largest resident memory of this process so far, in MB (10^6 bytes)."""
    unit = 1 if sys.platform == "darwin" else 1024
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6, 1)


def host() -> dict[str, Any]:
    """Name the machine a result was made on."""
    return {"cpu": platform.processor() or platform.machine(), "cores": os.cpu_count(), "system": platform.system()}

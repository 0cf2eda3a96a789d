"""Which GPUs are there, asked of the driver; whether they work; and what the libraries say where memory does not suffice."""

import contextlib
import os
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pynvml

from stages.common import log, memory

# What XGBoost and CatBoost say of a GPU, LightGBM of OpenCL, and all of them of main memory.
FULL = ("out of memory", "enough memory", "memory object allocation failure", "bad_alloc", "bad allocation")
MOST = 0.95  # of a GPU's free memory, that CatBoost takes at most
BROKEN = ("cuda", "cublas", "nvrm", "nvml")  # in what they say of anything else that is wrong with a GPU
NO_ROOM = ("No space left on device", "Disk quota exceeded")
SILENT = pynvml.NVMLError, pynvml.NVMLLibraryMismatchError, IndexError  # nobody tells: no driver, one that is older, no GPU for us
LOOK = 0.05  # seconds between two looks at a GPU's memory


def gpus() -> int:
    """Count the NVIDIA GPUs that this process may use; 0 where there is no driver."""
    return min(_counted(), len(visible()))


def meant() -> bool:
    """Tell whether a GPU should be here: one is, or this is an image for GPUs."""
    return gpus() > 0 or os.environ.get("SUREFOOT_FLAVOUR") == "gpu"


def visible() -> list[str]:
    """Name the GPUs that this process may use, as CUDA_VISIBLE_DEVICES does: the driver counts the others too."""
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    if given is None:
        return [str(number) for number in range(_counted())]
    return [name for name in map(str.strip, given.split(",")) if name not in ("", "-1")]


def free() -> int | None:
    """Bytes that this process may still take of its GPU, the first: what is free, and no more than its part; None where nobody tells.

    Processes that share a GPU, SUREFOOT_GPU_SHARES of them, are each allowed their part of it.
    """
    with contextlib.suppress(*SILENT), _first() as handle:
        told, shares = pynvml.nvmlDeviceGetMemoryInfo(handle), _shares()
        return int(told.free if shares == 1 else min(told.free, told.total // shares - (_own(handle) or 0)))
    return None


def part() -> float:
    """Give the share of its GPU's free memory that this process may take: CatBoost takes at once all that it ever will."""
    with contextlib.suppress(*SILENT), _first() as handle:
        told = pynvml.nvmlDeviceGetMemoryInfo(handle)
        return float(min(MOST, MOST * told.total / _shares() / max(told.free, 1)))
    return MOST / _shares()


class Taken:
    """How many bytes of its GPU a process came to hold beyond those at the beginning; None where nobody tells."""

    def __init__(self) -> None:
        self.most: int | None = None


@contextlib.contextmanager
def taken() -> Iterator[Taken]:
    """Look at what this process takes of its GPU."""
    found, ended = Taken(), threading.Event()

    def look() -> None:
        with contextlib.suppress(*SILENT), _first() as handle:
            before = _own(handle) or 0
            while True:
                if (own := _own(handle)) is not None:
                    found.most = max(own - before, found.most or 0)
                if ended.wait(LOOK):
                    break

    thread = threading.Thread(target=look, name="gpu", daemon=True)
    thread.start()
    try:
        yield found
    finally:
        ended.set()
        thread.join(10 * LOOK)  # the driver of a GPU that broke may answer nobody any more


@contextlib.contextmanager
def _first() -> Iterator[Any]:
    """Give the driver's handle of the GPU that a fit of this process takes."""
    pynvml.nvmlInit()
    try:
        name = visible()[0]
        yield pynvml.nvmlDeviceGetHandleByIndex(int(name)) if name.isdigit() else pynvml.nvmlDeviceGetHandleByUUID(name)
    finally:
        pynvml.nvmlShutdown()


def _own(handle: Any) -> int | None:
    """Bytes of a GPU that this process holds. In a container the driver may know it by another number, or not say whose they are.

    Then all that is used is taken for its own; where it shares the GPU, nobody tells.
    """
    held = {one.pid: one.usedGpuMemory for one in pynvml.nvmlDeviceGetComputeRunningProcesses(handle)}
    if (own := held.get(os.getpid())) is not None:
        return int(own)
    return int(pynvml.nvmlDeviceGetMemoryInfo(handle).used) if _shares() == 1 else None


def _shares() -> int:
    return int(os.environ.get("SUREFOOT_GPU_SHARES", "1"))


def works(fit: Callable[[], str]) -> bool:
    """Tell whether a small fit comes to a GPU, by the device that it says it used. One that is full works: that is for the ladder."""
    try:
        with warnings.catch_warnings(action="ignore"):  # it says where it looked for one, line after line
            used, why = fit(), "the library took a CPU instead"
    except Exception as error:  # noqa: BLE001 - each library has its own
        if is_out_of_memory(error):
            return True
        used, why = "", told(error)
    if not used.startswith("cuda"):
        log.warning("gpu.broken", why=why, so="fits take a CPU")
    return used.startswith("cuda")


def _counted() -> int:
    try:
        pynvml.nvmlInit()
        count: int = pynvml.nvmlDeviceGetCount()
        pynvml.nvmlShutdown()
    except pynvml.NVMLError:
        return 0
    return count


def is_broken(error: BaseException) -> bool:
    """Tell a GPU that does not work, which another attempt may find mended, or leave, from a bug."""
    return not is_out_of_memory(error) and any(word in _words(_said(error)) for word in BROKEN)


def is_out_of_memory(error: BaseException) -> bool:
    """Tell a full GPU, or a full machine, from a broken one and from a bug."""
    return isinstance(error, MemoryError) or any(word in _words(_said(error)) for word in FULL)


def is_full_disk(error: BaseException) -> bool:
    """Tell a full disk of scratch files: CatBoost keeps its state there, and has many words for one that it could not write whole."""
    return any(word in _said(error) for word in NO_ROOM) or memory.is_full(Path(tempfile.gettempdir()))


def told(error: BaseException) -> str:
    """Give the line in which a library says what is wrong: the one with a word that we know, else the last."""
    lines = _said(error).splitlines()
    return next((line for line in lines if any(word in _words(line) for word in (*FULL, *BROKEN))), lines[-1])


def _said(error: BaseException) -> str:
    """Give what a library says, without the stack that XGBoost adds."""
    return str(error).partition("Stack trace:")[0].strip() or type(error).__name__


def _words(said: str) -> str:
    """Leave out the paths, such as those of CatBoost's sources for GPUs: their names tell nothing of what is wrong."""
    return " ".join(word for word in said.lower().split() if "/" not in word)

"""Which GPUs are there, asked of the driver; and what the libraries say where memory does not suffice."""

import os

import pynvml

# What XGBoost and CatBoost say of a GPU, LightGBM of OpenCL, and all of them of main memory.
FULL = ("out of memory", "memory object allocation failure", "bad_alloc", "bad allocation")


def gpus() -> int:
    """Count the NVIDIA GPUs that this process may use; 0 where there is no driver."""
    return min(_counted(), len(visible()))


def visible() -> list[str]:
    """Name the GPUs that this process may use, as CUDA_VISIBLE_DEVICES does: the driver counts the others too."""
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    if given is None:
        return [str(number) for number in range(_counted())]
    return [name for name in map(str.strip, given.split(",")) if name not in ("", "-1")]


def free() -> int | None:
    """Bytes that are free on the GPU that a fit of this process takes, the first; None where nobody tells."""
    try:
        pynvml.nvmlInit()
        name = visible()[0]
        handle = pynvml.nvmlDeviceGetHandleByIndex(int(name)) if name.isdigit() else pynvml.nvmlDeviceGetHandleByUUID(name)
        bytes_free: int = pynvml.nvmlDeviceGetMemoryInfo(handle).free
        pynvml.nvmlShutdown()
    except (pynvml.NVMLError, IndexError):
        return None
    return bytes_free


def _counted() -> int:
    try:
        pynvml.nvmlInit()
        count: int = pynvml.nvmlDeviceGetCount()
        pynvml.nvmlShutdown()
    except pynvml.NVMLError:
        return 0
    return count


def is_out_of_memory(error: BaseException) -> bool:
    """Tell a full GPU, or a full machine, from a broken one and from a bug."""
    said = str(error).lower()
    return isinstance(error, MemoryError) or any(word in said for word in FULL)

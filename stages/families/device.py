"""Which GPUs are there, asked of the driver; and what the libraries say where memory does not suffice."""

import pynvml

# What XGBoost and CatBoost say of a GPU, LightGBM of OpenCL, and all of them of main memory.
FULL = ("out of memory", "memory object allocation failure", "bad_alloc", "bad allocation")


def gpus() -> int:
    """Count the NVIDIA GPUs that this process can see; 0 where there is no driver."""
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

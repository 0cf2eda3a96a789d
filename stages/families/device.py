"""Which GPUs are there, asked of the driver."""

import pynvml


def gpus() -> int:
    """Count the NVIDIA GPUs that this process can see; 0 where there is no driver."""
    try:
        pynvml.nvmlInit()
        count: int = pynvml.nvmlDeviceGetCount()
        pynvml.nvmlShutdown()
    except pynvml.NVMLError:
        return 0
    return count

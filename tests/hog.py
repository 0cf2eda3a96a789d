"""A program that takes a GPU's memory until its input ends: all but what another process takes to begin, and so many bytes.

``python -m tests.hog BYTES``
"""

import ctypes
import sys

from stages.families import device


def main(left: int) -> None:
    """Ask the driver itself, so that no library is needed; say so once it is done."""
    cuda = ctypes.CDLL("libcuda.so.1")

    def must(code: int) -> None:
        assert code == 0, f"CUDA error {code}"

    gpu, context, place = ctypes.c_int(), ctypes.c_void_p(), ctypes.c_uint64()
    free, total = ctypes.c_size_t(), ctypes.c_size_t()
    before = device.free()
    assert before is not None
    must(cuda.cuInit(0))
    must(cuda.cuDeviceGet(ctypes.byref(gpu), 0))
    must(cuda.cuDevicePrimaryCtxRetain(ctypes.byref(context), gpu))
    must(cuda.cuCtxSetCurrent(context))
    must(cuda.cuMemGetInfo_v2(ctypes.byref(free), ctypes.byref(total)))
    begin = before - free.value
    must(cuda.cuMemAlloc_v2(ctypes.byref(place), ctypes.c_size_t(free.value - begin - left)))
    sys.stdout.write(f"{begin}\n")
    sys.stdout.flush()
    sys.stdin.read()


if __name__ == "__main__":
    main(int(sys.argv[1]))

"""Loads the PTX that an engine embeds, and launches it through CUDA's driver, as TensorRT does: with 8 arguments."""

import ctypes
from typing import Any

from torch import Tensor

from model_export.kernels.ptx import Compiled

TYPES = (ctypes.c_void_p,) * 3 + (ctypes.c_int,) * 4 + (ctypes.c_void_p,)  # three inputs, four sizes, the output


def run(
    driver: Any, compiled: Compiled, grid: tuple[int, int, int], maps: tuple[Tensor, Tensor, Tensor], out: Tensor
) -> None:
    """Queue the kernel on the default stream of the current context.

    driver: cuda.bindings.driver. maps: raster map, other map, offsets, in the layout that was compiled in; out: the
    result's memory. Raises RuntimeError with the driver's error.
    """
    raster, other, offsets = maps
    module = _check(driver, driver.cuModuleLoadData(compiled.ptx.encode() + b"\0"))
    function = _check(driver, driver.cuModuleGetFunction(module, compiled.name.encode()))
    values = (
        raster.data_ptr(), other.data_ptr(), offsets.data_ptr(), *raster.shape[2:], *other.shape[2:], out.data_ptr(),
    )  # fmt: skip
    _check(
        driver,
        driver.cuLaunchKernel(function, *grid, compiled.threads, 1, 1, compiled.shared_bytes, 0, (values, TYPES), 0),
    )


def _check(driver: Any, result: tuple[Any, ...]) -> Any:
    error, *values = result
    if error != driver.CUresult.CUDA_SUCCESS:
        raise RuntimeError(f"the driver returned {error}; expected CUDA_SUCCESS")
    return values[0] if values else None

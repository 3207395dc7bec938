"""The PTX that an engine embeds, loaded by the driver and launched with exactly TensorRT's arguments."""

import pytest
import torch

from model_export.kernels import ptx
from model_export.kernels.ptx import Spec
from model_export.kernels.tactics import tactics
from tests.model_export.kernels import call_by_driver, reference
from tests.model_export.kernels.reference import SAMPLINGS, Shape


@pytest.mark.parametrize("sampling", SAMPLINGS)
@pytest.mark.parametrize("layout", ["planar", "channels_last"])
@pytest.mark.parametrize("kernel", ["aligned_aggregate", "aligned_context"])
def test_the_embedded_ptx_computes_the_kernel(gpu: torch.device, kernel: str, layout: str, sampling: str) -> None:
    driver = pytest.importorskip("cuda.bindings.driver")
    shape = Shape(2, 64, (45, 61), (23, 31))
    channels = 4 if kernel == "aligned_aggregate" else 2
    maps = reference.maps(shape, channels, "borders", torch.float16)
    memory_format = torch.channels_last if layout == "channels_last" else torch.contiguous_format
    raster, other = (x.to(gpu).contiguous(memory_format=memory_format) for x in maps[:2])
    out = torch.full_like(raster, 7.0)
    major, minor = torch.cuda.get_device_capability()
    for tactic in tactics(layout, shape.c):
        pixel = shape.c if layout == "channels_last" else 0
        spec = Spec(kernel, "fp16", "fp16", shape.c, sampling == "standard", pixel, 0, tactic)
        compiled = ptx.compile_ptx(spec, 10 * major + minor)
        call_by_driver.run(
            driver, compiled, tactic.grid(*shape.raster, shape.c, shape.n), (raster, other, maps[2].to(gpu)), out
        )
        torch.cuda.synchronize()
        compute = reference.aggregate if kernel == "aligned_aggregate" else reference.context
        torch.testing.assert_close(out.double().cpu(), compute(*maps, sampling), rtol=1e-3, atol=1e-3)
        out.fill_(7.0)

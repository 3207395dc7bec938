"""Compiles the kernels to PTX without a GPU. A TensorRT engine embeds it; the tests compile it for each architecture.

python -m model_export.kernels.ptx prints registers, spills, barriers and instructions of each variant.
"""

import argparse
import itertools
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from model_export.kernels.tactics import Layout, Tactic, tactics

ARCHITECTURES = (80, 86, 89, 90, 100, 120)  # A100; A10, RTX 30; L4, RTX 40; H100, H200; B200; RTX 50
# Read by CUDA 12.8 and its drivers (570 and newer); the first version with sm_120. Triton's default is newer.
PTX_VERSION = 87
# B300, Thor, DGX Spark: the first versions that have them; LLVM aborts on older ones.
_NEWER_VERSIONS = {103: 88, 110: 90, 121: 88}
Storage = Literal["fp32", "fp16", "bf16"]
KernelName = Literal["aligned_aggregate", "aligned_context"]
_PARAMETERS = {
    "aligned_aggregate": ("low", "high", "height", "width", "high_height", "high_width"),
    "aligned_context": ("local", "context", "height", "width", "context_height", "context_width"),
}
_USED = (r"Used (\d+) registers", r"(\d+) bytes spill stores", r"(\d+) bytes stack frame")  # in ptxas -v


class PtxError(Exception):
    """The kernel can't be compiled to PTX that TensorRT can launch."""


@dataclass(frozen=True, slots=True)
class Spec:
    """One variant of a kernel. pixel, offsets_pixel: PIXEL and OFFSETS_PIXEL of aligned_sampling.py; 0 is planar."""

    kernel: KernelName
    storage: Storage
    offsets: Storage
    channels: int
    standard: bool
    pixel: int
    offsets_pixel: int
    tactic: Tactic


@dataclass(frozen=True, slots=True)
class Compiled:
    """PTX and how to launch it. Its arguments are three inputs, four int32 sizes and the output."""

    name: str
    ptx: str
    threads: int
    shared_bytes: int


def compile_ptx(spec: Spec, architecture: int) -> Compiled:
    """Compile `spec` for sm_`architecture`, e.g. 90.

    Raises PtxError when the kernel needs scratch memory, which TensorRT does not provide, or under TRITON_INTERPRET=1.
    """
    import triton  # noqa: PLC0415 - takes half a second, and only compiling needs it
    from triton.backends.compiler import GPUTarget  # noqa: PLC0415
    from triton.compiler import ASTSource  # noqa: PLC0415

    from model_export.kernels import aligned_sampling  # noqa: PLC0415

    function = getattr(aligned_sampling, spec.kernel)
    if not isinstance(function, triton.JITFunction):
        raise PtxError(
            "TRITON_INTERPRET=1 is set, and Triton's interpreter compiles no PTX. Unset it before triton is imported."
        )
    signature, constants = _signature(spec)
    version = _NEWER_VERSIONS.get(architecture, PTX_VERSION)
    names = list(signature)
    aligned = {(names.index(n),): [["tt.divisibility", 16]] for n in names if signature[n].startswith("*")}
    with triton.knobs.compilation.scope():
        triton.knobs.compilation.disable_line_info = True  # else the engine would contain paths of this machine
        compiled: Any = triton.compile(
            ASTSource(fn=function, signature=signature, constexprs=constants, attrs=aligned),
            target=GPUTarget("cuda", architecture, 32),
            options={"num_warps": spec.tactic.warps, "ptx_version": version, "enable_fp_fusion": True},
        )
    meta = compiled.metadata
    if meta.global_scratch_size or meta.profile_scratch_size:
        size = meta.global_scratch_size + meta.profile_scratch_size
        raise PtxError(f"{spec.kernel} needs {size} bytes of scratch memory; expected 0, as TensorRT provides none")
    ptx = without_scratch(compiled.asm["ptx"], arguments=len(names) - len(constants))
    return Compiled(meta.name, ptx, meta.num_warps * 32, meta.shared)


def without_scratch(ptx: str, arguments: int) -> str:
    """Remove the two scratch pointers that Triton appends to every kernel's parameters.

    arguments: how many TensorRT passes; the driver would read the other two from beyond the end of that list.
    Raises PtxError if the kernel uses them, or has fewer than `arguments` parameters.
    """
    entry = re.search(r"\.visible \.entry (\w+)\(\n(.*?)\n\)", ptx, re.DOTALL)
    if entry is None:
        raise PtxError("the PTX has no .entry; expected one kernel")
    parameters = entry[2].split(",\n")
    extra = [p.split()[-1] for p in parameters[arguments:]]
    if len(parameters) < arguments or any(re.search(rf"\[{name}\b", ptx) for name in extra):
        raise PtxError(f"the kernel has the parameters {parameters}; expected {arguments}, and no use of any others")
    return ptx.replace(entry[2], ",\n".join(parameters[:arguments]), 1)


@dataclass(frozen=True, slots=True)
class Resources:
    """What an assembled kernel uses. vector_loads: loads of 16 bytes. instructions: in the machine code."""

    registers: int
    spilled_bytes: int
    stack_bytes: int
    barriers: int
    vector_loads: int
    instructions: int


def resources(compiled: Compiled, architecture: int) -> Resources:
    """Assemble the PTX with the ptxas that Triton contains. Raises PtxError when ptxas reports an error."""
    import triton  # noqa: PLC0415

    tools = triton.knobs.nvidia
    ptxas = tools.ptxas_blackwell if architecture >= 100 else tools.ptxas
    target = re.search(r"\.target (\w+)", compiled.ptx)
    with tempfile.TemporaryDirectory() as folder:
        source, cubin = Path(folder) / "kernel.ptx", Path(folder) / "kernel.cubin"
        source.write_text(compiled.ptx)
        command = [ptxas.path, "-v", f"--gpu-name={target[1] if target else ''}", "-o", cubin, source]
        assembled = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
        if assembled.returncode:
            raise PtxError(f"ptxas can't assemble {compiled.name} for sm_{architecture}: {assembled.stderr.strip()}")
        listing = [tools.cuobjdump.path, "-sass", cubin]
        sass = subprocess.run(listing, capture_output=True, text=True, check=True).stdout  # noqa: S603
    matches = (re.search(pattern, assembled.stderr) for pattern in _USED)
    registers, spilled, stack = (int(number[1]) if number else 0 for number in matches)
    operations = re.findall(r"/\*[0-9a-f]{4,5}\*/ +(?:@!?U?P\w+ +)?(\w[\w.]*)", sass)
    return Resources(
        registers,
        spilled,
        stack,
        barriers=sum(operation.startswith("BAR") for operation in operations),
        vector_loads=sum(operation.startswith("LDG") and ".128" in operation for operation in operations),
        instructions=sum(operation != "NOP" for operation in operations),
    )


def _signature(spec: Spec) -> tuple[dict[str, str], dict[str, Any]]:
    """The types of all parameters in order, and the values of those that are compiled in."""
    first, second, *sizes = _PARAMETERS[spec.kernel]
    constants = {
        "C": spec.channels, "STANDARD": spec.standard, "PIXEL": spec.pixel, "OFFSETS_PIXEL": spec.offsets_pixel,
        "LANES": spec.tactic.lanes, "BLOCK_H": spec.tactic.block_h, "BLOCK_W": spec.tactic.block_w,
        "BLOCK_C": spec.tactic.block_c,
    }  # fmt: skip
    maps = {first: f"*{spec.storage}", second: f"*{spec.storage}", "offsets": f"*{spec.offsets}"}
    signature = maps | dict.fromkeys(sizes, "i32") | {"out": f"*{spec.storage}"} | dict.fromkeys(constants, "constexpr")
    return signature, constants


def variants(every: bool = False, channels: int = 256) -> Iterator[Spec]:
    """Each kernel in each layout: with its first tactic in float16, or with `every` tactic, in float16 and float32."""
    layouts: tuple[Layout, ...] = ("channels_last", "planar")
    kernels: tuple[KernelName, ...] = ("aligned_aggregate", "aligned_context")
    storages: tuple[Storage, ...] = ("fp16", "fp32") if every else ("fp16",)
    for kernel, layout, storage in itertools.product(kernels, layouts, storages):
        pixel = channels if layout == "channels_last" else 0
        for tactic in tactics(layout, channels)[: None if every else 1]:
            yield Spec(kernel, storage, "fp16", channels, True, pixel, 0, tactic)


def main(arguments: Sequence[str] | None = None) -> int:
    """Compile the variants for every architecture. Raises PtxError when one fails."""
    parser = argparse.ArgumentParser(description="Compile the kernels to PTX for every architecture, without a GPU.")
    parser.add_argument(
        "--arch", type=int, nargs="*", default=ARCHITECTURES, help="compute capabilities such as 90; default: all six"
    )
    parser.add_argument("--every", action="store_true", help="every tactic, also in float32")
    parser.add_argument("--json", action="store_true", help="print one JSON object per line, with the PTX")
    options = parser.parse_args(arguments)
    for architecture in options.arch:
        for spec in variants(options.every):
            compiled = compile_ptx(spec, architecture)
            used = resources(compiled, architecture)
            layout, t = "channels last" if spec.pixel else "planar", spec.tactic
            tile = f"{t.block_h}x{t.block_w}x{t.block_c}/{t.warps}"
            row = {"architecture": architecture, "layout": layout, "storage": spec.storage, "tile": tile}
            line = (
                f"sm_{architecture:<4} {compiled.name:18} {layout:14} {spec.storage} {tile:12} {used.registers:4} "
                f"registers, {used.spilled_bytes} bytes spilled, {used.barriers} barriers, {used.vector_loads} loads "
                f"of 16 bytes, {used.instructions} instructions"
            )
            row |= asdict(compiled) | asdict(used)
            sys.stdout.write((json.dumps(row) if options.json else line) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""TensorRT network -> plan: optimisation profiles, timing cache, the build."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from model_export.tensorrt_build.library import Library
from service.files import atomic_replace
from service.model_folder.engine_plan import PlanProfile
from service.types import PICTURES


def profiles(buckets: Sequence[tuple[int, int]], batches: Sequence[int]) -> tuple[PlanProfile, ...]:
    """For each bucket one profile a batch size, tuned for that size and accepting those above the next smaller one."""
    sizes = sorted(set(batches))
    floors = [1, *(size + 1 for size in sizes[:-1])]
    return tuple(
        PlanProfile(bucket=bucket, min_batch=floor, max_batch=size)
        for bucket in buckets
        for floor, size in zip(floors, sizes, strict=True)
    )


def configure(
    library: Library,
    builder: Any,
    plan_profiles: Sequence[PlanProfile],
    architectures: Sequence[int],
    workspace_mib: int | None,
) -> Any:
    """A builder configuration.

    architectures: for TensorRT for RTX, e.g. (89, 120); empty: the GPU of this machine.
    """
    config = library.require(builder.create_builder_config(), "create a configuration")
    flags = library.trt.BuilderFlag
    config.profiling_verbosity = library.trt.ProfilingVerbosity.DETAILED
    config.clear_flag(flags.TF32)  # set by default: values that the graph keeps in float32 would lose 13 of 23 bits
    if hasattr(flags, "REQUIRE_USER_ALLOCATION"):  # only in TensorRT for RTX: CUDA graphs need it
        config.set_flag(flags.REQUIRE_USER_ALLOCATION)
    if workspace_mib is not None:
        config.set_memory_pool_limit(library.trt.MemoryPoolType.WORKSPACE, workspace_mib * 2**20)
    for item in plan_profiles:
        profile = builder.create_optimization_profile()
        smallest, largest = ((n, *item.bucket, 3) for n in (item.min_batch, item.max_batch))
        profile.set_shape(PICTURES, smallest, largest, largest)
        library.require(config.add_optimization_profile(profile) >= 0, f"add the optimisation profile {item}")
    if architectures:
        config.num_compute_capabilities = len(architectures)
        for index, architecture in enumerate(architectures):
            capability = getattr(library.trt.ComputeCapability, f"SM{architecture}", None)
            supported = library.require(capability, f"build for sm_{architecture}")
            library.require(config.set_compute_capability(supported, index), f"build for sm_{architecture}")
    return config


def use_timing_cache(library: Library, config: Any, path: Path) -> None:
    """Start from the timings of earlier builds. TensorRT for RTX times no kernels, so it has no cache."""
    if library.runtime == "tensorrt":
        content = path.read_bytes() if path.is_file() else b""
        cache = library.require(config.create_timing_cache(content), f"read the timing cache {path} (delete it)")
        config.set_timing_cache(cache, ignore_mismatch=False)


def keep_timing_cache(library: Library, config: Any, path: Path) -> None:
    """Write the timings, including those of this build."""
    if library.runtime == "tensorrt":
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_replace(path) as temporary:
            temporary.write_bytes(config.get_timing_cache().serialize())


def build(library: Library, builder: Any, network: Any, config: Any) -> bytes:
    """The serialised engine. Raises RuntimeError with TensorRT's messages."""
    plan = library.require(builder.build_serialized_network(network, config), "build the engine")
    return bytes(memoryview(plan))

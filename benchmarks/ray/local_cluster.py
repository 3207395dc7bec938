"""A Ray cluster of several nodes in this machine's processes, for benchmarks of what goes past one machine."""

import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.server.fake_engine_server import StandInEngine, manifest
from service.model_folder.manifest import FILE_NAME, Manifest
from service.ray_serve import cluster as ours  # sets what Ray reads when it is imported
from service.settings import Settings
from service.types import Engine

import ray  # isort: skip
from ray.cluster_utils import Cluster  # isort: skip

__all__ = ["model_folder", "nodes", "ours", "waiting_engine"]


@contextmanager
def nodes(count: int, gpus: int) -> Generator[Any, None, None]:
    """A head for the ways in, and `count` nodes that say they have `gpus` GPUs each; connected."""
    memory = {"object_store_memory": 200 * 1024 * 1024}
    head = {"num_cpus": 4, "resources": {"head": 1}, "include_dashboard": False, **memory}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    try:
        for _ in range(count):
            cluster.add_node(num_cpus=gpus, num_gpus=gpus, **memory)
        ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
        cluster.wait_for_nodes()
        yield cluster
    finally:
        ray.shutdown()
        cluster.shutdown()


@contextmanager
def model_folder() -> Generator[Path, None, None]:
    """A folder with the stand-in's manifest, and no network."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / FILE_NAME).write_text(manifest().model_dump_json())
        yield Path(folder)


class waiting_engine:  # noqa: N801 - an opener, which travels with its argument
    """Opens an engine that waits `infer_s` instead of computing."""

    def __init__(self, infer_s: float) -> None:
        self._infer_s = infer_s

    def __call__(self, settings: Settings, manifest: Manifest) -> list[Engine]:
        """See lifespan.EngineFactory."""
        return [StandInEngine(self._infer_s)]

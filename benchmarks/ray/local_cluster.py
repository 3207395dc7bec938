"""A Ray cluster of several nodes, each in processes of this machine."""

import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.server.fake_engine_server import FakeEngine, manifest
from service.model_folder.manifest import FILE_NAME, Manifest
from service.ray_serve import cluster as ours  # sets variables that Ray reads when it is imported
from service.settings import Settings
from service.types import Engine

import ray  # isort: skip
from ray.cluster_utils import Cluster  # isort: skip

__all__ = ["WaitingEngineFactory", "model_folder", "nodes", "ours"]


@contextmanager
def nodes(count: int, gpus: int) -> Generator[Any, None, None]:
    """Start a head for the ingress and `count` nodes that claim `gpus` GPUs each, and connect to them."""
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
    """A folder with the fake engine's manifest, and no network."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / FILE_NAME).write_text(manifest().model_dump_json())
        yield Path(folder)


class WaitingEngineFactory:
    """Opens engines that wait `infer_s` instead of computing; a class, so that Ray can pickle it."""

    def __init__(self, infer_s: float) -> None:
        self._infer_s = infer_s

    def __call__(self, settings: Settings, manifest: Manifest) -> list[Engine]:
        """See lifespan.EngineFactory."""
        return [FakeEngine(self._infer_s)]

"""A Ray cluster of several nodes on this machine, for all tests in this folder."""

import os
import socket
from collections.abc import Generator
from typing import Any

import pytest

from tests.support.server_process import REPOSITORY


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@pytest.fixture(scope="package")
def ray_cluster() -> Generator[Any, None, None]:
    """A head without a GPU and three nodes that claim to have one; this process is connected."""
    import ray

    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(REPOSITORY), os.environ.get("PYTHONPATH"))))
    cluster = _started()
    try:
        ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR", configure_logging=False)
        yield cluster
    finally:
        ray.shutdown()
        cluster.shutdown()


def _started(attempts: int = 5) -> Any:
    """The cluster. Ray gives each node 30 s to start, which a busy machine may exceed: then try again."""
    from ray.cluster_utils import Cluster

    # By default a dead node is noticed after half a minute.
    fast_health_checks = {"health_check_period_ms": 500, "health_check_failure_threshold": 3}
    memory = {"object_store_memory": 100 * 1024 * 1024}
    head = {
        "num_cpus": 3,
        "resources": {"head": 1, "codecs": 2},
        "include_dashboard": True,  # `serve deploy` talks to it
        "_system_config": fast_health_checks,
    }
    for attempt in range(1, attempts + 1):
        cluster = Cluster()
        try:
            cluster.add_node(**head, **memory, dashboard_port=_free_port())
            for _ in range(3):
                cluster.add_node(wait=False, num_cpus=1, num_gpus=1, **memory)
            cluster.wait_for_nodes(timeout=300)
        except Exception as error:  # Ray raises this class itself
            cluster.shutdown()
            if attempt == attempts or "timed out during startup" not in str(error):
                raise
        else:
            return cluster
    raise AssertionError

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
    from ray.cluster_utils import Cluster

    from service.ray_serve import cluster as _  # sets the variables that Ray reads on import

    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(REPOSITORY), os.environ.get("PYTHONPATH"))))
    # By default a dead node is noticed after half a minute.
    fast_health_checks = {"health_check_period_ms": 500, "health_check_failure_threshold": 3}
    memory = {"object_store_memory": 100 * 1024 * 1024}
    cluster = Cluster(
        initialize_head=True,
        head_node_args={
            "num_cpus": 3,
            "resources": {"head": 1, "codecs": 2},
            "include_dashboard": True,  # `serve deploy` talks to it
            "dashboard_port": _free_port(),
            "_system_config": fast_health_checks,
            **memory,
        },
    )
    try:
        for _ in range(3):
            cluster.add_node(wait=False, num_cpus=1, num_gpus=1, **memory)
        cluster.wait_for_nodes()
        ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR", configure_logging=False)
        yield cluster
    finally:
        ray.shutdown()
        cluster.shutdown()

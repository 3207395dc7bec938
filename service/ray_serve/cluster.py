"""The Ray cluster that a command works on: the one that is there, or one of this machine alone while it runs."""

import logging
import os
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any, Final

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # Ray would report its use to its makers
os.environ.setdefault("RAY_SERVE_LOG_TO_STDERR", "0")  # its own lines go to files, ours to stderr
os.environ.setdefault("RAY_DEDUP_LOGS", "0")  # a line a request, though they look alike
os.environ.setdefault("RAY_COLOR_PREFIX", "0")  # before each: which process it is of, and no colours in files
# A picture goes straight from process to process, not through the object store: twice the pictures a second.
os.environ.setdefault("RAY_SERVE_USE_GRPC_BY_DEFAULT", "1")
# Serve's memory of how long a replica's queue is goes wrong: of two engines one stood idle while the other had it all.
os.environ.setdefault("RAY_SERVE_QUEUE_LENGTH_CACHE_TIMEOUT_S", "0")
# Ray is about to leave CUDA_VISIBLE_DEVICES alone for actors that ask for no GPU, and warns until one has chosen.
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")

import ray  # reads all of them when it is imported

NAMESPACE: Final = "alignseg"


@contextmanager
def joined(quiet: bool = False) -> Generator[None, None, None]:
    """While inside, Ray can be used.

    Joins the cluster that RAY_ADDRESS names or that `ray start` began here; else starts one in this machine's
    processes, which ends with this. Whoever has called ray.init already keeps theirs.
    quiet: workers' lines are not repeated here.
    """
    if ray.is_initialized():
        yield
        return
    logging.getLogger("ray").setLevel(logging.WARNING)
    logging.getLogger("ray._private.authentication").setLevel(logging.ERROR)  # it warns that a token guards the cluster
    options: dict[str, Any] = {} if os.environ.get("RAY_ADDRESS") else {"include_dashboard": False}
    ray.init(namespace=NAMESPACE, log_to_driver=not quiet, configure_logging=False, **options)
    try:
        yield
    finally:
        ray.shutdown()


def gpus() -> int:
    """GPUs of all nodes that are here now."""
    return int(ray.cluster_resources().get("GPU", 0))


def nodes() -> int:
    """Nodes that are alive and may work."""
    return sum(bool(node["Alive"] and node["Resources"].get("CPU", 0)) for node in ray.nodes())

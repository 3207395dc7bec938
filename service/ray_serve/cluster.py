"""The Ray cluster that a command uses: an existing one, or one on this machine for as long as the command runs."""

import logging
import os
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any, Final

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # disables Ray's usage reports to its developers
os.environ.setdefault("RAY_SERVE_LOG_TO_STDERR", "0")  # Ray Serve logs to files, this application to stderr
os.environ.setdefault("RAY_DEDUP_LOGS", "0")  # else similar access log lines are dropped
os.environ.setdefault("RAY_COLOR_PREFIX", "0")  # no color codes in the prefix that names the process
# Images go directly between processes, not through the object store: twice the throughput.
os.environ.setdefault("RAY_SERVE_USE_GRPC_BY_DEFAULT", "1")
# With its cache of queue lengths, Ray Serve sent all requests to one of two engines while the other was idle.
os.environ.setdefault("RAY_SERVE_QUEUE_LENGTH_CACHE_TIMEOUT_S", "0")
# Ray will stop changing CUDA_VISIBLE_DEVICES for actors without a GPU, and warns until the variable is set.
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")

import ray  # after the variables: it reads them on import

NAMESPACE: Final = "alignseg"


@contextmanager
def connected(quiet: bool = False) -> Generator[None, None, None]:
    """Connect this process to Ray until the context ends.

    Uses the cluster that RAY_ADDRESS names or that `ray start` started here; else starts one on this machine, which
    ends with the context. If ray.init was called before, that connection is used. quiet: do not repeat workers' logs.
    """
    if ray.is_initialized():
        yield
        return
    logging.getLogger("ray").setLevel(logging.WARNING)
    logging.getLogger("ray._private.authentication").setLevel(logging.ERROR)  # warns that token authentication is on
    options: dict[str, Any] = {} if os.environ.get("RAY_ADDRESS") else {"include_dashboard": False}
    ray.init(namespace=NAMESPACE, log_to_driver=not quiet, configure_logging=False, **options)
    try:
        yield
    finally:
        ray.shutdown()


def gpus() -> int:
    """Return the number of GPUs of all nodes."""
    return int(ray.cluster_resources().get("GPU", 0))


def nodes() -> int:
    """Return the number of nodes that are alive and have CPUs."""
    return sum(bool(node["Alive"] and node["Resources"].get("CPU", 0)) for node in ray.nodes())

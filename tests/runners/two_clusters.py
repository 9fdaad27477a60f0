"""Join a cluster, leave it, and run on another; refuse one that is not that of this program. Told by its status."""

from __future__ import annotations

import os
import warnings

os.environ.update({"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "RAY_USAGE_STATS_ENABLED": "0"})  # loopback addresses only

import pytest
import ray
from ray.cluster_utils import Cluster

from katsuo.config import RunnerOptions
from katsuo.errors import RunnerError
from katsuo.runners import RunnerSettings
from katsuo.runners.ray_actors import RayRunner


def where(address: str) -> str:
    """Give the address of the cluster that a runner is on."""
    with RayRunner(RunnerSettings(int, RunnerOptions(workers=1, address=address))):
        return str(ray.get_runtime_context().gcs_address)


def main() -> None:
    """Go from one cluster to the other, and then try to leave one that is not the runner's to leave."""
    head = {"num_cpus": 1, "include_dashboard": False}
    try:
        cluster = Cluster(initialize_head=True, head_node_args=head)
    except Exception:  # a node gives up on itself after 30 seconds, which a busy machine may need
        ray.shutdown()
        cluster = Cluster(initialize_head=True, head_node_args=head)
    assert where(cluster.address) == cluster.address
    assert not ray.is_initialized(), "a cluster that was joined is left"
    assert where("local") != cluster.address
    ray.init(address=cluster.address, log_to_driver=False)
    with pytest.raises(RunnerError, match=f'initialised Ray at "{cluster.address}", and the recipe asks for "local"'):
        where("local")
    port = cluster.address.rpartition(":")[2]
    assert {where("auto"), where(cluster.address), where(f"localhost:{port}")} == {cluster.address}
    assert ray.is_initialized(), "what the program has initialised is not the runner's to shut down"
    ray.shutdown()
    cluster.shutdown()


if __name__ == "__main__":
    warnings.simplefilter("ignore", ResourceWarning)
    main()

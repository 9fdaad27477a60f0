"""
Make a run on a Ray cluster of three nodes on this machine and kill one half-way: `kill_a_node.py RECIPE RUN TOLD`.

A process of its own, because Ray keeps the first environment of one. TOLD gets the shards of each worker that was lost.
"""

from __future__ import annotations

import json
import os
import sys
import warnings
from pathlib import Path
from typing import Any

os.environ.update({"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "RAY_USAGE_STATS_ENABLED": "0"})  # loopback addresses only

import ray
from ray.cluster_utils import Cluster

import katsuo
from katsuo.config import read_recipe
from katsuo.runners.pool import Pool

STORE_BYTES = 80 << 20


def start_cluster() -> Any:
    # The head holds this process alone, so that a node can be killed without it.
    quick = {"health_check_initial_delay_ms": 0, "health_check_period_ms": 1000, "health_check_failure_threshold": 15}
    head = {"num_cpus": 0, "object_store_memory": STORE_BYTES, "include_dashboard": False, "_system_config": quick}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    for _ in range(2):
        cluster.add_node(num_cpus=1, object_store_memory=STORE_BYTES)
    return cluster


def watch_pools(replaced: list[list[int]]) -> list[Pool[Any]]:
    """Give a list that gets the pool once there is one; `replaced` gets the shards of lost workers."""
    pools: list[Pool[Any]] = []
    run, replace = Pool.run, Pool._replace

    def run_watched(self: Pool[Any], shards: Any, work: Any, keep: Any) -> None:
        pools.append(self)
        run(self, shards, work, keep)

    def replace_counted(self: Pool[Any], worker: Any, *rest: Any) -> None:
        replaced.append(list(worker.shards))
        replace(self, worker, *rest)

    Pool.run, Pool._replace = run_watched, replace_counted  # type: ignore[method-assign]
    return pools


def kill_node_at_work(cluster: Any, pools: list[Pool[Any]]) -> None:
    """Kill the node of one worker if it has shards to do, and have another node take its place."""
    (pool,) = pools
    while not all(worker.is_open for worker in pool._workers):
        pool._gather()
    worker = pool._workers[-1]
    if not worker.shards:
        return  # later, then
    pools.clear()
    node_id = ray._private.state.actors(worker.handle._actor_id.hex())["Address"]["NodeID"]
    (victim,) = [node for node in cluster.worker_nodes if node.node_id == node_id]
    cluster.remove_node(victim, allow_graceful=False)
    cluster.add_node(num_cpus=1, object_store_memory=STORE_BYTES)


def main() -> None:
    recipe, output = read_recipe(Path(sys.argv[1])), sys.argv[2]
    try:
        cluster = start_cluster()
    except Exception:  # a node gives up on itself after 30 seconds, which a busy machine may need
        ray.shutdown()
        cluster = start_cluster()
    replaced: list[list[int]] = []
    recipe = recipe.override({"runner": "ray", "runner_options": {"workers": 2, "address": cluster.address}})
    pools = watch_pools(replaced)  # empty again once a node was killed

    def kill_half_way(progress: Any) -> None:
        if progress.stage == "answer" and 2 * progress.done >= progress.total and pools:
            kill_node_at_work(cluster, pools)

    katsuo.generate(recipe=recipe, output=output, on_progress=kill_half_way)
    assert not pools, "the run was over before a node was killed"
    Path(sys.argv[3]).write_text(json.dumps(replaced))
    ray.shutdown()
    cluster.shutdown()


if __name__ == "__main__":
    warnings.simplefilter("ignore", ResourceWarning)
    main()

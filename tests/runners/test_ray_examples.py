"""The cluster files in `examples/` are what Ray, YAML and the shell take, and give settings that katsuo has."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
from pathlib import Path

import jsonschema
import pytest
import yaml

from katsuo.config import Recipe
from katsuo.settings import known_keys

EXAMPLES = Path(__file__).parent.parent.parent / "examples"
FILES = ("ray_cluster.yaml", "ray_kubernetes.yaml", "ray_slurm.sh")


def test_the_cluster_file_is_one_by_rays_own_schema() -> None:
    found = importlib.util.find_spec("ray")  # importing it takes a second
    assert found
    assert found.origin
    schema = json.loads((Path(found.origin).parent / "autoscaler" / "ray-schema.json").read_text())
    cluster = yaml.safe_load((EXAMPLES / "ray_cluster.yaml").read_text())
    jsonschema.validate(cluster, schema)
    started = " ".join(cluster["head_start_ray_commands"] + cluster["worker_start_ray_commands"])
    assert started.count("RAY_USAGE_STATS_ENABLED=0") == 2


def test_the_kubernetes_file_holds_a_job_with_workers_and_a_policy() -> None:
    job, policy = yaml.safe_load_all((EXAMPLES / "ray_kubernetes.yaml").read_text())
    cluster = job["spec"]["rayClusterSpec"]
    pods = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    for pod in pods:
        (container,) = pod["template"]["spec"]["containers"]
        assert {"name": "RAY_USAGE_STATS_ENABLED", "value": "0"} in container["env"]
        assert container["volumeMounts"][0]["name"] == pod["template"]["spec"]["volumes"][0]["name"]
    assert (job["kind"], policy["kind"]) == ("RayJob", "NetworkPolicy")


def test_the_slurm_script_is_a_shell_script() -> None:
    subprocess.run(["bash", "-n", str(EXAMPLES / "ray_slurm.sh")], check=True)


@pytest.mark.parametrize("name", [*FILES, "../docs/scaling.md"])
def test_settings_that_a_file_gives_are_settings(name: str) -> None:
    text = (EXAMPLES / name).read_text(encoding="utf-8")
    given = re.findall(r"--set (\S+?)=", text)
    assert set(given) <= set(known_keys(Recipe))
    assert given or name == "ray_cluster.yaml"
    assert "--runner ray" in text or name == "ray_cluster.yaml"

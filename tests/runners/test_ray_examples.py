"""The cluster files in `examples/` are what Ray, YAML and the shell take, and give settings that katsuo has."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import signal
import subprocess
import time
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
    entrypoint, (gpus,) = job["spec"]["entrypoint"], cluster["workerGroupSpecs"]
    workers = int(re.findall(r"--workers (\d+)", entrypoint)[0])
    assert gpus["replicas"] < workers <= gpus["maxReplicas"], "the cluster grows with what is asked for"
    assert "--set runner_options.gpus_per_worker=1" in entrypoint
    assert "--allow-partial" in entrypoint
    assert (job["kind"], policy["kind"]) == ("RayJob", "NetworkPolicy")


def test_the_slurm_script_is_a_shell_script() -> None:
    subprocess.run(["bash", "-n", str(EXAMPLES / "ray_slurm.sh")], check=True)


STUB = """#!/bin/bash
case "$(basename "$0") $*" in
  "scontrol show"*) echo node-1 ;;
  *hostname*) echo 10.0.0.1 ;;
  *"ray start"*) exec /bin/sleep 30 ;;
  *"katsuo generate"*) echo "$*" > told; [ "$STATUS" = run ] && exec /bin/sleep 30; exit "$STATUS" ;;
  scontrol*) echo "$*" > asked ;;
esac
"""


def start_job(folder: Path, status: str) -> subprocess.Popen[bytes]:
    """Run the job with Slurm's words, which no machine but a cluster's has, said by a stub."""
    for name in ("srun", "scontrol", "sleep", "openssl"):
        (folder / name).write_text(STUB)
        (folder / name).chmod(0o755)
    environment = {"PATH": f"{folder}:{os.environ['PATH']}", "HOME": str(folder), "STATUS": status}
    environment |= {"SLURM_JOB_ID": "77", "SLURM_JOB_NODELIST": "node-1", "SLURM_GPUS_ON_NODE": "8"}
    command = ["bash", str(EXAMPLES / "ray_slurm.sh"), "recipe.yaml", "/shared/run"]
    return subprocess.Popen(command, env=environment, cwd=folder, start_new_session=True)


@pytest.mark.parametrize("status", ["0", "3", "1"])
def test_the_slurm_script_gives_the_status_of_a_run_whose_rejects_are_allowed(status: str, tmp_path: Path) -> None:
    job = start_job(tmp_path, status)
    assert job.wait(timeout=30) == int(status)
    os.killpg(job.pid, signal.SIGKILL)
    told = (tmp_path / "told").read_text()
    assert "--workers=8 --set runner_options.gpus_per_worker=1" in told
    assert "--allow-partial" in told


def test_the_slurm_script_requeues_its_job_before_the_time_limit(tmp_path: Path) -> None:
    assert "#SBATCH --signal=B:USR1@" in (EXAMPLES / "ray_slurm.sh").read_text()
    job = start_job(tmp_path, "run")
    deadline = time.monotonic() + 30
    while not (tmp_path / "told").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    job.send_signal(signal.SIGUSR1)
    assert job.wait(timeout=10) == 0, "it does not wait for the run to end"
    os.killpg(job.pid, signal.SIGKILL)
    assert (tmp_path / "asked").read_text().split() == ["requeue", "77"]
    assert not list((tmp_path / ".ray").iterdir()), "the token is gone"


@pytest.mark.parametrize("name", [*FILES, "../docs/scaling.md"])
def test_settings_that_a_file_gives_are_settings(name: str) -> None:
    text = (EXAMPLES / name).read_text(encoding="utf-8")
    given = re.findall(r"--set (\S+?)=", text)
    assert set(given) <= set(known_keys(Recipe))
    assert given or name == "ray_cluster.yaml"
    assert "KATSUO_ANSWERS" in text, "on a node's disk"
    assert not re.search(r"KATSUO_CACHE(=|, value: )(/var)?/tmp", text), "models lie there, and every worker needs them"
    assert "--runner ray" in text or name == "ray_cluster.yaml"

#!/bin/bash
# katsuo on a Slurm cluster: `sbatch examples/ray_slurm.sh recipe.yaml /shared/runs/contracts`.
#
# One worker per GPU. The job may be stopped at any time and given again: finished shards are kept. Before its time limit
# it requeues itself, until the run is finished; `scancel` ends that. Paths are absolute. The model is where `katsuo pull`
# has put it, in a home folder that all nodes see.
#SBATCH --job-name=katsuo
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=64
#SBATCH --time=12:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=B:USR1@300
set -euo pipefail
recipe=$1 run=$2

export RAY_USAGE_STATS_ENABLED=0 HF_HUB_OFFLINE=1
export KATSUO_ANSWERS=${SLURM_TMPDIR:-/tmp}/katsuo-$SLURM_JOB_ID # a disk of the node: the cache of answers is SQLite
# Who reaches Ray's ports and has the token may run code as you.
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH=$HOME/.ray/katsuo-$SLURM_JOB_ID
mkdir -p "$HOME/.ray" && (umask 077 && openssl rand -hex 32 > "$RAY_AUTH_TOKEN_PATH")
trap 'rm -f "$RAY_AUTH_TOKEN_PATH"' EXIT

nodes=($(scontrol show hostnames "$SLURM_JOB_NODELIST"))
head=${nodes[0]}
address=$(srun --nodes=1 --ntasks=1 -w "$head" hostname --ip-address | awk '{print $1}')
port=$((20000 + SLURM_JOB_ID % 20000)) # two jobs on one node do not meet

srun --nodes=1 --ntasks=1 --overlap -w "$head" \
  ray start --head --node-ip-address="$address" --port=$port --include-dashboard=false --block &
sleep 15
if [ "${#nodes[@]}" -gt 1 ]; then
  others=$(IFS=,; echo "${nodes[*]:1}")
  srun --nodes=$((${#nodes[@]} - 1)) --ntasks=$((${#nodes[@]} - 1)) --overlap -w "$others" \
    ray start --address="$address:$port" --block &
  sleep 15
fi

# --requeue is for nodes that fail; a job that meets its time limit is given again by itself alone.
trap 'scontrol requeue "$SLURM_JOB_ID"; exit 0' USR1

# On the head's node, because a program joins Ray through the node that it runs on. In the background, because bash heeds
# a signal only while it waits. Rejected prompts are no failure here; 3 says that a budget of the recipe stopped the run.
status=0
srun --nodes=1 --ntasks=1 --overlap -w "$head" katsuo generate -c "$recipe" -o "$run" --runner ray \
  --workers=$((SLURM_GPUS_ON_NODE * ${#nodes[@]})) --set runner_options.gpus_per_worker=1 \
  --set runner_options.address="$address:$port" --allow-partial --quiet &
wait $! || status=$?
exit "$status"

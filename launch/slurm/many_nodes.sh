#!/usr/bin/env bash
# Train on several GPU nodes under Slurm, in one process for each GPU: in a Slurm job JAX gives each
# process the GPU of its number on the node (SLURM_LOCALID), so that fewer would leave GPUs idle.
#
#     sbatch --nodes=2 --gpus-per-node=8 --ntasks-per-node=8 launch/slurm/many_nodes.sh \
#         -- train --config F --workdir W
#
# Submit from the top of the checkout; W is in a folder that all nodes share. Options of sbatch
# before the script replace those in it. The words after -- go to glpi. Before the time is over the
# job saves, and goes back into the queue.
#
#   --command PROGRAM  run instead of glpi, such as .venv/bin/glpi
#   --dry-run          print the commands; without sbatch

#SBATCH --job-name=glpi
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=8
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=8
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
# To the processes of glpi, not to this script: they save, it sees their exit code. Slurm may send it
# a minute early.
#SBATCH --signal=TERM@180

set -euo pipefail
launch=$(dirname "${BASH_SOURCE[0]}")/..
# Slurm runs a copy of this file from elsewhere.
[[ -e $launch/common.sh ]] || launch=${SLURM_SUBMIT_DIR:-.}/launch
# shellcheck source=launch/common.sh
source "$launch/common.sh"

command=glpi
read_options "command" "" "$@"
require command
require_arguments
gpus=${SLURM_GPUS_PER_NODE:-8} tasks=${SLURM_NTASKS_PER_NODE:-8}
[[ ${gpus##*:} == "$tasks" ]] ||
    bad_arguments "--ntasks-per-node=$tasks and --gpus-per-node=$gpus: must be as many"
# All processes see all GPUs of their node, or the numbers would not fit. One that dies takes the
# others along, which would wait for it.
run_step --gpu-bind=none --kill-on-bad-exit=1 \
    "$command" "${arguments[@]}" --distributed auto

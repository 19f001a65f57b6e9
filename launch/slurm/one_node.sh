#!/usr/bin/env bash
# Train on one GPU node under Slurm, in one process that uses all GPUs of the job: it needs no
# coordinator, and one process decodes images fast enough for a few GPUs (config.data.workers).
#
#     sbatch --gpus-per-node=4 launch/slurm/one_node.sh -- train --config F --workdir W
#
# Submit from the top of the checkout. Options of sbatch before the script replace those in it. The
# words after -- go to glpi. Before the time is over the job saves, and goes back into the queue.
#
#   --command PROGRAM  run instead of glpi, such as .venv/bin/glpi
#   --dry-run          print the commands; without sbatch

#SBATCH --job-name=glpi
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --gpus-per-node=1
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
run_step --ntasks=1 "$command" "${arguments[@]}" --distributed off

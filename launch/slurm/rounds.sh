#!/usr/bin/env bash
# Train the rounds of a benchmark side by side under Slurm, each on a GPU of its own.
#
#     sbatch --array=1-10 launch/slurm/rounds.sh --workdir W -- --config F
#     glpi benchmark --rounds 10 --workdir W --config F     # afterwards: the median over them
#
# Submit from the top of the checkout. Options of sbatch before the script replace those in it. The
# words after -- are those of glpi benchmark. Before its time is over a round saves, and goes back
# into the queue.
#
#   --workdir FOLDER   of the benchmark; round R trains in FOLDER/round_0R
#   --seed SEED        config.seed of the benchmark (0); round R has SEED + R - 1
#   --command PROGRAM  run instead of glpi, such as .venv/bin/glpi
#   --dry-run          print the commands of round 1; without sbatch

#SBATCH --job-name=glpi-rounds
#SBATCH --array=1-10
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

workdir='' seed=0 command=glpi
read_options "workdir seed command" "" "$@"
require workdir command
require_whole 0 seed
require_arguments
round=${SLURM_ARRAY_TASK_ID:-1}
run_step --ntasks=1 \
    "$command" train "${arguments[@]}" --workdir "$workdir/$(printf 'round_%02d' "$round")" \
    "--config.split.round=$round" "--config.seed=$((seed + round - 1))" --distributed off

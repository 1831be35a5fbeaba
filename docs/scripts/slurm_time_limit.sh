#!/usr/bin/env bash
# A training that is longer than the time limit: two minutes before the end of each slice it saves and queues again.
#   sbatch [--partition=P] slurm_time_limit.sh RECIPE WORK_DIR [key=value ...]
#SBATCH --job-name=hookline
#SBATCH --time=240
#SBATCH --signal=USR1@120
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=%x-%j.log
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=2
set -euo pipefail
recipe=$1 work_dir=$2; shift 2
srun hookline train --config-file "$recipe" --work-dir "$work_dir" --resume \
  train.suspend.on_suspend=requeue train.suspend.grace_s=120 "$@"

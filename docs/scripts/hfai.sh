#!/usr/bin/env bash
# A training on HFAI's cluster. Nothing is to be set: its client is found, its flag is polled every second, and
# hfai.client.go_suspend() is called when the state is saved. The cluster starts the same command again.
#   hfai bash hfai.sh RECIPE WORK_DIR [key=value ...] -- --nodes 1 --name my_run
# Here, without the cluster:
#   HFAI_SIMULATE=1 SIMULATE_SUSPEND=20 bash hfai.sh RECIPE WORK_DIR
set -euo pipefail
recipe=$1 work_dir=$2; shift 2
exec hookline train --config-file "$recipe" --work-dir "$work_dir" --resume train.suspend.grace_s=5 "$@"

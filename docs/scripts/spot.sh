#!/usr/bin/env bash
# A training on a spot machine: the provider's notice is polled and becomes a file that the run looks at.
#   spot.sh aws|gce RECIPE WORK_DIR [key=value ...]
# WORK_DIR must outlive the machine. Run this script at every start of the machine: it goes on or begins.
# HOOKLINE_METADATA replaces the address of the metadata service, for trying this out elsewhere.
set -uo pipefail
provider=$1 recipe=$2 work_dir=$3; shift 3
flag=$(mktemp -u)

noticed() {
  case $provider in
    aws)
      local base=${HOOKLINE_METADATA:-http://169.254.169.254} token
      token=$(curl -sf -m 2 -X PUT "$base/latest/api/token" -H "X-aws-ec2-metadata-token-ttl-seconds: 60") || return 1
      curl -sf -m 2 -H "X-aws-ec2-metadata-token: $token" "$base/latest/meta-data/spot/instance-action" >/dev/null ;;
    gce)
      local base=${HOOKLINE_METADATA:-http://metadata.google.internal}
      [ "$(curl -sf -m 2 -H 'Metadata-Flavor: Google' "$base/computeMetadata/v1/instance/preempted")" = TRUE ] ;;
    *) echo "spot.sh: expected aws or gce, got $provider" >&2; exit 2 ;;
  esac
}

(while sleep 2; do noticed && touch "$flag"; done) &
poller=$!
trap 'kill $poller 2>/dev/null; rm -f "$flag"' EXIT
hookline train --config-file "$recipe" --work-dir "$work_dir" --resume \
  train.suspend.flag_file="$flag" train.suspend.grace_s=30 "$@"

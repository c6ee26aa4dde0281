#!/usr/bin/env bash
# Upgrade a model without a person, and push it only if that is shown to help.
#
#   HF_TOKEN=... recipes/pipeline.sh demo:planted owner/name
#
# Works without a terminal. Leaves outcome.json, push.json and the run folder with its
# report. Ends with surgeon's exit code: see `surgeon help exit-codes`.
set -euo pipefail
model=${1:?model: a folder, owner/name[@revision] or demo:planted}
repository=${2:?repository to push to: owner/name}
run=${RUN:-runs/pipeline}

mkdir -p "$(dirname "$run")"
# The recipe's task fits the demo model; a real one is asked questions in English.
settings=()
if [[ $model != demo:* ]]; then
  settings=(--set probe.prompts=default --set select.task=deduction
    --set 'check.tasks=[deduction, arithmetic]')
fi

surgeon run pipeline --model "$model" --out "$run" ${settings[@]+"${settings[@]}"} \
  --require improved --json > outcome.json
surgeon push "$run" "$repository" --private --json ${PUSH_OPTIONS:-} > push.json

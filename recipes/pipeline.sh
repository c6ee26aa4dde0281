#!/usr/bin/env bash
# Upgrade a model without a person, and push it only if that is shown to help.
#
#   HF_TOKEN=... recipes/pipeline.sh MODEL OWNER/NAME [OPTIONS OF surgeon run]
#
# MODEL is a folder, owner/name[@revision] or demo:planted. Works without a terminal. Leaves
# outcome.json, push.json and the run folder with its report. Ends with surgeon's exit code
# (surgeon help exit-codes): 5 means that it ran and did not improve; nothing is pushed then.
set -euo pipefail
model=${1:?model}
repository=${2:?repository to push to, owner/name}
shift 2
run=${RUN:-runs/pipeline}

# The recipe's task fits the demo models; a real one is asked questions in English.
settings=()
if [[ $model != demo:* ]]; then
  settings=(--set probe.prompts=default --set select.task=deduction
    --set 'check.tasks=[deduction, arithmetic]')
fi

surgeon run pipeline --model "$model" --out "$run" "${settings[@]}" "$@" \
  --require improved --json > outcome.json
surgeon push "$run" "$repository" --private --json > push.json

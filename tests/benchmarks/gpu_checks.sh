#!/usr/bin/env bash
# What a GPU has to answer before anybody trains on it for days. From anywhere:
#
#     tests/benchmarks/gpu_checks.sh [--tiny] [--out DIR] [--work DIR] [PHASE...]
#
# Without a PHASE all of them run (gpu_checks.py lists them). Each may take ten minutes and all of
# them 45; what is left over is named, and the same command measures it. Nothing is fetched. Answers
# go to results/gpu, a file a phase, and name the card. With --tiny small networks show that every
# phase runs, also without a GPU; its answers go to a temporary folder unless --out names one. What
# is drawn and trained lies in a temporary folder, or in --work, where a later call finds it.
set -u
checkout=$(cd "$(dirname "$0")/../.." && pwd)
python=$checkout/.venv/bin/python
[ -x "$python" ] || python=python
out= work= tiny= phases=()
while [ $# -gt 0 ]; do
  case $1 in
    --tiny) tiny=--tiny ;;
    --out) out=${2:?"--out: name a folder"}; shift ;;
    --work) work=${2:?"--work: name a folder"}; shift ;;
    -*) echo "$1: unknown; see $0" >&2; exit 2 ;;
    *) phases+=("$1") ;;
  esac
  shift
done
[ ${#phases[@]} -gt 0 ] || phases=(losses eager compiled layouts extraction detector loader ranks predict)
if [ -z "$work" ]; then
  work=$(mktemp -d)
  trap 'rm -rf "$work"' EXIT
fi
[ -n "$out" ] || out=$([ -n "$tiny" ] && mktemp -d || echo "$checkout/results/gpu")
mkdir -p "$out" "$work" && out=$(cd "$out" && pwd) && work=$(cd "$work" && pwd) || exit 1
export STADLIB_DATA=$work STADLIB_RESULTS=$work/results
failed=()
cd "$checkout"
# The world that most phases read, drawn by processes that load nothing else.
"$python" -W ignore -c "
from stadlib.base import Progress
from stadlib.recipes.experiment import Experiment
from stadlib.training.pretraining import prepare_data, pretrained_backbone
prepare_data(Experiment(scale='smoke'), Progress), pretrained_backbone(Experiment(scale='smoke'), Progress)
" || exit 1
[ -z "$tiny" ] || phases=("${phases[*]}")  # all in one process, which loads once
for phase in "${phases[@]}"; do
  left=$((2700 - SECONDS))
  if [ $left -lt 60 ]; then failed+=("$phase (no time left)"); continue; fi
  [ $left -lt 570 ] || left=570
  begun=$SECONDS
  echo "== $phase"
  timeout --kill-after=10 $((left + 30)) "$python" -W ignore tests/benchmarks/gpu_checks.py \
    $phase $tiny --out "$out" --seconds $left || failed+=("$phase")
  echo "== $phase: $((SECONDS - begun)) s"
done
echo "$out: answers to ${phases[*]}, $SECONDS s"
[ ${#failed[@]} -eq 0 ] || { echo "not as expected: ${failed[*]}" >&2; exit 1; }

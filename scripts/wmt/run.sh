#!/usr/bin/env bash
# Translates as WMT's efficiency task asks. Text comes in and goes out, a sentence on each line.
# With `latency` each line is answered before the next one is awaited. `-` stands for a standard
# stream.
#
# XLATE_MODEL names the model file, which is /model/model.bin by default, because the task takes the
# size of /model as that of the model. XLATE_BINARY names the program, which is otherwise bin/xlate
# beside this script, or what the repository has built.
set -euo pipefail

usage="usage: run.sh {GPU|CPU} {throughput|latency} IN OUT [options of xlate]"
fail() {
  echo "run.sh: $*" >&2
  exit 2
}
if [[ ${1:-} == -h || ${1:-} == --help ]]; then
  echo "$usage"
  exit
fi
(($# >= 4)) || fail "$# arguments, expected four ($usage)"

case $1 in
  GPU) device=cuda ;;
  CPU) device=cpu ;;
  *) fail "'$1': expected GPU or CPU" ;;
esac
case $2 in
  throughput) mode=() ;;
  latency) mode=(--line-buffered) ;;
  *) fail "'$2': expected throughput or latency" ;;
esac
input=$3 output=$4
shift 4

# This script may have been called through a symbolic link.
here=$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")
program=${XLATE_BINARY:-$here/bin/xlate}
[[ ${XLATE_BINARY:-} || -x $program ]] || program=$here/../../build/bin/xlate
[[ -f $program && -x $program ]] ||
  fail "$program: no program there (XLATE_BINARY names another one)"
model=${XLATE_MODEL:-/model/model.bin}
[[ -r $model ]] || fail "$model: no model there (XLATE_MODEL names another one)"
[[ $input == - || -r $input ]] || fail "$input: cannot be read"

# The task compares speed and quality, and a greedy search is the fastest.
search=(--beam-size 1)
for option in "$@"; do
  [[ $option == -b* || $option == --beam-size* ]] && search=()
done
exec "$program" --model "$model" --device "$device" "${search[@]}" "${mode[@]}" --quiet \
  --input "$input" --output "$output" "$@"

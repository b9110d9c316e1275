#!/usr/bin/env bash
# Builds everything and runs the tests: scripts/test.sh [LABEL...]. A label is unit, property, parity, contract, integration,
# load, or the name of a library. Without a label, runs all tests.
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/common.sh

case "${1:-}" in
  --help | -h) sed -n '2,3s/^# //p' "$0"; exit 0 ;;
  -*) echo "test: unknown option $1; usage: scripts/test.sh [LABEL...]" >&2; exit 2 ;;
esac
selection=()
[ $# -eq 0 ] || selection=(--label-regex "^($(IFS='|'; echo "$*"))\$")

scripts/setup.sh --cpu
run_quietly cmake --preset release -DNANOCHAT_TESTS=ON
cmake --build --preset release --parallel "$(build_jobs)"
# Several tests run at a time; each gets one thread of LibTorch. Tests that need more set the number themselves.
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
ctest --preset release --parallel "$(cores)" --no-tests=error "${selection[@]}"

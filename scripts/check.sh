#!/usr/bin/env bash
# The longer checks, each in its own folder of build/:
#   --asan      all tests under AddressSanitizer and UndefinedBehaviorSanitizer
#   --clang     clang 16 builds everything without a warning
#   --coverage  the tests reach 90 % of the lines of libs/ and every public function there
# Without an option, all three.
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/common.sh

checks=()
for option in "$@"; do
  case "$option" in
    --asan | --clang | --coverage) checks+=("${option#--}") ;;
    --help | -h) sed -n '2,6s/^# //p' "$0"; exit 0 ;;
    *) echo "check: unknown option $option; usage: scripts/check.sh [--asan] [--clang] [--coverage]" >&2; exit 2 ;;
  esac
done
[ ${#checks[@]} -gt 0 ] || checks=(asan clang coverage)

step() { printf '\n== %s\n' "$*"; }

build() {
  run_quietly cmake --preset "$1" -DNANOCHAT_TESTS=ON
  cmake --build --preset "$1" --parallel "$(build_jobs)"
}

export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
scripts/setup.sh --cpu

for check in "${checks[@]}"; do
  case "$check" in
    asan)
      step "AddressSanitizer and UndefinedBehaviorSanitizer"
      build asan
      # LibTorch is not instrumented: its containers look overflown, and what it keeps until the end looks leaked.
      # allocator_may_return_null: tests ask for more memory than there is, and expect an exception.
      export ASAN_OPTIONS=allocator_may_return_null=1:detect_container_overflow=0:detect_stack_use_after_return=1:strict_init_order=1
      export LSAN_OPTIONS=suppressions=$PWD/cmake/leaks.supp:print_suppressions=0
      export UBSAN_OPTIONS=print_stacktrace=1
      ctest --preset asan --parallel "$(cores)" --no-tests=error --timeout 1200
      ;;
    clang)
      step "clang 16"
      command -v clang++-16 > /dev/null || install_packages check clang-16
      build clang
      ;;
    coverage)
      step "Coverage"
      build coverage
      find build/coverage -name '*.gcda' -delete
      ctest --preset coverage --parallel "$(cores)" --no-tests=error --timeout 1200
      if ! grep -qsx "$(sha256sum < scripts/requirements/gcovr.txt)" .deps/gcovr/.stamp; then
        rm -rf .deps/gcovr
        unpack_wheels scripts/requirements/gcovr.txt .deps/gcovr .deps/downloads
        rm -rf .deps/downloads
        sha256sum < scripts/requirements/gcovr.txt > .deps/gcovr/.stamp
      fi
      python=$(command -v python3.11 || command -v python3)
      PYTHONPATH=.deps/gcovr "$python" -m gcovr --root . --filter 'libs/' \
        --exclude '.*_test\.cpp' --exclude '.*/testing[._]' --merge-mode-functions=merge-use-line-min \
        --gcov-ignore-errors=no_working_dir_found --json build/coverage/coverage.json \
        --html-details build/coverage/coverage.html --print-summary build/coverage
      "$python" scripts/coverage_thresholds.py build/coverage/coverage.json --lines 90
      ;;
  esac
done
step "All checks passed: ${checks[*]}"

#!/usr/bin/env bash
# Runs the longer checks, each in its own folder of build/. Without an option, runs all of them.
#   --asan      all tests, and the server under load, with AddressSanitizer and UndefinedBehaviorSanitizer
#   --tsan      the engine, the server and the server under load with ThreadSanitizer
#   --clang     clang 16 builds everything without a warning
#   --coverage  the tests reach 90 % of the lines of libs/ and every public function there
#   --faults    20 kills -9 of each kind, 1,000 corruptions of each format, full disks, little memory
#   --clients   openai, anthropic, LangChain, LiteLLM, instructor, lm-eval, schemathesis and headless Chromium against a server with
#               a small model
#   --schemas   answers under JSON schemas and regular expressions against jsonschema, Pydantic and Python's re
#   --load      that server under load: NANOCHAT_LOAD_SECONDS (60) seconds of chats, NANOCHAT_LOAD_STREAMS (10,000) streams at a time,
#               NANOCHAT_LOAD_MINUTES (10) of mixed load, and locust
#   --fuzz      a fuzzer for each file format and for the requests of each protocol, NANOCHAT_FUZZ_RUNS (1,000,000) runs each
#   --browser   headless Chromium opens a report; screenshots in build/browser
#   --style     scripts/style.py, and clang-tidy on the C++ files that differ from NANOCHAT_STYLE_BASE (origin/main or
#               main); on a sample of ten files where none does
# Without an option, all eleven.
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/common.sh

checks=()
for option in "$@"; do
  case "$option" in
    --asan | --tsan | --clang | --coverage | --faults | --clients | --schemas | --load | --fuzz | --browser | --style) checks+=("${option#--}") ;;
    --help | -h) sed -n '2,19s/^# //p' "$0"; exit 0 ;;
    *)
      echo "check: unknown option $option; options: --asan --tsan --clang --coverage --faults --clients --schemas --load --fuzz --browser --style" >&2
      exit 2
      ;;
  esac
done
[ ${#checks[@]} -gt 0 ] || checks=(style asan tsan clang coverage faults clients schemas load fuzz browser)

step() { printf '\n== %s\n' "$*"; }

# build PRESET [TARGET...]
build() {
  local preset=$1
  shift
  run_quietly cmake --preset "$preset" -DNANOCHAT_TESTS=ON
  cmake --build --preset "$preset" --parallel "$(build_jobs)" ${1:+--target "$@"}
}

# client_python LIST: the Python of a virtual environment that has the packages of scripts/requirements/LIST.txt.
client_python() {
  local venv=.deps/$1 list=scripts/requirements/$1.txt python
  if ! grep -qsx "$(sha256sum < "$list")" "$venv/.stamp"; then
    python=$(command -v python3.11 || command -v python3)
    rm -rf "$venv"
    if ! "$python" -m venv "$venv" > /dev/null 2>&1; then
      install_packages check python3-venv >&2
      rm -rf "$venv"
      "$python" -m venv "$venv"
    fi
    # The list is whole (pip check): nothing is left to look for, and extras, which pip wants with hashes of their own, need none.
    run_quietly "$venv/bin/pip" --disable-pip-version-check --no-input install --no-deps --require-hashes --requirement "$list" || return 1
    run_quietly "$venv/bin/pip" check || return 1
    sha256sum < "$list" > "$venv/.stamp"
  fi
  echo "$venv/bin/python"
}

# The Python of a virtual environment with jsonschema and Pydantic; beside it the source package of jsonschema, which has the
# JSON-Schema-Test-Suite.
schemas_python() {
  local venv=.deps/schemas list=scripts/requirements/schemas.txt python version
  if ! grep -qsx "$(sha256sum < "$list")" "$venv/.stamp"; then
    python=$(command -v python3.11 || command -v python3)
    rm -rf "$venv"
    if ! "$python" -m venv "$venv" > /dev/null 2>&1; then
      install_packages check python3-venv >&2
      rm -rf "$venv"
      "$python" -m venv "$venv"
    fi
    run_quietly "$venv/bin/pip" --disable-pip-version-check --no-input install --no-deps --require-hashes --only-binary :all: --requirement "$list" || return 1
    version=$(sed -n 's/^jsonschema==\([^ ]*\) .*/\1/p' "$list")
    run_quietly "$venv/bin/pip" --disable-pip-version-check --no-input download --no-deps --no-binary :all: --dest "$venv" "jsonschema==$version" || return 1
    sha256sum < "$list" > "$venv/.stamp"
  fi
  echo "$venv/bin/python"
}

# The sources that clang-tidy looks at, one a line: what changed since the base, or else every fiftieth.
tidy_sources() {
  local base=${NANOCHAT_STYLE_BASE:-} name changed
  for name in origin/main main; do
    [ -n "$base" ] || ! git rev-parse --quiet --verify "$name" > /dev/null || base=$name
  done
  changed=$(git diff --name-only --diff-filter=d "$(git merge-base "${base:-HEAD}" HEAD)" -- 'apps/*.cpp' 'libs/*.cpp' 'tests/*.cpp')
  # What is compiled for a GPU or with Arrow needs more than this build has.
  if [ -n "$changed" ]; then echo "$changed"; else git ls-files 'libs/*.cpp' | awk 'NR % 50 == 0'; fi |
    grep -vE '^libs/(ops/cuda|data/arrow)/|^tests/faults/fuzz' || true
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
      python3 tests/load/serving_load.py build/asan/bin/nanochat --seconds 20 --no-timing
      ;;
    tsan)
      step "ThreadSanitizer"
      build tsan nanochat chat_client inference_engine_test inference_answer_constraint_test \
        serving_answer_admission_test serving_answer_cache_test serving_answer_session_test serving_api_answers_test serving_api_models_test serving_api_operation_test \
        serving_api_sessions_test serving_api_test serving_http_server_test serving_owned_store_test serving_server_metrics_test
      # One OpenMP thread: LibTorch and libgomp are not instrumented, and their barriers would not be seen.
      export TSAN_OPTIONS=suppressions=$PWD/cmake/threads.supp:history_size=4:second_deadlock_stack=1
      OMP_NUM_THREADS=1 ctest --preset tsan --no-tests=error --timeout 3600 \
        --tests-regex '^(inference\.(engine|answer_constraint)|serving\.(answer_admission|answer_cache|answer_session|api|api_answers|api_models|api_operation|api_sessions|http_server|owned_store|server_metrics))_test$'
      build release nanochat
      OMP_NUM_THREADS=1 NANOCHAT_THREADS=1 python3 tests/load/serving_load.py build/tsan/bin/nanochat --seconds 20 --no-timing \
        --trainer build/release/bin/nanochat
      ;;
    style)
      step "Style"
      for tool in clang-format-16 clang-tidy-16 clang++-16 shellcheck; do
        command -v "$tool" > /dev/null || install_packages check "${tool/clang++/clang}"
      done
      scripts/style.py
      # clang's own list of commands: g++'s has flags that it does not know.
      run_quietly cmake --preset clang -DNANOCHAT_TESTS=ON
      tidy_sources | xargs --no-run-if-empty --max-args=1 --max-procs="$(cores)" clang-tidy-16 -p build/clang --quiet
      ;;
    clang)
      step "clang 16"
      command -v clang++-16 > /dev/null || install_packages check clang-16
      build clang
      ;;
    faults)
      step "Kills, corruptions, full disks, little memory"
      build release
      NANOCHAT_KILLS=20 ctest --preset release --tests-regex '^faults\.' --no-tests=error --timeout 3600 --verbose
      ;;
    browser)
      step "A report in headless Chromium"
      command -v chromium > /dev/null || install_packages check chromium
      build release
      rm -rf build/browser
      mkdir -p build/browser
      python3 tests/browser/report_browser.py build/release/bin/nanochat build/browser
      ;;
    clients)
      step "Clients of the server"
      build release nanochat
      command -v chromium > /dev/null || install_packages check chromium fonts-dejavu-core
      python=$(client_python clients)
      for script in serve openai anthropic lm_eval schemathesis examples compare_serving; do
        echo "-- $script"
        "$python" tests/contract/"$script"_contract.py build/release/bin/nanochat
      done
      echo "-- wrappers"
      "$(client_python wrappers)" tests/contract/wrappers_contract.py build/release/bin/nanochat
      "$python" tests/browser/page_test.py build/release/bin/nanochat build/release/screenshots
      ;;
    schemas)
      step "Answers under schemas and regular expressions"
      build release constraint_samples
      python=$(schemas_python)
      "$python" tests/contract/schemas_contract.py build/release/tests/constraint_samples .deps/schemas/jsonschema-*.tar.gz
      ;;
    load)
      step "The server under load"
      build release nanochat chat_client stream_client
      ulimit -Sn "$(ulimit -Hn)"
      python3 tests/load/streams_load.py build/release/bin/nanochat --streams "${NANOCHAT_LOAD_STREAMS:-10000}" \
        --minutes "${NANOCHAT_LOAD_MINUTES:-10}"
      "$(client_python locust)" tests/load/locustfile.py build/release/bin/nanochat --seconds "${NANOCHAT_LOAD_SECONDS:-60}"
      # Last, because its bound for the time between tokens fails where two cores serve ten chats (docs/performance.md).
      python3 tests/load/serving_load.py build/release/bin/nanochat --seconds "${NANOCHAT_LOAD_SECONDS:-60}"
      ;;
    fuzz)
      runs=${NANOCHAT_FUZZ_RUNS:-1000000}
      step "Fuzzers, $runs runs each"
      command -v clang++-16 > /dev/null || install_packages check clang-16
      [ -e /usr/lib/llvm-16/lib/clang/16/lib/linux/libclang_rt.fuzzer-x86_64.a ] || install_packages check libclang-rt-16-dev
      run_quietly cmake --preset fuzz
      cmake --build --preset fuzz --parallel "$(build_jobs)" --target fuzzers
      # What a fuzzer finds interesting is kept, so that the next one begins there; what it fails on is named at the end.
      # The timeout counts the time of the wall, which a busy machine stretches; inputs take milliseconds.
      export ASAN_OPTIONS=detect_container_overflow=0
      for format in $(build/fuzz/fuzz/fuzz_samples build/fuzz/corpus); do
        echo "-- $format"
        log=build/fuzz/$format.log
        if ! build/fuzz/fuzz/fuzz_"$format" -runs="$runs" -seed=1 -max_len=32768 -timeout=30 -malloc_limit_mb=128 \
          -rss_limit_mb=2048 -detect_leaks=0 -print_final_stats=1 -artifact_prefix=build/fuzz/"$format"- \
          build/fuzz/corpus/"$format" > "$log" 2>&1; then
          tail -n 50 "$log" >&2
          exit 1
        fi
        grep -E 'number_of_executed_units|average_exec_per_sec|peak_rss_mb' "$log"
      done
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
        --exclude '.*_test\.cpp' --exclude '.*/testing[._]' --exclude '.*_testing\.h' --exclude 'libs/ops/cuda/' --merge-mode-functions=merge-use-line-min \
        --gcov-ignore-errors=no_working_dir_found --json build/coverage/coverage.json \
        --html-details build/coverage/coverage.html --print-summary build/coverage
      "$python" scripts/coverage_thresholds.py build/coverage/coverage.json --lines 90
      ;;
  esac
done
step "All checks passed: ${checks[*]}"

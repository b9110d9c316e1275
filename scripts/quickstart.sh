#!/usr/bin/env bash
# Installs what is needed, builds the program, generates a corpus (or uses yours), trains a tokenizer and a model of 4
# million parameters, and asks the model questions. With the generated corpus it then trains a chat model that uses a
# calculator. Takes about 20 minutes on two cores.
set -euo pipefail
cd "$(dirname "$0")/.."

usage() {
  cat <<'END'
usage: scripts/quickstart.sh [--text PATH...] [--minutes N] [--steps N] [--run FOLDER]

  --text PATH...   Train on your own text instead of the generated corpus: .txt, .jsonl (also .gz or .zst), .parquet, folders.
  --minutes N      Pretrain for this many minutes (default 4, or 7 with --text).
  --steps N        Pretrain for at least this many steps, even if they take longer than --minutes (default 300). With 300
                   steps the model completes about 19 of 20 test prompts correctly, with 150 about 16.
  --run FOLDER     Folder of the run (default runs/quickstart, or runs/quickstart-text).
END
}

text=()
minutes=
steps=300
run=
while [ $# -gt 0 ]; do
  case "$1" in
    --text)
      shift
      while [ $# -gt 0 ] && [[ "$1" != --* ]]; do text+=("$1"); shift; done
      [ ${#text[@]} -gt 0 ] || { echo "quickstart: --text needs at least one path" >&2; exit 2; }
      ;;
    --minutes | --steps | --run)
      [ $# -ge 2 ] || { echo "quickstart: $1 needs a value" >&2; exit 2; }
      case "$1" in
        --minutes) minutes=$2 ;;
        --steps) steps=$2 ;;
        --run) run=$2 ;;
      esac
      shift 2
      ;;
    --help | -h) usage; exit 0 ;;
    *) echo "quickstart: unknown option $1" >&2; usage >&2; exit 2 ;;
  esac
done
if [ ${#text[@]} -gt 0 ]; then
  vocab_size=4096 minutes=${minutes:-7} run=${run:-runs/quickstart-text}
else
  vocab_size=2048 minutes=${minutes:-4} run=${run:-runs/quickstart}
fi
[[ "$minutes" =~ ^[0-9]+$ ]] && [ "$minutes" -gt 0 ] || { echo "quickstart: --minutes takes a whole number, not '$minutes'" >&2; exit 2; }
[[ "$steps" =~ ^[0-9]+$ ]] || { echo "quickstart: --steps takes a whole number, not '$steps'" >&2; exit 2; }

step() { printf '\n== %s\n' "$*"; }

step "Installing what is needed"
scripts/setup.sh --cpu

step "Building nanochat"
cmake --preset release -DNANOCHAT_TESTS=OFF -B build/quickstart > build-quickstart.log 2>&1 || { cat build-quickstart.log >&2; exit 1; }
rm -f build-quickstart.log
cmake --build build/quickstart --target nanochat
nanochat=build/quickstart/bin/nanochat

work=$run-data
rm -rf "$work" "$run"
mkdir -p "$work"
if [ ${#text[@]} -eq 0 ]; then
  step "Generating a corpus of short stories and facts"
  "$nanochat" data toy --output-dir "$work/corpus" --bytes 12000000
  corpus=("$work/corpus/toy.jsonl")
else
  corpus=("${text[@]}")
fi

step "Training a tokenizer of $vocab_size tokens"
"$nanochat" tokenizer train --data-dir "${corpus[@]}" --vocab-size "$vocab_size" --output-dir "$work/tokenizer"

step "Tokenizing the text"
"$nanochat" data prepare --data-dir "${corpus[@]}" --tokenizer "$work/tokenizer" --output-dir "$work/shards"

# The schedule of the learning rate follows the time, however fast the steps are; the model is of use after enough of them.
# What this measures is therefore only said.
step "Training a model for $minutes minutes, and for at least $steps steps"
shape=(--depth 4 --sequence-len 256 --device-batch-size 16)
step_ms=$("$nanochat" bench train "${shape[@]}" --vocab-size "$vocab_size" --steps 5 --warmup 1 --quiet --json | tail -n 1 |
  sed -n 's/.*"step_ms": *\([0-9]*\).*/\1/p')
seconds=$((step_ms * steps / 1000))
if [ "$seconds" -gt $((minutes * 60)) ]; then
  printf 'At the measured speed, %s steps take about %s minutes. Other running programs make it slower.\n' \
    "$steps" $(((seconds + 59) / 60))
else
  printf 'At the measured speed, %s minutes are about %s steps.\n' "$minutes" $((minutes * 60000 / (step_ms > 0 ? step_ms : 1)))
fi
# In batches as small as these, the recipe of December 2025 learns faster (docs/benchmarks.md).
"$nanochat" pretrain --recipe nanochat-2025-12 --data-dir "$work/shards" "${shape[@]}" --total-batch-size 4096 --target-minutes "$minutes" \
  --num-iterations "$steps" --warmdown-ratio 0.4 --eval-interval 100 --eval-tokens 200000 --sample-interval -1 \
  --checkpoint-interval 200 --output-dir "$run"

printf 'plot of bits per byte: %s\n' "$(python3 scripts/plot_metrics.py "$run")"

if [ ${#text[@]} -eq 0 ]; then
  step "Seven questions"
  "$nanochat" eval "$run" --benchmarks completion --data-dir "$work/corpus/quickstart_prompts.jsonl" --show
  step "Two hundred prompts in phrasings that are not in the training data"
  "$nanochat" eval "$run" --benchmarks completion --data-dir "$work/corpus/test_prompts.jsonl"
  prompt="Once upon a time"
else
  prompt="The"
fi
step "A sample of the model"
"$nanochat" infer "$run" --prompt "$prompt" --max-tokens 120 --temperature 0.7

if [ ${#text[@]} -gt 0 ]; then
  printf '\nTry it yourself:\n  %s infer %s --interactive\n' "$nanochat" "$run"
  exit 0
fi

# From here on it learns to talk. Questions of the tests are in phrasings, and arithmetic with numbers, that training has not.
lessons='[{"task": "toy-facts"}, {"task": "toy-arithmetic"}, {"task": "toy-spelling", "size": 500}]'
tests='[{"task": "toy-facts", "split": "test"}, {"task": "toy-arithmetic", "split": "test"}, {"task": "toy-spelling", "split": "test"}]'
spelling='[{"task": "toy-spelling"}]'
spelling_test='[{"task": "toy-spelling", "split": "test", "size": 400}]'
rm -rf "$run-mid" "$run-sft" "$run-rl"

step "Midtraining: the format of conversations"
"$nanochat" midtrain --base-model "$run" --mixture "$lessons" --validation-mixture "$tests" --init-lr-frac 0.5 \
  --eval-interval -1 --checkpoint-interval -1 --output-dir "$run-mid"

step "SFT: the answers of an assistant"
"$nanochat" sft --base-model "$run-mid" --mixture "$lessons" --validation-mixture "$tests" --num-epochs 2 --init-lr-frac 0.25 \
  --task-every -1 --benchmarks toy-facts,toy-arithmetic,toy-spelling --max-per-task 200 --max-tokens 48 \
  --eval-interval -1 --checkpoint-interval -1 --output-dir "$run-sft"

step "RL: rewards for correct spelling"
"$nanochat" rl --base-model "$run-sft" --mixture "$spelling" --validation-mixture "$spelling_test" --num-iterations 100 \
  --examples-per-step 32 --num-samples 8 --max-new-tokens 40 --embedding-lr 0.02 --init-lr-frac 0.15 --eval-examples 400 \
  --eval-samples 4 --eval-interval 100 --output-dir "$run-rl"

step "Five questions"
for question in "Can you tell me the capital of France?" "What is the chemical symbol for gold?" \
  "If yesterday was Friday, which day will tomorrow be?" "How much is 23 + 48?" "Name the opposite of hot."; do
  printf '> %s\n' "$question"
  printf '%s\n' "$question" | "$nanochat" infer "$run-rl" --chat --temperature 0
done

printf '\nChat with the model:\n  %s infer %s --chat\n' "$nanochat" "$run-rl"
if [ -t 0 ] && [ -t 1 ]; then exec "$nanochat" infer "$run-rl" --chat; fi

#!/usr/bin/env bash
# The four stages at scale, in miniature: a d20 through two steps of each, a d12 all the way to a model that was rewarded for
# its answers (about five minutes on one H200), and SFT on packed conversations beside pretraining of the same shape.
#
#   benchmarks/stages.sh [--tiny] PROGRAM DATA WORK [d20] [d12] [speed]      (default: all three)
#
# DATA is a folder of under 25 MB:
#   tokenizer/                          of 65,536 tokens: a folder with tokenizer.json or one .tiktoken
#   pretrain/*.txt                      text; 12 MB are enough
#   gsm8k/train.jsonl.gz test.jsonl     rows of question and answer
#   chat/*.jsonl.gz                     conversations
# WORK is emptied of runs/ and needs 25 GB with d20. --tiny takes a model of two layers and few steps, to try the script on a
# CPU. DEVICE_BATCH_SIZE (32) sets the rows of a forward pass, RUN_OPTIONS what else every stage is given ("--device cpu").
#
# Prints a line a stage: steps, first and last loss (RL: reward; means over a tenth of the steps), what it was judged by at
# the beginning and the end, tokens and conversations a second (medians over the steps after the second), most memory
# (of the GPU, as nvidia-smi sees it twice a second; else of the process), seconds in all.
set -euo pipefail

tiny=
if [ "${1:-}" = --tiny ]; then tiny=1; shift; fi
if [ $# -lt 3 ]; then sed -n '5s/^# *//p' "$0" >&2; exit 2; fi
program=$1 data=$2 work=$3
shift 3
parts=("$@")
[ ${#parts[@]} -gt 0 ] || parts=(d20 d12 speed)
read -ra extra <<< "${RUN_OPTIONS:-}"
rows=${DEVICE_BATCH_SIZE:-32} context=2048
if [ -n "$tiny" ]; then rows=4 context=512; fi
runs=$work/runs
rm -rf "$runs"
mkdir -p "$runs"

# The memory in use, in MiB, of the GPU or at most so far of process $1.
memory_now() {
  if command -v nvidia-smi > /dev/null; then
    nvidia-smi --query-gpu=memory.used --format=csv,noheader,nounits | head -n 1
  else
    awk '/VmHWM/ {print int($2 / 1024)}' "/proc/$1/status" 2> /dev/null
  fi
}

# Runs a command to its end, its output in file $1; sets peak (MiB) and took (seconds). Ends the script when it fails.
watched() {
  local log=$1 start=$EPOCHREALTIME now
  shift
  peak=0
  "$@" > "$log" 2>&1 &
  local process=$!
  while kill -0 "$process" 2> /dev/null; do
    now=$(memory_now "$process" || true)
    if [ "${now:-0}" -gt "$peak" ]; then peak=$now; fi
    sleep 0.5
  done
  wait "$process" || { echo "stages: failed: $*" >&2; tail -n 20 "$log" >&2; exit 1; }
  took=$(awk -v a="$start" -v b="$EPOCHREALTIME" 'BEGIN {printf "%.1f", b - a}')
}

# Numbers under key $2 in metrics.jsonl of run $1, one a line, in order.
figures() { sed -n "s/.*\"$2\":\([-0-9.e+]*\).*/\1/p" "$1/metrics.jsonl"; }
# Of numbers: the mean of the first and of the last tenth; the median without the first two.
ends() {
  awk '{v[NR] = $1} END {n = NR > 20 ? int(NR / 10) : 1; for (i = 1; i <= n; i++) {a += v[i]; b += v[NR + 1 - i]}
       if (NR) printf "%.4f -> %.4f", a / n, b / n}'
}
first_and_last() { awk 'NR == 1 {printf "%.4f", $1} END {if (NR > 1) printf " -> %.4f", $1}'; }
median() { tail -n +3 | sort -g | awk '{v[NR] = $1} END {if (NR) print v[int((NR + 1) / 2)]; else print 0}'; }

# stage MODEL NAME SHOWN SCORE OPTIONS...: trains MODEL-NAME with `nanochat NAME` and prints its line.
stage() {
  local model=$1 name=$2 shown=$3 score=$4 run=$runs/$1-$2
  shift 4
  watched "$work/$model-$name.log" "$program" "$name" "$@" "${extra[@]}" --output-dir "$run" --checkpoint-interval -1 \
    --log-interval 1
  # "about 118 conversations a step"; RL answers --examples-per-step x --num-samples.
  local each step_ms
  each=$(sed -n 's/.*about \([0-9]*\) conversations a step.*/\1/p; s/.* of \([0-9]*\) questions, \([0-9]*\) answers.*/\1 \2/p' "$run/log.txt" |
    head -n 1 | awk '{print NF == 2 ? $1 * $2 : $1}')
  # Of two steps there is no third: all of them count then.
  local steps
  steps=$(figures "$run" step_ms | wc -l)
  local timed=cat
  if [ "$steps" -lt 4 ]; then timed="sed p;p;p"; fi
  step_ms=$(figures "$run" step_ms | $timed | median)
  printf '%-4s %-8s %4d steps | %s %s | %s %s | %s tok/s | %s conversations/s | %s MiB | %s s\n' "$model" "$name" "$steps" \
    "$shown" "$(figures "$run" "$shown" | ends)" "$score" "$(figures "$run" "$score" | first_and_last)" \
    "$(figures "$run" tokens_per_second | $timed | median | cut -d. -f1)" \
    "$(awk -v n="${each:-0}" -v ms="$step_ms" 'BEGIN {if (n && ms) printf "%.0f", 1000 * n / ms; else printf "-"}')" "$peak" "$took"
}

json_tasks() { local IFS=,; printf '[%s]' "$*"; }
gsm8k="{\"task\": \"gsm8k\", \"path\": \"$data/gsm8k/train.jsonl.gz\"}"
gsm8k_test="{\"task\": \"gsm8k\", \"path\": \"$data/gsm8k/test.jsonl\", \"stop\": 200}"
chat="{\"task\": \"conversations\", \"path\": \"$data/chat\"}"
sums='{"task": "toy-arithmetic", "size": 4000}'
sums_test='{"task": "toy-arithmetic", "split": "test"}'
tests=$(json_tasks "$gsm8k_test" "$sums_test")

# pretraining DEPTH STEPS TOKENS_A_STEP
pretraining() {
  stage "d$1" pretrain loss validation_bpb --recipe nanochat-2025-12 --data-dir "$data/pretrain" --tokenizer "$data/tokenizer" --depth "$1" \
    --sequence-len "$context" --device-batch-size "$rows" --total-batch-size "$3" --num-iterations "$2" --eval-interval -1 \
    --eval-tokens $((2 * rows * context)) --sample-interval -1
}

two_steps() {
  local depth=20 batch=524288
  if [ -n "$tiny" ]; then depth=1 batch=$((2 * rows * context)); fi
  local limits=(--max-steps 2 --eval-interval -1)
  pretraining $depth 2 $batch
  stage d$depth midtrain loss validation_bpb --base-model "$runs/d$depth-pretrain" --mixture "$(json_tasks "$gsm8k" "$chat")" \
    --validation-mixture "$tests" --eval-tokens $((rows * context)) "${limits[@]}"
  stage d$depth sft loss validation_loss --base-model "$runs/d$depth-midtrain" --mixture "$(json_tasks "$gsm8k" "$chat")" \
    --validation-mixture "$tests" "${limits[@]}"
  stage d$depth rl reward pass@1 --base-model "$runs/d$depth-sft" --mixture "[$gsm8k]" --validation-mixture "[$gsm8k_test]" \
    --max-new-tokens 64 --eval-examples 8 --eval-samples 2 "${limits[@]}"
  rm -rf "$runs/d$depth-"*  # six gigabytes each
}

miniature() {
  local depth=12 steps=150 batch=131072 epochs=2 rl=(--num-iterations 40 --examples-per-step 16 --num-samples 16 --eval-examples 200)
  if [ -n "$tiny" ]; then depth=2 steps=4 batch=$((rows * context)) epochs=0.02 rl=(--num-iterations 3 --examples-per-step 2 --num-samples 4 --eval-examples 8); fi
  local lessons
  lessons=$(json_tasks "$gsm8k" "$chat" "$sums")
  pretraining $depth $steps $batch
  stage d$depth midtrain loss validation_bpb --base-model "$runs/d$depth-pretrain" --mixture "$lessons" --validation-mixture "$tests" \
    --num-epochs $epochs --total-batch-size $batch --eval-interval 100000
  stage d$depth sft loss validation_loss --base-model "$runs/d$depth-midtrain" --mixture "$lessons" --validation-mixture "$tests" \
    --num-epochs "$(awk -v e=$epochs 'BEGIN {print e / 2}')" --init-lr-frac 0.1 --eval-interval 100000
  stage d$depth rl reward pass@1 --base-model "$runs/d$depth-sft" --mixture "[$sums]" --validation-mixture "[$sums_test]" \
    --max-new-tokens 48 --eval-samples 2 --eval-interval 100000 "${rl[@]}"
  printf 'How much is 23 + 48?\nWho are you?\n' | "$program" infer "$runs/d$depth-rl" --chat --temperature 0 --max-tokens 64 "${extra[@]}" 2> /dev/null
}

# bench DEPTH OPTIONS...: prints tokens a second of a shape, and what conversations add.
bench() {
  local depth=$1
  shift
  watched "$work/bench.log" "$program" bench train --depth "$depth" --sequence-len "$context" --device-batch-size "$rows" \
    --vocab-size 65536 --steps "$bench_steps" --json "${extra[@]}" "$@"
  field() { sed -n "s/.*\"$1\":\([-0-9.e+]*\).*/\1/p" "$work/bench.log" | tail -n 1; }
  rate=$(field tokens_per_second)
  conversations=$(field conversations_per_second) length=$(field tokens_per_conversation) loaded=$(field loaded_per_second)
}

speed() {
  local depths=(12 20) bench_steps=20 base
  if [ -n "$tiny" ]; then depths=(1) bench_steps=2; fi
  for depth in "${depths[@]}"; do
    bench "$depth"
    base=$rate
    bench "$depth" --mixture "[$gsm8k]" --tokenizer "$data/tokenizer"
    awk -v d="$depth" -v b="$base" -v r="$rate" -v c="$conversations" -v l="$length" -v s="$loaded" -v m="$peak" 'BEGIN {
      printf "d%-3d speed    random tokens %.0f tok/s | packed GSM8K %.0f tok/s, %.3f of it, %.0f conversations/s of %.0f tokens", d, b, r, r / b, c, l
      printf " | rendered and packed %.0f conversations/s | %d MiB\n", s, m}'
  done
}

for part in "${parts[@]}"; do
  case "$part" in
    d20) two_steps ;;
    d12) miniature ;;
    speed) speed ;;
    *) echo "stages: unknown part $part; there are d20, d12 and speed" >&2; exit 2 ;;
  esac
done

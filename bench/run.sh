#!/usr/bin/env bash
# Makes all files of bench/results/MACHINE one after the other, then the figures of the READMEs.
# Takes 9 GB of memory. Needs a build with -DMIXTRAL_BUILD_BENCH=ON. Arguments: MACHINE, a word for it (zen4, xeon); the
# build's folder of programs (build/bench/bin).
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
results=$root/bench/results/${1:?a word for this machine, the folder of its results}
bin=${2:-$root/build/bench/bin}
mkdir -p "$results"

# result NAME COMMAND...: a file is replaced only when it is whole.
result() {
  local name=$1
  shift
  echo "$name"
  timeout 300 "$@" >"$results/$name.new"
  mv "$results/$name.new" "$results/$name"
}

bench() { # NAME WEIGHTS [OPTION...]
  result "$1.json" "$bin/mixtral" bench --synthetic mixtral-8x7b --layers 2 --weights "$2" --json "${@:3}"
}

rm -f "$results"/*.new
bench model_p4 p4 -p 512 -n 16 --batch 1,2,4,8,16,64 --repeat 7
bench model_p8 p8 -p 512 -n 16 --batch 1,2,4,8,16 --repeat 7
bench model_bf16 bf16 -p 512 -n 16
bench model_bf16_rounded bf16 -p 512 -n 16 --bf16-products
if [[ $(uname -m) == x86_64 ]] && grep -q avx512f /proc/cpuinfo; then
  bench model_p4_avx2 p4 -p 512 -n 16 --batch 1,8 --isa avx2
  bench model_p8_avx2 p8 -p 512 -n 16 --isa avx2
fi
bench model_p4_128 p4 -p 128 -n 0
bench model_p4_2048 p4 -p 2048 -n 0 --ragged 16 --repeat 3
bench model_p4_long p4 -p 4096 -n 16 --depth 4096 --repeat 3
bench model_p4_deep p4 -p 0 -n 16 --depth 16384
bench model_p4_deep_i8 p4 -p 0 -n 16 --depth 16384 --kv i8
result gemv.json "$bin/gemv_bench" 9
result quality.json "$bin/quality_bench" "$root/examples/models/tiny" "$root"/tests/golden/tiny/heldout/*.txt
result kernels.json "$bin/kernels_bench" --benchmark_min_time=0.2 --benchmark_format=json
sed -i -E '/"(host_name|executable)":/d' "$results/kernels.json"  # nothing of the machine but its CPU
if [[ -x $bin/capi_overhead ]]; then result capi_overhead.json "$bin/capi_overhead"; fi
python3 "$root/bench/figures.py"

#!/usr/bin/env bash
# Measures what needs an NVIDIA GPU, in parts with time limits, on a machine without network or virtual environment:
#   bash benchmarks/gpu/once.sh [PART ...]        default: 1 2 3 4 5, about eight minutes
# Needs python3 with torch, triton, onnx, numpy, pytest; parts 2, 6 and 8 need .carry/, which benchmarks/gpu/pack.sh fills.
# Writes everything to $OUT and prints a table last. A part that fails or takes too long does not end the others.
#   STAND_IN=1   every part on a CPU, with tiny inputs: proves the script, measures nothing
set -uo pipefail
cd "$(dirname "$0")/../.." || exit 2
PYTHON=${PYTHON:-python3}
OUT=${OUT:-out/gpu-once}
CARRY=${CARRY:-.carry}
HELD_OUT=${HELD_OUT:-0006R0}
EPOCHS=${EPOCHS:-150}
SITE=$OUT/site
mkdir -p "$OUT" "$SITE"
: >"$OUT/parts.txt"
export PYTHONPATH=$SITE:. PYTHONDONTWRITEBYTECODE=1
unset TRITON_INTERPRET
stand_in=()
if [ -n "${STAND_IN:-}" ]; then
    stand_in=(--stand-in)
    export TRITON_INTERPRET=1
fi

# part NAME SECONDS COMMAND...: its output to $OUT/NAME.log, its outcome to the table
part() {
    local name=$1 limit=$2 began=$SECONDS code=0
    shift 2
    timeout --kill-after=5 "$limit" "$@" >"$OUT/$name.log" 2>&1 || code=$?
    case $code in
        0) outcome=done ;;
        124 | 137) outcome="stopped at its limit" ;;
        *) outcome="failed with code $code" ;;
    esac
    printf '%-18s %4d s of %3d  %s\n' "$name" $((SECONDS - began)) "$limit" "$outcome" | tee -a "$OUT/parts.txt"
    [ "$code" -eq 0 ] || tail -n 3 "$OUT/$name.log"
}

# Join wheels that were split (split -b 40M NAME.whl NAME.whl.), install all of them into a folder of this run.
install_wheels() {
    local wheels=$OUT/wheels first
    mkdir -p "$wheels"
    for first in "$CARRY"/wheels/*.whl.aa; do
        [ -e "$first" ] && cat "${first%aa}"?? >"$wheels/$(basename "${first%.aa}")"
    done
    cp "$CARRY"/wheels/*.whl "$wheels" 2>/dev/null
    ls "$wheels"/*.whl >/dev/null 2>&1 || { echo "no wheels in $CARRY/wheels: see benchmarks/gpu/pack.sh"; return 0; }
    "$PYTHON" -m pip install --quiet --no-index --no-deps --target "$SITE" "$wheels"/*.whl
}

gpu_tests() {
    OMP_NUM_THREADS=2 "$PYTHON" -m pytest -o addopts= -W default -p no:cacheprovider -q "$@"
}

profile() {
    command -v ncu >/dev/null || { echo "ncu is not installed"; return 0; }
    ncu --section SpeedOfLight --section MemoryWorkloadAnalysis --section Occupancy --section WarpStateStats \
        -k "regex:aligned_aggregate" --launch-skip 10 --launch-count 1 \
        "$PYTHON" -m benchmarks.gpu --only kernel --out "$OUT/profiled" --match "aggregate 256x256x512 128x256" \
        "float16 channels_last"
}

# The shipped model's recipe: first with a drive held out, for its accuracy; then on every frame, for as many epochs.
train() {
    local data=$OUT/camvid weights=$CARRY/efficientnet-lite0.pth options
    mkdir -p "$data" && tar -xf "$CARRY/camvid.tar" -C "$data" || return
    options=(--recipe efficientnet --root "$data" --init-from "$weights" --workers "${WORKERS:-14}" --batch 16
        --lr 4e-3 --epochs "$EPOCHS" --eval-every 10)
    [ -n "${STAND_IN:-}" ] && options+=(--iterations 2 --batch 2 --crop 65x65 --workers 1 --eval-every 1000)
    if [ "$1" = held-out ]; then
        "$PYTHON" -m training.train "${options[@]}" --hold-out "$HELD_OUT" --out "$OUT/held-out"
    else
        # Every frame is trained on, so nothing is measured: val is four of the training frames.
        for kind in images labels; do
            mkdir -p "$data/val/$kind"
            for file in $(ls "$data/train/$kind" | head -n 4); do cp "$data/train/$kind/$file" "$data/val/$kind/"; done
        done
        "$PYTHON" -m training.train "${options[@]}" --train-on train+val --out "$OUT/final"
    fi
}

run_part() {
    case $1 in
        1) part machine 15 "$PYTHON" -m benchmarks.gpu.machine --out "$OUT" "${stand_in[@]}" ;;
        2) part driver 45 gpu_tests tests/gpu/test_ptx_driver.py tests/gpu/test_stand_in_engine.py ;;
        3)
            part kernel-tests 75 gpu_tests ${XDIST:+-n 8} tests/gpu/test_kernels.py
            part network-tests 150 gpu_tests tests/gpu/test_network.py
            ;;
        4)
            part kernels 85 "$PYTHON" -m benchmarks.gpu --only kernel --out "$OUT" "${stand_in[@]}"
            part profile 30 profile
            ;;
        5) part networks 90 "$PYTHON" -m benchmarks.gpu --only network --once --out "$OUT" "${stand_in[@]}" ;;
        6)
            part train-held-out 120 train held-out
            part train-final 120 train final
            ;;
        7) part tactics 60 "$PYTHON" -m benchmarks.gpu --only kernel --out "$OUT/again" "${stand_in[@]}" ;;
        8) part workers 60 "$PYTHON" -m benchmarks.server.multi_engine ;;
        *) echo "no part $1; expected 1 to 8" >&2 ;;
    esac
}

export -f gpu_tests profile train
export PYTHON OUT CARRY HELD_OUT EPOCHS
# timeout runs programs, not functions of this shell
timeout() {
    local kill_after=$1 limit=$2
    shift 2
    if [ "$(type -t "$1")" = function ]; then set -- bash -c '"$@"' bash "$@"; fi
    command timeout "$kill_after" "$limit" "$@"
}

"$PYTHON" -c 'import xdist' 2>/dev/null && XDIST=1
install_wheels
for number in "${@:-1 2 3 4 5}"; do
    for each in $number; do run_part "$each"; done
done
"$PYTHON" -m benchmarks.gpu.summary "$OUT"

#!/usr/bin/env bash
# All that wants a card, in one command that ends within 9.5 minutes whatever happens:
#
#     bash benchmarks/run_on_card.sh [arguments of benchmarks.gpu ...]
#
# Installs the wheels in .whl/ if there are any, tests on the card, measures beside PyTorch, looks for memory
# errors and races. Output and figures go to $OUT (default ./out). A stage that fails or takes too long does
# not stop the next. Seconds of a stage: TESTS_S, BENCH_S, SANITIZE_S. PYTHON names the interpreter.

set -uo pipefail
cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."

OUT=${OUT:-out}
PYTHON=${PYTHON:-python3}
TESTS_S=${TESTS_S:-110}
BENCH_S=${BENCH_S:-300}
SANITIZE_S=${SANITIZE_S:-75}
export PYTHONUNBUFFERED=1
mkdir -p -- "$OUT"
begin=$SECONDS
summary=()

# stage NAME SECONDS COMMAND...: run it, keep its output, remember how it ended.
stage() {
    local name=$1 limit=$2 started=$SECONDS status ended
    shift 2
    echo "== $name (at most $limit s)"
    timeout --kill-after=5 "$limit" "$@" 2>&1 | tee -- "$OUT/$name.txt"
    status=${PIPESTATUS[0]}
    case $status in
        0) ended=ok ;;
        124 | 137) ended="timed out" ;;
        *) ended="status $status" ;;
    esac
    summary+=("$(printf '%-10s %-10s %4d s' "$name" "$ended" $((SECONDS - started)))")
}

if compgen -G '.whl/*.whl' > /dev/null; then
    site=$(mktemp -d)
    stage wheels 40 "$PYTHON" -m pip install -q --no-index --no-deps --no-compile --no-cache-dir \
        --upgrade --target "$site" .whl/*.whl
    export PYTHONPATH=$site${PYTHONPATH:+:$PYTHONPATH}
fi
# The tests look for golden files beside the repository; they may have come inside of it.
for carried in shared .shared; do
    if [ -d "$carried" ] && [ ! -e ../shared ]; then
        ln -s -- "$PWD/$carried" ../shared
    fi
done

stage versions 20 "$PYTHON" -c '
import importlib.metadata, subprocess
names = ["numpy", "cupy-cuda13x", "cupy-cuda12x", "nvidia-cudnn-frontend", "nvidia-cudnn-cu13", "torch"]
for name in names:
    try:
        print(name, importlib.metadata.version(name))
    except importlib.metadata.PackageNotFoundError:
        print(name, "is not installed")
query = ["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
try:
    subprocess.run(query, check=True)
except (OSError, subprocess.CalledProcessError) as error:
    print("nvidia-smi:", error)
'
stage tests "$TESTS_S" "$PYTHON" -m pytest tests/gpu -q -p no:cacheprovider --maxfail=20
stage gpu "$BENCH_S" "$PYTHON" -m benchmarks.gpu --budget-s $((BENCH_S * 15 / 16)) --json "$OUT/gpu.json" "$@"
stage sanitize "$SANITIZE_S" "$PYTHON" -m benchmarks.sanitize --budget-s $((SANITIZE_S * 15 / 16))

echo
echo "== in short, $((SECONDS - begin)) s"
tail -n 2 -- "$OUT/tests.txt"
# from the last header of a table on
for table in gpu:net sanitize:tool; do
    file=$OUT/${table%%:*}.txt
    tac -- "$file" | awk -v word="${table##*:}" '{ print } $1 == word { exit }' | head -n 25 | tac
done
printf '%s\n' "${summary[@]}"

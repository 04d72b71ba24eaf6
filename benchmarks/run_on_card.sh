#!/usr/bin/env bash
# All that wants a card, in one command that ends within 9.5 minutes whatever happens:
#
#     bash benchmarks/run_on_card.sh [arguments of benchmarks.gpu ...]
#
# Installs the wheels in .whl/ if there are any, tests on the card, measures beside PyTorch, looks for memory
# errors and races. Output and figures go to $OUT (default ./out). A stage that fails or takes too long does
# not stop the next. Seconds of each: TESTS_S, BENCH_S, SANITIZE_S. STAGES="tests sanitize" runs these only,
# and leaves them more time: TESTS_S=400 is enough for all tests. PYTHON names the interpreter.
#
# Golden files and data sets lie in ../shared, or in shared/ or .shared/ inside the repository where nothing
# else travels. The tests need 20 MB of it, which these lines copy:
#
#     mkdir -p .shared/data/imagenet-sample && cp -r ../shared/golden .shared/  # 7.3 MB
#     cp -r ../shared/data/mnist .shared/data/                                  # 11 MB
#     cut -d" " -f1 ../shared/golden/data/list.txt | sed "s|^|../shared/data/imagenet-sample/|" |
#         xargs cp -t .shared/data/imagenet-sample/                             # 1 MB

set -uo pipefail
cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."

OUT=${OUT:-out}
PYTHON=${PYTHON:-python3}
STAGES=${STAGES:-tests gpu sanitize}
TESTS_S=${TESTS_S:-200}
BENCH_S=${BENCH_S:-215}
SANITIZE_S=${SANITIZE_S:-70}
export PYTHONUNBUFFERED=1
mkdir -p -- "$OUT"
rm -f -- "$OUT/tests_table.txt"
begin=$SECONDS
summary=()

wanted() {
    [[ " $STAGES " == *" $1 "* ]]
}

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
    # --prefix, since --target leaves out what a wheel has for lib/, as that of MPICH has its libraries
    stage wheels 40 "$PYTHON" -m pip install -q --no-index --no-deps --no-compile --no-cache-dir \
        --ignore-installed --no-warn-script-location --prefix "$site" .whl/*.whl
    for packages in "$site"/lib/python*/site-packages "$site"/local/lib/python*/dist-packages; do
        if [ -d "$packages" ]; then
            export PYTHONPATH=$packages${PYTHONPATH:+:$PYTHONPATH}
            above=${packages%/lib/python*}
            export PATH=$above/bin:$PATH LD_LIBRARY_PATH=$above/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
        fi
    done
fi
# The tests look for golden files beside the repository; they may have come inside of it.
for carried in shared .shared; do
    if [ -d "$carried" ] && [ ! -e ../shared ]; then
        ln -s -- "$PWD/$carried" ../shared
    fi
done

stage versions 20 "$PYTHON" -c '
import importlib.metadata, subprocess
names = ["numpy", "numba", "cupy-cuda13x", "cupy-cuda12x", "nvidia-cudnn-frontend", "nvidia-cudnn-cu13"]
names += ["nvmath-python", "cuda-core", "cuda-bindings", "nvidia-cublas", "nvidia-nccl-cu13", "mpich", "torch"]
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
# A fault of one kernel may fail all that comes behind it in the process, so failures are bounded. Libraries of
# other versions than the project's own checks have may warn while the tests are collected.
wanted tests && stage tests "$TESTS_S" "$PYTHON" -m pytest tests/gpu -q -p no:cacheprovider --tb=short \
    -W default --maxfail=300 --continue-on-collection-errors --report "$OUT/tests_table.txt"
wanted gpu && stage gpu "$BENCH_S" "$PYTHON" -m benchmarks.gpu --budget-s $((BENCH_S * 15 / 16)) \
    --json "$OUT/gpu.json" "$@"
wanted sanitize && stage sanitize "$SANITIZE_S" "$PYTHON" -m benchmarks.sanitize \
    --budget-s $((SANITIZE_S * 15 / 16))

echo
echo "== in short, $((SECONDS - begin)) s"
if wanted tests; then
    cat -- "$OUT/tests_table.txt" 2> /dev/null
    tail -n 2 -- "$OUT/tests.txt"
fi
# from the last header of a table on
for table in gpu:net sanitize:tool; do
    wanted "${table%%:*}" || continue
    file=$OUT/${table%%:*}.txt
    tac -- "$file" | awk -v word="${table##*:}" '{ print } $1 == word { exit }' | head -n 25 | tac
done
printf '%s\n' "${summary[@]}"

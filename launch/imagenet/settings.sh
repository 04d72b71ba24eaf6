# Sourced by the scripts beside it: what they share. Every setting is a variable of the environment.
#
#   DATA          where databases are written (data/imagenet)
#   RUNS          where snapshots and logs are written (runs/imagenet)
#   FORMAT        lmdb or arrow (lmdb)
#   SHARDS        parts of the training set; a conversion that was stopped goes on after the last (64)
#   RANKS         processes; each with its share of the cores, or with a GPU if the flags below say so (1)
#   GLOBAL_BATCH  images an iteration, of all ranks together (256)
#   EPOCHS        passes over the training images; default: the published number of each model
#   TRAIN_IMAGES, VAL_IMAGES   of ILSVRC 2012 (1281167, 50000)
#   TEST_BATCH    images a pass of the test net; must divide VAL_IMAGES (50)
#   DTRAIN_FLAGS  more words for dtrain train, such as "-gpu all --precision bf16 --metrics-port 9700"
#   TEST_FLAGS    more words for dtrain test, such as "-gpu all"

here="$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd -P)"
root="$(cd -- "$here/../.." && pwd -P)"
DATA="${DATA:-data/imagenet}"
RUNS="${RUNS:-runs/imagenet}"
FORMAT="${FORMAT:-lmdb}"
SHARDS="${SHARDS:-64}"
RANKS="${RANKS:-1}"
GLOBAL_BATCH="${GLOBAL_BATCH:-256}"
TRAIN_IMAGES="${TRAIN_IMAGES:-1281167}"
VAL_IMAGES="${VAL_IMAGES:-50000}"
TEST_BATCH="${TEST_BATCH:-50}"
dry_run=""
model=""

say() { printf '== %s\n' "$*"; }

fail() {
  printf 'imagenet: %s\n' "$*" >&2
  exit 1
}

# Runs a command; with --dry-run it is only told.
run() {
  printf '+ %s\n' "$*"
  [[ -n "$dry_run" ]] || "$@"
}

whole_number() {
  [[ "${!1}" =~ ^[1-9][0-9]*$ ]] || fail "$1 must be a whole number from 1, got ${!1}"
}

# The words of a command line: MODEL and, anywhere, --dry-run or --help; the rest is left in `words`.
read_words() {
  local word
  words=()
  for word in "$@"; do
    if [[ "$word" == --dry-run ]]; then
      dry_run=yes
    elif [[ "$word" == --help || "$word" == -h ]]; then
      sed -n '2,/^$/ s/^# \{0,1\}//p' "$0"
      printf '\nSettings:\n'
      sed -n '3,/^$/ s/^# \{0,1\}//p' "$here/settings.sh"
      exit 0
    elif [[ "$word" == -* ]]; then
      fail "a flag must be --dry-run or --help, got $word"
    elif [[ -z "$model" ]]; then
      model="$word"
    else
      words+=("$word")
    fi
  done
  [[ "$model" == caffenet || "$model" == resnet50 ]] ||
    fail "the model must be caffenet or resnet50, got ${model:-none}; see the head of $0"
  [[ "$FORMAT" == lmdb || "$FORMAT" == arrow ]] || fail "FORMAT must be lmdb or arrow, got $FORMAT"
  local name
  for name in SHARDS RANKS GLOBAL_BATCH TRAIN_IMAGES VAL_IMAGES TEST_BATCH; do
    whole_number "$name"
  done
  ((GLOBAL_BATCH % RANKS == 0)) || fail "GLOBAL_BATCH must be a multiple of RANKS ($RANKS), got $GLOBAL_BATCH"
  ((VAL_IMAGES % TEST_BATCH == 0)) || fail "TEST_BATCH must divide VAL_IMAGES ($VAL_IMAGES), got $TEST_BATCH"
  train_db="$DATA/${model}_train_$FORMAT"
  val_db="$DATA/${model}_val_$FORMAT"
  mean="$DATA/${model}_mean.binaryproto"
  folder="$RUNS/$model"
}

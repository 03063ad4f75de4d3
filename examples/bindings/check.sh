#!/usr/bin/env bash
# check.sh LANGUAGE LIBRARIES WORK [PROGRAM [CHAT]]: builds that language's example in the folder WORK (or takes PROGRAM,
# if CMake has built it), runs it with libmixtral.so from the folder LIBRARIES, and compares its output with
# expected.txt; then with a model that does not exist. Where there is a conversation, too, that is run on chat_input.txt
# and compared with expected_chat.txt. Exit code 77: skipped, because a tool is missing.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
language=$1 libraries=$2 work=$3 program=${4:-} chat=()
[ -z "${5:-}" ] || chat=("$5")
headers=$here/../../capi/include
export LD_LIBRARY_PATH=$libraries

fail() { printf 'FAILED: examples/bindings/%s: %s\n' "$language" "$*"; exit 1; }
skip() { printf 'SKIPPED: examples/bindings/%s: %s\n' "$language" "$*"; exit 77; }
need() {
  local tool
  for tool; do command -v "$tool" >/dev/null || skip "no $tool here"; done
}

mkdir -p "$work"
cd "$work"
case $language in
  python)
    need python3
    run=(python3 -B "$here/python/complete.py")
    chat=(python3 -B "$here/python/chat.py")
    ;;
  node)
    need node npm
    cp "$here"/node/*.mjs "$here"/node/package*.json .
    if [ ! -d node_modules/koffi ] && ! timeout 120 npm ci --ignore-scripts --no-audit --no-fund >npm.log 2>&1; then
      rm -rf node_modules # half of it would pass for the whole next time
      skip "npm could not install koffi: $(grep -m1 . npm.log || echo "no answer in 120 s")"
    fi
    run=(node complete.mjs)
    ;;
  rust)
    need rustc cc
    rustc --edition 2021 -O -L "$libraries" -o complete "$here/rust/complete.rs"
    run=(./complete)
    ;;
  go)
    need go cc
    (
      cd "$here/go"
      export GOCACHE=$work/cache GOPROXY=off GOFLAGS=-buildvcs=false
      export CGO_ENABLED=1 CGO_CFLAGS="-O2 -I$headers" CGO_LDFLAGS="-L$libraries"
      go build -o "$work/complete" .
    )
    run=(./complete)
    ;;
  java)
    need javac java cc
    jdk=$(dirname "$(dirname "$(readlink -f "$(command -v javac)")")")
    [ -f "$jdk/include/jni.h" ] || skip "no jni.h in $jdk/include"
    javac -h . -d . "$here"/java/*.java
    cc -std=c99 -O2 -fPIC -shared -Wall -Wextra -pedantic -I. -I"$headers" -I"$jdk/include" -I"$jdk/include/linux" \
      "$here/java/mixtral_jni.c" -o libmixtral_jni.so -L"$libraries" -lmixtral
    run=(java -Djava.library.path=. -cp . Complete)
    ;;
  *)
    run=("$program")
    ;;
esac

"${run[@]}" "$here/../models/tiny" >out.txt || fail "exit code $?"
diff -u "$here/expected.txt" out.txt || fail "another output than expected.txt"

if ((${#chat[@]} > 0)); then
  "${chat[@]}" "$here/../models/tiny" <"$here/chat_input.txt" >chat.txt || fail "exit code $? of the conversation"
  diff -u "$here/expected_chat.txt" chat.txt || fail "another conversation than expected_chat.txt"
fi

code=0
"${run[@]}" "$work/no-such-model" >out.txt 2>err.txt || code=$?
[ "$code" -eq 1 ] || fail "exit code $code for a model that does not exist"
[ ! -s out.txt ] || fail "output for a model that does not exist"
grep -q "no-such-model" err.txt || fail "the error does not name the model: $(cat err.txt)"
cat err.txt

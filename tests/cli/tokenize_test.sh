#!/usr/bin/env bash
# Runs `mixtral tokenize` as a user does: bytes through pipes, answers and exit codes.
# usage: tokenize_test.sh PROGRAM TOKENIZER_DIRECTORY
set -u
program=$1
model=$2
failures=0

# expect NAME WANT_STATUS WANT_OUTPUT INPUT ARGUMENTS...: input and output as printf writes them
expect() {
  local name=$1 want_status=$2 want=$3 input=$4 status
  shift 4
  printf "$input" | "$program" tokenize --model "$model" "$@" >"$scratch/out" 2>"$scratch/err"
  status=$?
  printf "$want" >"$scratch/want"
  if [ "$status" != "$want_status" ] || ! cmp -s "$scratch/out" "$scratch/want"; then
    echo "FAILED: $name: exit code $status, expected $want_status; output, expected output and messages:"
    od -c "$scratch/out"
    od -c "$scratch/want"
    cat "$scratch/err"
    failures=$((failures + 1))
  fi
}

# expect_message TEXT: the last command said so, in one line of ours
expect_message() {
  if ! grep -q "^mixtral: .*$1" "$scratch/err"; then
    echo "FAILED: no message with \"$1\":"
    cat "$scratch/err"
    failures=$((failures + 1))
  fi
}

scratch=$(mktemp -d)
trap 'rm -r "$scratch"' EXIT

# The ids are those of tests/golden/tokenizer/tokenizer_1/cases.json.
expect "no text, no ids" 0 '[]\n' ''
expect "text becomes ids" 0 '[702,772,299,711,709,295,270,711,712]\n' 'Hello world'
expect "BOS on demand" 0 '[1,266]\n' 'a' --bos
expect "line ends count" 0 '[702,16,13]\n' '\r\n'
expect "bytes that are not UTF-8 become U+FFFD" 0 '[266,242,194,192]\n' 'a\303'
expect "ids become text, nothing added" 0 'Hello world' '[1, 702, 772, 299, 711, 709, 295, 270, 711, 712, 2]' --decode
expect "NUL and line ends come back" 0 'a\0\n' '[266, 3, 13]' --decode
expect "a batch of texts" 0 '[[],[266],[702,13]]\n' '["", "a", "\\n"]' --batch
expect "a batch of ids" 0 '["","a","\357\277\275"]\n' '[[], [266], [258]]' --batch --decode

for ids in '[1024]' '[-1]' '[1.5]' '["a"]' '[18446744073709551617]' '{}' '[' ''; do
  expect "ids $ids are refused" 1 '' "$ids" --decode
  expect_message stdin
done
expect "a text instead of a batch is refused" 1 '' '"a"' --batch
expect_message stdin
model=$scratch/none expect "a missing model is refused" 1 '' 'a'
expect_message "$scratch/none"
expect "an unknown option is bad usage" 2 '' '' --unknown
expect "--bos does not go with --decode" 2 '' '[]' --bos --decode

"$program" tokenize --help | grep -q 'Example' || { echo "FAILED: no example in --help"; failures=$((failures + 1)); }
if [ -w /dev/full ]; then
  echo a | "$program" tokenize --model "$model" >/dev/full 2>"$scratch/err"
  [ $? = 1 ] || { echo "FAILED: a full disk went unnoticed"; failures=$((failures + 1)); }
fi
exit $((failures > 0))

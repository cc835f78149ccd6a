#!/bin/sh
# Runs every fuzz target of the product for the time given: fuzz.sh 20s
set -eu
cd "$(dirname "$0")/.."
time=${1:?how long for each target}
found=0
for dir in $(grep -rlE '^func Fuzz' --include='*_test.go' . | grep -v '^./test/' | xargs -n1 dirname | sort -u); do
    for target in $(grep -hoE '^func Fuzz[A-Za-z0-9_]*' "$dir"/*_test.go | sed 's/^func //'); do
        found=$((found + 1))
        echo "-- $dir $target"
        # The minimizer may spend the whole time on one large seed: one step is enough.
        go test -run '^$' -fuzz "^$target\$" -fuzztime "$time" -fuzzminimizetime 1x "$dir"
    done
done
if [ "$found" -eq 0 ]; then
    echo 'no fuzz target found' >&2
    exit 1
fi

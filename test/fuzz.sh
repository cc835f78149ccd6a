#!/bin/sh
# Runs every fuzz target of the product for the time given: fuzz.sh 20s. Each package is built
# once; new inputs are kept in Go's build cache, as by go test -fuzz.
set -eu
cd "$(dirname "$0")/.."
time=${1:?how long for each target}
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
cache=$(go env GOCACHE)/fuzz
found=0
for dir in $(grep -rlE '^func Fuzz' --include='*_test.go' . | grep -v '^./test/' | xargs -n1 dirname | sort -u); do
    go test -c -fuzz . -o "$tmp/fuzz" "$dir"
    package=$(go list "$dir")
    # The binary lists what is built, which a grep of the files only guesses.
    targets=$(cd "$dir" && "$tmp/fuzz" -test.list '^Fuzz')
    for target in $targets; do
        found=$((found + 1))
        echo "-- $dir $target"
        # The minimizer may spend the whole time on one large seed: one step is enough.
        (cd "$dir" && "$tmp/fuzz" -test.run '^$' -test.fuzz "^$target\$" -test.fuzztime "$time" \
            -test.fuzzminimizetime 1x -test.fuzzcachedir "$cache/$package")
    done
done
if [ "$found" -eq 0 ]; then
    echo 'no fuzz target found' >&2
    exit 1
fi

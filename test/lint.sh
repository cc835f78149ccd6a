#!/bin/sh
# Static checks of both modules: format, vet, staticcheck, and the shape of the
# house (import arrows, sizes). Pinned, so that a new linter breaks nothing.
set -eu
cd "$(dirname "$0")/.."
staticcheck=honnef.co/go/tools/cmd/staticcheck@v0.8.2

unformatted=$(gofmt -l cmd fusefs fetch cache sign test)
if [ -n "$unformatted" ]; then
    echo "not formatted: $unformatted" >&2
    exit 1
fi
# With the tests that need a guest; the tag adds files and takes none away.
for module in . test; do
    (
        cd "$module"
        go vet -tags guest ./...
        go run "$staticcheck" -tags guest ./...
        go mod tidy -diff
    )
done
cd test
go test -count=1 -v ./arch/...

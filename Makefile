# pfmount: targets for people and CI. `make help` lists them.

GO      ?= go
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
LDFLAGS  = -s -w -X main.version=$(VERSION)
PREFIX  ?= /usr/local
# Where mount(8) looks for mount.TYPE; empty: no links, as for an install into a home.
SBINDIR ?= /sbin
BIN      = bin/pfmount
# Longer fuzzing and soaking are up to the caller. SEED 0 draws one, which is printed, but in `make test`.
FUZZTIME ?= 3s
MINUTES ?= 1
ROUNDS  ?= 40
SEED    ?= 0

.PHONY: help build demo test unit e2e faults soak interop fuzz-short fuzz lint bench install clean setup

help: ## list the targets
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | sort

build: $(BIN) ## build bin/pfmount

.PHONY: $(BIN)
$(BIN):
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o $@ ./cmd/pfmount

setup: ## install what tests need (as root), or say what to install
	@test/setup.sh

demo: build ## mount a sample session from a registry on this machine
	@test/setup.sh demo
	@cd test && $(GO) run ./demo ../$(BIN)

test: SEED := $(or $(filter-out 0,$(SEED)),1)
test: setup lint unit e2e faults fuzz-short ## everything that CI runs but interop, by fixed seeds

unit: ## unit tests of all packages with the race detector
	@test/part unit $(GO) test -race -timeout 10m ./...
	@test/part 'fusefs on one processor' env GOMAXPROCS=1 $(GO) test -timeout 10m ./fusefs/...

e2e: build ## end-to-end tests: real registry, real mounts, real tools
	@test/part harness sh -c 'cd test && $(GO) test -timeout 10m ./harness/... ./imgbuild/... ./faultreg/... ./bench/...'
	@test/part end-to-end sh -c 'cd test && PFMOUNT_BIN=$(CURDIR)/$(BIN) $(GO) test -timeout 40m ./e2e/...'
	@test/part crashes sh -c 'cd test && PFMOUNT_BIN=$(CURDIR)/$(BIN) $(GO) test -timeout 10m ./crash/...'

faults: build ## faults at random for MINUTES (1), by SEED; every byte is compared
	@test/part faults sh -c 'cd test && PFMOUNT_BIN=$(CURDIR)/$(BIN) $(GO) test ./soak -v -count=1 -timeout $$(($(MINUTES) + 20))m -minutes $(MINUTES) -seed $(SEED)'

soak: faults ## the same, then ROUNDS (40) of kills and power cuts, by SEED
	@test/part kills sh -c 'PFMOUNT_KILL_ROUNDS=$$((250 * $(MINUTES))) $(GO) test ./cache/... -run "^TestKilled$$" -count=1'
	@test/part 'kills and power cuts' sh -c 'cd test && PFMOUNT_BIN=$(CURDIR)/$(BIN) PFMOUNT_CRASH_ROUNDS=$(ROUNDS) PFMOUNT_CRASH_SEED=$(SEED) \
		$(GO) test -v -run "^(TestKill9|TestPowerCut)$$" -count=1 -timeout 60m ./crash'

interop: build ## in guests and against the reference tool, pf, which it builds the first time (8 minutes)
	@test/setup.sh interop
	@test/part guests sh -c 'cd test && PFMOUNT_BIN=$(CURDIR)/$(BIN) $(GO) test -tags guest -run "^TestGuest" -timeout 20m ./e2e'
	@test/part 'reference tool' test/interop/setup.sh
	@test/part interop sh -c 'cd test && PFMOUNT_BIN=$(CURDIR)/$(BIN) $(GO) test -timeout 30m ./interop/...'

# One fuzz target at a time is all that go test takes.
fuzz-short: ## every fuzz target for FUZZTIME (3s)
	@test/part fuzz test/fuzz.sh $(FUZZTIME)

fuzz: ## every fuzz target for 10 minutes
	@test/fuzz.sh 10m

lint: ## gofmt, vet, staticcheck, import arrows, sizes of files and functions
	@test/part lint test/lint.sh

bench: build ## measure against peers and write test/bench/RESULTS.md (half an hour; BENCH='-quick -only warm')
	@test/setup.sh bench
	@cd test && $(GO) run ./bench -out bench $(BENCH) ../$(BIN)

SHARE    = $(DESTDIR)$(PREFIX)/share
# Units go where systemd looks for them, systemd.unit(5); a home has only a user's.
ifneq ($(SBINDIR),)
UNITS    = $(DESTDIR)$(PREFIX)/lib/systemd
UNITS_OF = system user
else
UNITS    = $(SHARE)/systemd
UNITS_OF = user
endif
install: build ## install to $(DESTDIR)$(PREFIX): program, manual page, completions, systemd units, mount(8) helpers
	install -D -m 755 $(BIN) $(DESTDIR)$(PREFIX)/bin/pfmount
	install -d $(SHARE)/man/man1 $(SHARE)/bash-completion/completions $(SHARE)/zsh/site-functions \
		$(SHARE)/fish/vendor_completions.d $(SHARE)/doc/pfmount/examples $(addprefix $(UNITS)/,$(UNITS_OF))
	umask 022; $(BIN) manpage >$(SHARE)/man/man1/pfmount.1
	umask 022; $(BIN) completion bash >$(SHARE)/bash-completion/completions/pfmount
	umask 022; $(BIN) completion zsh >$(SHARE)/zsh/site-functions/_pfmount
	umask 022; $(BIN) completion fish >$(SHARE)/fish/vendor_completions.d/pfmount.fish
	install -m 644 cmd/pfmount/systemd/examples/* $(SHARE)/doc/pfmount/examples
	umask 022; for of in $(UNITS_OF); do sed 's,/usr/local/bin/,$(PREFIX)/bin/,' cmd/pfmount/systemd/$$of/pfmount@.service \
		>$(UNITS)/$$of/pfmount@.service || exit; done
ifneq ($(SBINDIR),)
	install -d $(DESTDIR)$(SBINDIR)
	for name in mount.pfmount mount.fuse.pfmount; do ln -sf $(PREFIX)/bin/pfmount $(DESTDIR)$(SBINDIR)/$$name || exit; done
endif

clean: ## remove what was built
	rm -rf bin

#!/bin/sh
# Installs the reference tool that the tests of this folder run against, once, under
# $XDG_CACHE_HOME/pfmount-test: pf, built by cargo (about 8 minutes), and the Python
# package of the same version in a venv. What is there already is left alone.
set -eu
version=1.0.15
cache=${XDG_CACHE_HOME:-$HOME/.cache}/pfmount-test

if [ ! -x "$cache/pf/bin/pf" ]; then
    if ! command -v cargo >/dev/null; then
        echo "the reference tool is missing, and so is cargo, which builds it: install Rust 1.95 or newer
(https://rustup.rs), or put pf $version at $cache/pf/bin/pf" >&2
        exit 1
    fi
    echo "building pf $version (once, some minutes)"
    cargo install processfork --locked --version "$version" --root "$cache/pf"
fi
case $("$cache/pf/bin/pf" --version) in
*" $version") ;;
*)
    echo "$cache/pf/bin/pf is $("$cache/pf/bin/pf" --version), the tests are about $version: remove it" >&2
    exit 1
    ;;
esac

if ! "$cache/venv/bin/python" -c 'import processfork' 2>/dev/null; then
    # Debian keeps ensurepip, without which there is no venv, in a package of its own.
    if [ "$(id -u)" -eq 0 ] && ! python3 -c 'import ensurepip' 2>/dev/null && command -v apt-get >/dev/null; then
        echo 'installing: python3-venv'
        apt-get -q update >/dev/null
        DEBIAN_FRONTEND=noninteractive apt-get -qy install --no-install-recommends python3-venv >/dev/null
    fi
    if ! python3 -m venv --clear "$cache/venv"; then
        echo "no Python venv can be made: install python3 with its venv module (Debian: python3-venv)" >&2
        exit 1
    fi
    "$cache/venv/bin/pip" install --quiet --disable-pip-version-check "processfork==$version"
fi

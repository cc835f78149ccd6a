#!/bin/sh
# Makes, once, the tree of a Debian with systemd in which services are tested for real
# (systemd-nspawn), and prints where it is: $XDG_CACHE_HOME/pfmount-test/nspawn. About
# 250 MB, half a minute and the network; MIRROR= takes the place of deb.debian.org.
set -eu
suite=bookworm
root=${XDG_CACHE_HOME:-$HOME/.cache}/pfmount-test/nspawn
mirror=${MIRROR:-http://deb.debian.org/debian}

mkdir -p "$(dirname "$root")"
exec 9>"$root.lock"
flock 9
# The list of packages is the tree's version.
packages=systemd,systemd-sysv,libpam-systemd,dbus,fuse3
if [ "$(cat "$root/.packages" 2>/dev/null)" != "$suite:$packages" ]; then
    rm -rf "$root"
    made=
    for _ in 1 2 3; do # a mirror may have a bad moment
        rm -rf "$root.new"
        debootstrap --variant=minbase --include="$packages" "$suite" "$root.new" "$mirror" >"$root.log" 2>&1 && made=yes && break
    done
    if [ -z "$made" ]; then
        tail -5 "$root.log" >&2
        echo "no guest system for the tests of services: debootstrap from $mirror failed ($root.log);" \
            "it needs the network once, or MIRROR= a mirror that this machine reaches" >&2
        exit 1
    fi
    rm -rf "$root.new/var/cache/apt" "$root.new/var/lib/apt/lists"
    echo "$suite:$packages" >"$root.new/.packages"
    mv "$root.new" "$root"
fi
echo "$root"

#!/bin/sh
# Installs what the tests need (as root, through apt, only what is missing), opens
# /dev/fuse to every user as udev does, and makes the user that plays an ordinary
# one. Not root: says what is missing and fails. setup.sh [test|interop|demo|bench]
set -eu
what=${1:-test}
user=pftest
# The PATH of the tests' own commands; a user's private tools do not count.
PATH_OF_TESTS=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
missing=''

# need PACKAGE CHECK...: the package is missing unless the check succeeds.
need() {
    package=$1
    shift
    case " $missing " in *" $package "*) return ;; esac
    PATH=$PATH_OF_TESTS "$@" >/dev/null 2>&1 || missing="$missing $package"
}
has() { command -v "$1"; }

need fuse3 has fusermount3
if [ "$what" != demo ]; then
    need gcc has gcc # the race detector links with it
    need libc6-dev test -e /usr/include/stdio.h
    need python3 has python3
    need perl perl -MFile::Find -e 1
    need rsync has rsync
    need attr has getfattr
    need strace has strace
    need vim-tiny has vi
    need less has less
    need git has git
    need zstd has zstd
    need file has file
    need procps has ps
    need util-linux has nsenter
    need mount has mount
    need e2fsprogs has mkfs.ext4
    need btrfs-progs has mkfs.btrfs
    need iproute2 has ip
fi
if [ "$what" = interop ]; then
    need debootstrap has debootstrap
    need systemd-container has systemd-nspawn
fi
if [ "$what" = test ] || [ "$what" = interop ]; then
    need make has make
    need curl has curl
    need systemd has systemd-analyze
    need bubblewrap has bwrap
    need autofs has automount
    need man-db has man
    need groff-base has groff
    need bash has bash
    need zsh has zsh
    need fish has fish
fi
if [ "$what" = bench ]; then
    for tool in squashfuse restic rclone fio curl; do need $tool has $tool; done
    need squashfs-tools has mksquashfs
    # Beside what interop/setup.sh keeps; without it the table says so.
    oras=${XDG_CACHE_HOME:-$HOME/.cache}/pfmount-test/oras/bin
    [ -x "$oras/oras" ] || GOBIN=$oras go install oras.land/oras/cmd/oras@v1.3.6 || true
fi

if [ "$(id -u)" -ne 0 ]; then
    todo=''
    [ -z "$missing" ] || todo="$todo
  apt-get install --no-install-recommends$missing"
    [ -e /dev/fuse ] || todo="$todo
  modprobe fuse"
    [ "$(stat -c %a /dev/fuse 2>/dev/null)" = 666 ] || todo="$todo
  chmod 0666 /dev/fuse"
    if [ "$what" = test ] || [ "$what" = interop ]; then
        id $user >/dev/null 2>&1 || todo="$todo
  useradd -m $user"
        todo="$todo
  make test                # small disks, users and overlays need root"
    fi
    [ -z "$todo" ] && exit 0
    echo "Run as root first:$todo" >&2
    exit 1
fi

if [ -n "$missing" ]; then
    echo "installing:$missing"
    export DEBIAN_FRONTEND=noninteractive
    apt-get -q update >/dev/null
    # shellcheck disable=SC2086 # a list of packages
    apt-get -qy install --no-install-recommends $missing >/dev/null
fi
[ -e /dev/fuse ] || modprobe fuse 2>/dev/null || mknod /dev/fuse c 10 229 || {
    echo 'no /dev/fuse, and it cannot be made: the kernel lacks FUSE, or this container may not have it' >&2
    exit 1
}
[ "$(stat -c %a /dev/fuse)" = 666 ] || chmod 0666 /dev/fuse
[ "$what" = demo ] || [ "$what" = bench ] || [ -e /dev/autofs ] || modprobe autofs4 2>/dev/null || {
    echo 'no /dev/autofs: the kernel lacks autofs, or this container may not have it' >&2
    exit 1
}
[ "$what" = demo ] || id $user >/dev/null 2>&1 || PATH=$PATH_OF_TESTS useradd -m $user

#!/usr/bin/env bash
# npm run test:rabbitmq-4 [-- arguments for vitest]: every test on RabbitMQ 4, that of Debian 13.
#
# As root, on Debian or Ubuntu with debootstrap. The system is made once, in $RABBITMQ4_ROOT: a minute and half a GiB, later
# one more for the browser that the tests install in it. It changes nothing outside: its mounts are seen by this script alone.
set -euo pipefail

repository=$(cd "$(dirname "$0")/.." && pwd)
system=${RABBITMQ4_ROOT:-/var/tmp/effect-amqp-debian-13}

# A namespace of our own for mounts, which end with it, and for processes, which do too: also those that brokers leave behind.
if [ "${1-}" != --inside ]; then
  [ "$(id -u)" = 0 ] || { echo "This makes a system of its own and mounts it: only root may." >&2; exit 1; }
  command -v debootstrap >/dev/null || { echo "Install debootstrap first: apt-get install debootstrap" >&2; exit 1; }
  node "$repository/scripts/dependencies.mjs"
  if [ ! -e "$system" ]; then
    # Beside it, so that what has its name is whole; and nothing is removed but what was made here.
    made=$(mktemp -d "$system.XXXXXX")
    trap 'rm -rf "$made"' EXIT
    debootstrap --variant=minbase --include=rabbitmq-server,procps trixie "$made" "${DEBIAN_MIRROR:-http://deb.debian.org/debian}"
    chmod 755 "$made"
    mv -T "$made" "$system"
    trap - EXIT
  fi
  [ -x "$system/usr/sbin/rabbitmq-server" ] || { echo "$system has no RabbitMQ: name another folder, or remove it." >&2; exit 1; }
  exec unshare --mount --pid --fork --kill-child "$0" --inside "$@"
fi
shift

mount --make-rprivate /
mkdir -p "$system$repository"
mount --bind "$repository" "$system$repository"
mount -t tmpfs tmpfs "$system/tmp"
mount -t proc proc "$system/proc"
mount --rbind /dev "$system/dev"
# Not by `exec`: the first process of a namespace has to take in those whose parents have ended, which a shell does.
env -i HOME=/root LANG=C.UTF-8 CI="${CI-}" \
  PATH="$repository/node_modules/.bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin" \
  chroot "$system" /bin/sh -c 'cd "$0" && exec node scripts/test.mjs "$@"' "$repository" "$@"

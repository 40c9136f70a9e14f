#!/usr/bin/env bash
# Runs a script of this folder on RabbitMQ 4, in a Debian system of its own (a chroot in namespaces of its own).
#
#   scripts/rabbitmq4.sh [--suite=NAME] [--script=NAME] [ARGUMENT...]
#   scripts/rabbitmq4.sh [--suite=NAME] --make
#
# --suite   the Debian suite that RabbitMQ comes from. forky (the default) and sid have 4.3, trixie has 4.0.
# --script  `test` (the default) or `chaos`, which gets the arguments.
# --make    makes the system, if it is not there, and runs nothing.
#
# Needs root, and a Debian or Ubuntu with apt. The system is made once, in $RABBITMQ4_ROOT (one per suite): about four minutes
# and half a GiB. It uses the mirror of the machine's own apt, or $DEBIAN_MIRROR. Mounts and processes end with this script.
set -euo pipefail

repository=$(cd "$(dirname "$0")/.." && pwd)

if [ "${1-}" = --inside ]; then
  system=$2 script=$3
  shift 3
  mount --make-rprivate /
  # Before the repository, which may stand in the temporary folder.
  mount -t tmpfs tmpfs "$system/tmp"
  mkdir -p "$system$repository"
  mount --bind "$repository" "$system$repository"
  mount -t proc proc "$system/proc"
  mount --rbind /dev "$system/dev"
  # Not by `exec`: the first process of a namespace has to take in those whose parents have ended, which a shell does.
  env -i HOME=/root LANG=C.UTF-8 CI="${CI-}" \
    PATH="$repository/node_modules/.bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin" \
    chroot "$system" /bin/sh -c 'cd "$0" && exec node "$@"' "$repository" "scripts/$script.mjs" "$@"
  exit
fi

suite=forky script=test runs=true
while [ $# -gt 0 ]; do
  case $1 in
    --suite=*) suite=${1#*=} ;;
    --script=*) script=${1#*=} ;;
    --make) runs=false ;;
    *) break ;;
  esac
  shift
done
[[ $suite =~ ^[a-z]+$ ]] || { echo "--suite: expected the name of a Debian suite such as forky, got \"$suite\"" >&2; exit 2; }
[ -e "$repository/scripts/$script.mjs" ] || { echo "--script: expected test or chaos, got \"$script\"" >&2; exit 2; }
system=${RABBITMQ4_ROOT:-/var/tmp/effect-amqp-debian-$suite}

[ "$(id -u)" = 0 ] || { echo "Only root can make a system of its own and mount it: run this as root." >&2; exit 1; }
node "$repository/scripts/dependencies.mjs"

# The archive that apt uses here, on Debian. Without one, debootstrap has a default.
mirror() {
  if [ -n "${DEBIAN_MIRROR-}" ]; then
    echo "$DEBIAN_MIRROR"
  elif grep -qx 'ID=debian' /etc/os-release; then
    apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' | { grep -v security || true; } | sed -n 1p
  fi
}

if [ ! -e "$system" ]; then
  if ! command -v debootstrap >/dev/null; then
    echo "Installing debootstrap with apt-get" >&2
    { apt-get -o DPkg::Lock::Timeout=300 update && apt-get -o DPkg::Lock::Timeout=300 install -y --no-install-recommends debootstrap; } >/dev/null ||
      { echo "debootstrap cannot be installed: install it, then run this again." >&2; exit 1; }
  fi
  # All suites of Debian are made by the same instructions, which an older debootstrap knows by older names only.
  instructions=()
  [ -e "/usr/share/debootstrap/scripts/$suite" ] || instructions=(/usr/share/debootstrap/scripts/sid)
  # Beside it, so that what has its name is whole; and nothing is removed but what was made here.
  made=$(mktemp -d "$system.XXXXXX")
  trap 'rm -rf "$made"' EXIT
  echo "Making a Debian $suite with RabbitMQ 4 in $system: about four minutes" >&2
  debootstrap --variant=minbase --include=rabbitmq-server,procps "$suite" "$made" "$(mirror)" "${instructions[@]}" >&2
  grep -q localhost "$made/etc/hosts" 2>/dev/null || echo "127.0.0.1 localhost" >>"$made/etc/hosts"
  # For what tests install in it.
  cp -L /etc/resolv.conf "$made/etc/resolv.conf"
  chmod 755 "$made"
  mv -T "$made" "$system"
  trap - EXIT
fi
[ -x "$system/usr/sbin/rabbitmq-server" ] || { echo "$system has no RabbitMQ: remove it, or name another folder (RABBITMQ4_ROOT)." >&2; exit 1; }

"$runs" || exit 0

# A namespace of our own for mounts, which end with it, and for processes, which do too: also those that brokers leave behind.
exec unshare --mount --pid --fork --kill-child "$0" --inside "$system" "$script" "$@"

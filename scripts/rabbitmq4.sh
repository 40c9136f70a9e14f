#!/usr/bin/env bash
# Runs a script of this folder with RabbitMQ 4, in a separate Debian system (a chroot in its own namespaces).
#
#   scripts/rabbitmq4.sh [--suite=NAME] [--script=NAME] [ARGUMENT...]
#   scripts/rabbitmq4.sh [--suite=NAME] --make
#
# --suite   the Debian suite of RabbitMQ. forky (the default) and sid have 4.3, trixie has 4.0.
# --script  `test` (the default) or `chaos`, which gets the arguments.
# --make    makes the system, if it does not exist, and runs nothing.
#
# It needs root, and a Debian or Ubuntu with apt. The system is made once per suite, in $RABBITMQ4_ROOT, which takes about
# four minutes and half a GiB; it gets PostgreSQL when files of packages/sql are run. It uses the mirror of the machine's
# apt, or $DEBIAN_MIRROR. Mounts and processes end with this script.
set -euo pipefail

repository=$(cd "$(dirname "$0")/.." && pwd)

if [ "${1-}" = --inside ]; then
  system=$2 script=$3
  shift 3
  mount --make-rprivate /
  # This is mounted before the repository, which may be in the temporary folder.
  mount -t tmpfs tmpfs "$system/tmp"
  mkdir -p "$system$repository"
  mount --bind "$repository" "$system$repository"
  mount -t proc proc "$system/proc"
  mount --rbind /dev "$system/dev"
  # This does not use `exec`: the first process of a namespace has to reap orphaned processes, which a shell does.
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

[ "$(id -u)" = 0 ] || { echo "User: expected root, who alone can make and mount the system, got $(id -un). Run this as root." >&2; exit 1; }
node "$repository/scripts/dependencies.mjs"

# The archive that apt uses on this machine, if it runs Debian. Otherwise debootstrap uses its default.
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
      { echo "debootstrap could not be installed with apt-get: install it, then run this again." >&2; exit 1; }
  fi
  # All suites of Debian use the same instructions, which an older debootstrap has only under older names.
  instructions=()
  [ -e "/usr/share/debootstrap/scripts/$suite" ] || instructions=(/usr/share/debootstrap/scripts/sid)
  # The system is made next to its final path, so that what is there is complete. Only what was made here is removed.
  made=$(mktemp -d "$system.XXXXXX")
  trap 'rm -rf "$made"' EXIT
  echo "Making a Debian $suite with RabbitMQ 4 in $system: about four minutes" >&2
  debootstrap --variant=minbase --include=rabbitmq-server,procps "$suite" "$made" "$(mirror)" "${instructions[@]}" >&2
  grep -q localhost "$made/etc/hosts" 2>/dev/null || echo "127.0.0.1 localhost" >>"$made/etc/hosts"
  # Tests install packages in it.
  cp -L /etc/resolv.conf "$made/etc/resolv.conf"
  chmod 755 "$made"
  mv -T "$made" "$system"
  trap - EXIT
fi
[ -x "$system/usr/sbin/rabbitmq-server" ] || { echo "$system: expected a RabbitMQ, got none. Remove the folder, or choose another one (RABBITMQ4_ROOT)." >&2; exit 1; }

# The index files of a mirror that lags behind the archive expire.
echo 'Acquire::Check-Valid-Until "false";' >"$system/etc/apt/apt.conf.d/90effect-amqp"
if [[ "$*" == *sql* ]] && ! ls "$system"/usr/lib/postgresql/*/bin/postgres >/dev/null 2>&1; then
  unshare --mount --pid --fork --kill-child "$0" --inside "$system" postgresql
fi

"$runs" || exit 0

# The mounts and the processes have their own namespaces, and end with them, including processes that brokers leave behind.
exec unshare --mount --pid --fork --kill-child "$0" --inside "$system" "$script" "$@"

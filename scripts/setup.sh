#!/bin/sh
# What every other script needs first: the npm packages of the lockfile, the Debian packages that the product calls at run time, and the
# compiled C. Quick where all is there. Extra Debian packages can be named as arguments; one that is missing afterwards is only reported.
set -eu
cd "$(dirname "$0")/.."

if [ ! -e node_modules/.package-lock.json ] || [ package-lock.json -nt node_modules/.package-lock.json ]; then
  echo "jubako: installing the npm packages"
  npm ci --no-audit --no-fund --loglevel=error
  touch node_modules/.package-lock.json
fi

missing=""
for package in "$@"; do
  [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || missing="$missing $package"
done
if [ -n "$missing" ]; then
  echo "jubako: installing Debian packages:$missing"
  export DEBIAN_FRONTEND=noninteractive
  # A package must not start its service: a daemon of the originals would change the host's network.
  policy=""
  if [ ! -e /usr/sbin/policy-rc.d ]; then
    policy=yes
    printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d
    chmod +x /usr/sbin/policy-rc.d
  fi
  apt-get update -qq >/dev/null || true
  # shellcheck disable=SC2086
  apt-get install -y -qq --no-install-recommends $missing >/dev/null 2>&1 ||
    for package in $missing; do
      apt-get install -y -qq --no-install-recommends "$package" >/dev/null 2>&1 || echo "jubako: $package could not be installed"
    done
  if [ -n "$policy" ]; then rm -f /usr/sbin/policy-rc.d; fi
fi

sh scripts/build-native.sh

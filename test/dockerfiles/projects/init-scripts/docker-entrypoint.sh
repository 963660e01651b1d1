#!/usr/bin/env bash
set -Eeo pipefail
shopt -s nullglob
if [ "$1" = sqlite3 ]; then
  shift
  if [ ! -s "$DATABASE" ]; then
    for file in /docker-entrypoint-initdb.d/*; do
      case $file in
        *.sql) sqlite3 "$DATABASE" < "$file" ;;
        *.sh) . "$file" ;;
        *) echo "ignoring $file" ;;
      esac
    done
  fi
  set -- sqlite3 "$DATABASE" "$@"
fi
exec "$@"

#!/bin/sh
set -eu
mkdir -p "$2"
for page in "$1"/*.txt; do
  sed "s/@TITLE@/$(cat "$page")/g" layout.html > "$2/$(basename "$page" .txt).html"
done

#!/bin/sh
# Generates src/gen from api/*.proto. Run it after a change there, and commit both.
set -eu
cd "$(dirname "$0")/.."
PATH="$PWD/node_modules/.bin:$PATH" buf generate

#!/bin/sh
set -e
head -n 1 /opt/tools/list
exec "$@"

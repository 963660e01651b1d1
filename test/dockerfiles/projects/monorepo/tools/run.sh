#!/bin/sh
exec node "$(dirname "$0")/tool.js"

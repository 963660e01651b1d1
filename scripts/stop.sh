#!/bin/sh
# npm stop: ends the engine that npm start began. As with dockerd, its containers are stopped first.
set -eu
pidfile=${JUBAKO_PIDFILE:-/run/jubako/jubakod.pid}
if [ ! -s "$pidfile" ] || ! kill -0 "$(cat "$pidfile")" 2>/dev/null; then
  echo "jubako: no engine runs"
  exit 0
fi
pid=$(cat "$pidfile")
kill -TERM "$pid"
tries=0
while kill -0 "$pid" 2>/dev/null && [ "$tries" -lt 300 ]; do
  sleep 0.1
  tries=$((tries + 1))
done
if kill -0 "$pid" 2>/dev/null; then
  echo "jubako: the engine (pid $pid) has not ended after 30 s" >&2
  exit 1
fi
echo "jubako: the engine has stopped"

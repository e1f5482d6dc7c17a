#!/bin/sh
# Makes the namespace and registers what migrations can be searched by. TEMPORAL_ADDRESS and TEMPORAL_NAMESPACE say where.
set -eu

# The port is open before the server is ready. A container that ends is started again (restart: on-failure).
attempts=60
until temporal operator cluster health >/dev/null 2>&1; do
  attempts=$((attempts - 1))
  [ "$attempts" -gt 0 ] || { echo "Temporal at $TEMPORAL_ADDRESS is not healthy." >&2; exit 1; }
  sleep 1
done

# 90 days: how long the history of a migration that has ended can be read.
if ! temporal operator namespace describe --namespace "$TEMPORAL_NAMESPACE" >/dev/null 2>&1; then
  temporal operator namespace create --namespace "$TEMPORAL_NAMESPACE" --retention 2160h
fi

# A new namespace is known everywhere a few seconds later.
attempts=60
until temporal operator search-attribute create --namespace "$TEMPORAL_NAMESPACE" --type Keyword \
  --name PgCluster --name PgDatabase --name PgMigrationPhase --name PgAttention; do
  attempts=$((attempts - 1))
  [ "$attempts" -gt 0 ] || exit 1
  sleep 1
done

# What pg_auto_failover does: a replication connection first, then the pg_rewind beside pg_ctl; if that fails, a base backup.
set -u
export PGCONNECT_TIMEOUT=2
name="application_name=pgautofailover_standby_2"
psql -X -A -t -d "$name host=$HOST port=$PORT user=$ROLE replication=1 sslmode=prefer" -c IDENTIFY_SYSTEM >&2 || exit 1
source="$name host=$HOST port=$PORT user=$ROLE dbname=postgres sslmode=prefer"
"$BIN/pg_rewind" --target-pgdata "$PGDATA" --source-server "$source" --progress || { echo "pg_basebackup" >&2; exit 1; }

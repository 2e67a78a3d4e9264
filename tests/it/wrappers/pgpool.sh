# What pgpool-II's follow_primary.sh.sample does, on the node by ssh: a failure makes it remove the data directory.
set -u
psql -X -q -h "$HOST" -p "$PORT" -U postgres postgres -c CHECKPOINT || exit 1
HOME=$HOME bash -s <<END || { echo "rm -rf $PGDATA" >&2; exit 1; }
set -o errexit
"$BIN/pg_rewind" -D "$PGDATA" --source-server="user=postgres host=$HOST port=$PORT dbname=postgres"
[ -d "$PGDATA" ] && rm -rf "$PGDATA"/pg_replslot/*
cat > "$PGDATA/myrecovery.conf" <<EOT
primary_conninfo = 'host=$HOST port=$PORT user=postgres application_name=node2'
EOT
echo "include_if_exists = 'myrecovery.conf'" >> "$PGDATA/postgresql.conf"
touch "$PGDATA/standby.signal"
END

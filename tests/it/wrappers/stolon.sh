# What Stolon's keeper does: settings in alphabetical order with escaped blanks, a password file, --debug; if that fails, a
# base backup.
set -u
rm -f "$PGDATA/postgresql.auto.conf"
PGPASSFILE=$(mktemp) && chmod 0600 "$PGPASSFILE" && export PGPASSFILE
trap 'rm -f "$PGPASSFILE"' EXIT
printf '%s:%s:*:%s:%s\n' "$HOST" "$PORT" "$ROLE" "$PASSWORD" >"$PGPASSFILE"
source="application_name=stolon_a1b2c3d4 dbname=postgres host=$HOST options=-c\\ synchronous_commit=off port=$PORT"
source+=" sslmode=prefer user=$ROLE"
"$BIN/pg_rewind" --debug -D "$PGDATA" --source-server="$source" || { echo "pg_basebackup" >&2; exit 1; }

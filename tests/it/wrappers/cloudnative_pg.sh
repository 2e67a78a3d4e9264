# What CloudNativePG's instance manager does around pg_rewind, which is found in PATH: up to four tries (without its pauses
# here), and before each of them a copy of pg_control. The first try is killed when it has written $KILLED KiB of a file.
# $SPOIL, a command, comes between the first two.
set -u
export PG_OOM_ADJUST_FILE=/proc/self/oom_score_adj PG_OOM_ADJUST_VALUE=0
control=$PGDATA/global/pg_control
source="host=$HOST user=$ROLE port=$PORT sslkey=/controller/certificates/streaming_replica.key"
source+=" sslcert=/controller/certificates/streaming_replica.crt sslrootcert=/controller/certificates/server-ca.crt"
source+=" application_name=node-2 sslmode=verify-ca dbname=postgres tcp_user_timeout='5000'"

keep_or_restore_control_file() {
  [ -e "$control" ] || { echo "while getting pg_control size" >&2; exit 1; }
  if [ -s "$control" ]; then cp "$control" "$control.old"; else cp "$control.old" "$control"; fi
}

rm -f "$PGDATA/postmaster.pid"
chmod 0600 "$PGDATA/postgresql.auto.conf"
for try in 1 2 3 4; do
  keep_or_restore_control_file
  echo "try $try" >&2
  (
    if [ "$try" = 1 ] && [ -n "${KILLED:-}" ]; then ulimit -c 0 && ulimit -f "$KILLED"; fi
    exec pg_rewind -P --source-server "$source" --target-pgdata "$PGDATA" --restore-target-wal
  ) && { rm -f "$control.old"; exit 0; }
  [ "$try" != 1 ] || eval "${SPOIL:-}"
done
exit 1

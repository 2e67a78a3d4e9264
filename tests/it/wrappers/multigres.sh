# What Multigres' pgctld does: a dry run whose output decides, then the real one with -R. The password comes by PGPASSWORD.
set -u
export PGPASSWORD=$PASSWORD
source="host=$HOST port=$PORT user=$ROLE dbname=postgres"
said=$(pg_rewind --source-server "$source" --target-pgdata "$PGDATA" --dry-run 2>&1) || { echo "$said" >&2; exit 1; }
case $said in
  *"servers diverged at"*) pg_rewind --source-server "$source" --target-pgdata "$PGDATA" -R 2>&1 >/dev/null ;;
  *) echo "not diverged: $said" >&2; exit 1 ;;
esac

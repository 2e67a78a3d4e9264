#!/bin/sh
# apply.sh: does what was approved, or nothing.
#
#   TARGET    the data directory that is to follow the source
#   PLAN      the plan
#   DIGEST    the digest of the plan that was approved: another plan is refused
#   SOURCE    the source's connection string, where the one in the plan does not do (none unless set)
#
# The source's password comes from a password file (PGPASSFILE) or from PGPASSWORD. Run again, it goes on where it was.
set -eu
: "${TARGET:?}" "${PLAN:?}" "${DIGEST:?}"
pg_unfork=${PG_UNFORK:-pg_unfork}

set -- "$PLAN" -D "$TARGET" --expect-digest "$DIGEST"
if [ -n "${SOURCE:-}" ]; then
  set -- "$@" --source-server "$SOURCE"
fi
"$pg_unfork" apply "$@"
"$pg_unfork" verify "$PLAN" -D "$TARGET"

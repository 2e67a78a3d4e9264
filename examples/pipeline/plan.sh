#!/bin/sh
# plan.sh: makes the plan that a reviewer is asked about. Needs no connection to the source and no credentials.
#
#   TARGET    the data directory that is to follow the source
#   LISTING   what `pg_unfork list` wrote of the source
#   OUT       the directory that gets plan.json, comment.md (for the reviewer) and digest (what is approved)
#   OPTIONS   further options of `pg_unfork plan`, separated by spaces (none unless set)
#
# Ends with 0 if there is nothing to do, 2 if somebody must look at the plan, and with anything else if it failed;
# with 4, if a rewind is impossible, there is a comment that says why.
set -euf
: "${TARGET:?}" "${LISTING:?}" "${OUT:?}"
pg_unfork=${PG_UNFORK:-pg_unfork}

mkdir -p "$OUT"
rm -f "$OUT/plan.json" "$OUT/comment.md" "$OUT/digest"

status=0
# shellcheck disable=SC2086 # options are words, and patterns in them are for pg_unfork
"$pg_unfork" plan -D "$TARGET" --source-listing "$LISTING" ${OPTIONS:-} --detailed-exitcode -o "$OUT/plan.json" ||
  status=$?
[ -f "$OUT/plan.json" ] || exit "$status"

"$pg_unfork" show --format markdown "$OUT/plan.json" >"$OUT/comment.md"
sed -n 's/^"digest":"\(sha256:[0-9a-f]*\)",*$/\1/p' "$OUT/plan.json" >"$OUT/digest"
exit "$status"

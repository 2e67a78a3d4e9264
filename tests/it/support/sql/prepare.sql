-- Every database made from now on has amcheck.
\c template1
CREATE EXTENSION amcheck;
\c postgres
CREATE EXTENSION amcheck;

CREATE ROLE rewind_user LOGIN;
GRANT EXECUTE ON FUNCTION pg_ls_dir(text, boolean, boolean) TO rewind_user;
GRANT EXECUTE ON FUNCTION pg_stat_file(text, boolean) TO rewind_user;
GRANT EXECUTE ON FUNCTION pg_read_binary_file(text) TO rewind_user;
GRANT EXECUTE ON FUNCTION pg_read_binary_file(text, bigint, bigint, boolean) TO rewind_user;

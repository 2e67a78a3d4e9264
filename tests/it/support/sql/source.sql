-- What only the source does after the fork.
UPDATE shrunk SET v = 'source' WHERE id % 100 = 0;
VACUUM FULL pg_authid;
CREATE TABLE only_here_in_elsewhere (v) TABLESPACE elsewhere AS SELECT 'source' AS v;
\c kept
COMMIT PREPARED 'parts';
\c postgres
CHECKPOINT;

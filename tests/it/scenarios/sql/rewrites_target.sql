-- What the target rewrites.
ALTER TABLE retyped ALTER id TYPE bigint;
CLUSTER clustered USING by_v;
CREATE INDEX CONCURRENTLY later ON clustered (id, v);
REINDEX INDEX CONCURRENTLY reindexed_v;
TRUNCATE emptied;
VACUUM (FREEZE) frozen;
CHECKPOINT;
BEGIN; TRUNCATE undone; INSERT INTO undone VALUES (1, 'target'); ROLLBACK;
BEGIN; TRUNCATE retyped; INSERT INTO retyped VALUES (1, 'target'); COMMIT;
UPDATE frozen SET v = 'target' WHERE id % 50 = 1;
DELETE FROM clustered WHERE id > 10;
VACUUM clustered;
ALTER TABLE reindexed SET UNLOGGED;
DROP INDEX later;

-- What only the target does after the fork.
INSERT INTO extended SELECT g, repeat('target', 20) FROM generate_series(1, 5000) g;
DELETE FROM shrunk WHERE id > 20;
VACUUM shrunk;
DO $$ BEGIN ASSERT pg_relation_size('shrunk') <= 8192, 'the table has not shrunk'; END $$;
DROP TABLE created_before_fork;
VACUUM FULL pg_class;
VACUUM FREEZE plain;
CHECKPOINT;
UPDATE plain SET v = 'after the checkpoint of the target' WHERE id % 19 = 0;
\c kept
ROLLBACK PREPARED 'parts';

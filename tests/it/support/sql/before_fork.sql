-- Prepared transactions live in a database of their own: their age must not keep VACUUM from
-- shrinking the tables of the others, nor their locks any command waiting.
\c kept
BEGIN;
INSERT INTO accounts VALUES (1001, 'prepared before the fork, stays');
PREPARE TRANSACTION 'stays';
BEGIN;
INSERT INTO accounts VALUES (1002, 'prepared before the fork, committed by one side');
PREPARE TRANSACTION 'parts';

\c postgres
UPDATE plain SET v = 'before the checkpoint' WHERE id % 13 = 0;
VACUUM FREEZE plain;
CHECKPOINT;
-- Common history between the last common checkpoint and the fork.
UPDATE plain SET v = 'after the checkpoint' WHERE id % 17 = 0;
INSERT INTO indexed
    SELECT g, md5(g::text), ARRAY[g % 50], point(g % 100, g % 83), int4range(g, g + 5)
    FROM generate_series(3001, 3100) g;
CREATE TABLE created_before_fork AS SELECT 'common' AS v;

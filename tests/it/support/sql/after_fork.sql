-- What both sides do, each in its way. Variables: side, other, n (a small number unlike the
-- other side's).
\set created created_by_ :side
\set dropped dropped_by_ :side
\set truncated truncated_by_ :side
\set rewritten rewritten_by_ :side
\set moved moved_by_ :side
\set copied copied_by_ :side
SELECT :SERVER_VERSION_NUM >= 150000 AS has_strategy, :SERVER_VERSION_NUM >= 170000 AS in_place \gset

INSERT INTO plain SELECT 10000 + g * :n, :'side' FROM generate_series(1, 500) g;
UPDATE plain SET v = :'side' || id WHERE id % :n = 1;
DELETE FROM plain WHERE id % 11 = :n;
UPDATE in_elsewhere SET v = :'side' WHERE id % 7 = :n;
UPDATE parted SET v = :'side' WHERE id % 9 = :n;
INSERT INTO parted SELECT 5000 + g * :n, :'side' FROM generate_series(1, 300) g;
UPDATE unlogged SET v = :'side' WHERE id % :n = 0;
UPDATE toasted SET v = repeat(md5(id::text || :'side'), 600) WHERE id % :n = 0;
\if :in_place
UPDATE in_in_place SET v = :'side' WHERE id % 7 = :n;
\endif

INSERT INTO indexed
    SELECT g, md5(g || :'side'), ARRAY[g % 50, :n], point(g % 97, :n), int4range(g, g + :n)
    FROM generate_series(4000, 5000) g;
UPDATE indexed SET label = md5(label), place = point(id % 70, :n) WHERE id % 7 = :n;
DELETE FROM indexed WHERE id % 29 = :n;
VACUUM indexed;
REINDEX TABLE indexed;
DELETE FROM indexed WHERE id % 31 = :n;

CREATE TABLE :"created" (id serial PRIMARY KEY, v text);
INSERT INTO :"created" (v) SELECT :'side' FROM generate_series(1, 700);
DROP TABLE :"dropped";
TRUNCATE :"truncated";
INSERT INTO :"truncated" VALUES (1, :'side');
VACUUM FULL :"rewritten";
ALTER TABLE :"moved" SET TABLESPACE elsewhere;
REFRESH MATERIALIZED VIEW summary;
SELECT nextval('counter') FROM generate_series(1, :n * 40) \g /dev/null
SELECT pg_logical_emit_message(false, :'side', 'a logical message') \g /dev/null
SELECT lo_put(4711, 4000, convert_to(repeat(:'side', 900), 'UTF8')) \g /dev/null
SELECT lo_from_bytea(4711 + :n, convert_to(:'side', 'UTF8')) \g /dev/null

-- Subtransactions, some of them rolled back, more than the 64 that a backend advertises.
BEGIN;
DO $$
BEGIN
    FOR i IN 1..100 LOOP
        BEGIN
            INSERT INTO extended VALUES (100000 + i, 'subtransaction');
            IF i % 3 = 0 THEN RAISE EXCEPTION 'undone'; END IF;
        EXCEPTION WHEN raise_exception THEN NULL;
        END;
    END LOOP;
END $$;
COMMIT;
-- A multixact: the row is locked by the transaction and updated by its subtransaction.
BEGIN;
SELECT FROM plain WHERE id = 8 FOR KEY SHARE;
SAVEPOINT inner_one;
UPDATE plain SET v = :'side' WHERE id = 8;
COMMIT;
BEGIN;
INSERT INTO plain VALUES (-:n, 'rolled back');
ROLLBACK;

DROP DATABASE :"dropped";
\if :has_strategy
CREATE DATABASE :"created" STRATEGY wal_log;
CREATE DATABASE :"copied" STRATEGY file_copy;
\else
CREATE DATABASE :"created";
\endif
\c :created
CREATE TABLE inhabitant AS SELECT :'side' AS v;

\c kept
UPDATE accounts SET v = :'side' WHERE id % :n = 0;
BEGIN;
INSERT INTO accounts VALUES (2000, 'prepared by ' || :'side');
PREPARE TRANSACTION :'side';

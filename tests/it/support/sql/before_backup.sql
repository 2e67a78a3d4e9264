-- Variable: location, an empty directory for a tablespace.

CREATE TABLESPACE elsewhere LOCATION :'location';
SELECT :SERVER_VERSION_NUM >= 150000 AS has_strategy, :SERVER_VERSION_NUM >= 170000 AS in_place \gset

-- Tables whose fate after the fork is in their name.
CREATE TABLE plain (id int PRIMARY KEY, v text);
INSERT INTO plain SELECT g, 'common ' || g FROM generate_series(1, 3000) g;
CREATE TABLE extended (id int, v text);
INSERT INTO extended VALUES (1, 'common');
CREATE TABLE shrunk (id int, v text);
INSERT INTO shrunk SELECT g, md5(g::text) FROM generate_series(1, 10001) g;
CREATE TABLE truncated_by_target AS TABLE shrunk;
CREATE TABLE truncated_by_source AS TABLE shrunk;
CREATE TABLE dropped_by_target AS SELECT 'common' AS v;
CREATE TABLE dropped_by_source AS SELECT 'common' AS v;
CREATE TABLE rewritten_by_target AS TABLE plain;
CREATE TABLE rewritten_by_source AS TABLE plain;
CREATE TABLE moved_by_target AS TABLE plain;
CREATE TABLE moved_by_source AS TABLE plain;
CREATE TABLE in_elsewhere (id int PRIMARY KEY, v text) TABLESPACE elsewhere;
INSERT INTO in_elsewhere TABLE plain;
CREATE UNLOGGED TABLE unlogged (id int PRIMARY KEY, v text);
INSERT INTO unlogged TABLE plain;
CREATE TABLE toasted (id int PRIMARY KEY, v text);
ALTER TABLE toasted ALTER v SET STORAGE EXTERNAL;
INSERT INTO toasted SELECT g, repeat(md5(g::text), 500) FROM generate_series(1, 20) g;

-- Every index access method, and bloom for generic WAL records.
CREATE EXTENSION bloom;
CREATE TABLE indexed (id int PRIMARY KEY, label text, tags int[], place point, span int4range);
INSERT INTO indexed
    SELECT g, md5(g::text), ARRAY[g % 50, g % 31], point(g % 100, g % 83), int4range(g, g + 5)
    FROM generate_series(1, 3000) g;
CREATE INDEX ON indexed USING hash (label);
CREATE INDEX ON indexed USING gin (tags);
CREATE INDEX ON indexed USING gist (place);
CREATE INDEX ON indexed USING gist (span);
CREATE INDEX ON indexed USING spgist (label);
CREATE INDEX ON indexed USING spgist (place);
CREATE INDEX ON indexed USING brin (id) WITH (pages_per_range = 2);
CREATE INDEX ON indexed USING bloom (id, label);
CREATE INDEX ON indexed (upper(label)) WHERE id % 2 = 0;

CREATE TABLE parted (id int, v text, PRIMARY KEY (id)) PARTITION BY RANGE (id);
CREATE TABLE parted_1 PARTITION OF parted FOR VALUES FROM (0) TO (1000);
CREATE TABLE parted_2 PARTITION OF parted FOR VALUES FROM (1000) TO (20000) PARTITION BY HASH (id);
CREATE TABLE parted_2_0 PARTITION OF parted_2 FOR VALUES WITH (modulus 2, remainder 0);
CREATE TABLE parted_2_1 PARTITION OF parted_2 FOR VALUES WITH (modulus 2, remainder 1);
INSERT INTO parted TABLE plain;
CREATE MATERIALIZED VIEW summary AS SELECT id % 10 AS k, count(*), max(v) FROM plain GROUP BY 1;
CREATE UNIQUE INDEX ON summary (k);

CREATE SEQUENCE counter;
SELECT nextval('counter') \g /dev/null
SELECT lo_from_bytea(4711, decode(repeat('00ff', 5000), 'hex')) \g /dev/null

\if :in_place
CREATE TABLESPACE in_place LOCATION '';
CREATE TABLE in_in_place (id int PRIMARY KEY, v text) TABLESPACE in_place;
INSERT INTO in_in_place TABLE plain;
\endif

\if :has_strategy
CREATE DATABASE kept STRATEGY file_copy;
CREATE DATABASE dropped_by_target STRATEGY file_copy;
CREATE DATABASE dropped_by_source STRATEGY file_copy;
\else
CREATE DATABASE kept;
CREATE DATABASE dropped_by_target;
CREATE DATABASE dropped_by_source;
\endif
\c dropped_by_target
CREATE TABLE survivor AS SELECT 'common' AS v;
\c kept
CREATE TABLE accounts (id int PRIMARY KEY, v text);
INSERT INTO accounts SELECT g, 'common' FROM generate_series(1, 100) g;

-- Tables that will get other files.
CREATE TABLE retyped (id int PRIMARY KEY, v text);
INSERT INTO retyped SELECT g, 'common ' || g FROM generate_series(1, 3000) g;
CREATE TABLE clustered (id int PRIMARY KEY, v text);
INSERT INTO clustered SELECT g, md5(g::text) FROM generate_series(1, 3000) g;
CREATE INDEX by_v ON clustered (v);
CREATE TABLE reindexed AS TABLE clustered;
CREATE INDEX reindexed_v ON reindexed (v);
CREATE TABLE emptied AS TABLE clustered;
CREATE TABLE frozen AS TABLE clustered;
CREATE TABLE undone AS TABLE clustered;

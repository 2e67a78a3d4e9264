-- An index of every access method.
CREATE EXTENSION bloom;
CREATE TABLE things (id int, few int, tags int[], place point, label text) WITH (autovacuum_enabled = off);
CREATE INDEX things_btree ON things (id);
CREATE INDEX things_dedup ON things (few);
CREATE INDEX things_hash ON things USING hash (id);
CREATE INDEX things_gin ON things USING gin (tags);
CREATE INDEX things_gist ON things USING gist (place);
CREATE INDEX things_spgist ON things USING spgist (label);
CREATE INDEX things_brin ON things USING brin (id) WITH (pages_per_range = 1, autosummarize = off);
CREATE INDEX things_bloom ON things USING bloom (id);
INSERT INTO things SELECT g, g % 3, ARRAY[g % 70, g % 11], point(g % 100, g % 83), md5(g::text)
  FROM generate_series(1, 4000) g;

-- What the source rewrites.
ALTER TABLE retyped ALTER v TYPE varchar(40);
ALTER TABLE clustered ALTER id TYPE bigint;
CREATE INDEX CONCURRENTLY later ON reindexed (v, id);
REINDEX TABLE CONCURRENTLY clustered;
DELETE FROM emptied WHERE id > 10;
VACUUM (FREEZE) emptied;
UPDATE undone SET v = 'source';

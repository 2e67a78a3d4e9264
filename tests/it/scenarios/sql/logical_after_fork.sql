-- What logical decoding and replication leave in WAL. SIDE stands for the side.
SELECT pg_replication_origin_create('of_SIDE');
SELECT pg_replication_origin_advance('common', '0/AFFE');
SELECT pg_replication_origin_session_setup('of_SIDE');
BEGIN;
SELECT pg_replication_origin_xact_setup('0/ABC', now());
INSERT INTO rows (origin) VALUES ('SIDE from elsewhere');
COMMIT;
SELECT pg_replication_origin_session_reset();
SELECT pg_create_logical_replication_slot('of_SIDE', 'test_decoding');
SELECT pg_logical_emit_message(true, 'SIDE', 'transactional');
SELECT pg_logical_emit_message(false, 'SIDE', 'not transactional');
CREATE TABLE catalog_like (id int) WITH (user_catalog_table = true);
INSERT INTO catalog_like SELECT g FROM generate_series(1, 500) g;
UPDATE catalog_like SET id = -id;
VACUUM FULL pg_description;
TRUNCATE catalog_like;
CHECKPOINT;

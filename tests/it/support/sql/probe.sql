-- Answers that come out of indexes only.
SET enable_seqscan = off;
SELECT 'btree', count(*), sum(id) FROM indexed WHERE id BETWEEN 100 AND 4500;
SELECT 'expression', count(*) FROM indexed WHERE id % 2 = 0 AND upper(label) > 'A';
SELECT 'gin', count(*), sum(id) FROM indexed WHERE tags @> ARRAY[5];
SELECT 'gist range', count(*), sum(id) FROM indexed WHERE span && int4range(90, 4100);
SELECT 'range of points', count(*), sum(id) FROM indexed WHERE place <@ box '((3,3),(60,60))';
SELECT 'bloom', count(*) FROM indexed WHERE id = 77 AND label = md5('77');
SET enable_bitmapscan = off;
SELECT 'hash', count(*) FROM generate_series(1, 5000) g JOIN indexed ON label = md5(g::text);
SELECT 'spgist', count(*), min(id) FROM indexed WHERE label ^@ 'a';
SET enable_bitmapscan = on;
SET enable_indexscan = off;
SELECT 'brin', count(*) FROM indexed WHERE id < 2000;
TABLE summary ORDER BY k;

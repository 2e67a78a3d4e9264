-- Records that mere inserts do not write. Variable: n, unlike on the other side.
INSERT INTO things SELECT g, g % 3, ARRAY[g % 70, :n], point(g % 97, :n), repeat('p', 30) || g
  FROM generate_series(5000, 12000) g;
SELECT gin_clean_pending_list('things_gin') \g /dev/null
DELETE FROM things WHERE id BETWEEN 500 AND 3500 OR id % 5 = :n;
VACUUM things;
SELECT brin_summarize_new_values('things_brin') \g /dev/null
SELECT brin_desummarize_range('things_brin', 1) \g /dev/null

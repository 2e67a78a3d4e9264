-- Thousands of multixacts, some of transactions that still hold their locks. SIDE stands for the side.
BEGIN;
SELECT FROM locked WHERE id <= 3000 FOR KEY SHARE \g /dev/null
DO $$ BEGIN
    FOR i IN 1..3000 LOOP
        BEGIN
            UPDATE locked SET v = 'SIDE' WHERE id = i;
            IF i % 10 = 0 THEN RAISE EXCEPTION 'undone'; END IF;
        EXCEPTION WHEN raise_exception THEN NULL;
        END;
    END LOOP;
END $$;
COMMIT;
BEGIN;
SELECT FROM locked WHERE id > 3500 FOR SHARE \g /dev/null
PREPARE TRANSACTION 'holds_SIDE';
BEGIN;
SELECT FROM locked WHERE id > 3600 FOR SHARE \g /dev/null
SAVEPOINT inner_one;
SELECT FROM locked WHERE id > 3700 FOR KEY SHARE \g /dev/null
ROLLBACK TO inner_one;
COMMIT;
VACUUM FREEZE locked;

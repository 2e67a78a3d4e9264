/*
 * A resource manager of an extension: its records change pages of ordinary tables, or tell of
 * something that is in no relation.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/xlog.h"
#include "access/xlog_internal.h"
#include "access/xloginsert.h"
#include "access/xlogutils.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "storage/bufmgr.h"
#include "storage/bufpage.h"
#include "utils/rel.h"
#include "access/relation.h"

PG_MODULE_MAGIC;

/* Operations. */
#define CUSTOM_BLOCK 0x00
#define CUSTOM_NOTE 0x10

void		_PG_init(void);
PG_FUNCTION_INFO_V1(set_first_column);
PG_FUNCTION_INFO_V1(note);

/* Overwrites the first column, an int4, of every row in a page. */
static void
set_rows(Page page, int32 value)
{
	for (OffsetNumber at = FirstOffsetNumber; at <= PageGetMaxOffsetNumber(page); at++)
	{
		ItemId		item = PageGetItemId(page, at);

		if (ItemIdIsNormal(item))
		{
			HeapTupleHeader tuple = (HeapTupleHeader) PageGetItem(page, item);

			memcpy((char *) tuple + tuple->t_hoff, &value, sizeof(value));
		}
	}
}

static void
custom_redo(XLogReaderState *record)
{
	Buffer		buffer;

	if ((XLogRecGetInfo(record) & ~XLR_INFO_MASK) != CUSTOM_BLOCK)
		return;
	if (XLogReadBufferForRedo(record, 0, &buffer) == BLK_NEEDS_REDO)
	{
		int32		value;

		memcpy(&value, XLogRecGetData(record), sizeof(value));
		set_rows(BufferGetPage(buffer), value);
		PageSetLSN(BufferGetPage(buffer), record->EndRecPtr);
		MarkBufferDirty(buffer);
	}
	if (BufferIsValid(buffer))
		UnlockReleaseBuffer(buffer);
}

static void
custom_desc(StringInfo text, XLogReaderState *record)
{
	appendStringInfo(text, "%u bytes", XLogRecGetDataLen(record));
}

static const char *
custom_identify(uint8 info)
{
	return (info & ~XLR_INFO_MASK) == CUSTOM_BLOCK ? "BLOCK" : "NOTE";
}

static RmgrData custom = {
	.rm_name = "custom_wal",
	.rm_redo = custom_redo,
	.rm_desc = custom_desc,
	.rm_identify = custom_identify,
};

void
_PG_init(void)
{
	if (process_shared_preload_libraries_in_progress)
		RegisterCustomRmgr(RM_EXPERIMENTAL_ID, &custom);
}

/* set_first_column(relation oid, block int, value int) */
Datum
set_first_column(PG_FUNCTION_ARGS)
{
	Relation	relation = relation_open(PG_GETARG_OID(0), RowExclusiveLock);
	Buffer		buffer = ReadBuffer(relation, PG_GETARG_INT32(1));
	int32		value = PG_GETARG_INT32(2);
	XLogRecPtr	end;

	LockBuffer(buffer, BUFFER_LOCK_EXCLUSIVE);
	START_CRIT_SECTION();
	set_rows(BufferGetPage(buffer), value);
	MarkBufferDirty(buffer);
	XLogBeginInsert();
	XLogRegisterData((char *) &value, sizeof(value));
	XLogRegisterBuffer(0, buffer, REGBUF_STANDARD);
	end = XLogInsert(RM_EXPERIMENTAL_ID, CUSTOM_BLOCK);
	PageSetLSN(BufferGetPage(buffer), end);
	END_CRIT_SECTION();
	UnlockReleaseBuffer(buffer);
	relation_close(relation, NoLock);
	XLogFlush(end);
	PG_RETURN_VOID();
}

/*
 * note(size int, special bool): a record without a block, which claims to change relation files in
 * its own way if `special`.
 */
Datum
note(PG_FUNCTION_ARGS)
{
	int32		size = PG_GETARG_INT32(0);
	char	   *data = palloc0(size);

	XLogBeginInsert();
	XLogRegisterData(data, size);
	XLogFlush(XLogInsert(RM_EXPERIMENTAL_ID, CUSTOM_NOTE | (PG_GETARG_BOOL(1) ? XLR_SPECIAL_REL_UPDATE : 0)));
	PG_RETURN_VOID();
}

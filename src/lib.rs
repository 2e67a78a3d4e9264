//! A cluster that forked off its primary is made a follower again, in two steps.
//!
//! `plan` reads the target's WAL and the source's listing and writes a manifest; `apply` does
//! exactly what the manifest says. This is the library behind the program; its parts, in the
//! order in which data flows:
//!
//! ```text
//! types      positions, timelines, names, sizes
//! format     PostgreSQL's files: bytes <-> values, one row of facts per major
//! cluster    what a source and a target are: traits, inventory, path rules
//! checks     facts -> what stands against it, what is lost, what to do; pure
//! discard    what WAL records mean, and what is lost with them
//! plan       facts -> decisions -> manifest; pure but for the reading it asks the traits for
//! manifest   the contract: one JSON document, its digest, its schema, its validation
//! listing    a source as a document, which takes its place in a plan
//! apply      stale? -> seal -> units -> finish; journal, resume, undo; through the traits, too
//! report     manifests for people
//! compat     pg_rewind's command line and words, for the drop-in; pure
//! io         the only files, sockets and processes: implements the traits
//! cli        (in the binary) the only terminal, arguments and exit codes
//! ```
//!
//! Beside them, for all: `error`, `progress`, and `interrupt`, the wish to stop.
//!
//! Lower layers never name upper ones; a test holds the table of allowed edges.
//!
//! # From bytes to facts
//!
//! [`format::ControlFile`] says who a cluster is and where it stands. [`format::wal::WalReader`]
//! is fed with pages and shows records to a visitor; it opens nothing, holds no page, and copies
//! only records that cross pages. It can begin at a record or at a segment's first record, so
//! segments can be read independently and joined by `xl_prev`.
//!
//! [`plan::WalScan`] feeds it from segment files, 128 KiB at a time, and never opens a segment
//! before a record needs it. Three questions are asked of the target's WAL: where does it end
//! (the record of its last checkpoint, or its minimum recovery point); which checkpoint was the
//! last before the fork (found segment by segment going back, reading each forward, instead of
//! following links record by record); and which blocks changed since that checkpoint, its record
//! included. Visitors collect the answers: `changed_blocks` one bit per block of a file that both
//! sides have, in one set for all readers, and another for blocks changed after the fork; [`discard`] what is lost, for
//! each reader by itself and joined afterwards. What is remembered of relations and transactions has limits; within
//! them the parts come to the same however the WAL was shared out.
//!
//! A segment that the target's `pg_wal` lacks ends what is being read. It is got then, from the source's `pg_wal` if it
//! lies before the fork, or by a `restore_command`, into a file without a name, and reading begins again where it
//! stood: so nothing is asked for that no record needs. Several readers are used only where all is there.
//!
//! In a preview the target's server may be running, or have crashed: then the WAL ends where no valid record follows
//! the last checkpoint's. Files that vanish meanwhile are not there. Such a plan is never applied.
//!
//! The last question needs the one long pass. As many readers make it as there are processors, up to eight, each
//! with whole segments of its own. That they find what one reader would have found is proven where they meet: the
//! record that one finds behind its segment, linked to the last one in it, is the first that the next one has
//! found. Where they do not meet, or one of them fails, all that they found is dropped and one reader reads
//! everything in order: so damage is judged in one way only.
//!
//! Both sides are listed into an [`cluster::Inventory`], some 60 bytes for a file, and joined in the order of
//! their paths. The target is walked by several threads that share out directories and the names of large
//! ones; a live source's server lists meanwhile. Threads change neither the result nor which failure counts.
//!
//! # From facts to decisions
//!
//! [`plan::common_ancestor`] compares the two timeline histories, [`plan::decide`] has the
//! decision table of pg_rewind 14 and later, [`plan::WalNeeds`] decides on `pg_wal`. All are pure.
//! Where this differs from pg_rewind, on purpose:
//!
//! - The timeline of each side is the later of its checkpoint's and its minimum recovery point's,
//!   for every major (pg_rewind: from 16 on).
//! - Equal timeline numbers are not enough for "no rewind needed": the histories must agree, too, and
//!   the record of the target's last checkpoint must be in the source's WAL. Two standbys that were
//!   promoted independently at one position differ in nothing else. Then the fork is where
//!   their timeline begins, if its first record differs; else no rewind is possible.
//! - Of the source's WAL only what replay reads is fetched: its line of history from the redo
//!   position to its end. Segments before that stay as they are on the target; those that are on
//!   no line of the source's history are removed even where the source has the same name.
//! - Files that pg_rewind copies whole are compared first: with a stopped source byte by byte, with a live one by SHA-256
//!   that the server computes. What is equal stays, and the plan says so in `kept`; of free space and visibility maps
//!   and of the transactions' state only the blocks that differ are copied. [`plan`] says of which files of a live source
//!   a copy that is as old as the plan will do.
//! - Segments of the common history that only the target has are kept from the redo position on
//!   (pg_rewind: from the checkpoint's record on), but never the one in which the fork lies
//!   (pg_rewind keeps it): behind the fork it has what must not be replayed.
//! - The sizes, and the checksum states, of both sides must be equal. The source must have come
//!   beyond the fork, and must not be sealed itself.
//! - The end of recovery is the position that a live primary has *flushed* (pg_rewind: inserted):
//!   no page is on disk whose record is not, and an inserted position can lie behind a page
//!   header that replay never reaches. For a standby it is the minimum recovery point, also for a
//!   stopped one (pg_rewind: its last checkpoint).
//! - A target that ends before the fork, and was a primary or has crashed, needs no rewind only if the source's WAL has its last
//!   record. Otherwise it was recovered by itself, and has parted from the source before their histories say so.
//! - A target that did not stop in good order is recovered only if a preview says that this can lead to a rewind, with its
//!   archiving off, all of its WAL kept, and `fsync` as it is set (pg_rewind turns that off, and syncs all later). Its own
//!   `pg_wal` must reach its minimum recovery point: a server in single-user mode does not look whether it does.
//! - `PG_VERSION` of a database that only the source has is copied (pg_rewind 13 forgets it).
//! - A symlink on the source that hides data (as `pg_xact`, or below `base`) is refused: what is behind it
//!   would not be rewound. Other links are left, as pg_rewind does.
//! - What a running server shows as an empty file is not read: it may be a named pipe or a socket.
//!
//! # Checks
//!
//! [`checks`] are pure, too: facts in, one entry of the manifest's `checks` out. All whose facts are there run and are
//! reported together. Those of the two control files, of who shares directories and of the source's privileges come
//! first; where one of them fails that the rest depends on, planning ends. With any other failure it goes on, and the plan
//! is impossible at its end.
//!
//! What a live source says of itself ([`cluster::ServerFacts`]) is asked for in one round trip; what the role may not see
//! is unknown and fails nothing. What an apply needs of the server is refused by the session itself, too, when it is
//! made for copying: a plan may be hours old.
//!
//! Which settings the target will start with is known from the files that the plan's actions leave
//! ([`cluster::SettingsInForce`]), and from the command line in its `postmaster.opts`. Where they lie elsewhere, as on Debian,
//! nothing is taken for sure, and a check that needs them warns at most.
//!
//! What can only be asked of a plan that is made is checked last: `plan::target_checks` collects, by way of [`cluster::Site`]
//! what an apply would meet, and [`checks`] judges. The apply asks the same again before its first write.
//!
//! # The manifest
//!
//! [`manifest::Manifest`] is the document, there is no second shape. Its bytes depend on nothing
//! but the plan, and are written as a stream; [`manifest::digest_of`] streams over the document as it
//! stands. One path has one action; what only an apply can know is a named rule from a closed list.
//!
//! # Planning without the source
//!
//! [`listing::list_source`] asks a source all that a plan may ask it, whatever the target is, and [`listing::ListedSource`]
//! gives the answers: what [`plan::ProvableSource`] names is hashed piece by piece, as a live source does it for a
//! comparison. So a plan with a listing is the one with the source, if that did not move. An apply of it needs the source,
//! and judges it as that of any plan. What a listing leaves open is said in [`listing`], and in the plan.
//!
//! # What people and programs read
//!
//! [`report`] makes one report of a manifest, with bounded lists, in which names from outside are told from the report's own
//! words; three renderers show it. On a terminal nothing of a name moves the cursor or hides; in Markdown every name is
//! code, where forges look for no mentions; HTML has it escaped. Lists are cut with a count, never a construct in its middle.
//!
//! Standard error has text, or one event a line. An [`error::Error`] has a kind, which says what was written and
//! becomes the exit code, and an [`error::ErrorId`], which says what failed and stays when the kind changes.
//!
//! # Apply
//!
//! A manifest and a source's file names come from outside. Paths are confined twice: by
//! [`types::ClusterPath`], which cannot be absolute or contain `..`, and by the kernel
//! (`openat2`), which follows no symlink beneath the roots that the target itself has.
//!
//! 1. Refuse: a server that runs, a manifest that [`manifest::validate`] rejects, a target that
//!    moved at all (what is kept because it is equal included) or cannot be written, a source that moved more than it may, cannot be read, or
//!    has no restart point late enough for where replay on the target begins (the planned address
//!    may lead to another server by now).
//! 2. Seal: plan, control file and journal are begun in the state directory `.pg_unfork`, then the control
//!    file is replaced by [`format::ControlFile::sealed`], which no server starts on in any mode.
//! 3. WAL that replay needs; directories and links; blocks, tails and whole files; truncations;
//!    removals. Every change goes through `apply::units` and the trait
//!    [`cluster::TargetStore`]. A whole file is written in the state directory of its file
//!    system and renamed over the old one, so that other names of the old one keep their content
//!    (pg_rewind writes through all); relation files are patched in place.
//!    What is replaced, overwritten or removed is kept first, what was copied is journaled after it is durable.
//!    That goes on in batches of 64 MiB: while one is made durable, the next is copied (between directories by as
//!    many threads as there are cores), and what the one after that will overwrite is kept.
//! 4. Finish: the source's end, its WAL up to there, recovery configuration, `backup_label`,
//!    everything made durable; the real control file last.
//!
//! `verify` goes through the plan again: [`apply::verify`] knows what each action must have left, from the plan for a
//! source at rest and from the journal for a live one, reads what the journal has checksums of, and judges the copied
//! pages of relations as a server would. What the last steps have written over is known by rule. What has none
//! from the copying, the WAL that a live source wrote meanwhile, is read record by record.
//!
//! # A live source that goes away
//!
//! A call to a source server ends in bounded time: with an answer, because the server is silent for half of
//! `--source-timeout`, or because of a signal. A lost connection is made anew, with pauses that double, until
//! nothing has gone on for that timeout; what will not pass (a refusal, an SQL error) is final at once. Each piece of
//! a file is read by a call of its own in any case, so a copy goes on at the piece where it was cut, and what the
//! sink sees is the same. A listing begins again. The new session must lead to the same cluster
//! on the same timeline, or the plan is at a dead end, and no less far than any session before, which is waited for.
//!
//! # Reading from a live source
//!
//! A fetch is cut into reads of up to 256 KiB; blocks of one file that are not more than three blocks apart are one
//! read, and what is between them is dropped. Queries of up to 1 MiB of reads (2 MiB where the round trip is 2 ms or
//! longer) are given out to sessions, a few under way in each. Threads receive the answers while the caller's thread
//! writes, in the order of the requests. At most 12 MiB (24 MiB on a long line) are asked for and not yet delivered, by
//! all sessions together; an answer that was asked for can always be received, so no session waits for another.
//!
//! A connection may name several servers. They are tried as libpq tries them: in order or shuffled, each at all its
//! addresses, with TLS and without as `sslmode` asks; what a server asks for is looked at on the wire (`require_auth`). Whoever
//! refuses the client has the last word; who cannot be reached, is starting, or is not what `target_session_attrs` asks
//! for, has not. A test compares all that with psql. [`io::tls`] has what TLS is made of, and where it is narrower than libpq's.
//!
//! The first session is the one that counts. The others are made when a fetch is large, pass the same checks, go to the
//! address at which the first one has found a server, and must
//! lead to that server, by the time at which it was started: otherwise pages could be
//! newer than the end of recovery that the first session reports. What they were asked for and did not answer
//! is asked for again. One that fails three times is done without.
//!
//! # Stopping, going on, going back
//!
//! Programs that are run for a plan end with it: they have a process group of their own, which gets a signal, too, and
//! SIGKILL three seconds later.
//!
//! SIGHUP, SIGINT and SIGTERM end an apply or an undo as an error would (what has come is made durable and
//! journaled, as far as that takes three seconds), a second one at once; a plan they just end,
//! or, where programs are run for it, as an error would: then a second one kills these at once, and ends the plan when what
//! they had put aside is back. A closed stdout or stderr stops nothing.
//!
//! However an apply ends early, `apply` of the same plan goes on with it: phases and pieces (64 MiB) that the journal
//! has are not copied again. The source may be at another address by then, and a live one must not be behind what was
//! seen of it. A setting that somebody has rewritten meanwhile is kept aside and copied again. Another plan is
//! refused until the first is finished or taken back.
//!
//! `undo` needs no source. First it proves that everything is there that the journal says it needs; then it removes what
//! was not there, puts back what was replaced, writes the before-images, sets sizes and times, and lastly puts the control
//! file back. It can die anywhere, too: nothing kept is dropped before the end. It is possible until a server has run, or
//! `clean` has dropped what is kept.
//!
//! # In place of pg_rewind
//!
//! The drop-in is a caller of `plan` and `apply` like the commands, under one lock. [`compat`] understands its command line as
//! glibc and pg_rewind do, and has the words; what a run does depends on where the target stands: an apply that was cut is
//! gone on with, under the source that is named now; where that is a dead end, or recovery is to be configured otherwise, it is
//! undone, and so is an undo that was cut brought to its end; then, as on any other target, it plans. Where the sealed control file
//! has been replaced by the one from before, no server can have run, and undoing is safe; behind any other one it is not, and
//! the run ends. A target in archive recovery that has still its `backup_label` was rewound and never started. If the
//! source has the same WAL up to its minimum recovery point, nothing is to be done; if it has other WAL, the rewind is undone,
//! or, where nothing is kept for that, the target recovered from that label on, and planned with. A source that lags is
//! no reason for either.
//!
//! # State directory
//!
//! `.pg_unfork/` is inside the data directory. It is never copied from a source, and no action touches it. Its format
//! has a version; another one than this program's is refused.
//!
//! ```text
//! state.json          version, plan's digest, id of the apply, SHA-256 of the control file before and sealed, options
//! manifest.json       the plan, byte for byte
//! pg_control.before   the control file before the seal
//! journal             what is done, in frames; a frame is written when what it says is durable
//! history             one JSON object per line: who did what, when; outlives the rest but unarchived/
//! aside.NAME          standby.signal or recovery.signal while the target's own server recovers it
//! unarchived/         WAL that was never archived, of earlier rewinds; only `clean --force` drops it (with a linked
//!                     `pg_wal`, it is there)
//! new.N               the new content of the file of action N, on its way to its place
//! undo/               what is kept: N is a file, link or directory of action N (a hard link; N.copy where that
//!                     cannot be), extra.SHA256 (of its path) of no action, control the control file; N.rewritten a rewritten
//!                     setting
//! undo/images         what blocks and tails held before, in frames
//! ```
//!
//! `new.N` and `undo/` are in a `.pg_unfork/` of each tablespace's location and of a linked `pg_wal`, too: what is kept
//! stays in its file system. A frame is a magic, length, CRC-32C and payload. A torn last frame does not count; damage
//! before whole frames is refused, with its offset. There, `owner` names the apply, and the state names these places: the
//! next apply, or `clean`, clears those that no link leads to any more, and none that is another cluster's by then. The journal says how far the images are durable: behind that a crash
//! of the machine may have left anything.
//!
//! The state speaks of one control file. It is known by its SHA-256: as before the apply, sealed, or as the journal says
//! that the last step leaves it. Any other one means that a server has run since or that the directory is a clone, and
//! the state means nothing; if the apply was not finished, that something has tampered with it. The next apply replaces a
//! state that is finished, undone or means nothing.
//!
//! With `-N` nothing is synced: all this holds when a process is killed, and not when the machine crashes.
#![cfg_attr(not(test), deny(clippy::indexing_slicing))]

pub mod apply;
pub mod checks;
pub mod cluster;
pub mod compat;
pub mod discard;
pub mod error;
pub mod format;
pub mod interrupt;
pub mod io;
pub mod listing;
pub mod manifest;
pub mod plan;
pub mod progress;
pub mod report;
pub mod types;

//! What the integration tests stand on: real PostgreSQL servers of every supported major.
//!
//! | module | gives |
//! |---|---|
//! | [`servers`] | where the servers are, and how their programs are run |
//! | [`outcome`] | how a program ended, and what to say if that was not expected |
//! | [`scratch`] | one directory per test process, emptied whatever happens |
//! | [`cluster`] | a data directory: make, start, stop, query, duplicate |
//! | [`replication`] | standbys, catching up, promotion |
//! | [`background`] | what goes on while a test does something else |
//! | [`custom_wal`] | an extension with a resource manager of its own |
//! | [`certificates`] | certificates, keys and revocation lists for TLS |
//! | [`checks`] | what a healthy cluster must satisfy: dump, checksums, amcheck |
//! | [`pair`] | two clusters that parted: the old primary and the promoted standby |
//! | [`workload`] | what the rich pair contains |
//! | [`stock`] | PostgreSQL's own pg_rewind, the oracle |
//! | [`relay`] | a bad line between the program and a server |
//! | [`tool`] | the program under test |
//! | [`rewind`] | the same as a drop-in for pg_rewind |
//! | [`offline`] | listings of sources, and plans from them |
//! | [`likeness`] | our outcome compared with stock's, byte for byte |
//! | [`fault`] | a target on which something goes wrong at a chosen operation |
//! | [`power`] | a target on a machine whose power is cut |
//! | [`orchestrators`] | where etcd, Patroni and repmgr are |
//! | [`dropin`] | the program under pg_rewind's name, with a record of its calls |
//! | [`life`] | what a rewound cluster owes once it runs |
//! | [`wal_builder`] | WAL that no server wrote |
//! | [`tree`] | what a directory contains, and how two differ |
//! | [`wal`] | which records a cluster has written |
#![allow(dead_code, reason = "a harness offers more than the tests of one moment use")]

pub(crate) mod background;
pub(crate) mod certificates;
pub(crate) mod checks;
pub(crate) mod cluster;
pub(crate) mod custom_wal;
pub(crate) mod dropin;
pub(crate) mod fault;
pub(crate) mod life;
pub(crate) mod likeness;
pub(crate) mod offline;
pub(crate) mod orchestrators;
pub(crate) mod outcome;
pub(crate) mod pair;
pub(crate) mod power;
pub(crate) mod relay;
pub(crate) mod replication;
pub(crate) mod rewind;
pub(crate) mod scratch;
pub(crate) mod servers;
pub(crate) mod stock;
pub(crate) mod tool;
pub(crate) mod tree;
pub(crate) mod wal;
pub(crate) mod wal_builder;
pub(crate) mod workload;

mod selftest;

/// Makes one test per supported major out of each named `fn(Major)`: `name::v13` to `name::v19`.
macro_rules! for_each_major {
    ($($body:ident),+ $(,)?) => {$(
        mod $body {
            use crate::support::servers::Major;
            #[test] fn v13() { super::$body(Major(13)); }
            #[test] fn v14() { super::$body(Major(14)); }
            #[test] fn v15() { super::$body(Major(15)); }
            #[test] fn v16() { super::$body(Major(16)); }
            #[test] fn v17() { super::$body(Major(17)); }
            #[test] fn v18() { super::$body(Major(18)); }
            #[test] fn v19() { super::$body(Major(19)); }
        }
    )+};
}
pub(crate) use for_each_major;

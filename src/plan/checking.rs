//! The checks whose facts come to light while a plan is made.

use crate::checks::{
    self, ForkFacts, Limits, NeededWal, OtherWal, SourceSlots, primary_slot_name, replay_wal, source_wal_retention,
    standby_parameters,
};
use crate::cluster::{FileKind, InForce, Inventory, SettingsInForce};
use crate::format::DbState;
use crate::manifest::{Action, CommonCheckpoint, Divergence as ForkPoint, WalPlace, WalPlan, WalSegmentPlan};
use crate::types::{ClusterPath, Lsn, WalFileName};

use super::build::Planner;
use super::divergence::Divergence;
use super::settings_after::AfterApply;

impl Planner<'_> {
    /// Says where the histories part; `checkpoint` is the last one before that, where a rewind is needed.
    pub(super) fn check_divergence(
        &mut self,
        found: Divergence,
        target_end: Option<Lsn>,
        source_end: Option<Lsn>,
        checkpoint: Option<&CommonCheckpoint>,
    ) {
        let fork = (found.lsn < Lsn::MAX).then_some(ForkPoint { lsn: found.lsn, timeline: found.timeline });
        let timelines = (self.target_facts.control.timeline(), self.source_facts.control.timeline());
        let unreplayed = fork.as_ref().filter(|_| checkpoint.is_none()).and_then(|fork| self.unreplayed(fork.lsn));
        let ends = (target_end, source_end);
        let facts = ForkFacts { fork: fork.as_ref(), checkpoint, timelines, ends, unreplayed: unreplayed.as_deref() };
        self.checks.push(checks::divergence(&facts));
    }

    /// The segment in which WAL behind the fork begins, of a standby that has received some and not replayed it.
    fn unreplayed(&self, fork: Lsn) -> Option<String> {
        let scan = self.scan();
        let start = scan.format().record_start_after(fork);
        let is_standby = self.target_facts.control.state() == DbState::ShutDownInRecovery;
        let size = self.target_facts.control.geometry().wal_segment_size;
        let (name, ..) = is_standby.then(|| scan.raw_record_at(start).ok()).flatten()?;
        Some(name.text(size))
    }

    /// Whether the target will be able to follow: what it replays, from where, with which settings.
    pub(super) fn check_following(
        &mut self,
        wal: &WalPlan,
        redo: Lsn,
        source_files: &Inventory,
        target_files: &Inventory,
        actions: &[Action],
    ) {
        let after = AfterApply { target: self.target, source: self.source, target_files, source_files, actions };
        let settings = after.settings();
        self.checks.push(replay_wal(&wal.segments, self.other_wal(&settings), &wal.obtained));
        if let Some(facts) = &self.server {
            self.checks.push(source_wal_retention(facts, self.needed_wal(wal, redo)));
        }
        let limits = Limits {
            target: self.target_facts.control.settings().limits,
            source: self.source_facts.control.settings().limits,
            major: self.target_facts.control.facts().major,
        };
        self.checks.push(standby_parameters(&settings, &limits));
        let said = self.server.as_ref().and_then(|facts| facts.slots.as_deref());
        let slots = SourceSlots { said, listed: &slots_in(source_files) };
        self.checks.push(primary_slot_name(&settings, slots));
    }

    /// Where the target will get WAL from that neither side has.
    fn other_wal(&self, settings: &SettingsInForce) -> OtherWal {
        let upstream =
            if self.options.write_recovery_conf { InForce::BuiltIn } else { settings.get("primary_conninfo") };
        match (settings.get("restore_command"), upstream) {
            (InForce::Set(command), _) if !command.is_empty() => OtherWal::Archive,
            (_, InForce::Set(conninfo)) if !conninfo.is_empty() => OtherWal::Upstream,
            (InForce::Unknown, _) | (_, InForce::Unknown) => OtherWal::Unknown,
            // Whoever makes it a standby later says where from.
            _ if !self.options.write_recovery_conf => OtherWal::Unknown,
            _ => OtherWal::Nowhere,
        }
    }

    fn needed_wal(&self, wal: &WalPlan, redo: Lsn) -> NeededWal {
        let size = self.target_facts.control.geometry().wal_segment_size;
        let is_fetched = |segment: &&WalSegmentPlan| matches!(segment.place, WalPlace::Source | WalPlace::Both);
        let first = wal.segments.iter().find(is_fetched);
        let first = first.and_then(|segment| WalFileName::parse(segment.file.as_bytes(), size));
        NeededWal {
            from: first.map_or(redo, |name| name.segment.start(size)),
            end: wal.fetch.from,
            redo: self.source_facts.control.checkpoint().redo,
            size,
        }
    }
}

/// The names of the slots that a cluster has.
fn slots_in(files: &Inventory) -> Vec<String> {
    let directories = files.iter().filter(|(_, entry)| entry.kind == FileKind::Directory);
    let name = |path: ClusterPath| path.below(b"pg_replslot").map(|name| String::from_utf8_lossy(name).into_owned());
    directories.filter_map(|(path, _)| name(path)).collect()
}

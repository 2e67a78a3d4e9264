//! Two clusters that parted: the *target* is the old primary, stopped after writing on alone; the
//! *source* is its standby, promoted and written to as well.

use std::sync::OnceLock;

use super::cluster::{Cluster, InitOptions, Stop};
use super::outcome::Outcome;
use super::replication::RecoveryConfig;
use super::servers::Major;
use super::workload;

/// Something that a scenario does with a running cluster.
type Hook<'a> = Box<dyn FnOnce(&Cluster) + 'a>;

/// Writes the last records that both shall have, and says where the last one begins.
type LastRecord<'a> = Box<dyn FnOnce(&Cluster) -> String + 'a>;

/// A target and the source that it shall follow.
#[derive(Debug)]
pub(crate) struct Pair {
    /// The promoted standby.
    pub(crate) source: Cluster,
    /// The old primary, stopped.
    pub(crate) target: Cluster,
}

impl Pair {
    /// Builds the rich pair of [`workload`]; its source is running.
    pub(crate) fn build(major: Major) -> Self {
        PairBuilder::new(major)
            .before_backup(workload::before_backup)
            .before_fork(workload::before_fork)
            .on_target_after_fork(workload::on_target_after_fork)
            .on_source_after_fork(workload::on_source_after_fork)
            .build()
    }

    /// The rich pair that all tests of this process share, both sides stopped. Never start or
    /// change it: work on copies.
    pub(crate) fn shared(major: Major) -> &'static Self {
        static PAIRS: [OnceLock<Pair>; Major::ALL.len()] = [const { OnceLock::new() }; Major::ALL.len()];
        PAIRS[major.index()].get_or_init(|| {
            let pair = Self::build(major);
            pair.source.stop(Stop::Fast);
            pair
        })
    }

    /// Builds a light pair, pgbench tables and a table `rows (id, origin)` written on both sides,
    /// to which `configure` adds what a scenario is about. Its source is running.
    pub(crate) fn simple<'a>(major: Major, configure: impl FnOnce(PairBuilder<'a>) -> PairBuilder<'a>) -> Self {
        let builder = PairBuilder::new(major)
            .before_backup(pgbench_tables)
            .before_fork(|primary| insert(primary, "common"))
            .on_target_after_fork(|target| insert(target, "target"))
            .on_source_after_fork(|source| insert(source, "source"));
        configure(builder).build()
    }

    /// An independent copy of the source, which must be stopped.
    pub(crate) fn copy_source(&self) -> Cluster {
        self.source.duplicate()
    }

    /// An independent copy of the target.
    pub(crate) fn copy_target(&self) -> Cluster {
        self.target.duplicate()
    }

    /// An independent copy of both.
    pub(crate) fn copy(&self) -> Self {
        Self { source: self.copy_source(), target: self.copy_target() }
    }
}

/// How a pair comes to be. Hooks of one kind run in the order in which they were added.
pub(crate) struct PairBuilder<'a> {
    major: Major,
    init: InitOptions,
    config: String,
    target_stop: Stop,
    checkpoint_after_promotion: bool,
    before_backup: Vec<Hook<'a>>,
    before_fork: Vec<Hook<'a>>,
    last_common_record: Option<LastRecord<'a>>,
    on_target_after_fork: Vec<Hook<'a>>,
    on_source_after_fork: Vec<Hook<'a>>,
}

impl<'a> PairBuilder<'a> {
    /// A pair without content but for amcheck and the role `rewind_user`.
    pub(crate) fn new(major: Major) -> Self {
        Self {
            major,
            init: InitOptions::default(),
            config: String::new(),
            target_stop: Stop::Fast,
            checkpoint_after_promotion: true,
            before_backup: Vec::new(),
            before_fork: Vec::new(),
            last_common_record: None,
            on_target_after_fork: Vec::new(),
            on_source_after_fork: Vec::new(),
        }
    }

    /// How the primary is made.
    pub(crate) fn init(mut self, options: InitOptions) -> Self {
        self.init = options;
        self
    }

    /// Further lines for postgresql.conf of both.
    pub(crate) fn config(mut self, lines: &str) -> Self {
        self.config.push_str(lines);
        self
    }

    /// How the target is stopped; cleanly unless said otherwise.
    pub(crate) fn target_stop(mut self, mode: Stop) -> Self {
        self.target_stop = mode;
        self
    }

    /// Leaves out the checkpoint that otherwise follows the promotion.
    pub(crate) fn no_checkpoint_after_promotion(mut self) -> Self {
        self.checkpoint_after_promotion = false;
        self
    }

    /// Something to do on the primary before the standby is made.
    pub(crate) fn before_backup(mut self, hook: impl FnOnce(&Cluster) + 'a) -> Self {
        self.before_backup.push(Box::new(hook));
        self
    }

    /// Something to do on the primary while the standby follows.
    pub(crate) fn before_fork(mut self, hook: impl FnOnce(&Cluster) + 'a) -> Self {
        self.before_fork.push(Box::new(hook));
        self
    }

    /// Forks exactly at the end of a record, whatever the primary writes behind it: that which begins
    /// at the position that the hook returns.
    pub(crate) fn fork_behind(mut self, hook: impl FnOnce(&Cluster) -> String + 'a) -> Self {
        self.last_common_record = Some(Box::new(hook));
        self
    }

    /// Something to do on the old primary, after the promotion and before it is stopped.
    pub(crate) fn on_target_after_fork(mut self, hook: impl FnOnce(&Cluster) + 'a) -> Self {
        self.on_target_after_fork.push(Box::new(hook));
        self
    }

    /// Something to do on the promoted standby.
    pub(crate) fn on_source_after_fork(mut self, hook: impl FnOnce(&Cluster) + 'a) -> Self {
        self.on_source_after_fork.push(Box::new(hook));
        self
    }

    /// Builds it. The fork is in the middle of a WAL segment unless said otherwise, the source is left running.
    pub(crate) fn build(self) -> Pair {
        let target = Cluster::initdb(self.major, &self.init);
        target.append_config(&self.config);
        target.start();
        workload::prepare(&target);
        run(self.before_backup, &target);
        let source = target.basebackup_standby(RecoveryConfig::Basebackup);
        source.start();
        run(self.before_fork, &target);
        target.move_to_middle_of_segment();
        source.wait_for_catchup(&target);
        match self.last_common_record {
            None => source.promote(),
            Some(hook) => {
                source.stop(Stop::Fast);
                let lsn = hook(&target);
                source.promote_behind(&lsn, &target);
            }
        }
        if self.checkpoint_after_promotion {
            source.checkpoint();
        }
        run(self.on_target_after_fork, &target);
        run(self.on_source_after_fork, &source);
        target.stop(self.target_stop);
        Pair { source, target }
    }
}

fn run(hooks: Vec<Hook<'_>>, cluster: &Cluster) {
    for hook in hooks {
        hook(cluster);
    }
}

fn pgbench_tables(primary: &Cluster) {
    let mut command = primary.installation().command("pgbench");
    command.args(["-i", "-q", "-s", "1"]).args(primary.connection_options()).arg("postgres");
    let _ = Outcome::of(&mut command).success();
    let table = "CREATE TABLE rows (id bigserial PRIMARY KEY, origin text NOT NULL)";
    primary.sql("postgres", table);
}

fn insert(cluster: &Cluster, origin: &str) {
    cluster.sql(
        "postgres",
        &format!(
            "INSERT INTO rows (origin) SELECT '{origin}' FROM generate_series(1, 1000);
             UPDATE pgbench_accounts SET abalance = 1 WHERE aid % 100 = length('{origin}');"
        ),
    );
}

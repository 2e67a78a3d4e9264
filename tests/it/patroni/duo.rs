//! Two nodes, of which one leads: what happens to them, and what they owe afterwards.

use std::fs;

use serde_json::{Value, json};

use super::etcd;
use super::node::{Node, Setup};
use crate::support::orchestrators::eventually;
use crate::support::relay::{Fault, Relay};

/// Two nodes. The first leads in the beginning, the second is promoted when that is gone.
#[derive(Debug)]
pub(super) struct Duo {
    pub(super) old: Node,
    pub(super) new: Node,
    setup: Setup,
}

impl Duo {
    /// Starts both nodes, with a table `rows (id, origin)` that has common rows.
    pub(super) fn start(setup: Setup) -> Self {
        let new = Node::new("new", &setup);
        let known_as = new.address();
        Self::start_with(setup, new, &known_as)
    }

    /// The same, where what the new primary answers arrives by way of a relay: not more than 2 MiB on each connection until
    /// it is released. And there is a table `big` of 16 MiB, which the old primary has changed
    /// after it [parted](Self::part).
    pub(super) fn start_with_relay(setup: Setup) -> (Self, Relay) {
        let new = Node::new("new", &setup);
        let relay = Relay::new(&[(&new.server, Fault::HoldAfter(2 << 20))]);
        let duo = Self::start_with(setup, new, &relay.address());
        let big = "CREATE TABLE big AS SELECT id, repeat('x', 1000) AS filler FROM generate_series(1, 16000) id";
        duo.old.server.sql("postgres", big);
        duo.new.server.wait_for_catchup(&duo.old.server);
        duo.part();
        duo.old.server.sql("postgres", "UPDATE big SET id = -id");
        (duo, relay)
    }

    fn start_with(setup: Setup, new: Node, known_as: &str) -> Self {
        let mut duo = Self { old: Node::new("old", &setup), new, setup };
        duo.old.configure(&duo.setup, &duo.old.address());
        duo.new.configure(&duo.setup, known_as);
        duo.old.start();
        duo.wait(&duo.old, "NOT pg_is_in_recovery()");
        duo.new.start();
        duo.wait(&duo.old, "EXISTS (SELECT FROM pg_roles WHERE rolname = 'rewind_user')");
        duo.old.server.sql("template1", "CREATE EXTENSION amcheck");
        let table = "CREATE TABLE rows (id bigserial PRIMARY KEY, origin text NOT NULL)";
        duo.old.server.sql("postgres", &format!("CREATE EXTENSION amcheck; {table}"));
        duo.insert(&duo.old, "common");
        duo.wait_until_streaming(&duo.new, &duo.old);
        duo.wait(&duo.new, "count(*) = 1000 FROM rows");
        duo
    }

    /// Thousand rows.
    pub(super) fn insert(&self, node: &Node, origin: &str) {
        node.server
            .sql("postgres", &format!("INSERT INTO rows (origin) SELECT '{origin}' FROM generate_series(1, 1000)"));
    }

    /// Nothing that the old primary writes from now on reaches the new one. Then it writes.
    pub(super) fn part(&self) {
        let rules = self.old.settings_directory(&self.setup).join("pg_hba.conf");
        let others = fs::read_to_string(&rules).expect("rules");
        fs::write(&rules, format!("host replication all all reject\nlocal replication all reject\n{others}"))
            .expect("rules");
        self.old.server.sql("postgres", "SELECT pg_reload_conf()");
        self.wait(
            &self.old,
            "count(pg_terminate_backend(pid)) = 0 FROM pg_stat_activity WHERE backend_type = 'walsender'",
        );
        self.insert(&self.old, "old");
    }

    /// The old primary's node is gone. If `at_once`, the time in which Patroni hopes for it is made short.
    pub(super) fn fail_over(&mut self, at_once: bool) {
        self.old.kill();
        if at_once {
            etcd::remove(&format!("/service/{}/leader", self.setup.scope));
        }
        self.wait(&self.new, "NOT pg_is_in_recovery()");
        self.insert(&self.new, "new");
    }

    /// Waits until the old primary follows the new one, and looks at everything that it owes then.
    pub(super) fn assert_healthy(&self) {
        self.wait_until_streaming(&self.old, &self.new);
        let origins = "SELECT origin, count(*) FROM rows GROUP BY 1 ORDER BY 1";
        assert_eq!(self.new.server.sql("postgres", origins), "common\t1000\nnew\t1000", "{}", self.story());
        let wanted = json!([["new", "Leader", "running", 2], ["old", "Replica", "streaming", 2]]);
        let seen = std::cell::RefCell::default();
        eventually(
            || format!("{wanted}, not {}\n{}", seen.borrow(), self.story()),
            || {
                *seen.borrow_mut() = members(&self.new.list());
                (*seen.borrow() == wanted).then_some(())
            },
        );
        self.insert(&self.new, "later");
        self.old.server.wait_for_catchup(&self.new.server);
        assert!(self.old.server.dump_all() == self.new.server.dump_all(), "the dumps differ");
        self.old.server.assert_amcheck();
    }

    /// Waits for what a node's server says, which need not even run until then.
    #[track_caller]
    pub(super) fn wait(&self, node: &Node, condition: &str) {
        let query = format!("SELECT {condition}");
        eventually(
            || format!("{condition} on {}\n{}", node.name(), self.story()),
            || {
                let outcome = node.server.psql("postgres", &query, &[]);
                (outcome.status.success() && outcome.stdout.trim() == "t").then_some(())
            },
        );
    }

    /// Waits for words in a node's log.
    #[track_caller]
    pub(super) fn wait_for_words(&self, node: &Node, words: &str) {
        eventually(
            || format!("{words:?} of {}\n{}", node.name(), self.story()),
            || node.log().contains(words).then_some(()),
        );
    }

    fn wait_until_streaming(&self, standby: &Node, primary: &Node) {
        let name = standby.name();
        let streams = "count(*) = 1 FROM pg_stat_replication WHERE state = 'streaming' AND application_name =";
        self.wait(primary, &format!("{streams} '{name}'"));
    }

    /// What both nodes have said.
    pub(super) fn story(&self) -> String {
        [&self.old, &self.new].map(|node| format!("=== {}\n{}", node.name(), node.log())).concat()
    }
}

fn members(list: &[Value]) -> Value {
    let fields = ["Member", "Role", "State", "TL"];
    list.iter().map(|member| fields.map(|field| member[field].clone())).collect::<Vec<_>>().into()
}

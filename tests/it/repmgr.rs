//! repmgr calls the program with `node rejoin --force-rewind=PATH`: what was the primary comes back and streams.

use std::fs;
use std::path::{Path, PathBuf};

use crate::support::cluster::{Cluster, InitOptions, Stop};
use crate::support::dropin::DropIn;
use crate::support::orchestrators::{kill_all_below, root};
use crate::support::outcome::Outcome;
use crate::support::scratch;
use crate::support::servers::{Installation, Major};

/// A node: a server with a file of settings that must stay its own.
struct Node {
    name: &'static str,
    server: Cluster,
}

impl Node {
    /// What repmgr reads.
    fn configuration(&self) -> PathBuf {
        self.server.base().join("repmgr.conf")
    }

    /// Where its server is.
    fn conninfo(&self) -> String {
        format!("{} connect_timeout=2", self.server.conninfo("repmgr", "repmgr"))
    }

    /// Writes what repmgr reads. It starts the server without the options that the tests start it with.
    fn configure(&self, id: u8) {
        let (bin, data) = (self.server.installation().bin(""), self.server.data());
        let (bin, data) = (bin.display(), data.display());
        let text = format!(
            "node_id={id}
node_name={name}
conninfo='{conninfo}'
data_directory='{data}'
pg_bindir='{bin}'
service_start_command='{bin}/pg_ctl -w -D {data} -l {log} start'
",
            name = self.name,
            conninfo = self.conninfo(),
            log = self.server.base().join("log").display(),
        );
        fs::write(self.configuration(), text).expect("repmgr's configuration");
    }

    /// Writes the settings that its server needs when repmgr starts it.
    fn write_own_settings(&self) {
        let (port, sockets) = (self.server.port(), scratch::sockets());
        let text = format!("port = {port}\nunix_socket_directories = '{}'\nlisten_addresses = ''\n", sockets.display());
        fs::write(self.server.path("own.conf"), text).expect("settings");
    }

    /// Runs repmgr here.
    fn repmgr(&self, arguments: &[&str]) -> Outcome {
        let installation = self.server.installation();
        let mut command = installation.command("repmgr");
        let path = std::env::var("PATH").unwrap_or_default();
        command.env("PATH", format!("{}:{path}", installation.bin("").display()));
        command.current_dir(self.server.base()).arg("-f").arg(self.configuration()).args(arguments);
        Outcome::of(&mut command)
    }

    fn insert(&self) {
        let query = format!("INSERT INTO rows (origin) SELECT '{}' FROM generate_series(1, 1000)", self.name);
        self.server.sql("repmgr", &query);
    }

    fn origins(&self) -> String {
        self.server.sql("repmgr", "SELECT string_agg(DISTINCT origin, ' ' ORDER BY origin) FROM rows")
    }

    /// Stopped while its upstream writes on, it is promoted when that is gone.
    fn promote_without(&self, upstream: &Self, end: impl FnOnce(&Cluster)) {
        self.server.wait_for_catchup(&upstream.server);
        self.server.stop(Stop::Fast);
        upstream.insert();
        end(&upstream.server);
        self.server.start();
        let _ = self.repmgr(&["standby", "promote"]).success();
        self.insert();
    }

    /// Comes back as a standby of `primary`, by way of `pg_rewind`.
    fn rejoin(&self, primary: &Self, pg_rewind: &Path) -> Outcome {
        let pg_rewind = format!("--force-rewind={}", pg_rewind.display());
        let archive = format!("--config-archive-dir={}", self.server.base().display());
        let conninfo = primary.conninfo();
        let arguments = ["node", "rejoin", "-d", &conninfo, &pg_rewind, "--config-files=own.conf", &archive];
        self.repmgr(&arguments).success()
    }

    /// Everything that the server has, which names both nodes' directories.
    fn dump(&self, other: &Self) -> String {
        let directories = [self, other].map(|node| node.server.base().display().to_string());
        directories.iter().fold(self.server.dump_all(), |dump, directory| dump.replace(directory, "{base}"))
    }

    fn assert_follows(&self, primary: &Self, origins: &str) {
        let name = self.name;
        let streams = "count(*) = 1 FROM pg_stat_replication WHERE state = 'streaming' AND application_name =";
        primary.server.wait_for("repmgr", &format!("{streams} '{name}'"));
        self.server.wait_for_catchup(&primary.server);
        assert_eq!(self.origins(), origins);
        assert_eq!(primary.origins(), origins);
        assert!(self.dump(primary) == primary.dump(self), "the dumps differ");
        self.server.assert_amcheck();
        let shown = primary.repmgr(&["cluster", "show", "--csv"]).success();
        let mut lines: Vec<_> = shown.stdout.lines().collect();
        lines.sort_unstable();
        // Number, whether it can be reached, whether it is a standby.
        let wanted = if name == "first" { ["1,0,1", "2,0,0"] } else { ["1,0,0", "2,0,1"] };
        assert_eq!(lines, wanted, "{shown}");
    }
}

/// Two nodes that repmgr knows, the first of which leads.
fn nodes() -> (Node, Node) {
    let installation = Installation::at(Major(15), root().join("postgres/15"));
    let first = Node { name: "first", server: Cluster::initdb_with(installation.clone(), &InitOptions::default()) };
    first.server.append_config("shared_preload_libraries = 'repmgr'\ninclude 'own.conf'\n");
    first.write_own_settings();
    first.configure(1);
    first.server.start();
    first.server.sql("template1", "CREATE EXTENSION amcheck");
    first.server.sql("postgres", "CREATE EXTENSION amcheck; CREATE ROLE repmgr SUPERUSER LOGIN");
    first.server.sql("postgres", "CREATE DATABASE repmgr OWNER repmgr");
    first.server.sql("repmgr", "CREATE TABLE rows (id bigserial PRIMARY KEY, origin text NOT NULL)");
    let _ = first.repmgr(&["primary", "register"]).success();
    let second = Node { name: "second", server: Cluster::vacant(installation) };
    second.configure(2);
    let conninfo = first.conninfo();
    let _ = second.repmgr(&["standby", "clone", "--fast-checkpoint", "-d", &conninfo]).success();
    second.write_own_settings();
    second.server.start();
    let _ = second.repmgr(&["standby", "register"]).success();
    (first, second)
}

/// First a primary that was killed, then one that was stopped in good order.
#[test]
fn nodes_rejoin() {
    let dropin = DropIn::new();
    let (first, second) = nodes();
    second.promote_without(&first, |server| kill_all_below(server.base()));
    let rejoined = first.rejoin(&second, &dropin.wrapper());
    assert!(rejoined.stderr.contains("NODE REJOIN successful"), "{rejoined}");
    first.assert_follows(&second, "second");
    let [call] = &*dropin.calls() else { panic!("{:?}", dropin.calls()) };
    assert_eq!((call.status, call.stdout), (Some(0), Some(0)), "{call:?}");
    assert_eq!(call.arguments[0], "-D");
    assert!(call.arguments[2].starts_with("--source-server=") && call.arguments.len() == 3, "{call:?}");

    first.promote_without(&second, |server| server.stop(Stop::Fast));
    let _ = second.rejoin(&first, &dropin.link());
    second.assert_follows(&first, "first second");
}

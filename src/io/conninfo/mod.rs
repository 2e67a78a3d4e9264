//! libpq's conventions for naming a server: connection strings, URIs, `PG*` variables, defaults and
//! the password file.
//!
//! The `postgres` crate has a parser of its own whose rules differ (units, keywords, no environment,
//! no password file), so its configuration is built by setters only. Every keyword of libpq has a
//! row in [`KEYWORDS`]; what nothing here acts on is refused by name rather than passed over.
//!
//! Not read: service files and `~/.postgresql`. `PGDATESTYLE`, `PGTZ` and `PGGEQO` are passed over,
//! they do not change what a connection is. The standby that reads `primary_conninfo` uses libpq.

mod environment;
mod error;
mod keyvalue;
mod keywords;
mod passfile;
mod secret;
mod settings;
mod uri;
mod values;

#[cfg(test)]
mod tests;

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use postgres::config::{ChannelBinding, TargetSessionAttrs};

pub use environment::Environment;
pub use error::{ConnInfoError, Setting};
pub use keywords::{Handling, KEYWORDS, Keyword};
pub use passfile::PassfileWarning;
pub use secret::Secret;
pub use values::{Host, Keepalives, SslMode};

use settings::Settings;

/// A connection to one server, everything resolved but the host name.
///
/// Holds the password, which neither `Debug` nor any text made from this shows.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConnInfo {
    /// Host name or socket directory; `None` if only an address was given.
    pub host: Option<Host>,
    /// Address to connect to instead of resolving `host`.
    pub hostaddr: Option<IpAddr>,
    /// TCP port, or the number in the socket's name.
    pub port: u16,
    /// Name of the role.
    pub user: String,
    /// Name of the database, by default that of the role.
    pub dbname: String,
    /// Password from the string, `PGPASSWORD` or the password file.
    pub password: Option<Secret>,
    /// The password file, if the password came from it (worth a word when it is refused).
    pub password_file: Option<PathBuf>,
    /// Why the password file was ignored, if it was. libpq goes on without; the user should know.
    pub warning: Option<PassfileWarning>,
    /// Time for each connection attempt, in whole seconds; `None` is without limit.
    pub connect_timeout: Option<Duration>,
    /// Name shown in the server's views; `None` sends none.
    pub application_name: Option<String>,
    /// Command-line options for the server's session (`-c name=value ...`).
    pub options: Option<String>,
    /// TCP keepalives.
    pub keepalives: Keepalives,
    /// How long sent data may stay unacknowledged; `None` is the system's default.
    pub tcp_user_timeout: Option<Duration>,
    /// How much TLS was asked for. None is attempted.
    pub ssl_mode: SslMode,
    /// Binding of authentication to TLS; without TLS there is none.
    pub channel_binding: ChannelBinding,
    /// What the session must be able to do.
    pub target_session_attrs: TargetSessionAttrs,
    /// Keywords set in the string or by variables, without secrets, in libpq's order.
    given: Vec<(&'static str, String)>,
}

impl ConnInfo {
    /// Reads a keyword/value string or a URI and completes it from the environment as libpq does:
    /// string, then `PG*` variables, then built-in defaults, then the password file.
    ///
    /// As in libpq an empty `host`, `port`, `user` or `dbname` means the default and hides the
    /// variable. Unlike libpq an empty number is the default as well, everywhere.
    ///
    /// # Errors
    ///
    /// A string that cannot be parsed, or a setting that is wrong or not supported yet. A password
    /// file that cannot be used is a `warning` only.
    pub fn resolve(text: &str, environment: &Environment) -> Result<Self, ConnInfoError> {
        if let Some(at) = text.find('\0') {
            return Err(ConnInfoError::Nul { at: at + 1 });
        }
        let mut settings = match uri::body(text) {
            Some(body) => uri::parse(text, body)?,
            None => keyvalue::parse(text)?,
        };
        settings.fill_from(environment)?;
        settings.refuse_unsupported()?;
        let mut conninfo = Self::from_settings(&settings, environment)?;
        if conninfo.password.is_none() {
            conninfo.look_in_passfile(settings.non_empty("passfile").map(|given| given.text), environment);
        }
        Ok(conninfo)
    }

    fn from_settings(settings: &Settings, environment: &Environment) -> Result<Self, ConnInfoError> {
        values::check_gss_mode(settings)?;
        let text = |name| settings.non_empty(name).map(|given| given.text.to_owned());
        let user = text("user").map_or_else(|| environment.user(), Ok)?;
        // An application name that is given and empty hides the fallback, as in libpq.
        let fallback = settings.get("application_name").map_or("fallback_application_name", |_| "application_name");
        Ok(Self {
            host: values::host(settings, environment.socket_dir())?,
            hostaddr: values::host_address(settings)?,
            port: values::port(settings)?,
            dbname: text("dbname").unwrap_or_else(|| user.clone()),
            user,
            password: text("password").map(Secret::new),
            password_file: None,
            warning: None,
            connect_timeout: values::seconds(settings, "connect_timeout")?,
            application_name: text(fallback),
            options: text("options"),
            keepalives: values::keepalives(settings)?,
            tcp_user_timeout: values::milliseconds(settings, "tcp_user_timeout")?,
            ssl_mode: values::ssl_mode(settings)?,
            channel_binding: values::channel_binding(settings)?,
            target_session_attrs: values::session_attrs(settings)?,
            given: worth_keeping(settings),
        })
    }

    /// Takes the password from the password file, by default `~/.pgpass`.
    fn look_in_passfile(&mut self, given: Option<&str>, environment: &Environment) {
        let default = || environment.home().map(|home| home.join(".pgpass"));
        let Some(path) = given.map(PathBuf::from).or_else(default) else { return };
        let port = self.port.to_string();
        let address = self.hostaddr.map(|address| address.to_string()).unwrap_or_default();
        let host = match &self.host {
            Some(Host::Socket(dir)) if dir.as_os_str() == environment.socket_dir().as_os_str() => "localhost",
            Some(host) => host.as_text(),
            None => &address,
        };
        let wanted = passfile::Wanted { host, port: &port, dbname: &self.dbname, user: &self.user };
        match passfile::look_up(&path, wanted) {
            Ok(None) => {}
            Ok(password) => (self.password, self.password_file) = (password, Some(path)),
            Err(warning) => self.warning = Some(warning),
        }
    }

    /// The client's configuration. TLS is off, because none is attempted.
    #[must_use]
    pub fn config(&self) -> tokio_postgres::Config {
        let mut config = tokio_postgres::Config::new();
        config.ssl_mode(postgres::config::SslMode::Disable);
        match &self.host {
            Some(Host::Tcp(name)) => config.host(name),
            Some(Host::Socket(dir)) => config.host_path(dir),
            None => &mut config,
        };
        self.hostaddr.map(|address| config.hostaddr(address));
        config.port(self.port).user(&self.user).dbname(&self.dbname);
        self.password.as_ref().map(|password| config.password(password.expose()));
        self.application_name.as_ref().map(|name| config.application_name(name));
        self.options.as_ref().map(|options| config.options(options));
        self.connect_timeout.map(|timeout| config.connect_timeout(timeout));
        self.tcp_user_timeout.map(|timeout| config.tcp_user_timeout(timeout));
        config.keepalives(self.keepalives.enabled);
        self.keepalives.idle.map(|idle| config.keepalives_idle(idle));
        self.keepalives.interval.map(|interval| config.keepalives_interval(interval));
        self.keepalives.count.map(|count| config.keepalives_retries(count));
        config.channel_binding(self.channel_binding).target_session_attrs(self.target_session_attrs);
        config
    }

    /// The connection in keyword/value form without any secret, for the plan and for messages.
    ///
    /// Has what was set in the string or by variables, and host, port, user and database in any
    /// case, so that it names the same server in another environment. Reading it back gives the
    /// same connection but for the password.
    #[must_use]
    pub fn redacted(&self) -> String {
        self.write(|_| true, true)
    }

    /// The value of `primary_conninfo` for a standby of this server.
    ///
    /// Has what was set in the string or by variables, and host, port and user in any case, in
    /// libpq's order and with PostgreSQL's quoting; no password and no default of libpq. The
    /// database is there if `with_dbname` and only if it was set (PostgreSQL 17 and later can use
    /// it for logical slots). Left out is what a standby sets by itself. File names stay as given.
    #[must_use]
    pub fn primary_conninfo(&self, with_dbname: bool) -> String {
        self.write(|name| name != "fallback_application_name" && (with_dbname || name != "dbname"), false)
    }

    /// The password as a setting to append to [`ConnInfo::primary_conninfo`]; none where the string and the variables
    /// have none. What a password file has, a standby reads from there itself. As pg_rewind's `-R` does.
    #[must_use]
    pub fn password_setting(&self) -> Option<String> {
        let password = self.password.as_ref().filter(|_| self.password_file.is_none())?;
        Some(keyvalue::write(std::iter::once(("password", password.expose()))))
    }

    /// Writes the given settings that `keep` wants, and those every reader needs.
    fn write(&self, keep: impl Fn(&str) -> bool, always_dbname: bool) -> String {
        let port = self.port.to_string();
        let resolved = |name: &str| match name {
            "host" => self.host.as_ref().map(Host::as_text),
            "port" => Some(port.as_str()),
            "user" => Some(self.user.as_str()),
            "dbname" if always_dbname => Some(self.dbname.as_str()),
            _ => None,
        };
        let given = |name: &str| self.given.iter().find(|(given, _)| *given == name).map(|(_, value)| value.as_str());
        keyvalue::write(KEYWORDS.iter().filter_map(|keyword| {
            let value = resolved(keyword.name).or_else(|| given(keyword.name).filter(|_| keep(keyword.name)))?;
            Some((keyword.name, value))
        }))
    }
}

/// What may be written down again: no secret, nothing empty, nothing that newer or older versions
/// of libpq do not know or that means the same when left out.
fn worth_keeping(settings: &Settings) -> Vec<(&'static str, String)> {
    settings
        .iter()
        .filter(|(keyword, given)| {
            matches!(keyword.handling, Handling::Understood | Handling::Ignored)
                && !keyword.is_secret()
                && !given.text.is_empty()
        })
        .map(|(keyword, given)| (keyword.name, given.text.to_owned()))
        .collect()
}

//! libpq's conventions for naming a server: connection strings, URIs, services, `PG*` variables, defaults and
//! the password file.
//!
//! The `postgres` crate has a parser of its own whose rules differ (units, keywords, no environment,
//! no password file), so its configuration is built by setters only. Every keyword of libpq has a
//! row in [`KEYWORDS`]; what nothing here acts on is refused by name rather than passed over.
//!
//! `PGDATESTYLE`, `PGTZ` and `PGGEQO` are passed over: they do not change what a connection is. The standby that reads `primary_conninfo` uses libpq.

mod environment;
mod error;
mod hosts;
mod keyvalue;
mod keywords;
mod passfile;
mod required_auth;
mod secret;
mod service;
mod settings;
mod tls;
mod uri;
mod values;

#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::time::Duration;

use postgres::config::ChannelBinding;

pub use environment::{Environment, user_name};
pub use error::{ConnInfoError, Setting};
pub use hosts::{Endpoint, Host};
pub use keywords::{Handling, KEYWORDS, Keyword};
pub use passfile::PassfileWarning;
pub use required_auth::{AuthMethod, RequiredAuth};
pub use secret::Secret;
pub use values::{Keepalives, SslMode, TargetSession};

use settings::Settings;

use crate::io::tls::TlsSettings;

/// A connection to one of several servers, everything resolved but the host names.
///
/// Holds passwords, which neither `Debug` nor any text made from this shows.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConnInfo {
    /// The servers, in the order in which they are tried: at least one.
    pub endpoints: Vec<Endpoint>,
    /// Whether they are tried in random order instead, and the addresses of each.
    pub is_shuffled: bool,
    /// Name of the role.
    pub user: String,
    /// Name of the database, by default that of the role.
    pub dbname: String,
    /// Password from the string or `PGPASSWORD`: that of every server.
    pub password: Option<Secret>,
    /// The password file, if a server's password came from it (worth a word when it is refused).
    pub password_file: Option<PathBuf>,
    /// Why the password file was ignored, if it was. libpq goes on without; the user should know.
    pub warning: Option<PassfileWarning>,
    /// Time for each address, in whole seconds, of which libpq before 17 takes at least two; `None` is without limit.
    pub connect_timeout: Option<Duration>,
    /// Name shown in the server's views; `None` sends none.
    pub application_name: Option<String>,
    /// Command-line options for the server's session (`-c name=value ...`).
    pub options: Option<String>,
    /// TCP keepalives.
    pub keepalives: Keepalives,
    /// How long sent data may stay unacknowledged; `None` is the system's default.
    pub tcp_user_timeout: Option<Duration>,
    /// How much TLS is wanted.
    pub ssl_mode: SslMode,
    /// How TLS is made, where it is.
    pub tls: TlsSettings,
    /// Binding of authentication to TLS; without TLS there is none.
    pub channel_binding: ChannelBinding,
    /// What the session must be able to do, or the server be.
    pub target_session: TargetSession,
    /// How the client may prove who it is (`require_auth`); `None` is any way.
    pub required_auth: Option<RequiredAuth>,
    /// The operating system's user that must have the server's Unix socket open (`requirepeer`).
    pub required_peer: Option<String>,
    /// Keywords set in the string or by variables, without secrets, in libpq's order.
    given: Vec<(&'static str, String)>,
}

impl ConnInfo {
    /// Reads a keyword/value string or a URI and completes it from the environment as libpq does:
    /// string, then the service, then `PG*` variables, then built-in defaults, then the password file.
    ///
    /// As in libpq an empty `host`, `port`, `user` or `dbname` means the default and hides the
    /// variable. Unlike libpq an empty number is the default as well, everywhere.
    ///
    /// # Errors
    ///
    /// A string or a service that cannot be read, or a setting that is wrong or not supported. A password
    /// file that cannot be used is a `warning` only.
    pub fn resolve(text: &str, environment: &Environment) -> Result<Self, ConnInfoError> {
        if let Some(at) = text.find('\0') {
            return Err(ConnInfoError::Nul { at: at + 1 });
        }
        let mut settings = match uri::body(text) {
            Some(body) => uri::parse(text, body)?,
            None => keyvalue::parse(text)?,
        };
        service::fill_from(&mut settings, environment)?;
        settings.fill_from(environment)?;
        settings.refuse_unsupported()?;
        let mut conninfo = Self::from_settings(&settings, environment)?;
        match &conninfo.password {
            Some(password) => {
                conninfo.endpoints.iter_mut().for_each(|endpoint| endpoint.password = Some(password.clone()))
            }
            None => conninfo.look_in_passfile(settings.non_empty("passfile").map(|given| given.text), environment),
        }
        Ok(conninfo)
    }

    fn from_settings(settings: &Settings, environment: &Environment) -> Result<Self, ConnInfoError> {
        values::check_gss_mode(settings)?;
        let ssl_mode = tls::mode(settings)?;
        values::check_protocols(settings)?;
        values::check_replication(settings)?;
        let text = |name| settings.non_empty(name).map(|given| given.text.to_owned());
        let user = text("user").map_or_else(|| environment.user(), Ok)?;
        // An application name that is given and empty hides the fallback, as in libpq.
        let fallback = settings.get("application_name").map_or("fallback_application_name", |_| "application_name");
        Ok(Self {
            endpoints: hosts::endpoints(settings, environment.socket_dir())?,
            is_shuffled: values::is_shuffled(settings)?,
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
            ssl_mode,
            tls: tls::settings(settings, environment, ssl_mode)?,
            channel_binding: values::channel_binding(settings)?,
            target_session: values::target_session(settings)?,
            required_auth: required_auth::required_auth(settings)?,
            required_peer: text("requirepeer"),
            given: worth_keeping(settings),
        })
    }

    /// Takes each server's password from the password file, by default `~/.pgpass`.
    fn look_in_passfile(&mut self, given: Option<&str>, environment: &Environment) {
        let default = || environment.home().map(|home| home.join(".pgpass"));
        let Some(path) = given.map(PathBuf::from).or_else(default) else { return };
        for endpoint in &mut self.endpoints {
            let (name, port) = (endpoint.name(), endpoint.port.to_string());
            let is_default = name.as_bytes() == environment.socket_dir().as_os_str().as_encoded_bytes();
            let host = if is_default { "localhost" } else { &name };
            let wanted = passfile::Wanted { host, port: &port, dbname: &self.dbname, user: &self.user };
            match passfile::look_up(&path, wanted) {
                Ok(None) => {}
                Ok(password) => (endpoint.password, self.password_file) = (password, Some(path.clone())),
                Err(warning) => self.warning = Some(warning),
            }
        }
    }

    /// The same connection to this server alone: to one that has been reached.
    #[must_use]
    pub fn only_to(&self, endpoint: Endpoint) -> Self {
        let target_session = match self.target_session {
            // It was taken for want of a standby, or is one.
            TargetSession::PreferStandby => TargetSession::Any,
            other => other,
        };
        Self { endpoints: vec![endpoint], target_session, ..self.clone() }
    }

    /// The client's configuration for one of the servers: what is said on a connection that is made. How that comes
    /// about, TLS included, is no part of it.
    #[must_use]
    pub fn config(&self, endpoint: &Endpoint) -> tokio_postgres::Config {
        let mut config = tokio_postgres::Config::new();
        config.user(&self.user).dbname(&self.dbname);
        endpoint.password.as_ref().map(|password| config.password(password.expose()));
        self.application_name.as_ref().map(|name| config.application_name(name));
        self.options.as_ref().map(|options| config.options(options));
        config.channel_binding(self.channel_binding);
        config
    }

    /// The connection in keyword/value form without any secret, for the plan and for messages.
    ///
    /// Has what was set in the string or by variables, and hosts, ports, user and database in any
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
    /// it for logical slots). Left out is what a standby sets by itself. File names stay as given. What came from a
    /// service is written out: the standby may not know the service.
    #[must_use]
    pub fn primary_conninfo(&self, with_dbname: bool) -> String {
        self.write(|name| name != "fallback_application_name" && (with_dbname || name != "dbname"), false)
    }

    /// The password, and that of the client's key, as settings to append to [`ConnInfo::primary_conninfo`]; none where
    /// the string and the variables have neither. What a password file has, a standby reads from there itself. As
    /// pg_rewind's `-R` does.
    #[must_use]
    pub fn password_setting(&self) -> Option<String> {
        let password = self.password.as_ref().filter(|_| self.password_file.is_none());
        let given = [("password", password), ("sslpassword", self.tls.client.password.as_ref())];
        let given = given.into_iter().filter_map(|(name, secret)| Some((name, secret?.expose())));
        Some(keyvalue::write(given)).filter(|settings| !settings.is_empty())
    }

    /// Writes the given settings that `keep` wants, and those every reader needs.
    fn write(&self, keep: impl Fn(&str) -> bool, always_dbname: bool) -> String {
        let (hosts, ports) = (self.hosts(), self.ports());
        let resolved = |name: &str| match name {
            "host" => hosts.as_deref(),
            "port" => Some(ports.as_str()),
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

    /// The hosts as libpq has them; none where there are addresses only.
    fn hosts(&self) -> Option<String> {
        let names = self.endpoints.iter().map(|endpoint| endpoint.host.as_ref().map_or("", Host::as_text));
        let is_known = self.endpoints.iter().any(|endpoint| endpoint.host.is_some());
        is_known.then(|| names.collect::<Vec<_>>().join(","))
    }

    /// The ports as libpq has them: one where all are the same.
    fn ports(&self) -> String {
        let mut ports: Vec<String> = self.endpoints.iter().map(|endpoint| endpoint.port.to_string()).collect();
        if ports.iter().all(|port| Some(port) == ports.first()) {
            ports.truncate(1);
        }
        ports.join(",")
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
                && !keyword.neutral.contains(&given.text)
        })
        .map(|(keyword, given)| (keyword.name, given.text.to_owned()))
        .collect()
}

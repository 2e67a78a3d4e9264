//! The servers that a connection may lead to: lists of hosts, addresses and ports, item by item.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use super::error::ConnInfoError;
use super::secret::Secret;
use super::settings::{Given, Settings};
use super::values::integer;

/// The port where neither string nor environment names one.
const DEFAULT_PORT: u16 = 5432;

/// Where a server is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Host {
    /// A host name or IP address to resolve and reach by TCP.
    Tcp(String),
    /// The directory of the server's Unix socket; with an `@` in front, a name outside of the file system.
    Socket(PathBuf),
}

impl Host {
    /// The host as libpq spells it.
    #[must_use]
    pub fn as_text(&self) -> &str {
        match self {
            Self::Tcp(name) => name,
            // Made from text or from the constants of `Environment`.
            Self::Socket(path) => path.to_str().unwrap_or_default(),
        }
    }

    fn of(text: &str) -> Self {
        if text.starts_with(['/', '@']) { Self::Socket(PathBuf::from(text)) } else { Self::Tcp(text.to_owned()) }
    }
}

/// One server of the list.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Endpoint {
    /// Host name or socket directory; `None` if only an address was given.
    pub host: Option<Host>,
    /// Address to connect to instead of resolving `host`.
    pub hostaddr: Option<IpAddr>,
    /// TCP port, or the number in the socket's name.
    pub port: u16,
    /// The password for this server, wherever it came from.
    pub password: Option<Secret>,
}

impl Endpoint {
    /// A server at this host and port, without a password.
    #[must_use]
    pub fn new(host: Host, port: u16) -> Self {
        Self { host: Some(host), hostaddr: None, port, password: None }
    }

    /// The server's name as people know it: its host, else its address.
    #[must_use]
    pub fn name(&self) -> String {
        let address = || self.hostaddr.map(|address| address.to_string()).unwrap_or_default();
        self.host.as_ref().map_or_else(address, |host| host.as_text().to_owned())
    }
}

/// `host`, `hostaddr` and `port`, item by item: at least one server, without passwords.
///
/// An item that is empty means the default, and a single port is that of all servers, as in libpq. Unlike libpq, which
/// finds a bad port or address when it comes to it, all are looked at here.
pub(super) fn endpoints(settings: &Settings, socket_dir: &Path) -> Result<Vec<Endpoint>, ConnInfoError> {
    let hosts = settings.non_empty("host");
    let addresses = settings.non_empty("hostaddr");
    let count = addresses.or(hosts).map_or(1, |given| given.text.split(',').count());
    let hosts = items(hosts, count)?;
    let addresses = items(addresses, count)?;
    let ports = match settings.non_empty("port") {
        Some(given) if !given.text.contains(',') => vec![Some(given); count],
        ports => items(ports, count)?,
    };
    let parts = hosts.into_iter().zip(addresses).zip(ports);
    parts.map(|((host, address), port)| endpoint(host, address, port, socket_dir)).collect()
}

/// As many items as there are servers; none where they are empty.
fn items(given: Option<Given<'_>>, count: usize) -> Result<Vec<Option<Given<'_>>>, ConnInfoError> {
    let Some(given) = given else { return Ok(vec![None; count]) };
    let found = given.text.split(',').count();
    if found != count {
        return Err(ConnInfoError::Count { setting: given.setting, found, servers: count });
    }
    let item = |text| Given { text, setting: given.setting };
    Ok(given.text.split(',').map(|text| Some(item(text)).filter(|item| !item.text.is_empty())).collect())
}

fn endpoint(
    host: Option<Given<'_>>,
    address: Option<Given<'_>>,
    port: Option<Given<'_>>,
    socket_dir: &Path,
) -> Result<Endpoint, ConnInfoError> {
    let host = match (host, address) {
        (Some(host), _) => Some(Host::of(host.text)),
        (None, None) => Some(Host::Socket(socket_dir.to_owned())),
        (None, Some(_)) => None,
    };
    let hostaddr =
        address.map(|given| given.text.parse().map_err(|_| given.invalid("an IPv4 or IPv6 address"))).transpose()?;
    let port = port.map_or(Ok(DEFAULT_PORT), |given| {
        let number = u16::try_from(integer(given.text)).ok().filter(|port| *port != 0);
        number.ok_or_else(|| given.invalid("a port number from 1 to 65535"))
    })?;
    Ok(Endpoint { host, hostaddr, port, password: None })
}

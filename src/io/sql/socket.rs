//! Where a host can be reached, and the sockets that lead there.

use std::ffi::OsStr;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::net::sockopt;
use tokio::net::{TcpSocket, UnixStream, lookup_host};

use super::wire::Transport;
use crate::io::conninfo::{ConnInfo, Endpoint, Host, user_name};

/// One place where a host can be reached.
#[derive(Debug)]
pub(super) enum Spot {
    /// An address and port.
    Tcp(SocketAddr),
    /// The name of a Unix socket.
    Unix(PathBuf),
}

/// Where a host can be reached, in the system's order.
pub(super) async fn lookup(endpoint: &Endpoint) -> io::Result<Vec<Spot>> {
    match (endpoint.hostaddr, &endpoint.host) {
        (Some(address), _) => Ok(vec![Spot::Tcp((address, endpoint.port).into())]),
        (None, Some(Host::Socket(directory))) => Ok(vec![Spot::Unix(socket_path(directory, endpoint.port))]),
        (None, Some(Host::Tcp(name))) => {
            let found = lookup_host((name.as_str(), endpoint.port)).await?;
            Ok(found.map(Spot::Tcp).collect())
        }
        (None, None) => Err(io::Error::from(io::ErrorKind::NotFound)),
    }
}

/// The name of a server's socket. In memory, outside of the file system, it begins with a NUL byte.
fn socket_path(directory: &Path, port: u16) -> PathBuf {
    let path = directory.join(format!(".s.PGSQL.{port}"));
    match path.as_os_str().as_bytes() {
        [b'@', name @ ..] => PathBuf::from(OsStr::from_bytes(&[b"\0", name].concat())),
        _ => path,
    }
}

/// Opens a socket, and waits until it is connected.
pub(super) async fn open(conninfo: &ConnInfo, spot: &Spot) -> io::Result<Transport> {
    match spot {
        Spot::Unix(path) => Ok(Transport::Unix(UnixStream::connect(path).await?)),
        Spot::Tcp(address) => {
            let socket = match address.ip() {
                IpAddr::V4(_) => TcpSocket::new_v4()?,
                IpAddr::V6(_) => TcpSocket::new_v6()?,
            };
            configure(&socket, conninfo)?;
            Ok(Transport::Tcp(socket.connect(*address).await?))
        }
    }
}

/// The number of the operating system's user who has the other end of a Unix socket open, if it is not the one that
/// should have it.
pub(super) fn foreign_peer(transport: &Transport, conninfo: &ConnInfo) -> io::Result<Option<u32>> {
    let (Transport::Unix(stream), Some(wanted)) = (transport, &conninfo.required_peer) else { return Ok(None) };
    let uid = sockopt::socket_peercred(stream)?.uid.as_raw();
    Ok(Some(uid).filter(|uid| user_name(*uid).as_ref() != Some(wanted)))
}

/// Sets how long a dead line goes unnoticed, before the connection is made: that counts, too.
fn configure(socket: &TcpSocket, conninfo: &ConnInfo) -> io::Result<()> {
    sockopt::set_tcp_nodelay(socket, true)?;
    let keepalives = &conninfo.keepalives;
    if keepalives.enabled {
        sockopt::set_socket_keepalive(socket, true)?;
        keepalives.idle.map_or(Ok(()), |time| sockopt::set_tcp_keepidle(socket, time))?;
        keepalives.interval.map_or(Ok(()), |time| sockopt::set_tcp_keepintvl(socket, time))?;
        keepalives.count.map_or(Ok(()), |count| sockopt::set_tcp_keepcnt(socket, count))?;
        // libpq looks at this one only where it sends keepalives, too.
        if let Some(time) = conninfo.tcp_user_timeout {
            sockopt::set_tcp_user_timeout(socket, u32::try_from(time.as_millis()).unwrap_or(u32::MAX))?;
        }
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::net::{SocketAddr as UnixAddress, UnixListener};

    use tokio::runtime::Builder;

    use super::*;
    use crate::io::conninfo::Environment;

    fn conninfo(text: &str) -> ConnInfo {
        let environment = Environment::fixed::<&str, &str>([], Some("u"), Path::new("/s"));
        ConnInfo::resolve(text, &environment).unwrap()
    }

    fn run<T>(work: impl Future<Output = T>) -> T {
        Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
    }

    #[test]
    fn a_socket_need_not_be_in_the_file_system() {
        let name = format!("pg_unfork-test-{}", std::process::id());
        let address = UnixAddress::from_abstract_name(format!("{name}/.s.PGSQL.7")).unwrap();
        let listener = UnixListener::bind_addr(&address).unwrap();
        let own = rustix::process::geteuid().as_raw();
        let peer = |text: &str| {
            let conninfo = conninfo(&format!("host=@{name} port=7 {text}"));
            run(async {
                let spots = lookup(&conninfo.endpoints[0]).await.unwrap();
                foreign_peer(&open(&conninfo, &spots[0]).await.unwrap(), &conninfo).unwrap()
            })
        };
        assert_eq!(peer("requirepeer=nobody-at-all"), Some(own));
        assert_eq!(peer(""), None);
        if let Some(user) = user_name(own) {
            assert_eq!(peer(&format!("requirepeer={user}")), None);
        }
        assert!(listener.accept().is_ok());
    }

    #[test]
    fn sockets_have_libpqs_names() {
        let bytes = |directory| socket_path(Path::new(directory), 7).into_os_string().into_encoded_bytes();
        assert_eq!(bytes("/run/pg"), b"/run/pg/.s.PGSQL.7");
        assert_eq!(bytes("@pg"), b"\0pg/.s.PGSQL.7");
    }

    #[test]
    fn sockets_are_set_as_asked_for() {
        let set = |text: &str| {
            run(async {
                let socket = TcpSocket::new_v4().unwrap();
                configure(&socket, &conninfo(text)).unwrap();
                (
                    sockopt::socket_keepalive(&socket).unwrap(),
                    sockopt::tcp_keepidle(&socket).unwrap().as_secs(),
                    sockopt::tcp_keepintvl(&socket).unwrap().as_secs(),
                    sockopt::tcp_keepcnt(&socket).unwrap(),
                    sockopt::tcp_user_timeout(&socket).unwrap(),
                )
            })
        };
        let all = "keepalives_idle=11 keepalives_interval=12 keepalives_count=13 tcp_user_timeout=5000";
        assert_eq!(set(all), (true, 11, 12, 13, 5000));
        let off = set(&format!("{all} keepalives=0"));
        assert_eq!((off.0, off.4), (false, 0));
        let default = set("");
        assert_eq!(default, set("keepalives=1 keepalives_idle=0 keepalives_count=-1 tcp_user_timeout=0"));
        assert!(default.0 && default.1 != 11);
    }
}

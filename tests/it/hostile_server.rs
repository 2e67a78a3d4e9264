//! What answers at the source's address may be anybody: it fills no memory, and keeps nobody waiting.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::thread;
use std::time::Duration;

use pg_unfork::interrupt::Interrupt;
use pg_unfork::io::conninfo::{ConnInfo, Environment};
use pg_unfork::io::{Patience, ask};

/// The client is let in.
const LET_IN: &[u8] = b"R\0\0\0\x08\0\0\0\0";
/// The server is ready.
const READY: &[u8] = b"Z\0\0\0\x05I";

/// Where something answers each connection, after the client has said who it is.
fn server(answer: impl Fn(&mut TcpStream) -> std::io::Result<()> + Send + 'static) -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let begun = stream.read(&mut [0; 1000]);
            // It ends where the client has hung up.
            let _ = begun.and_then(|_| answer(&mut stream));
        }
    });
    port
}

/// The error of those who connect to these, with what to do.
fn error(ports: &[u16], more: &str) -> String {
    let environment = Environment::fixed::<&str, &str>([], Some("postgres"), Path::new("/none"));
    let list = |one: &dyn Fn(&u16) -> String| ports.iter().map(one).collect::<Vec<_>>().join(",");
    let (hosts, ports) = (list(&|_| "127.0.0.1".to_owned()), list(&ToString::to_string));
    let text = format!("host={hosts} port={ports} sslmode=disable {more}");
    let conninfo = ConnInfo::resolve(&text, &environment).unwrap();
    let patience = Patience { timeout: Duration::from_secs(60), interrupt: Interrupt::new() };
    let error = ask(&conninfo, &patience, "SELECT 1").unwrap_err();
    format!("{error}: {}\n{}", std::error::Error::source(&error).unwrap(), error.hints().join("\n"))
}

#[test]
fn who_talks_without_end_is_not_listened_to() {
    let notice = [&b"N\0\0\x70\0"[..], &[b'x'; 0x6FFC]].concat();
    let endless = server(move |stream| {
        stream.write_all(LET_IN)?;
        loop {
            stream.write_all(&notice)?;
        }
    });
    let found = error(&[endless], "");
    assert!(found.contains("the server says more than 1048576 bytes before it is ready"), "{found}");
    let huge = server(|stream| {
        stream.write_all(&[LET_IN, b"S\x7F\xFF\xFF\xF0"].concat())?;
        loop {
            stream.write_all(&[b'x'; 1 << 16])?;
        }
    });
    let found = error(&[huge], "");
    assert!(found.contains("what answers there is no PostgreSQL server"), "{found}");
    let busy = server(|stream| stream.write_all(b"Ecould not fork new process for connection\n\0"));
    let found = error(&[busy], "");
    assert!(found.contains("the server says: could not fork new process for connection"), "{found}");
    let slow = server(|stream| {
        stream.write_all(b"R\0\0\0\x17\0\0\0\x0ASCRAM-SHA-256\0\0")?;
        let mut first = [0; 1000];
        let length = stream.read(&mut first)?;
        let first = String::from_utf8_lossy(&first[..length]);
        let nonce = first.rsplit("r=").next().unwrap();
        let challenge = format!("r={nonce}x,s=AAAA,i=100001");
        let length = u32::try_from(challenge.len() + 8).unwrap().to_be_bytes();
        stream.write_all(&[b"R", &length[..], &[0, 0, 0, 11], challenge.as_bytes()].concat())?;
        stream.read(&mut [0]).map(drop)
    });
    let found = error(&[slow], "password=s");
    assert!(found.contains("set scram_iterations on the source to less"), "{found}");
}

#[test]
fn a_server_that_does_not_say_what_it_is_is_no_reason_to_stop() {
    let broken = server(|stream| {
        stream.write_all(&[LET_IN, READY].concat())?;
        let _ = stream.read(&mut [0; 100])?;
        let fields = b"SERROR\0VERROR\0CXX000\0Mbroken\0\0";
        let length = u32::try_from(fields.len() + 4).unwrap().to_be_bytes();
        stream.write_all(&[b"E", &length[..], fields, READY].concat())?;
        stream.read(&mut [0]).map(drop)
    });
    let silent = server(|stream| {
        stream.write_all(&[LET_IN, READY].concat())?;
        let mut all = Vec::new();
        stream.read_to_end(&mut all).map(drop)
    });
    let found = error(&[broken, silent, broken], "target_session_attrs=read-write connect_timeout=2");
    assert_eq!(found.matches("broken (SQLSTATE XX000)").count(), 2, "{found}");
    assert!(found.contains("no answer for"), "{found}");
}

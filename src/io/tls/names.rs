//! Whether a certificate is made out to a host, by libpq's rules.
//!
//! Names of DNS and addresses count where the certificate has any of the kind that the host is; else its common name
//! does. That a common name may stand for an address beside names of DNS is libpq's own rule.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::error::{HandshakeError, shown};

/// A name in a certificate's subjectAltName, as it stands there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum AltName {
    /// A name of DNS.
    Dns(Vec<u8>),
    /// Four or sixteen bytes.
    Address(Vec<u8>),
}

/// The names that a certificate is made out to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Names {
    /// Those that have an extension of their own; others than DNS's and addresses are left out.
    pub(super) alternatives: Vec<AltName>,
    /// The first common name of the subject.
    pub(super) common: Option<Vec<u8>>,
}

/// Checks that a certificate with these names is made out to `host`.
///
/// # Errors
///
/// It is not, or it has a name that no honest certificate has.
pub(super) fn check(names: &Names, host: &str) -> Result<(), HandshakeError> {
    let address = address_of(host);
    let mut seen = Vec::new();
    for name in &names.alternatives {
        let (fits, text) = match name {
            AltName::Dns(name) => (is_name_of(name, host)?, String::from_utf8_lossy(name).into_owned()),
            AltName::Address(bytes) => {
                let found = address_in(bytes)?;
                (address == Some(found), found.to_string())
            }
        };
        if fits {
            return Ok(());
        }
        seen.push(text);
    }
    let decides = |name: &AltName| matches!(name, AltName::Address(_)) == address.is_some();
    if let Some(common) = names.common.as_ref().filter(|_| !names.alternatives.iter().any(decides)) {
        if is_name_of(common, host)? {
            return Ok(());
        }
        seen.push(String::from_utf8_lossy(common).into_owned());
    }
    let (host, more) = (host.to_owned(), seen.len().saturating_sub(1));
    Err(match seen.into_iter().next() {
        Some(name) => HandshakeError::OtherHost { name: shown(&name), more, host },
        None => HandshakeError::NoName { host },
    })
}

/// The address that a host is, if it is none of DNS's names. As in libpq, all spellings of C's `inet_aton` count.
pub(super) fn address_of(host: &str) -> Option<IpAddr> {
    if let Ok(address) = host.parse::<Ipv6Addr>() {
        return Some(address.into());
    }
    let parts: Vec<&str> = host.split('.').collect();
    let (last, first) = parts.split_last()?;
    if first.len() > 3 {
        return None;
    }
    let mut bits = 0_u32;
    for (part, shift) in first.iter().zip([24, 16, 8]) {
        bits |= u32::from(u8::try_from(number(part)?).ok()?) << shift;
    }
    let room = 32 - 8 * u32::try_from(first.len()).ok()?;
    let last = number(last)?;
    (u64::from(last) < 1_u64 << room).then(|| Ipv4Addr::from_bits(bits | last).into())
}

/// A number in C's notation: decimal, hexadecimal after `0x`, octal after `0`.
fn number(text: &str) -> Option<u32> {
    let (digits, radix) = match text.as_bytes() {
        [b'0', b'x' | b'X', ..] => (text.get(2..)?, 16),
        [b'0', _, ..] => (text, 8),
        _ => (text, 10),
    };
    let is_number = !digits.is_empty() && digits.chars().all(|digit| digit.is_digit(radix));
    is_number.then(|| u32::from_str_radix(digits, radix).ok()).flatten()
}

fn address_in(bytes: &[u8]) -> Result<IpAddr, HandshakeError> {
    if let Ok(bytes) = <[u8; 4]>::try_from(bytes) {
        return Ok(bytes.into());
    }
    let bytes = <[u8; 16]>::try_from(bytes);
    bytes.map(IpAddr::from).map_err(|_| HandshakeError::BadName { problem: "an IP address of invalid length" })
}

/// Whether a name of DNS in a certificate stands for the host.
fn is_name_of(name: &[u8], host: &str) -> Result<bool, HandshakeError> {
    // A reader that stops at the zero would see a name that the issuer has not seen.
    if name.contains(&0) {
        return Err(HandshakeError::BadName { problem: "it contains a zero byte" });
    }
    Ok(name.eq_ignore_ascii_case(host.as_bytes()) || is_below(name, host.as_bytes()))
}

/// Whether `*.` and the rest of the pattern stand for the host: the star for exactly its first label.
fn is_below(pattern: &[u8], host: &[u8]) -> bool {
    let Some(suffix) = pattern.strip_prefix(b"*").filter(|suffix| suffix.starts_with(b".") && suffix.len() > 1) else {
        return false;
    };
    // The pattern must not be longer than the host, so the star stands for something.
    let Some((label, rest)) = host.len().checked_sub(suffix.len()).and_then(|at| host.split_at_checked(at)) else {
        return false;
    };
    !label.is_empty() && !label.contains(&b'.') && rest.eq_ignore_ascii_case(suffix)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dns(name: &str) -> AltName {
        AltName::Dns(name.as_bytes().to_vec())
    }

    fn ip(text: &str) -> AltName {
        AltName::Address(match text.parse::<IpAddr>() {
            Ok(IpAddr::V4(address)) => address.octets().to_vec(),
            Ok(IpAddr::V6(address)) => address.octets().to_vec(),
            Err(_) => text.as_bytes().to_vec(),
        })
    }

    fn names(alternatives: &[AltName], common: &str) -> Names {
        let common = (!common.is_empty()).then(|| common.as_bytes().to_vec());
        Names { alternatives: alternatives.to_vec(), common }
    }

    #[test]
    fn certificates_are_made_out_as_libpq_reads_them() {
        let table: &[(Names, &str, bool)] = &[
            (names(&[], "db.example"), "db.example", true),
            (names(&[], "DB.Example"), "db.eXample", true),
            (names(&[], "db.example"), "db.example.org", false),
            (names(&[], "other"), "db", false),
            (names(&[], ""), "db", false),
            // A star is the first label, all of it, and never nothing.
            (names(&[], "*.example"), "db.example", true),
            (names(&[], "*.example"), "a.db.example", false),
            (names(&[], "*.example"), "example", false),
            (names(&[], "*.example"), ".example", false),
            (names(&[], "db*.example"), "db1.example", false),
            (names(&[], "*"), "db", false),
            (names(&[], "*."), "db.", false),
            (names(&[], "a.*.example"), "a.b.example", false),
            // The common name counts only where no name is of the host's kind.
            (names(&[dns("a"), dns("b")], "c"), "b", true),
            (names(&[dns("a"), dns("b")], "c"), "c", false),
            (names(&[ip("10.0.0.1")], "c"), "c", true),
            (names(&[dns("a")], "10.0.0.1"), "10.0.0.1", true),
            (names(&[ip("10.0.0.2"), dns("a")], "10.0.0.1"), "10.0.0.1", false),
            (names(&[dns("10.0.0.1")], ""), "10.0.0.1", true),
            (names(&[ip("10.0.0.1")], ""), "10.0.0.1", true),
            (names(&[ip("10.0.0.1")], ""), "10.1", true),
            (names(&[ip("10.0.0.1")], ""), "0x0a000001", true),
            (names(&[ip("8.0.0.1")], ""), "010.0.0.1", true),
            (names(&[ip("10.0.0.1")], ""), "10.0.0.01", true),
            (names(&[ip("10.0.0.1")], ""), "::ffff:10.0.0.1", false),
            (names(&[ip("::1")], ""), "0:0::1", true),
            (names(&[ip("::1")], ""), "::2", false),
        ];
        for (names, host, expected) in table {
            assert_eq!(check(names, host).is_ok(), *expected, "{host}: {names:?}");
        }
    }

    #[test]
    fn malformed_names_end_the_search() {
        for (bad, host) in [(dns("db\0.evil"), "db"), (ip("123"), "1.2.3.4")] {
            let outcome = check(&names(&[bad, dns(host)], ""), host);
            assert!(matches!(outcome, Err(HandshakeError::BadName { .. })), "{outcome:?}");
        }
        let outcome = check(&names(&[], "db\0"), "db");
        assert!(matches!(outcome, Err(HandshakeError::BadName { .. })), "{outcome:?}");
    }

    #[test]
    fn errors_name_what_was_found_and_wanted() {
        let text = |names: Names| check(&names, "db").map_or_else(|error| error.to_string(), |()| String::new());
        let table = [
            (names(&[], "x"), "server certificate for \"x\" does not match host name \"db\""),
            (names(&[dns("x"), ip("1.2.3.4")], "db"), "server certificate for \"x\" (and 1 other name) does not match"),
            (names(&[ip("1.2.3.4"), ip("::1")], "c"), "for \"1.2.3.4\" (and 2 other names) does not match"),
            (names(&[], ""), "server certificate has no name to compare with host name \"db\""),
        ];
        for (names, expected) in table {
            let text = text(names);
            assert!(text.contains(expected), "{text}");
        }
    }

    #[test]
    fn addresses_are_told_from_names() {
        for host in
            ["db", "1.2.3.4.5", "256.1.1.1", "1.2.3.256", "1.2.3.", "", ".", "0x", "08", "1.2.65536", "4294967296"]
        {
            assert_eq!(address_of(host), None, "{host}");
        }
        for host in ["1.2.3.4", "1.2.772", "1.131844", "16909060", "0x01020304", "01.02.03.04", "1.2.0x304"] {
            assert_eq!(address_of(host), Some(Ipv4Addr::new(1, 2, 3, 4).into()), "{host}");
        }
    }
}

//! libpq's password file: lines of `host:port:database:user:password`.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::secret::Secret;

/// Why a password file was left unread.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PassfileWarning {
    /// A directory, a pipe or the like.
    #[error("password file {} is not a plain file and was ignored", .0.display())]
    NotPlain(PathBuf),
    /// Others than the owner have access.
    #[error(
        "password file {} has group or world access and was ignored; permissions should be u=rw (0600) or less",
        .0.display()
    )]
    OpenToOthers(PathBuf),
    /// It exists but cannot be read.
    #[error("password file {} cannot be read and was ignored: {}", .0.display(), .1)]
    Unreadable(PathBuf, ErrorKind),
    /// The matching line's password is not text.
    #[error("the matching password in file {} is not valid UTF-8 and was ignored", .0.display())]
    NotUtf8(PathBuf),
}

/// What a line must match: the fields that identify a connection.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted<'a> {
    /// Host as given; `localhost` for the default socket directory.
    pub(super) host: &'a str,
    /// Port in decimal.
    pub(super) port: &'a str,
    /// Database name.
    pub(super) dbname: &'a str,
    /// User name.
    pub(super) user: &'a str,
}

/// Looks a password up. A file that is not there, or has no matching line, gives none, as in libpq.
///
/// # Errors
///
/// The file is there but must not or cannot be used; libpq goes on without a password.
pub(super) fn look_up(path: &Path, wanted: Wanted<'_>) -> Result<Option<Secret>, PassfileWarning> {
    let unreadable = |error: std::io::Error| match error.kind() {
        ErrorKind::NotFound | ErrorKind::NotADirectory => Ok(None),
        kind => Err(PassfileWarning::Unreadable(path.to_owned(), kind)),
    };
    let metadata = match fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(error) => return unreadable(error),
    };
    if !metadata.is_file() {
        return Err(PassfileWarning::NotPlain(path.to_owned()));
    }
    if metadata.permissions().mode() & 0o077 != 0 {
        return Err(PassfileWarning::OpenToOthers(path.to_owned()));
    }
    let contents = match fs::read(path) {
        Ok(contents) => contents,
        Err(error) => return unreadable(error),
    };
    match password_in(&contents, wanted).map(String::from_utf8) {
        None => Ok(None),
        Some(Ok(password)) if password.is_empty() => Ok(None),
        Some(Ok(password)) => Ok(Some(Secret::new(password))),
        Some(Err(_)) => Err(PassfileWarning::NotUtf8(path.to_owned())),
    }
}

/// The password of the first line that matches.
fn password_in(contents: &[u8], wanted: Wanted<'_>) -> Option<Vec<u8>> {
    contents.split(|byte| *byte == b'\n').find_map(|line| {
        let mut line = line;
        while let Some(shorter) = line.strip_suffix(b"\r") {
            line = shorter;
        }
        if line.starts_with(b"#") {
            return None;
        }
        for field in [wanted.host, wanted.port, wanted.dbname, wanted.user] {
            line = match_field(line, field)?;
        }
        Some(unescape(line))
    })
}

/// What follows the field if it is `*` or, backslashes undone, the wanted text. A colon in the
/// wanted text (an IPv6 address) need not have a backslash, as in libpq.
fn match_field<'a>(line: &'a [u8], wanted: &str) -> Option<&'a [u8]> {
    if let Some(rest) = line.strip_prefix(b"*:") {
        return Some(rest);
    }
    let mut rest = line;
    for byte in wanted.bytes() {
        rest = match rest {
            [b'\\', next, after @ ..] if *next == byte => after,
            [b'\\', ..] => return None,
            [next, after @ ..] if *next == byte => after,
            _ => return None,
        };
    }
    rest.strip_prefix(b":")
}

/// The password up to a colon or the end, backslashes undone.
fn unescape(line: &[u8]) -> Vec<u8> {
    let mut password = Vec::new();
    let mut rest = line;
    loop {
        rest = match rest {
            [] | [b':', ..] => return password,
            [b'\\', byte, after @ ..] | [byte, after @ ..] => {
                password.push(*byte);
                after
            }
        };
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const WANTED: Wanted<'_> = Wanted { host: "h", port: "5432", dbname: "d:b", user: r"u\v" };

    #[test]
    fn finds_the_first_matching_line() {
        let table: &[(&[u8], Option<&[u8]>)] = &[
            (b"", None),
            (b"h:5432:d\\:b:u\\\\v:pw", Some(b"pw")),
            (b"*:*:*:*:pw\r\n", Some(b"pw")),
            (b"*:*:*:*:first\n*:*:*:*:second\n", Some(b"first")),
            (b"#*:*:*:*:no\n\nx:*:*:*:no\n*:5432:*:*:yes", Some(b"yes")),
            (b" *:*:*:*:no", None),
            (b" #\n*:*:*:*:yes", Some(b"yes")),
            (b"*:*:*:*:a\\:b\\\\c\\d:rest", Some(b"a:b\\cd")),
            (b"*:*:*:*:a\\", Some(b"a\\")),
            (b"*:*:*:*:", Some(b"")),
            (b"*:*:*:*", None),
            (b"h:5432:d:b:u\\\\v:pw", Some(b"pw")),
            (b"h:5432:*:u\\v:pw", None),
            (b"hh:*:*:*:no\n:*:*:*:no\n\\h:*:*:*:yes", Some(b"yes")),
            (b"*x:*:*:*:no\nh*:*:*:*:no", None),
            (b"*:*:*:*:\xff", Some(b"\xff")),
        ];
        for (contents, expected) in table {
            let found = password_in(contents, WANTED);
            assert_eq!(found.as_deref(), *expected, "{:?}", String::from_utf8_lossy(contents));
        }
    }

    #[test]
    fn uses_a_private_plain_file_only() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pgpass");
        assert_eq!(look_up(&path, WANTED), Ok(None));
        assert_eq!(look_up(&path.join("below"), WANTED), Ok(None));
        fs::write(&path, "*:*:*:*:s3cret\n").unwrap();
        let chmod = |mode| fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        for mode in [0o640, 0o604, 0o610] {
            chmod(mode);
            let warning = look_up(&path, WANTED).unwrap_err();
            assert_eq!(warning, PassfileWarning::OpenToOthers(path.clone()));
            assert!(warning.to_string().contains("pgpass has group or world access"));
        }
        for mode in [0o600, 0o700] {
            chmod(mode);
            assert_eq!(look_up(&path, WANTED), Ok(Some(Secret::new("s3cret".to_owned()))));
        }
        fs::write(&path, b"*:*:*:*:\xff\n").unwrap();
        assert_eq!(look_up(&path, WANTED), Err(PassfileWarning::NotUtf8(path.clone())));
        fs::write(&path, b"*:*:*:*:\n").unwrap();
        assert_eq!(look_up(&path, WANTED), Ok(None));
        assert_eq!(look_up(dir.path(), WANTED), Err(PassfileWarning::NotPlain(dir.path().to_owned())));
    }
}

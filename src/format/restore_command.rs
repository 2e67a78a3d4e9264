//! `restore_command`: what stands for the segment in it.

use super::Major;

/// Why a `restore_command` cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RestoreCommandError {
    /// `%r` is known in recovery alone.
    #[error("restore_command has %r, the last restart point, which only recovery has")]
    RestartPoint,
    /// Majors from 16 on do not take what they do not know.
    #[error("restore_command has the unknown placeholder %{0}")]
    Unknown(char),
    /// Nor a percent sign with nothing behind it.
    #[error("restore_command ends in a single %")]
    Unfinished,
}

/// The command that is run for a segment, as pg_rewind of this major makes it: `%f` is the segment's file name, `%p` the
/// path where it must go, `%%` a percent sign.
///
/// # Errors
/// `%r`, for any major; for 16 and later other placeholders, which those before leave as they are.
pub fn expand_restore_command(
    command: &[u8],
    file: &[u8],
    path: &[u8],
    major: Major,
) -> Result<Vec<u8>, RestoreCommandError> {
    let is_strict = major >= Major::V16;
    let mut expanded = Vec::with_capacity(command.len() + file.len() + path.len());
    let mut rest = command.iter().copied().peekable();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            expanded.push(byte);
            continue;
        }
        match rest.peek().copied() {
            Some(b'%') => expanded.push(b'%'),
            Some(b'f') => expanded.extend(file),
            Some(b'p') => expanded.extend(path),
            Some(b'r') => return Err(RestoreCommandError::RestartPoint),
            Some(other) if is_strict => return Err(RestoreCommandError::Unknown(char::from(other))),
            None if is_strict => return Err(RestoreCommandError::Unfinished),
            _ => {
                expanded.push(b'%');
                continue;
            }
        }
        rest.next();
    }
    Ok(expanded)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn placeholders_by_major() {
        use RestoreCommandError::{RestartPoint, Unfinished, Unknown};
        type Case<'a> = (&'a str, Result<&'a str, RestoreCommandError>, Result<&'a str, RestoreCommandError>);
        let cases: [Case<'_>; 9] = [
            ("cp /a/%f %p", Ok("cp /a/SEG /d/pg_wal/SEG"), Ok("cp /a/SEG /d/pg_wal/SEG")),
            ("", Ok(""), Ok("")),
            ("date +%%s %f%f", Ok("date +%s SEGSEG"), Ok("date +%s SEGSEG")),
            ("%%f", Ok("%f"), Ok("%f")),
            ("x %r", Err(RestartPoint), Err(RestartPoint)),
            ("x %d %f", Ok("x %d SEG"), Err(Unknown('d'))),
            ("x %", Ok("x %"), Err(Unfinished)),
            ("x %%%", Ok("x %%"), Err(Unfinished)),
            ("x %d%%", Ok("x %d%"), Err(Unknown('d'))),
        ];
        for (command, before, since) in cases {
            for (major, expected) in
                [(Major::V13, &before), (Major::V15, &before), (Major::V16, &since), (Major::V19, &since)]
            {
                let found = expand_restore_command(command.as_bytes(), b"SEG", b"/d/pg_wal/SEG", major);
                let found = found.map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
                assert_eq!(found.as_deref(), expected.as_deref(), "{command} {major:?}");
            }
        }
    }
}

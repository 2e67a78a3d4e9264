//! The recovery configuration that `-R` asks for. A password never is in the plan: the apply has it from its own
//! connection.

use super::seal::write_file;
use crate::cluster::{Durability, Source, TargetStore};
use crate::error::{Context, Error, Result};
use crate::manifest::RecoveryPlan;
use crate::types::ClusterPath;

/// Appends a line to `postgresql.auto.conf`, which overrides those before it, and makes `standby.signal`. What is there
/// already is written again: who wrote it may not have lived to make it durable.
pub(super) fn write_recovery(
    store: &mut dyn TargetStore,
    plan: &RecoveryPlan,
    source: &dyn Source,
    durability: Durability,
) -> Result<()> {
    let path = |name: &str| ClusterPath::new(name.as_bytes()).context(|| "no such name".to_owned());
    let line = line(plan, password(plan, source)?.as_deref());
    let settings = path("postgresql.auto.conf")?;
    let mut text = store.read_small(&settings)?.unwrap_or_default();
    if text.last().is_some_and(|&last| last != b'\n') {
        text.push(b'\n');
    }
    if !text.ends_with(line.as_bytes()) {
        text.extend_from_slice(line.as_bytes());
    }
    write_file(store, &settings, &text, durability)?;
    if plan.standby_signal { write_file(store, &path("standby.signal")?, b"", durability) } else { Ok(()) }
}

/// The setting with the password that the plan wants to be written; none where it wants none.
///
/// # Errors
/// When it wants one, and the source was connected to without, or with one that a settings file cannot hold.
pub(super) fn password(plan: &RecoveryPlan, source: &dyn Source) -> Result<Option<String>> {
    if !plan.with_password {
        return Ok(None);
    }
    let Some(setting) = source.password_setting() else {
        let message = "the plan wants the password in primary_conninfo, and none is given";
        return Err(Error::precondition(message).hint("give it in PGPASSWORD, or plan again without --with-password"));
    };
    if setting.chars().any(char::is_control) {
        let message = "the password has a control character, which primary_conninfo cannot hold";
        return Err(Error::precondition(message).hint("use a password file, and plan again without --with-password"));
    }
    Ok(Some(setting))
}

fn line(plan: &RecoveryPlan, password: Option<&str>) -> String {
    let password = password.map(|setting| format!(" {setting}")).unwrap_or_default();
    format!("{}{}'\n", beginning(plan), escaped(&password))
}

/// The line up to where a password or its end comes.
fn beginning(plan: &RecoveryPlan) -> String {
    format!("primary_conninfo = '{}", escaped(&plan.primary_conninfo))
}

/// As a settings file wants it between quotes.
fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('\'', "''")
}

/// What comes before the line that was appended; none where the text does not end with it. Which password it has is
/// nobody's business.
pub(super) fn before_line<'a>(text: &'a [u8], plan: &RecoveryPlan) -> Option<&'a [u8]> {
    if !plan.with_password {
        return text.strip_suffix(line(plan, None).as_bytes());
    }
    let body = text.strip_suffix(b"'\n")?;
    let start = body.iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1);
    let (before, last) = body.split_at_checked(start)?;
    let password = last.strip_prefix(beginning(plan).as_bytes())?;
    password.starts_with(b" password=").then_some(before)
}

/// The line as far as it may be shown.
pub(super) fn shown_line(plan: &RecoveryPlan) -> String {
    line(plan, plan.with_password.then_some("password=***"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn plan(with_password: bool) -> RecoveryPlan {
        RecoveryPlan { primary_conninfo: r"host='a\'b'".to_owned(), standby_signal: true, with_password }
    }

    #[test]
    fn a_line_is_quoted_twice_and_found_again() {
        let plain = "primary_conninfo = 'host=''a\\\\''b'''\n";
        assert_eq!(line(&plan(false), None), plain);
        let secret = line(&plan(true), Some(r"password='x\'y z'"));
        assert_eq!(secret, "primary_conninfo = 'host=''a\\\\''b'' password=''x\\\\''y z'''\n");
        for (plan, line) in [(plan(false), plain), (plan(true), &secret)] {
            for before in ["", "a = 1\n", "a = 1\n\n"] {
                let text = format!("{before}{line}");
                assert_eq!(before_line(text.as_bytes(), &plan), Some(before.as_bytes()), "{text}");
            }
            assert_eq!(before_line(format!("{line}b = 1\n").as_bytes(), &plan), None);
        }
        assert_eq!(before_line(plain.as_bytes(), &plan(true)), None);
        assert_eq!(before_line(secret.as_bytes(), &plan(false)), None);
        assert!(shown_line(&plan(true)).ends_with(" password=***'\n"));
    }
}

//! The settings of TLS, from words to what is asked for.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use super::environment::Environment;
use super::error::ConnInfoError;
use super::secret::Secret;
use super::settings::Settings;
use super::values::{self, SslMode, Word, word};
use crate::io::tls::{CertMode, ClientFiles, Roots, TlsSettings, Verify, Version};

/// Stands for the certificates that the system trusts, in the place of a file's name.
const SYSTEM: &str = "system";

const NEGOTIATIONS: &[Word<bool>] = &[("postgres", Ok(false)), ("direct", Ok(true))];

const CERT_MODES: &[Word<CertMode>] =
    &[("disable", Ok(CertMode::Disable)), ("allow", Ok(CertMode::Allow)), ("require", Ok(CertMode::Require))];

const VERSIONS: [(&str, Version); 4] =
    [("TLSv1", Version::Tls10), ("TLSv1.1", Version::Tls11), ("TLSv1.2", Version::Tls12), ("TLSv1.3", Version::Tls13)];

/// `sslmode`, whose default is stronger where the system's certificates are trusted.
///
/// # Errors
///
/// The mode is none, or weaker than what another setting is safe with.
pub(super) fn mode(settings: &Settings) -> Result<SslMode, ConnInfoError> {
    let roots = settings.get("sslrootcert").filter(|given| given.text == SYSTEM);
    if roots.is_some() && settings.get("sslmode").is_none() {
        return Ok(SslMode::VerifyFull);
    }
    let mode = values::ssl_mode(settings)?;
    let needs = |setting, value, needed| ConnInfoError::NeedsMode { setting, value, needed };
    if let Some(roots) = roots.filter(|_| mode != SslMode::VerifyFull) {
        return Err(needs(roots.setting, SYSTEM, "verify-full"));
    }
    if let Some(direct) =
        settings.get("sslnegotiation").filter(|_| mode < SslMode::Require && is_direct(settings) == Ok(true))
    {
        return Err(needs(direct.setting, "direct", "require, verify-ca or verify-full"));
    }
    Ok(mode)
}

/// All settings of TLS but `sslmode`, which is known. Where TLS is never tried, they are looked at as well, as in libpq.
///
/// # Errors
///
/// A word is none of those that a setting can have.
pub(super) fn settings(
    settings: &Settings,
    environment: &Environment,
    mode: SslMode,
) -> Result<TlsSettings, ConnInfoError> {
    let default = |name: &str| environment.home().map(|home| home.join(".postgresql").join(name));
    let file =
        |keyword, name| settings.non_empty(keyword).map(|given| PathBuf::from(given.text)).or_else(|| default(name));
    let has_revoked_directory = settings.non_empty("sslcrldir").is_some();
    let revoked_is_default = settings.non_empty("sslcrl").is_none();
    // The default is given up by giving nothing.
    let default_oldest = settings.get("ssl_min_protocol_version").is_none().then_some(Version::Tls12);
    let oldest = version(settings, "ssl_min_protocol_version")?.or(default_oldest);
    let newest = version(settings, "ssl_max_protocol_version")?;
    if let (Some(oldest), Some(newest), Some(given)) = (oldest, newest, settings.get("ssl_max_protocol_version"))
        && newest < oldest
    {
        return Err(given.invalid("a version that is not before ssl_min_protocol_version"));
    }
    Ok(TlsSettings {
        verify: match mode {
            SslMode::VerifyFull => Verify::Host,
            SslMode::VerifyCa => Verify::Chain,
            SslMode::Disable | SslMode::Allow | SslMode::Prefer | SslMode::Require => Verify::IfRoots,
        },
        roots: roots(settings, environment, file("sslrootcert", "root.crt")),
        // The default list counts only where neither a list nor a directory is named.
        revoked: file("sslcrl", "root.crl").filter(|_| !(has_revoked_directory && revoked_is_default)),
        has_revoked_directory,
        client: ClientFiles {
            mode: cert_mode(settings)?,
            certificate: file("sslcert", "postgresql.crt"),
            key: file("sslkey", "postgresql.key"),
            key_is_named: settings.non_empty("sslkey").is_some(),
            password: settings.non_empty("sslpassword").map(|given| Secret::new(given.text.to_owned())),
        },
        is_direct: is_direct(settings)?,
        sends_name: settings.get("sslsni").is_none_or(|given| given.text.starts_with('1')),
        oldest,
        newest,
        logs_keys: settings.non_empty("sslkeylogfile").is_some(),
    })
}

fn roots(settings: &Settings, environment: &Environment, file: Option<PathBuf>) -> Roots {
    if settings.get("sslrootcert").is_some_and(|given| given.text == SYSTEM) {
        let (file, directories) = environment.trusted();
        return Roots::of_system(file.map(Path::new), directories.map(OsStr::new));
    }
    file.map_or(Roots::None, Roots::File)
}

fn is_direct(settings: &Settings) -> Result<bool, ConnInfoError> {
    Ok(word(settings.get("sslnegotiation"), NEGOTIATIONS, "postgres or direct")?.unwrap_or(false))
}

fn cert_mode(settings: &Settings) -> Result<CertMode, ConnInfoError> {
    Ok(word(settings.get("sslcertmode"), CERT_MODES, "disable, allow or require")?.unwrap_or(CertMode::Allow))
}

/// A version of TLS, in whatever case; none where it does not matter.
fn version(settings: &Settings, keyword: &str) -> Result<Option<Version>, ConnInfoError> {
    let Some(given) = settings.non_empty(keyword) else { return Ok(None) };
    let known = VERSIONS.iter().find(|(name, _)| name.eq_ignore_ascii_case(given.text));
    known.map(|(_, version)| Some(*version)).ok_or_else(|| given.invalid("TLSv1, TLSv1.1, TLSv1.2 or TLSv1.3"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use super::*;
    use crate::io::conninfo::ConnInfo;

    type Variables<'a> = &'a [(&'a str, &'a str)];

    fn resolve(text: &str, variables: Variables<'_>) -> Result<ConnInfo, ConnInfoError> {
        let environment = Environment::fixed(variables.iter().copied(), Some("os"), Path::new("/sock"));
        ConnInfo::resolve(text, &environment)
    }

    fn good(text: &str, variables: Variables<'_>) -> TlsSettings {
        resolve(text, variables).unwrap_or_else(|error| panic!("{text}: {error}")).tls
    }

    #[test]
    fn defaults_are_in_the_home_directory() {
        let home: Variables<'_> = &[("HOME", "/home/u")];
        let settings = good("", home);
        let path = |name: &str| Some(PathBuf::from("/home/u/.postgresql").join(name));
        let expected = TlsSettings {
            verify: Verify::IfRoots,
            roots: Roots::File(path("root.crt").unwrap()),
            revoked: path("root.crl"),
            has_revoked_directory: false,
            client: ClientFiles {
                mode: CertMode::Allow,
                certificate: path("postgresql.crt"),
                key: path("postgresql.key"),
                key_is_named: false,
                password: None,
            },
            is_direct: false,
            sends_name: true,
            oldest: Some(Version::Tls12),
            newest: None,
            logs_keys: false,
        };
        assert_eq!(settings, expected);
        assert_eq!(good("sslrootcert='' sslcert='' sslkey='' sslcrl='' sslcrldir=''", home), expected);
        let homeless = good("", &[]);
        assert_eq!((homeless.roots, homeless.revoked, homeless.client.key), (Roots::None, None, None));
    }

    #[test]
    fn strings_and_variables_say_the_same() {
        let table = [
            ("sslrootcert=/r", "PGSSLROOTCERT", "/r"),
            ("sslcrl=/l", "PGSSLCRL", "/l"),
            ("sslcrldir=/d", "PGSSLCRLDIR", "/d"),
            ("sslcert=/c", "PGSSLCERT", "/c"),
            ("sslkey=/k", "PGSSLKEY", "/k"),
            ("sslcertmode=require", "PGSSLCERTMODE", "require"),
            ("sslcertmode=disable", "PGSSLCERTMODE", "disable"),
            ("sslsni=0", "PGSSLSNI", "0"),
            ("sslsni=''", "PGSSLSNI", ""),
            ("ssl_min_protocol_version=tlsv1.3", "PGSSLMINPROTOCOLVERSION", "TLSv1.3"),
            ("ssl_max_protocol_version=TLSv1.2", "PGSSLMAXPROTOCOLVERSION", "TLSv1.2"),
            ("sslmode=verify-ca", "PGSSLMODE", "verify-ca"),
        ];
        let plain = good("", &[]);
        for (text, name, value) in table {
            let settings = good(text, &[]);
            assert_eq!(settings, good("", &[(name, value)]), "{text}");
            assert_ne!(settings, plain, "{text}");
        }
        // A directory of lists takes the place of the default list, and not of one that is named.
        let lists = |text| good(text, &[("HOME", "/h")]).revoked;
        assert_eq!((lists("sslcrldir=/d"), lists("sslcrldir=/d sslcrl=/l")), (None, Some("/l".into())));
        let oldest = |text| good(text, &[]).oldest;
        assert_eq!(
            (oldest("ssl_min_protocol_version=TLSv1"), oldest("ssl_min_protocol_version=''")),
            (Some(Version::Tls10), None)
        );
        assert!(good("sslkeylogfile=/f", &[]).logs_keys);
        let settings = good("sslpassword=s3cret", &[]);
        assert_eq!(settings.client.password, Some(Secret::new("s3cret".to_owned())));
        assert!(!format!("{settings:?}").contains("s3cret"));
    }

    #[test]
    fn trusting_the_system_or_no_negotiation_needs_a_strong_mode() {
        let system = resolve("sslrootcert=system", &[]).unwrap();
        assert_eq!((system.ssl_mode, system.tls.verify), (SslMode::VerifyFull, Verify::Host));
        let named: Variables<'_> = &[("SSL_CERT_FILE", "/f"), ("SSL_CERT_DIR", "/a:/b"), ("PGSSLROOTCERT", "system")];
        let expected = Roots::System { file: "/f".into(), directories: vec!["/a".into(), "/b".into()] };
        assert_eq!(good("", named).roots, expected);
        assert_eq!(good("sslrootcert=./system", named).roots, Roots::File("./system".into()));
        assert!(good("sslnegotiation=direct sslmode=require", &[]).is_direct);
        let table: &[(&str, Variables<'_>, &str)] = &[
            (
                "sslrootcert=system sslmode=verify-ca",
                &[],
                "\"sslrootcert\" has the value \"system\", which needs sslmode verify-full",
            ),
            ("sslrootcert=system", &[("PGSSLMODE", "disable")], "which needs sslmode verify-full"),
            ("sslrootcert=system", &[("PGREQUIRESSL", "1")], "which needs sslmode verify-full"),
            (
                "sslmode=prefer",
                &[("PGSSLROOTCERT", "system")],
                "environment variable PGSSLROOTCERT has the value \"system\"",
            ),
            ("sslnegotiation=direct", &[], "\"direct\", which needs sslmode require, verify-ca or verify-full"),
            ("sslnegotiation=direct sslmode=allow", &[], "which needs sslmode require"),
            ("sslnegotiation=s3cret", &[], "expected postgres or direct"),
            ("sslnegotiation=''", &[], "expected postgres or direct"),
            ("sslcertmode=s3cret", &[], "expected disable, allow or require"),
            ("ssl_min_protocol_version=SSLv3", &[], "expected TLSv1, TLSv1.1, TLSv1.2 or TLSv1.3"),
            ("ssl_max_protocol_version=TLSv1.1", &[], "expected a version that is not before ssl_min_protocol_version"),
            ("ssl_min_protocol_version=TLSv1.3 ssl_max_protocol_version=TLSv1.2 sslmode=disable", &[], "not before"),
        ];
        for (text, variables, expected) in table {
            let error = resolve(text, variables).unwrap_err();
            assert!(error.to_string().contains(expected), "{text}: {error}");
            assert!(!format!("{error}{error:?}").contains("s3cret"), "{error:?}");
        }
    }
}

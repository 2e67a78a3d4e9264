//! libpq's service files: `[name]` and lines of `keyword=value` below it, for what a string leaves out.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

use super::environment::Environment;
use super::error::ConnInfoError;
use super::keyvalue::is_space;
use super::settings::Settings;

/// libpq reads no longer line, in bytes.
const LONGEST_LINE: usize = 1022;
/// No service file is longer, in bytes.
const LONGEST_FILE: u64 = 1 << 20;
/// The user's own file, in the home directory.
const USERS_FILE: &str = ".pg_service.conf";
/// The file of all users, in the system's directory.
const SYSTEMS_FILE: &str = "pg_service.conf";
/// Where packages look for it unless `PGSYSCONFDIR` says where: Debian's, Red Hat's, and PostgreSQL's own.
const SYSTEMS_DIRECTORIES: [&str; 3] = ["/etc/postgresql-common", "/etc/sysconfig/pgsql", "/usr/local/pgsql/etc"];

/// Adds what the service says, if one is named, to what the string leaves out.
///
/// As in libpq an empty name is a name, the user's file comes first, and the system's is looked at only if the service
/// is not in that.
///
/// # Errors
///
/// The service is nowhere, or its file is missing or wrong.
pub(super) fn fill_from(settings: &mut Settings, environment: &Environment) -> Result<(), ConnInfoError> {
    let given = settings.get("service").map(|given| given.text.to_owned());
    let Some(service) = given.map_or_else(|| environment.text("PGSERVICE"), |text| Ok(Some(text)))? else {
        return Ok(());
    };
    let named = settings.get("servicefile").map(|given| given.text.to_owned());
    let named = named.map_or_else(|| environment.text("PGSERVICEFILE"), |text| Ok(Some(text)))?;
    let mut files: Vec<(PathBuf, bool)> = Vec::new();
    match named {
        Some(path) => files.push((path.into(), true)),
        None => files.extend(environment.home().map(|home| (home.join(USERS_FILE), false))),
    }
    match environment.text("PGSYSCONFDIR")? {
        Some(directory) => files.push((Path::new(&directory).join(SYSTEMS_FILE), false)),
        None => files.extend(SYSTEMS_DIRECTORIES.map(|directory| (Path::new(directory).join(SYSTEMS_FILE), false))),
    }
    for (path, must_exist) in &files {
        let Some(contents) = read(path, *must_exist)? else { continue };
        if take(&contents, &service, path, settings)? {
            return Ok(());
        }
    }
    Err(ConnInfoError::NoService { files: files.into_iter().map(|(path, _)| path).collect() })
}

/// The file's bytes; none if it is not there and need not be.
fn read(path: &Path, must_exist: bool) -> Result<Option<Vec<u8>>, ConnInfoError> {
    let unreadable = |kind| ConnInfoError::ServiceFile { path: path.to_owned(), kind };
    let mut contents = Vec::new();
    let outcome = File::open(path).and_then(|file| file.take(LONGEST_FILE + 1).read_to_end(&mut contents));
    match outcome {
        Err(error) if !must_exist && matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(None),
        Err(error) => Err(unreadable(error.kind())),
        Ok(length) if length as u64 > LONGEST_FILE => Err(unreadable(ErrorKind::FileTooLarge)),
        Ok(_) => Ok(Some(contents)),
    }
}

/// Takes the service's lines; whether it is there.
fn take(contents: &[u8], service: &str, path: &Path, settings: &mut Settings) -> Result<bool, ConnInfoError> {
    let mut is_found = false;
    for (number, line) in contents.split(|byte| *byte == b'\n').enumerate() {
        let problem = |problem| ConnInfoError::ServiceLine { path: path.to_owned(), line: number + 1, problem };
        if line.len() > LONGEST_LINE {
            return Err(problem("the line is too long"));
        }
        let line = line.trim_ascii_c();
        if line.is_empty() || line.starts_with(b"#") {
            continue;
        }
        if let Some(name) = line.strip_prefix(b"[") {
            if is_found {
                break;
            }
            is_found = name.strip_prefix(service.as_bytes()).is_some_and(|rest| rest.starts_with(b"]"));
            continue;
        }
        if !is_found {
            continue;
        }
        let line = std::str::from_utf8(line).map_err(|_| problem("the line is not valid UTF-8"))?;
        if line.starts_with("ldap") {
            return Err(problem("services are not looked up by LDAP"));
        }
        let (keyword, value) = line.split_once('=').ok_or_else(|| problem("a line has no \"=\""))?;
        match keyword {
            "service" => return Err(problem("a service cannot name another service")),
            "servicefile" => return Err(problem("a service cannot name another service file")),
            _ if settings.add(keyword, value) => {}
            // What it is instead may be the rest of a password.
            _ => return Err(problem("the keyword is none of libpq's")),
        }
    }
    Ok(is_found)
}

/// White space as C has it, off both ends.
trait TrimC {
    fn trim_ascii_c(&self) -> &[u8];
}

impl TrimC for [u8] {
    fn trim_ascii_c(&self) -> &[u8] {
        let is_space = |byte: &u8| is_space(char::from(*byte));
        let begin = self.iter().position(|byte| !is_space(byte)).unwrap_or(self.len());
        let end = self.iter().rposition(|byte| !is_space(byte)).map_or(begin, |last| last + 1);
        self.get(begin..end).unwrap_or_default()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::fs;

    use super::*;

    const FILE: &str = "host=outside\n# comment\n [ a]\nhost=wrong\n[a]x\n  host=h \r\n\nport = 5\n[b]\nport=7\nport=8\n\
        user=\n dbname=a = b\n[ab]\nhost\n[nested]\nservice=a\n[file]\nservicefile=/x\n[odd]\npass word=s3cret\n\
        [directory]\nldap://x\n[b]\nhost=second\n";

    fn taken(service: &str) -> Result<Option<Vec<(&'static str, String)>>, String> {
        let mut settings = Settings::default();
        settings.store("dbname", "own", 1).unwrap();
        let found = take(FILE.as_bytes(), service, Path::new("/f"), &mut settings);
        let pairs = || settings.iter().map(|(keyword, given)| (keyword.name, given.text.to_owned())).collect();
        found.map(|found| found.then(pairs)).map_err(|error| error.to_string())
    }

    #[test]
    fn reads_what_libpq_reads() {
        let own = || ("dbname", "own".to_owned());
        assert_eq!(taken("b"), Ok(Some(vec![("user", String::new()), own(), ("port", "7".to_owned())])));
        assert_eq!(taken(" a"), Ok(Some(vec![own(), ("host", "wrong".to_owned())])));
        assert_eq!(taken("c"), Ok(None));
        assert_eq!(taken(""), Ok(None));
        let errors = [
            ("a", "line 8 of the service file /f: the keyword"),
            ("ab", "line 15 of the service file /f: a line has no"),
            ("nested", "line 17 of the service file /f: a service cannot name another service"),
            ("file", "line 19 of the service file /f: a service cannot name another service file"),
            ("odd", "line 21 of the service file /f: the keyword"),
            ("directory", "line 23 of the service file /f: services are not looked up by LDAP"),
        ];
        for (service, text) in errors {
            let error = taken(service).unwrap_err();
            assert!(error.contains(text) && !error.contains("cret"), "{service}: {error}");
        }
        let long = format!("[a]\nhost={}\n", "x".repeat(LONGEST_LINE));
        assert!(take(long.as_bytes(), "a", Path::new("/f"), &mut Settings::default()).is_err());
    }

    #[test]
    fn files_are_looked_at_in_order() {
        let directory = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            let path = directory.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, text).unwrap();
            path.to_str().unwrap().to_owned()
        };
        file("home/.pg_service.conf", "[a]\nport=1\n[both]\nport=1\n");
        file("etc/pg_service.conf", "[b]\nport=2\n[both]\nport=2\n");
        let own = file("own", "[c]\nport=3\n");
        let root = directory.path().to_str().unwrap();
        let places = [("HOME", format!("{root}/home")), ("PGSYSCONFDIR", format!("{root}/etc"))];
        let port = |service: &str, more: &[(&str, &str)]| {
            let mut variables: Vec<(&str, &str)> = places.iter().map(|(name, value)| (*name, value.as_str())).collect();
            variables.extend(more);
            let mut settings = Settings::default();
            settings.store("service", service, 1).unwrap();
            let environment = Environment::fixed(variables, None, Path::new("/s"));
            let filled = fill_from(&mut settings, &environment).map_err(|error| error.to_string());
            filled.map(|()| settings.get("port").map(|given| given.text.to_owned()).unwrap())
        };
        for (service, expected) in [("a", "1"), ("both", "1"), ("b", "2")] {
            assert_eq!(port(service, &[]).as_deref(), Ok(expected), "{service}");
        }
        assert_eq!(port("c", &[("PGSERVICEFILE", &own)]).as_deref(), Ok("3"));
        assert_eq!(port("both", &[("PGSERVICEFILE", &own)]).as_deref(), Ok("2"));
        let missing = port("a", &[("PGSERVICEFILE", "/nowhere/x")]).unwrap_err();
        assert!(missing.contains("service file /nowhere/x cannot be read"), "{missing}");
        let nowhere = port("s3cret", &[]).unwrap_err();
        assert!(nowhere.contains("home/.pg_service.conf") && !nowhere.contains("s3cret"), "{nowhere}");
    }
}

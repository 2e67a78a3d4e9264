//! Files of certificates and keys, which are small.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::Path;

use pem::Pem;
use rustls::pki_types::CertificateDer;

use super::error::{Problem, Role, TlsError};

/// The most that is read of a file of keys or of a client's certificates: 1 MiB.
pub(super) const SMALL: u64 = 1 << 20;
/// The most that is read of trusted certificates or revocation lists: 64 MiB.
pub(super) const LARGE: u64 = 64 << 20;

/// The error of a file.
pub(super) fn bad(role: Role, path: &Path, problem: impl Into<Problem>) -> TlsError {
    TlsError::File { role, path: path.to_owned(), problem: problem.into() }
}

/// Whether a file is there, as libpq looks for those that may be missing.
///
/// # Errors
///
/// That cannot be found out.
pub(super) fn exists(role: Role, path: &Path) -> Result<bool, TlsError> {
    match std::fs::metadata(path) {
        Ok(_) => Ok(true),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(false),
        // Roots that cannot be looked at are missing ones: a home of somebody else's is in many environments.
        Err(_) if role == Role::Roots => Ok(false),
        Err(error) => Err(bad(role, path, format!("cannot be looked at: {error}"))),
    }
}

/// The contents of a file of at most `limit` bytes.
pub(super) fn read(role: Role, path: &Path, limit: u64) -> Result<Vec<u8>, TlsError> {
    let mut contents = Vec::new();
    let read = File::open(path).and_then(|file| file.take(limit + 1).read_to_end(&mut contents));
    read.map_err(|error| bad(role, path, format!("cannot be read: {error}")))?;
    if contents.len() as u64 > limit {
        return Err(bad(role, path, Problem::narrow(format!("is larger than {limit} bytes"))));
    }
    Ok(contents)
}

/// The PEM sections of a file, whatever is between them.
///
/// # Errors
///
/// What is wrong with the file.
pub(super) fn sections(contents: &[u8]) -> Result<Vec<Pem>, Problem> {
    // What the parser says of a malformed section may show some of it.
    let sections = pem::parse_many(contents).map_err(|_| Problem::narrow("has a damaged PEM section"))?;
    let begin = b"-----BEGIN ";
    if contents.windows(begin.len()).filter(|window| window == begin).count() > sections.len() {
        return Err(Problem::narrow("is cut in the middle of a PEM section"));
    }
    Ok(sections)
}

/// The certificates among sections, in their order.
///
/// # Errors
///
/// What is wrong with one of them.
pub(super) fn certificates(sections: Vec<Pem>) -> Result<Vec<CertificateDer<'static>>, Problem> {
    if sections.iter().any(|section| section.tag() == "TRUSTED CERTIFICATE") {
        let problem = "has a TRUSTED CERTIFICATE, which is not supported: write it anew with openssl x509 -in FILE";
        return Err(Problem::narrow(problem));
    }
    let is_certificate = |section: &Pem| matches!(section.tag(), "CERTIFICATE" | "X509 CERTIFICATE");
    Ok(sections.into_iter().filter(is_certificate).map(|section| section.into_contents().into()).collect())
}

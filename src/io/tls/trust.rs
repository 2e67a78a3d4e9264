//! Which certificates are trusted, and which server's certificate leads to them.
//!
//! webpki builds and checks the chain. Around it is what OpenSSL does and webpki does not: a trusted certificate may be
//! the server's own; trust begins at self-issued certificates only, which must be valid themselves and may say how long a
//! chain can be and what it is for; the server's `keyUsage` counts.

use std::path::{Path, PathBuf};

use rustls::pki_types::{CertificateDer, SignatureVerificationAlgorithm, TrustAnchor, UnixTime};
use webpki::{
    CertRevocationList, EndEntityCert, ExpirationPolicy, KeyUsage, OwnedCertRevocationList, RevocationOptionsBuilder,
    VerifiedPath,
};

use super::certificate::Certificate;
use super::error::{Problem, Role, TlsError};
use super::files::{LARGE, bad, certificates, read, sections};

/// A trusted certificate.
struct Root {
    der: CertificateDer<'static>,
    anchor: TrustAnchor<'static>,
    certificate: Certificate,
}

/// A certificate that is trusted.
#[derive(Clone, Copy, Debug)]
pub(super) struct Trusted {
    /// Whether one of those above it says for which names it may issue certificates. webpki sees to that for the names
    /// in an extension, not for the common name.
    pub(super) is_constrained: bool,
}

/// What a server's certificate is verified with.
pub(super) struct Trust {
    /// Where it came from, for people.
    origin: String,
    /// Self-issued certificates: where trust begins.
    roots: Vec<Root>,
    /// Others of the file, which may be part of a chain.
    links: Vec<CertificateDer<'static>>,
    /// What is trusted no longer. If there is anything here, it must speak of every link of a chain.
    revoked: Vec<CertRevocationList<'static>>,
}

impl Trust {
    /// The trust in a file of certificates, and in lists of those that are revoked.
    pub(super) fn of_file(path: &Path, revoked: Option<&Path>) -> Result<Self, TlsError> {
        let contents = read(Role::Roots, path, LARGE)?;
        let found = sections(&contents).map_err(|problem| bad(Role::Roots, path, problem))?;
        // OpenSSL heeds lists in this file as well, once it heeds any.
        let mut lists = found.clone();
        let found = certificates(found).map_err(|problem| bad(Role::Roots, path, problem))?;
        if found.is_empty() {
            return Err(bad(Role::Roots, path, "has no certificate"));
        }
        let mut trust = Self::empty(format!("\"{}\"", path.display()));
        for der in found {
            trust.add(der).map_err(|problem| bad(Role::Roots, path, problem))?;
        }
        if trust.roots.is_empty() {
            let problem = "has no self-signed certificate, and trust begins there: add the root's own certificate";
            return Err(bad(Role::Roots, path, problem));
        }
        let Some(path) = revoked else { return Ok(trust) };
        let contents = read(Role::Revoked, path, LARGE)?;
        let found = sections(&contents).map_err(|problem| bad(Role::Revoked, path, problem))?;
        if !found.iter().any(|section| section.tag() == "X509 CRL") {
            return Err(bad(Role::Revoked, path, "has no X509 CRL"));
        }
        lists.extend(found);
        for list in lists.iter().filter(|section| section.tag() == "X509 CRL") {
            let list = OwnedCertRevocationList::from_der(list.contents()).map_err(|error| {
                bad(Role::Revoked, path, format!("has a list of a kind that is not supported: {}", of_list(&error)))
            })?;
            trust.revoked.push(list.into());
        }
        Ok(trust)
    }

    /// The trust that the system has, in a file and in directories of files with hashed names, as OpenSSL looks for
    /// it. Certificates that make no sense are passed over.
    pub(super) fn of_system(file: &Path, directories: &[PathBuf]) -> Result<Self, TlsError> {
        let mut trust = Self::empty("the system's trusted certificates".to_owned());
        let hashed = directories.iter().filter_map(|directory| std::fs::read_dir(directory).ok()).flatten();
        let hashed = hashed.filter_map(|entry| entry.ok().map(|entry| entry.path())).filter(|path| is_hashed(path));
        for path in std::iter::once(file.to_owned()).chain(hashed) {
            let Ok(contents) = read(Role::Roots, &path, LARGE) else { continue };
            for der in sections(&contents).and_then(certificates).unwrap_or_default() {
                let is_known = trust.roots.iter().any(|root| root.der == der);
                if !is_known {
                    let _ = trust.add(der);
                }
            }
        }
        if trust.roots.is_empty() {
            let directories = directories.iter().map(|path| path.display().to_string());
            let places = std::iter::once(file.display().to_string()).chain(directories).collect::<Vec<_>>();
            return Err(TlsError::NoSystemRoots { places: places.join(", ") });
        }
        Ok(trust)
    }

    fn empty(origin: String) -> Self {
        Self { origin, roots: Vec::new(), links: Vec::new(), revoked: Vec::new() }
    }

    fn add(&mut self, der: CertificateDer<'static>) -> Result<(), Problem> {
        let certificate = Certificate::parse(&der)
            .map_err(|error| Problem::narrow(format!("has a malformed certificate: {error}")))?;
        if !certificate.is_self_issued() {
            self.links.push(der);
            return Ok(());
        }
        let anchor = webpki::anchor_from_trusted_cert(&der).map(|anchor| anchor.to_owned());
        let anchor = anchor.map_err(|error| {
            let subject = certificate.subject();
            Problem::narrow(format!("has a certificate of a kind that is not supported, {subject}: {error}"))
        })?;
        self.roots.push(Root { der, anchor, certificate });
        Ok(())
    }

    /// Checks that a server's certificate is trusted at a time, with the others that the server has sent.
    ///
    /// # Errors
    ///
    /// Why it is not, and what to do.
    pub(super) fn check(
        &self,
        der: &CertificateDer<'_>,
        certificate: &Certificate,
        sent: &[CertificateDer<'_>],
        now: UnixTime,
        algorithms: &[&dyn SignatureVerificationAlgorithm],
    ) -> Result<Trusted, Problem> {
        let trusted = if self.roots.iter().any(|root| root.der == *der) {
            self.check_itself(certificate, now)?
        } else {
            self.check_chain(der, certificate, sent, now, algorithms)?
        };
        match certificate.misuse() {
            Ok(None) => Ok(trusted),
            Ok(Some(problem)) => Err(problem.into()),
            Err(error) => Err(Problem::narrow(format!("it is malformed: {error}"))),
        }
    }

    /// A certificate that is trusted itself.
    fn check_itself(&self, certificate: &Certificate, now: UnixTime) -> Result<Trusted, Problem> {
        if !self.revoked.is_empty() {
            let problem = "it is self-signed, and no revocation list can speak of it: leave out sslcrl";
            return Err(Problem::narrow(problem));
        }
        certificate.invalidity(now).map_or(Ok(Trusted { is_constrained: false }), |why| Err(why.into()))
    }

    fn check_chain(
        &self,
        der: &CertificateDer<'_>,
        certificate: &Certificate,
        sent: &[CertificateDer<'_>],
        now: UnixTime,
        algorithms: &[&dyn SignatureVerificationAlgorithm],
    ) -> Result<Trusted, Problem> {
        if certificate.is_old() {
            return Err(Problem::narrow(
                "it is of X.509 version 1, which is not supported: make it anew with extensions, for example with \
                 openssl x509 -req -extfile, and a subjectAltName for the server's host name",
            ));
        }
        let (valid, stale): (Vec<_>, Vec<_>) =
            self.roots.iter().partition(|root| root.certificate.invalidity(now).is_none());
        let valid: Vec<_> = valid.into_iter().filter(|root| root.certificate.is_authority().unwrap_or(false)).collect();
        let anchors: Vec<TrustAnchor<'_>> = valid.iter().map(|root| root.anchor.clone()).collect();
        let links: Vec<CertificateDer<'_>> = sent.iter().chain(&self.links).cloned().collect();
        let revoked: Vec<&CertRevocationList<'_>> = self.revoked.iter().collect();
        let revocation = RevocationOptionsBuilder::new(&revoked);
        let revocation =
            revocation.ok().map(|builder| builder.with_expiration_policy(ExpirationPolicy::Enforce).build());
        let leaf = EndEntityCert::try_from(der).map_err(|error| self.reason(&error, certificate, &stale, now))?;
        let is_short = |path: &VerifiedPath<'_>| {
            let between = path.intermediate_certificates().count();
            let root = valid.iter().find(|root| root.anchor == *path.anchor());
            let longest = root.and_then(|root| root.certificate.longest_chain());
            let is_short = longest.is_none_or(|longest| between <= longest);
            is_short.then_some(()).ok_or(webpki::Error::PathLenConstraintViolated)
        };
        let usage = KeyUsage::server_auth();
        let path = leaf.verify_for_usage(algorithms, &anchors, &links, now, usage, revocation, Some(&is_short));
        let path = path.map_err(|error| self.reason(&error, certificate, &stale, now))?;
        let constrains = |der: &CertificateDer<'_>| {
            Certificate::parse(der).map_or(true, |certificate| certificate.has_name_constraints())
        };
        let is_constrained = path.anchor().name_constraints.is_some()
            || path.intermediate_certificates().any(|link| constrains(&link.der()));
        Ok(Trusted { is_constrained })
    }

    /// What webpki says, and whether OpenSSL would say so, too.
    fn reason(&self, error: &webpki::Error, certificate: &Certificate, stale: &[&Root], now: UnixTime) -> Problem {
        Problem::shared_if(is_openssls(error), self.say(error, certificate, stale, now))
    }

    /// What webpki says, for people.
    fn say(&self, error: &webpki::Error, certificate: &Certificate, stale: &[&Root], now: UnixTime) -> String {
        use webpki::Error;
        match error {
            Error::UnknownIssuer if certificate.is_self_issued() => {
                format!("it is self-signed and not in {}", self.origin)
            }
            Error::UnknownIssuer => {
                let found = format!("it does not lead to a certificate in {}", self.origin);
                let stale = stale.iter().find(|root| root.certificate.has_issued(certificate)).and_then(|root| {
                    let why = root.certificate.invalidity(now)?;
                    Some(format!(", where {} does not count: {why}", root.certificate.subject()))
                });
                found + &stale.unwrap_or_default()
            }
            Error::CertExpired { .. } | Error::CertNotValidYet { .. } => {
                certificate.invalidity(now).unwrap_or_else(|| {
                    "a certificate between it and a trusted one has expired or is not valid yet".to_owned()
                })
            }
            Error::CertRevoked => "it, or one between it and a trusted one, is revoked".to_owned(),
            Error::CrlExpired { .. } => "the revocation list (sslcrl) has expired: get a new one".to_owned(),
            Error::UnknownRevocationStatus => {
                "no revocation list in sslcrl is of its issuer: each issuer's list must be there".to_owned()
            }
            Error::CaUsedAsEndEntity => {
                format!("it is a certificate authority's own, which is trusted only if it is itself in {}", self.origin)
            }
            Error::RequiredEkuNotFoundContext(_) => {
                "it is not for servers: an extendedKeyUsage on the way has no serverAuth".to_owned()
            }
            Error::UnsupportedCertVersion => {
                "a certificate between it and a trusted one is of X.509 version 1, which is not supported".to_owned()
            }
            Error::PathLenConstraintViolated => {
                "the chain is longer than a certificate on the way allows (pathlen)".to_owned()
            }
            Error::NameConstraintViolation => {
                "it has a name that one above it may not issue certificates for (nameConstraints)".to_owned()
            }
            Error::UnsupportedSignatureAlgorithmContext(_)
            | Error::UnsupportedSignatureAlgorithmForPublicKeyContext(_)
            | Error::UnsupportedCrlSignatureAlgorithmContext(_)
            | Error::UnsupportedCrlSignatureAlgorithmForPublicKeyContext(_) => {
                "it, one between it and a trusted one, or a revocation list is signed in a way, or with a key, that is \
                 not supported: RSA of 2048 to 8192 bits, EC (P-256, P-384, P-521) and Ed25519 are, with SHA-256, \
                 SHA-384 or SHA-512"
                    .to_owned()
            }
            other => other.to_string(),
        }
    }
}

/// Whether OpenSSL refuses what webpki refuses like this. Of what is not here, it may think otherwise.
fn is_openssls(error: &webpki::Error) -> bool {
    use webpki::Error;
    matches!(
        error,
        Error::UnknownIssuer
            | Error::CertExpired { .. }
            | Error::CertNotValidYet { .. }
            | Error::CertRevoked
            | Error::CrlExpired { .. }
            | Error::UnknownRevocationStatus
            | Error::RequiredEkuNotFoundContext(_)
            | Error::PathLenConstraintViolated
            | Error::NameConstraintViolation
            | Error::EndEntityUsedAsCa
            | Error::InvalidSignatureForPublicKey
    )
}

fn of_list(error: &webpki::Error) -> String {
    match error {
        webpki::Error::UnsupportedCrlVersion => {
            "it is of version 1 (openssl ca makes version 2 with crl_extensions and a crlnumber)".to_owned()
        }
        other => other.to_string(),
    }
}

/// Whether OpenSSL would look at a file of a directory: eight hexadecimal digits, a dot and a number.
fn is_hashed(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.split_once('.'));
    name.is_some_and(|(hash, number)| {
        let is_number = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
        hash.len() == 8 && hash.bytes().all(|byte| byte.is_ascii_hexdigit()) && is_number
    })
}

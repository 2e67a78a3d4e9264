//! The part of a handshake in which the client proves who it is: a certificate and its key.

use std::fmt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use pem::Pem;
use pkcs8::EncryptedPrivateKeyInfoRef;
use pkcs8::pkcs5::pbes2::{Kdf, Parameters};
use rustls::SignatureScheme;
use rustls::client::ResolvesClientCert;
use rustls::crypto::KeyProvider;
use rustls::pki_types::PrivateKeyDer;
use rustls::sign::{CertifiedKey, SigningKey};
use x509_cert::der::Decode;
use x509_cert::spki::SubjectPublicKeyInfoRef;

use super::certificate::Certificate;
use super::error::{Problem, Role, TlsError};
use super::files::{SMALL, bad, certificates, exists, read, sections};
use super::settings::{CertMode, ClientFiles};
use crate::io::conninfo::Secret;

/// The most rounds with which a password is made a key: some seconds.
const MOST_ROUNDS: u32 = 20_000_000;
/// The most memory with which scrypt makes a password a key, as OpenSSL has it: 32 MiB.
const MOST_SCRYPT_MEMORY: u64 = 32 << 20;

/// How a key that this program cannot read is written so that it can.
const REWRITE: &str = "write it anew with openssl pkcs8 -topk8";

/// The client's certificate and key, and whether the server has asked for them.
pub(super) struct Identity {
    key: Option<Arc<CertifiedKey>>,
    is_asked: AtomicBool,
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").field("is_there", &self.key.is_some()).finish_non_exhaustive()
    }
}

impl Identity {
    /// Reads certificate and key, if there are any. They are looked for in the order and with the outcomes of libpq.
    ///
    /// # Errors
    ///
    /// There is a certificate, and it or its key cannot be used.
    pub(super) fn load(files: &ClientFiles, provider: &dyn KeyProvider) -> Result<Self, TlsError> {
        let without = Self { key: None, is_asked: AtomicBool::new(false) };
        let Some(path) = files.certificate.as_deref().filter(|_| files.mode != CertMode::Disable) else {
            return Ok(without);
        };
        if !exists(Role::Certificate, path)? {
            return Ok(without);
        }
        let contents = read(Role::Certificate, path, SMALL)?;
        let chain = sections(&contents).and_then(certificates);
        let chain = chain.map_err(|problem| bad(Role::Certificate, path, problem))?;
        let Some(own) = chain.first() else { return Err(bad(Role::Certificate, path, "has no certificate")) };
        let malformed =
            |error| bad(Role::Certificate, path, Problem::narrow(format!("has a malformed certificate: {error}")));
        let certificate = Certificate::parse(own).map_err(malformed)?;
        let key_path = files.key.as_deref().ok_or(TlsError::NoKey)?;
        let key = load_key(key_path, files, provider)?;
        let (_, of_certificate) = certificate.raw_public_key().map_err(malformed)?;
        if !belongs_to(key.as_ref(), of_certificate) {
            let problem = format!("is not the key of the certificate in \"{}\"", path.display());
            return Err(bad(Role::Key, key_path, problem));
        }
        Ok(Self { key: Some(Arc::new(CertifiedKey::new(chain, key))), ..without })
    }

    /// Checks that what `mode` wants has happened in a handshake that is over.
    pub(super) fn check(&self, mode: CertMode) -> Result<(), TlsError> {
        match (mode, self.is_asked.load(Ordering::Relaxed)) {
            (CertMode::Require, false) => Err(TlsError::NotAsked),
            (CertMode::Require, true) if self.key.is_none() => Err(TlsError::NotSent),
            _ => Ok(()),
        }
    }
}

impl ResolvesClientCert for Identity {
    fn resolve(&self, _root_hints: &[&[u8]], _schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.is_asked.store(true, Ordering::Relaxed);
        self.key.clone()
    }

    fn has_certs(&self) -> bool {
        self.key.is_some()
    }
}

/// Whether a private key is that of a public one.
fn belongs_to(key: &dyn SigningKey, public: &[u8]) -> bool {
    let Some(own) = key.public_key() else { return true };
    SubjectPublicKeyInfoRef::from_der(&own).is_ok_and(|own| own.subject_public_key.raw_bytes() == public)
}

/// Reads a key that nobody else may read.
fn load_key(path: &Path, files: &ClientFiles, provider: &dyn KeyProvider) -> Result<Arc<dyn SigningKey>, TlsError> {
    if files.is_engine() {
        return Err(TlsError::NotSupported {
            what: "sslkey with a colon, which names a key in an OpenSSL engine,",
            remedy: "name a file whose path has no colon",
        });
    }
    if !exists(Role::Key, path)? {
        return Err(bad(Role::Key, path, "does not exist, but its certificate does"));
    }
    let metadata = std::fs::metadata(path);
    let metadata = metadata.map_err(|error| bad(Role::Key, path, format!("cannot be looked at: {error}")))?;
    if !metadata.is_file() {
        return Err(bad(Role::Key, path, "is not a regular file"));
    }
    if is_open_to_others(metadata.uid(), metadata.mode()) {
        let problem = "has group or world access; file must have permissions u=rw (0600) or less if owned by the \
                       current user, or permissions u=rw,g=r (0640) or less if owned by root";
        return Err(bad(Role::Key, path, problem));
    }
    let contents = read(Role::Key, path, SMALL)?;
    let key = private_key(&contents, files.password.as_ref()).map_err(|problem| bad(Role::Key, path, problem))?;
    provider.load_private_key(key).map_err(|_| {
        bad(
            Role::Key,
            path,
            Problem::narrow(
                "is of a kind that is not supported: RSA of 2048 to 8192 bits, EC (P-256, P-384, P-521) or Ed25519",
            ),
        )
    })
}

/// libpq's rule, by owner and mode.
fn is_open_to_others(owner: u32, mode: u32) -> bool {
    mode & if owner == 0 { 0o037 } else { 0o077 } != 0
}

/// The key in a file, PEM or DER. What is wrong is said without any of it.
fn private_key(contents: &[u8], password: Option<&Secret>) -> Result<PrivateKeyDer<'static>, Problem> {
    let sections = sections(contents)?;
    let key = sections.into_iter().find(|section| section.tag().ends_with("PRIVATE KEY"));
    let Some(key) = key else {
        let der = PrivateKeyDer::try_from(contents.to_vec());
        return der.map_err(|_| "has no private key, neither in PEM nor in DER".into());
    };
    if is_encrypted_the_old_way(&key) {
        let problem = format!("is encrypted in the format of old OpenSSL, which is not supported: {REWRITE}");
        return Err(Problem::narrow(problem));
    }
    match key.tag() {
        "PRIVATE KEY" => Ok(PrivateKeyDer::Pkcs8(key.into_contents().into())),
        "RSA PRIVATE KEY" => Ok(PrivateKeyDer::Pkcs1(key.into_contents().into())),
        "EC PRIVATE KEY" => Ok(PrivateKeyDer::Sec1(key.into_contents().into())),
        "ENCRYPTED PRIVATE KEY" => decrypt(key.contents(), password),
        _ => Err(Problem::narrow("has a private key of a kind that is not supported")),
    }
}

fn is_encrypted_the_old_way(key: &Pem) -> bool {
    key.headers().get("Proc-Type").is_some_and(|kind| kind.contains("ENCRYPTED"))
}

/// The key in an encrypted PKCS#8 document.
fn decrypt(der: &[u8], password: Option<&Secret>) -> Result<PrivateKeyDer<'static>, Problem> {
    let unsupported = || {
        Problem::narrow(format!(
            "is encrypted in a way that is not supported (PBES2 with AES is): {REWRITE} -v2 aes256"
        ))
    };
    let document = EncryptedPrivateKeyInfoRef::try_from(der).map_err(|_| unsupported())?;
    let scheme = document.encryption_algorithm.pbes2().ok_or_else(unsupported)?;
    if !is_within_limits(scheme) {
        return Err(Problem::narrow(format!("is encrypted at more cost than is spent on it: {REWRITE}")));
    }
    let Some(password) = password else { return Err("is encrypted: give its password in sslpassword".into()) };
    match document.decrypt(password.expose()) {
        Ok(key) => {
            // A wrong password passes for the right one once in 256 times, and shows here.
            let key = PrivateKeyDer::Pkcs8(key.as_bytes().to_vec().into());
            pkcs8::PrivateKeyInfoRef::try_from(key.secret_der()).map_err(|_| wrong())?;
            Ok(key)
        }
        Err(pkcs8::Error::EncryptedPrivateKey(
            pkcs8::pkcs5::Error::UnsupportedAlgorithm { .. } | pkcs8::pkcs5::Error::AlgorithmParametersInvalid { .. },
        )) => Err(unsupported()),
        Err(_) => Err(wrong()),
    }
}

fn wrong() -> Problem {
    "cannot be decrypted: the password in sslpassword is wrong, or the file is damaged".into()
}

/// Whether making the password a key takes bounded time and memory.
fn is_within_limits(scheme: &Parameters) -> bool {
    match &scheme.kdf {
        Kdf::Pbkdf2(parameters) => parameters.iteration_count <= MOST_ROUNDS,
        Kdf::Scrypt(parameters) => {
            let (n, r, p) = (parameters.cost_parameter, parameters.block_size, parameters.parallelization);
            let blocks = n.saturating_add(u64::from(p) + 2);
            blocks.saturating_mul(128 * u64::from(r)) <= MOST_SCRYPT_MEMORY
        }
        _ => false,
    }
}

//! TLS as libpq has it, made by rustls.
//!
//! What libpq does with OpenSSL decides: which files are looked for, which may be missing, what is verified, and when a
//! connection goes on without: never because of what is narrower here. Where rustls is narrower than OpenSSL, there is a verifier of our own around webpki. What is
//! still narrower, each refused by name where a connection would need it:
//!
//! - TLS 1.2 is the oldest version, with key exchange by Diffie-Hellman on curves, of which P-521 and Brainpool are none.
//! - Signatures are by RSA of 2048 to 8192 bits (RSASSA-PSS with the hash's length of salt), EC (P-256, P-384, P-521) and
//!   Ed25519, with SHA-256, SHA-384 or SHA-512: not SHA-1, SHA-224 or SHA-3, Ed448, and keys that are for RSA-PSS alone.
//! - A server's certificate of X.509 version 1 or 2, if it is to be verified; it will do where it is trusted itself, or
//!   nothing is verified. Roots and client certificates may be old.
//! - The common name of a server's certificate, where one above it has name constraints.
//! - A certificate authority's own certificate as a server's, unless it is trusted itself.
//! - Directories of revocation lists (`sslcrldir`), lists of version 1; a list that is there and cannot be read is an
//!   error, not passed over.
//! - Keys in OpenSSL engines, private keys with the encryption of old OpenSSL or PBES1, DSA and Ed448.
//! - `sslkeylogfile`, which would let others read along.
//! - SCRAM with more than 100000 iterations (the client's library sees to that).
//!
//! What is wider: `nsCertType`, an extension of old, is not looked at.

mod certificate;
mod client;
mod error;
mod files;
mod names;
mod settings;
mod stream;
mod trust;
mod verifier;

#[cfg(test)]
mod tests;

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::sync::Arc;

use rustls::client::Resumption;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::{DnsName, ServerName};
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, SupportedProtocolVersion};

pub use error::{HandshakeError, Problem, Role, TlsError};
pub use settings::{CertMode, ClientFiles, Roots, TlsSettings, Verify, Version};
pub use stream::{Connector, Stream};

use client::Identity;
use files::exists;
use trust::Trust;
use verifier::Verifier;

/// The protocol behind TLS, by the name that is registered.
const PROTOCOL: &[u8] = b"postgresql";

impl TlsSettings {
    /// What makes a connection to `host` (libpq's `host`, which may be an address; none if only `hostaddr` is known).
    /// Reads all files anew.
    ///
    /// # Errors
    ///
    /// A file that is needed is not there or cannot be used, or a setting is one that is not supported.
    pub fn connector(&self, host: Option<&str>) -> Result<Connector, TlsError> {
        let versions = self.versions()?;
        if self.logs_keys {
            let remedy = "leave it out: with the keys, others could read what the source sends";
            return Err(TlsError::NotSupported { what: "sslkeylogfile", remedy });
        }
        let provider = aws_lc_rs::default_provider();
        let trust = self.trust()?;
        let verified = match self.verify {
            Verify::Host => Some(host.ok_or(TlsError::NoHost)?.to_owned()),
            Verify::IfRoots | Verify::Chain => None,
        };
        let identity = Arc::new(Identity::load(&self.client, provider.key_provider)?);
        let verifier = Verifier::new(provider.signature_verification_algorithms, trust, verified);
        let name = host.filter(|_| self.sends_name).and_then(name_to_send);
        // Addresses are not told, so one stands for what is not.
        let (sends_name, name) =
            (name.is_some(), name.unwrap_or(ServerName::from(IpAddr::from(Ipv4Addr::UNSPECIFIED))));
        let config = config(provider, &versions, verifier, &identity, sends_name)?;
        let (cert_mode, is_direct) = (self.client.mode, self.is_direct);
        let takes_old = self.oldest.is_some_and(|oldest| oldest < Version::Tls12);
        Ok(Connector { config: Arc::new(config), name, identity, cert_mode, is_direct, takes_old })
    }

    /// Checks that a connection without TLS will do.
    ///
    /// # Errors
    ///
    /// The server must ask for a certificate, and cannot.
    pub fn check_plain(&self) -> Result<(), TlsError> {
        if self.client.mode == CertMode::Require { Err(TlsError::NotAsked) } else { Ok(()) }
    }

    /// What the server's certificate is verified with; none where it is not.
    fn trust(&self) -> Result<Option<Trust>, TlsError> {
        let path = match &self.roots {
            Roots::System { file, directories } => return Trust::of_system(file, directories).map(Some),
            Roots::File(path) if exists(Role::Roots, path)? => path,
            _ if self.verify == Verify::IfRoots => return Ok(None),
            Roots::File(path) => return Err(TlsError::NoRoots { path: Some(path.clone()) }),
            Roots::None => return Err(TlsError::NoRoots { path: None }),
        };
        if self.has_revoked_directory {
            let remedy = "put the lists that count into one file, and name it with sslcrl";
            return Err(TlsError::NotSupported { what: "sslcrldir", remedy });
        }
        let revoked = match self.revoked.as_deref() {
            Some(path) if exists(Role::Revoked, path)? => Some(path),
            _ => None,
        };
        Trust::of_file(path, revoked).map(Some)
    }

    /// The versions that may be spoken.
    fn versions(&self) -> Result<Vec<&'static SupportedProtocolVersion>, TlsError> {
        if self.newest.is_some_and(|newest| newest < Version::Tls12) {
            let remedy = "these versions are not safe, TLSv1.2 is the oldest";
            return Err(TlsError::NotSupported { what: "ssl_max_protocol_version below TLSv1.2", remedy });
        }
        let versions = [(Version::Tls12, &TLS12), (Version::Tls13, &TLS13)];
        let wanted = |version| {
            self.oldest.is_none_or(|oldest| version >= oldest) && self.newest.is_none_or(|newest| version <= newest)
        };
        Ok(versions.into_iter().filter(|(version, _)| wanted(*version)).map(|(_, version)| version).collect())
    }
}

/// What the server may be told: no address, by libpq's rule for these, and nothing that is no name of DNS.
fn name_to_send(host: &str) -> Option<ServerName<'static>> {
    let is_address = host.contains(':') || host.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    let name = DnsName::try_from(host).ok().filter(|_| !is_address)?;
    Some(ServerName::DnsName(name.to_owned()))
}

fn config(
    provider: CryptoProvider,
    versions: &[&'static SupportedProtocolVersion],
    verifier: Verifier,
    identity: &Arc<Identity>,
    sends_name: bool,
) -> Result<ClientConfig, TlsError> {
    let builder = ClientConfig::builder_with_provider(Arc::new(provider)).with_protocol_versions(versions);
    // Only an empty list of versions is an error.
    let builder = builder.map_err(|_| TlsError::NotSupported {
        what: "a range of protocol versions with none in it",
        remedy: "see ssl_min_protocol_version and ssl_max_protocol_version",
    })?;
    let builder = builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier));
    let mut config = builder.with_client_cert_resolver(Arc::clone(identity) as _);
    config.alpn_protocols = vec![PROTOCOL.to_vec()];
    config.enable_sni = sends_name;
    config.resumption = Resumption::disabled();
    Ok(config)
}

/// The directory that OpenSSL was made to look in, in the distributions that there are.
const OPENSSL: [&str; 4] = ["/usr/lib/ssl", "/etc/pki/tls", "/etc/ssl", "/usr/local/ssl"];

impl Roots {
    /// The system's, with OpenSSL's variables `SSL_CERT_FILE` and `SSL_CERT_DIR` (several, with colons between them) in
    /// the place of its own paths.
    #[must_use]
    pub fn of_system(file: Option<&Path>, directories: Option<&std::ffi::OsStr>) -> Self {
        let place = OPENSSL.iter().map(Path::new).find(|place| place.join("certs").is_dir());
        let place = place.unwrap_or(Path::new("/etc/ssl"));
        let file = file.map_or_else(|| place.join("cert.pem"), Path::to_owned);
        let directories =
            directories.map_or_else(|| vec![place.join("certs")], |list| std::env::split_paths(list).collect());
        Self::System { file, directories }
    }
}

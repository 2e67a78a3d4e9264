//! The part of a handshake in which the server proves who it is.

use std::fmt;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls13_signature_with_raw_key};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, DigitallySignedStruct, Error, OtherError, PeerMisbehaved, SignatureScheme};

use super::certificate::Certificate;
use super::error::{HandshakeError, Problem};
use super::names;
use super::trust::Trust;

/// Verifies as much of a server's certificate as is asked for, and its signature of the handshake in any case.
pub(super) struct Verifier {
    algorithms: WebPkiSupportedAlgorithms,
    /// What the certificate must lead to; none where any will do.
    trust: Option<Trust>,
    /// Whom it must be made out to; none where that does not matter.
    host: Option<String>,
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verifier").field("host", &self.host).finish_non_exhaustive()
    }
}

impl Verifier {
    /// A verifier; `host` without `trust` would prove nothing.
    pub(super) fn new(algorithms: WebPkiSupportedAlgorithms, trust: Option<Trust>, host: Option<String>) -> Self {
        Self { algorithms, trust, host }
    }

    fn check(
        &self,
        der: &CertificateDer<'_>,
        sent: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), HandshakeError> {
        let Some(trust) = &self.trust else { return Ok(()) };
        let malformed = |error: x509_cert::der::Error| HandshakeError::Certificate {
            subject: "it sent".to_owned(),
            reason: Problem::narrow(format!("it is malformed: {error}")),
        };
        let certificate = Certificate::parse(der).map_err(malformed)?;
        let trusted = trust
            .check(der, &certificate, sent, now, self.algorithms.all)
            .map_err(|reason| HandshakeError::Certificate { subject: certificate.subject(), reason })?;
        let Some(host) = &self.host else { return Ok(()) };
        let mut names = certificate.names().map_err(malformed)?;
        if trusted.is_constrained {
            names.common = None;
        }
        names::check(&names, host)
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let refused = |error| CertificateError::Other(OtherError(Arc::new(error)));
        self.check(end_entity, intermediates, now).map_err(refused)?;
        Ok(ServerCertVerified::assertion())
    }

    // rustls' own functions know certificates of version 3 only.
    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let certificate = Certificate::parse(cert).map_err(|_| CertificateError::BadEncoding)?;
        let (algorithm, key) = certificate.raw_public_key().map_err(|_| CertificateError::BadEncoding)?;
        let offered = self.algorithms.mapping.iter().find(|(scheme, _)| *scheme == dss.scheme);
        let (_, offered) = offered.ok_or(PeerMisbehaved::SignedHandshakeWithUnadvertisedSigScheme)?;
        let fitting = offered.iter().find(|offered| offered.public_key_alg_id().as_ref() == algorithm);
        let fitting = fitting.ok_or(CertificateError::BadSignature)?;
        fitting.verify_signature(key, message, dss.signature()).map_err(|_| CertificateError::BadSignature)?;
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let key = Certificate::parse(cert).and_then(|certificate| certificate.public_key());
        let key = key.map_err(|_| CertificateError::BadEncoding)?;
        verify_tls13_signature_with_raw_key(message, &key, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

//! What is read of a certificate beside what webpki reads: that knows neither old versions nor common names.

use std::fmt::Write as _;

use rustls::pki_types::{SubjectPublicKeyInfoDer, UnixTime};
use sha2::{Digest, Sha224, Sha256, Sha384, Sha512};
use x509_cert::certificate::{CertificateInner, Raw, Version};
use x509_cert::der::asn1::{AnyRef, ContextSpecific, ObjectIdentifier};
use x509_cert::der::oid::AssociatedOid;
use x509_cert::der::oid::db::{rfc4519, rfc5912};
use x509_cert::der::{Decode, Encode, Error, TagNumber};
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::ext::pkix::{BasicConstraints, ExtendedKeyUsage, KeyUsage, NameConstraints, SubjectAltName};
use x509_cert::spki::AlgorithmIdentifierRef;

use super::error::shown;
use super::names::{AltName, Names};

/// ecdsa-with-SHA1, which the table of names lacks.
const ECDSA_WITH_SHA_1: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.4.1");

/// A certificate of any version.
#[derive(Debug)]
pub(super) struct Certificate(CertificateInner<Raw>);

impl Certificate {
    /// Reads a certificate in DER.
    pub(super) fn parse(der: &[u8]) -> Result<Self, Error> {
        CertificateInner::from_der(der).map(Self)
    }

    /// Whether it is of a version before 3, which has no extensions.
    pub(super) fn is_old(&self) -> bool {
        self.0.tbs_certificate().version() != Version::V3
    }

    /// Whether it is made out by whom it is made out to.
    pub(super) fn is_self_issued(&self) -> bool {
        self.0.tbs_certificate().issuer() == self.0.tbs_certificate().subject()
    }

    /// Whether another one names it as its issuer.
    pub(super) fn has_issued(&self, other: &Self) -> bool {
        self.0.tbs_certificate().subject() == other.0.tbs_certificate().issuer()
    }

    /// Whom it is made out to, for people.
    pub(super) fn subject(&self) -> String {
        let mut subject = String::new();
        // What cannot be shown to its end is shown as far as it goes.
        let _ = write!(subject, "{}", self.0.tbs_certificate().subject());
        if subject.is_empty() { "without a subject".to_owned() } else { format!("\"{}\"", shown(&subject)) }
    }

    /// Why it is not valid at a time; none if it is.
    pub(super) fn invalidity(&self, now: UnixTime) -> Option<String> {
        let validity = self.0.tbs_certificate().validity();
        let seconds = now.as_secs();
        if validity.not_before.to_unix_duration().as_secs() > seconds {
            return Some(format!("it is not valid before {}", validity.not_before));
        }
        let is_over = validity.not_after.to_unix_duration().as_secs() < seconds;
        is_over.then(|| format!("it has expired at {}", validity.not_after))
    }

    /// Whether OpenSSL would let it issue the certificates of TLS servers.
    pub(super) fn is_authority(&self) -> Result<bool, Error> {
        let certificate = self.0.tbs_certificate();
        let usage = certificate.get_extension::<KeyUsage>()?;
        let signs = usage.as_ref().map(|(_, usage)| usage.key_cert_sign());
        // Without basicConstraints, an old certificate may, and one whose keyUsage says so.
        let constraints = certificate.get_extension::<BasicConstraints>()?;
        let is_named = constraints.map_or(self.is_old() || signs == Some(true), |(_, constraints)| constraints.ca);
        Ok(is_named && signs != Some(false) && self.is_for_servers()?)
    }

    /// How many others it lets be between it and a server's; none if that does not matter.
    pub(super) fn longest_chain(&self) -> Option<usize> {
        let constraints = self.0.tbs_certificate().get_extension::<BasicConstraints>().ok()??;
        constraints.1.path_len_constraint.map(usize::from)
    }

    /// Whether it says for which names those below it may be made out.
    pub(super) fn has_name_constraints(&self) -> bool {
        let extensions = self.0.tbs_certificate().extensions();
        extensions.is_some_and(|all| all.iter().any(|one| one.extn_id == NameConstraints::OID))
    }

    fn is_for_servers(&self) -> Result<bool, Error> {
        let usage = self.0.tbs_certificate().get_extension::<ExtendedKeyUsage>()?;
        Ok(usage.is_none_or(|(_, usage)| usage.0.contains(&rfc5912::ID_KP_SERVER_AUTH)))
    }

    /// Why OpenSSL would not take it for a TLS server's; none if it would.
    pub(super) fn misuse(&self) -> Result<Option<&'static str>, Error> {
        let certificate = self.0.tbs_certificate();
        if !self.is_for_servers()? {
            return Ok(Some("it is not for servers: its extendedKeyUsage has no serverAuth"));
        }
        let usage = certificate.get_extension::<KeyUsage>()?;
        let is_usable = usage
            .is_none_or(|(_, usage)| usage.digital_signature() || usage.key_encipherment() || usage.key_agreement());
        Ok((!is_usable).then_some("it is not for TLS: its keyUsage has no digitalSignature"))
    }

    /// The names that it is made out to.
    pub(super) fn names(&self) -> Result<Names, Error> {
        let certificate = self.0.tbs_certificate();
        let alternatives = certificate.get_extension::<SubjectAltName>()?.map(|(_, names)| names.0);
        let alternatives = alternatives.unwrap_or_default().into_iter().filter_map(|name| match name {
            GeneralName::DnsName(name) => Some(AltName::Dns(name.as_bytes().to_vec())),
            GeneralName::IpAddress(address) => Some(AltName::Address(address.as_bytes().to_vec())),
            _ => None,
        });
        let mut parts = certificate.subject().iter();
        let common = parts.find(|part| part.oid == rfc4519::CN).map(|part| part.value.value().to_vec());
        Ok(Names { alternatives: alternatives.collect(), common })
    }

    /// The public key with its algorithm, as it stands in the certificate.
    pub(super) fn public_key(&self) -> Result<SubjectPublicKeyInfoDer<'static>, Error> {
        self.0.tbs_certificate().subject_public_key_info().to_der().map(SubjectPublicKeyInfoDer::from)
    }

    /// The algorithm of the public key, as rustls knows it, and the bytes of the key.
    pub(super) fn raw_public_key(&self) -> Result<(Vec<u8>, &[u8]), Error> {
        let key = self.0.tbs_certificate().subject_public_key_info();
        let algorithm = key.algorithm.to_der()?;
        Ok((AnyRef::from_der(&algorithm)?.value().to_vec(), key.subject_public_key.raw_bytes()))
    }

    /// The digest that binds authentication to the server's certificate (`tls-server-end-point`, RFC 5929): of the
    /// certificate, by the hash function of its signature, but never MD5 or SHA-1. None where the signature has none.
    pub(super) fn end_point(&self, der: &[u8]) -> Option<Vec<u8>> {
        let algorithm = self.0.signature_algorithm();
        let hash = match algorithm.oid {
            rfc5912::ID_RSASSA_PSS => hash_of_pss(algorithm.parameters.as_ref().map(AnyRef::from))?,
            other => other,
        };
        Some(match hash {
            rfc5912::MD_5_WITH_RSA_ENCRYPTION
            | rfc5912::SHA_1_WITH_RSA_ENCRYPTION
            | ECDSA_WITH_SHA_1
            | rfc5912::ID_SHA_1
            | rfc5912::SHA_256_WITH_RSA_ENCRYPTION
            | rfc5912::ECDSA_WITH_SHA_256
            | rfc5912::ID_SHA_256 => Sha256::digest(der).to_vec(),
            rfc5912::SHA_224_WITH_RSA_ENCRYPTION | rfc5912::ECDSA_WITH_SHA_224 | rfc5912::ID_SHA_224 => {
                Sha224::digest(der).to_vec()
            }
            rfc5912::SHA_384_WITH_RSA_ENCRYPTION | rfc5912::ECDSA_WITH_SHA_384 | rfc5912::ID_SHA_384 => {
                Sha384::digest(der).to_vec()
            }
            rfc5912::SHA_512_WITH_RSA_ENCRYPTION | rfc5912::ECDSA_WITH_SHA_512 | rfc5912::ID_SHA_512 => {
                Sha512::digest(der).to_vec()
            }
            _ => return None,
        })
    }
}

/// The hash function that the parameters of RSASSA-PSS name; SHA-1 where they name none.
fn hash_of_pss(parameters: Option<AnyRef<'_>>) -> Option<ObjectIdentifier> {
    let Some(parameters) = parameters else { return Some(rfc5912::ID_SHA_1) };
    // Further fields say nothing of the hash, and are left unread.
    let mut reader = x509_cert::der::SliceReader::new(parameters.value()).ok()?;
    let hash = ContextSpecific::<AlgorithmIdentifierRef<'_>>::decode_explicit(&mut reader, TagNumber(0)).ok()?;
    Some(hash.map_or(rfc5912::ID_SHA_1, |hash| hash.value.oid))
}

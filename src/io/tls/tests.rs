//! Handshakes with a server of rustls, and what is read of files.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use futures_util::future::join;
use pkcs8::pkcs5::pbes2::Parameters;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, RevokedCertParams, SanType, SerialNumber, date_time_ymd,
};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use tempfile::TempDir;
use tokio_postgres::tls::TlsConnect;
use x509_cert::der::Encode;

use super::*;
use crate::io::conninfo::Secret;

const AUTHORITY: &str = include_str!("../../../tests/certificates/authority.pem");
const OLD: (&str, &str) =
    (include_str!("../../../tests/certificates/old.pem"), include_str!("../../../tests/certificates/old.key"));
const PSS: (&str, &str) =
    (include_str!("../../../tests/certificates/pss.pem"), include_str!("../../../tests/certificates/pss.key"));
const OLD_ENCRYPTION: &str = include_str!("../../../tests/certificates/old_encryption.key");

/// Settings whose files are in a directory of their own.
struct Place {
    directory: TempDir,
    settings: TlsSettings,
}

impl Place {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        let client = ClientFiles {
            mode: CertMode::Allow,
            certificate: Some(path("client.crt")),
            key: Some(path("client.key")),
            key_is_named: false,
            password: None,
        };
        let settings = TlsSettings {
            verify: Verify::IfRoots,
            roots: Roots::File(path("root.crt")),
            revoked: Some(path("root.crl")),
            has_revoked_directory: false,
            client,
            is_direct: false,
            sends_name: true,
            oldest: None,
            newest: None,
            logs_keys: false,
        };
        Self { directory, settings }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn write(&self, name: &str, contents: impl AsRef<[u8]>) -> &Self {
        fs::write(self.path(name), contents).unwrap();
        fs::set_permissions(self.path(name), fs::Permissions::from_mode(0o600)).unwrap();
        self
    }

    fn error(&self) -> String {
        match self.settings.connector(Some("localhost")) {
            Ok(_) => panic!("no error"),
            Err(error) => error.to_string(),
        }
    }

    /// What comes of a handshake with a server.
    fn greet(&self, server: &Server, host: Option<&str>) -> Result<Greeted, String> {
        let connector = self.settings.connector(host).map_err(|error| error.to_string())?;
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let (near, far) = tokio::io::duplex(1 << 16);
            let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(server.config()));
            let (client, server) = join(connector.connect(near), acceptor.accept(far)).await;
            let client = client.map_err(|error| error.to_string())?;
            let server = server.map_err(|error| format!("server: {error}"))?;
            let session = server.get_ref().1;
            Ok(Greeted {
                name: session.server_name().map(str::to_owned),
                client: session.peer_certificates().and_then(|chain| chain.first()).is_some(),
                version: format!("{:?}", session.protocol_version().unwrap()),
                binding: Certificate::parse(&server_certificate(&client))
                    .unwrap()
                    .end_point(&server_certificate(&client)),
            })
        })
    }
}

use super::certificate::Certificate;

fn server_certificate<S>(stream: &Stream<S>) -> CertificateDer<'_> {
    stream.session().peer_certificates().unwrap()[0].clone()
}

/// What a server knows of a handshake.
#[derive(Debug)]
struct Greeted {
    name: Option<String>,
    client: bool,
    version: String,
    binding: Option<Vec<u8>>,
}

/// A server.
struct Server {
    chain: String,
    key: String,
    asks: bool,
    protocols: Vec<Vec<u8>>,
    versions: Vec<&'static SupportedProtocolVersion>,
}

impl Server {
    fn new(chain: impl Into<String>, key: impl Into<String>) -> Self {
        let versions = vec![&TLS12, &TLS13];
        Self { chain: chain.into(), key: key.into(), asks: false, protocols: vec![PROTOCOL.to_vec()], versions }
    }

    fn config(&self) -> ServerConfig {
        let builder = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
        let builder = builder.with_protocol_versions(&self.versions).unwrap();
        let builder = if self.asks {
            builder.with_client_cert_verifier(Arc::new(Anybody))
        } else {
            builder.with_no_client_auth()
        };
        let chain = CertificateDer::pem_slice_iter(self.chain.as_bytes()).map(Result::unwrap).collect();
        let key = PrivateKeyDer::from_pem_slice(self.key.as_bytes()).unwrap();
        let key = aws_lc_rs::default_provider().key_provider.load_private_key(key).unwrap();
        let certified = Arc::new(rustls::sign::CertifiedKey::new(chain, key));
        let mut config = builder.with_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(certified)));
        config.alpn_protocols = self.protocols.clone();
        config
    }
}

/// Takes any client's certificate, or none.
#[derive(Debug)]
struct Anybody;

impl ClientCertVerifier for Anybody {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[rustls::DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: rustls::pki_types::UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        aws_lc_rs::default_provider().signature_verification_algorithms.supported_schemes()
    }
}

/// A certificate authority.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    fn new(name: &str, change: impl FnOnce(&mut CertificateParams)) -> Self {
        Self::made(name, change, None)
    }

    fn below(&self, name: &str, change: impl FnOnce(&mut CertificateParams)) -> Self {
        Self::made(name, change, Some(self))
    }

    fn made(name: &str, change: impl FnOnce(&mut CertificateParams), above: Option<&Self>) -> Self {
        let mut params = params(name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let certificate = match above {
            Some(above) => params.signed_by(&key, &above.issuer),
            None => params.self_signed(&key),
        };
        let pem = certificate.unwrap().pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    /// A certificate for localhost and its key.
    fn issue(&self, change: impl FnOnce(&mut CertificateParams)) -> (String, String) {
        self.issue_for(KeyPair::generate().unwrap(), change)
    }

    fn issue_for(&self, key: KeyPair, change: impl FnOnce(&mut CertificateParams)) -> (String, String) {
        let mut params = params("localhost");
        params.subject_alt_names = vec![SanType::DnsName("localhost".try_into().unwrap())];
        change(&mut params);
        (params.signed_by(&key, &self.issuer).unwrap().pem(), key.serialize_pem())
    }

    fn server(&self, change: impl FnOnce(&mut CertificateParams)) -> Server {
        let (chain, key) = self.issue(change);
        Server::new(chain, key)
    }

    /// A list of those that it has revoked.
    fn revokes(&self, serials: &[u64], until: i32) -> String {
        let revoked = |serial: &u64| RevokedCertParams {
            serial_number: SerialNumber::from(*serial),
            revocation_time: date_time_ymd(2020, 1, 1),
            reason_code: None,
            invalidity_date: None,
        };
        let params = CertificateRevocationListParams {
            this_update: date_time_ymd(2020, 1, 1),
            next_update: date_time_ymd(until, 1, 1),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: serials.iter().map(revoked).collect(),
            key_identifier_method: rcgen::KeyIdMethod::Sha256,
        };
        params.signed_by(&self.issuer).unwrap().pem().unwrap()
    }
}

fn params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params
}

fn same(_: &mut CertificateParams) {}

fn expired(params: &mut CertificateParams) {
    params.not_after = date_time_ymd(2001, 2, 3);
}

/// Whether a handshake comes about, or what is said of it.
fn outcome(greeted: Result<Greeted, String>) -> String {
    greeted.map_or_else(|error| error, |_| "ok".to_owned())
}

/// Checks that a server is verified by these trusted certificates with that outcome, in either version of TLS.
fn verify(what: &str, roots: &str, (chain, key): &(String, String), expected: &str) {
    for version in [&TLS12, &TLS13] {
        let server = Server { versions: vec![version], ..Server::new(chain, key) };
        let mut place = Place::new();
        place.write("root.crt", roots);
        let said = outcome(place.greet(&server, Some("localhost")));
        assert!(said.contains(expected), "{what}: {said}");
        // Without trusted certificates any will do, and its key must be there.
        fs::remove_file(place.path("root.crt")).unwrap();
        assert_eq!(outcome(place.greet(&server, Some("elsewhere"))), "ok", "{what}");
        place.settings.verify = Verify::Chain;
        assert!(place.error().contains("root.crt\" does not exist: give sslrootcert"), "{}", place.error());
    }
}

#[test]
fn chains_lead_to_what_is_trusted() {
    let root = Authority::new("root", same);
    let link = root.below("link", same);
    let other = Authority::new("other", same);
    let (of_root, of_link) = (root.issue(same), link.issue(same));
    let chained = (of_link.0.clone() + &link.pem, of_link.1.clone());
    let both = |one: &Authority, two: &Authority| one.pem.clone() + &two.pem;
    verify("issued by a root", &root.pem, &of_root, "ok");
    verify("by one of several", &both(&other, &root), &of_root, "ok");
    verify("by another", &other.pem, &of_root, "does not lead to a certificate in");
    verify("with what is between", &root.pem, &chained, "ok");
    verify("without", &root.pem, &of_link, "does not lead to a certificate in");
    verify("what is between is here", &both(&root, &link), &of_link, "ok");
    verify("the root is not", &link.pem, &chained, "has no self-signed certificate, and trust begins there");
    let none = Authority::new("no authority", |params| {
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages.clear();
    });
    let itself = (none.pem.clone(), none.issuer.key().serialize_pem());
    verify("trusted itself", &none.pem, &itself, "ok");
    verify("self-signed", &root.pem, &itself, "it is self-signed and not in");
    verify("issued by no authority", &none.pem, &none.issue(same), "does not lead to a certificate in");
    let old = (OLD.0.to_owned(), OLD.1.to_owned());
    verify("old", AUTHORITY, &old, "it is of X.509 version 1, which is not supported");
    verify("signed with PSS", AUTHORITY, &(PSS.0.to_owned(), PSS.1.to_owned()), "ok");
}

#[test]
fn roots_count_as_openssl_has_it() {
    let old = Authority::new("old root", expired);
    verify("expired", &old.pem, &old.issue(same), "where \"CN=old root\" does not count: it has expired at 2001-02-03");
    let short = Authority::new("short", |params| params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0)));
    let below = short.below("below", same);
    let (leaf, key) = below.issue(same);
    verify("a chain too long", &short.pem, &(leaf + &below.pem, key), "longer than a certificate on the way allows");
    verify("a chain as long as may be", &short.pem, &short.issue(same), "ok");
    let clients =
        |params: &mut CertificateParams| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let for_clients = Authority::new("for clients", clients);
    verify("for other things", &for_clients.pem, &for_clients.issue(same), "does not lead to a certificate in");
    let bare = Authority::new("bare", |params| {
        params.is_ca = IsCa::NoCa;
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    });
    verify("an authority by keyUsage", &bare.pem, &bare.issue(same), "ok");
    let unable = Authority::new("unable", |params| params.key_usages = vec![KeyUsagePurpose::CrlSign]);
    verify("none by keyUsage", &unable.pem, &unable.issue(same), "does not lead to a certificate in");
}

#[test]
fn certificates_are_for_servers_and_for_now() {
    let root = Authority::new("root", same);
    let with = |what: &str, change: fn(&mut CertificateParams), expected: &str| {
        verify(what, &root.pem, &root.issue(change), expected);
    };
    with("expired", expired, "it has expired at 2001-02-03T00:00:00Z");
    with("too early", |params| params.not_before = date_time_ymd(4000, 1, 1), "it is not valid before 4000-01-01");
    let clients =
        |params: &mut CertificateParams| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    with("for clients", clients, "it is not for servers");
    with("for servers", |params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth], "ok");
    with("to sign", |params| params.key_usages = vec![KeyUsagePurpose::ContentCommitment], "it is not for TLS");
    let authority = |params: &mut CertificateParams| params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    with("an authority's", authority, "it is a certificate authority's own");
}

#[test]
fn a_certificate_is_nothing_without_its_key() {
    let root = Authority::new("root", same);
    let (chain, _) = root.issue(same);
    for (certificate, key) in
        [(chain.as_str(), root.issue(same).1), (OLD.0, PSS.1.to_owned()), (OLD.0, root.issue(same).1)]
    {
        for version in [&TLS12, &TLS13] {
            let versions = vec![version];
            let said = outcome(Place::new().greet(&Server { versions, ..Server::new(certificate, &key) }, None));
            assert!(said.contains("TLS handshake failed: "), "{said}");
        }
    }
}

#[test]
fn keys_of_all_kinds_prove_who_a_server_is() {
    let root = Authority::new("root", same);
    let keys = [
        KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap(),
        KeyPair::generate_for(&rcgen::PKCS_ECDSA_P521_SHA512).unwrap(),
        KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap(),
        KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, rcgen::RsaKeySize::_3072).unwrap(),
    ];
    let mut place = Place::new();
    place.settings.verify = Verify::Host;
    place.write("root.crt", &root.pem);
    for key in keys {
        let name = format!("{:?}", key.algorithm());
        let (chain, key) = root.issue_for(key, same);
        for version in [&TLS12, &TLS13] {
            let versions = vec![version];
            let server = Server { versions, ..Server::new(&chain, &key) };
            assert_eq!(outcome(place.greet(&server, Some("localhost"))), "ok", "{name}");
        }
    }
}

#[test]
fn a_host_is_looked_for_only_if_that_is_asked() {
    let root = Authority::new("root", same);
    let server = root.server(same);
    let mut place = Place::new();
    place.write("root.crt", &root.pem);
    for (verify, host, expected) in [
        (Verify::Host, Some("localhost"), "ok"),
        (Verify::Host, Some("db"), "server certificate for \"localhost\" does not match host name \"db\""),
        (Verify::Host, None, "host name must be specified"),
        (Verify::Chain, Some("db"), "ok"),
        (Verify::Chain, None, "ok"),
    ] {
        place.settings.verify = verify;
        let said = outcome(place.greet(&server, host));
        assert!(said.contains(expected), "{said}");
    }
}

/// What constrains the names below does not see the common name, so that must not count there.
#[test]
fn a_common_name_is_not_beyond_constraints() {
    let elsewhere = |params: &mut CertificateParams| {
        let permitted_subtrees = vec![rcgen::GeneralSubtree::DnsName("elsewhere.test".to_owned())];
        params.name_constraints = Some(rcgen::NameConstraints { permitted_subtrees, excluded_subtrees: Vec::new() });
    };
    let (root, constrained) = (Authority::new("root", same), Authority::new("constrained", elsewhere));
    let below = root.below("below", elsewhere);
    let (leaf, key) = below.issue(|params| params.subject_alt_names.clear());
    let no_name = |params: &mut CertificateParams| params.subject_alt_names.clear();
    for (roots, server, expected) in [
        (&root, root.server(no_name), "ok"),
        (&constrained, constrained.server(no_name), "has no name to compare with host name \"localhost\""),
        (&root, Server::new(leaf + &below.pem, key), "has no name to compare with host name \"localhost\""),
        (&constrained, constrained.server(same), "a name that one above it may not issue certificates for"),
    ] {
        let mut place = Place::new();
        place.settings.verify = Verify::Host;
        place.write("root.crt", &roots.pem);
        let said = outcome(place.greet(&server, Some("localhost")));
        assert!(said.contains(expected), "{said}");
    }
}

#[test]
fn servers_are_told_names_and_no_addresses() {
    let server = Authority::new("root", same).server(same);
    let mut place = Place::new();
    let told = |place: &Place, host| place.greet(&server, host).unwrap().name;
    assert_eq!(told(&place, Some("db.example")).as_deref(), Some("db.example"));
    for host in [Some("1.2.3.4"), Some("::1"), Some("127.1"), Some("not a name"), None] {
        assert_eq!(told(&place, host), None, "{host:?}");
    }
    place.settings.sends_name = false;
    assert_eq!(told(&place, Some("db.example")), None);
}

#[test]
fn versions_and_protocol_are_agreed_on() {
    let root = Authority::new("root", same);
    let (chain, key) = root.issue(same);
    let mut place = Place::new();
    for (oldest, newest, versions, expected) in [
        (None, None, vec![&TLS12, &TLS13], "TLSv1_3"),
        (Some(Version::Tls10), None, vec![&TLS12], "TLSv1_2"),
        (None, Some(Version::Tls12), vec![&TLS12, &TLS13], "TLSv1_2"),
        (Some(Version::Tls13), None, vec![&TLS12], "the server refused the TLS handshake: ProtocolVersion"),
        (None, Some(Version::Tls11), vec![&TLS12], "ssl_max_protocol_version below TLSv1.2 is not supported"),
    ] {
        (place.settings.oldest, place.settings.newest) = (oldest, newest);
        let server = Server { versions, ..Server::new(&chain, &key) };
        let said = place.greet(&server, None).map_or_else(|error| error, |greeted| greeted.version);
        assert!(said.contains(expected), "{said}");
    }
    let mut place = Place::new();
    for (is_direct, protocols, expected) in [
        (false, vec![], "ok"),
        (true, vec![PROTOCOL.to_vec()], "ok"),
        (true, vec![], "established without ALPN"),
        (true, vec![b"http/1.1".to_vec()], "NoApplicationProtocol"),
    ] {
        place.settings.is_direct = is_direct;
        let said = outcome(place.greet(&Server { protocols, ..Server::new(&chain, &key) }, None));
        assert!(said.contains(expected), "{said}");
    }
    place.settings.logs_keys = true;
    assert!(place.error().contains("sslkeylogfile is not supported"));
}

#[test]
fn revoked_certificates_are_refused() {
    let root = Authority::new("root", same);
    let link = root.below("link", |params| params.serial_number = Some(SerialNumber::from(5)));
    let (leaf, key) = link.issue(|params| params.serial_number = Some(SerialNumber::from(9)));
    let server = Server::new(leaf + &link.pem, key);
    let mut place = Place::new();
    place.write("root.crt", &root.pem);
    let junk = "-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n";
    let (good_root, good_link) = (root.revokes(&[7], 4000), link.revokes(&[8], 4000));
    for (lists, expected) in [
        (good_root.clone() + &good_link, "ok"),
        (good_root.clone() + &link.revokes(&[9], 4000), "is revoked"),
        (root.revokes(&[5], 4000) + &good_link, "is revoked"),
        (good_root.clone(), "no revocation list in sslcrl is of its issuer"),
        (good_root.clone() + &link.revokes(&[8], 2021), "the revocation list (sslcrl) has expired"),
        (String::new(), "root.crl\" has no X509 CRL"),
        (junk.to_owned(), "root.crl\" has a list of a kind that is not supported"),
    ] {
        place.write("root.crl", lists);
        let said = outcome(place.greet(&server, None));
        assert!(said.contains(expected), "{said}");
    }
    // A list that is not there counts for nothing; one in the file of the roots counts with others.
    place.write("root.crt", root.pem.clone() + &good_link).write("root.crl", good_root);
    assert_eq!(outcome(place.greet(&server, None)), "ok");
    fs::remove_file(place.path("root.crl")).unwrap();
    place.write("root.crt", root.pem.clone() + &link.revokes(&[9], 4000));
    assert_eq!(outcome(place.greet(&server, None)), "ok");
    place.settings.has_revoked_directory = true;
    assert!(place.error().contains("sslcrldir is not supported"));
    fs::remove_file(place.path("root.crt")).unwrap();
    assert_eq!(outcome(place.greet(&server, None)), "ok");
}

#[test]
fn files_of_roots_must_make_sense() {
    let root = Authority::new("root", same);
    let trusted = root.pem.replace(" CERTIFICATE", " TRUSTED CERTIFICATE");
    let half = &root.pem[..root.pem.len() / 2];
    let table = [
        (String::new(), "root.crt\" has no certificate"),
        (half.to_owned(), "root.crt\" is cut in the middle of a PEM section"),
        (root.pem.replacen('M', "!", 1), "root.crt\" has a damaged PEM section"),
        ("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n".to_owned(), "has a malformed certificate"),
        (trusted, "has a TRUSTED CERTIFICATE, which is not supported"),
    ];
    let place = Place::new();
    for (roots, expected) in table {
        place.write("root.crt", roots);
        assert!(place.error().contains(expected), "{}", place.error());
    }
    let place = Place::new();
    place.write("root.crt", format!("a comment\n{}", root.pem.replace(" CERTIFICATE", " X509 CERTIFICATE")));
    assert_eq!(outcome(place.greet(&root.server(same), None)), "ok");
    let large = fs::File::create(place.path("root.crt")).unwrap();
    large.set_len(files::LARGE + 1).unwrap();
    assert!(place.error().contains("is larger than"), "{}", place.error());
}

#[test]
fn the_system_is_trusted_by_file_and_by_directory() {
    let (one, two) = (Authority::new("one", same), Authority::new("two", same));
    let mut place = Place::new();
    place.settings.verify = Verify::Host;
    place.write("ca.pem", one.pem.clone() + "-----BEGIN CERTIFICATE-----");
    fs::create_dir(place.path("certs")).unwrap();
    place.write("certs/0123abcd.0", &two.pem).write("certs/unhashed.pem", &one.pem).write("certs/0123abcd.1", "junk");
    let (file, directory) = (place.path("ca.pem"), place.path("certs"));
    let mut greet = |file: &Path, directory: &Path, authority: &Authority| {
        place.settings.roots = Roots::of_system(Some(file), Some(directory.as_os_str()));
        outcome(place.greet(&authority.server(same), Some("localhost")))
    };
    assert!(greet(&file, &directory, &one).contains("does not lead to a certificate in the system's trusted"));
    assert_eq!(greet(&file, &directory, &two), "ok");
    fs::write(&file, &one.pem).unwrap();
    assert_eq!(greet(&file, &directory, &one), "ok");
    let nowhere = Path::new("/nowhere");
    assert!(greet(nowhere, nowhere, &one).contains("no trusted certificates in /nowhere, /nowhere: install them"));
}

#[test]
fn clients_show_their_certificate_if_asked() {
    let root = Authority::new("root", same);
    let (chain, key) = root.issue(same);
    let mut place = Place::new();
    place.write("client.crt", &chain).write("client.key", &key);
    let greet = |place: &Place, asks| {
        let greeted = place.greet(&Server { asks, ..root.server(same) }, None);
        greeted.map_or_else(|error| error, |greeted| format!("shown: {}", greeted.client))
    };
    for (mode, asked, not_asked) in [
        (CertMode::Allow, "shown: true", "shown: false"),
        (CertMode::Disable, "shown: false", "shown: false"),
        (CertMode::Require, "shown: true", "server did not request a TLS certificate"),
    ] {
        place.settings.client.mode = mode;
        assert_eq!(greet(&place, true), asked);
        assert!(greet(&place, false).contains(not_asked));
        assert_eq!(place.settings.check_plain().is_err(), mode == CertMode::Require);
    }
    fs::remove_file(place.path("client.crt")).unwrap();
    assert!(greet(&place, true).contains("there is none, which sslcertmode=require wants"));
    place.settings.client.mode = CertMode::Allow;
    assert_eq!(greet(&place, true), "shown: false");
    // An old one will do.
    place.write("client.crt", OLD.0).write("client.key", OLD.1);
    assert_eq!(greet(&place, true), "shown: true");
}

/// A key encrypted with the password `s3cret`.
fn encrypted(key: &KeyPair, scheme: &Parameters) -> String {
    let data = scheme.encrypt("s3cret", key.serialized_der()).unwrap();
    let document = pkcs8::EncryptedPrivateKeyInfoRef {
        encryption_algorithm: scheme.clone().into(),
        encrypted_data: x509_cert::der::asn1::OctetStringRef::new(&data).unwrap(),
    };
    let der = document.to_der().unwrap();
    pem::encode(&pem::Pem::new("ENCRYPTED PRIVATE KEY", der))
}

#[test]
fn keys_are_read_in_their_formats() {
    let root = Authority::new("root", same);
    let key = KeyPair::generate().unwrap();
    let der = key.serialized_der().to_vec();
    let scrypt = |log_n| pkcs8::pkcs5::scrypt::Params::new(log_n, 8, 1).unwrap();
    let pbkdf2 = |rounds| Parameters::generate_pbkdf2_sha256_aes256cbc(rounds, &[1; 16], [2; 16]).unwrap();
    let schemes = [
        pbkdf2(2048),
        Parameters::generate_pbkdf2_sha256_aes128cbc(10, &[1; 8], [2; 16]).unwrap(),
        Parameters::generate_scrypt_aes256cbc(scrypt(14), &[1; 16], [2; 16]).unwrap(),
    ];
    let locked = encrypted(&key, &pbkdf2(10));
    let costly = encrypted(&key, &Parameters::generate_scrypt_aes256cbc(scrypt(16), &[1; 16], [2; 16]).unwrap());
    let mut place = Place::new();
    place.settings.client.password = Some(Secret::new("s3cret".to_owned()));
    let (own, pkcs8) = root.issue_for(key, same);
    let mut good: Vec<(&str, Vec<u8>)> = vec![
        (own.as_str(), pkcs8.clone().into_bytes()),
        (own.as_str(), format!("# a comment\r\n{own}{}", pkcs8.replace('\n', "\r\n")).into_bytes()),
        (own.as_str(), der),
        (OLD.0, OLD.1.as_bytes().to_vec()),
        (PSS.0, PSS.1.as_bytes().to_vec()),
    ];
    // Made before the key was given away.
    let unlocked = schemes.iter().map(|scheme| {
        let key = KeyPair::from_pem(&pkcs8).unwrap();
        (own.as_str(), encrypted(&key, scheme).into_bytes())
    });
    good.extend(unlocked);
    for (certificate, key) in &good {
        place.write("client.crt", certificate).write("client.key", key);
        let outcome = place.settings.connector(None);
        assert!(outcome.is_ok(), "{:?}\n{}", outcome.err(), String::from_utf8_lossy(key));
    }
    let pbes1 = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nMAA=\n-----END ENCRYPTED PRIVATE KEY-----\n";
    let table = [
        (locked.as_str(), Some("other"), "cannot be decrypted: the password in sslpassword is wrong"),
        (&locked, None, "is encrypted: give its password in sslpassword"),
        (&costly, Some("s3cret"), "at more cost than is spent on it"),
        (pbes1, Some("s3cret"), "is encrypted in a way that is not supported (PBES2 with AES is)"),
        (OLD_ENCRYPTION, Some("secret"), "is encrypted in the format of old OpenSSL, which is not supported"),
        ("", None, "has no private key, neither in PEM nor in DER"),
        (&own, None, "has no private key"),
        (&pkcs8[..60], None, "is cut in the middle of a PEM section"),
        (PSS.1, None, "is not the key of the certificate in"),
        (
            "-----BEGIN DSA PRIVATE KEY-----\nMAA=\n-----END DSA PRIVATE KEY-----\n",
            None,
            "of a kind that is not supported",
        ),
        (
            "-----BEGIN PRIVATE KEY-----\nMAA=\n-----END PRIVATE KEY-----\n",
            None,
            "of a kind that is not supported: RSA",
        ),
        ("-----BEGIN PRIVATE KEY-----\n!s3cret\n-----END PRIVATE KEY-----\n", None, "has a damaged PEM section"),
    ];
    place.write("client.crt", &own);
    for (key, password, expected) in table {
        place.settings.client.password = password.map(|password| Secret::new(password.to_owned()));
        place.write("client.key", key);
        let error = place.settings.connector(None).unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
        assert!(error.to_string().contains("private key file \"/"), "{error}");
        let shown = format!("{error}{error:?}{:?}", place.settings);
        assert!(!shown.contains("s3cret"), "{shown}");
    }
}

#[test]
fn keys_are_private() {
    let root = Authority::new("root", same);
    let (chain, key) = root.issue(same);
    let mut place = Place::new();
    place.write("client.crt", &chain).write("client.key", &key);
    let own = fs::metadata(place.path("client.key")).unwrap();
    let is_root = std::os::unix::fs::MetadataExt::uid(&own) == 0;
    for (mode, expected) in
        [(0o600, true), (0o400, true), (0o640, is_root), (0o620, false), (0o604, false), (0o660, false)]
    {
        fs::set_permissions(place.path("client.key"), fs::Permissions::from_mode(mode)).unwrap();
        let outcome = place.settings.connector(None);
        assert_eq!(outcome.is_ok(), expected, "{mode:o}: {outcome:?}");
    }
    assert!(place.error().contains("has group or world access"));
    let mut rename = |key: Option<&str>, named, expected: &str| {
        place.settings.client.key = key.map(|key| place.path(key));
        place.settings.client.key_is_named = named;
        let error = place.error();
        assert!(error.contains(expected), "{error}");
    };
    rename(Some("missing"), false, "does not exist, but its certificate does");
    rename(Some(""), false, "is not a regular file");
    rename(Some("engine:key"), true, "sslkey with a colon, which names a key in an OpenSSL engine, is not supported");
    rename(Some("engine:key"), false, "does not exist");
    rename(None, false, "certificate present, but no private key file");
    place.write("client.crt", "");
    assert!(place.error().contains("client certificate file \"/"), "{}", place.error());
    // What is not supported must not be gone without.
    let allows = |error: TlsError| error.allows_plain();
    assert!(allows(TlsError::NoKey) && !allows(TlsError::NotSupported { what: "a", remedy: "b" }));
}

#[test]
fn authentication_is_bound_to_the_certificate() {
    use sha2::{Digest, Sha256, Sha384};
    let root = Authority::new("root", same);
    let place = Place::new();
    let binding = |chain: &str, key: &str| place.greet(&Server::new(chain, key), None).unwrap().binding;
    let der = |pem: &str| CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
    let (chain, key) = root.issue(same);
    assert_eq!(binding(&chain, &key), Some(Sha256::digest(der(&chain)).to_vec()));
    assert_eq!(binding(OLD.0, OLD.1), Some(Sha256::digest(der(OLD.0)).to_vec()));
    assert_eq!(binding(PSS.0, PSS.1), Some(Sha384::digest(der(PSS.0)).to_vec()));
    let key = KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    let own = params("localhost").self_signed(&key).unwrap().pem();
    assert_eq!(binding(&own, &key.serialize_pem()), None);
}

#[test]
fn damaged_certificates_end_in_errors() {
    let root = Authority::new("root", same);
    let (leaf, _) = root.issue(|params| {
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    });
    let place = Place::new();
    place.write("root.crt", &root.pem);
    let trust = Trust::of_file(&place.path("root.crt"), None).unwrap();
    let algorithms = aws_lc_rs::default_provider().signature_verification_algorithms;
    let now = rustls::pki_types::UnixTime::now();
    for pem in [leaf.as_str(), PSS.0, OLD.0, AUTHORITY] {
        let whole = CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
        let mut accepted = 0;
        for (at, bit) in (0..whole.len()).flat_map(|at| [0, 3, 5, 7].map(|bit| (at, bit))) {
            let mut der = whole.to_vec();
            der[at] ^= 1 << bit;
            let Ok(certificate) = Certificate::parse(&der) else { continue };
            let _ = (certificate.end_point(&der), certificate.names(), certificate.public_key(), certificate.subject());
            let der = CertificateDer::from(der);
            accepted += usize::from(trust.check(&der, &certificate, &[], now, algorithms.all).is_ok());
        }
        assert_eq!(accepted, 0);
    }
}

#[test]
fn names_from_outside_are_shown_on_a_line_and_not_for_ever() {
    assert_eq!(error::shown("a\nb\u{1b}[0m"), "a\\nb\\u{1b}[0m");
    let long = error::shown(&"x".repeat(60_000));
    assert_eq!((long.chars().count(), long.ends_with('\u{2026}')), (201, true));
}

#[test]
fn roots_in_somebody_elses_home_are_missing() {
    let home = tempfile::tempdir().unwrap();
    let closed = home.path().join("closed");
    fs::create_dir(&closed).unwrap();
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o000)).unwrap();
    let found = files::exists(error::Role::Roots, &closed.join("root.crt"));
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o700)).unwrap();
    assert_eq!(found, Ok(false));
}

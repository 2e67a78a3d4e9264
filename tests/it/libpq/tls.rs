//! TLS: which of server and client proves what to the other, and by which files.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use pkcs8::der::Encode;
use pkcs8::der::asn1::OctetStringRef;
use pkcs8::pkcs5::pbes2::Parameters;
use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, KeyPair, SanType, SerialNumber};

use super::Expected::{RefusedByLibpq, RefusedHere};
use super::{Case, Comparison, connects, fails};
use crate::support::certificates::{Authority, Identity};
use crate::support::cluster::{Cluster, InitOptions};
use crate::support::scratch;
use crate::support::servers::Major;

/// Roles are named for what the server lets them do.
const RULES: &str = "
    local all all trust
    hostssl all certified all cert
    hostssl all localhost all cert
    hostssl all scrammer all scram-sha-256
    hostssl all secure all trust
    hostnossl all open all trust
    host all either all trust
    host all all all reject
";

const ROLES: &str = "
    CREATE ROLE certified LOGIN; CREATE ROLE localhost LOGIN; CREATE ROLE secure LOGIN; CREATE ROLE open LOGIN;
    CREATE ROLE either LOGIN; CREATE ROLE scrammer LOGIN PASSWORD 'scram';
";

/// With the server's usual certificate.
const MODES: &[Case] = &[
    connects("host={H} {B} user=secure", &[]),
    connects("host={H} {B} user=either", &[]),
    fails("host={H} {B} user=secure sslmode=disable", &[]),
    connects("host={H} {B} user=open sslmode=disable", &[]),
    connects("host={H} {B} user=secure sslmode=allow", &[]),
    connects("host={H} {B} user=either sslmode=allow", &[]),
    connects("host={H} {B} user=open sslmode=prefer", &[]),
    fails("host={H} {B} user=open sslmode=require", &[]),
    connects("host={H} {B} user=secure sslmode=require sslcompression=1 sslsni=0", &[]),
    fails("host={H} {B} user=open", &[("PGREQUIRESSL", "1")]),
    connects("postgresql://secure@{H}:{P}/postgres?ssl=true", &[]),
    connects("host={SOCKETS} {B} user=secure hostaddr='' sslmode=verify-full sslrootcert=/none", &[]),
    connects("host={H} {B} user=secure sslmode=require sslnegotiation=direct", &[]),
    fails("host={H} {B} user=secure sslmode=prefer sslnegotiation=direct", &[]),
    fails("host={H} {B} user=secure", &[("PGSSLNEGOTIATION", "nonsense")]),
    connects("host={H} {B} user=secure ssl_max_protocol_version=TLSv1.2", &[]),
    connects("host={H} {B} user=secure", &[("PGSSLMINPROTOCOLVERSION", "tlsv1.3")]),
    connects("host={H} {B} user=secure ssl_min_protocol_version=TLSv1", &[]),
    fails("host={H} {B} user=secure ssl_min_protocol_version=TLSv1 ssl_max_protocol_version=TLSv1.1", &[]),
    fails("host={H} {B} user=secure ssl_max_protocol_version=TLSv1.1", &[]),
    fails("host={H} {B} user=secure ssl_min_protocol_version=SSLv3", &[]),
    connects("host={H} {B} user=secure sslmode=require sslkeylogfile={HOME}/keys", &[])
        .but(RefusedHere("sslkeylogfile is not supported", "others could read along")),
];

/// What proves who the server is.
const ROOTS: &[Case] = &[
    connects("host={H} {B} user=secure sslmode=verify-ca sslrootcert={ROOT}", &[]),
    connects("host={H} {B} user=secure sslmode=verify-full sslrootcert={ROOT}", &[]),
    connects("host={H} {B} user=secure", &[("PGSSLMODE", "verify-full"), ("PGSSLROOTCERT", "{ROOT}")]),
    connects("host={H} {B} user=secure sslmode=verify-full", &[("HOME", "{FULL}")]),
    connects("host={H} {B} user=secure sslmode=verify-full sslrootcert=''", &[("HOME", "{FULL}")]),
    fails("host={H} {B} user=secure sslmode=verify-ca", &[]).saying("does not exist: give sslrootcert"),
    fails("host={H} {B} user=secure sslmode=verify-ca sslrootcert=/none", &[])
        .saying("does not exist: give sslrootcert"),
    connects("host={H} {B} user=secure sslmode=require sslrootcert=/none", &[]),
    connects("host={H} {B} user=secure sslmode=require sslrootcert={ROOT}", &[]),
    fails("host={H} {B} user=secure sslmode=require sslrootcert={OTHER}", &[])
        .saying("it does not lead to a certificate in"),
    fails("host={H} {B} user=secure sslmode=verify-ca sslrootcert={OTHER}", &[]),
    // TLS has failed by then.
    connects("host={H} {B} user=either sslmode=prefer sslrootcert={OTHER}", &[]),
    connects("host={H} {B} user=either sslmode=prefer sslrootcert={EMPTY}", &[]),
    fails("host={H} {B} user=secure sslmode=require sslrootcert={EMPTY}", &[]).saying("has no certificate"),
    fails("host={H} {B} user=secure sslmode=verify-ca sslrootcert={LINK}", &[])
        .saying("has no self-signed certificate"),
    connects("host={H} {B} user=secure sslmode=verify-ca sslrootcert={LINK_AND_ROOT}", &[]),
    connects("host=elsewhere {B} user=secure sslmode=verify-ca sslrootcert={ROOT}", &[]),
    fails("host=elsewhere {B} user=secure sslmode=verify-full sslrootcert={ROOT}", &[])
        .saying("does not match host name"),
    connects("host=a.wild.test {B} user=secure sslmode=verify-full sslrootcert={ROOT}", &[]),
    connects("host=A.Wild.Test {B} user=secure sslmode=verify-full sslrootcert={ROOT}", &[]),
    fails("host=b.a.wild.test {B} user=secure sslmode=verify-full sslrootcert={ROOT}", &[]),
    fails("host=wild.test {B} user=secure sslmode=verify-full sslrootcert={ROOT}", &[]),
    connects("host=127.0.0.1 {B} user=secure sslmode=verify-full sslrootcert={ROOT}", &[]),
    connects("host=127.1 {B} user=secure sslmode=verify-full sslrootcert={ROOT}", &[]),
    connects("host=::7 {B} user=secure sslmode=verify-full sslrootcert={ROOT}", &[]),
    fails("host=10.0.0.1 {B} user=secure sslmode=verify-full sslrootcert={ROOT}", &[]),
    fails(
        "host=elsewhere,{H} hostaddr=127.0.0.1,127.0.0.1 port={P} user=secure dbname=postgres sslmode=verify-full sslrootcert={ROOT}",
        &[],
    ),
    connects(
        "host={H},elsewhere hostaddr=127.0.0.1,127.0.0.1 port=1,{P} user=secure dbname=postgres sslmode=verify-ca sslrootcert={ROOT}",
        &[],
    ),
    fails(
        "host={H},elsewhere hostaddr=127.0.0.1,127.0.0.1 port=1,{P} user=secure dbname=postgres sslmode=verify-full sslrootcert={ROOT}",
        &[],
    ),
    fails("host=common {B} user=secure sslmode=verify-full sslrootcert={ROOT}", &[]),
    connects("{B} user=secure sslmode=verify-ca sslrootcert={ROOT}", &[]),
    fails("{B} user=secure sslmode=verify-full sslrootcert={ROOT}", &[]),
    connects("host={H} {B} user=secure sslrootcert=system", &[("SSL_CERT_FILE", "{ROOT}")]),
    fails("host={H} {B} user=secure sslrootcert=system", &[("SSL_CERT_DIR", "/none:/nowhere")]),
    fails("host={H} {B} user=secure sslrootcert=system", &[("SSL_CERT_FILE", "{OTHER}")]),
    fails("host=elsewhere {B} user=secure sslrootcert=system", &[("SSL_CERT_FILE", "{ROOT}")]),
    fails("host={H} {B} user=secure sslmode=verify-ca sslrootcert=system", &[("SSL_CERT_FILE", "{ROOT}")]),
    connects("host={H} {B} user=secure sslmode=verify-ca sslrootcert={ROOT} sslcrl={LISTS}", &[]),
    connects("host={H} {B} user=secure sslmode=verify-ca sslrootcert={ROOT} sslcrl=/none", &[]),
    fails("host={H} {B} user=secure sslmode=verify-ca sslrootcert={ROOT}", &[("PGSSLCRL", "{REVOKED}")])
        .saying("is revoked"),
    fails("host={H} {B} user=secure sslmode=verify-ca sslrootcert={ROOT} sslcrl={ROOTS_LIST}", &[])
        .saying("no revocation list in sslcrl is of its issuer"),
    fails("host={H} {B} user=secure sslmode=verify-ca", &[("HOME", "{REVOKING}")]),
    connects("host={H} {B} user=secure sslmode=require sslcrl={REVOKED}", &[]),
    connects("host={H} {B} user=secure sslmode=require sslcrldir={HOME}", &[]),
    connects("host={H} {B} user=secure sslmode=verify-ca sslrootcert={ROOT} sslcrl={EMPTY}", &[])
        .but(RefusedHere("has no X509 CRL", "a list that is there is meant to count")),
    fails("host={H} {B} user=secure sslmode=verify-ca sslrootcert={ROOT} sslcrldir={HOME}", &[]),
    // Where libpq has TLS, there is no going without.
    connects("host={H} {B} user=either sslrootcert={ROOT} sslcrl={EMPTY}", &[])
        .but(RefusedHere("has no X509 CRL", "a list that is there is meant to count")),
    connects("host={H} {B} user=either sslrootcert={ROOT} sslcrl={KEY}", &[])
        .but(RefusedHere("has no X509 CRL", "a list that is there is meant to count")),
];

/// What proves who the client is.
const CLIENTS: &[Case] = &[
    connects("host={H} {B} user=certified sslcert={CERT} sslkey={KEY}", &[]),
    connects("host={H} {B} user=certified sslmode=require", &[("PGSSLCERT", "{CERT}"), ("PGSSLKEY", "{KEY}")]),
    connects("host={H} {B} user=certified sslmode=verify-full", &[("HOME", "{FULL}")]),
    connects("host={H} {B} user=certified sslcert={CERT}", &[("HOME", "{FULL}")]),
    connects("host={H} {B} user=certified sslcert={CERT} sslkey={DER_KEY}", &[]),
    connects("host={H} {B} user=certified sslcert={CERT} sslkey={LOCKED_KEY} sslpassword=open", &[]),
    connects("host={H} {B} user=certified sslcert={CERT} sslkey={SCRYPT_KEY} sslpassword=open", &[]),
    connects("host={H} {B} user=certified sslcert={CERT} sslkey={KEY} sslpassword=unneeded", &[]),
    fails("host={H} {B} user=certified sslcert={CERT} sslkey={LOCKED_KEY} sslpassword=wrong", &[]),
    fails("host={H} {B} user=certified sslcert={CERT} sslkey={LOCKED_KEY}", &[]),
    fails("host={H} {B} user=certified sslcert={CERT} sslkey={OPEN_KEY}", &[]),
    fails("host={H} {B} user=certified sslcert={CERT} sslkey={OTHER_KEY}", &[]),
    fails("host={H} {B} user=certified sslcert={CERT} sslkey=/none", &[]),
    fails("host={H} {B} user=certified sslcert={CERT}", &[]),
    fails("host={H} {B} user=certified sslcert={CERT} sslkey={HOME}", &[]),
    fails("host={H} {B} user=certified sslcert={CERT} sslkey=engine:key", &[])
        .saying("names a key in an OpenSSL engine"),
    fails("host={H} {B} user=certified sslcert={EMPTY} sslkey={KEY}", &[]),
    fails("host={H} {B} user=certified sslcert=/none sslkey={KEY}", &[]),
    fails("host={H} {B} user=certified", &[]),
    fails("host={H} {B} user=secure sslmode=require sslcert={CERT} sslkey={OPEN_KEY}", &[])
        .saying("has group or world access"),
    connects("host={H} {B} user=either sslmode=prefer sslcert={CERT} sslkey={OPEN_KEY}", &[]),
    fails("host={H} {B} user=certified sslcert={STRANGER} sslkey={STRANGER_KEY}", &[]),
    fails("host={H} {B} user=secure sslmode=require sslcert={STRANGER} sslkey={STRANGER_KEY}", &[]),
    fails("host={H} {B} user=either sslmode=prefer sslcert={STRANGER} sslkey={STRANGER_KEY}", &[]),
    fails("host={H} {B} user=either sslmode=allow sslcert={CERT} sslkey={KEY} sslcertmode=require", &[]),
    connects("host={H} {B} user=localhost sslcert={OLD} sslkey={OLD_KEY}", &[]),
    connects("host={H} {B} user=localhost sslcert={PSS} sslkey={PSS_KEY}", &[]),
    connects("host={H} {B} user=localhost sslmode=require sslcert={PSS} sslkey={PSS_LOCKED} sslpassword=secret", &[])
        .but(RefusedHere("in the format of old OpenSSL", "it says which command writes it anew")),
    connects("host={H} {B} user=either sslcert={PSS} sslkey={PSS_LOCKED} sslpassword=secret", &[])
        .but(RefusedHere("in the format of old OpenSSL", "libpq has TLS, and so must this")),
    connects("host={H} {B} user=either sslcert={CERT} sslkey={LOCKED_KEY} sslpassword=wrong", &[]),
    connects("host={H} {B} user=either sslcert={CERT} sslkey={OTHER_KEY}", &[]),
    fails("host={H} {B} user=certified sslcert={CERT} sslkey={KEY} sslcertmode=disable", &[]),
    connects("host={H} {B} user=secure sslcert={CERT} sslkey={OPEN_KEY} sslcertmode=disable", &[]),
    connects("host={H} {B} user=certified sslcert={CERT} sslkey={KEY}", &[("PGSSLCERTMODE", "require")]),
    connects("host={H} {B} user=secure sslcert={CERT} sslkey={KEY} sslcertmode=require", &[]),
    fails("host={H} {B} user=secure sslcertmode=require", &[]),
    fails("host={H} {B} user=open sslmode=disable sslcert={CERT} sslkey={KEY} sslcertmode=require", &[]),
    connects("host={H} {B} user=secure sslmode=allow sslcert={CERT} sslkey={KEY} sslcertmode=require", &[]),
    fails("host={SOCKETS} {B} hostaddr='' user=either sslcert={CERT} sslkey={KEY} sslcertmode=require", &[]),
    fails("host={H} {B} user=secure sslcertmode=nonsense", &[]),
    connects("host={H} {B} user=scrammer password=scram channel_binding=require", &[]),
    connects("host={H} {B} user=scrammer password=scram channel_binding=prefer", &[]),
    connects("host={H} {B} user=scrammer password=scram", &[("PGCHANNELBINDING", "disable")]),
    fails("host={H} {B} user=scrammer password=wrong channel_binding=require", &[]),
    fails("host={H} {B} user=secure channel_binding=require", &[]),
    fails("host={H} {B} user=either sslmode=disable channel_binding=require", &[]),
];

/// Other certificates of the server's, each with what comes of it.
const OTHERS: &[(&str, &[Case])] = &[
    (
        "common",
        &[
            connects("host={H} {B} user=secure sslmode=verify-full sslrootcert={ROOT}", &[]),
            fails("host=elsewhere {B} user=secure sslmode=verify-full sslrootcert={ROOT}", &[]),
        ],
    ),
    (
        "self",
        &[
            connects("host={H} {B} user=secure sslmode=verify-full sslrootcert={SELF}", &[]),
            fails("host={H} {B} user=secure sslmode=verify-ca sslrootcert={ROOT}", &[]),
            fails("host=elsewhere {B} user=secure sslmode=verify-full sslrootcert={SELF}", &[]),
        ],
    ),
    (
        "old",
        &[
            connects("host={H} {B} user=secure sslmode=require", &[]),
            connects("host={H} {B} user=secure sslmode=require ssl_max_protocol_version=TLSv1.2", &[]),
            connects("host={H} {B} user=secure sslmode=verify-full sslrootcert={AUTHORITY}", &[])
                .but(RefusedHere("of X.509 version 1, which is not supported", "webpki knows version 3")),
            connects("host={H} {B} user=either sslrootcert={AUTHORITY}", &[])
                .but(RefusedHere("of X.509 version 1, which is not supported", "libpq has TLS, and so must this")),
            fails("host={H} {B} user=secure sslmode=verify-ca sslrootcert={OLD}", &[]),
        ],
    ),
    (
        "expired",
        &[
            connects("host={H} {B} user=secure sslmode=require", &[]),
            fails("host={H} {B} user=secure sslmode=verify-ca sslrootcert={ROOT}", &[]).saying("it has expired at"),
            connects("host={H} {B} user=either sslrootcert={ROOT}", &[]),
        ],
    ),
    (
        "for_clients",
        &[
            connects("host={H} {B} user=secure sslmode=require", &[]),
            fails("host={H} {B} user=secure sslmode=verify-ca sslrootcert={ROOT}", &[]).saying("it is not for servers"),
        ],
    ),
    (
        "authority",
        &[
            connects("host={H} {B} user=secure sslmode=verify-full sslrootcert={ROOT}", &[])
                .but(RefusedHere("a certificate authority's own", "webpki wants a server's certificate to be none")),
            connects("host={H} {B} user=either sslrootcert={ROOT}", &[])
                .but(RefusedHere("a certificate authority's own", "libpq has TLS, and so must this")),
        ],
    ),
    (
        "pss",
        &[
            connects("host={H} {B} user=secure sslmode=verify-full sslrootcert={AUTHORITY}", &[]),
            connects("host={H} {B} user=scrammer password=scram channel_binding=require", &[]),
        ],
    ),
    (
        "p521",
        &[
            connects("host={H} {B} user=secure sslmode=verify-full sslrootcert={ROOT}", &[]),
            connects("host={H} {B} user=scrammer password=scram channel_binding=require", &[]),
        ],
    ),
    (
        "ed25519",
        &[
            connects("host={H} {B} user=secure sslmode=verify-full sslrootcert={ROOT}", &[]),
            connects("host={H} {B} user=scrammer password=scram channel_binding=disable", &[]),
        ],
    ),
    (
        "ed25519_self",
        &[
            connects("host={H} {B} user=secure sslmode=verify-full sslrootcert={ED25519_SELF}", &[]),
            fails("host={H} {B} user=scrammer password=scram channel_binding=require", &[]),
            fails("host={H} {B} user=scrammer password=scram sslmode=require", &[]).but(RefusedByLibpq(
                "libpq wants to bind to the certificate, whose signature names no hash; here that is no reason to fail",
            )),
        ],
    ),
];

/// With a server that insists on a curve which OpenSSL has.
const CURVE: &[Case] = &[
    connects("host={H} {B} user=either", &[])
        .but(RefusedHere("it may allow no cipher, curve or signature", "libpq has TLS, and so must this")),
    connects("host={H} {B} user=either sslmode=disable", &[]),
];

fn write(path: &Path, contents: impl AsRef<[u8]>) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, contents).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}

/// A key with the password `open`.
fn locked(key: &KeyPair, scheme: &Parameters) -> String {
    let encrypted_data = scheme.encrypt("open", key.serialized_der()).unwrap();
    let document = pkcs8::EncryptedPrivateKeyInfoRef {
        encryption_algorithm: scheme.clone().into(),
        encrypted_data: OctetStringRef::new(&encrypted_data).unwrap(),
    };
    pem::encode(&pem::Pem::new("ENCRYPTED PRIVATE KEY", document.to_der().unwrap()))
}

/// A key of Ed25519 in the format that OpenSSL 3.0 reads: without the public one.
fn for_openssl(key: &KeyPair) -> String {
    let before = [0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];
    let secret = &key.serialized_der()[before.len()..][..32];
    pem::encode(&pem::Pem::new("PRIVATE KEY", [&before, secret].concat()))
}

fn dns(name: &str) -> SanType {
    SanType::DnsName(name.try_into().unwrap())
}

fn same(_: &mut CertificateParams) {}

/// The server's certificates by name, `usual` first.
fn server_certificates(root: &Authority, link: &Authority) -> Vec<(&'static str, Identity)> {
    let localhost = |params: &mut CertificateParams| params.subject_alt_names = vec![dns("localhost")];
    let mut usual = link.issue("common", |params| {
        params.serial_number = Some(SerialNumber::from(9));
        let addresses = ["127.0.0.1", "::7"].map(|address| SanType::IpAddress(address.parse().unwrap()));
        params.subject_alt_names = vec![dns("localhost"), dns("*.wild.test")].into_iter().chain(addresses).collect();
    });
    usual.chain += &link.pem;
    let expired = root.issue("localhost", |params| params.not_after = rcgen::date_time_ymd(2001, 2, 3));
    let for_clients =
        root.issue("localhost", |params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth]);
    let authority = root.issue("localhost", |params| params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained));
    let p521 = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P521_SHA512).unwrap();
    let ed25519 = KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    let of_itself = {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::ExplicitNoCa;
        localhost(&mut params);
        Identity { chain: params.self_signed(&ed25519).unwrap().pem(), key: for_openssl(&ed25519) }
    };
    let issued = Identity { key: of_itself.key.clone(), ..root.issue_for(&ed25519, "localhost", localhost) };
    vec![
        ("usual", usual),
        ("common", root.issue("localhost", same)),
        ("self", Identity::self_signed("localhost", localhost)),
        ("old", Identity::fixture("old")),
        ("expired", expired),
        ("for_clients", for_clients),
        ("authority", authority),
        ("pss", Identity::fixture("pss")),
        ("p521", root.issue_for(&p521, "localhost", localhost)),
        ("ed25519", issued),
        ("ed25519_self", of_itself),
    ]
}

/// Writes the files that cases name, below the home directory.
fn write_files(home: &Path, root: &Authority, link: &Authority, servers: &[(&str, Identity)]) {
    let other = Authority::root("other");
    let own = KeyPair::generate().unwrap();
    let client = root.issue_for(&own, "certified", same);
    let stranger = other.issue("certified", same);
    let pbkdf2 = Parameters::generate_pbkdf2_sha256_aes256cbc(2048, &[1; 16], [2; 16]).unwrap();
    let cost = pkcs8::pkcs5::scrypt::Params::new(14, 8, 1).unwrap();
    let scrypt = Parameters::generate_scrypt_aes256cbc(cost, &[1; 16], [2; 16]).unwrap();
    let (good_root, good_link) = (root.revokes(&[1]), link.revokes(&[1]));
    let file = |name: &str, contents: &str| write(&home.join(name), contents);
    file("ROOT", &root.pem);
    file("OTHER", &other.pem);
    file("EMPTY", "");
    file("LINK", &link.pem);
    file("LINK_AND_ROOT", &format!("{}{}", link.pem, root.pem));
    file("LISTS", &format!("{good_root}{good_link}"));
    file("REVOKED", &format!("{good_root}{}", link.revokes(&[9])));
    file("ROOTS_LIST", &good_root);
    file("CERT", &client.chain);
    file("KEY", &client.key);
    write(&home.join("DER_KEY"), own.serialized_der());
    file("LOCKED_KEY", &locked(&own, &pbkdf2));
    file("SCRYPT_KEY", &locked(&own, &scrypt));
    file("OPEN_KEY", &client.key);
    fs::set_permissions(home.join("OPEN_KEY"), fs::Permissions::from_mode(0o644)).unwrap();
    file("STRANGER", &stranger.chain);
    file("STRANGER_KEY", &stranger.key);
    file("OTHER_KEY", &stranger.key);
    for (name, identity) in servers {
        file(&name.to_uppercase(), &identity.chain);
        file(&format!("{}_KEY", name.to_uppercase()), &identity.key);
    }
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/certificates");
    write(&home.join("PSS_LOCKED"), fs::read(fixtures.join("old_encryption.key")).unwrap());
    write(&home.join("AUTHORITY_PEM"), fs::read(fixtures.join("authority.pem")).unwrap());
    for directory in ["FULL", "REVOKING"] {
        let path = |name: &str| home.join(directory).join(".postgresql").join(name);
        write(&path("root.crt"), &root.pem);
        write(&path("postgresql.crt"), &client.chain);
        write(&path("postgresql.key"), &client.key);
    }
    write(&home.join("REVOKING/.postgresql/root.crl"), format!("{good_root}{}", link.revokes(&[9])));
}

/// The names of files that cases have.
const FILES: [&str; 24] = [
    "ROOT",
    "OTHER",
    "EMPTY",
    "LINK",
    "LINK_AND_ROOT",
    "LISTS",
    "REVOKED",
    "ROOTS_LIST",
    "CERT",
    "KEY",
    "DER_KEY",
    "LOCKED_KEY",
    "SCRYPT_KEY",
    "OPEN_KEY",
    "OTHER_KEY",
    "STRANGER",
    "STRANGER_KEY",
    "SELF",
    "OLD",
    "OLD_KEY",
    "PSS",
    "PSS_KEY",
    "PSS_LOCKED",
    "ED25519_SELF",
];

/// A server with all of the certificates, and trust in clients of `roots`.
fn server(certificates: &[(&str, Identity)], roots: &str) -> Cluster {
    let cluster = Cluster::initdb(Major(18), &InitOptions::default()).listening_on(&["127.0.0.1"]);
    for (name, identity) in certificates {
        write(&cluster.path(format!("{name}.crt")), &identity.chain);
        write(&cluster.path(format!("{name}.key")), &identity.key);
    }
    write(&cluster.path("clients.crt"), roots);
    fs::write(cluster.path("pg_hba.conf"), RULES).unwrap();
    cluster.append_config(
        "ssl = on\nssl_cert_file = 'usual.crt'\nssl_key_file = 'usual.key'\nssl_ca_file = 'clients.crt'\n",
    );
    cluster.start();
    let _ = cluster.psql("postgres", ROLES, &[]).success();
    cluster
}

/// Gives the server another of its certificates.
fn change_certificate(cluster: &Cluster, name: &str) {
    cluster.append_config(&format!("ssl_cert_file = '{name}.crt'\nssl_key_file = '{name}.key'\n"));
    cluster.sql("postgres", "SELECT pg_reload_conf()");
    cluster.wait_for("postgres", &format!("current_setting('ssl_cert_file') = '{name}.crt'"));
    assert!(!cluster.log().contains("SSL configuration was not reloaded"), "{name}: {}", cluster.log());
}

#[test]
fn tls_is_what_libpq_makes_of_it() {
    let root = Authority::root("root");
    let link = root.below("link");
    let certificates = server_certificates(&root, &link);
    let authority = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/certificates/authority.pem"));
    let authority = authority.unwrap();
    let cluster = server(&certificates, &format!("{}{authority}", root.pem));
    let home = scratch::directory("home");
    write_files(home.path(), &root, &link, &certificates);
    let file = |name: &str| home.path().join(name).display().to_string();
    let mut comparison = Comparison::with(Major(18), home.path())
        .value("H", "localhost")
        .value("P", cluster.port())
        .value("B", format!("hostaddr=127.0.0.1 port={} dbname=postgres", cluster.port()))
        .value("SOCKETS", scratch::sockets().display())
        .value("AUTHORITY", file("AUTHORITY_PEM"))
        .value("FULL", file("FULL"))
        .value("REVOKING", file("REVOKING"));
    for name in FILES {
        comparison = comparison.value(name, file(name));
    }
    let mut differences: Vec<String> =
        [MODES, ROOTS, CLIENTS].iter().flat_map(|cases| comparison.differences(cases)).collect();
    for (name, cases) in OTHERS {
        change_certificate(&cluster, name);
        differences.extend(comparison.differences(cases).into_iter().map(|difference| format!("{name}: {difference}")));
    }
    cluster.append_config("ssl_groups = 'secp521r1'\n");
    change_certificate(&cluster, "usual");
    differences.extend(comparison.differences(CURVE));
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

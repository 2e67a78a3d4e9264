//! The handshake, and the stream behind it.

use std::error::Error as StdError;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use rustls::pki_types::ServerName;
use rustls::{AlertDescription, CertificateError, ClientConfig, PeerIncompatible};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_postgres::tls::{ChannelBinding, TlsConnect};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::certificate::Certificate;
use super::client::Identity;
use super::error::{HandshakeError, Problem};
use super::settings::CertMode;

/// Makes one TLS connection.
#[derive(Clone, Debug)]
pub struct Connector {
    pub(super) config: Arc<ClientConfig>,
    /// What the server is told; an address is not told.
    pub(super) name: ServerName<'static>,
    pub(super) identity: Arc<Identity>,
    pub(super) cert_mode: CertMode,
    /// Whether the server must agree on the protocol.
    pub(super) is_direct: bool,
    /// Whether libpq would speak versions that this program does not.
    pub(super) takes_old: bool,
}

type Failure = Box<dyn StdError + Send + Sync>;

impl Connector {
    async fn shake_hands<S>(self, stream: S) -> Result<Stream<S>, Failure>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let stream = TlsConnector::from(self.config).connect(self.name, stream).await;
        let stream = stream.map_err(|error| why(error, self.takes_old))?;
        if self.is_direct && stream.get_ref().1.alpn_protocol().is_none() {
            return Err(HandshakeError::NoProtocol.into());
        }
        self.identity.check(self.cert_mode).map_err(HandshakeError::from)?;
        Ok(Stream(stream))
    }
}

impl<S> TlsConnect<S> for Connector
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    type Stream = Stream<S>;
    type Error = Failure;
    type Future = Pin<Box<dyn Future<Output = Result<Stream<S>, Failure>> + Send>>;

    fn connect(self, stream: S) -> Self::Future {
        Box::pin(self.shake_hands(stream))
    }
}

/// Why a handshake failed: what this program says of it, or the socket.
fn why(error: io::Error, takes_old: bool) -> Failure {
    use rustls::Error;
    let Some(cause) = error.get_ref().and_then(|cause| cause.downcast_ref::<Error>()) else {
        return error.into();
    };
    match cause {
        Error::InvalidCertificate(CertificateError::Other(other)) => {
            let own = other.0.downcast_ref::<HandshakeError>().cloned();
            own.unwrap_or_else(|| HandshakeError::Failed(Problem::narrow(other.to_string()))).into()
        }
        Error::AlertReceived(alert) => HandshakeError::Refused(of_alert(*alert, takes_old)).into(),
        cause => {
            let is_old = matches!(cause, Error::PeerIncompatible(PeerIncompatible::ServerDoesNotSupportTls12Or13));
            HandshakeError::Failed(Problem::shared_if(is_old && !takes_old, cause.to_string())).into()
        }
    }
}

/// A refusal that comes when the client takes the handshake to be over, as TLS 1.3 has it of the client's certificate.
fn late(error: io::Error) -> io::Error {
    match error.get_ref().and_then(|cause| cause.downcast_ref::<rustls::Error>()) {
        Some(rustls::Error::AlertReceived(alert)) => {
            io::Error::new(error.kind(), HandshakeError::Refused(of_alert(*alert, false)))
        }
        _ => error,
    }
}

/// What a server says, and whether it would say so to libpq: of the client's certificate it would, but this program may
/// have less in common with it.
fn of_alert(alert: AlertDescription, takes_old: bool) -> Problem {
    let hint = match alert {
        AlertDescription::ProtocolVersion => {
            "; see ssl_min_protocol_version and ssl_max_protocol_version of both sides"
        }
        AlertDescription::NoApplicationProtocol => "; it does not speak PostgreSQL's protocol behind TLS",
        AlertDescription::UnknownCA
        | AlertDescription::BadCertificate
        | AlertDescription::CertificateRequired
        | AlertDescription::CertificateExpired
        | AlertDescription::CertificateRevoked => "; see the client's certificate in sslcert, and the server's log",
        AlertDescription::HandshakeFailure => {
            "; it may allow no cipher, curve or signature that this program has (see ssl_ciphers and ssl_groups or \
             ssl_ecdh_curve of the server, and its log)"
        }
        _ => "; see the server's log",
    };
    let is_shared = match alert {
        AlertDescription::ProtocolVersion => !takes_old,
        AlertDescription::NoApplicationProtocol
        | AlertDescription::UnknownCA
        | AlertDescription::BadCertificate
        | AlertDescription::UnsupportedCertificate
        | AlertDescription::CertificateUnknown
        | AlertDescription::CertificateRequired
        | AlertDescription::CertificateExpired
        | AlertDescription::CertificateRevoked
        | AlertDescription::AccessDenied
        | AlertDescription::UnrecognisedName
        | AlertDescription::InternalError => true,
        _ => false,
    };
    Problem::shared_if(is_shared, format!("{alert:?}{hint}"))
}

/// A connection over TLS.
#[derive(Debug)]
pub struct Stream<S>(TlsStream<S>);

#[cfg(test)]
impl<S> Stream<S> {
    /// What is known of the session.
    pub(super) fn session(&self) -> &rustls::ClientConnection {
        self.0.get_ref().1
    }
}

impl<S> tokio_postgres::tls::TlsStream for Stream<S>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    fn channel_binding(&self) -> ChannelBinding {
        let certificate = self.0.get_ref().1.peer_certificates().and_then(|chain| chain.first());
        let end_point = certificate.and_then(|der| Certificate::parse(der).ok()?.end_point(der));
        end_point.map_or_else(ChannelBinding::none, ChannelBinding::tls_server_end_point)
    }
}

impl<S> AsyncRead for Stream<S>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf).map_err(late)
    }
}

impl<S> AsyncWrite for Stream<S>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_server_says_of_the_client_it_would_say_to_libpq() {
        use AlertDescription as Alert;
        let shared =
            [Alert::UnknownCA, Alert::BadCertificate, Alert::CertificateRequired, Alert::NoApplicationProtocol];
        let narrow =
            [Alert::HandshakeFailure, Alert::InsufficientSecurity, Alert::IllegalParameter, Alert::DecodeError];
        let allows = |alert, takes_old| HandshakeError::Refused(of_alert(alert, takes_old)).allows_plain();
        assert!(shared.into_iter().all(|alert| allows(alert, false)));
        assert!(!narrow.into_iter().any(|alert| allows(alert, false)));
        assert!(allows(Alert::ProtocolVersion, false) && !allows(Alert::ProtocolVersion, true));
    }
}

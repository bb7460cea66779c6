//! A replication connection: signing in, starting the stream, reading it, and telling how far one is.

use std::fmt::Write;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use pgwire_replication::auth::ScramClient;
use pgwire_replication::protocol::framing::{
    MessageReader, write_copy_data, write_password_message, write_query, write_ssl_request, write_startup_message,
};
use pgwire_replication::protocol::messages::auth;
use pgwire_replication::protocol::{
    BackendMessage, ErrorFields, ReplicationCopyData, encode_standby_status_update, parse_auth_request,
    parse_copy_data, unix_to_pg_timestamp,
};
use pgwire_replication::{Lsn, PgWireError};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, BufReader};
use tokio::net::{TcpStream, UnixStream};

use crate::feed::address::{Address, End};
use crate::feed::change::Position;
use crate::feed::tls;
use crate::session::SessionError;

/// Version 3.0 of the protocol between Postgres and its clients.
const PROTOCOL: i32 = 3 << 16;

/// What is read from the connection at once.
const READ_BUFFER: usize = 64 * 1024;

/// The largest message that is taken: a row of a table has at most 1 GiB.
const LARGEST_MESSAGE: usize = 1 << 30;

/// The same of who has not proved yet to be the server.
const LARGEST_MESSAGE_AT_FIRST: usize = 64 * 1024;

trait Wire: AsyncRead + AsyncWrite + Send + Unpin {}

impl<W: AsyncRead + AsyncWrite + Send + Unpin> Wire for W {}

/// A connection that can carry a stream of changes.
pub(super) struct ReplicationSession {
    wire: BufReader<Box<dyn Wire>>,
    reader: MessageReader,
}

/// What came from the stream.
pub(super) enum Received {
    /// A message of the plugin.
    Message(Bytes),
    /// All that lies before was sent.
    Alive { until: Position, wants_reply: bool },
}

impl ReplicationSession {
    /// Connects and signs in.
    pub(super) async fn connect(address: &Address, name: &str) -> Result<Self, SessionError> {
        let wire = BufReader::with_capacity(READ_BUFFER, dial(address).await?);
        let reader = MessageReader::new().with_max_message_size(LARGEST_MESSAGE_AT_FIRST);
        let mut session = ReplicationSession { wire, reader };
        let parameters = [
            ("user", address.user.as_str()),
            ("database", address.database.as_str()),
            ("replication", "database"),
            ("client_encoding", "UTF8"),
            ("application_name", name),
            ("options", address.settings.as_str()),
        ];
        write_startup_message(&mut session.wire, PROTOCOL, &parameters).await.map_err(broken)?;
        session.sign_in(address).await?;
        // Between two messages it holds nothing.
        session.reader = MessageReader::new().with_max_message_size(LARGEST_MESSAGE);
        Ok(session)
    }

    async fn sign_in(&mut self, address: &Address) -> Result<(), SessionError> {
        loop {
            let message = self.message().await?;
            match message.tag {
                b'R' => match parse_auth_request(&message.payload).map_err(broken)? {
                    (auth::OK, _) => {}
                    (auth::CLEARTEXT_PASSWORD, _) => {
                        let password = [password(address)?.as_bytes(), b"\0"].concat();
                        write_password_message(&mut self.wire, &password).await.map_err(broken)?;
                    }
                    (auth::SASL, _) => self.sign_in_by_scram(address).await?,
                    (method, _) => return Err(unknown_method(method)),
                },
                b'Z' => return Ok(()),
                _ => {}
            }
        }
    }

    /// Signs in by SCRAM-SHA-256 (RFC 5802), in which the server proves itself, too.
    async fn sign_in_by_scram(&mut self, address: &Address) -> Result<(), SessionError> {
        let client = ScramClient::new(&address.user);
        let mut first = b"SCRAM-SHA-256\0".to_vec();
        first.extend_from_slice(&(client.client_first.len() as u32).to_be_bytes());
        first.extend_from_slice(client.client_first.as_bytes());
        write_password_message(&mut self.wire, &first).await.map_err(broken)?;
        let server_first = self.sasl(auth::SASL_CONTINUE).await?;
        let (last, signed, salted) = client.client_final(password(address)?, &server_first).map_err(broken)?;
        write_password_message(&mut self.wire, last.as_bytes()).await.map_err(broken)?;
        let server_last = self.sasl(auth::SASL_FINAL).await?;
        ScramClient::verify_server_final(&server_last, &salted, &signed).map_err(broken)
    }

    async fn sasl(&mut self, expected: i32) -> Result<String, SessionError> {
        let message = self.message().await?;
        let (method, said) = parse_auth_request(&message.payload).map_err(broken)?;
        match message.tag == b'R' && method == expected {
            true => Ok(String::from_utf8_lossy(said).into_owned()),
            false => Err(SessionError::Unreachable("the server does not follow SCRAM-SHA-256".to_owned())),
        }
    }

    /// Starts the stream from where the slot was confirmed.
    pub(super) async fn start(&mut self, slot: &str, publication: &str) -> Result<(), SessionError> {
        let publication = publication.replace('"', "\"\"").replace('\'', "''");
        let command = format!(
            "START_REPLICATION SLOT \"{slot}\" LOGICAL 0/0 (proto_version '1', publication_names '\"{publication}\"')"
        );
        write_query(&mut self.wire, &command).await.map_err(broken)?;
        while self.message().await?.tag != b'W' {}
        Ok(())
    }

    /// The next of the stream. Nothing is lost when the future is dropped.
    pub(super) async fn receive(&mut self) -> Result<Received, SessionError> {
        loop {
            let message = self.message().await?;
            match message.tag {
                b'd' => {
                    return Ok(match parse_copy_data(message.payload).map_err(broken)? {
                        ReplicationCopyData::XLogData { data, .. } => Received::Message(data),
                        ReplicationCopyData::KeepAlive { wal_end, reply_requested, .. } => {
                            Received::Alive { until: Position::new(wal_end.as_u64()), wants_reply: reply_requested }
                        }
                    });
                }
                b'c' => return Err(SessionError::Unreachable("the server has ended the stream".to_owned())),
                _ => {}
            }
        }
    }

    /// Tells the server that everything up to `confirmed` has been dealt with, so that it need not keep it.
    pub(super) async fn report(&mut self, confirmed: Position, wants_reply: bool) -> Result<(), SessionError> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_micros();
        let now = unix_to_pg_timestamp(i64::try_from(now).unwrap_or(i64::MAX));
        let status = encode_standby_status_update(Lsn::from_u64(confirmed.at()), now, wants_reply);
        write_copy_data(&mut self.wire, &status).await.map_err(broken)
    }

    /// The next message that is no error.
    async fn message(&mut self) -> Result<BackendMessage, SessionError> {
        let message = self.reader.read(&mut self.wire).await.map_err(broken)?;
        match message.tag {
            b'E' => Err(refused(&message.payload)),
            _ => Ok(message),
        }
    }
}

async fn dial(address: &Address) -> Result<Box<dyn Wire>, SessionError> {
    let unreachable = |error: std::io::Error| SessionError::Unreachable(error.to_string());
    let (host, port) = match &address.end {
        End::Unix(path) => return Ok(Box::new(UnixStream::connect(path).await.map_err(unreachable)?)),
        End::Tcp { host, port } => (host, *port),
    };
    let mut stream = TcpStream::connect((host.as_str(), port)).await.map_err(unreachable)?;
    stream.set_nodelay(true).map_err(unreachable)?;
    let Some(wanted) = &address.tls else {
        return Ok(Box::new(stream));
    };
    write_ssl_request(&mut stream).await.map_err(broken)?;
    match stream.read_u8().await.map_err(unreachable)? {
        b'S' => {
            let secured = tls::handshake(stream, host, wanted.verify, &wanted.files).await;
            Ok(Box::new(secured.map_err(SessionError::Unreachable)?))
        }
        b'N' if !wanted.required => Ok(Box::new(stream)),
        _ => Err(SessionError::Unreachable("the server has no TLS, which sslmode requires".to_owned())),
    }
}

fn password(address: &Address) -> Result<&str, SessionError> {
    let missing = || SessionError::Statement {
        code: "28P01".to_owned(),
        message: format!("the server wants a password of \"{}\", and there is none", address.user),
        hint: String::new(),
    };
    address.password.as_deref().ok_or_else(missing)
}

fn unknown_method(method: i32) -> SessionError {
    let mut message = format!("the server asks for authentication of the kind {method}, which feeds do not have");
    if method == auth::MD5_PASSWORD {
        let _written =
            write!(message, " (MD5): set password_encryption = 'scram-sha-256' there, and the password once more");
    }
    SessionError::Statement { code: "28000".to_owned(), message, hint: String::new() }
}

fn refused(payload: &[u8]) -> SessionError {
    let fields = ErrorFields::parse(payload);
    SessionError::Statement {
        code: fields.code.unwrap_or_default(),
        message: fields.message.unwrap_or_default(),
        hint: fields.hint.unwrap_or_default(),
    }
}

fn broken(error: PgWireError) -> SessionError {
    SessionError::Unreachable(match error {
        PgWireError::Io(io) => io.to_string(),
        other => other.to_string(),
    })
}

//! A connection to one broker.

use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

use super::config::{KafkaConfig, KafkaTls};
use super::requests::{ApiVersions, Known, Request, SaslAuthenticate, SaslHandshake, in_words};
use super::sasl::Sasl;
use super::wire::{Reader, Writer};
use crate::feed::tls::{self, TlsFiles, Verify};
use crate::session::SessionError;

/// What brokers know us by.
const CLIENT: &str = "forebay";

/// The largest response that is taken: one batch may be larger than what was asked for.
const LARGEST_RESPONSE: usize = 64 << 20;

/// Messages of a mechanism; none needs as many.
const MAX_STEPS: usize = 8;

trait Wire: AsyncRead + AsyncWrite + Send + Unpin {}

impl<W: AsyncRead + AsyncWrite + Send + Unpin> Wire for W {}

/// A connection on which one request is asked after the other.
pub(super) struct Broker {
    wire: Box<dyn Wire>,
    /// `host:port`.
    pub(super) name: String,
    number: i32,
    known: Known,
    patience: Duration,
}

impl Broker {
    /// Connects and signs in.
    pub(super) async fn connect(config: &KafkaConfig, name: &str, patience: Duration) -> Result<Broker, SessionError> {
        let connecting = async {
            let wire = dial(config, name).await?;
            let known = Known { error: 0, highest: Default::default() };
            let mut broker = Broker { wire, name: name.to_owned(), number: 0, known, patience };
            broker.known = broker.ask(&ApiVersions).await?;
            if broker.known.error != 0 {
                return Err(in_words(broker.known.error));
            }
            broker.sign_in(config).await?;
            Ok(broker)
        };
        let connected = tokio::time::timeout(patience, connecting).await;
        let connected = connected.unwrap_or_else(|_| Err(format!("it did not answer within {patience:?}")));
        connected.map_err(|problem| unreachable(name, &problem))
    }

    async fn sign_in(&mut self, config: &KafkaConfig) -> Result<(), String> {
        let Some(login) = &config.login else { return Ok(()) };
        let mechanisms = self.ask(&SaslHandshake(login.mechanism.as_str())).await?;
        if mechanisms.error != 0 {
            let has = mechanisms.names.join(", ");
            return Err(format!("it does not let us sign in by {}, but by {has}", login.mechanism.as_str()));
        }
        let (mut sasl, mut told) = (Sasl::new(login), Vec::new());
        for _ in 0..MAX_STEPS {
            let Some(next) = sasl.step(&told)? else { return Ok(()) };
            let answer = self.ask(&SaslAuthenticate(next)).await?;
            if answer.error != 0 {
                return Err(format!(
                    "\"{}\" cannot sign in: {}, {}",
                    login.user,
                    in_words(answer.error),
                    answer.problem
                ));
            }
            told = answer.bytes;
        }
        Err("signing in comes to no end".to_owned())
    }

    /// Whether it knows that version of a kind of request.
    pub(super) fn knows<R: Request>(&self) -> bool {
        self.known.highest.get(&R::KEY).is_some_and(|highest| *highest >= R::VERSION)
    }

    /// Asks, and waits for the response, which may take `wait` longer than others.
    pub(super) async fn request<R: Request>(
        &mut self,
        request: &R,
        wait: Duration,
    ) -> Result<R::Response, SessionError> {
        let (name, patience) = (self.name.clone(), self.patience + wait);
        let asked = tokio::time::timeout(patience, self.ask(request)).await;
        let asked = asked.unwrap_or_else(|_| Err(format!("it did not answer within {patience:?}")));
        asked.map_err(|problem| unreachable(&name, &problem))
    }

    async fn ask<R: Request>(&mut self, request: &R) -> Result<R::Response, String> {
        self.number = self.number.wrapping_add(1);
        let mut head = Writer::default();
        head.int16(R::KEY).int16(R::VERSION).int32(self.number).text(CLIENT);
        let mut writer = Writer { bytes: head.bytes, is_compact: R::IS_COMPACT };
        request.write(writer.tags());
        let mut message = (writer.bytes.len() as u32).to_be_bytes().to_vec();
        message.append(&mut writer.bytes);
        self.wire.write_all(&message).await.map_err(in_words_of)?;
        self.wire.flush().await.map_err(in_words_of)?;
        let response = self.receive().await?;
        let mut reader = if R::IS_COMPACT { Reader::compact(&response) } else { Reader::new(&response) };
        let number = reader.int32().map_err(|error| error.to_string())?;
        if number != self.number {
            return Err("it answers what it was not asked".to_owned());
        }
        let read = reader.tags().and_then(|()| R::read(&mut reader));
        read.map_err(|error| format!("its response cannot be read: {error}"))
    }

    async fn receive(&mut self) -> Result<Vec<u8>, String> {
        let length = self.wire.read_u32().await.map_err(in_words_of)? as usize;
        if length > LARGEST_RESPONSE {
            return Err(format!("its response has {length} bytes, and the limit is {LARGEST_RESPONSE}"));
        }
        // Nothing is reserved for what is only promised.
        let mut response = Vec::new();
        (&mut self.wire).take(length as u64).read_to_end(&mut response).await.map_err(in_words_of)?;
        match response.len() == length {
            true => Ok(response),
            false => Err("it has closed the connection".to_owned()),
        }
    }
}

async fn dial(config: &KafkaConfig, name: &str) -> Result<Box<dyn Wire>, String> {
    let stream = TcpStream::connect(name).await.map_err(in_words_of)?;
    stream.set_nodelay(true).map_err(in_words_of)?;
    let authority = match &config.tls {
        KafkaTls::Off => return Ok(Box::new(stream)),
        KafkaTls::WellKnown => None,
        KafkaTls::Authorities(file) => Some(file.clone()),
    };
    let host = name.rsplit_once(':').map_or(name, |(host, _)| host).trim_matches(['[', ']']);
    let files = TlsFiles { authority, ..TlsFiles::default() };
    Ok(Box::new(tls::handshake(stream, host, Verify::Name, &files).await?))
}

fn in_words_of(error: std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::UnexpectedEof => "it has closed the connection".to_owned(),
        _ => error.to_string(),
    }
}

fn unreachable(name: &str, problem: &str) -> SessionError {
    SessionError::Unreachable(format!("the broker {name}: {problem}"))
}

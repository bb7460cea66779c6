//! A herd of clients that asks for the same keys at the same moment, over the same doors as everybody.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

/// Clients of the herd.
const CLIENTS: usize = 100;

/// Time between two waves.
const PAUSE: Duration = Duration::from_millis(250);

/// Sends wave after wave, until the future is dropped or a connection fails. In a wave every client asks for the same city, one that
/// nobody is likely to have asked for before, each by the next node's door.
pub(super) async fn run(doors: &[SocketAddr], cities: usize) -> io::Result<()> {
    let mut herd = Vec::with_capacity(CLIENTS);
    for door in doors.iter().cycle().take(CLIENTS) {
        herd.push(Client::connect(*door).await?);
    }
    let mut interval = tokio::time::interval(PAUSE);
    loop {
        interval.tick().await;
        let rank = rand::random_range(1..=cities);
        let wave = herd.iter_mut().map(|client| client.get(format!("rank:{rank}")));
        futures_util::future::try_join_all(wave).await?;
    }
}

struct Client {
    stream: BufReader<TcpStream>,
}

impl Client {
    async fn connect(door: SocketAddr) -> io::Result<Client> {
        let stream = TcpStream::connect(door).await?;
        stream.set_nodelay(true)?;
        Ok(Client { stream: BufReader::new(stream) })
    }

    /// Asks for a key and takes the reply, whatever it says.
    async fn get(&mut self, key: String) -> io::Result<()> {
        self.stream.write_all(format!("*2\r\n$3\r\nGET\r\n${}\r\n{key}\r\n", key.len()).as_bytes()).await?;
        let mut head = String::new();
        if self.stream.read_line(&mut head).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let length = head.strip_prefix('$').and_then(|length| length.trim_end().parse::<u64>().ok());
        if let Some(length) = length {
            // The line end belongs to the value.
            let mut value = Vec::new();
            (&mut self.stream).take(length + 2).read_to_end(&mut value).await?;
        }
        Ok(())
    }
}

//! Single requests: what is not load.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::load::replies::Wire;

/// How long a reply may take; emptying a server of gigabytes takes seconds.
const DEADLINE: Duration = Duration::from_secs(60);

/// Whether a server answers there.
pub(crate) fn answers(address: SocketAddr, wire: Wire) -> bool {
    let request = match wire {
        Wire::Resp => "PING",
        Wire::Memcached => "version",
    };
    ask(address, request).is_ok()
}

/// Removes everything from the server.
pub(crate) fn empty(address: SocketAddr, wire: Wire) -> io::Result<()> {
    let request = match wire {
        Wire::Resp => "FLUSHALL",
        Wire::Memcached => "flush_all",
    };
    ask(address, request).map(|_reply| ())
}

/// Sends Forebay's worker a `CONFIG RESETSTAT`.
pub(crate) fn reset_statistics(address: SocketAddr) -> io::Result<()> {
    ask(address, "CONFIG RESETSTAT").map(|_reply| ())
}

/// Has the server keep no log of slow commands.
pub(crate) fn keep_no_slow_log(address: SocketAddr) -> io::Result<()> {
    ask(address, "CONFIG SET slowlog-log-slower-than -1").map(|_reply| ())
}

/// Has a Forebay leave its values where they are: under valgrind far more is resident than it has allocated, which it would try to gain.
pub(crate) fn keep_values_in_place(address: SocketAddr) -> io::Result<()> {
    ask(address, "CONFIG SET activedefrag no").map(|_reply| ())
}

/// The figures that the server tells of itself, as `name` and `value`.
pub(crate) fn figures(address: SocketAddr, wire: Wire) -> io::Result<Vec<(String, String)>> {
    let (request, last) = match wire {
        Wire::Resp => ("INFO memory\r\nPING", "+PONG"),
        Wire::Memcached => ("stats", "END"),
    };
    let mut lines = Vec::new();
    let mut reader = send(address, request)?;
    loop {
        let line = read_line(&mut reader)?;
        if line == last {
            return Ok(lines.iter().filter_map(|line: &String| figure(line, wire)).collect());
        }
        lines.push(line);
    }
}

fn figure(line: &str, wire: Wire) -> Option<(String, String)> {
    let (name, value) = match wire {
        Wire::Resp => line.split_once(':')?,
        Wire::Memcached => line.strip_prefix("STAT ")?.split_once(' ')?,
    };
    Some((name.to_owned(), value.to_owned()))
}

/// The text that is the reply to a request of one line.
pub(crate) fn text(address: SocketAddr, request: &str) -> io::Result<String> {
    let mut reader = send(address, request)?;
    let header = read_line(&mut reader)?;
    let length = header.strip_prefix('$').and_then(|length| length.parse().ok());
    let mut text = vec![0; length.ok_or_else(|| io::Error::other(header))?];
    reader.read_exact(&mut text)?;
    String::from_utf8(text).map_err(io::Error::other)
}

/// The first line of the reply to a request of one line.
fn ask(address: SocketAddr, request: &str) -> io::Result<String> {
    read_line(&mut send(address, request)?)
}

fn send(address: SocketAddr, request: &str) -> io::Result<BufReader<TcpStream>> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(DEADLINE))?;
    write!(stream, "{request}\r\n")?;
    Ok(BufReader::new(stream))
}

fn read_line(reader: &mut BufReader<TcpStream>) -> io::Result<String> {
    let mut line = String::new();
    match reader.read_line(&mut line)? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(line.trim_end().to_owned()),
    }
}

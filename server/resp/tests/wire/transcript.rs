//! What a decoder makes of a whole stream of bytes, however the bytes come in, and what must hold of it whatever they
//! are. The tests and the fuzz target share it.

use forebay_resp::{Decoded, Decoder, Frame, Limits, ProtocolError};

/// Everything that was found in a stream.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Transcript {
    pub(crate) requests: Vec<Vec<Vec<u8>>>,
    /// Bytes in front of the request that is incomplete or wrong.
    pub(crate) consumed: usize,
    pub(crate) error: Option<ProtocolError>,
}

/// Feeds `stream` in chunks of the sizes that `sizes` gives (0 counts as 1), and looks after every one.
pub(crate) fn read(stream: &[u8], limits: &Limits, mut sizes: impl FnMut() -> usize) -> Transcript {
    let mut reader = Reader::default();
    let mut received = 0;
    while received < stream.len() && reader.transcript.error.is_none() {
        received += sizes().clamp(1, stream.len() - received);
        reader.look(&stream[..received], limits);
    }
    reader.transcript
}

/// The stream decoded at once, byte by byte, and in chunks of `chunk` bytes must say the same.
pub(crate) fn assert_alike_in_all_chunks(stream: &[u8], limits: &Limits, chunk: usize) -> Transcript {
    let at_once = read(stream, limits, || stream.len());
    assert_eq!(read(stream, limits, || 1), at_once, "byte by byte");
    assert_eq!(read(stream, limits, || chunk), at_once, "in chunks of {chunk}");
    at_once
}

/// What the fuzzers do with bytes of any kind: the first three choose limits and chunks, the rest is the stream.
pub(crate) fn exercise(data: &[u8]) {
    let [switches, scale, chunk, ref stream @ ..] = *data else {
        return;
    };
    let scale = usize::from(scale);
    let limits = Limits {
        bulk: if switches & 1 == 0 { 512 << 20 } else { scale },
        arguments: if switches & 2 == 0 { i32::MAX as usize } else { scale },
        inline: if switches & 4 == 0 { 64 * 1024 } else { scale },
        authenticated: switches & 8 == 0,
    };
    assert_alike_in_all_chunks(stream, &limits, usize::from(chunk).max(1));
}

#[derive(Default)]
struct Reader {
    decoder: Decoder,
    frame: Frame,
    transcript: Transcript,
    /// The decoder said that nothing new can be known before so many bytes are there.
    wanted: usize,
}

impl Reader {
    /// Decodes all that can be decoded of what has been received.
    fn look(&mut self, received: &[u8], limits: &Limits) {
        while self.transcript.error.is_none() && self.transcript.consumed < received.len() {
            let buf = &received[self.transcript.consumed..];
            let decoded = self.decoder.decode(buf, limits, &mut self.frame);
            self.assert_bounded(received.len());
            match decoded {
                Ok(Decoded::Request { consumed }) => self.take_request(buf, consumed),
                Ok(Decoded::Nothing { consumed }) => self.take(buf, consumed),
                Ok(Decoded::Incomplete { missing }) => {
                    return self.wait_for(received.len(), missing);
                }
                Err(error) => self.transcript.error = Some(error),
            }
            assert!(received.len() >= self.wanted, "{decoded:?} came before the bytes it needs");
        }
    }

    fn take_request(&mut self, buf: &[u8], consumed: usize) {
        let args = self.frame.args(&buf[..consumed]);
        assert!(!args.is_empty(), "a request has a name");
        assert_eq!(args.iter().count(), args.len(), "every argument lies within the request");
        self.transcript.requests.push(args.iter().map(<[u8]>::to_vec).collect());
        self.take(buf, consumed);
    }

    fn take(&mut self, buf: &[u8], consumed: usize) {
        assert!(consumed > 0, "no progress");
        assert!(consumed <= buf.len(), "consumed {consumed} of {}", buf.len());
        self.transcript.consumed += consumed;
    }

    fn wait_for(&mut self, received: usize, missing: usize) {
        assert!(missing > 0, "incomplete, and yet nothing is missing");
        self.wanted = self.wanted.max(received + missing);
    }

    /// Memory follows the bytes that came, never the numbers in them: an argument takes at least two bytes on the
    /// wire and eight in the frame, where room doubles.
    fn assert_bounded(&self, received: usize) {
        let bound = 64 + 16 * received;
        assert!(self.frame.allocated() <= bound, "{} bytes held for {received}", self.frame.allocated());
    }
}

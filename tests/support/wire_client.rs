//! A client of the wire protocol that blocks: one connection, and what is sent and received is what
//! the test says.

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

use bytes::Bytes;
use ottla::protocol::api::Call;
use ottla::protocol::{Request, RequestHeader, frame};

/// No answer takes longer than this; a test that waits for it has failed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A connection.
pub(crate) struct WireClient {
    stream: TcpStream,
    correlation_id: i32,
}

impl WireClient {
    pub(crate) fn connect(address: impl ToSocketAddrs) -> Self {
        Self { stream: open(address), correlation_id: 0 }
    }

    /// Sends a request without waiting for its answer; the number that the answer will have.
    pub(crate) fn send<C: Call>(&mut self, version: i16, request: C) -> i32 {
        self.correlation_id += 1;
        let header = RequestHeader {
            api_key: C::API.to_i16(),
            api_version: version,
            correlation_id: self.correlation_id,
            client_id: Some("test".into()),
        };
        let request: Request = request.into();
        let chunks = frame::encode_request(&header, &request).unwrap();
        self.stream.write_all(&chunks.concat()).unwrap();
        self.correlation_id
    }

    /// Takes the answer to the request with this number.
    pub(crate) fn receive<C: Call>(&mut self, version: i16, correlation_id: i32) -> C::Response {
        let body = self.next_frame().expect("an answer");
        let (header, response) = frame::decode_response(C::API, version, body).unwrap();
        assert_eq!(header.correlation_id, correlation_id);
        C::answer(response).unwrap()
    }

    pub(crate) fn call<C: Call>(&mut self, version: i16, request: C) -> C::Response {
        let correlation_id = self.send(version, request);
        self.receive::<C>(version, correlation_id)
    }

    /// The next frame; none when the connection ends.
    pub(crate) fn next_frame(&mut self) -> Option<Bytes> {
        read_frame(&mut self.stream)
    }

    /// Whether the peer closes the connection without sending another byte.
    #[allow(dead_code, reason = "not every suite has peers that hang up")]
    pub(crate) fn is_closed(&mut self) -> bool {
        is_closed(&mut self.stream)
    }

    /// Sends a request that no schema describes: `body` behind a header without a client id.
    #[allow(dead_code, reason = "not every suite sends what no schema describes")]
    pub(crate) fn send_raw(&mut self, api_key: i16, version: i16, body: &[u8]) -> i32 {
        self.correlation_id += 1;
        let mut frame = Vec::new();
        frame.extend(api_key.to_be_bytes());
        frame.extend(version.to_be_bytes());
        frame.extend(self.correlation_id.to_be_bytes());
        frame.extend((-1_i16).to_be_bytes());
        frame.extend(body);
        self.stream.write_all(&u32::try_from(frame.len()).unwrap().to_be_bytes()).unwrap();
        self.stream.write_all(&frame).unwrap();
        self.correlation_id
    }
}

/// A socket on which nothing waits for ever.
pub(crate) fn open(address: impl ToSocketAddrs) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

/// The next frame without its length; none when the connection ends.
pub(crate) fn read_frame(stream: &mut TcpStream) -> Option<Bytes> {
    let mut length = [0; 4];
    stream.read_exact(&mut length).ok()?;
    let mut body = vec![0; u32::from_be_bytes(length) as usize];
    stream.read_exact(&mut body).ok()?;
    Some(Bytes::from(body))
}

/// Whether the peer closes the connection without sending another byte.
pub(crate) fn is_closed(stream: &mut TcpStream) -> bool {
    let mut byte = [0];
    match stream.read(&mut byte) {
        Ok(0) => true,
        Ok(_) => false,
        Err(error) => error.kind() == ErrorKind::ConnectionReset,
    }
}

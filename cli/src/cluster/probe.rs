//! Asks a process for `/ready` over plain HTTP, in the few lines that takes.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// Longest wait for one answer, for each step of the exchange.
const PATIENCE: Duration = Duration::from_millis(500);
/// Longest answer that is read, in bytes; a page of metrics of a large cluster fits.
const MAX_ANSWER: u64 = 64 * 1024 * 1024;

/// What a status page said.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Page {
    /// The HTTP status.
    pub(crate) status: u16,
    /// The text.
    pub(crate) body: String,
}

/// Fetches a page from a status address.
///
/// # Errors
/// Nobody answers in time, or not in HTTP.
pub(crate) fn page(address: &str, path: &str) -> io::Result<Page> {
    let address: SocketAddr = address.parse().map_err(|_| {
        io::Error::new(io::ErrorKind::InvalidInput, "no address of the form IP:PORT")
    })?;
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    // In one piece: who answers before the rest is sent would break the connection.
    let ask = format!("GET {path} HTTP/1.0\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(ask.as_bytes())?;
    let mut answer = Vec::new();
    stream.take(MAX_ANSWER).read_to_end(&mut answer)?;
    parse(&String::from_utf8_lossy(&answer))
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "the answer is not HTTP"))
}

fn parse(answer: &str) -> Option<Page> {
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let line = head.lines().next()?.strip_prefix("HTTP/1.")?;
    let status = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(Page { status, body: body.to_owned() })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn reads_the_status_and_the_text() {
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = server.local_addr().unwrap().to_string();
        let answering = std::thread::spawn(move || {
            let (mut client, _) = server.accept().unwrap();
            let mut request = [0; 1024];
            let size = client.read(&mut request).unwrap();
            client.write_all(b"HTTP/1.1 503 Busy\r\nA: b\r\n\r\nnot yet").unwrap();
            String::from_utf8_lossy(&request[..size]).into_owned()
        });
        let page = page(&address, "/ready").unwrap();
        assert_eq!(page, Page { status: 503, body: "not yet".to_owned() });
        assert!(answering.join().unwrap().starts_with("GET /ready HTTP/1.0\r\n"));
    }

    #[test]
    fn what_is_not_http_is_no_page() {
        assert_eq!(parse("SSH-2.0"), None);
        assert_eq!(parse("HTTP/1.1 abc\r\n\r\n"), None);
        assert!(page("nowhere", "/ready").is_err());
    }
}

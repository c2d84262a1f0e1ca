//! Asks an HTTP proxy for a tunnel to a server (CONNECT, RFC 9110, 9.3.6).

use std::io;

use http::HeaderValue;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Largest head of a proxy's response, in bytes.
const LARGEST_HEAD: usize = 8 << 10;

/// Sends CONNECT for `target` (host and port), and reads the proxy's response. Everything after it is the server's.
///
/// # Errors
/// If the proxy refuses, or its response is no HTTP.
pub(super) async fn open_tunnel<S: AsyncRead + AsyncWrite + Unpin>(
    proxy: &mut S,
    target: &str,
    authorization: Option<&HeaderValue>,
) -> io::Result<()> {
    let mut request = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n").into_bytes();
    if let Some(authorization) = authorization {
        request.extend_from_slice(b"Proxy-Authorization: ");
        request.extend_from_slice(authorization.as_bytes());
        request.extend_from_slice(b"\r\n");
    }
    request.extend_from_slice(b"\r\n");
    proxy.write_all(&request).await?;
    proxy.flush().await?;
    let mut head = Vec::new();
    // Byte by byte, so that nothing of the server's is read.
    while !head.ends_with(b"\r\n\r\n") {
        if head.len() == LARGEST_HEAD {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the proxy's response is too large"));
        }
        head.push(proxy.read_u8().await?);
    }
    match status(&head) {
        Some(200..300) => Ok(()),
        Some(status) => Err(io::Error::other(format!("the proxy responded with status {status}"))),
        None => Err(io::Error::new(io::ErrorKind::InvalidData, "the proxy's response is not HTTP")),
    }
}

fn status(head: &[u8]) -> Option<u16> {
    let rest = head.strip_prefix(b"HTTP/1.")?.get(2..5)?;
    std::str::from_utf8(rest).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_a_success_of_the_proxy_opens_the_tunnel() {
        for (response, cause) in [
            ("HTTP/1.1 200 Connection established\r\n\r\n", None),
            ("HTTP/1.0 200 OK\r\nvia: squid\r\n\r\n", None),
            ("HTTP/1.1 407 Proxy Authentication Required\r\n\r\n", Some("the proxy responded with status 407")),
            ("HTTP/1.1 302 Found\r\n\r\n", Some("the proxy responded with status 302")),
            ("SSH-2.0-OpenSSH\r\n\r\n", Some("the proxy's response is not HTTP")),
            ("HTTP/1.1 200 OK\r\n", Some("unexpected end of file")),
        ] {
            let (mut near, mut far) = tokio::io::duplex(1 << 10);
            let authorization = HeaderValue::from_static("Basic dTpw");
            let proxy = async {
                far.write_all(response.as_bytes()).await.expect("it fits");
                far.shutdown().await.expect("it is open");
                let mut request = vec![0; 88];
                far.read_exact(&mut request).await.expect("a request");
                String::from_utf8(request).expect("text")
            };
            let (opened, request) = tokio::join!(open_tunnel(&mut near, "a.example:443", Some(&authorization)), proxy);
            assert_eq!(opened.err().map(|error| error.to_string()).as_deref(), cause, "{response}");
            assert!(request.starts_with(
                "CONNECT a.example:443 HTTP/1.1\r\nHost: a.example:443\r\nProxy-Authorization: Basic dTpw"
            ));
        }
    }
}

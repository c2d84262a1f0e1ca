//! Happy eyeballs (RFC 8305): tries the addresses of a server until one accepts a connection.
//!
//! The families alternate. The next address is tried as soon as an attempt fails, or a moment after it began without a result,
//! so an address that drops packets delays a connection by that moment only.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::sleep;

/// Time after which the next address is tried (RFC 8305, section 5, "Connection Attempt Delay").
const NEXT_ATTEMPT: Duration = Duration::from_millis(250);

/// Connects to whichever address accepts first, by means of `connect`.
///
/// # Errors
/// That of the last attempt, if none succeeds; or if there are no addresses.
pub(crate) async fn dial<T, F>(addresses: Vec<SocketAddr>, connect: impl Fn(SocketAddr) -> F) -> io::Result<T>
where
    T: Send + 'static,
    F: Future<Output = io::Result<T>> + Send + 'static,
{
    let mut rest = alternate(&addresses);
    let mut error = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    let mut attempts = JoinSet::new();
    loop {
        if let Some(address) = rest.pop_front() {
            attempts.spawn(connect(address));
        } else if attempts.is_empty() {
            return Err(error);
        }
        tokio::select! {
            biased;
            Some(attempt) = attempts.join_next() => match attempt {
                Ok(Ok(connected)) => return Ok(connected),
                Ok(Err(failed)) => error = failed,
                Err(panicked) => error = io::Error::other(panicked),
            },
            () = sleep(NEXT_ATTEMPT), if !rest.is_empty() => {}
        }
    }
}

/// Orders addresses so that the families alternate, beginning with that of the first one, without duplicates.
fn alternate(addresses: &[SocketAddr]) -> VecDeque<SocketAddr> {
    let is_first_family =
        |address: &SocketAddr| addresses.first().is_some_and(|first| first.is_ipv4() == address.is_ipv4());
    let (mut first, mut second): (VecDeque<_>, VecDeque<_>) = addresses.iter().copied().partition(is_first_family);
    let mut ordered = VecDeque::with_capacity(addresses.len());
    while !first.is_empty() || !second.is_empty() {
        for address in [first.pop_front(), second.pop_front()].into_iter().flatten() {
            if !ordered.contains(&address) {
                ordered.push_back(address);
            }
        }
    }
    ordered
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    fn addresses(texts: &[&str]) -> Vec<SocketAddr> {
        texts.iter().map(|text| text.parse().expect("an address")).collect()
    }

    #[test]
    fn families_alternate_in_the_order_of_the_resolver() {
        let given = addresses(&["[::1]:1", "[::2]:1", "1.1.1.1:1", "[::3]:1", "2.2.2.2:1", "1.1.1.1:1"]);
        let expected = addresses(&["[::1]:1", "1.1.1.1:1", "[::2]:1", "2.2.2.2:1", "[::3]:1"]);
        assert_eq!(alternate(&given), expected);
    }

    #[tokio::test(start_paused = true)]
    async fn every_address_is_tried_until_one_accepts() {
        const DEAD: &str = "10.0.0.1:1";
        const REFUSED: &str = "10.0.0.2:1";
        const GOOD: &str = "10.0.0.3:1";
        const GOOD_V6: &str = "[2001:db8::3]:1";
        for (given, winner, tried) in [
            (vec![GOOD, REFUSED], Some(GOOD), vec![GOOD]),
            (vec![REFUSED, GOOD], Some(GOOD), vec![REFUSED, GOOD]),
            (vec![DEAD, GOOD], Some(GOOD), vec![DEAD, GOOD]),
            (vec![DEAD, REFUSED, DEAD, REFUSED, GOOD], Some(GOOD), vec![DEAD, REFUSED, GOOD]),
            (vec![DEAD, REFUSED, GOOD_V6], Some(GOOD_V6), vec![DEAD, GOOD_V6]),
            (vec![REFUSED], None, vec![REFUSED]),
            (vec![], None, vec![]),
        ] {
            let log = Arc::new(Mutex::new(Vec::new()));
            let connect = |address: SocketAddr| {
                log.lock().expect("no panic").push(address);
                async move {
                    match address.to_string().as_str() {
                        DEAD => std::future::pending().await,
                        REFUSED => Err(io::ErrorKind::ConnectionRefused.into()),
                        _ => Ok(address),
                    }
                }
            };
            let connected = dial(addresses(&given), connect).await.ok();
            assert_eq!(connected.map(|address| address.to_string()).as_deref(), winner, "{given:?}");
            assert_eq!(*log.lock().expect("no panic"), addresses(&tried), "{given:?}");
        }
    }
}

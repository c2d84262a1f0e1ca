//! Entries as the fleet's server holds them: a line of JSON with the properties of the body, and the body, compressed.

use std::time::Duration;

use bytes::Bytes;
use http::HeaderValue;
use serde::{Deserialize, Serialize};

use crate::cache::Entry;
use crate::clock::Moment;
use crate::executions::{Progress, ValidatedBody};
use crate::fleet::FoundEntry;
use crate::offload;

/// Compression level of zstd: as of an encoded response.
const LEVEL: i32 = 3;
/// Another replica knows the fleet's clock to half of a round trip. Entries count as older by this much.
const CLOCK_ERROR: Duration = Duration::from_millis(25);

/// The properties of a body.
#[derive(Debug, Deserialize, Serialize)]
struct Head {
    progress: SharedProgress,
    total: Option<u64>,
    /// Microseconds from the request to the response.
    response_delay: u64,
    /// Microseconds for which the entry can be served stale.
    stale_for: u64,
    validator: Option<String>,
    /// Size of the body, in bytes.
    size: usize,
}

#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
enum SharedProgress {
    Live,
    Settled,
    Unknown,
}

/// The content of a shared entry.
pub(super) fn encode(entry: &Entry) -> Option<Vec<u8>> {
    let micros = |duration: Duration| u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
    let head = Head {
        progress: match entry.progress {
            Progress::Live => SharedProgress::Live,
            Progress::Settled => SharedProgress::Settled,
            Progress::Unknown => SharedProgress::Unknown,
        },
        total: entry.total,
        response_delay: micros(entry.response_time.since(entry.request_time)),
        stale_for: micros(entry.stale_for),
        // A validator that is no text is of use to this replica alone.
        validator: entry.validator.as_ref().and_then(|value| value.to_str().ok()).map(str::to_owned),
        size: entry.body.len(),
    };
    let mut content = serde_json::to_vec(&head).ok()?;
    content.push(b'\n');
    content.extend(zstd::bulk::compress(&entry.body, LEVEL).ok()?);
    Some(content)
}

/// The entry of a shared one that was taken by a command that was `sent` at one moment and answered at another. `None` if it was not
/// sealed for its place, or is of another version. A large one is opened off the worker's thread.
pub(super) async fn open(found: FoundEntry, times: (Moment, Moment)) -> Option<Entry> {
    // What is compressed to a tenth of the size is as much work.
    offload::run_sized(found.size().saturating_mul(10), move || decode(&found, &found.open()?, times)).await
}

fn decode(found: &FoundEntry, content: &[u8], (sent, received): (Moment, Moment)) -> Option<Entry> {
    let end = content.iter().position(|byte| *byte == b'\n')?;
    let head: Head = serde_json::from_slice(&content[..end]).ok()?;
    let body = zstd::bulk::decompress(&content[end + 1..], head.size).ok()?;
    let progress = match head.progress {
        SharedProgress::Live => Progress::Live,
        SharedProgress::Settled => Progress::Settled,
        SharedProgress::Unknown => Progress::Unknown,
    };
    // This process may be younger than the entry, so the lifetime is what is left of it.
    let request_time = sent - found.age - CLOCK_ERROR;
    let lifetime = if found.fresh_for.is_zero() {
        found.lifetime.min(sent.since(request_time))
    } else {
        (sent + found.fresh_for).since(request_time).saturating_sub(CLOCK_ERROR)
    };
    // Derivation compares the times of pages, so the response counts as late as it can have been.
    let response_time = request_time + Duration::from_micros(head.response_delay) + 3 * CLOCK_ERROR;
    let document = ValidatedBody { body: Bytes::from(body), progress, total: head.total };
    let mut entry = Entry::new(&document, lifetime, request_time, response_time.min(received));
    entry.stale_for = Duration::from_micros(head.stale_for);
    entry.validator = head.validator.and_then(|value| HeaderValue::from_str(&value).ok());
    entry.from_fleet = true;
    Some(entry)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::offload::testing::offloads;

    const SECOND: Duration = Duration::from_secs(1);

    fn entry() -> Entry {
        let body = ValidatedBody { body: Bytes::from("{\"docs\":[]}"), progress: Progress::Live, total: Some(7) };
        let start = Moment::default() + 100 * SECOND;
        let mut entry = Entry::new(&body, 60 * SECOND, start, start + SECOND);
        entry.stale_for = 30 * SECOND;
        entry.validator = Some(HeaderValue::from_static("\"v1\""));
        entry
    }

    /// The entry that another replica makes of one at `now`.
    fn decoded(age: Duration, now: Moment) -> Option<Entry> {
        decode(&FoundEntry::of(age, 60 * SECOND), &encode(&entry())?, (now, now))
    }

    #[test]
    fn another_replica_has_the_same_entry() {
        let original = entry();
        let now = Moment::default() + 1000 * SECOND;
        let entry = decoded(20 * SECOND, now).expect("it is one");
        assert_eq!((&entry.body, &entry.etag, entry.total), (&original.body, &original.etag, Some(7)));
        assert_eq!((entry.progress, &entry.validator), (Progress::Live, &original.validator));
        assert_eq!((entry.stale_for, entry.derived.is_none()), (30 * SECOND, true));
        assert_eq!(entry.age(now), 20 * SECOND + CLOCK_ERROR);
        assert!(entry.is_fresh(now + 39 * SECOND) && !entry.is_fresh(now + 40 * SECOND));
        assert!(entry.response_time >= entry.request_time + SECOND && entry.response_time <= now);
    }

    #[test]
    fn a_process_that_is_younger_than_an_entry_does_not_lengthen_its_life() {
        let now = Moment::default() + SECOND;
        let entry = decoded(50 * SECOND, now).expect("it is one");
        assert!(entry.is_fresh(now + 9 * SECOND) && !entry.is_fresh(now + 10 * SECOND));
    }

    #[test]
    fn what_is_not_the_content_of_an_entry_is_none() {
        let now = Moment::default();
        for content in [&b""[..], b"{}\n", b"no JSON\nbody"] {
            assert!(decode(&FoundEntry::of(SECOND, SECOND), content, (now, now)).is_none());
        }
    }

    #[test]
    fn a_large_entry_is_opened_off_the_thread() {
        let now = Moment::default() + 1000 * SECOND;
        let large = |size: usize| {
            let mut rng = fastrand::Rng::with_seed(7);
            let mut entry = entry();
            // Letters that do not compress to a fraction.
            entry.body = (0..size).map(|_| rng.alphanumeric() as u8).collect();
            encode(&entry).expect("it is encoded")
        };
        for (size, expected) in [(100, false), (200 << 10, true)] {
            let found = FoundEntry::sealed(SECOND, 60 * SECOND, large(size));
            let (offloaded, opened) = offloads(open(found, (now, now)));
            assert_eq!((offloaded, opened.map(|entry| entry.body.len())), (expected, Some(size)));
        }
    }
}

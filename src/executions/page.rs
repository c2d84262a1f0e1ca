//! Validates and completes upstream pages: a valid page has every documented pagination field.
//!
//! Most upstream pages are complete, and their bytes are passed on unchanged. If a field is missing (or null where the
//! documentation has no null), the object is written again around the same `docs` bytes.

use std::borrow::Cow;
use std::fmt;

use bytes::Bytes;
use serde::de::value::BorrowedBytesDeserializer;
use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::json_scanner::Scanner;
use super::status::Progress;

/// An upstream body that has the documented shape.
#[derive(Clone, Debug)]
pub struct ValidatedBody {
    /// The JSON text.
    pub body: Bytes,
    /// Shows whether the content can still change.
    pub progress: Progress,
    /// Number of items in the list of which this is a page; `None` for a single execution, or if unknown.
    pub total: Option<u64>,
}

/// The error for an upstream body that does not have the documented shape.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("Refold's answer is not the documented JSON: {0}")]
pub struct NotDocumented(String);

impl From<serde_json::Error> for NotDocumented {
    fn from(error: serde_json::Error) -> Self {
        // The parser's own message can quote the body, which may be confidential; the position is enough.
        Self(format!("{:?} error at line {}, column {}", error.classify(), error.line(), error.column()))
    }
}

impl ValidatedBody {
    /// Validates a page of executions or batches and completes its pagination; `page` and `limit` are the requested ones.
    ///
    /// # Errors
    /// If the body is not a JSON object with an array `docs` of objects, or its pagination can't be computed.
    pub fn page(body: Bytes, page: u64, limit: u32) -> Result<Self, NotDocumented> {
        let PageObject { docs, pagination } = read(&body, PageObject::scan)?;
        let total = pagination.total_docs;
        let (body, total) = match pagination.complete(page, u64::from(limit), docs.count)? {
            None => (body, total),
            Some(complete) => (complete.write(&from_json(&body)?)?, Some(complete.total_docs)),
        };
        Ok(Self { body, progress: docs.progress, total })
    }

    /// Validates a single execution.
    ///
    /// # Errors
    /// If the body is not a JSON object.
    pub fn single(body: Bytes) -> Result<Self, NotDocumented> {
        let ExecutionProgress(progress) = read(&body, ExecutionProgress::scan)?;
        Ok(Self { body, progress, total: None })
    }
}

/// Reads JSON with a scan, or parses it if the scan gives up. A page of 3.8 KB takes 37,000 instructions instead of 51,000, of
/// 138,000 for a whole miss.
fn read<'a, T: Deserialize<'a>>(body: &'a [u8], scan: impl Fn(&mut Scanner<'a>) -> Option<T>) -> serde_json::Result<T> {
    let scanned = std::str::from_utf8(body).ok().and_then(|text| {
        let mut scanner = Scanner::new(text)?;
        let value = scan(&mut scanner)?;
        scanner.end().map(|()| value)
    });
    scanned.map_or_else(|| from_json(body), Ok)
}

/// Parses JSON. Checking the whole body for UTF-8 is much faster than checking string by string; if that check fails, the
/// parser only rejects strings that are read.
pub(super) fn from_json<'a, T: Deserialize<'a>>(body: &'a [u8]) -> serde_json::Result<T> {
    match std::str::from_utf8(body) {
        Ok(text) => serde_json::from_str(text),
        Err(_) => serde_json::from_slice(body),
    }
}

/// The progress of an execution object. Deserialised by hand, since derived code would accept an array too.
struct ExecutionProgress(Progress);

impl ExecutionProgress {
    fn scan(scanner: &mut Scanner<'_>) -> Option<Self> {
        let mut progress = Progress::Unknown;
        scanner.object(|scanner, name| {
            let value = scanner.value()?;
            if name == b"status" {
                progress = match value {
                    [b'"', status @ .., b'"'] if status.contains(&b'\\') => return None,
                    [b'"', status @ .., b'"'] => Progress::of(std::str::from_utf8(status).ok()),
                    _ => Progress::Unknown,
                };
            }
            Some(())
        })?;
        Some(Self(progress))
    }
}

impl<'de> Deserialize<'de> for ExecutionProgress {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(field_identifier, rename_all = "lowercase")]
        enum Member {
            Status,
            #[serde(other)]
            Other,
        }
        struct Object;
        impl<'de> Visitor<'de> for Object {
            type Value = ExecutionProgress;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an execution object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<ExecutionProgress, A::Error> {
                let mut progress = Progress::Unknown;
                while let Some(member) = map.next_key()? {
                    match member {
                        Member::Status => progress = Progress::of(text(map.next_value()?).as_deref()),
                        Member::Other => {
                            map.next_value::<IgnoredAny>()?;
                        }
                    }
                }
                Ok(ExecutionProgress(progress))
            }
        }
        deserializer.deserialize_map(Object)
    }
}

/// A JSON string; `None` for any other value.
fn text(value: &RawValue) -> Option<Cow<'_, str>> {
    #[derive(Deserialize)]
    struct Text<'a>(#[serde(borrow)] Cow<'a, str>);
    serde_json::from_str::<Text<'_>>(value.get()).ok().map(|text| text.0)
}

/// The number and the combined progress of the executions in `docs`.
struct DocsSummary {
    count: u64,
    progress: Progress,
}

impl DocsSummary {
    fn scan(scanner: &mut Scanner<'_>) -> Option<Self> {
        let mut docs = Self { count: 0, progress: Progress::Settled };
        scanner.array(|scanner| {
            let execution = ExecutionProgress::scan(scanner)?;
            docs.count += 1;
            docs.progress = docs.progress.and(execution.0);
            Some(())
        })?;
        Some(docs)
    }
}

impl<'de> Deserialize<'de> for DocsSummary {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Executions;
        impl<'de> Visitor<'de> for Executions {
            type Value = DocsSummary;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an array of executions")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<DocsSummary, A::Error> {
                let mut docs = DocsSummary { count: 0, progress: Progress::Settled };
                while let Some(execution) = seq.next_element::<ExecutionProgress>()? {
                    docs.count += 1;
                    docs.progress = docs.progress.and(execution.0);
                }
                Ok(docs)
            }
        }
        deserializer.deserialize_seq(Executions)
    }
}

/// The raw members of a page object in the upstream's order.
pub(super) struct PageMembers<'a>(pub(super) Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for PageMembers<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Name<'a>(#[serde(borrow)] Cow<'a, str>);
        struct Object;
        impl<'de> Visitor<'de> for Object {
            type Value = PageMembers<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a page object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<PageMembers<'de>, A::Error> {
                let mut members: Vec<(Cow<'de, str>, &'de RawValue)> = Vec::with_capacity(10);
                while let Some((Name(name), value)) = map.next_entry::<Name<'de>, &'de RawValue>()? {
                    members.push((name, value));
                }
                Ok(PageMembers(members))
            }
        }
        deserializer.deserialize_map(Object)
    }
}

/// The pagination members that the upstream sent; `None` if missing. In `prevPage` and `nextPage` null is a value.
#[derive(Default)]
#[expect(clippy::option_option, reason = "missing and null differ")]
struct SentPagination {
    total_docs: Option<u64>,
    limit: Option<u64>,
    total_pages: Option<u64>,
    page: Option<u64>,
    paging_counter: Option<u64>,
    has_prev_page: Option<bool>,
    has_next_page: Option<bool>,
    prev_page: Option<Option<u64>>,
    next_page: Option<Option<u64>>,
}

/// A page object, parsed in one pass.
struct PageObject {
    docs: DocsSummary,
    pagination: SentPagination,
}

/// The documented members of a page object.
#[derive(Clone, Copy, Deserialize, PartialEq)]
#[serde(field_identifier, rename_all = "camelCase")]
enum PageMember {
    Docs,
    TotalDocs,
    Limit,
    TotalPages,
    Page,
    PagingCounter,
    HasPrevPage,
    HasNextPage,
    PrevPage,
    NextPage,
    #[serde(other)]
    Other,
}

impl PageObject {
    fn scan(scanner: &mut Scanner<'_>) -> Option<Self> {
        let (mut docs, mut pagination, mut seen) = (None, SentPagination::default(), 0_u16);
        scanner.object(|scanner, name| {
            let name = BorrowedBytesDeserializer::<serde::de::value::Error>::new(name);
            let member = PageMember::deserialize(name).ok()?;
            let bit = 1 << member as u16;
            if seen & bit != 0 && member != PageMember::Other {
                return None;
            }
            seen |= bit;
            if member == PageMember::Docs {
                docs = Some(DocsSummary::scan(scanner)?);
                return Some(());
            }
            pagination.set(member, scanner.value()?)
        })?;
        Some(Self { docs: docs?, pagination })
    }
}

impl<'de> Deserialize<'de> for PageObject {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;
        impl<'de> Visitor<'de> for Object {
            type Value = PageObject;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a page object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<PageObject, A::Error> {
                let (mut docs, mut pagination, mut seen) = (None, SentPagination::default(), 0_u16);
                while let Some(member) = map.next_key::<PageMember>()? {
                    let bit = 1 << member as u16;
                    // JSON parsers differ on which of two members with one name counts.
                    if seen & bit != 0 && member != PageMember::Other {
                        return Err(serde::de::Error::custom("a member stands twice"));
                    }
                    seen |= bit;
                    match member {
                        PageMember::Docs => docs = Some(map.next_value()?),
                        PageMember::TotalDocs => pagination.total_docs = map.next_value()?,
                        PageMember::Limit => pagination.limit = map.next_value()?,
                        PageMember::TotalPages => pagination.total_pages = map.next_value()?,
                        PageMember::Page => pagination.page = map.next_value()?,
                        PageMember::PagingCounter => pagination.paging_counter = map.next_value()?,
                        PageMember::HasPrevPage => pagination.has_prev_page = map.next_value()?,
                        PageMember::HasNextPage => pagination.has_next_page = map.next_value()?,
                        PageMember::PrevPage => pagination.prev_page = Some(map.next_value()?),
                        PageMember::NextPage => pagination.next_page = Some(map.next_value()?),
                        PageMember::Other => drop(map.next_value::<IgnoredAny>()?),
                    }
                }
                let docs = docs.ok_or_else(|| serde::de::Error::missing_field("docs"))?;
                Ok(PageObject { docs, pagination })
            }
        }
        deserializer.deserialize_map(Object)
    }
}

/// The documented pagination members, in the documentation's order.
#[derive(Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Pagination {
    pub(super) total_docs: u64,
    limit: u64,
    pub(super) total_pages: u64,
    page: u64,
    paging_counter: u64,
    has_prev_page: bool,
    has_next_page: bool,
    prev_page: Option<u64>,
    next_page: Option<u64>,
}

impl SentPagination {
    /// Sets a member to a value in JSON; `None` if it has another type.
    fn set(&mut self, member: PageMember, value: &[u8]) -> Option<()> {
        fn parsed<'a, T: Deserialize<'a>>(value: &'a [u8]) -> Option<T> {
            serde_json::from_slice(value).ok()
        }
        match member {
            PageMember::TotalDocs => self.total_docs = parsed(value)?,
            PageMember::Limit => self.limit = parsed(value)?,
            PageMember::TotalPages => self.total_pages = parsed(value)?,
            PageMember::Page => self.page = parsed(value)?,
            PageMember::PagingCounter => self.paging_counter = parsed(value)?,
            PageMember::HasPrevPage => self.has_prev_page = parsed(value)?,
            PageMember::HasNextPage => self.has_next_page = parsed(value)?,
            PageMember::PrevPage => self.prev_page = Some(parsed(value)?),
            PageMember::NextPage => self.next_page = Some(parsed(value)?),
            PageMember::Docs | PageMember::Other => {}
        }
        Some(())
    }

    /// The complete pagination, with missing members computed; `None` if no member is missing.
    fn complete(
        self,
        requested_page: u64,
        requested_limit: u64,
        docs: u64,
    ) -> Result<Option<Pagination>, NotDocumented> {
        if let Self {
            total_docs: Some(_),
            limit: Some(_),
            total_pages: Some(_),
            page: Some(_),
            paging_counter: Some(_),
            has_prev_page: Some(_),
            has_next_page: Some(_),
            prev_page: Some(_),
            next_page: Some(_),
        } = self
        {
            return Ok(None);
        }
        let page = self.page.unwrap_or(requested_page);
        let limit = self.limit.unwrap_or(requested_limit).max(1);
        let before = page.saturating_sub(1).saturating_mul(limit);
        let has_next_page = self.has_next_page.or(match self.next_page {
            Some(next) => Some(next.is_some()),
            None => self.total_pages.map(|pages| page < pages),
        });
        let total_docs = match self.total_docs {
            Some(total) => total,
            // The last page shows the total.
            None if has_next_page == Some(false) && (docs > 0 || page == 1) => before.saturating_add(docs),
            None => return Err(NotDocumented("`totalDocs` is missing and can't be computed".to_owned())),
        };
        // Refold counts one page for an empty list.
        let total_pages = self.total_pages.unwrap_or_else(|| total_docs.div_ceil(limit).max(1));
        let has_prev_page = self.has_prev_page.unwrap_or(page > 1);
        let has_next_page = has_next_page.unwrap_or(page < total_pages);
        Ok(Some(Pagination {
            total_docs,
            limit,
            total_pages,
            page,
            paging_counter: self.paging_counter.unwrap_or(before.saturating_add(1)),
            has_prev_page,
            has_next_page,
            prev_page: self.prev_page.unwrap_or(has_prev_page.then_some(page.saturating_sub(1))),
            next_page: self.next_page.unwrap_or(has_next_page.then_some(page.saturating_add(1))),
        }))
    }
}

impl Pagination {
    pub(super) const NAMES: [&'static str; 9] = [
        "totalDocs",
        "limit",
        "totalPages",
        "page",
        "pagingCounter",
        "hasPrevPage",
        "hasNextPage",
        "prevPage",
        "nextPage",
    ];

    /// The pagination of a page of a list with this many executions.
    pub(super) fn of(total_docs: u64, limit: u64, page: u64) -> Self {
        // Refold counts one page for an empty list.
        let total_pages = total_docs.div_ceil(limit.max(1)).max(1);
        let (has_prev_page, has_next_page) = (page > 1, page < total_pages);
        Self {
            total_docs,
            limit,
            total_pages,
            page,
            paging_counter: page.saturating_sub(1).saturating_mul(limit).saturating_add(1),
            has_prev_page,
            has_next_page,
            prev_page: has_prev_page.then_some(page.saturating_sub(1)),
            next_page: has_next_page.then_some(page.saturating_add(1)),
        }
    }

    /// Writes the value of one member; `None` if the name is no pagination member.
    pub(super) fn write_member(&self, name: &str, out: &mut Vec<u8>) -> Option<()> {
        match name {
            "totalDocs" => serde_json::to_writer(out, &self.total_docs),
            "limit" => serde_json::to_writer(out, &self.limit),
            "totalPages" => serde_json::to_writer(out, &self.total_pages),
            "page" => serde_json::to_writer(out, &self.page),
            "pagingCounter" => serde_json::to_writer(out, &self.paging_counter),
            "hasPrevPage" => serde_json::to_writer(out, &self.has_prev_page),
            "hasNextPage" => serde_json::to_writer(out, &self.has_next_page),
            "prevPage" => serde_json::to_writer(out, &self.prev_page),
            "nextPage" => serde_json::to_writer(out, &self.next_page),
            _ => return None,
        }
        .ok()
    }

    /// Writes a page object: first the upstream's other members, including `docs`, then the pagination.
    fn write(&self, members: &PageMembers<'_>) -> Result<Bytes, NotDocumented> {
        let others = members.0.iter().filter(|(name, _)| !Self::NAMES.contains(&&**name));
        let mut out = Vec::with_capacity(
            others.clone().map(|(name, value)| name.len() + value.get().len() + 8).sum::<usize>() + 256,
        );
        out.push(b'{');
        for (name, value) in others {
            serde_json::to_writer(&mut out, name)?;
            out.push(b':');
            out.extend_from_slice(value.get().as_bytes());
            out.push(b',');
        }
        let pagination = serde_json::to_vec(self)?;
        out.extend_from_slice(&pagination[1..]);
        Ok(out.into())
    }
}

#[cfg(test)]
mod tests;

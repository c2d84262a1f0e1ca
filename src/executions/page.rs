//! A page of the contract: every pagination field present, the `docs` bytes as the upstream sent them.
//!
//! The common case is an upstream page that is complete already: its bytes are handed on untouched, all of them. Only
//! where a field is missing (or null where the documentation has none) the object is written anew around the same `docs`.

use std::borrow::Cow;
use std::fmt;

use bytes::Bytes;
use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::status::Progress;

/// An upstream body that was found to be what the documentation promises.
#[derive(Clone, Debug)]
pub struct Document {
    /// The JSON text.
    pub body: Bytes,
    /// Whether what it shows can still change.
    pub progress: Progress,
    /// How many there are in the list of which it is a page; `None` if it is none.
    pub total: Option<u64>,
}

/// A body that is not what the documentation promises.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("Refold's answer is not the documented JSON: {0}")]
pub struct NotDocumented(String);

impl From<serde_json::Error> for NotDocumented {
    fn from(error: serde_json::Error) -> Self {
        // The parser's own message can quote the document: its position is enough.
        Self(format!("{:?} error at line {}, column {}", error.classify(), error.line(), error.column()))
    }
}

impl Document {
    /// Reads a page of executions or batches and completes its pagination fields; `page` and `limit` are what was asked.
    ///
    /// # Errors
    /// If it is no JSON object with an array `docs` of objects, or its pagination can't be known.
    pub fn page(body: Bytes, page: u64, limit: u32) -> Result<Self, NotDocumented> {
        let Page { docs, given } = from_json(&body)?;
        let total = given.total_docs;
        let (body, total) = match given.complete(page, u64::from(limit), docs.count)? {
            None => (body, total),
            Some(complete) => (complete.write(&from_json(&body)?)?, Some(complete.total_docs)),
        };
        Ok(Self { body, progress: docs.progress, total })
    }

    /// Reads a single execution.
    ///
    /// # Errors
    /// If it is no JSON object.
    pub fn single(body: Bytes) -> Result<Self, NotDocumented> {
        let execution: Execution = from_json(&body)?;
        let progress = execution.0;
        Ok(Self { body, progress, total: None })
    }
}

/// Reads JSON. Whether a text is UTF-8 is seen much faster of all of it than of one string after the other; where it is not, the
/// parser says which strings matter.
pub(super) fn from_json<'a, T: Deserialize<'a>>(body: &'a [u8]) -> serde_json::Result<T> {
    match std::str::from_utf8(body) {
        Ok(text) => serde_json::from_str(text),
        Err(_) => serde_json::from_slice(body),
    }
}

/// An execution, of which only the progress matters. An object and nothing else: derived code would take an array too.
struct Execution(Progress);

impl<'de> Deserialize<'de> for Execution {
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
            type Value = Execution;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an execution object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Execution, A::Error> {
                let mut progress = Progress::Unknown;
                while let Some(member) = map.next_key()? {
                    match member {
                        Member::Status => progress = Progress::of(text(map.next_value()?).as_deref()),
                        Member::Other => {
                            map.next_value::<IgnoredAny>()?;
                        }
                    }
                }
                Ok(Execution(progress))
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

/// The array `docs`, of which only the number and the progress matter.
struct Docs {
    count: u64,
    progress: Progress,
}

impl<'de> Deserialize<'de> for Docs {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Executions;
        impl<'de> Visitor<'de> for Executions {
            type Value = Docs;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an array of executions")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Docs, A::Error> {
                let mut docs = Docs { count: 0, progress: Progress::Settled };
                while let Some(execution) = seq.next_element::<Execution>()? {
                    docs.count += 1;
                    docs.progress = docs.progress.and(execution.0);
                }
                Ok(docs)
            }
        }
        deserializer.deserialize_seq(Executions)
    }
}

/// The members of the page object in the upstream's order, for the one that has to be written anew.
pub(super) struct Members<'a>(pub(super) Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Members<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Name<'a>(#[serde(borrow)] Cow<'a, str>);
        struct Object;
        impl<'de> Visitor<'de> for Object {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a page object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members<'de>, A::Error> {
                let mut members: Vec<(Cow<'de, str>, &'de RawValue)> = Vec::with_capacity(10);
                while let Some((Name(name), value)) = map.next_entry::<Name<'de>, &'de RawValue>()? {
                    members.push((name, value));
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(Object)
    }
}

/// The pagination members that the upstream gave. `prevPage` and `nextPage` may be null, which is a value of theirs.
#[derive(Default)]
#[expect(clippy::option_option, reason = "left out and null are two things")]
struct Given {
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

/// A page object, read in one pass.
struct Page {
    docs: Docs,
    given: Given,
}

/// The members of a page object that mean something here.
#[derive(Clone, Copy, Deserialize, PartialEq)]
#[serde(field_identifier, rename_all = "camelCase")]
enum Member {
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

impl<'de> Deserialize<'de> for Page {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;
        impl<'de> Visitor<'de> for Object {
            type Value = Page;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a page object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Page, A::Error> {
                let (mut docs, mut given, mut seen) = (None, Given::default(), 0_u16);
                while let Some(member) = map.next_key::<Member>()? {
                    let bit = 1 << member as u16;
                    // Readers differ on which of two counts.
                    if seen & bit != 0 && member != Member::Other {
                        return Err(serde::de::Error::custom("a member stands twice"));
                    }
                    seen |= bit;
                    match member {
                        Member::Docs => docs = Some(map.next_value()?),
                        Member::TotalDocs => given.total_docs = map.next_value()?,
                        Member::Limit => given.limit = map.next_value()?,
                        Member::TotalPages => given.total_pages = map.next_value()?,
                        Member::Page => given.page = map.next_value()?,
                        Member::PagingCounter => given.paging_counter = map.next_value()?,
                        Member::HasPrevPage => given.has_prev_page = map.next_value()?,
                        Member::HasNextPage => given.has_next_page = map.next_value()?,
                        Member::PrevPage => given.prev_page = Some(map.next_value()?),
                        Member::NextPage => given.next_page = Some(map.next_value()?),
                        Member::Other => drop(map.next_value::<IgnoredAny>()?),
                    }
                }
                let docs = docs.ok_or_else(|| serde::de::Error::missing_field("docs"))?;
                Ok(Page { docs, given })
            }
        }
        deserializer.deserialize_map(Object)
    }
}

/// The pagination members of the contract, in the documentation's order.
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

impl Given {
    /// The whole pagination, computed from what is given; `None` if all of it was given.
    fn complete(self, asked_page: u64, asked_limit: u64, docs: u64) -> Result<Option<Pagination>, NotDocumented> {
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
        let page = self.page.unwrap_or(asked_page);
        let limit = self.limit.unwrap_or(asked_limit).max(1);
        let before = page.saturating_sub(1).saturating_mul(limit);
        let has_next_page = self.has_next_page.or(match self.next_page {
            Some(next) => Some(next.is_some()),
            None => self.total_pages.map(|pages| page < pages),
        });
        let total_docs = match self.total_docs {
            Some(total) => total,
            // Only the last page shows how many there are.
            None if has_next_page == Some(false) && (docs > 0 || page == 1) => before.saturating_add(docs),
            None => return Err(NotDocumented("`totalDocs` is missing and can't be computed".to_owned())),
        };
        // An empty list has one page, as Refold counts.
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

    /// That of a page of a list with this many executions.
    pub(super) fn of(total_docs: u64, limit: u64, page: u64) -> Self {
        // An empty list has one page, as Refold counts.
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

    /// The value of one member; `None` if it is none of these.
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

    /// The page object: what else the upstream sent first, `docs` among it, then the pagination.
    fn write(&self, members: &Members<'_>) -> Result<Bytes, NotDocumented> {
        let kept = members.0.iter().filter(|(name, _)| !Self::NAMES.contains(&&**name));
        let mut out = Vec::with_capacity(
            kept.clone().map(|(name, value)| name.len() + value.get().len() + 8).sum::<usize>() + 256,
        );
        out.push(b'{');
        for (name, value) in kept {
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

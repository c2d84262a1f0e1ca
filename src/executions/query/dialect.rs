//! The two specifications that the vendor has published for one API.

/// The vendor's specification that the upstream follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// The endpoint's documentation page: dates as dates, `API Call`.
    Documented,
    /// The newer OpenAPI file: date-times, `API_CALL`.
    V3,
}

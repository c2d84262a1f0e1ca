//! Answers to requests that a well-behaved client does not send, as a server gives them that does not validate its input.

use std::str::FromStr;

use http::StatusCode;

/// A lasting behaviour towards bad requests, beside the present fault.
///
/// Its text form, which `POST /simulate/…` takes, is `bad-ids=500` or `unknown-tokens=500,429`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Habit {
    /// The status for an execution id that is not one of MongoDB's, instead of 404: a cast error.
    BadIds(StatusCode),
    /// The statuses for an unknown session token, instead of 401: one of them for each request. A 429 has a `Retry-After` of a
    /// minute.
    UnknownTokens(Vec<StatusCode>),
}

impl FromStr for Habit {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let status = |text: &str| {
            let status: StatusCode = text.parse().map_err(|_| ())?;
            (status.is_client_error() || status.is_server_error()).then_some(status).ok_or(())
        };
        match text.split_once('=').ok_or(())? {
            ("bad-ids", code) => Ok(Self::BadIds(status(code)?)),
            ("unknown-tokens", codes) => {
                Ok(Self::UnknownTokens(codes.split(',').map(status).collect::<Result<_, _>>()?))
            }
            _ => Err(()),
        }
    }
}

/// The habits of a simulator.
#[derive(Debug, Default)]
pub(super) struct Habits {
    bad_ids: Option<StatusCode>,
    unknown_tokens: Vec<StatusCode>,
}

impl Habits {
    /// Adds a habit, or replaces the one of the same kind.
    pub(super) fn set(&mut self, habit: Habit) {
        match habit {
            Habit::BadIds(status) => self.bad_ids = Some(status),
            Habit::UnknownTokens(statuses) => self.unknown_tokens = statuses,
        }
    }

    /// Returns the status for an execution id, if the habits have one.
    pub(super) fn status_of_id(&self, id: &str) -> Option<StatusCode> {
        let is_object_id = id.len() == 24 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
        self.bad_ids.filter(|_| !is_object_id)
    }

    /// Returns the status for an unknown session token, if the habits have one. `random` chooses among several.
    pub(super) fn status_of_unknown_token(&self, random: u64) -> Option<StatusCode> {
        let count = self.unknown_tokens.len();
        let chosen = usize::try_from(random % u64::try_from(count).ok().filter(|count| *count > 0)?).ok()?;
        self.unknown_tokens.get(chosen).copied()
    }
}

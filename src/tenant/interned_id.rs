//! Small numbers for tenant ids, so that a table per tenant is indexed instead of searched by name.

use std::sync::{Mutex, PoisonError};

/// Returns the number of a tenant id. Numbers count from 0, and an id keeps its number for the life of the process, across
/// reloads. The table only grows; ids come from configurations, so there are few.
pub(super) fn intern(id: &str) -> usize {
    static IDS: Mutex<Vec<Box<str>>> = Mutex::new(Vec::new());
    let mut ids = IDS.lock().unwrap_or_else(PoisonError::into_inner);
    ids.iter().position(|interned| **interned == *id).unwrap_or_else(|| {
        ids.push(id.into());
        ids.len() - 1
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_keeps_its_number_and_no_other_id_has_it() {
        let (one, other) = (intern("number-one"), intern("number-other"));
        assert_ne!(one, other);
        assert_eq!((intern("number-one"), intern("number-other")), (one, other));
    }
}

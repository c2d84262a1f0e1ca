//! Numbers for tenants, so that those who keep something for each of them find it without comparing names.

use std::sync::{Mutex, PoisonError};

/// The number of an id: a small one, and the same for as long as the process runs, also when the configuration is read
/// again. Ids come from configurations, so there are few.
pub(super) fn number(id: &str) -> usize {
    static IDS: Mutex<Vec<Box<str>>> = Mutex::new(Vec::new());
    let mut ids = IDS.lock().unwrap_or_else(PoisonError::into_inner);
    ids.iter().position(|known| **known == *id).unwrap_or_else(|| {
        ids.push(id.into());
        ids.len() - 1
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_keeps_its_number_and_no_other_has_it() {
        let (one, other) = (number("number-one"), number("number-other"));
        assert_ne!(one, other);
        assert_eq!((number("number-one"), number("number-other")), (one, other));
    }
}

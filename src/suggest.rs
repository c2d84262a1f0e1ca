//! "Did you mean" suggestions for misspelled configuration keys and query parameters.

/// The candidate nearest to `given`, if it is near enough for `given` to be a typo.
#[must_use]
pub fn suggest<'a>(given: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let given = given.to_lowercase();
    candidates
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(&given, &candidate.to_lowercase()), candidate))
        // Up to a third of the letters wrong is a typo; more is another word.
        .filter(|(distance, candidate)| *distance <= (candidate.chars().count().max(3) / 3).max(1))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::suggest;

    #[test]
    fn a_typo_finds_its_word_and_another_word_finds_none() {
        let names = ["ERRORED", "COMPLETED", "RUNNING"];
        assert_eq!(suggest("eror", names), None);
        assert_eq!(suggest("erored", names), Some("ERRORED"));
        assert_eq!(suggest("RUNING", names), Some("RUNNING"));
        assert_eq!(suggest("banana", names), None);
    }
}

//! A sorted set of Redis: members by score, equal scores in byte order.

/// Members and scores, in order.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct SortedSet(Vec<(f64, String)>);

impl SortedSet {
    /// Adds a member, or changes its score. Scores are whole numbers, as the scripts write them.
    pub(super) fn add(&mut self, member: &str, score: f64) {
        self.remove(member);
        let entry = (score.round_ties_even(), member.to_owned());
        let at = self.0.partition_point(|other| *other < entry);
        self.0.insert(at, entry);
    }

    pub(super) fn remove(&mut self, member: &str) -> bool {
        let before = self.0.len();
        self.0.retain(|(_, other)| other != member);
        self.0.len() < before
    }

    pub(super) fn remove_scores(&mut self, from: f64, below: f64) {
        self.0.retain(|(score, _)| !(from..below).contains(score));
    }

    /// Lowers the score of a member that is there.
    pub(super) fn decrement(&mut self, member: &str) {
        if let Some(score) = self.score(member) {
            self.add(member, score - 1.0);
        }
    }

    pub(super) fn score(&self, member: &str) -> Option<f64> {
        self.0.iter().find(|(_, other)| other == member).map(|(score, _)| *score)
    }

    pub(super) fn rank(&self, member: &str) -> Option<usize> {
        self.0.iter().position(|(_, other)| other == member)
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn scores(&self) -> impl DoubleEndedIterator<Item = f64> {
        self.0.iter().map(|(score, _)| *score)
    }

    pub(super) fn entries(&self) -> &[(f64, String)] {
        &self.0
    }
}

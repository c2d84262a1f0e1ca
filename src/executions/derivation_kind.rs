//! The kinds of derivation: the ways in which a response follows from others.

/// A way in which a response follows from others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DerivationKind {
    /// A part of a larger page.
    Slice,
    /// The executions of a complete list that have a status.
    Status,
    /// The executions of a complete list that have a source.
    Source,
    /// The executions of a complete list that have a type.
    ExecutionType,
}

impl DerivationKind {
    /// All kinds, each at the index that it has as a number.
    pub const ALL: [Self; 4] = [Self::Slice, Self::Status, Self::Source, Self::ExecutionType];

    /// The name: `slice`, or the parameter of the filter.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Slice => "slice",
            Self::Status => "status",
            Self::Source => "execution_source",
            Self::ExecutionType => "execution_type",
        }
    }
}

/// A set of kinds: a response can be a part of a filtered list, and a list can have several filters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DerivationKinds(u8);

impl DerivationKinds {
    /// This set and one more kind.
    #[must_use]
    pub fn with(self, kind: DerivationKind) -> Self {
        Self(self.0 | 1 << kind as u8)
    }

    /// The kinds of both sets.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// The kinds, in the order of [`DerivationKind::ALL`].
    pub fn iter(self) -> impl Iterator<Item = DerivationKind> {
        DerivationKind::ALL.into_iter().filter(move |kind| self.0 & (1 << *kind as u8) != 0)
    }
}

impl FromIterator<DerivationKind> for DerivationKinds {
    fn from_iter<I: IntoIterator<Item = DerivationKind>>(kinds: I) -> Self {
        kinds.into_iter().fold(Self::default(), Self::with)
    }
}

//! Units of settings, as they are written in the file: durations (`250ms`, `10m`), sizes (`16MiB`), counts and shares.
//!
//! [`PositiveDuration`], [`AnyDuration`], [`Count`] and [`Share`] give fields of ordinary types their form in the file:
//! `#[serde(with = "PositiveDuration")] timeout: Duration`. The JSON Schema follows from the same attribute.

use std::fmt;
use std::num::NonZeroU32;
use std::time::Duration;

use serde::de::{self, Deserialize, Deserializer, Visitor};
use serde::{Serialize, Serializer};

use super::schema_as::schema_as;
use super::text::parse_string;

/// A duration: a whole number and `ms`, `s`, `m` or `h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct AnyDuration(pub(super) Duration);

/// A duration that is not zero, for time limits: a limit of zero would refuse everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PositiveDuration(pub(super) Duration);

/// A number of bytes: a whole number, alone or with `KiB`, `MiB` or `GiB`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(u64);

/// A number of bytes that is not 0, for limits: a limit of 0 would refuse everything.
pub(super) struct PositiveSize;

/// A whole number from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Count(pub(super) NonZeroU32);

/// A fraction from 0 to 1, as `f64`.
pub(super) struct Share;

impl ByteSize {
    /// A size of this many bytes.
    #[must_use]
    pub const fn from_bytes(bytes: u64) -> Self {
        Self(bytes)
    }

    /// The number of bytes.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        self.0
    }

    /// The number of bytes as a length in memory; a size that this machine cannot address becomes the largest that it can.
    #[must_use]
    pub fn as_usize(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

/// Converts the number of a default, which must not be zero.
pub(super) const fn non_zero(number: u32) -> NonZeroU32 {
    match NonZeroU32::new(number) {
        Some(number) => number,
        None => panic!("a default count is not zero"),
    }
}

/// Parses a duration; `None` if the text is not one.
pub(super) fn parse_duration(text: &str) -> Option<Duration> {
    let unit = text.find(|letter: char| !letter.is_ascii_digit())?;
    let (number, unit) = text.split_at(unit);
    let milliseconds = match unit.trim() {
        "ms" => 1,
        "s" => 1000,
        "m" => 60 * 1000,
        "h" => 60 * 60 * 1000,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(milliseconds).map(Duration::from_millis)
}

fn parse_size(text: &str) -> Option<u64> {
    let unit = text.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(unit);
    let bytes = match unit.trim() {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(bytes)
}

/// A size with another spelling of a unit (`16MB`, `16m`), in the file's spelling.
fn binary_unit(text: &str) -> Option<String> {
    let unit = text.find(|letter: char| !letter.is_ascii_digit()).filter(|digits| *digits > 0)?;
    let (number, unit) = text.split_at(unit);
    let unit = match unit.trim().to_lowercase().as_str() {
        "k" | "kb" | "kib" => "KiB",
        "m" | "mb" | "mib" => "MiB",
        "g" | "gb" | "gib" => "GiB",
        _ => return None,
    };
    Some(format!("{number}{unit}"))
}

/// Writes the largest unit that divides the duration.
impl fmt::Display for AnyDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let milliseconds = self.0.as_millis();
        let units = [(60 * 60 * 1000, "h"), (60 * 1000, "m"), (1000, "s")];
        match units.into_iter().find(|(unit, _)| milliseconds > 0 && milliseconds.is_multiple_of(*unit)) {
            Some((unit, name)) => write!(f, "{}{name}", milliseconds / unit),
            None if milliseconds == 0 => f.write_str("0s"),
            None => write!(f, "{milliseconds}ms"),
        }
    }
}

/// Writes the largest unit that divides the size.
impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
        match units.into_iter().find(|(unit, _)| self.0 > 0 && self.0.is_multiple_of(*unit)) {
            Some((unit, name)) => write!(f, "{}{name}", self.0 / unit),
            None => write!(f, "{}", self.0),
        }
    }
}

/// Gives a wrapper of a duration its serde form, and the same form to plain `Duration` fields by `#[serde(with = "…")]`.
macro_rules! duration_form {
    ($type:ident, $read:expr) => {
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                Self::deserialize(deserializer).map(Self)
            }
        }

        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                Self::serialize(&self.0, serializer)
            }
        }

        impl $type {
            pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
                parse_string(deserializer, $read)
            }

            /// Writes the duration as text with its largest exact unit, like `2s`.
            pub(super) fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(&AnyDuration(*duration))
            }
        }
    };
}

fn read_duration(text: &str) -> Result<Duration, String> {
    parse_duration(text).ok_or_else(|| {
        if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
            return format!("a duration has a unit; write `\"{text}s\"`, or ms, m or h");
        }
        format!("`{text}` is no duration; write a whole number and ms, s, m or h, like \"2s\"")
    })
}

duration_form!(AnyDuration, read_duration);
duration_form!(PositiveDuration, |text| match read_duration(text)? {
    Duration::ZERO => Err("the duration has to be longer than 0".to_owned()),
    duration => Ok(duration),
});

impl<'de> Deserialize<'de> for ByteSize {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct SizeVisitor;
        impl Visitor<'_> for SizeVisitor {
            type Value = ByteSize;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a size like \"16MiB\", or a number of bytes")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<ByteSize, E> {
                parse_size(text).map(ByteSize).ok_or_else(|| {
                    let example = binary_unit(text).unwrap_or_else(|| "16MiB".to_owned());
                    E::custom(format!(
                        "`{text}` is no size; write a whole number and KiB, MiB or GiB, like \"{example}\""
                    ))
                })
            }

            fn visit_i64<E: de::Error>(self, number: i64) -> Result<ByteSize, E> {
                u64::try_from(number).map(ByteSize).map_err(|_| E::custom("a size can't be negative"))
            }
        }
        deserializer.deserialize_any(SizeVisitor)
    }
}

/// Writes the size as text with its largest exact unit, like `16MiB`.
impl Serialize for ByteSize {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl PositiveSize {
    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ByteSize, D::Error> {
        match ByteSize::deserialize(deserializer)? {
            ByteSize(0) => Err(de::Error::custom("the size has to be larger than 0")),
            size => Ok(size),
        }
    }

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes fields by reference")]
    pub(super) fn serialize<S: Serializer>(size: &ByteSize, serializer: S) -> Result<S::Ok, S::Error> {
        size.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Count {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::deserialize(deserializer).map(Self)
    }
}

impl Serialize for Count {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

/// The serde form of fields of any number type to which a count can be converted.
impl Count {
    pub(super) fn deserialize<'de, T: TryFrom<u32>, D: Deserializer<'de>>(deserializer: D) -> Result<T, D::Error> {
        let number = i64::deserialize(deserializer)?;
        let count = u32::try_from(number).ok().filter(|count| *count > 0).and_then(|count| count.try_into().ok());
        count.ok_or_else(|| de::Error::custom(format!("{number} is not a whole number from 1 to {}", u32::MAX)))
    }

    /// Writes the count as a number.
    pub(super) fn serialize<T: Serialize, S: Serializer>(count: &T, serializer: S) -> Result<S::Ok, S::Error> {
        count.serialize(serializer)
    }
}

impl Share {
    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
        let share = f64::deserialize(deserializer)?;
        if (0.0..=1.0).contains(&share) {
            Ok(share)
        } else {
            Err(de::Error::custom(format!("{share} is no share; write a number from 0 to 1, like 0.1")))
        }
    }

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes fields by reference")]
    pub(super) fn serialize<S: Serializer>(share: &f64, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(*share)
    }
}

schema_as!(AnyDuration, { "type": "string", "pattern": r"^[0-9]+\s*(ms|s|m|h)\s*$" });
schema_as!(PositiveDuration, { "type": "string", "pattern": r"^0*[1-9][0-9]*\s*(ms|s|m|h)\s*$" });
schema_as!(ByteSize, {
    "type": ["string", "integer"],
    "pattern": r"^[0-9]+\s*(B|KiB|MiB|GiB)?\s*$",
    "minimum": 0,
});
schema_as!(PositiveSize, {
    "type": ["string", "integer"],
    "pattern": r"^0*[1-9][0-9]*\s*(B|KiB|MiB|GiB)?\s*$",
    "minimum": 1,
});
schema_as!(Count, { "type": "integer", "minimum": 1, "maximum": u32::MAX });
schema_as!(Share, { "type": "number", "minimum": 0, "maximum": 1 });

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_and_sizes_have_units() {
        assert_eq!(parse_duration("250ms"), Some(Duration::from_millis(250)));
        assert_eq!(parse_duration("10m"), Some(Duration::from_mins(10)));
        assert_eq!(parse_duration("1 h"), Some(Duration::from_hours(1)));
        assert_eq!(parse_size("16MiB"), Some(16 << 20));
        assert_eq!(parse_size("512"), Some(512));
        for text in ["250ms", "10m", "1h", "90s", "0s"] {
            assert_eq!(parse_duration(text).map(|duration| AnyDuration(duration).to_string()), Some(text.to_owned()));
        }
        for text in ["16MiB", "1GiB", "3KiB", "1000", "0"] {
            assert_eq!(parse_size(text).map(|bytes| ByteSize(bytes).to_string()), Some(text.to_owned()));
        }
        for text in ["", "s", "1", "-1s", "1.5s", "1d", "99999999999999999999s", "18446744073709551615h"] {
            assert_eq!(parse_duration(text), None, "{text}");
        }
        for text in ["", "MiB", "-1", "1.5KiB", "1MB", "18446744073709551615GiB"] {
            assert_eq!(parse_size(text), None, "{text}");
        }
    }
}

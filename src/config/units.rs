//! Durations and sizes as people write them: `250ms`, `10m`, `16MiB`.

use std::fmt;
use std::num::NonZeroU32;
use std::time::Duration;

use serde::de::{self, Deserialize, Deserializer, Visitor};
use serde::{Serialize, Serializer};

use super::schema::by_hand;

/// A duration: a whole number and `ms`, `s`, `m` or `h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Length(pub(super) Duration);

/// A duration that is not zero: a bound of zero would refuse everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bound(pub(super) Duration);

/// A number of bytes: a whole number, alone or with `KiB`, `MiB` or `GiB`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Size(pub(super) u64);

/// A whole number from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Count(pub(super) NonZeroU32);

pub(super) fn length(text: &str) -> Option<Duration> {
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

fn size(text: &str) -> Option<u64> {
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

/// As people write it: the largest unit that leaves nothing over.
impl fmt::Display for Length {
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

/// As people write it: the largest unit that leaves nothing over.
impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
        match units.into_iter().find(|(unit, _)| self.0 > 0 && self.0.is_multiple_of(*unit)) {
            Some((unit, name)) => write!(f, "{}{name}", self.0 / unit),
            None => write!(f, "{}", self.0),
        }
    }
}

impl<'de> Deserialize<'de> for Length {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        length(&text).map(Self).ok_or_else(|| {
            de::Error::custom(format!("`{text}` is no duration; write a whole number and ms, s, m or h, like \"2s\""))
        })
    }
}

impl<'de> Deserialize<'de> for Bound {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Length(duration) = Length::deserialize(deserializer)?;
        if duration.is_zero() {
            Err(de::Error::custom("the duration has to be longer than 0"))
        } else {
            Ok(Self(duration))
        }
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Written;
        impl Visitor<'_> for Written {
            type Value = Size;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a size like \"16MiB\", or a number of bytes")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Size, E> {
                size(text).map(Size).ok_or_else(|| {
                    E::custom(format!("`{text}` is no size; write a whole number and KiB, MiB or GiB, like \"16MiB\""))
                })
            }

            fn visit_i64<E: de::Error>(self, number: i64) -> Result<Size, E> {
                u64::try_from(number).map(Size).map_err(|_| E::custom("a size can't be negative"))
            }
        }
        deserializer.deserialize_any(Written)
    }
}

impl<'de> Deserialize<'de> for Count {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let number = i64::deserialize(deserializer)?;
        let count = u32::try_from(number).ok().and_then(NonZeroU32::new);
        count
            .map(Self)
            .ok_or_else(|| de::Error::custom(format!("{number} is not a whole number from 1 to {}", u32::MAX)))
    }
}

/// Written as it would stand in the file: the schema shows defaults.
macro_rules! written {
    ($type:ty, |$value:ident| $write:expr, $schema:tt) => {
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                let $value = self;
                $write.serialize(serializer)
            }
        }

        by_hand!($type, $schema);
    };
}

written!(Length, |length| length.to_string(), {
    "type": "string",
    "pattern": r"^[0-9]+\s*(ms|s|m|h)\s*$",
});
written!(Bound, |bound| Length(bound.0), {
    "type": "string",
    "pattern": r"^0*[1-9][0-9]*\s*(ms|s|m|h)\s*$",
});
written!(Size, |size| size.to_string(), {
    "type": ["string", "integer"],
    "pattern": r"^[0-9]+\s*(B|KiB|MiB|GiB)?\s*$",
    "minimum": 0,
});
written!(Count, |count| count.0.get(), { "type": "integer", "minimum": 1, "maximum": u32::MAX });

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_and_sizes_are_read_as_people_write_them() {
        assert_eq!(length("250ms"), Some(Duration::from_millis(250)));
        assert_eq!(length("10m"), Some(Duration::from_mins(10)));
        assert_eq!(length("1 h"), Some(Duration::from_hours(1)));
        assert_eq!(size("16MiB"), Some(16 << 20));
        assert_eq!(size("512"), Some(512));
        for text in ["250ms", "10m", "1h", "90s", "0s"] {
            assert_eq!(length(text).map(|duration| Length(duration).to_string()), Some(text.to_owned()));
        }
        for text in ["16MiB", "1GiB", "3KiB", "1000", "0"] {
            assert_eq!(size(text).map(|bytes| Size(bytes).to_string()), Some(text.to_owned()));
        }
        for text in ["", "s", "1", "-1s", "1.5s", "1d", "99999999999999999999s", "18446744073709551615h"] {
            assert_eq!(length(text), None, "{text}");
        }
        for text in ["", "MiB", "-1", "1.5KiB", "1MB", "18446744073709551615GiB"] {
            assert_eq!(size(text), None, "{text}");
        }
    }
}

//! What a limit is set to: how it is typed, and how it is shown again.

use std::fmt;
use std::str::FromStr;

use p2pshare::Rate;
use serde::{Deserialize, Serialize};

use crate::render;

/// A limit, or none.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) enum RateSetting {
    Unlimited,
    At(Rate),
}

/// Text that is no rate, or one that is too low.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum BadRate {
    NotARate,
    TooLow,
}

impl RateSetting {
    /// As the library has it.
    pub(crate) const fn rate(self) -> Option<Rate> {
        match self {
            Self::Unlimited => None,
            Self::At(rate) => Some(rate),
        }
    }
}

impl FromStr for RateSetting {
    type Err = BadRate;

    fn from_str(text: &str) -> Result<Self, BadRate> {
        let text = text.strip_suffix("/s").unwrap_or(text);
        let unit_at = text
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(text.len());
        let (number, unit) = text.split_at(unit_at);
        let unit = unit.trim_start().to_ascii_lowercase();
        let unit = UNITS.iter().find(|(name, _)| *name == unit);
        let (Ok(number), Some((_, bytes))) = (number.parse::<f64>(), unit) else {
            return Err(BadRate::NotARate);
        };
        // What is more than a number can be is as good as the largest.
        match (number * bytes).round() as u64 {
            0 if number == 0.0 => Ok(Self::Unlimited),
            bytes => Rate::per_second(bytes)
                .map(Self::At)
                .map_err(|_| BadRate::TooLow),
        }
    }
}

impl fmt::Display for BadRate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotARate => {
                f.write_str("a rate is a number and a unit, as 40MB, 500KB or 2MiB; 0 is none")
            }
            Self::TooLow => {
                let least = render::size(Rate::MIN);
                write!(f, "the lowest rate is {least} a second; 0 is none")
            }
        }
    }
}

impl std::error::Error for BadRate {}

/// What a unit is, in lower case, in bytes.
const UNITS: &[(&str, f64)] = &[
    ("", 1.0),
    ("b", 1.0),
    ("k", 1e3),
    ("kb", 1e3),
    ("m", 1e6),
    ("mb", 1e6),
    ("g", 1e9),
    ("gb", 1e9),
    ("kib", 1024.0),
    ("mib", 1048576.0),
    ("gib", 1073741824.0),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_as_they_are_typed() {
        let rate = |text: &str| text.parse::<RateSetting>();
        let at = |bytes| Ok(RateSetting::At(Rate::per_second(bytes).unwrap()));
        for (text, bytes) in [
            ("40MB", 40_000_000),
            ("500KB", 500_000),
            ("2MiB", 2 << 20),
            ("1.5mb/s", 1_500_000),
            ("20 kB", 20_000),
            ("1G", 1_000_000_000),
            ("8000", 8_000),
        ] {
            assert_eq!(rate(text), at(bytes), "{text}");
        }
        for text in ["0", "0MB", "0.0"] {
            assert_eq!(rate(text), Ok(RateSetting::Unlimited), "{text}");
        }
        for text in [
            "",
            "MB",
            "-1MB",
            "1e9",
            "40 apples",
            "1.2.3MB",
            "inf",
            "NaN",
            "4MBs",
        ] {
            assert_eq!(rate(text), Err(BadRate::NotARate), "{text}");
        }
        for text in ["1", "7.9KB", "0.1"] {
            assert_eq!(rate(text), Err(BadRate::TooLow), "{text}");
        }
    }
}

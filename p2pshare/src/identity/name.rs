//! Names that people give. Each is checked once, in the constructor of its type, and so on both sides
//! of every wire; what holds a [`FileName`] can be joined to a folder without leaving it.

use std::{
    fmt,
    hash::{Hash, Hasher},
    str::FromStr,
};

use serde::{Deserialize, Deserializer, Serialize, de};
use unicode_normalization::{UnicodeNormalization, is_nfc};

use crate::limits::{FILE_NAME_BYTES_MAX, NAME_BYTES_MAX};

/// Why a text cannot be a name.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum NameError {
    /// There is nothing in it.
    #[error("a {kind} name cannot be empty")]
    Empty {
        /// `user`, `group` or `file`.
        kind: &'static str,
    },
    /// It has too many bytes of UTF-8.
    #[error("a {kind} name has at most {max} bytes; this one has {bytes}")]
    TooLong {
        /// `user`, `group` or `file`.
        kind: &'static str,
        /// How many bytes it has.
        bytes: usize,
        /// How many it may have.
        max: usize,
    },
    /// It has a character that such a name must not have.
    #[error("a {kind} name cannot contain {found:?}")]
    BadCharacter {
        /// `user`, `group` or `file`.
        kind: &'static str,
        /// The first such character.
        found: char,
    },
    /// It starts with a character that must not come first.
    #[error("a {kind} name cannot start with {found:?}")]
    BadStart {
        /// `user` or `group`.
        kind: &'static str,
        /// That character.
        found: char,
    },
    /// It is `.` or `..`, which name folders.
    #[error("'{name}' names a folder, not a file")]
    Folder {
        /// The name.
        name: String,
    },
    /// It is not in Unicode's normalization form C, so that it could look like another name.
    #[error("a file name must be in Unicode normalization form C")]
    NotNormalized,
}

macro_rules! account_name {
    ($(#[$doc:meta])* $name:ident, $kind:literal) => {
        $(#[$doc])*
        ///
        /// 1 to 64 of `A-Z a-z 0-9 . _ -`, starting with neither `.` nor `-`. Unique, and compared,
        /// without regard to case; shown as it was created.
        #[derive(Clone, Serialize)]
        pub struct $name(String);

        impl $name {
            /// Checks `name`.
            ///
            /// # Errors
            /// [`NameError`] when it is empty, too long, or has a character that is not allowed.
            pub fn new(name: &str) -> Result<Self, NameError> {
                check_account_name($kind, name)?;
                Ok(Self(name.to_owned()))
            }

            /// As it was created.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }

            /// In lower case: two names are the same exactly when these are.
            #[must_use]
            pub fn folded(&self) -> String {
                self.0.to_ascii_lowercase()
            }
        }

        impl PartialEq for $name {
            fn eq(&self, other: &Self) -> bool {
                self.0.eq_ignore_ascii_case(&other.0)
            }
        }

        impl Eq for $name {}

        impl Hash for $name {
            fn hash<H: Hasher>(&self, state: &mut H) {
                self.folded().hash(state);
            }
        }

        impl PartialOrd for $name {
            fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
                Some(self.cmp(other))
            }
        }

        impl Ord for $name {
            fn cmp(&self, other: &Self) -> std::cmp::Ordering {
                self.folded().cmp(&other.folded())
            }
        }

        name_traits!($name);
    };
}

macro_rules! name_traits {
    ($name:ident) => {
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({:?})"), self.0)
            }
        }

        impl FromStr for $name {
            type Err = NameError;

            fn from_str(text: &str) -> Result<Self, NameError> {
                Self::new(text)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                // Borrowed, so that a hostile length allocates nothing.
                Self::new(<&str>::deserialize(deserializer)?).map_err(de::Error::custom)
            }
        }
    };
}

account_name! {
    /// The name of a user.
    UserName, "user"
}
account_name! {
    /// The name of a group.
    GroupName, "group"
}

/// The name of a file in a group.
///
/// 1 to 255 bytes of UTF-8 in normalization form C, without `/`, `\`, control, bidirectional-control
/// or line-separator characters, and neither `.` nor `..`. Case matters, as it does in files.
#[derive(Clone, Eq, PartialEq, Ord, PartialOrd, Hash, Serialize)]
pub struct FileName(String);

impl FileName {
    /// Checks `name`.
    ///
    /// # Errors
    /// [`NameError`] when it breaks a rule of the type; nothing is mended.
    pub fn new(name: &str) -> Result<Self, NameError> {
        let kind = "file";
        check_length(kind, name, FILE_NAME_BYTES_MAX)?;
        if name == "." || name == ".." {
            return Err(NameError::Folder {
                name: name.to_owned(),
            });
        }
        if let Some(found) = name.chars().find(|&c| is_forbidden_in_files(c)) {
            return Err(NameError::BadCharacter { kind, found });
        }
        if !is_nfc(name) {
            return Err(NameError::NotNormalized);
        }
        Ok(Self(name.to_owned()))
    }

    /// Checks `name` after bringing it to normalization form C, as for a name that a file system gave.
    ///
    /// # Errors
    /// As for [`FileName::new`], but for the form.
    pub fn normalized(name: &str) -> Result<Self, NameError> {
        Self::new(&name.nfc().collect::<String>())
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

name_traits!(FileName);

fn check_account_name(kind: &'static str, name: &str) -> Result<(), NameError> {
    check_length(kind, name, NAME_BYTES_MAX)?;
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if let Some(found) = name.chars().find(|&c| !allowed(c)) {
        return Err(NameError::BadCharacter { kind, found });
    }
    match name.chars().next() {
        Some(found @ ('.' | '-')) => Err(NameError::BadStart { kind, found }),
        _ => Ok(()),
    }
}

fn check_length(kind: &'static str, name: &str, max: usize) -> Result<(), NameError> {
    match name.len() {
        0 => Err(NameError::Empty { kind }),
        bytes if bytes > max => Err(NameError::TooLong { kind, bytes, max }),
        _ => Ok(()),
    }
}

/// Separators of paths, and what could make a name look like another one.
fn is_forbidden_in_files(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '/' | '\\'
            | '\u{061c}' | '\u{200e}' | '\u{200f}'
            | '\u{2028}' | '\u{2029}'
            | '\u{202a}'..='\u{202e}'
            | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn account_names() {
        for good in ["a", "Alice", "a.b_c-9", &"x".repeat(64)] {
            assert_eq!(UserName::new(good).map(|n| n.to_string()), Ok(good.into()));
        }
        for bad in ["", &"x".repeat(65), ".a", "-a", "a b", "a/b", "ä", "a\0"] {
            assert!(UserName::new(bad).is_err(), "{bad:?}");
            assert!(GroupName::new(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn account_names_are_the_same_whatever_their_case() {
        let (shout, quiet) = (
            UserName::new("ALICE").unwrap(),
            UserName::new("alice").unwrap(),
        );
        assert_eq!(shout, quiet);
        assert_eq!(shout.folded(), quiet.folded());
        assert_eq!(shout.as_str(), "ALICE");
    }

    #[test]
    fn file_names() {
        for good in [
            "a",
            "big file.iso",
            "..a",
            ".hidden",
            "ünï.txt",
            &"x".repeat(255),
        ] {
            assert!(FileName::new(good).is_ok(), "{good:?}");
        }
        let bad = [
            "",
            ".",
            "..",
            "a/b",
            "a\\b",
            "a\0",
            "a\nb",
            "a\u{85}",
            "a\u{202e}b",
            "a\u{2066}",
            "a\u{2028}",
            &"x".repeat(256),
            "u\u{308}",
        ];
        for bad in bad {
            assert!(FileName::new(bad).is_err(), "{bad:?}");
        }
        assert_eq!(
            FileName::normalized("u\u{308}").map(|n| n.to_string()),
            Ok("ü".into())
        );
    }

    #[test]
    fn a_bad_name_cannot_come_off_the_wire() {
        let bytes = postcard::to_allocvec("../etc").unwrap();
        assert!(postcard::from_bytes::<FileName>(&bytes).is_err());
        let bytes = postcard::to_allocvec("etc").unwrap();
        assert_eq!(
            postcard::from_bytes::<FileName>(&bytes).unwrap().as_str(),
            "etc"
        );
    }
}

//! Golden bytes: what every message, token and stored value looked like when it was first sent or kept, and
//! has to look like for ever, as annotated hexadecimal in `src/golden/*.txt`.
//!
//! Each line there is `name: bytes` below a comment that says what the bytes are of. Spaces stand where one
//! field ends and the next begins (equal bytes of an id stand together), and mean nothing. Of each value it
//! is checked that it has these bytes, that they give it back, that no part of them does, that nothing may
//! follow them, and that a length that promises too much costs nothing.
//!
//! A new variant does not compile until it is listed by [`variants!`], and fails the test until it has a
//! sample. To write the files anew, and the seeds of the fuzz targets that are made of them:
//!
//! ```text
//! P2PSHARE_GOLDEN=write cargo test -p p2pshare golden
//! ```
//!
//! then look at the difference: lines may come, and none may change or go.

#![allow(clippy::unwrap_used)]

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::{Debug, Write as _},
    fs,
    path::{Path, PathBuf},
};

use data_encoding::HEXLOWER;
use postcard::ser_flavors::Flavor;
use serde::{Serialize, de::DeserializeOwned};

use crate::wire::frame::{FrameError, HEADER_BYTES, Message, decode_body, decode_header, encode};

/// An enum whose variants are listed, so that it can be checked that each has a sample.
pub(crate) trait Variants {
    /// The names of all of them.
    const ALL: &'static [&'static str];

    /// The name of this one.
    fn variant(&self) -> &'static str;
}

/// Lists the variants of an enum. One that is left out does not compile.
macro_rules! variants {
    ($type:ident { $($variant:ident),+ $(,)? }) => {
        impl $crate::golden::Variants for $type {
            const ALL: &'static [&'static str] = &[$(stringify!($variant)),+];

            fn variant(&self) -> &'static str {
                match self {
                    $($type::$variant { .. } => stringify!($variant),)+
                }
            }
        }
    };
}

pub(crate) use variants;

/// Fails unless every variant occurs among `values`.
pub(crate) fn assert_every_variant<'a, T: Variants + 'a>(values: impl IntoIterator<Item = &'a T>) {
    let sampled: BTreeSet<_> = values.into_iter().map(Variants::variant).collect();
    let listed: BTreeSet<_> = T::ALL.iter().copied().collect();
    assert_eq!(sampled, listed, "a variant has no sample");
}

/// One file of golden bytes, held against the samples that it is of.
#[must_use = "only `finish` sees what is in the file and no sample"]
pub(crate) struct Golden {
    name: String,
    kept: BTreeMap<String, Vec<u8>>,
    /// Names, comments and spaced hexadecimal of what was checked, in its order.
    lines: Vec<(String, String, String)>,
}

impl Golden {
    /// The file `src/golden/<name>.txt`.
    pub(crate) fn open(name: &str) -> Self {
        let kept = match is_writing() {
            true => BTreeMap::new(),
            false => read(&path_of(name)),
        };
        Self {
            name: name.to_owned(),
            kept,
            lines: Vec::new(),
        }
    }

    /// Messages, as whole frames. Every variant has to be among them.
    pub(crate) fn messages<M: Message + Debug + Variants>(
        &mut self,
        kind: &str,
        samples: &[(&str, M)],
    ) {
        assert_every_variant(samples.iter().map(|(_, message)| message));
        for (name, message) in samples {
            self.message(&format!("{kind}/{name}"), message);
        }
    }

    /// One message, as a whole frame.
    pub(crate) fn message<M: Message + Debug>(&mut self, name: &str, message: &M) {
        let frame = encode(message).unwrap();
        let (header, body) = frame.split_first_chunk::<HEADER_BYTES>().unwrap();
        let (kind, length) = header.split_at(2);
        let spaced = format!(
            "{} {} {}",
            HEXLOWER.encode(kind),
            HEXLOWER.encode(length),
            spaced(message)
        );
        let decode = |frame: &[u8]| {
            let (header, body) = frame.split_first_chunk::<HEADER_BYTES>()?;
            // A longer frame would be taken for this one and the beginning of another.
            (decode_header::<M>(*header) == Ok(body.len()))
                .then(|| encode(&decode_body::<M>(body).ok()?).ok())
                .flatten()
        };
        self.check(name, message, &frame, spaced, decode);
        assert_refuses_long_frames::<M>();
        // The header fits the body here, so that it is the body that is refused.
        let decode = |body: &[u8]| encode(&decode_body::<M>(body).ok()?).ok();
        assert_refuses_parts(name, body, decode);
        assert_survives_huge_lengths(body, decode);
    }

    /// Values that are kept, or travel within something else. Every variant has to be among them.
    pub(crate) fn values<T: Serialize + DeserializeOwned + Debug + Variants>(
        &mut self,
        kind: &str,
        samples: &[(&str, T)],
    ) {
        assert_every_variant(samples.iter().map(|(_, value)| value));
        for (name, value) in samples {
            self.value(&format!("{kind}/{name}"), value);
        }
    }

    /// One value that is kept, or travels within something else.
    pub(crate) fn value<T: Serialize + DeserializeOwned + Debug>(&mut self, name: &str, value: &T) {
        self.value_saying(name, value, value);
    }

    /// One value whose own form for display would say too little of it, and what to say instead.
    pub(crate) fn value_saying<T: Serialize + DeserializeOwned>(
        &mut self,
        name: &str,
        value: &T,
        saying: &impl Debug,
    ) {
        let bytes = postcard::to_allocvec(value).unwrap();
        let decode = |bytes: &[u8]| match postcard::take_from_bytes::<T>(bytes) {
            Ok((value, [])) => postcard::to_allocvec(&value).ok(),
            _ => None,
        };
        self.check(name, saying, &bytes, spaced(value), decode);
        assert_survives_huge_lengths(&bytes, decode);
    }

    /// Something with a codec of its own: its bytes, and a function that decodes and encodes them again.
    pub(crate) fn bytes(
        &mut self,
        name: &str,
        value: &impl Debug,
        bytes: &[u8],
        again: impl Fn(&[u8]) -> Option<Vec<u8>>,
    ) {
        self.check(name, value, bytes, HEXLOWER.encode(bytes), again);
    }

    fn check(
        &mut self,
        name: &str,
        value: &impl Debug,
        bytes: &[u8],
        spaced: String,
        again: impl Fn(&[u8]) -> Option<Vec<u8>>,
    ) {
        if !is_writing() {
            let golden = self
                .kept
                .remove(name)
                .unwrap_or_else(|| panic!("{name} has no golden bytes; {HOW_TO_WRITE}"));
            let (found, golden) = (HEXLOWER.encode(bytes), HEXLOWER.encode(&golden));
            assert_eq!(found, golden, "the bytes of {name} are not what they were");
        }
        assert_eq!(again(bytes).as_deref(), Some(bytes), "{name} comes back");
        assert_refuses_parts(name, bytes, again);
        let taken = self.lines.iter().any(|(other, ..)| other == name);
        assert!(!taken, "two samples are called {name}");
        self.lines
            .push((name.to_owned(), format!("{value:?}"), spaced));
    }

    /// Fails if the file has golden bytes of something that no longer is; or writes the file.
    pub(crate) fn finish(self) {
        let gone: Vec<_> = self.kept.keys().collect();
        assert!(gone.is_empty(), "no samples of {gone:?}");
        if is_writing() {
            let mut text = String::from(HEAD);
            for (name, comment, spaced) in self.lines {
                write!(text, "\n# {comment}\n{name}: {spaced}\n").unwrap();
            }
            fs::write(path_of(&self.name), text).unwrap();
            for (path, seed) in seeds(&self.name) {
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, seed).unwrap();
            }
        }
    }
}

/// Fails if a part of `bytes`, or more than them, decodes.
fn assert_refuses_parts(name: &str, bytes: &[u8], again: impl Fn(&[u8]) -> Option<Vec<u8>>) {
    for end in 0..bytes.len() {
        assert_eq!(again(&bytes[..end]), None, "{name} cut at {end}");
    }
    for more in [0, 1, 0xff] {
        let longer = [bytes, &[more]].concat();
        assert_eq!(again(&longer), None, "{name} and then {more}");
    }
}

fn assert_refuses_long_frames<M: Message>() {
    for length in [M::BODY_BYTES_MAX as u32 + 1, u32::MAX] {
        let ([k0, k1], [l0, l1, l2, l3]) = (M::KIND.to_le_bytes(), length.to_le_bytes());
        let too_long = FrameError::TooLong {
            bytes: length as usize,
            max: M::BODY_BYTES_MAX,
        };
        let decoded = decode_header::<M>([k0, k1, l0, l1, l2, l3]);
        assert_eq!(decoded, Err(too_long));
    }
}

/// Puts a number that no memory holds in the place of every byte, among them those that announce a length.
/// Whatever that makes of the bytes, it is decoded or refused: to allocate as much would end the test.
fn assert_survives_huge_lengths(bytes: &[u8], again: impl Fn(&[u8]) -> Option<Vec<u8>>) {
    let huge = postcard::to_allocvec(&u64::MAX).unwrap();
    for at in 0..bytes.len() {
        let _ = again(&[&bytes[..at], &huge, &bytes[at + 1..]].concat());
        let _ = again(&[&bytes[..at], &huge].concat());
    }
}

/// The bytes of `value` in hexadecimal, with spaces between its fields.
fn spaced(value: &impl Serialize) -> String {
    postcard::serialize_with_flavor(value, Spaced::default()).unwrap()
}

/// Writes hexadecimal with a space between what was written at once. A byte that was written alone joins
/// the one before if it is the same, so that ids of one repeated byte stand together.
#[derive(Default)]
struct Spaced {
    text: String,
    alone: Option<u8>,
}

impl Flavor for Spaced {
    type Output = String;

    fn try_push(&mut self, byte: u8) -> postcard::Result<()> {
        if self.alone.replace(byte) != Some(byte) {
            self.text.push(' ');
        }
        self.text.push_str(&HEXLOWER.encode(&[byte]));
        Ok(())
    }

    fn try_extend(&mut self, bytes: &[u8]) -> postcard::Result<()> {
        self.alone = None;
        if !bytes.is_empty() {
            self.text.push(' ');
            self.text.push_str(&HEXLOWER.encode(bytes));
        }
        Ok(())
    }

    fn finalize(self) -> postcard::Result<String> {
        Ok(self.text.trim().to_owned())
    }
}

/// What a file of golden bytes holds, by name.
fn read(path: &Path) -> BTreeMap<String, Vec<u8>> {
    let text = fs::read_to_string(path)
        .unwrap_or_else(|error| panic!("{}: {error}; {HOW_TO_WRITE}", path.display()));
    let mut all = BTreeMap::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        if let Some((name, hex)) = line.split_once(": ") {
            let digits: String = hex.split_whitespace().collect();
            let bytes = HEXLOWER.decode(digits.as_bytes()).unwrap();
            let before = all.insert(name.to_owned(), bytes);
            assert_eq!(before, None, "{name} is there twice");
        } else {
            assert_eq!(line, "", "{}", path.display());
        }
    }
    all
}

fn path_of(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("src/golden/{name}.txt"))
}

/// Whether the files are to be written anew.
fn is_writing() -> bool {
    std::env::var_os("P2PSHARE_GOLDEN").is_some_and(|value| value == "write")
}

const HOW_TO_WRITE: &str =
    "if it is new, write it with P2PSHARE_GOLDEN=write cargo test -p p2pshare golden";

const HEAD: &str = "\
# Golden bytes, as src/golden.rs says. What is here was sent or kept: lines may be added, and none may change.
";

/// Which golden bytes fuzzing of a target starts from: those of a file whose names begin so, without so
/// many bytes at their front.
const SEEDS: &[(&str, &str, &str, usize)] = &[
    ("frame", "tracker", "request/create_user", 0),
    ("frame", "tracker", "response/files", 0),
    ("frame", "peer", "open/", 0),
    ("frame", "peer", "page_answer/", 0),
    ("frame", "peer", "swarm_request/", 0),
    ("frame", "ring", "request/accept", 0),
    ("tracker_request", "tracker", "request/", HEADER_BYTES),
    ("tracker_response", "tracker", "response/", HEADER_BYTES),
    ("peer_message", "peer", "open/", HEADER_BYTES),
    ("peer_message", "peer", "page_answer/", HEADER_BYTES),
    ("peer_message", "peer", "swarm_answer/", HEADER_BYTES),
    ("peer_message", "peer", "swarm_request/", HEADER_BYTES),
    ("ring_message", "ring", "request/", HEADER_BYTES),
    ("ring_message", "ring", "answer/", HEADER_BYTES),
    ("ring_message", "ring", "hello/", HEADER_BYTES),
    ("ring_message", "ring", "welcome/", HEADER_BYTES),
    ("ring_message", "ring", "lease_entry", 0),
    ("token", "token", "signed/", 0),
];

/// The seeds of fuzz targets that are made of the golden file `name`: where they are, and their bytes.
fn seeds(name: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus");
    let golden = read(&path_of(name));
    let of_file = SEEDS.iter().filter(|(_, file, ..)| *file == name);
    let mut seeds = Vec::new();
    for (target, file, prefix, skipped) in of_file {
        for (name, bytes) in golden.iter().filter(|(name, _)| name.starts_with(prefix)) {
            let seed = format!("{file}-{}", name.replace('/', "-"));
            seeds.push((corpus.join(target).join(seed), bytes[*skipped..].to_vec()));
        }
    }
    seeds
}

mod tests {
    use super::*;

    #[test]
    fn fuzzing_starts_from_golden_bytes() {
        if is_writing() {
            return;
        }
        let files: BTreeSet<_> = SEEDS.iter().map(|(_, file, ..)| *file).collect();
        for (path, bytes) in files.into_iter().flat_map(seeds) {
            let seed = fs::read(&path)
                .unwrap_or_else(|error| panic!("{}: {error}; {HOW_TO_WRITE}", path.display()));
            assert_eq!(seed, bytes, "{}", path.display());
        }
    }

    #[test]
    fn fields_stand_apart() {
        let value = (7u32, [2u8; 3], Some(300u16), "ab", "", true);
        assert_eq!(spaced(&value), "07 020202 01 ac02 02 6162 00 01");
    }
}

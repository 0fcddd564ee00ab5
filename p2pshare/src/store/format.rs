//! The first thing read from a store: whose it is and which format it has.
//!
//! The row `format` of the store's own table is a magic, the kind of program and a version. It is
//! written, synced, before anything else, and never changed except by a migration. A folder that holds
//! rows but no such row is not ours, and is left alone.

use std::ops::ControlFlow;
use std::path::Path;

use super::backend::{Backend, Change, Changes, Durability, KeyRange};
use super::{StoreError, StoreKind, Table};

/// Checks the format row of a store that was opened, or writes it into an empty one, and returns the
/// number of commits that the store remembers.
pub(super) fn check(engine: &dyn Backend, kind: StoreKind, path: &Path) -> Result<u64, StoreError> {
    let wrong = |found| StoreError::WrongFormat {
        path: path.to_owned(),
        found,
        expected: VERSION,
    };
    let Some(row) = engine.get(Table::Header, FORMAT_KEY)? else {
        if !is_empty(engine, kind)? {
            return Err(wrong(None));
        }
        let mut changes = Changes::default();
        changes.set(
            Table::Header,
            FORMAT_KEY.to_vec(),
            Change::Put(encode(kind)),
        );
        engine.commit(&changes, Durability::Synced)?;
        return Ok(0);
    };
    let (found_kind, version) = decode(&row).ok_or_else(|| wrong(None))?;
    if version != VERSION {
        return Err(wrong(Some(version)));
    }
    if found_kind != kind {
        return Err(StoreError::WrongKind {
            path: path.to_owned(),
            found: found_kind.name(),
            expected: kind.name(),
        });
    }
    match engine.get(Table::Header, COUNTER_KEY)? {
        None => Ok(0),
        Some(row) => row
            .try_into()
            .map(u64::from_be_bytes)
            .map_err(|_| StoreError::Corrupt {
                table: Table::Header.name(),
                what: "the counter of commits is not 8 bytes",
            }),
    }
}

/// Adds the counter row to a batch.
pub(super) fn count(changes: &mut Changes, commits: u64) {
    changes.set(
        Table::Header,
        COUNTER_KEY.to_vec(),
        Change::Put(commits.to_be_bytes().to_vec()),
    );
}

fn is_empty(engine: &dyn Backend, kind: StoreKind) -> Result<bool, StoreError> {
    let mut empty = true;
    for table in kind.tables().iter().chain([&Table::Header]) {
        engine.scan(*table, &KeyRange::all(), &mut |_, _| {
            empty = false;
            ControlFlow::Break(())
        })?;
    }
    Ok(empty)
}

fn encode(kind: StoreKind) -> Vec<u8> {
    let mut row = MAGIC.to_vec();
    row.push(kind.code());
    row.extend(VERSION.to_be_bytes());
    row
}

fn decode(row: &[u8]) -> Option<(StoreKind, u16)> {
    let &[kind, high, low] = row.strip_prefix(MAGIC.as_slice())? else {
        return None;
    };
    Some((StoreKind::from_code(kind)?, u16::from_be_bytes([high, low])))
}

const FORMAT_KEY: &[u8] = b"format";
const COUNTER_KEY: &[u8] = b"commits";
const MAGIC: &[u8; 8] = b"p2pshare";

/// The format of the disk that this version reads and writes.
pub(super) const VERSION: u16 = 1;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_format_row_has_golden_bytes() {
        assert_eq!(encode(StoreKind::Tracker), b"p2pshareT\x00\x01");
        assert_eq!(encode(StoreKind::Peer), b"p2pshareP\x00\x01");
    }

    #[test]
    fn nothing_but_a_whole_format_row_decodes() {
        let row = encode(StoreKind::Peer);
        assert_eq!(decode(&row), Some((StoreKind::Peer, 1)));
        for end in 0..row.len() {
            assert_eq!(decode(&row[..end]), None);
        }
        assert_eq!(decode(b"p2pshareP\x00\x01\x00"), None);
        assert_eq!(decode(b"p2pshareX\x00\x01"), None);
        assert_eq!(decode(b"P2pshareP\x00\x01"), None);
    }
}

//! Pages of what one replica has on disk: of a listing, a scan, or a comparison with another.
//!
//! **Invariant.** One answer looks at a bounded number of rows, whatever it leaves out of them.

use super::decode_row;
use crate::dht::hash_tree::leaf_of;
use crate::dht::row_key;
use crate::limits::{REPLICA_PAGE_BYTES, REPLICA_PAGE_ROWS, SCAN_PAGES_MAX};
use crate::store::{KeyRange, PageLimit, StoreError, Table, Transaction};
use crate::wire::ring::{Ballot, ReplicaAnswer, ReplicaCall, ReplicaRow, RowKey, Slice};

/// A page of what is on this disk, whether that counts or not.
pub(crate) fn own_page(
    view: &Transaction<'_>,
    call: ReplicaCall,
) -> Result<ReplicaAnswer, StoreError> {
    match call {
        ReplicaCall::List {
            partition,
            after,
            limit,
        } => list(view, &partition, after, limit),
        ReplicaCall::Scan {
            first,
            last,
            prefix,
            heads,
            after,
            limit,
        } => {
            let (rows, next) = scan(view, (first, last), &prefix, heads, after, limit)?;
            Ok(ReplicaAnswer::Scanned { rows, next })
        }
        _ => Ok(ReplicaAnswer::Unavailable),
    }
}

fn list(
    view: &Transaction<'_>,
    partition: &[u8],
    after: Option<Vec<u8>>,
    limit: u16,
) -> Result<ReplicaAnswer, StoreError> {
    if RowKey::new(partition, []).is_err() {
        return Ok(ReplicaAnswer::Unavailable);
    }
    let prefix = row_key::encode_partition(partition);
    let mut range = KeyRange::prefix(prefix.clone());
    if let Some(sort) = after {
        range = range.after(&[prefix, sort].concat());
    }
    let page = view.range(Table::Rows, &range, page_limit(limit))?;
    let rows = page.rows.into_iter().map(decode_row);
    Ok(ReplicaAnswer::Rows {
        rows: rows.collect::<Result<_, _>>()?,
        more: page.more,
    })
}

/// A page of the rows of some slices, and the row behind which to go on.
pub(super) fn scan(
    view: &Transaction<'_>,
    (first, last): (Slice, Slice),
    prefix: &[u8],
    heads: bool,
    after: Option<RowKey>,
    limit: u16,
) -> Result<(Vec<ReplicaRow>, Option<RowKey>), StoreError> {
    let (mut rows, mut bytes, mut seen) = (Vec::new(), 0, after);
    let all = row_key::slices(first, last);
    // Rows that are skipped cost time too, so that they bound the page as well.
    for _ in 0..SCAN_PAGES_MAX {
        let range = match &seen {
            None => all.clone(),
            Some(key) if heads => {
                all.clone()
                    .behind(KeyRange::behind_prefix(row_key::encode_partition(
                        key.partition(),
                    )))
            }
            Some(key) => all.clone().after(&row_key::encode(key)),
        };
        let page = view.range(Table::Rows, &range, page_limit(limit))?;
        for stored in page.rows {
            let stored_bytes = stored.0.len() + stored.1.len();
            let row = decode_row(stored)?;
            let is_first = seen
                .as_ref()
                .is_none_or(|seen| seen.partition() != row.key.partition());
            seen = Some(row.key.clone());
            if row.key.partition().starts_with(prefix) && (is_first || !heads) {
                bytes += stored_bytes;
                rows.push(row);
            }
            if rows.len() >= usize::from(limit.max(1)) || bytes >= REPLICA_PAGE_BYTES {
                return Ok((rows, seen));
            }
        }
        if !page.more {
            return Ok((rows, None));
        }
    }
    Ok((rows, seen))
}

pub(super) fn tree_rows(
    view: &Transaction<'_>,
    slice: Slice,
    leaves: u64,
    after: Option<RowKey>,
) -> Result<ReplicaAnswer, StoreError> {
    let (mut rows, mut bytes, mut seen) = (Vec::new(), 0, after.clone());
    let mut next = None;
    // What is in other leaves costs time too, so that it bounds the page as well.
    'pages: for _ in 0..SCAN_PAGES_MAX {
        let mut range = row_key::slices(slice, slice);
        if let Some(key) = &seen {
            range = range.after(&row_key::encode(key));
        }
        let page = view.range(Table::Rows, &range, page_limit(REPLICA_PAGE_ROWS))?;
        next = None;
        for stored in page.rows {
            let ReplicaRow { key, accepted, .. } = decode_row(stored)?;
            seen = Some(key.clone());
            if leaves >> leaf_of(&key) & 1 == 1 {
                bytes += key.partition().len() + key.sort().len() + size_of::<Ballot>();
                rows.push((key, accepted));
            }
            if rows.len() >= usize::from(REPLICA_PAGE_ROWS) || bytes >= REPLICA_PAGE_BYTES {
                next = seen;
                break 'pages;
            }
        }
        if !page.more {
            break;
        }
        next.clone_from(&seen);
    }
    Ok(ReplicaAnswer::Stamps {
        slice,
        after,
        rows,
        next,
    })
}

fn page_limit(rows: u16) -> PageLimit {
    PageLimit {
        rows: usize::from(rows.clamp(1, REPLICA_PAGE_ROWS)),
        bytes: REPLICA_PAGE_BYTES,
    }
}

//! The key of a row as it is on disk: slice (2 bytes, big-endian), length of the partition key (1 byte),
//! partition key, sort key.
//!
//! So the rows of a slice stand together, in it those of a partition, in it in the order of their sort
//! keys, and a listing or a scan is one range.

use super::placement::{slice_of, slice_of_row};
use crate::store::KeyRange;
use crate::wire::ring::{RowKey, Slice};

/// The key on disk.
pub(crate) fn encode(key: &RowKey) -> Vec<u8> {
    let mut bytes = slice_of_row(key).index().to_be_bytes().to_vec();
    bytes.extend(encode_within(key));
    bytes
}

/// What every key on disk of this partition begins with.
pub(crate) fn encode_partition(partition: &[u8]) -> Vec<u8> {
    let mut bytes = slice_of(partition).index().to_be_bytes().to_vec();
    push_partition(&mut bytes, partition);
    bytes
}

/// The keys on disk of the slices from `first` to `last`.
pub(crate) fn slices(first: Slice, last: Slice) -> KeyRange {
    let (first, end) = (
        first.index().to_be_bytes(),
        (last.index() + 1).to_be_bytes(),
    );
    KeyRange::new(first, end)
}

/// The row with this key on disk, unless it is none, or in the wrong slice.
pub(crate) fn decode(bytes: &[u8]) -> Option<RowKey> {
    let (slice, within) = bytes.split_first_chunk()?;
    let key = decode_within(within)?;
    (slice_of_row(&key).index().to_be_bytes() == *slice).then_some(key)
}

/// The key without its slice.
pub(crate) fn encode_within(key: &RowKey) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(1 + key.partition().len() + key.sort().len());
    push_partition(&mut bytes, key.partition());
    bytes.extend(key.sort());
    bytes
}

/// The row with this key.
pub(crate) fn decode_within(bytes: &[u8]) -> Option<RowKey> {
    let (len, rest) = bytes.split_first()?;
    let (partition, sort) = rest.split_at_checked(usize::from(*len))?;
    RowKey::new(partition, sort).ok()
}

fn push_partition(bytes: &mut Vec<u8>, partition: &[u8]) {
    const { assert!(RowKey::PARTITION_BYTES_MAX <= u8::MAX as usize) };
    debug_assert!(partition.len() <= RowKey::PARTITION_BYTES_MAX);
    bytes.push(partition.len() as u8);
    bytes.extend(partition);
}

const _: () = assert!(
    3 + RowKey::PARTITION_BYTES_MAX + RowKey::SORT_BYTES_MAX <= crate::limits::STORE_KEY_BYTES_MAX
);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_key_has_golden_bytes() {
        // Slice 0xba78 >> 2 = 0x2e9e, three bytes of partition, sort key.
        let key = RowKey::new("abc", "s").unwrap();
        assert_eq!(encode(&key), b"\x2e\x9e\x03abcs");
        assert_eq!(encode_partition(b"abc"), b"\x2e\x9e\x03abc");
        assert_eq!(decode(b"\x2e\x9e\x03abcs"), Some(key));
    }

    #[test]
    fn what_is_no_key_does_not_decode() {
        // Truncated, of another slice, without a partition key, of a partition that is cut short.
        for bytes in [
            &b""[..],
            b"\x2e",
            b"\x2e\x9e",
            b"\x2e\x9f\x03abcs",
            b"\x2e\x9e\x00",
            b"\x2e\x9e\x03ab",
        ] {
            assert_eq!(decode(bytes), None, "{bytes:?}");
        }
    }

    proptest! {
        #[test]
        fn keys_of_a_partition_stand_together_in_the_order_of_their_sort_keys(
            partitions in proptest::collection::vec("[a-c]{1,3}", 2),
            sorts in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..4), 2),
        ) {
            let keys: Vec<_> =
                partitions.iter().zip(&sorts).map(|(p, s)| RowKey::new(p.as_str(), s.clone()).unwrap()).collect();
            for key in &keys {
                prop_assert_eq!(decode(&encode(key)), Some(key.clone()));
                prop_assert_eq!(decode_within(&encode_within(key)), Some(key.clone()));
                let same = partitions[0].as_bytes() == key.partition();
                let inside = encode(key).starts_with(&encode_partition(partitions[0].as_bytes()));
                prop_assert_eq!(same, inside);
            }
            if partitions[0] == partitions[1] {
                prop_assert_eq!(encode(&keys[0]).cmp(&encode(&keys[1])), sorts[0].cmp(&sorts[1]));
            }
        }
    }
}

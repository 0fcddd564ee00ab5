//! What the fuzz targets and benches of this repository do with the library's insides: an entry for each of them.
//!
//! It exists only with the private feature `__internals`, lives inside the crate so that nothing else has to be public
//! for it, and promises nothing to anybody else. A fuzz target panics when a promise of the library is broken.

mod benches;
mod decoders;
mod gossip;
mod lease_ops;
mod replicas;
mod ring_ops;

use std::collections::BTreeSet;

pub use benches::{ArrivedPage, ChunkStream, Frames, Picks, TwoBitfields, hash_chunk};
pub use decoders::{
    fuzz_chunk_stream, fuzz_frame, fuzz_gossip, fuzz_peer_message, fuzz_ring_key,
    fuzz_ring_message, fuzz_token, fuzz_tracker_list, fuzz_tracker_request, fuzz_tracker_response,
};
pub use gossip::{GossipCost, gossip_of};
pub use lease_ops::fuzz_lease_ops;
pub use replicas::{Rows, Traffic, TwoReplicas};
pub use ring_ops::{fuzz_anti_entropy, fuzz_row_ops};

use serde::{Deserialize, Serialize};

use crate::content::{Bitfield, Digest, Layout, Manifest, Node, PAGE, page_root, verify_page};
use crate::{CHUNK_SIZE, FileId};

/// Whatever is read as a bitfield keeps its invariant and reads back the same, and changes to one are those of a set.
pub fn fuzz_bitfield(data: &[u8]) {
    if let Ok(bitfield) = postcard::from_bytes::<Bitfield>(data) {
        let model = bitfield.iter_set().collect();
        assert_is_set(&bitfield, &model);
    }
    let Some((&[low, high], changes)) = data.split_first_chunk() else {
        return;
    };
    let len = u32::from(u16::from_le_bytes([low, high])) % 600;
    let mut bitfield = Bitfield::new(len);
    let mut model = BTreeSet::new();
    for change in changes.chunks_exact(2) {
        let index = u32::from(change[0]) + u32::from(change[1] >> 1) * 5;
        if change[1] & 1 == 0 {
            assert_eq!(bitfield.set(index), index < len && model.insert(index));
        } else {
            assert_eq!(bitfield.clear(index), model.remove(&index));
        }
    }
    assert_is_set(&bitfield, &model);
}

fn assert_is_set(bitfield: &Bitfield, model: &BTreeSet<u32>) {
    let len = bitfield.len();
    let missing = (0..len).filter(|index| !model.contains(index));
    assert_eq!(bitfield.count() as usize, model.len());
    assert!(bitfield.iter_set().eq(model.iter().copied()));
    assert!(bitfield.iter_missing().eq(missing));
    let again = Bitfield::from_bytes(len, &bitfield.to_bytes());
    assert_eq!(again.as_ref(), Ok(bitfield));
}

/// Of a page of digests and its proof, as anybody may send them, nothing is believed but the truth, and that is.
///
/// The first byte says how many pages the file has whose last page is claimed; a `PageClaim` follows.
pub fn fuzz_hash_tree_proof(data: &[u8]) {
    let Some((&pages, data)) = data.split_first() else {
        return;
    };
    let Some((truth, id)) = PageClaim::true_of(u32::from(pages), 3) else {
        return;
    };
    assert!(truth.is_believed(id));
    if let Ok(claim) = postcard::from_bytes::<PageClaim>(data) {
        assert_eq!(claim.is_believed(id), claim == truth);
    }
}

/// Digests and a proof, as one peer sends them to another, with the layout and page that they are held against.
#[derive(PartialEq, Serialize, Deserialize)]
struct PageClaim {
    layout: Layout,
    page: u32,
    digests: Vec<Digest>,
    proof: Vec<Node>,
}

impl PageClaim {
    /// The true claim of the last page of a made-up file of so many pages, with so many chunks in the last one.
    fn true_of(pages: u32, last: u32) -> Option<(Self, FileId)> {
        let page = pages.checked_sub(1)?;
        let layout = Layout::new(u64::from(page * PAGE + last) * u64::from(CHUNK_SIZE)).ok()?;
        let digests: Vec<Digest> = (0..last).map(|i| Digest::of(&i.to_le_bytes())).collect();
        let others = (0..page).map(|other| page_root(&[Digest::of(&other.to_be_bytes())]));
        let roots = others.chain([page_root(&digests)]).collect();
        let manifest = Manifest::new(layout, roots).ok()?;
        let proof = manifest.proof(layout.page(page)?);
        let id = manifest.id();
        Some((
            Self {
                layout,
                page,
                digests,
                proof,
            },
            id,
        ))
    }

    fn is_believed(&self, id: FileId) -> bool {
        self.layout.page(self.page).is_some_and(|page| {
            let (digests, proof) = (self.digests.clone(), self.proof.clone());
            verify_page(self.layout, page, digests, proof, id).is_ok()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fuzzing starts from true claims, or it would hardly find its way past the decoder.
    #[test]
    fn the_corpus_holds_true_claims() {
        for pages in [1u8, 2, 3, 7] {
            let (truth, _) = PageClaim::true_of(u32::from(pages), 3).unwrap();
            let expected = [vec![pages], postcard::to_stdvec(&truth).unwrap()].concat();
            let seed = format!(
                "{}/../fuzz/corpus/hash_tree_proof/true-{pages}",
                env!("CARGO_MANIFEST_DIR")
            );
            assert_eq!(std::fs::read(seed).unwrap(), expected);
        }
    }
}

//! What a file is: a length, chunks of a fixed size, their digests, and one id that commits to all of them.
//!
//! Everything here is pure: bytes and digests come in as arguments, and nothing here reads a file or a socket.
//! The invariant of the room: a [`ChunkIndex`] or [`PageIndex`] exists only for a chunk or page of some [`Layout`],
//! and a [`VerifiedPage`] exists only for digests that a [`FileId`] commits to.
#![allow(dead_code, unused_imports)]

mod bitfield;
mod chunk;
mod digest;
mod hash_tree;
mod manifest;

pub(crate) use bitfield::{Bitfield, BitfieldError};
pub use chunk::CHUNK_SIZE;
pub(crate) use chunk::{ChunkIndex, Layout, LayoutError, MAX_LENGTH, PAGE, PageIndex};
pub(crate) use digest::Hasher;
pub use digest::{Digest, FileId, ParseDigestError};
pub(crate) use hash_tree::{
    Node, PROOF_NODES_MAX, ProofError, VerifiedPage, page_root, verify_page,
};
pub(crate) use manifest::{FinishedPage, Manifest, ManifestBuilder, ManifestError};

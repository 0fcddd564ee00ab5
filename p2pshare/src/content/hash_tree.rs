//! The tree over a file's chunk digests, in the shape of RFC 6962, and the proof that a page of digests is in it.
//!
//! A level of the tree is hashed in pairs into the next; an odd node at the end moves up as it is, never doubled. Since
//! a page holds a power of two of digests, every page but the last is a complete subtree, and the tree over the roots
//! of the pages has the root of the tree over all digests. The shape of a proof follows from the length of the file
//! alone. The invariant: a [`VerifiedPage`] exists only for digests that were hashed up to the id of their file.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{CHUNK_SIZE, ChunkIndex, Digest, FileId, Hasher, Layout, PageIndex};

/// A node of the tree: a leaf, an inner node, or a root.
#[derive(Copy, Clone, Eq, PartialEq, Hash, Debug, Serialize, Deserialize)]
pub(crate) struct Node(Digest);

impl Node {
    /// The leaf of a chunk: its digest, hashed after a 0.
    pub(crate) fn leaf(chunk: &Digest) -> Self {
        Self(hash(&[&[0], chunk.as_bytes()]))
    }

    /// The node over two others, hashed after a 1.
    pub(crate) fn parent(left: Self, right: Self) -> Self {
        Self(hash(&[&[1], left.0.as_bytes(), right.0.as_bytes()]))
    }
}

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The id of a file of this layout whose tree has this root.
pub(crate) fn file_id(layout: Layout, root: Node) -> FileId {
    let id = hash(&[
        b"p2pshare/file/1\0",
        &layout.length().to_le_bytes(),
        &CHUNK_SIZE.to_le_bytes(),
        root.0.as_bytes(),
    ]);
    FileId::from_bytes(*id.as_bytes())
}

/// The root of the subtree over the digests of one page. Of no digests, which no page has, it is the hash of nothing.
pub(crate) fn page_root(digests: &[Digest]) -> Node {
    let mut level: Vec<Node> = digests.iter().map(Node::leaf).collect();
    while level.len() > 1 {
        level = parents(&level);
    }
    level.pop().unwrap_or_else(empty)
}

/// The part of the tree above the pages: what it takes to prove any page.
///
/// Takes twice 32 bytes a page: 128 KiB for a file of 1 TiB.
#[derive(Clone, Eq, PartialEq, Debug)]
pub(crate) struct TreeTop {
    /// From the roots of the pages to the root of the file, each level half as long as the one before.
    levels: Vec<Vec<Node>>,
}

impl TreeTop {
    /// Builds the levels above the roots of all pages of a file, given in order.
    pub(crate) fn new(page_roots: Vec<Node>) -> Self {
        let mut levels = Vec::new();
        let mut level = page_roots;
        while level.len() > 1 {
            let above = parents(&level);
            levels.push(level);
            level = above;
        }
        levels.push(level);
        Self { levels }
    }

    /// The roots of the pages, from which all of it can be built again.
    pub(crate) fn page_roots(&self) -> &[Node] {
        self.levels.first().map_or(&[], Vec::as_slice)
    }

    /// The root of the file's tree. Of no pages, which no file has, it is the hash of nothing.
    pub(crate) fn root(&self) -> Node {
        self.levels
            .last()
            .and_then(|level| level.first())
            .copied()
            .unwrap_or_else(empty)
    }

    /// The siblings that lead from the root of `page` to the root of the file, lowest first: at most
    /// [`PROOF_NODES_MAX`], and none for the only page of a file.
    pub(crate) fn proof(&self, page: PageIndex) -> Vec<Node> {
        self.path(page.get())
    }

    fn path(&self, page: u32) -> Vec<Node> {
        let mut index = page as usize;
        let mut path = Vec::new();
        for level in &self.levels {
            // The last node of an odd level has no sibling.
            path.extend(level.get(index ^ 1));
            index /= 2;
        }
        path
    }
}

/// Digests of one page that the id of a file commits to. There is no other way to make one than [`verify_page`].
#[derive(Clone, Eq, PartialEq, Debug)]
pub(crate) struct VerifiedPage {
    file: FileId,
    page: PageIndex,
    first: ChunkIndex,
    digests: Vec<Digest>,
    proof: Vec<Node>,
}

impl VerifiedPage {
    /// The file whose digests these are.
    pub(crate) fn file(&self) -> FileId {
        self.file
    }

    /// Which page of the file this is.
    pub(crate) fn page(&self) -> PageIndex {
        self.page
    }

    /// The digests of the page's chunks, in order.
    pub(crate) fn digests(&self) -> &[Digest] {
        &self.digests
    }

    /// The proof that came with the page, to pass on with it.
    pub(crate) fn proof(&self) -> &[Node] {
        &self.proof
    }

    /// The digest that `chunk` must have, unless it belongs to another page.
    pub(crate) fn digest(&self, chunk: ChunkIndex) -> Option<Digest> {
        let place = chunk.get().checked_sub(self.first.get())?;
        self.digests.get(place as usize).copied()
    }
}

/// Checks that `digests` are those of the chunks of `page` of the file `id`, by a `proof` from [`TreeTop::proof`].
///
/// # Errors
/// [`ProofError`] when there are more or fewer digests or nodes than the layout asks for, or when they do not lead to
/// `id`. Then whoever sent them sent something else than the file has; nothing is said about which part was wrong.
pub(crate) fn verify_page(
    layout: Layout,
    page: PageIndex,
    digests: Vec<Digest>,
    proof: Vec<Node>,
    id: FileId,
) -> Result<VerifiedPage, ProofError> {
    let chunks = layout.chunks_of(page);
    let needed = chunks.len();
    let Some(first) = layout
        .chunk(chunks.start)
        .filter(|_| digests.len() == needed)
    else {
        return Err(ProofError::WrongDigestCount {
            needed,
            found: digests.len(),
        });
    };
    let root = climb(page.get(), layout.page_count(), page_root(&digests), &proof)?;
    if file_id(layout, root) != id {
        return Err(ProofError::OtherFile {
            page: page.get(),
            id,
        });
    }
    Ok(VerifiedPage {
        file: id,
        page,
        first,
        digests,
        proof,
    })
}

/// Digests or a proof that are not those of the page asked for.
#[derive(Copy, Clone, Eq, PartialEq, Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum ProofError {
    /// The page has another number of digests.
    #[error("the page has {needed} digests, not {found}")]
    WrongDigestCount {
        /// How many the page has.
        needed: usize,
        /// How many there were.
        found: usize,
    },
    /// The proof of the page has another number of nodes.
    #[error("the proof of the page has {needed} nodes, not {found}")]
    WrongProofLength {
        /// How many it has.
        needed: usize,
        /// How many there were.
        found: usize,
    },
    /// A digest or a node is not that of the file.
    #[error("the digests of page {page} are not those of the file {id}")]
    OtherFile {
        /// The page that was asked for.
        page: u32,
        /// The file that it was asked for.
        id: FileId,
    },
}

/// The root above node `index` of a level of `count` nodes, given its siblings on the way up.
fn climb(index: u32, count: u32, mut node: Node, proof: &[Node]) -> Result<Node, ProofError> {
    let needed = siblings(index, count).count();
    if proof.len() != needed {
        return Err(ProofError::WrongProofLength {
            needed,
            found: proof.len(),
        });
    }
    for (side, sibling) in siblings(index, count).zip(proof) {
        node = match side {
            Side::Left => Node::parent(*sibling, node),
            Side::Right => Node::parent(node, *sibling),
        };
    }
    Ok(node)
}

/// On which side of the path from node `index` of a level of `count` nodes its siblings stand, lowest first.
fn siblings(mut index: u32, mut count: u32) -> impl Iterator<Item = Side> {
    std::iter::from_fn(move || {
        while count > 1 {
            let side = match index % 2 {
                1 => Some(Side::Left),
                _ if index + 1 < count => Some(Side::Right),
                _ => None,
            };
            index /= 2;
            count = count.div_ceil(2);
            if side.is_some() {
                return side;
            }
        }
        None
    })
}

/// Where a sibling stands.
enum Side {
    Left,
    Right,
}

/// The level above: each pair hashed, an odd node at the end taken as it is.
fn parents(level: &[Node]) -> Vec<Node> {
    level
        .chunks(2)
        .filter_map(|pair| pair.iter().copied().reduce(Node::parent))
        .collect()
}

/// The root of nothing, as RFC 6962 has it.
fn empty() -> Node {
    Node(hash(&[]))
}

fn hash(parts: &[&[u8]]) -> Digest {
    let mut hasher = Hasher::new();
    parts.iter().for_each(|part| hasher.update(part));
    hasher.finish()
}

// limits

/// The most nodes that the proof of a page can have: the longest file has 2^22 pages.
pub(crate) const PROOF_NODES_MAX: usize = 22;

const _: () = assert!(u32::MAX.div_ceil(super::PAGE) == 1 << PROOF_NODES_MAX);

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::super::{Manifest, ManifestBuilder, PAGE};
    use super::*;

    /// The tree hash of RFC 6962, section 2.1, as it is written there.
    fn naive_root(digests: &[Digest]) -> Node {
        match digests {
            [] => Node(Digest::of(b"")),
            [one] => Node::leaf(one),
            _ => {
                let (left, right) = digests.split_at(naive_split(digests.len()));
                Node::parent(naive_root(left), naive_root(right))
            }
        }
    }

    /// The audit path of RFC 6962, section 2.1.1, as it is written there.
    fn naive_path(index: usize, digests: &[Digest]) -> Vec<Node> {
        if digests.len() == 1 {
            return Vec::new();
        }
        let split = naive_split(digests.len());
        let (left, right) = digests.split_at(split);
        let (mut path, sibling) = if index < split {
            (naive_path(index, left), naive_root(right))
        } else {
            (naive_path(index - split, right), naive_root(left))
        };
        path.push(sibling);
        path
    }

    /// The largest power of two below `len`.
    fn naive_split(len: usize) -> usize {
        (0..)
            .map(|n| 1 << n)
            .take_while(|k| *k < len)
            .last()
            .unwrap()
    }

    fn digests(count: u32) -> Vec<Digest> {
        (0..count).map(|i| Digest::of(&i.to_le_bytes())).collect()
    }

    /// The layout of the shortest file with `chunks` chunks.
    fn layout(chunks: u32) -> Layout {
        Layout::new(u64::from(chunks - 1) * u64::from(CHUNK_SIZE) + 1).unwrap()
    }

    fn manifest(layout: Layout, digests: &[Digest]) -> Manifest {
        let mut builder = ManifestBuilder::new(layout);
        digests.iter().for_each(|digest| {
            builder.push(*digest).unwrap();
        });
        builder.finish().unwrap()
    }

    #[test]
    fn root_is_that_of_rfc_6962_for_any_size_of_page() {
        let all = digests(70);
        for count in 1..=70 {
            let digests = &all[..count];
            let root = naive_root(digests);
            for page in [1, 2, 4, 8, 16, 32, 64, 128] {
                let top = TreeTop::new(digests.chunks(page).map(page_root).collect());
                assert_eq!(top.root(), root, "{count} digests in pages of {page}");
            }
        }
    }

    #[test]
    fn proofs_are_the_upper_part_of_rfc_6962_paths_for_any_size_of_page() {
        let all = digests(70);
        for count in 1..=70 {
            let digests = &all[..count];
            for size in [1, 2, 4, 8, 16, 32, 64, 128] {
                let pages: Vec<&[Digest]> = digests.chunks(size).collect();
                let top = TreeTop::new(pages.iter().copied().map(page_root).collect());
                for (i, page) in pages.iter().enumerate() {
                    let proof = top.path(i as u32);
                    // The path of a leaf is its path within the page, then that of the page.
                    for (j, _) in page.iter().enumerate() {
                        let whole = [naive_path(j, page), proof.clone()].concat();
                        assert_eq!(whole, naive_path(i * size + j, digests));
                    }
                    let root = climb(i as u32, pages.len() as u32, page_root(page), &proof);
                    assert_eq!(
                        root,
                        Ok(top.root()),
                        "page {i} of {count} digests by {size}"
                    );
                }
            }
        }
    }

    #[test]
    fn a_proof_leads_to_the_root_from_nowhere_else() {
        for count in 1..=40 {
            let roots: Vec<Node> = digests(count).iter().map(Node::leaf).collect();
            let top = TreeTop::new(roots.clone());
            for (i, root) in (0..).zip(&roots) {
                let proof = top.path(i);
                for j in (0..count).filter(|j| *j != i) {
                    assert_ne!(
                        climb(j, count, *root, &proof),
                        Ok(top.root()),
                        "{i} as {j} of {count}"
                    );
                    assert_ne!(climb(i, count, roots[j as usize], &proof), Ok(top.root()));
                }
                let needed = proof.len();
                for found in (0..=needed + 2).filter(|found| *found != needed) {
                    let other = [&proof[..], &roots[..1], &roots[..1]].concat();
                    let refused = Err(ProofError::WrongProofLength { needed, found });
                    assert_eq!(climb(i, count, *root, &other[..found]), refused);
                }
            }
        }
    }

    #[test]
    fn a_leaf_is_not_a_node() {
        let [left, right] = [Digest::of(b"l"), Digest::of(b"r")];
        let joined = [left.as_bytes().as_slice(), right.as_bytes()].concat();
        let parent = Node::parent(Node(left), Node(right));
        assert_eq!(
            parent,
            Node(Digest::of(&[&[1], joined.as_slice()].concat()))
        );
        assert_ne!(parent, Node(Digest::of(&joined)));
        assert_eq!(
            Node::leaf(&left),
            Node(Digest::of(&[&[0], left.as_bytes().as_slice()].concat()))
        );
    }

    #[test]
    fn nothing_hashes_as_nothing() {
        let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(page_root(&[]).to_string(), empty);
        assert_eq!(TreeTop::new(Vec::new()).root().to_string(), empty);
    }

    #[test]
    fn the_longest_proof() {
        assert_eq!(siblings(0, 1 << 22).count(), PROOF_NODES_MAX);
        assert_eq!(siblings((1 << 22) - 1, 1 << 22).count(), PROOF_NODES_MAX);
    }

    #[test]
    fn one_page_of_a_file_of_one_tebibyte() {
        let layout = Layout::new(1 << 40).unwrap();
        let page = layout.page(1234).unwrap();
        let own = digests(PAGE);
        let mut roots: Vec<Node> = digests(2048).iter().map(Node::leaf).collect();
        roots[1234] = page_root(&own);
        let manifest = Manifest::new(layout, roots).unwrap();
        let proof = manifest.proof(page);
        let verified =
            verify_page(layout, page, own.clone(), proof.clone(), manifest.id()).unwrap();
        let first = 1234 * PAGE;
        for (chunk, expected) in [
            (first - 1, None),
            (first, Some(own[0])),
            (first + PAGE - 1, Some(own[1023])),
            (first + PAGE, None),
        ] {
            assert_eq!(verified.digest(layout.chunk(chunk).unwrap()), expected);
        }
        let other = layout.page(1235).unwrap();
        let refused = Err(ProofError::OtherFile {
            page: 1235,
            id: manifest.id(),
        });
        assert_eq!(
            verify_page(layout, other, own, proof, manifest.id()),
            refused
        );
    }

    #[test]
    fn errors_say_what_was_wrong() {
        let layout = layout(PAGE + 2);
        let digests = digests(PAGE + 2);
        let manifest = manifest(layout, &digests);
        let page = layout.page(1).unwrap();
        let verify = |digests: &[Digest], proof: &[Node]| {
            let error = verify_page(
                layout,
                page,
                digests.to_vec(),
                proof.to_vec(),
                manifest.id(),
            )
            .unwrap_err();
            error.to_string()
        };
        let proof = manifest.proof(page);
        assert_eq!(
            verify(&digests[..2], &[]),
            "the proof of the page has 1 nodes, not 0"
        );
        assert_eq!(
            verify(&digests[..3], &proof),
            "the page has 2 digests, not 3"
        );
        let other = format!(
            "the digests of page 1 are not those of the file {}",
            manifest.id()
        );
        assert_eq!(verify(&digests[..2], &proof), other);
    }

    /// One thing done wrong to a page and its proof.
    #[derive(Clone, Debug)]
    enum Tamper {
        FlipDigest { place: prop::sample::Index, bit: u8 },
        FlipNode { place: prop::sample::Index, bit: u8 },
        FlipId { bit: u8 },
        SwapDigests(prop::sample::Index, prop::sample::Index),
        DropDigest(prop::sample::Index),
        AddDigest(prop::sample::Index),
        DropNode(prop::sample::Index),
        AddNode(prop::sample::Index),
        OtherPage(prop::sample::Index),
        Lengthen(i64),
    }

    fn tamper() -> impl Strategy<Value = Tamper> {
        let place = any::<prop::sample::Index>;
        prop_oneof![
            (place(), any::<u8>()).prop_map(|(place, bit)| Tamper::FlipDigest { place, bit }),
            (place(), any::<u8>()).prop_map(|(place, bit)| Tamper::FlipNode { place, bit }),
            any::<u8>().prop_map(|bit| Tamper::FlipId { bit }),
            (place(), place()).prop_map(|(a, b)| Tamper::SwapDigests(a, b)),
            place().prop_map(Tamper::DropDigest),
            place().prop_map(Tamper::AddDigest),
            place().prop_map(Tamper::DropNode),
            place().prop_map(Tamper::AddNode),
            place().prop_map(Tamper::OtherPage),
            // By up to two chunks: often so little that the number of chunks stays as it was.
            (-(1i64 << 20)..1 << 20).prop_map(Tamper::Lengthen),
        ]
    }

    fn flip(bytes: &[u8; Digest::LEN], bit: u8) -> [u8; Digest::LEN] {
        let mut bytes = *bytes;
        bytes[bit as usize / 8] ^= 1 << (bit % 8);
        bytes
    }

    /// What [`verify_page`] takes.
    #[derive(Clone, PartialEq)]
    struct Claim {
        layout: Layout,
        page: PageIndex,
        digests: Vec<Digest>,
        proof: Vec<Node>,
        id: FileId,
    }

    impl Claim {
        fn verify(self) -> Result<VerifiedPage, ProofError> {
            verify_page(self.layout, self.page, self.digests, self.proof, self.id)
        }

        fn apply(&mut self, tamper: Tamper) {
            let Self {
                layout,
                page,
                digests,
                proof,
                id,
            } = self;
            match tamper {
                Tamper::FlipDigest { place, bit } => {
                    let digest = place.get_mut(digests);
                    *digest = Digest::from_bytes(flip(digest.as_bytes(), bit));
                }
                Tamper::FlipNode { place, bit } => {
                    if !proof.is_empty() {
                        let node = place.get_mut(proof);
                        node.0 = Digest::from_bytes(flip(node.0.as_bytes(), bit));
                    }
                }
                Tamper::FlipId { bit } => *id = FileId::from_bytes(flip(id.as_bytes(), bit)),
                Tamper::SwapDigests(a, b) => {
                    let len = digests.len();
                    digests.swap(a.index(len), b.index(len));
                }
                Tamper::DropDigest(place) => {
                    digests.remove(place.index(digests.len()));
                }
                Tamper::AddDigest(place) => digests.push(*place.get(digests)),
                Tamper::DropNode(place) => {
                    if !proof.is_empty() {
                        proof.remove(place.index(proof.len()));
                    }
                }
                Tamper::AddNode(place) => {
                    proof.insert(place.index(proof.len() + 1), Node(digests[0]));
                }
                Tamper::OtherPage(place) => {
                    *page = layout
                        .page(place.index(layout.page_count() as usize) as u32)
                        .unwrap();
                }
                Tamper::Lengthen(by) => {
                    // A page of another layout is a mistake of the caller, not of the sender.
                    let other = layout.length().checked_add_signed(by);
                    let other = other.and_then(|length| Layout::new(length).ok());
                    if let Some(other) = other.filter(|other| other.page(page.get()).is_some()) {
                        *layout = other;
                    }
                }
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        #[test]
        fn root_of_many_pages_is_that_of_rfc_6962(count in 1u32..6 * PAGE) {
            let digests = digests(count);
            let layout = layout(count);
            prop_assert_eq!(manifest(layout, &digests).id(), file_id(layout, naive_root(&digests)));
        }

        #[test]
        fn whatever_is_tampered_with_is_refused(
            count in prop_oneof![1u32..40, 1u32..5 * PAGE],
            page in any::<prop::sample::Index>(),
            tampers in vec(vec(tamper(), 1..4), 12),
        ) {
            let layout = layout(count);
            let digests = digests(count);
            let manifest = manifest(layout, &digests);
            let page = layout.page(page.index(layout.page_count() as usize) as u32).unwrap();
            let chunks = layout.chunks_of(page);
            let claim = Claim {
                layout,
                page,
                digests: digests[chunks.start as usize..chunks.end as usize].to_vec(),
                proof: manifest.proof(page),
                id: manifest.id(),
            };
            prop_assert!(claim.clone().verify().is_ok());
            for tamper in tampers {
                let mut tampered = claim.clone();
                for step in &tamper {
                    if !tampered.digests.is_empty() {
                        tampered.apply(step.clone());
                    }
                }
                let accepted = tampered.clone().verify().is_ok();
                prop_assert_eq!(accepted, tampered == claim, "{:?}", tamper);
            }
        }
    }
}

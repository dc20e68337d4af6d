//! The Merkle tree over the event lines, after RFC 6962 section 2.1 with SHA-256.

use std::fmt;
use std::str::FromStr;
use std::sync::LazyLock;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest, Sha256};

/// A SHA-256 hash, written as 64 lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Hash([u8; 32]);

/// How many hashes are made side by side at least: for fewer, one after the other is as quick.
const SIDE_BY_SIDE_MIN: usize = 4;

/// Leaves that are made at once, of many: enough to find those of as many blocks, and few enough to take little memory and
/// to have their lines in the cache.
pub(super) const LEAVES_AT_ONCE: usize = 128;

/// A string is no hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a hash is 64 lower-case hexadecimal digits")]
pub struct HashError;

impl Hash {
    /// The hash of a leaf: an event line without its line feed.
    pub fn of_leaf(line: &[u8]) -> Self {
        Self(Sha256::new().chain_update([0]).chain_update(line).finalize().into())
    }

    /// The hashes of leaves, as [`Hash::of_leaf`] gives them, several at a time.
    pub fn of_leaves(lines: &[&[u8]]) -> Vec<Self> {
        match lines.len() >= SIDE_BY_SIDE_MIN && *SIDE_BY_SIDE_IS_RIGHT {
            true => side_by_side(lines),
            false => lines.iter().map(|line| Self::of_leaf(line)).collect(),
        }
    }

    /// The hashes of the nodes over the first and second subtree, the third and fourth, and so on, several at a time.
    fn of_nodes(subtrees: &[Self]) -> Vec<Self> {
        let (pairs, _) = subtrees.as_chunks::<2>();
        match pairs.len() >= SIDE_BY_SIDE_MIN && *SIDE_BY_SIDE_IS_RIGHT {
            true => pairs_side_by_side(pairs),
            false => pairs.iter().map(|[left, right]| Self::of_node(*left, *right)).collect(),
        }
    }

    /// The hash of a node over two subtrees.
    pub(super) fn of_node(left: Self, right: Self) -> Self {
        Self(Sha256::new().chain_update([1]).chain_update(left.0).chain_update(right.0).finalize().into())
    }

    /// Its 32 bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

/// The hashes of leaves, side by side where they have as many blocks: those of each number of blocks come together.
fn side_by_side(lines: &[&[u8]]) -> Vec<Hash> {
    // FIPS 180-4, section 5.1.1: blocks of 64 bytes hold the prefix, the line, a bit and the length in 8 bytes.
    let blocks = |line: &[u8]| (1 + line.len() + 1 + 8).div_ceil(64);
    let mut order: Vec<(usize, usize)> = lines.iter().map(|line| blocks(line)).zip(0..).collect();
    order.sort_unstable();
    let sorted: Vec<&[u8]> = order.iter().map(|(_, place)| lines[*place]).collect();
    let mut made = vec![[0; 32]; lines.len()];
    tape_sha256::hash_many_prefixed(&[0], &sorted, &mut made);
    let mut hashes = vec![Hash([0; 32]); lines.len()];
    for ((_, place), hash) in order.into_iter().zip(made) {
        hashes[place] = Hash(hash);
    }
    hashes
}

fn pairs_side_by_side(pairs: &[[Hash; 2]]) -> Vec<Hash> {
    let (left, right): (Vec<&[u8]>, Vec<&[u8]>) = pairs.iter().map(|[left, right]| (&left.0[..], &right.0[..])).unzip();
    let mut made = vec![[0; 32]; pairs.len()];
    tape_sha256::hash_pairs(&[1], &left, &right, &mut made);
    made.into_iter().map(Hash).collect()
}

/// Whether hashes made side by side are those made one by one. Which way they are made depends on the processor, and tests
/// see but the one they run on: a server looks for itself, once, before anything depends on it.
static SIDE_BY_SIDE_IS_RIGHT: LazyLock<bool> = LazyLock::new(|| {
    let bytes: Vec<u8> = (0..=u8::MAX).cycle().take(400).collect();
    let lines: Vec<&[u8]> = (0..bytes.len()).step_by(5).map(|length| &bytes[length / 2..][..length / 2]).collect();
    let one_by_one: Vec<Hash> = lines.iter().map(|line| Hash::of_leaf(line)).collect();
    let (pairs, _) = one_by_one.as_chunks::<2>();
    let nodes: Vec<Hash> = pairs.iter().map(|[left, right]| Hash::of_node(*left, *right)).collect();
    side_by_side(&lines) == one_by_one && pairs_side_by_side(pairs) == nodes
});

/// Sees to it that [`SIDE_BY_SIDE_IS_RIGHT`] is known.
pub(super) fn look_at_processor() {
    LazyLock::force(&SIDE_BY_SIDE_IS_RIGHT);
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const HEX: &[u8; 16] = b"0123456789abcdef";
        let mut digits = [0; 64];
        for (pair, byte) in digits.chunks_exact_mut(2).zip(self.0) {
            pair.copy_from_slice(&[HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
        }
        f.write_str(std::str::from_utf8(&digits).unwrap_or_default())
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Hash {
    type Err = HashError;

    fn from_str(text: &str) -> Result<Self, HashError> {
        let digit = |byte: u8| match byte {
            b'0'..=b'9' => Ok(byte - b'0'),
            b'a'..=b'f' => Ok(byte - b'a' + 10),
            _ => Err(HashError),
        };
        if text.len() != 64 {
            return Err(HashError);
        }
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
            *byte = digit(pair[0])? << 4 | digit(pair[1])?;
        }
        Ok(Self(bytes))
    }
}

impl Serialize for Hash {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Hash {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(D::Error::custom)
    }
}

/// A tree that only grows, kept as the roots of the complete subtrees it is made of.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tree {
    leaves: u64,
    /// Largest first: one for each binary digit of `leaves` that is set.
    subtrees: Vec<Hash>,
}

impl Tree {
    /// A tree of `leaves` leaves from the roots of its complete subtrees, largest first; `None` where they are not
    /// as many as such a tree has.
    pub fn from_subtrees(leaves: u64, subtrees: Vec<Hash>) -> Option<Self> {
        (subtrees.len() == leaves.count_ones() as usize).then_some(Self { leaves, subtrees })
    }

    /// How many leaves it has.
    pub fn leaves(&self) -> u64 {
        self.leaves
    }

    /// The roots of its complete subtrees, largest first.
    pub fn subtrees(&self) -> &[Hash] {
        &self.subtrees
    }

    /// Adds a leaf by its hash.
    pub fn push(&mut self, leaf: Hash) {
        let mut hash = leaf;
        // Each trailing one of the count is a complete subtree as large as the one that is just full.
        for _ in 0..self.leaves.trailing_ones() {
            let left = self.subtrees.pop().expect("there is a subtree for each digit that is set");
            hash = Hash::of_node(left, hash);
        }
        self.subtrees.push(hash);
        self.leaves += 1;
    }

    /// Adds leaves by their hashes: as [`Tree::push`] for each, but level by level.
    pub fn extend(&mut self, leaves: &[Hash]) {
        let mut level = leaves.to_vec();
        // Of each height there is one subtree at most: the smallest are merged first.
        let mut smallest_first = Vec::new();
        let mut height = 0;
        while !level.is_empty() {
            if self.leaves >> height & 1 == 1 {
                level.insert(0, self.subtrees.pop().expect("there is a subtree for each digit that is set"));
            }
            if level.len() % 2 == 1 {
                smallest_first.extend(level.last());
            }
            level = Hash::of_nodes(&level);
            height += 1;
        }
        self.subtrees.extend(smallest_first.iter().rev());
        self.leaves += leaves.len() as u64;
    }

    /// The hash over all leaves; of the empty tree the hash of nothing.
    pub fn root(&self) -> Hash {
        let mut smallest_first = self.subtrees.iter().rev().copied();
        match smallest_first.next() {
            None => Hash(Sha256::digest([]).into()),
            Some(smallest) => smallest_first.fold(smallest, |right, left| Hash::of_node(left, right)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The definition of RFC 6962, section 2.1, as it stands there.
    fn by_definition(leaves: &[Hash]) -> Hash {
        match leaves {
            [] => Hash(Sha256::digest([]).into()),
            [leaf] => *leaf,
            _ => {
                let (left, right) = leaves.split_at(leaves.len().next_power_of_two() / 2);
                Hash::of_node(by_definition(left), by_definition(right))
            }
        }
    }

    #[test]
    fn hashes_are_made_side_by_side_on_this_machine() {
        assert!(*SIDE_BY_SIDE_IS_RIGHT);
    }

    #[test]
    fn the_roots_are_those_of_the_published_test_vectors() {
        // From the reference implementation of RFC 6962: the tree over these eight inputs.
        let inputs: [&[u8]; 8] = [
            b"",
            b"\x00",
            b"\x10",
            b"\x20\x21",
            b"\x30\x31",
            b"\x40\x41\x42\x43",
            b"\x50\x51\x52\x53\x54\x55\x56\x57",
            b"\x60\x61\x62\x63\x64\x65\x66\x67\x68\x69\x6a\x6b\x6c\x6d\x6e\x6f",
        ];
        let mut tree = Tree::default();
        assert_eq!(tree.root().to_string(), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
        for input in inputs {
            tree.push(Hash::of_leaf(input));
        }
        assert_eq!(tree.root().to_string(), "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328");
    }

    proptest! {
        #[test]
        fn growing_gives_the_root_of_the_definition(count in 0_u32..70) {
            let leaves: Vec<Hash> = (0..count).map(|number| Hash::of_leaf(&number.to_le_bytes())).collect();
            let mut tree = Tree::default();
            leaves.iter().for_each(|leaf| tree.push(*leaf));
            prop_assert_eq!(tree.root(), by_definition(&leaves));
            let again = Tree::from_subtrees(u64::from(count), tree.subtrees().to_vec());
            prop_assert_eq!(again.map(|again| again.root()), Some(tree.root()));
        }

        #[test]
        fn many_leaves_at_once_give_the_tree_of_one_after_the_other(
            batches in proptest::collection::vec(proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..300), 0..40), 0..8),
        ) {
            let (mut at_once, mut one_by_one) = (Tree::default(), Tree::default());
            for batch in &batches {
                let lines: Vec<&[u8]> = batch.iter().map(Vec::as_slice).collect();
                at_once.extend(&Hash::of_leaves(&lines));
                lines.iter().for_each(|line| one_by_one.push(Hash::of_leaf(line)));
                prop_assert_eq!(&at_once, &one_by_one);
            }
        }

        #[test]
        fn a_hash_reads_back(bytes in any::<[u8; 32]>()) {
            prop_assert_eq!(Hash(bytes).to_string().parse(), Ok(Hash(bytes)));
        }
    }
}

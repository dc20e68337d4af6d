//! Paths through the tree of a log, after RFC 6962 sections 2.1.1 and 2.1.2: which nodes they are made of, and what they
//! prove. Pure: the nodes' hashes come from whoever has the lines.

use std::ops::Range;

use super::tree::{Hash, Tree};

/// The subtrees whose hashes are the inclusion path of a leaf in a tree of `leaves` leaves, from the leaf up; each as
/// the leaves it is over, counted from 0. Empty where there is no such leaf.
pub fn inclusion_nodes(leaf: u64, leaves: u64) -> Vec<Range<u64>> {
    let mut nodes = Vec::new();
    let mut tree = 0..leaves;
    while tree.contains(&leaf) && tree.end - tree.start > 1 {
        let middle = tree.start + left_leaves(tree.end - tree.start);
        let is_left = leaf < middle;
        let (left, right) = (tree.start..middle, middle..tree.end);
        let (inner, sibling) = if is_left { (left, right) } else { (right, left) };
        nodes.push(sibling);
        tree = inner;
    }
    nodes.reverse();
    nodes
}

/// The subtrees whose hashes are the consistency path from a tree of `old` leaves to one of `new`; as above. Empty
/// where there is nothing to show: the trees are of one size, or the old one is empty or the larger.
pub fn consistency_nodes(old: u64, new: u64) -> Vec<Range<u64>> {
    let mut nodes = Vec::new();
    if old == 0 || old > new {
        return nodes;
    }
    let mut tree = 0..new;
    while tree.end != old {
        let middle = tree.start + left_leaves(tree.end - tree.start);
        let (left, right) = (tree.start..middle, middle..tree.end);
        let (inner, sibling) = if old <= middle { (left, right) } else { (right, left) };
        nodes.push(sibling);
        tree = inner;
    }
    // A subtree of the old tree that is not all of it has to be told.
    if tree.start > 0 {
        nodes.push(tree);
    }
    nodes.reverse();
    nodes
}

/// The root of a tree of `leaves` leaves, by one of them and its inclusion path; `None` where the path has not as many
/// hashes as such a tree needs.
pub fn root_of_inclusion(leaf: u64, leaves: u64, hash: Hash, path: &[Hash]) -> Option<Hash> {
    if leaf >= leaves {
        return None;
    }
    if leaves == 1 {
        return path.is_empty().then_some(hash);
    }
    let (sibling, inner) = path.split_last()?;
    let left = left_leaves(leaves);
    Some(if leaf < left {
        Hash::of_node(root_of_inclusion(leaf, left, hash, inner)?, *sibling)
    } else {
        Hash::of_node(*sibling, root_of_inclusion(leaf - left, leaves - left, hash, inner)?)
    })
}

/// Whether a path shows that the tree of `new` leaves with root `new_root` begins with all leaves of the tree of `old`
/// leaves with root `old_root`.
pub fn is_consistent(old: u64, old_root: Hash, new: u64, new_root: Hash, path: &[Hash]) -> bool {
    if old == 0 {
        return path.is_empty() && old_root == Tree::default().root();
    }
    roots_of_consistency(old, old_root, new, true, path) == Some((old_root, new_root))
}

/// The roots of the old and of the new tree by a path. `is_all` says that what is left is the old tree from its first
/// leaf on, whose root the path does not hold.
fn roots_of_consistency(old: u64, old_root: Hash, new: u64, is_all: bool, path: &[Hash]) -> Option<(Hash, Hash)> {
    if old >= new {
        let told = match path {
            [] if is_all => old_root,
            [told] if !is_all => *told,
            _ => return None,
        };
        return (old == new).then_some((told, told));
    }
    let (sibling, inner) = path.split_last()?;
    let left = left_leaves(new);
    if old <= left {
        let (old_inner, new_inner) = roots_of_consistency(old, old_root, left, is_all, inner)?;
        return Some((old_inner, Hash::of_node(new_inner, *sibling)));
    }
    let (old_inner, new_inner) = roots_of_consistency(old - left, old_root, new - left, false, inner)?;
    Some((Hash::of_node(*sibling, old_inner), Hash::of_node(*sibling, new_inner)))
}

/// How many leaves the left half of a tree of at least two has: the largest power of two below their number.
fn left_leaves(leaves: u64) -> u64 {
    1 << (leaves - 1).ilog2()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The tree over the inputs of the reference implementation of RFC 6962.
    fn published() -> Vec<Hash> {
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
        inputs.map(Hash::of_leaf).to_vec()
    }

    fn numbered(count: u64) -> Vec<Hash> {
        (0..count).map(|number| Hash::of_leaf(&number.to_le_bytes())).collect()
    }

    fn root(leaves: &[Hash]) -> Hash {
        let mut tree = Tree::default();
        leaves.iter().for_each(|leaf| tree.push(*leaf));
        tree.root()
    }

    fn hashes(leaves: &[Hash], nodes: &[Range<u64>]) -> Vec<Hash> {
        let place = |number: u64| usize::try_from(number).unwrap();
        nodes.iter().map(|node| root(&leaves[place(node.start)..place(node.end)])).collect()
    }

    /// PATH of RFC 6962, section 2.1.1, word for word.
    fn path_by_definition(leaf: usize, leaves: &[Hash]) -> Vec<Hash> {
        if leaves.len() == 1 {
            return Vec::new();
        }
        let k = leaves.len().next_power_of_two() / 2;
        let (mut path, sibling) = if leaf < k {
            (path_by_definition(leaf, &leaves[..k]), root(&leaves[k..]))
        } else {
            (path_by_definition(leaf - k, &leaves[k..]), root(&leaves[..k]))
        };
        path.push(sibling);
        path
    }

    /// SUBPROOF of RFC 6962, section 2.1.2, word for word.
    fn proof_by_definition(m: usize, leaves: &[Hash], is_all: bool) -> Vec<Hash> {
        if m == leaves.len() {
            return if is_all { Vec::new() } else { vec![root(leaves)] };
        }
        let k = leaves.len().next_power_of_two() / 2;
        let (mut path, sibling) = if m <= k {
            (proof_by_definition(m, &leaves[..k], is_all), root(&leaves[k..]))
        } else {
            (proof_by_definition(m - k, &leaves[k..], false), root(&leaves[..k]))
        };
        path.push(sibling);
        path
    }

    fn words(path: &[Hash]) -> Vec<String> {
        path.iter().map(Hash::to_string).collect()
    }

    #[test]
    fn inclusion_paths_are_those_of_the_published_test_vectors() {
        let leaves = published();
        let path = |leaf: u64, count: u64| words(&hashes(&leaves, &inclusion_nodes(leaf, count)));
        assert_eq!(path(0, 1), [""; 0]);
        assert_eq!(
            path(0, 8),
            [
                "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
                "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
                "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
            ]
        );
        assert_eq!(
            path(5, 8),
            [
                "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
                "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
                "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
            ]
        );
        assert_eq!(path(2, 3), ["fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125"]);
        assert_eq!(
            path(1, 5),
            [
                "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
                "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
                "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
            ]
        );
    }

    #[test]
    fn consistency_paths_are_those_of_the_published_test_vectors() {
        let leaves = published();
        let path = |old: u64, new: u64| words(&hashes(&leaves, &consistency_nodes(old, new)));
        assert_eq!(path(1, 1), [""; 0]);
        assert_eq!(
            path(1, 8),
            [
                "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
                "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
                "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
            ]
        );
        assert_eq!(
            path(6, 8),
            [
                "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
                "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
                "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
            ]
        );
        assert_eq!(
            path(2, 5),
            [
                "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
                "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
            ]
        );
    }

    #[test]
    fn sizes_that_make_no_tree_prove_nothing() {
        let [hash] = numbered(1)[..] else { panic!("one") };
        assert_eq!(root_of_inclusion(0, 0, hash, &[]), None);
        assert_eq!(root_of_inclusion(1, 1, hash, &[]), None);
        assert_eq!(root_of_inclusion(u64::MAX - 1, u64::MAX, hash, &[]), None);
        assert!(!is_consistent(2, hash, 1, hash, &[]));
        assert!(!is_consistent(1, hash, u64::MAX, hash, &[]));
        assert!(!is_consistent(0, hash, 1, hash, &[]));
        assert!(is_consistent(0, Tree::default().root(), 1, hash, &[]));
        assert!(inclusion_nodes(3, 3).is_empty() && consistency_nodes(4, 3).is_empty());
    }

    proptest! {
        #[test]
        fn a_leaf_is_proven_by_the_path_of_the_definition_and_by_no_other(
            count in 1_u64..200, leaf in any::<prop::sample::Index>(), other in any::<prop::sample::Index>(),
        ) {
            let leaves = numbered(count);
            let (place, other) = (leaf.index(leaves.len()), other.index(leaves.len()));
            let leaf = place as u64;
            let path = hashes(&leaves, &inclusion_nodes(leaf, count));
            prop_assert_eq!(&path, &path_by_definition(place, &leaves));
            prop_assert_eq!(root_of_inclusion(leaf, count, leaves[place], &path), Some(root(&leaves)));
            if other != place {
                prop_assert_ne!(root_of_inclusion(leaf, count, leaves[other], &path), Some(root(&leaves)));
                prop_assert_ne!(root_of_inclusion(other as u64, count, leaves[place], &path), Some(root(&leaves)));
            }
            let longer = [&path[..], &[leaves[0]]].concat();
            prop_assert_eq!(root_of_inclusion(leaf, count, leaves[place], &longer), None);
            if let Some((_, shorter)) = path.split_last() {
                prop_assert_ne!(root_of_inclusion(leaf, count, leaves[place], shorter), Some(root(&leaves)));
            }
        }

        #[test]
        fn a_tree_is_shown_to_go_on_by_the_path_of_the_definition_and_by_no_other(
            count in 1_u64..200, old in any::<prop::sample::Index>(), changed in any::<prop::sample::Index>(),
        ) {
            let leaves = numbered(count);
            let old = old.index(leaves.len()) + 1;
            let path = hashes(&leaves, &consistency_nodes(old as u64, count));
            prop_assert_eq!(&path, &proof_by_definition(old, &leaves, true));
            let (old_root, new_root) = (root(&leaves[..old]), root(&leaves));
            prop_assert!(is_consistent(old as u64, old_root, count, new_root, &path));
            // A log that was rewritten before the old head cannot make a path.
            let mut rewritten = leaves.clone();
            rewritten[changed.index(old)] = Hash::of_leaf(b"another");
            let path = hashes(&rewritten, &consistency_nodes(old as u64, count));
            prop_assert!(!is_consistent(old as u64, old_root, count, root(&rewritten), &path));
        }

        #[test]
        fn a_node_is_in_the_tree_that_grows_or_made_of_what_is_behind_it(
            count in 2_u64..300, leaf in any::<prop::sample::Index>(),
        ) {
            // What `log_tree` rests on: a node begins where a complete subtree of its size may begin.
            let leaf = leaf.index(usize::try_from(count).unwrap()) as u64;
            for node in inclusion_nodes(leaf, count) {
                let length = node.end - node.start;
                prop_assert!(node.start.is_multiple_of(length.next_power_of_two()));
            }
        }
    }
}

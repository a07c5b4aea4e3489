//! Which region split off from which: a plain value, fed with what placement knows.

use std::collections::BTreeMap;

use bytes::Bytes;
use quorate_proto::{RegionId, key};

/// A split that was seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Split {
    /// The region that gave a part of its range away.
    pub(super) parent: RegionId,
    /// The one that took it.
    pub(super) child: RegionId,
    /// Where they meet.
    pub(super) at: Bytes,
}

/// The regions seen so far.
#[derive(Debug, Default)]
pub(super) struct Lineage {
    /// Start of each region, at the last look.
    starts: BTreeMap<Bytes, RegionId>,
    children: BTreeMap<RegionId, Vec<RegionId>>,
    roots: Vec<RegionId>,
}

impl Lineage {
    /// Looks at all regions, in the order of their keys: id and start. The splits since the last
    /// look; several in a row are told from what they left.
    pub(super) fn observe(&mut self, regions: &[(RegionId, Bytes)]) -> Vec<Split> {
        let first = self.starts.is_empty();
        let known: Vec<RegionId> = self.starts.values().copied().collect();
        let mut splits = Vec::new();
        for (place, (id, start)) in regions.iter().enumerate() {
            if first {
                self.roots.push(*id);
            } else if !known.contains(id) && !self.is_child(*id) {
                // A parent keeps the right end of its range: it is the next region that was known.
                let mut after = regions[place + 1..].iter().map(|(other, _)| *other);
                let parent = after.find(|other| known.contains(other));
                let Some(parent) = parent.or_else(|| self.covering(start)) else { continue };
                let at = regions.get(place + 1).map_or(Bytes::new(), |(_, start)| start.clone());
                self.children.entry(parent).or_default().push(*id);
                splits.push(Split { parent, child: *id, at });
            }
        }
        self.starts = regions.iter().map(|(id, start)| (start.clone(), *id)).collect();
        splits
    }

    fn is_child(&self, id: RegionId) -> bool {
        self.children.values().flatten().any(|child| *child == id)
    }

    /// The region that held a key at the last look.
    fn covering(&self, key: &Bytes) -> Option<RegionId> {
        self.starts.range(..=key.clone()).next_back().map(|(_, id)| *id)
    }

    /// The whole tree, one region a line; at most `most` lines.
    pub(super) fn tree(&self, most: usize) -> Vec<String> {
        let starts: BTreeMap<RegionId, &Bytes> =
            self.starts.iter().map(|(start, id)| (*id, start)).collect();
        let mut lines = Vec::new();
        for root in &self.roots {
            self.branch(*root, "", "", &starts, &mut lines);
        }
        let hidden = lines.len().saturating_sub(most);
        lines.truncate(most);
        if hidden > 0 {
            lines.push(format!("… and {hidden} more"));
        }
        lines
    }

    fn branch(
        &self,
        id: RegionId,
        before: &str,
        below: &str,
        starts: &BTreeMap<RegionId, &Bytes>,
        lines: &mut Vec<String>,
    ) {
        let from = match starts.get(&id) {
            Some(start) if start.is_empty() => "from the first key".to_owned(),
            Some(start) => format!("from {}", key::display(start)),
            None => String::new(),
        };
        lines.push(format!("{before}{id} {from}"));
        let children = self.children.get(&id).map_or(&[][..], Vec::as_slice);
        for (number, child) in children.iter().enumerate() {
            let last = number + 1 == children.len();
            let (branch, rest) = if last { ("└ ", "  ") } else { ("├ ", "│ ") };
            let (before, below) = (format!("{below}{branch}"), format!("{below}{rest}"));
            self.branch(*child, &before, &below, starts, lines);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn regions(list: &[(u64, &'static str)]) -> Vec<(RegionId, Bytes)> {
        list.iter().map(|(id, start)| (RegionId(*id), Bytes::from(*start))).collect()
    }

    #[test]
    fn a_parent_keeps_the_right_end() {
        let mut lineage = Lineage::default();
        assert_eq!(lineage.observe(&regions(&[(4, "")])), []);
        let split = |parent, child, at: &'static str| Split {
            parent: RegionId(parent),
            child: RegionId(child),
            at: Bytes::from(at),
        };
        assert_eq!(lineage.observe(&regions(&[(8, ""), (4, "m")])), [split(4, 8, "m")]);
        assert_eq!(lineage.observe(&regions(&[(8, ""), (4, "m")])), []);
        let two = regions(&[(12, ""), (8, "f"), (16, "m"), (4, "t")]);
        assert_eq!(lineage.observe(&two), [split(8, 12, "f"), split(4, 16, "t")]);
        assert_eq!(
            lineage.tree(10),
            ["r4 from t", "├ r8 from f", "│ └ r12 from the first key", "└ r16 from m"]
        );
        assert_eq!(lineage.tree(2), ["r4 from t", "├ r8 from f", "… and 2 more"]);
    }
}

//! Ids as people write them: as they are shown, or as bare numbers.

use std::fmt;

use quorate_proto::{RegionId, StoreId};

/// `17` or `r17`.
pub(crate) fn region_id(text: &str) -> Result<RegionId, String> {
    number(text, 'r').map(RegionId).ok_or_else(|| "a region is written as 17 or r17".to_owned())
}

/// `2` or `s2`.
pub(crate) fn store_id(text: &str) -> Result<StoreId, String> {
    number(text, 's').map(StoreId).ok_or_else(|| "a store is written as 2 or s2".to_owned())
}

fn number(text: &str, letter: char) -> Option<u64> {
    text.strip_prefix(letter).unwrap_or(text).parse().ok().filter(|number| *number > 0)
}

/// A member of a Raft group: a region's replica on a store, or a placement member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// `r7/s4`
    Replica(RegionId, StoreId),
    /// `placement/4`
    Placement(u64),
}

impl Target {
    /// As the wire says it: the region, 0 for placement, and the node.
    pub(crate) fn wire(self) -> (u64, u64) {
        match self {
            Self::Replica(region, store) => (region.get(), store.get()),
            Self::Placement(member) => (0, member),
        }
    }
    /// From the wire's words.
    pub(crate) fn of(region: u64, node: u64) -> Self {
        match region {
            0 => Self::Placement(node),
            region => Self::Replica(RegionId(region), StoreId(node)),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Replica(region, store) => write!(f, "{region}/{store}"),
            Self::Placement(member) => write!(f, "placement/{member}"),
        }
    }
}

/// `r7/s4` or `placement/4`.
pub(crate) fn target(text: &str) -> Result<Target, String> {
    let wrong = || {
        "a member is written as r7/s4 (the replica of region r7 on store s4) or placement/4 (the \
         placement member 4)"
            .to_owned()
    };
    let (group, node) = text.split_once('/').ok_or_else(wrong)?;
    if group == "placement" {
        return number(node, 'm').map(Target::Placement).ok_or_else(wrong);
    }
    match (region_id(group), store_id(node)) {
        (Ok(region), Ok(store)) => Ok(Target::Replica(region, store)),
        (Err(_), _) | (_, Err(_)) => Err(wrong()),
    }
}

/// A group of members: a region, or placement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Group {
    /// `r7`
    Region(RegionId),
    /// `placement`
    Placement,
}

/// `r7` or `placement`.
pub(crate) fn group(text: &str) -> Result<Group, String> {
    if text == "placement" {
        return Ok(Group::Placement);
    }
    region_id(text)
        .map(Group::Region)
        .map_err(|_| "a group is written as r7 or placement".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_read_as_they_are_shown() {
        assert_eq!(region_id("r17"), Ok(RegionId(17)));
        assert_eq!(region_id("17"), Ok(RegionId(17)));
        assert_eq!(store_id("s2"), Ok(StoreId(2)));
        assert!(region_id("s17").is_err());
        assert!(store_id("0").is_err());
    }

    #[test]
    fn a_target_names_a_replica_or_a_placement_member() {
        let replica = Target::Replica(RegionId(7), StoreId(4));
        assert_eq!(target("r7/s4"), Ok(replica));
        assert_eq!(target("7/4"), Ok(replica));
        assert_eq!(target("placement/4"), Ok(Target::Placement(4)));
        for wrong in ["r7", "s4/r7", "placement/", "placement/x", "r7/s4/1", ""] {
            assert!(target(wrong).is_err_and(|words| words.contains("r7/s4")), "{wrong}");
        }
        for shown in ["r7/s4", "placement/4"] {
            let parsed = target(shown).map(|target| (target.to_string(), target.wire()));
            let (text, (region, node)) = parsed.unwrap_or_default();
            assert_eq!(
                (text.as_str(), Target::of(region, node).to_string().as_str()),
                (shown, shown)
            );
        }
        assert_eq!(group("placement"), Ok(Group::Placement));
        assert_eq!(group("r3"), Ok(Group::Region(RegionId(3))));
        assert!(group("s3").is_err());
    }
}

//! How replicas and leaders are spread over stores: a plain value, made from what placement knows.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use quorate_client::placement::RegionInfo;
use quorate_proto::limits::SENTINEL_START;
use quorate_proto::{Role, StoreId};

use crate::screen;

/// Replicas and leaders of each store, without the sentinel region.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Spread {
    stores: BTreeMap<StoreId, Counts>,
}

/// What one store has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    /// Replicas that vote.
    pub(super) voters: u64,
    /// Replicas that do not.
    pub(super) learners: u64,
    /// Regions that it leads.
    pub(super) leaders: u64,
}

impl Spread {
    /// Of these stores, which may have nothing.
    pub(super) fn of(regions: &[RegionInfo], stores: &[StoreId]) -> Self {
        let mut counts: BTreeMap<StoreId, Counts> =
            stores.iter().map(|store| (*store, Counts::default())).collect();
        for info in ordinary(regions) {
            for peer in &info.region.peers {
                let Some(count) = counts.get_mut(&peer.store) else { continue };
                match peer.role {
                    Role::Voter | Role::IncomingVoter | Role::DemotingVoter => count.voters += 1,
                    Role::Learner => count.learners += 1,
                }
            }
            if let Some(count) = info.leader.and_then(|leader| counts.get_mut(&leader.store)) {
                count.leaders += 1;
            }
        }
        Self { stores: counts }
    }

    /// What a store has.
    pub(super) fn on(&self, store: StoreId) -> Counts {
        self.stores.get(&store).copied().unwrap_or_default()
    }

    /// Largest minus smallest number of voters, over the mean, in percent.
    pub(super) fn replica_skew(&self) -> f64 {
        skew(self.stores.values().map(|counts| counts.voters))
    }

    /// The same of leaders.
    pub(super) fn leader_skew(&self) -> f64 {
        skew(self.stores.values().map(|counts| counts.leaders))
    }

    /// True where stores differ by one, or by a tenth of the mean, at the most.
    pub(super) fn is_even(&self) -> bool {
        let even = |of: fn(&Counts) -> u64| {
            let counts = self.stores.values().map(of);
            let (least, most) = (counts.clone().min(), counts.clone().max());
            let apart = most.unwrap_or(0) - least.unwrap_or(0);
            apart <= (counts.sum::<u64>() / self.stores.len().max(1) as u64 / 10).max(1)
        };
        even(|counts| counts.voters) && even(|counts| counts.leaders)
    }

    /// A row for each store.
    pub(super) fn rows(&self) -> Vec<String> {
        let most = |of: fn(&Counts) -> u64| self.stores.values().map(of).max().unwrap_or(0);
        let (replicas, leaders) = (most(|c| c.voters + c.learners), most(|c| c.leaders));
        self.stores
            .iter()
            .map(|(store, counts)| {
                let all = counts.voters + counts.learners;
                let learning = match counts.learners {
                    0 => String::new(),
                    some => format!(" ({some} learners)"),
                };
                format!(
                    "{store:<4} replicas {} {all:>4}{learning}   leaders {} {:>4}",
                    screen::bar(all, replicas),
                    screen::bar(counts.leaders, leaders),
                    counts.leaders
                )
            })
            .collect()
    }

    /// All of it in a few words.
    pub(super) fn words(&self) -> String {
        let each = |of: fn(&Counts) -> u64| {
            let counts = self.stores.values().map(|counts| of(counts).to_string());
            counts.collect::<Vec<_>>().join("/")
        };
        format!("replicas {}, leaders {}", each(|c| c.voters), each(|c| c.leaders))
    }
}

fn skew(counts: impl Iterator<Item = u64> + Clone) -> f64 {
    let (least, most) = (counts.clone().min().unwrap_or(0), counts.clone().max().unwrap_or(0));
    let (sum, count) = counts.fold((0, 0), |(sum, count), one| (sum + one, count + 1));
    if sum == 0 {
        return 0.0;
    }
    (most - least) as f64 * 100.0 * f64::from(count) / sum as f64
}

/// The regions without the sentinel.
pub(super) fn ordinary(regions: &[RegionInfo]) -> impl Iterator<Item = &RegionInfo> {
    regions.iter().filter(|info| info.region.range.start.as_ref() != SENTINEL_START)
}

/// Voters of a region before and after the joint change that it is in; both are the same where it
/// is in none.
pub(super) fn voters(info: &RegionInfo) -> (usize, usize) {
    let count = |wanted: &[Role]| {
        info.region.peers.iter().filter(|peer| wanted.contains(&peer.role)).count()
    };
    (count(&[Role::Voter, Role::DemotingVoter]), count(&[Role::Voter, Role::IncomingVoter]))
}

/// Those of these places, by their numbers, whose region that store leads. Regions are in the order
/// of their keys.
pub(super) fn led_by(store: StoreId, regions: &[RegionInfo], places: &[Bytes]) -> BTreeSet<usize> {
    let of = |place: &Bytes| {
        let after = regions.partition_point(|info| info.region.range.start <= *place);
        after.checked_sub(1).and_then(|at| regions[at].leader)
    };
    let led = |(_, place): &(usize, &Bytes)| of(place).is_some_and(|peer| peer.store == store);
    places.iter().enumerate().filter(led).map(|(number, _)| number).collect()
}

#[cfg(test)]
mod tests {
    use quorate_proto::{Epoch, KeyRange, Peer, PeerId, Region, RegionId};

    use super::*;

    fn region(start: &'static [u8], peers: &[(u64, Role)]) -> RegionInfo {
        let peers: Vec<Peer> = peers
            .iter()
            .map(|(store, role)| Peer { id: PeerId(*store), store: StoreId(*store), role: *role })
            .collect();
        let leader = peers.first().copied();
        let range = KeyRange::new(start, Bytes::new());
        let epoch = Epoch { conf_ver: 1, version: 1 };
        RegionInfo { region: Region { id: RegionId(1), range, epoch, peers }, leader }
    }

    #[test]
    fn skew_is_the_widest_difference_over_the_mean() {
        let voters = |stores: &[u64]| -> Vec<(u64, Role)> {
            stores.iter().map(|store| (*store, Role::Voter)).collect()
        };
        let regions = [
            region(b"a", &voters(&[1, 2, 3])),
            region(b"b", &voters(&[2, 1, 3])),
            region(b"c", &[(3, Role::Voter), (1, Role::Voter), (4, Role::Learner)]),
            region(SENTINEL_START, &voters(&[1, 2, 3])),
        ];
        let stores: Vec<StoreId> = (1..=4).map(StoreId).collect();
        let spread = Spread::of(&regions, &stores);
        assert_eq!(spread.words(), "replicas 3/2/3/0, leaders 1/1/1/0");
        assert_eq!(spread.on(StoreId(4)), Counts { learners: 1, ..Counts::default() });
        assert_eq!(spread.replica_skew(), 150.0);
        assert_eq!(Spread::of(&regions, &stores[..3]).leader_skew(), 0.0);
        assert_eq!(spread.rows().len(), 4);
        assert!(!spread.is_even() && Spread::of(&regions, &stores[..3]).is_even());
    }

    #[test]
    fn a_place_belongs_to_the_region_that_holds_it() {
        let led = |start: &'static [u8], store| region(start, &[(store, Role::Voter)]);
        let regions = [led(b"", 1), led(b"d", 2), led(b"m", 1)];
        let places = ["a", "d", "k", "x"].map(Bytes::from);
        assert_eq!(led_by(StoreId(1), &regions, &places), [0, 3].into());
        assert_eq!(led_by(StoreId(2), &regions, &places), [1, 2].into());
        assert_eq!(led_by(StoreId(3), &regions, &places), [].into());
    }

    #[test]
    fn both_sides_of_a_joint_change_are_counted() {
        let joint = region(
            b"",
            &[
                (1, Role::Voter),
                (2, Role::Voter),
                (3, Role::DemotingVoter),
                (4, Role::IncomingVoter),
                (5, Role::Learner),
            ],
        );
        assert_eq!(voters(&joint), (3, 3));
    }
}

#![allow(clippy::unwrap_used)]
//! Golden scripts for the router, and the router against a naive model.

use proptest::prelude::*;
use quorate_proto::{Epoch, KeyRange};

use super::*;

fn peer(store: u64) -> Peer {
    Peer { id: PeerId(100 + store), store: StoreId(store), role: Role::Voter }
}

/// A region on s1, s2 and s3.
fn region(id: u64, start: &str, end: &str, version: u64) -> Region {
    Region {
        id: RegionId(id),
        range: KeyRange::new(start.to_owned(), end.to_owned()),
        epoch: Epoch { conf_ver: 1, version },
        peers: vec![peer(1), peer(2), peer(3)],
    }
}

fn router(regions: &[(u64, &str, &str)]) -> Router {
    let mut router = Router::default();
    for (id, start, end) in regions {
        assert!(router.insert(region(*id, start, end, 1), Some(PeerId(101))));
    }
    router
}

fn found(router: &Router, key: &str) -> Option<u64> {
    router.lookup(key.as_bytes()).map(|route| route.region.id.0)
}

fn target(router: &Router, key: &str) -> u64 {
    router.lookup(key.as_bytes()).unwrap().target().unwrap().store.0
}

#[test]
fn floor_lookup_respects_both_ends_and_gaps() {
    let router = router(&[(1, "", "c"), (2, "c", "f"), (4, "k", "")]);
    let want = [("", 1), ("b", 1), ("c", 2), ("ezz", 2), ("k", 4), ("zz", 4)];
    for (key, id) in want {
        assert_eq!(found(&router, key), Some(id), "{key}");
    }
    assert_eq!(found(&router, "f"), None);
    assert_eq!(found(&router, "j"), None);
}

#[test]
fn lookup_below_finds_the_keys_before_an_end() {
    let router = router(&[(1, "", "c"), (2, "c", "f"), (4, "k", "")]);
    let below = |end: &str| router.lookup_below(end.as_bytes()).map(|route| route.region.id.0);
    assert_eq!(below("c"), Some(1));
    assert_eq!(below("d"), Some(2));
    assert_eq!(below("f"), Some(2));
    assert_eq!(below("g"), None, "the keys just below g are in no cached region");
    assert_eq!(below(""), Some(4));
}

#[test]
fn a_split_is_learnt_from_the_refusal() {
    let mut router = router(&[(1, "a", "z")]);
    let refused = region(1, "a", "z", 1);
    let children = vec![region(1, "a", "m", 2), region(7, "m", "z", 2)];
    assert_eq!(router.epoch_not_match(&refused, StoreId(2), children), Advice::Now);
    assert_eq!((found(&router, "b"), found(&router, "n")), (Some(1), Some(7)));
    assert_eq!(target(&router, "b"), 1, "the parent's leader stays");
    assert_eq!(target(&router, "n"), 2, "the child is asked for where the answer came from");
}

#[test]
fn a_second_request_with_the_old_epoch_goes_on_at_once() {
    let mut router = router(&[(1, "a", "z")]);
    let refused = region(1, "a", "z", 1);
    let children = || vec![region(1, "a", "m", 2), region(7, "m", "z", 2)];
    router.epoch_not_match(&refused, StoreId(2), children());
    assert_eq!(router.epoch_not_match(&refused, StoreId(2), children()), Advice::Now);
    assert_eq!(router.len(), 2);
}

#[test]
fn a_store_that_is_behind_is_waited_for() {
    let mut router = Router::default();
    router.insert(region(1, "a", "m", 5), Some(PeerId(101)));
    let advice =
        router.epoch_not_match(&region(1, "a", "m", 5), StoreId(1), vec![region(1, "a", "z", 4)]);
    assert_eq!(advice, Advice::Pause);
    assert_eq!(found(&router, "b"), Some(1), "the newer description stays");
    assert_eq!(found(&router, "n"), None);
}

#[test]
fn a_refusal_without_regions_asks_placement() {
    let mut router = router(&[(1, "a", "z")]);
    let advice = router.epoch_not_match(&region(1, "a", "z", 1), StoreId(1), Vec::new());
    assert_eq!(advice, Advice::Ask);
    assert_eq!(found(&router, "b"), None);
}

#[test]
fn a_merge_evicts_what_it_took_over() {
    let mut router = router(&[(1, "a", "m"), (2, "m", "z")]);
    assert!(router.insert(region(2, "a", "z", 3), None));
    assert_eq!((found(&router, "b"), found(&router, "n")), (Some(2), Some(2)));
    assert!(!router.insert(region(1, "a", "m", 2), None), "what was merged away stays away");
    assert_eq!(found(&router, "b"), Some(2));
}

#[test]
fn a_leader_hint_is_followed_and_a_late_one_is_not() {
    let mut router = router(&[(1, "a", "z")]);
    assert_eq!(router.not_leader(RegionId(1), peer(1), Some(peer(3))), Advice::Now);
    assert_eq!(target(&router, "b"), 3);
    // Sent before the first answer came, answered after it.
    assert_eq!(router.not_leader(RegionId(1), peer(1), Some(peer(2))), Advice::Now);
    assert_eq!(target(&router, "b"), 3);
}

#[test]
fn without_a_leader_all_voters_are_asked_then_one_waits() {
    let mut router = router(&[(1, "a", "z")]);
    let mut asked = Vec::new();
    let mut advice = Vec::new();
    for _ in 0..12 {
        let peer = router.lookup(b"b").unwrap().target().unwrap();
        asked.push(peer.store.0);
        advice.push(router.not_leader(RegionId(1), peer, None));
    }
    assert_eq!(asked, [1, 2, 3, 1, 2, 3, 1, 2, 3, 1, 2, 3]);
    use Advice::{Ask, Now, Pause};
    let want = [Now, Now, Pause, Now, Now, Pause, Now, Now, Pause, Now, Now, Ask];
    assert_eq!(advice, want);
    router.answered(RegionId(1), peer(2));
    assert_eq!(target(&router, "b"), 2);
}

#[test]
fn a_dead_leader_is_passed_over_although_its_followers_name_it() {
    let mut router = router(&[(1, "a", "z")]);
    router.store_down(StoreId(1));
    assert_eq!(router.unreachable(RegionId(1), peer(1)), Advice::Now);
    assert_eq!(target(&router, "b"), 2);
    assert_eq!(router.not_leader(RegionId(1), peer(2), Some(peer(1))), Advice::Now);
    assert_eq!(target(&router, "b"), 3);
    assert_eq!(router.not_leader(RegionId(1), peer(3), Some(peer(1))), Advice::Pause);
    assert_eq!(router.not_leader(RegionId(1), peer(1), None), Advice::Now, "s1 is skipped");
    router.store_up(StoreId(1));
    assert_eq!(target(&router, "b"), 2);
    assert_eq!(router.not_leader(RegionId(1), peer(2), Some(peer(1))), Advice::Now);
    assert_eq!(target(&router, "b"), 1);
}

#[test]
fn a_leader_that_is_no_member_means_an_old_description() {
    let mut router = router(&[(1, "a", "z")]);
    assert_eq!(router.not_leader(RegionId(1), peer(1), Some(peer(9))), Advice::Ask);
    assert_eq!(found(&router, "b"), None);
}

#[test]
fn learners_are_never_asked_to_lead() {
    let mut router = Router::default();
    let mut mixed = region(1, "a", "z", 1);
    mixed.peers[0].role = Role::Learner;
    router.insert(mixed.clone(), None);
    for _ in 0..4 {
        let asked = router.lookup(b"b").unwrap().target().unwrap();
        assert_ne!(asked.store, StoreId(1));
        router.not_leader(RegionId(1), asked, None);
    }
    mixed.peers.iter_mut().for_each(|peer| peer.role = Role::Learner);
    mixed.epoch.conf_ver = 2;
    router.insert(mixed, None);
    assert!(router.lookup(b"b").unwrap().target().is_none());
}

#[test]
fn invalidation_spares_a_newer_description() {
    let mut router = router(&[(1, "a", "z")]);
    let old = region(1, "a", "z", 1);
    router.insert(region(1, "a", "m", 2), None);
    assert_eq!(router.invalidate(&old), Advice::Now);
    assert_eq!(found(&router, "b"), Some(1));
    assert_eq!(router.invalidate(&region(1, "a", "m", 2)), Advice::Ask);
    assert_eq!(found(&router, "b"), None);
}

/// The model: a list, searched from end to end.
#[derive(Default)]
struct Naive(Vec<Region>);

impl Naive {
    fn insert(&mut self, region: Region) {
        let older_same =
            |known: &Region| known.id == region.id && region.epoch.is_stale_against(known.epoch);
        let newer_other = |known: &Region| {
            known.id != region.id
                && known.range.overlaps(&region.range)
                && known.epoch.version > region.epoch.version
        };
        if self.0.iter().any(|known| older_same(known) || newer_other(known)) {
            return;
        }
        self.0.retain(|known| known.id != region.id && !known.range.overlaps(&region.range));
        self.0.push(region);
    }
    fn lookup(&self, key: &[u8]) -> Option<&Region> {
        self.0.iter().find(|region| region.range.contains(key))
    }
    fn lookup_below(&self, end: &[u8]) -> Option<&Region> {
        self.0.iter().find(|region| {
            let bound = &region.range.end;
            if end.is_empty() {
                bound.is_empty()
            } else {
                region.range.start.as_ref() < end && (bound.is_empty() || end <= bound.as_ref())
            }
        })
    }
}

/// Keys in the order of the numbers: few short ones, then many that differ only behind a long start.
fn spelled(number: u8) -> Bytes {
    match number {
        0..4 => Bytes::from(vec![number; usize::from(number)]),
        _ => Bytes::from([b"a-table-with-a-long-name-".as_slice(), &[number, number]].concat()),
    }
}

fn arbitrary_region() -> impl Strategy<Value = Region> {
    (1u64..8, 0u8..12, 1u8..13, 1u64..6, 1u64..4).prop_filter_map(
        "start below end",
        |(id, start, end, version, conf_ver)| {
            let start = spelled(start);
            let end = if end == 12 { Bytes::new() } else { spelled(end) };
            let peers = vec![peer(1), peer(2), peer(3)];
            let epoch = Epoch { conf_ver, version };
            (end.is_empty() || start < end).then(|| Region {
                id: RegionId(id),
                range: KeyRange { start, end },
                epoch,
                peers,
            })
        },
    )
}

proptest! {
    #[test]
    fn the_router_agrees_with_a_list(regions in prop::collection::vec(arbitrary_region(), 1..60)) {
        let (mut router, mut naive) = (Router::default(), Naive::default());
        for region in regions {
            router.insert(region.clone(), None);
            naive.insert(region);
            prop_assert_eq!(router.len(), naive.0.len());
            prop_assert_eq!(router.starts.len(), router.by_start.len());
            let between = |number: u8| [spelled(number), Bytes::from_static(b"x")].concat().into();
            let keys = (0..13).flat_map(|number| [spelled(number), between(number)]);
            for key in keys.chain([Bytes::from_static(&[255]), Bytes::from_static(b"a-t")]) {
                prop_assert_eq!(router.lookup(&key).map(|r| &*r.region), naive.lookup(&key));
                prop_assert_eq!(
                    router.lookup_below(&key).map(|r| &*r.region),
                    naive.lookup_below(&key)
                );
            }
            prop_assert_eq!(router.lookup_below(b"").map(|r| &*r.region), naive.lookup_below(b""));
        }
    }

    /// Whatever the stores say, the target is a voter of the region and the walk never gets stuck.
    #[test]
    fn any_voter_is_asked_again_and_again(
        steps in prop::collection::vec((0u64..4, 0u64..5, any::<bool>()), 1..60)
    ) {
        let mut router = router(&[(1, "a", "z")]);
        for (down, hint, up) in steps {
            if up { router.store_up(StoreId(down)) } else { router.store_down(StoreId(down)) }
            let Some(route) = router.lookup(b"b") else {
                router.insert(region(1, "a", "z", 1), None);
                continue;
            };
            let asked = route.target().unwrap();
            prop_assert!(route.region.peer(asked.id).is_some());
            let hint = (hint > 0).then(|| peer(hint));
            router.not_leader(RegionId(1), asked, hint);
        }
        for store in 0..4 {
            router.store_up(StoreId(store));
        }
        if router.lookup(b"b").is_some() {
            let mut asked = BTreeSet::new();
            for _ in 0..3 {
                let target = router.lookup(b"b").unwrap().target().unwrap();
                asked.insert(target.store);
                router.not_leader(RegionId(1), target, None);
            }
            prop_assert_eq!(asked.len(), 3);
        }
    }
}

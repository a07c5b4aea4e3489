//! Which requests, replicas and snapshots a store lets in.

use std::sync::Arc;

use quorate_proto::wire::{kvrpcpb::Context, metapb};
use quorate_proto::{Epoch, PeerId, Region, RegionId, StoreId, Term};
use quorate_store::core::directory::Conflict;
use quorate_store::core::peers::was_removed;
use quorate_store::core::{PeerAdmission, RegionError, State};

use super::world::{World, child, context, peer, region};

fn world() -> World {
    World::new(vec![region(1, "", "m"), region(2, "m", "")])
}

#[test]
fn a_request_must_name_store_region_replica_and_version() {
    let world = world();
    let right = context(&world.region(1));
    let directory = world.directory();
    let admit = |context: &Context| directory.admit(context).map(|admitted| admitted.region);
    assert_eq!(admit(&right), Ok(world.region(1)));

    let other = Context { peer: Some(peer(1, 2).into()), ..right };
    let (asked, actual) = (StoreId(2), StoreId(1));
    assert_eq!(admit(&other), Err(RegionError::StoreNotMatch { asked, actual }));
    let nobody = Context { peer: None, ..right };
    assert!(matches!(admit(&nobody), Err(RegionError::StoreNotMatch { .. })));
    let gone = Context { region_id: 8, ..right };
    assert_eq!(admit(&gone), Err(RegionError::RegionNotFound(RegionId(8))));
    let replaced = metapb::Peer { id: 99, store_id: 1, role: 0 };
    let (asked, actual) = (PeerId(99), PeerId(11));
    assert_eq!(
        admit(&Context { peer: Some(replaced), ..right }),
        Err(RegionError::MismatchPeer { asked, actual })
    );
    for version in [0, 2] {
        let epoch = metapb::RegionEpoch { conf_ver: 1, version };
        let stale = Context { region_epoch: Some(epoch), ..right };
        let current = vec![world.region(1)];
        assert_eq!(admit(&stale), Err(RegionError::EpochNotMatch { current }));
    }
    // Who the members are does not matter to a key.
    let epoch = metapb::RegionEpoch { conf_ver: 7, version: 1 };
    assert!(admit(&Context { region_epoch: Some(epoch), ..right }).is_ok());

    world.local(1).view().set_leader(Term(9), None);
    assert!(admit(&Context { term: 8, ..right }).is_ok());
    assert_eq!(admit(&Context { term: 7, ..right }), Err(RegionError::StaleCommand));
}

#[test]
fn keys_and_ranges_are_checked_against_the_region() {
    let world = world();
    let one = world.admitted(1);
    let two = world.admitted(2);
    assert!(one.check_key(b"a").is_ok() && one.check_key(b"").is_ok());
    assert!(matches!(one.check_key(b"m"), Err(RegionError::KeyNotInRegion { .. })));
    assert!(two.check_keys([b"m".as_slice(), b"z"]).is_ok());
    assert!(two.check_keys([b"m".as_slice(), b"a"]).is_err());
    assert!(one.check_range(b"a", b"m").is_ok());
    assert!(one.check_range(b"a", b"n").is_err());
    assert!(one.check_range(b"a", b"").is_err());
    assert!(two.check_range(b"m", b"").is_ok());
    assert!(two.check_range(b"a", b"").is_err());
}

#[test]
fn who_does_not_lead_says_who_does() {
    let world = world();
    let admitted = world.admitted(1);
    let refusal = |leader| Err(RegionError::NotLeader { region: RegionId(1), leader });
    assert_eq!(admitted.check_leader(), refusal(None));
    admitted.local.view().set_leader(Term(6), Some(PeerId(13)));
    assert_eq!(admitted.check_leader(), refusal(Some(peer(1, 3))));
    let error = admitted.check_leader().unwrap_err();
    assert_eq!(error.to_string(), "not leader of r1, try s3");
    assert_eq!(error.to_wire().not_leader.unwrap().leader.unwrap().store_id, 3);
    world.lead(1);
    assert_eq!(admitted.check_leader(), Ok(()));
}

#[test]
fn a_client_with_an_old_region_learns_all_that_came_of_it() {
    let mut world = world();
    let old = context(&world.region(2));
    world.split(2, vec![child(3, "p"), child(4, "s")]);
    world.split(2, vec![child(5, "w")]);
    let ids = |context: &Context| {
        let error = world.directory().admit(context).unwrap_err();
        let regions = error.to_wire().epoch_not_match.unwrap().current_regions;
        regions.into_iter().map(|region| region.id).collect::<Vec<_>>()
    };
    // Nearest first, and never the neighbour that it had before.
    assert_eq!(ids(&old), [2, 5, 4, 3]);
    let later = metapb::RegionEpoch { conf_ver: 1, version: 3 };
    assert_eq!(ids(&Context { region_epoch: Some(later), ..old }), [2, 5]);
    let ahead = metapb::RegionEpoch { conf_ver: 1, version: 9 };
    assert_eq!(ids(&Context { region_epoch: Some(ahead), ..old }), [2]);
}

#[test]
fn find_goes_by_key() {
    let mut world = World::new(vec![region(1, "b", "m"), region(2, "p", "")]);
    let find =
        |world: &World, key: &str| world.directory().find(key.as_bytes()).map(|local| local.id().0);
    assert_eq!(find(&world, "a"), None);
    assert_eq!(find(&world, "b"), Some(1));
    assert_eq!(find(&world, "m"), None);
    assert_eq!(find(&world, "zz"), Some(2));
    world.split(1, vec![child(3, "c")]);
    assert_eq!(find(&world, "b"), Some(3));
    assert_eq!(find(&world, "c"), Some(1));
}

#[test]
fn first_regions_are_created_once_or_not_at_all() {
    let mut world = world();
    let again = vec![region(1, "", "m"), region(2, "m", "")];
    assert!(world.applier.bootstrap(again).unwrap().is_empty());
    let overlap = world.applier.bootstrap(vec![region(3, "a", "b")]).unwrap_err();
    assert!(overlap.to_string().contains("r3 overlaps r1"), "{overlap}");

    let mut empty = World::new(vec![]);
    let both = vec![region(1, "", "m"), region(2, "a", "")];
    assert!(empty.applier.bootstrap(both).is_err());
    let foreign = Region { peers: vec![peer(1, 2)], ..region(1, "", "") };
    assert!(empty.applier.bootstrap(vec![foreign]).is_err());
    empty.restart();
    assert!(empty.directory().is_empty());
    let groups = empty.applier.bootstrap(vec![region(1, "", "")]).unwrap();
    assert_eq!((groups[0].applied.0.0, groups[0].applied.1.0, groups[0].campaign), (5, 5, false));
    let mut empty = empty.crash(0);
    assert_eq!(empty.directory().len(), 1, "durable when it returned");
    assert!(empty.applier.bootstrap(vec![region(1, "", "")]).unwrap().is_empty());
}

#[test]
fn a_message_may_create_a_replica_only_where_nothing_is_in_its_way() {
    let mut world = World::new(vec![region(1, "", "m")]);
    let directory = world.directory();
    let here = directory.admit_peer(&region(1, "", "m"), PeerId(11));
    assert!(matches!(here, PeerAdmission::Exists));
    let replaced = directory.admit_peer(&region(1, "", "m"), PeerId(41));
    assert!(matches!(replaced, PeerAdmission::Refuse(Conflict::OtherPeer { .. })));
    let elsewhere = directory.admit_peer(&region(5, "m", "p"), PeerId(52));
    assert!(matches!(elsewhere, PeerAdmission::Refuse(Conflict::NotMember { .. })));
    let covered = directory.admit_peer(&region(5, "k", "p"), PeerId(51));
    assert!(matches!(covered, PeerAdmission::Hold));

    let PeerAdmission::Create(group) = directory.admit_peer(&region(5, "m", "p"), PeerId(51))
    else {
        panic!("nothing covers it");
    };
    assert_eq!((group.group, group.applied.0.0, group.members.len()), (RegionId(5), 0, 0));
    let again = directory.admit_peer(&region(5, "m", "p"), PeerId(51));
    assert!(matches!(again, PeerAdmission::Exists));
    // It has no data: writers go to the leader, which it does not know, readers elsewhere.
    let refused = directory.admit(&context(&region(5, "m", "p"))).unwrap_err();
    assert_eq!(refused, RegionError::NotInitialized(RegionId(5)));
    assert!(matches!(&*world.local(5).state(), State::Uninitialized { expected: None, .. }));
    assert_eq!(directory.len(), 1);
    // Whoever speaks of the time before it came does not mean that it was removed.
    let (before, after) = (Epoch { conf_ver: 1, version: 9 }, Epoch { conf_ver: 2, version: 1 });
    assert!(!was_removed(&world.local(5), before) && was_removed(&world.local(5), after));

    // Removed for good; a later replica of the same region may come.
    world.applier.destroy(RegionId(5)).unwrap();
    let late = directory.admit_peer(&region(5, "m", "p"), PeerId(51));
    assert!(matches!(late, PeerAdmission::Refuse(Conflict::Removed { .. })));
    world.restart();
    let late = world.directory().admit_peer(&region(5, "m", "p"), PeerId(51));
    assert!(matches!(late, PeerAdmission::Refuse(Conflict::Removed { .. })));
    let mut next = region(5, "m", "p");
    next.peers[0].id = PeerId(58);
    let next = world.directory().admit_peer(&next, PeerId(58));
    assert!(matches!(next, PeerAdmission::Create(_)));
}

#[test]
fn snapshots_on_their_way_never_overlap() {
    let world = World::new(vec![region(1, "", "d")]);
    let directory = world.directory();
    for id in [5, 6] {
        let at = region(id, "m", "p");
        assert!(matches!(directory.admit_peer(&at, peer(id, 1).id), PeerAdmission::Create(_)));
    }
    let snapshot = |id, start: &str, end: &str| {
        directory.admit_snapshot(Arc::new(region(id, start, end)), &[], peer(id, 1).id)
    };
    assert_eq!(snapshot(5, "m", "p"), Ok(()));
    let (five, six) = (RegionId(5), RegionId(6));
    assert_eq!(snapshot(6, "n", "z"), Err(Conflict::Overlap { region: six, other: five }));
    assert_eq!(snapshot(6, "p", "z"), Ok(()));
    assert_eq!(snapshot(5, "m", "q"), Err(Conflict::Overlap { region: five, other: six }));
    // A newer one of the same region takes the place of the last.
    assert_eq!(snapshot(5, "m", "n"), Ok(()));
    assert_eq!(snapshot(6, "n", "z"), Ok(()));
    let over = Err(Conflict::Overlap { region: five, other: RegionId(1) });
    assert_eq!(snapshot(5, "c", "n"), over);
    assert!(matches!(snapshot(7, "x", "y"), Err(Conflict::NotMember { .. })));

    let newer = Region { epoch: Epoch { conf_ver: 1, version: 0 }, ..region(1, "", "d") };
    let stale = directory.admit_snapshot(Arc::new(newer), &[], PeerId(11));
    assert_eq!(stale, Err(Conflict::Stale { region: RegionId(1) }));
}

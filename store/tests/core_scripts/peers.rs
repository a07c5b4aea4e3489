//! Who replicates a region changes: what is applied, what is stored, and how a replica goes.

use std::sync::Arc;

use bytes::Bytes;
use quorate_consensus::engine::{Cf, Engine, MemoryEngine, Reader, WriteBatch};
use quorate_consensus::shard::{Member, Reconfigured};
use quorate_consensus::view::{PeerProgress, Replication};
use quorate_proto::wire::placement::change_peers_step::Change as Step;
use quorate_proto::wire::placement::{EnterJoint, LeaveJoint};
use quorate_proto::{Epoch, LogIndex, NodeId, Peer, PeerId, Region, RegionId, Role, StoreId};
use quorate_store::core::command::{self, Stamp};
use quorate_store::core::directory::Conflict;
use quorate_store::core::peers::{PeersPlan, plan};
use quorate_store::core::{Answer, Applier, PeerAdmission, RegionError, State, keys};

use super::world::{STORE, World, context, dump, region, stamp};

/// `1 2d 4l`: the replica of region `id` on each of these stores, by role.
fn peers(id: u64, list: &str) -> Vec<Peer> {
    let peer = |word: &str| {
        let digits = word.trim_end_matches(['l', 'i', 'd']);
        let store: u64 = digits.parse().unwrap();
        let role = match &word[digits.len()..] {
            "l" => Role::Learner,
            "i" => Role::IncomingVoter,
            "d" => Role::DemotingVoter,
            _ => Role::Voter,
        };
        Peer { id: PeerId(id * 10 + store), store: StoreId(store), role }
    };
    list.split(' ').map(peer).collect()
}

fn change(world: &World, id: u64, list: &str) -> Bytes {
    command::change_peers(stamp(&world.region(id), 7), &peers(id, list)).unwrap()
}

/// Applies a change; returns what raft is told.
fn apply(world: &mut World, id: u64, list: &str) -> Vec<Reconfigured> {
    let command = change(world, id, list);
    let (outcome, answer) = world.apply(id, command);
    assert_eq!(answer, Answer::Done, "{list}");
    outcome.reconfigured
}

/// Store 1 goes from a voter of region 1 to a learner of it.
fn demoted() -> World {
    let mut world = World::new(vec![region(1, "", "m"), region(2, "m", "")]);
    world.put(1, "a", "1");
    world.put(2, "n", "2");
    for list in ["1 2 3 4l", "1d 2 3 4i", "1l 2 3 4"] {
        apply(&mut world, 1, list);
    }
    world
}

/// Something that raft keeps of a region.
fn log_of(id: u64) -> (Cf, Vec<u8>) {
    let mut key = id.to_be_bytes().to_vec();
    key.extend_from_slice(&[3, 0, 0, 0, 0, 0, 0, 0, 9]);
    (Cf::Raft, key)
}

fn keep_log(engine: &MemoryEngine, id: u64) {
    let mut batch = WriteBatch::new();
    let (cf, key) = log_of(id);
    batch.put(cf, key, "entry");
    engine.write_synced(batch).unwrap();
}

fn has_log(engine: &MemoryEngine, id: u64) -> bool {
    let (cf, key) = log_of(id);
    engine.get(cf, &key).unwrap().is_some()
}

#[test]
fn a_change_is_applied_with_its_epoch_and_told_to_raft() {
    let mut world = World::new(vec![region(1, "", "")]);
    let before = world.admitted(1);
    let told = apply(&mut world, 1, "1 2 3 4l");
    let member = |peer: Peer| Member { peer: peer.id, node: NodeId(peer.store.0), role: peer.role };
    let members: Vec<Member> = peers(1, "1 2 3 4l").into_iter().map(member).collect();
    assert_eq!(told, [Reconfigured { group: RegionId(1), members }]);

    let now = world.region(1);
    assert_eq!(now.epoch, Epoch { conf_ver: 2, version: 1 });
    assert_eq!(now.peers, peers(1, "1 2 3 4l"));
    assert!(!before.unchanged(), "whoever plans with the old description notices");
    world.restart();
    assert_eq!(world.region(1), now);
    assert_eq!(world.put(1, "a", "1"), Answer::Done);
}

#[test]
fn a_change_for_another_epoch_or_that_is_no_step_changes_nothing() {
    let mut world = World::new(vec![region(1, "", "")]);
    let twice = change(&world, 1, "1 2 3 4l");
    apply(&mut world, 1, "1 2 3 4l");
    let (outcome, answer) = world.apply(1, twice);
    assert!(outcome.reconfigured.is_empty());
    let current = vec![world.region(1)];
    assert_eq!(answer, Answer::Refused(RegionError::EpochNotMatch { current }));

    for (list, rule) in [
        ("1 2 3 4i", "4 voters"),
        ("1 2 3 4", "no single step"),
        ("1 2 4l", "demote it before"),
        ("1 2 3 4l 5i", "must join as a learner"),
    ] {
        let command = change(&world, 1, list);
        let (outcome, answer) = world.apply(1, command);
        assert!(outcome.reconfigured.is_empty());
        let Answer::Refused(refused) = answer else { panic!("{answer:?}") };
        assert!(refused.to_string().contains(rule), "{refused}");
    }
    let version = Stamp { version: 2, ..stamp(&world.region(1), 0) };
    let command = command::change_peers(version, &peers(1, "1 2 3")).unwrap();
    assert!(matches!(world.apply(1, command).1, Answer::Refused(_)));
    assert_eq!(world.region(1).epoch, Epoch { conf_ver: 2, version: 1 });
}

#[test]
fn a_change_comes_in_an_entry_of_its_own_kind_and_nothing_else_does() {
    let mut world = World::new(vec![region(1, "", "")]);
    let put = command::put(stamp(&world.region(1), 7), b"a", b"1").unwrap();
    for (data, changes_members) in [(change(&world, 1, "1 2 3 4l"), false), (put, true)] {
        let mut task = world.task(1, &[data]);
        task.entries[0].changes_members = changes_members;
        let (outcome, answers) = world.try_apply(vec![task]);
        assert!(outcome.unwrap().reconfigured.is_empty());
        let refused = match &answers[0].answer {
            Answer::Refused(refused @ RegionError::BadPeers { .. }) => refused.to_string(),
            other => panic!("{other:?}"),
        };
        assert!(refused.contains("raft takes"), "{refused}");
    }
    assert_eq!(world.region(1).epoch.conf_ver, 1);
    assert_eq!(world.get("a"), None);
}

#[test]
fn leadership_goes_to_nobody_who_is_demoted_with_the_leader() {
    let mut world = World::new(vec![Region { peers: peers(1, "1 2 3 4 5"), ..region(1, "", "") }]);
    world.lead(1);
    let step = |promote: &[u64], demote: &[u64]| {
        let (promote, demote) = (promote.to_vec(), demote.to_vec());
        Step::EnterJoint(EnterJoint { promote, demote })
    };
    let matched = |peer: u64, matched| PeerProgress {
        peer: PeerId(peer),
        matched: LogIndex(matched),
        applied: None,
        snapshot: false,
        silent_since: None,
    };
    let know = |world: &World, list: &[(u64, u64)]| {
        let peers = list.iter().map(|(peer, at)| matched(*peer, *at)).collect();
        let replication = Replication { last: LogIndex(100), committed: LogIndex(100), peers };
        world.local(1).view().set_replication(Some(replication));
    };
    // The one that has most is about to go, too.
    know(&world, &[(12, 100), (13, 90), (14, 95), (15, 80)]);
    let planned = plan(&world.admitted(1), &step(&[], &[11, 12]), 7);
    assert_eq!(planned, Ok(PeersPlan::HandOver(StoreId(4))));
    // Nor to one that is only about to come.
    apply(&mut world, 1, "1 2 3 4 5 6l");
    world.lead(1);
    know(&world, &[(12, 90), (13, 90), (14, 95), (15, 80), (16, 100)]);
    let planned = plan(&world.admitted(1), &step(&[16], &[11]), 7);
    assert_eq!(planned, Ok(PeersPlan::HandOver(StoreId(4))));
}

#[test]
fn the_only_voter_enters_the_joint_configuration_that_demotes_it_and_does_not_leave_it() {
    let mut world = World::new(vec![Region { peers: peers(1, "1"), ..region(1, "", "") }]);
    apply(&mut world, 1, "1 4l");
    world.lead(1);
    let step = Step::EnterJoint(EnterJoint { promote: vec![14], demote: vec![11] });
    let planned = plan(&world.admitted(1), &step, 7);
    let Ok(PeersPlan::Change(change)) = planned else { panic!("{planned:?}") };
    let roles: Vec<Role> = change.members.iter().map(|member| member.role).collect();
    assert_eq!(roles, [Role::DemotingVoter, Role::IncomingVoter]);
    // Nobody but the one that comes could lead then: it is handed over to, and leaves.
    apply(&mut world, 1, "1d 4i");
    world.lead(1);
    let leave = Step::LeaveJoint(LeaveJoint {});
    assert_eq!(plan(&world.admitted(1), &leave, 7), Ok(PeersPlan::HandOver(StoreId(4))));
    // Just to go is nobody's to ask for.
    let world = World::new(vec![Region { peers: peers(1, "1"), ..region(1, "", "") }]);
    world.lead(1);
    let step = Step::EnterJoint(EnterJoint { promote: vec![], demote: vec![11] });
    let refused = plan(&world.admitted(1), &step, 7).unwrap_err().to_string();
    assert!(refused.contains("0 voters"), "{refused}");
}

#[test]
fn clients_need_not_know_the_newest_members() {
    let mut world = World::new(vec![region(1, "", "")]);
    let old = context(&world.region(1));
    apply(&mut world, 1, "1 2 3 4l");
    apply(&mut world, 1, "1 2d 3 4i");
    assert!(world.directory().admit(&old).is_ok());
    let command = command::put(stamp(&region(1, "", ""), 0), b"a", b"1").unwrap();
    assert_eq!(world.apply(1, command).1, Answer::Done, "proposed before the change");
}

#[test]
fn a_split_passes_the_roles_on() {
    let mut world = World::new(vec![region(1, "", "")]);
    apply(&mut world, 1, "1 2 3 4l");
    apply(&mut world, 1, "1 2d 3 4i");
    let split = |key: &str, stores: [u64; 4]| quorate_proto::wire::command::SplitTo {
        key: Bytes::copy_from_slice(key.as_bytes()),
        region_id: 9,
        peer_ids: stores.map(|store| 90 + store).to_vec(),
    };
    let (outcome, answer) = world.split(1, vec![split("g", [1, 2, 3, 4])]);
    assert_eq!(answer, Answer::Done);
    assert_eq!(world.region(9).peers, peers(9, "1 2d 3 4i"));
    let roles: Vec<Role> = outcome.created[0].members.iter().map(|member| member.role).collect();
    assert_eq!(
        roles,
        [Role::Voter, Role::DemotingVoter, Role::Voter, Role::IncomingVoter],
        "a joint configuration from its first entry on"
    );
    apply(&mut world, 9, "1 2l 3 4");
    apply(&mut world, 1, "1 2l 3 4");
}

#[test]
fn a_replica_that_applies_its_own_removal_stops_serving_and_goes() {
    let mut world = demoted();
    keep_log(&world.engine, 1);
    keep_log(&world.engine, 2);
    let known = context(&world.region(1));
    let local = world.local(1);
    // What follows in the same task is not applied any more.
    let put = command::put(stamp(&world.region(1), 0), b"b", b"1").unwrap();
    let entries = [change(&world, 1, "2 3 4"), put];
    let task = world.task(1, &entries);
    let (outcome, answers) = world.try_apply(vec![task]);
    let outcome = outcome.unwrap();
    assert!(outcome.reconfigured[0].members.iter().all(|member| member.peer != PeerId(11)));
    assert_eq!(answers[0].answer, Answer::Done);
    assert_eq!(answers[1].answer, Answer::Undetermined);
    assert_eq!(world.get("b"), None);

    // It serves nobody, and nothing takes its place while its data is there.
    let directory = world.directory();
    assert!(matches!(&*local.state(), State::Removing(_)));
    let id = RegionId(1);
    assert_eq!(directory.admit(&known).unwrap_err(), RegionError::RegionNotFound(id));
    let mut back = region(1, "", "m");
    back.epoch.conf_ver = 9;
    back.peers[0].id = PeerId(19);
    assert!(matches!(directory.admit_peer(&back, PeerId(19)), PeerAdmission::Refuse(_)));
    let other = region(7, "b", "c");
    assert!(matches!(directory.admit_peer(&other, PeerId(71)), PeerAdmission::Hold));
    let snapshot = directory.admit_snapshot(Arc::new(back.clone()), &[], PeerId(11));
    assert_eq!(snapshot, Err(Conflict::Removed { region: id, peer: PeerId(11) }));
    assert!(world.applier.snapshot(id).unwrap().is_none());

    world.applier.destroy(id).unwrap();
    assert_eq!(world.keys(), ["n"], "the neighbour's data stays");
    assert!(!has_log(&world.engine, 1) && has_log(&world.engine, 2));
    assert!(directory.get(id).is_none());

    // The old replica never comes back, another one may; also after a restart.
    for _ in 0..2 {
        let old = world.directory().admit_peer(&region(1, "", "m"), PeerId(11));
        assert!(matches!(old, PeerAdmission::Refuse(Conflict::Removed { .. })), "{old:?}");
        world.restart();
    }
    let new = world.directory().admit_peer(&back, PeerId(19));
    let PeerAdmission::Create(group) = new else { panic!("{new:?}") };
    assert!(group.members.is_empty() && group.peer == PeerId(19));
}

#[test]
fn a_crash_while_a_replica_goes_leaves_it_or_removes_it_whole() {
    let (mut there, mut gone) = (0, 0);
    for keep in 0..4 {
        // Before the removal of what it has, or after it.
        for destroys in [false, true] {
            let mut world = demoted();
            keep_log(&world.engine, 1);
            apply(&mut world, 1, "2 3 4");
            if destroys {
                world.applier.destroy(RegionId(1)).unwrap();
            }
            let engine = world.engine;
            let crashed = engine.crash(|_| keep);
            let (applier, groups) = Applier::recover(Arc::new(crashed.clone()), STORE).unwrap();
            let hosted = groups.iter().any(|group| group.group == RegionId(1));
            assert_eq!(hosted, applier.directory().get(RegionId(1)).is_some());
            assert_eq!(hosted, has_log(&crashed, 1));
            assert_eq!(hosted, crashed.get(Cf::Data, b"a").unwrap().is_some());
            assert_eq!(
                crashed.get(Cf::Meta, &keys::apply_state(RegionId(1))).unwrap().is_some(),
                hosted
            );
            assert!(crashed.get(Cf::Data, b"n").unwrap().is_some());
            match hosted {
                true => there += 1,
                false => gone += 1,
            }
            // What was found is durable.
            let before = dump(&crashed, Cf::Meta);
            assert_eq!(dump(&crashed.crash(|_| 0), Cf::Meta), before);
        }
    }
    assert!(there > 0 && gone > 4, "there {there}, gone {gone}");
}

#[test]
fn a_replica_that_waits_for_its_snapshot_can_be_removed_as_well() {
    let mut world = World::new(vec![region(2, "m", "")]);
    let directory = world.directory();
    let PeerAdmission::Create(_) = directory.admit_peer(&region(1, "", "m"), PeerId(11)) else {
        panic!()
    };
    keep_log(&world.engine, 1);
    assert_eq!(directory.hosted().len(), 2);
    world.applier.destroy(RegionId(1)).unwrap();
    assert!(!has_log(&world.engine, 1));
    assert_eq!(directory.hosted().len(), 1);
    world.restart();
    let old = world.directory().admit_peer(&region(1, "", "m"), PeerId(11));
    assert!(matches!(old, PeerAdmission::Refuse(Conflict::Removed { .. })));
}

#[test]
fn a_snapshot_carries_a_joint_configuration() {
    let mut world = World::new(vec![region(1, "", "")]);
    apply(&mut world, 1, "1 2 3 4l");
    apply(&mut world, 1, "1 2d 3 4i");
    let source = world.applier.snapshot(RegionId(1)).unwrap().unwrap();
    let roles: Vec<Role> = source.members.iter().map(|member| member.role).collect();
    assert_eq!(roles, [Role::Voter, Role::DemotingVoter, Role::Voter, Role::IncomingVoter]);
    let described = quorate_store::core::snapshot::parse_state(source.state).unwrap().region;
    assert_eq!(described, Region::clone(&world.region(1)));
}

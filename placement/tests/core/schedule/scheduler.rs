//! Golden scripts: pause, room, reasons, eviction, filters.

use quorate_placement::core::checker::{Verdict, boundary};
use quorate_placement::core::filter::{
    Filtered, better_isolated, in_words, select_surplus, select_target,
};
use quorate_placement::core::operators::Goal;
use quorate_placement::core::policy::Policy;
use quorate_placement::core::rule::RuleSet;
use quorate_placement::core::stores::StoreState;
use quorate_proto::{Peer, PeerId, RegionId, Role, StoreId};

use super::model::{MIB, Model};
use super::{STEP, even};

#[test]
fn a_paused_scheduler_says_so_and_drafts_nothing() {
    let mut model = Model::plain(4);
    model.fill(&even(40, MIB));
    for name in ["balance-region", "balance-leader"] {
        model.schedulers.set_paused(name, true).unwrap();
    }
    model.run(1, STEP);
    assert_eq!(model.begun.len(), 0);
    let last: Vec<_> = model.schedulers.list().iter().map(|s| (s.name, s.last.as_str())).collect();
    assert_eq!(
        last,
        [
            ("evict-leader", "every store may lead"),
            ("hot-region", "no region is hot"),
            ("balance-region", "is paused"),
            ("balance-leader", "is paused"),
        ]
    );
    let unknown = model.schedulers.set_paused("balance", true).unwrap_err();
    assert!(unknown.to_string().starts_with("there is no scheduler \"balance\"; there are evict-"));
    model.schedulers.set_paused("balance-region", false).unwrap();
    model.run(5, STEP);
    let begun = model.begun.len();
    assert_eq!(model.schedulers.list()[2].begun, begun as u64);
    assert!(begun > 20 && model.begun.iter().all(|b| b.draft.by == "balance-region"));
    assert_eq!(model.schedulers.list()[2].last, "stores have 30 to 30 replicas, 1 apart is even");
}

#[test]
fn a_plan_keeps_to_its_room_and_counts_with_what_it_drafted() {
    let mut model = Model::plain(4);
    model.fill(&even(40, MIB));
    model.observe(STEP);
    let view = model.view();
    let planned = model.schedulers.plan(&view, 3, model.now);
    assert_eq!(planned.len(), 3);
    assert_eq!(model.schedulers.plan(&view, 0, model.now), []);
    let first = &planned[0];
    assert_eq!(first.by, "balance-region");
    assert!(first.reason.contains("replicas, s4 has"), "{}", first.reason);
}

#[test]
fn leaders_do_not_make_room_for_replicas_that_may_not_move() {
    let mut model = Model::plain(4);
    // Even as they are, but uneven once replicas would go to the empty store, leaders and all.
    model.fill(&even(40, MIB));
    model.observe(STEP);
    let mut view = model.view();
    view.may_move = false;
    assert_eq!(model.schedulers.plan(&view, 100, model.now), []);
    let status = model.schedulers.list().iter().find(|status| status.name == "balance-region");
    let said = &status.unwrap().last;
    assert!(said.contains("replicas are changed from cluster_version 2 on"), "{said}");
}

#[test]
fn a_store_that_stops_gives_its_leaders_away() {
    let mut model = Model::plain(3);
    model.fill(&even(30, MIB));
    model.observe(STEP);
    let mut view = model.view();
    view.stores.get_mut(&StoreId(1)).unwrap().stopping = true;
    let drafts = model.schedulers.plan(&view, 100, model.now);
    assert_eq!(drafts.len(), 10, "all at once, it waits for them");
    for draft in &drafts {
        assert!(matches!(draft.goal, Goal::TransferLeader { from: StoreId(1), .. }));
        assert_eq!((draft.by, draft.reason.as_str()), ("evict-leader", "s1 stops"));
    }
}

#[test]
fn every_store_that_is_not_eligible_says_why() {
    let mut model = Model::plain(8);
    model.fill(&even(12, 50 * MIB));
    model.observe(STEP);
    let mut view = model.view();
    let mut store = |id: u64| view.stores.get_mut(&StoreId(id)).unwrap().clone();
    let (mut suspect, mut stopping, mut full, mut busy) = (store(4), store(5), store(6), store(7));
    suspect.state = StoreState::Suspect;
    stopping.stopping = true;
    full.stats.capacity_bytes = 1_000 * MIB;
    full.stats.available_bytes = 80 * MIB;
    busy.stats.snapshots_receiving = 9;
    for changed in [suspect, stopping, full, busy] {
        view.stores.insert(changed.store.id, changed);
    }
    let mut unheard = view.stores[&StoreId(8)].clone();
    unheard.complete = false;
    view.stores.insert(StoreId(8), unheard);
    let info = view.region(RegionId(100)).unwrap().info.clone();
    let filtered = select_target(&view, &info, Some(StoreId(1))).unwrap_err();
    assert_eq!(
        in_words(&filtered),
        "s1 has a replica already, s2 has a replica already, s3 has a replica already, \
         s4 is Suspect, s5 is stopping, s6 has 80 of 1000 MiB free, s7 is busy with 9 snapshots, \
         s8 has not told yet what it leads"
    );
    assert!(filtered.contains(&(StoreId(4), Filtered::State(StoreState::Suspect))));
    // Three voters are all the rules want.
    let more = select_target(&view, &info, None).unwrap_err();
    assert!(more.contains(&(StoreId(8), Filtered::Unwanted)));
    view.stores.get_mut(&StoreId(8)).unwrap().complete = true;
    assert_eq!(select_target(&view, &info, Some(StoreId(1))), Ok(StoreId(8)));
}

#[test]
fn what_was_begun_counts_at_once() {
    let mut model = Model::plain(5);
    model.fill(&even(12, 50 * MIB));
    model.observe(STEP);
    let mut view = model.view();
    let info = view.region(RegionId(100)).unwrap().info.clone();
    let Ok(first) = select_target(&view, &info, Some(StoreId(1))) else { panic!() };
    let goal = Goal::MoveReplica { from: StoreId(1), to: first };
    let draft = quorate_placement::core::operators::Draft {
        region: info.region.id,
        epoch: info.region.epoch,
        goal,
        by: "replica-checker",
        reason: "test".to_owned(),
    };
    let before = view.tallies.of(first);
    view.begin(&draft);
    let after = view.tallies.of(first);
    assert_eq!((after.replicas, after.incoming), (before.replicas + 1, before.incoming + 1));
    assert!(after.additions < before.additions);
    assert!(view.busy.contains(&info.region.id));
}

#[test]
fn rules_say_where_replicas_go() {
    let disks: [&[(&str, &str)]; 6] = [
        &[("disk", "ssd")],
        &[("disk", "ssd")],
        &[("disk", "ssd")],
        &[("disk", "hdd")],
        &[("disk", "ssd")],
        &[("disk", "hdd")],
    ];
    let mut model = Model::new(&disks);
    let rules = RuleSet::parse("3 voters where disk=ssd; 1 learner where disk=hdd", 3).unwrap();
    model.policy = Policy { rules, ..(*model.policy).clone() }.into();
    model.fill(&even(40, 24 * MIB));
    model.run(10, STEP);
    let counts = model.counts();
    let replicas: Vec<usize> = counts.values().map(|count| count.0).collect();
    assert_eq!(replicas, [30, 30, 30, 0, 30, 0], "only stores with SSDs");
    let view = model.view();
    let info = view.region(RegionId(100)).unwrap().info.clone();
    let learner = quorate_placement::core::filter::select_target_for(
        &view,
        &info,
        quorate_placement::core::rule::RuleRole::Learners,
        None,
    );
    assert_eq!(learner, Ok(StoreId(4)));
}

#[test]
fn a_voter_that_could_stand_farther_off_is_found() {
    let zones: [&[(&str, &str)]; 5] =
        [&[("zone", "a")], &[("zone", "a")], &[("zone", "b")], &[("zone", "c")], &[("zone", "c")]];
    let mut model = Model::new(&zones);
    model.fill(&[(vec![1, 2, 3], MIB), (vec![1, 3, 4], MIB)]);
    model.observe(STEP);
    let mut view = model.view();
    let infos: Vec<_> = view.regions.iter().map(|region| region.info.clone()).collect();
    // The fifth store has none yet.
    assert_eq!(better_isolated(&view, &infos[0]), Some((StoreId(1), StoreId(5))));
    assert_eq!(better_isolated(&view, &infos[1]), None);
    // A busy store is waited for, one that is gone is not.
    for id in [4, 5] {
        view.stores.get_mut(&StoreId(id)).unwrap().stats.snapshots_receiving = 9;
    }
    assert_eq!(better_isolated(&view, &infos[0]), None);
    let waits = select_target(&view, &infos[1], Some(StoreId(4))).unwrap_err();
    assert!(waits.contains(&(StoreId(5), Filtered::Snapshots(9))), "{waits:?}");
    view.stores.get_mut(&StoreId(5)).unwrap().state = StoreState::Down;
    assert_eq!(select_target(&view, &infos[1], Some(StoreId(4))), Ok(StoreId(2)));
}

#[test]
fn a_region_is_split_where_other_rules_begin() {
    let mut model = Model::plain(3);
    model.fill(&even(3, MIB));
    // The regions begin at the empty key, at k000001 and at k000002.
    let text =
        "1 voter from \"k000001a\" to \"k000002\"; 1 learner from \"k000001b\" to \"k000001c\"";
    let rules = RuleSet::parse(text, 3).unwrap();
    model.policy = Policy { rules, ..(*model.policy).clone() }.into();
    model.observe(STEP);
    let view = model.view();
    let verdicts: Vec<Verdict> =
        view.regions.iter().map(|region| boundary::check(&view, &region.info)).collect();
    let Verdict::Repair(split) = &verdicts[1] else { panic!("{verdicts:?}") };
    let keys = ["k000001a", "k000001b", "k000001c"].map(bytes::Bytes::from);
    assert_eq!((split.by, &split.goal), ("split-checker", &Goal::Split { keys: keys.to_vec() }));
    assert_eq!((&verdicts[0], &verdicts[2]), (&Verdict::Fine, &Verdict::Fine));
}

#[test]
fn the_surplus_voter_is_the_one_least_missed() {
    let zones: [&[(&str, &str)]; 4] =
        [&[("zone", "a")], &[("zone", "b")], &[("zone", "c")], &[("zone", "c")]];
    let mut model = Model::new(&zones);
    model.fill(&even(4, MIB));
    model.observe(STEP);
    let view = model.view();
    let mut info = (*view.region(RegionId(100)).unwrap().info).clone();
    assert_eq!(select_surplus(&view, &info), None);
    info.region.peers.push(Peer { id: PeerId(77), store: StoreId(4), role: Role::Voter });
    // Both of zone c are as little isolated; the fourth store has fewer replicas.
    assert_eq!(select_surplus(&view, &info), Some(StoreId(3)));
    info.down = vec![info.region.peer_on(StoreId(1)).unwrap().id];
    assert_eq!(select_surplus(&view, &info), Some(StoreId(1)), "a dead one goes first");
}

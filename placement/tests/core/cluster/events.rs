//! What those who watch are told: once, in words, and not one by one where many things happen.

use quorate_placement::core::command::{Command, Plan};
use quorate_placement::core::events::{Batch, KEPT, KEPT_GRAVE, MAX_BATCH, News, Severity};
use quorate_placement::core::report::StoreStats;
use quorate_placement::core::watch::Watch;
use quorate_proto::{NodeId, RegionId, StoreId, Term};

use super::Cluster;

/// The events of one kind, in words.
fn told(cluster: &Cluster, kind: &str) -> Vec<String> {
    let events = cluster.machine.state.events().after(0, 0).into_iter();
    events.filter(|event| event.news.kind == kind).map(|event| event.news.text).collect()
}

#[test]
fn a_partition_between_stores_is_told_once_and_so_is_its_end() {
    let mut cluster = Cluster::new(3, 3);
    cluster.seconds(2);
    cluster.stores.get_mut(&1).unwrap().unheard = vec![StoreId(3)];
    cluster.seconds(2);
    assert_eq!(told(&cluster, "partition-found"), [""; 0], "it may be over in a moment");
    cluster.seconds(20);
    let found = ["s1 does not hear s3, though placement hears both"];
    assert_eq!(told(&cluster, "partition-found"), found);
    assert_eq!(told(&cluster, "partition-healed"), [""; 0]);
    cluster.stores.get_mut(&1).unwrap().unheard.clear();
    cluster.seconds(5);
    assert_eq!(told(&cluster, "partition-found"), found);
    assert_eq!(told(&cluster, "partition-healed"), ["s1 hears s3 again"]);
}

#[test]
fn a_store_that_dies_is_no_partition() {
    let mut cluster = Cluster::new(3, 3);
    cluster.seconds(2);
    cluster.stores.get_mut(&3).unwrap().dead = true;
    for store in [1, 2] {
        cluster.stores.get_mut(&store).unwrap().unheard = vec![StoreId(3)];
    }
    cluster.seconds(60);
    assert_eq!(told(&cluster, "partition-found"), [""; 0]);
    assert_eq!(told(&cluster, "store-suspect").len(), 1);
}

#[test]
fn a_store_that_joins_is_told_of_and_those_that_were_there_are_not() {
    let mut cluster = Cluster::new(3, 1);
    cluster.seconds(3);
    assert_eq!(told(&cluster, "store-joined"), [""; 0]);
    // Up before anybody has looked at it.
    let id = cluster.join(9);
    cluster.seconds(3);
    cluster.failover();
    cluster.seconds(3);
    assert_eq!(told(&cluster, "store-joined"), [format!("s{id} has joined the cluster")]);
    assert_eq!(told(&cluster, "store-up"), [""; 0]);
}

#[test]
fn the_leaders_of_a_lost_store_are_one_event_for_each_that_takes_over() {
    let mut cluster = Cluster::new(3, 30);
    cluster.seconds(3);
    cluster.stores.get_mut(&1).unwrap().dead = true;
    cluster.seconds(3);
    let elected = told(&cluster, "leader-elected");
    assert!(elected.len() <= 2, "{elected:?}");
    assert!(elected[0].starts_with("11 regions are led by s2: r100, r103"), "{elected:?}");
    assert!(elected[0].ends_with("and 3 more"), "{elected:?}");
}

fn news(severity: Severity, text: &str) -> News {
    let (kind, text) = ("something".to_owned(), text.to_owned());
    News { at_ms: 1, severity, kind, text, region: RegionId(0), node: NodeId(0) }
}

/// Tells so many, behind the first so many.
fn tell(cluster: &mut Cluster, severity: Severity, told: u64, count: u64) {
    let texts = (told..told + count).map(|number| news(severity, &format!("number {number}")));
    let all: Vec<News> = texts.collect();
    for (at, some) in all.chunks(MAX_BATCH).enumerate() {
        let first = told + 1 + (at * MAX_BATCH) as u64;
        let events = Batch { term: Term(9), first, news: some.to_vec() };
        cluster.machine.apply(Command::SavePlan(Plan { events, ..Plan::default() }));
    }
}

#[test]
fn what_only_informs_does_not_push_out_a_warning() {
    let mut cluster = Cluster::new(3, 1);
    tell(&mut cluster, Severity::Critical, 0, 1);
    let many = KEPT as u64 + 500;
    tell(&mut cluster, Severity::Info, 1, many);
    let kept = cluster.events();
    assert_eq!(kept.len(), KEPT + 1);
    assert_eq!((kept[0].as_str(), kept[1].as_str()), ("number 0", "number 501"));
    assert_eq!(cluster.machine.reloaded().events(), cluster.machine.state.events());
    // Warnings are bounded, too.
    let more = KEPT_GRAVE as u64 + 5;
    tell(&mut cluster, Severity::Warning, 1 + many, more);
    assert_eq!(cluster.events().len(), KEPT + KEPT_GRAVE);
    assert_eq!(cluster.machine.state.events().told_by(Term(9)), 1 + many + more);
}

#[test]
fn truncated_logs_are_told_of_a_store_now_and_then() {
    let mut watch = Watch::default();
    let mut at = |incarnation, entries, at_ms| {
        let stats = StoreStats {
            log_truncations: entries / 10,
            log_truncated_entries: entries,
            ..StoreStats::default()
        };
        watch.compacted(StoreId(2), (incarnation, stats), at_ms).map(|news| news.text)
    };
    assert_eq!(at(1, 500, 0), None, "what was before is not known");
    assert_eq!(at(1, 900, 30_000), None, "not every second");
    let text = "s2 compacted logs of its regions: 600 entries in 60 steps within 61 s";
    assert_eq!(at(1, 1_100, 61_000).as_deref(), Some(text));
    assert_eq!(at(1, 1_100, 200_000), None, "nothing new");
    assert_eq!(at(2, 50, 300_000), None, "it counts anew");
    let text = "s2 compacted logs of its regions: 10 entries in 1 steps within 90 s";
    assert_eq!(at(2, 60, 390_000).as_deref(), Some(text));
}

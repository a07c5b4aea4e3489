//! How long placement takes to see and to plan: 10,000 regions on three stores, a fourth one new.
//!
//! `cargo run -p quorate-placement --example plan [REGIONS [STORES]]` prints the time to take the
//! picture of the cluster and to plan from it, each as the median and the maximum of many rounds,
//! and what the regions, their rates and one picture take in memory.
#![allow(clippy::unwrap_used)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant as Clock};

use quorate_consensus::time::Instant;
use quorate_placement::core::limit::{LimitRates, Limits};
use quorate_placement::core::load::Loads;
use quorate_placement::core::operators::{Draft, Goal};
use quorate_placement::core::policy::Policy;
use quorate_placement::core::report::{Report, StoreStats};
use quorate_placement::core::rule::RuleSet;
use quorate_placement::core::schedule::Schedulers;
use quorate_placement::core::state::{Store, StoreLife};
use quorate_placement::core::stores::Stores;
use quorate_placement::core::tree::{RegionInfo, RegionStats, RegionTree};
use quorate_placement::core::view::{ClusterView, Sources};
use quorate_proto::{Epoch, KeyRange, Peer, PeerId, Region, RegionId, Role, StoreId, Term};

/// The system's allocator, which counts.
struct Counting;

static IN_USE: AtomicUsize = AtomicUsize::new(0);

// SAFETY: everything is handed to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        IN_USE.fetch_add(layout.size(), Ordering::Relaxed);
        // SAFETY: as promised by the caller.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        IN_USE.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: as promised by the caller.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn in_use() -> usize {
    IN_USE.load(Ordering::Relaxed)
}

fn main() {
    let mut arguments = std::env::args().skip(1).map(|argument| argument.parse::<u64>().unwrap());
    let regions = arguments.next().unwrap_or(10_000);
    let stores = arguments.next().unwrap_or(4).max(4);
    println!("{regions} regions, {stores} stores, of which the last one is new");

    let now = Instant::from_millis(1_000_000);
    let known: BTreeMap<StoreId, Arc<Store>> =
        (1..=stores).map(|id| (StoreId(id), Arc::new(store(id)))).collect();
    let policy = Arc::new(Policy::of_replicas(3).unwrap());
    let limits = Limits::new(LimitRates::default());
    let (mut alive, mut loads, mut tree) =
        (Stores::new(now), Loads::default(), RegionTree::default());

    let before = in_use();
    for number in 0..regions {
        tree.offer(region(number, regions, stores - 1)).unwrap();
    }
    let tree_bytes = in_use() - before;
    let before = in_use();
    for round in 0..2 {
        let at = now + Duration::from_secs(10 * round);
        for id in 1..=stores {
            let report = report(StoreId(id), &tree);
            alive.heard(StoreId(id), 1, report.stats, true, at);
            loads.report(&report, at);
        }
    }
    println!("regions {} KiB, rates {} KiB", tree_bytes / 1_024, (in_use() - before) / 1_024);

    let now = now + Duration::from_secs(11);
    let sources = Sources {
        tree: &tree,
        known: &known,
        alive: &alive,
        loads: &loads,
        limits: &limits,
        policy: &policy,
    };
    let see = |under_way: &BTreeMap<RegionId, Goal>| {
        let busy: BTreeSet<RegionId> = under_way.keys().copied().collect();
        ClusterView::of(sources, under_way.iter().map(|(id, goal)| (*id, goal)), busy, now)
    };
    let before = in_use();
    let view = see(&BTreeMap::new());
    println!("a picture {} KiB", (in_use() - before) / 1_024);
    drop(view);

    let (mut seeing, mut planning, mut drafted) = (Vec::new(), Vec::new(), 0);
    for _ in 0..200 {
        let mut schedulers = Schedulers::default();
        let start = Clock::now();
        let view = see(&BTreeMap::new());
        seeing.push(start.elapsed());
        let start = Clock::now();
        drafted = schedulers.plan(&view, 256, now).len();
        planning.push(start.elapsed());
    }
    print("to see", seeing);
    print(&format!("to plan {drafted} moves"), planning);

    // The worst case: stores are uneven, and the rules let nothing move. The new store may hold
    // some regions, so it counts, and none that there are.
    let text = format!("3 voters where host!=h{stores}; 1 voter from \"zzz\" where host=h{stores}");
    let rules = RuleSet::parse(&text, 3).unwrap();
    let policy = Arc::new(Policy { rules, ..Policy::of_replicas(3).unwrap() });
    let (mut stuck, mut again) = (Vec::new(), Vec::new());
    for _ in 0..50 {
        let mut schedulers = Schedulers::default();
        let mut view = see(&BTreeMap::new());
        view.policy = Arc::clone(&policy);
        let start = Clock::now();
        let drafts = schedulers.plan(&view, 256, now);
        stuck.push(start.elapsed());
        let start = Clock::now();
        schedulers.plan(&view, 256, now + Duration::from_millis(250));
        again.push(start.elapsed());
        let uses_new = |draft: &Draft| matches!(draft.goal, Goal::MoveReplica { to, .. } if to == StoreId(stores));
        assert!(!drafts.iter().any(uses_new));
    }
    print("to find that nothing may move", stuck);
    print("to remember it", again);
}

fn print(what: &str, mut times: Vec<Duration>) {
    times.sort_unstable();
    let millis = |time: Duration| time.as_secs_f64() * 1_000.0;
    let (median, most) = (times[times.len() / 2], times[times.len() - 1]);
    println!("{what}: median {:.2} ms, maximum {:.2} ms", millis(median), millis(most));
}

fn store(id: u64) -> Store {
    Store {
        id: StoreId(id),
        address: format!("127.0.0.1:{}", 20_000 + id),
        status_address: String::new(),
        labels: BTreeMap::from([("host".to_owned(), format!("h{id}"))]),
        version: String::new(),
        incarnation: 1,
        data_id: id,
        life: StoreLife::Active,
    }
}

/// Three replicas on the stores that were there before the new one.
fn region(number: u64, of: u64, stores: u64) -> RegionInfo {
    let key = |n: u64| if n == 0 { Vec::new() } else { format!("key{n:012}").into_bytes() };
    let end = if number + 1 == of { Vec::new() } else { key(number + 1) };
    let id = 10 + number;
    let peers: Vec<Peer> = (0..3)
        .map(|k| Peer {
            id: PeerId(id * 4 + k),
            store: StoreId((number + k) % stores + 1),
            role: Role::Voter,
        })
        .collect();
    RegionInfo {
        leader: Some(peers[0]),
        region: Region {
            id: RegionId(id),
            range: KeyRange::new(key(number), end),
            epoch: Epoch { conf_ver: 1, version: 1 },
            peers,
        },
        term: Term(6),
        down: Vec::new(),
        pending: Vec::new(),
        progress: Vec::new(),
        last_index: Default::default(),
        merging: None,
        stats: RegionStats {
            bytes: 50 * 1024 * 1024 + number % 97 * 1024 * 512,
            written_keys: number % 13 * 10,
            read_keys: number % 7 * 100,
            ..RegionStats::default()
        },
        led: true,
    }
}

fn report(store: StoreId, tree: &RegionTree) -> Report {
    let led = tree.iter().filter(|info| info.leader.is_some_and(|leader| leader.store == store));
    Report {
        store,
        incarnation: 1,
        stats: StoreStats::default(),
        regions: led.map(|info| info.as_ref().clone()).collect(),
        full: true,
        sequence: 1,
        refusals: Vec::new(),
        unled: Vec::new(),
        hosted: Vec::new(),
        unheard: Vec::new(),
    }
}

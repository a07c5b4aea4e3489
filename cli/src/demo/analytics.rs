//! Learners that stay learners: they serve scans, and the voters' writes do not wait for them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use quorate_client::{Client, ClientOptions, ReadOptions};
use quorate_proto::wire::placement::{ChangeReplicaRequest, MembersRequest};

use super::load::Load;
use super::spread::{Spread, ordinary};
use super::stage::{Shape, Stage};
use super::teller::Teller;
use super::{Common, Faults, Verdict};
use crate::cluster::probe;
use crate::exit::{Failure, Outcome};
use crate::output;

/// Regions of the cluster.
const REGIONS: usize = 12;
/// Places that the load works at.
const PLACES: usize = 12;
/// How long each way to scan is measured.
const MEASURED: Duration = Duration::from_secs(8);
/// By how much the slowest hundredth of writes may be slower while learners serve scans than without
/// scans, or with scans from leaders: what they share is the machine's processors, and nothing else.
const SLOWER: Duration = Duration::from_millis(250);
/// Who would move voters to the store of the learners.
const PAUSED: [&str; 2] = ["balance-region", "balance-leader"];

/// Runs it.
///
/// # Errors
/// It cannot be run to its end.
pub(super) async fn run(common: &Common) -> Outcome<Verdict> {
    let shape = Shape { placements: 3, stores: 3, store_settings: "" };
    let mut stage = Stage::set("analytics", common, &shape).await?;
    stage.change(&[("lifecycle.stable_ms", "500"), ("store_limit.additions", "1000")]).await?;
    stage.import_all().await?;
    stage.split_into(REGIONS).await?;
    for name in PAUSED {
        stage.placement.set_scheduler(name, true).await?;
    }
    stage.screen.say(&format!("demo settings: {} are paused", PAUSED.join(" and ")));
    let load = stage.load(PLACES)?;
    let regions = stage.regions().await?;
    let watched = ordinary(&regions).next().map(|info| info.region.id);
    let watched = watched.ok_or_else(|| Failure::error("there are no regions"))?;
    let mut teller = Teller::listen(&stage.placement);

    let (name, store) = stage.add_store().await?;
    for info in ordinary(&regions) {
        let request = ChangeReplicaRequest {
            region_id: info.region.id.get(),
            add_store_id: store.get(),
            remove_store_id: 0,
            analytics: true,
        };
        stage.placement.change_replica(request).await?;
    }
    loop {
        teller.tell(&stage, watched);
        let request = MembersRequest { region_id: 0, placement: false };
        let members = stage.placement.lifecycles(request).await?;
        let kept = members
            .iter()
            .filter(|one| one.node_id == store.get() && one.state == "KeepAsLearner")
            .count();
        if kept >= REGIONS {
            break;
        }
        stage.screen.rows(vec![format!("{kept} of {REGIONS} learners are ready"), load.line()]);
        stage.in_time("every region has its learner")?;
        stage.pause().await;
    }
    teller.tell(&stage, watched);
    stage.screen.say(&format!("every region has a learner on {store} ({name}), which stays one"));

    let alone = measure(&mut stage, &load, None, "no scans").await?;
    let leaders =
        measure(&mut stage, &load, Some(ReadOptions::default()), "scans from leaders").await?;
    let before = scans_served(&stage, &name)?;
    let learners =
        measure(&mut stage, &load, Some(ReadOptions::learner()), "scans from learners").await?;
    let served = scans_served(&stage, &name)?.saturating_sub(before);
    stage.screen.clear();
    let stores: Vec<_> = {
        let ids = stage.local.store_ids(stage.deadline).await?;
        ids.into_values().map(quorate_proto::StoreId).collect()
    };
    let counts = Spread::of(&stage.regions().await?, &stores).on(store);
    let tally = load.stop(stage.deadline).await?;

    let mut verdict = Verdict::default();
    verdict.figure(format!("{} learners stayed learners", counts.learners));
    verdict.check(
        counts.learners == REGIONS as u64 && counts.voters == 0,
        format!("{store} has {} learners and {} voters", counts.learners, counts.voters),
    );
    let records = stage.records.keys.len() as u64;
    verdict.check(
        learners.least.is_some_and(|least| least >= records),
        format!("no whole scan of the learners found all {records} records"),
    );
    let pages = records / PAGE as u64;
    verdict.figure(format!("{name} answered {served} scans as a learner"));
    verdict.check(
        served >= pages,
        format!("{name} answered {served} scans, one of all records takes {pages}"),
    );
    let allowed = alone.p99.max(leaders.p99) + SLOWER;
    verdict.check(
        learners.p99 <= allowed,
        format!(
            "with scans from learners the p99 of writes is {}, {} are allowed",
            output::time(learners.p99),
            output::time(allowed)
        ),
    );
    verdict.figure(format!(
        "p99 of writes {} alone, {} with scans from leaders ({} pairs/s), {} with scans from \
         learners ({} pairs/s; allowed: {})",
        output::time(alone.p99),
        output::time(leaders.p99),
        output::count(leaders.pairs),
        output::time(learners.p99),
        output::count(learners.pairs),
        output::time(allowed)
    ));
    verdict.load(&tally, Faults::None);
    verdict.records(stage.verify().await);
    Ok(verdict)
}

/// Scans that a store has answered with pairs, by its own count.
fn scans_served(stage: &Stage, name: &str) -> Outcome<u64> {
    let member = stage.local.member(name)?;
    let page = probe::page(&member.status_address, "/metrics")
        .map_err(|error| Failure::error(format!("{name} does not show its metrics: {error}")))?;
    let wanted = r#"quorate_store_requests_total{kind="raw_scan",outcome="ok"} "#;
    let count = page.body.lines().find_map(|line| line.strip_prefix(wanted)?.trim().parse().ok());
    // Not shown before the first one.
    Ok(count.unwrap_or(0))
}

/// Writes while scans run.
struct Measured {
    p99: Duration,
    pairs: f64,
    /// The fewest pairs that a whole scan found.
    least: Option<u64>,
}

async fn measure(
    stage: &mut Stage,
    load: &Load,
    from: Option<ReadOptions>,
    what: &str,
) -> Outcome<Measured> {
    let scanner = match from {
        Some(from) => Some(Scanner::start(stage.local.cluster().placement(), from)?),
        None => None,
    };
    let begin = load.elapsed();
    while load.elapsed() - begin < MEASURED
        || scanner.as_ref().is_some_and(|scanner| scanner.whole() == 0)
    {
        stage.screen.rows(vec![what.to_owned(), load.line()]);
        stage.in_time(what)?;
        stage.pause().await;
    }
    let end = load.elapsed();
    let figures = load.with_timeline(|timeline| timeline.figures(begin, end));
    let (pairs, least) = match scanner {
        Some(scanner) => {
            let seconds = (end - begin).as_secs_f64();
            let (pairs, least) = scanner.stop()?;
            (pairs as f64 / seconds, least)
        }
        None => (0.0, None),
    };
    stage.screen.say(&format!(
        "{what}: {} writes/s, p99 {}{}",
        output::count(figures.rate),
        output::time(figures.p99),
        if pairs > 0.0 {
            format!(", {} pairs/s scanned", output::count(pairs))
        } else {
            String::new()
        }
    ));
    Ok(Measured { p99: figures.p99, pairs, least })
}

/// Scans everything, again and again, on a thread of its own.
struct Scanner {
    stop: Arc<AtomicBool>,
    whole: Arc<AtomicU64>,
    thread: JoinHandle<Outcome<(u64, Option<u64>)>>,
}

impl Scanner {
    fn start(placement: Vec<String>, from: ReadOptions) -> Outcome<Self> {
        let (stop, whole) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (stopped, count) = (Arc::clone(&stop), Arc::clone(&whole));
        let work = move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .map_err(|error| Failure::error(format!("scans cannot run: {error}")))?;
            runtime.block_on(scan(placement, from, &stopped, &count))
        };
        let thread = std::thread::Builder::new()
            .name("scans".to_owned())
            .spawn(work)
            .map_err(|error| Failure::error(format!("scans cannot be started: {error}")))?;
        Ok(Self { stop, whole, thread })
    }

    /// Whole scans so far.
    fn whole(&self) -> u64 {
        self.whole.load(Ordering::Relaxed)
    }

    /// Pairs of all scans, and the fewest of a whole one.
    fn stop(self) -> Outcome<(u64, Option<u64>)> {
        self.stop.store(true, Ordering::Relaxed);
        match self.thread.join() {
            Ok(found) => found,
            Err(_) => Err(Failure::error("scans ended on their own")),
        }
    }
}

/// Pairs read at once.
const PAGE: usize = 1_000;

async fn scan(
    placement: Vec<String>,
    from: ReadOptions,
    stop: &AtomicBool,
    whole: &AtomicU64,
) -> Outcome<(u64, Option<u64>)> {
    let client = Client::connect(&placement, ClientOptions::default()).await?;
    let (mut all, mut least) = (0, None);
    loop {
        let (mut start, mut pairs) = (Bytes::new(), 0);
        loop {
            if stop.load(Ordering::Relaxed) {
                return Ok((all, least));
            }
            let page = client.scan_with(start.clone(), Bytes::new(), PAGE, from).await?;
            pairs += page.len() as u64;
            all += page.len() as u64;
            let Some((last, _)) = page.last().filter(|_| page.len() == PAGE) else { break };
            start = [last.as_ref(), &[0]].concat().into();
        }
        whole.fetch_add(1, Ordering::Relaxed);
        least = Some(least.map_or(pairs, |least: u64| least.min(pairs)));
    }
}

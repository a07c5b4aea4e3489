//! The stream to placement: reports up, orders down, for as long as the process lives.
//!
//! A report goes out at a steady pace with what changed, and at once for a region that was split,
//! changed its replicas or is led from here now, for one that placement does not know, and for an
//! order that was refused ([`Nudge`]). When the stream breaks, because placement has another
//! leader or cannot be reached, a new one begins with everything. Serving goes on meanwhile.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use prost::Message;
use quorate_client::PlacementClient;
use quorate_consensus::node::clock;
use quorate_proto::RegionId;
use quorate_proto::limits::{KNOWN_VERSION, MAX_FRAME_BYTES};
use quorate_proto::wire::placement::{OrderRefusal, RegionReport, StoreOrders, StoreReport};
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::{MissedTickBehavior, sleep_until};
use tokio_stream::wrappers::ReceiverStream;

use super::sample::{Sample, Sampler};
use super::{Joiner, Orders, Patience};
use crate::core::{Directory, LocalRegion, Regions, Reporter, SplitOptions, add_snapshots, unled};
use crate::fatal::Fatal;
use crate::identity::Identity;
use crate::metrics::Metrics;
use crate::pages::count;
use crate::placement_time::PlacementTime;
use crate::process::cpu_us;

/// Most regions in one message, and most bytes of them: keys may be long, and placement takes no
/// message beyond [`MAX_FRAME_BYTES`], which leaves room for all else.
const REGIONS_A_MESSAGE: usize = 4_096;
const BYTES_A_MESSAGE: usize = MAX_FRAME_BYTES / 2;
/// Messages that may wait for the network; with more, the stream counts as stuck.
const OUTBOX: usize = 64;
/// How long placement may take to open the stream, or to answer on it.
const SILENCE: Duration = Duration::from_secs(5);

/// Shortest time between two reports of nudged regions: many leaders may come at once, and one that
/// is stopped is looked at until all its replicas have its log.
const GATHERING: Duration = Duration::from_millis(20);

/// Refusals kept for the next report; beyond, placement finds out by its deadlines.
const REFUSALS: usize = 1_024;

/// Most stores named that are not heard.
const UNHEARD: usize = 64;

/// What placement should hear of at once.
#[derive(Debug, Default)]
pub(crate) struct Nudge {
    regions: Mutex<BTreeSet<RegionId>>,
    refusals: Mutex<Vec<OrderRefusal>>,
    stopping: AtomicBool,
    notify: Notify,
}

impl Nudge {
    /// This region was split, changed its replicas, or is led from here now; or placement does not
    /// know it. Never blocks for long.
    pub(crate) fn add(&self, region: RegionId) {
        let first = {
            let mut regions = self.regions.lock();
            regions.insert(region) && regions.len() == 1
        };
        if first {
            self.notify.notify_one();
        }
    }

    /// An order is not carried out, or failed.
    pub(crate) fn refuse(&self, operator_id: u64, region: RegionId, reason: String) {
        tracing::info!(operator = operator_id, %region, reason, "refused an order");
        let mut refusals = self.refusals.lock();
        if refusals.len() < REFUSALS {
            refusals.push(OrderRefusal { operator_id, region_id: region.0, reason });
        }
        drop(refusals);
        self.notify.notify_one();
    }

    /// Takes out what was refused.
    pub(super) fn refusals(&self) -> Vec<OrderRefusal> {
        std::mem::take(&mut *self.refusals.lock())
    }

    /// This store is stopping: no leader should be moved here.
    pub(crate) fn stopping(&self) {
        self.stopping.store(true, Ordering::Release);
        self.notify.notify_one();
    }

    fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    fn take(&self) -> BTreeSet<RegionId> {
        std::mem::take(&mut *self.regions.lock())
    }
}

/// The region is stopped for a merge, is led from here, and not all of its replicas are known to have
/// its log.
fn waits_for_everybody(local: &LocalRegion) -> bool {
    let view = local.view();
    let waits = |frozen| view.is_leader() && view.everywhere() < frozen;
    local.merging().is_some_and(|(_, merging)| waits(merging.frozen))
}

/// One stream's way out.
struct Outbox<'a> {
    outbox: mpsc::Sender<StoreReport>,
    sample: &'a watch::Receiver<Sample>,
    /// Of the last report.
    sequence: u64,
}

/// How many of the reports fit into one message; at least one, where there is one.
fn fitting(reports: &[RegionReport]) -> usize {
    let mut bytes = 0;
    let fits = reports.iter().take(REGIONS_A_MESSAGE).take_while(|report| {
        // With its tag and its length.
        bytes += report.encoded_len() + 8;
        bytes <= BYTES_A_MESSAGE
    });
    fits.count().max(1).min(reports.len())
}

/// What the stream needs.
pub(crate) struct Heartbeats {
    pub(crate) joiner: Joiner,
    pub(crate) identity: Identity,
    pub(crate) directory: Arc<Directory>,
    pub(crate) orders: Orders,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) time: Arc<PlacementTime>,
    pub(crate) nudge: Arc<Nudge>,
    pub(crate) interval: Duration,
    pub(crate) split: SplitOptions,
    pub(crate) fatal: Fatal,
}

impl Heartbeats {
    /// Keeps a stream to placement. Ends only where placement refuses this store, or the engine
    /// failed; then `fatal` knows.
    pub(crate) async fn run(self, client: PlacementClient) {
        let sampler = Sampler::new(Arc::clone(&self.joiner.engine), self.joiner.folder.clone());
        sampler.take().await;
        let sample = sampler.last();
        tokio::select! {
            () = self.keep_stream(client, sample) => {}
            () = sampler.run() => {}
        }
    }

    async fn keep_stream(mut self, client: PlacementClient, sample: watch::Receiver<Sample>) {
        let mut patience = Patience::new();
        let mut reporter = Reporter::new();
        loop {
            match self.joiner.ask(&client, &mut self.identity, &mut patience).await {
                Ok(Some(_)) => {}
                Ok(None) => continue,
                Err(error) => return self.fatal.report(error),
            }
            reporter.restart();
            let opened = Instant::now();
            let why = self.stream(&client, &mut reporter, &sample).await;
            self.metrics.report_streams_lost.fetch_add(1, Ordering::Relaxed);
            if opened.elapsed() > SILENCE {
                patience.reset();
            }
            patience.wait(&format!("the stream to placement ended: {why}")).await;
        }
    }

    /// Runs one stream to its end; returns why it ended.
    async fn stream(
        &self,
        client: &PlacementClient,
        reporter: &mut Reporter,
        sample: &watch::Receiver<Sample>,
    ) -> String {
        let (outbox, reports) = mpsc::channel(OUTBOX);
        let mut outbox = Outbox { outbox, sample, sequence: 0 };
        // The first report goes ahead of the answer to the call.
        if let Err(why) = self.report(&mut outbox, reporter) {
            return why;
        }
        let call = client.heartbeat(ReceiverStream::new(reports));
        let mut orders = match tokio::time::timeout(SILENCE, call).await {
            Ok(Ok(orders)) => orders,
            Ok(Err(error)) => return error.to_string(),
            Err(_) => return format!("no answer within {SILENCE:?}"),
        };
        let mut heard = Instant::now();
        let mut tick = tokio::time::interval(self.interval);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        tick.reset();
        // When nudged regions are reported, and when they may be at the earliest.
        let (mut due, mut next) = (None, tokio::time::Instant::now());
        loop {
            let sent = tokio::select! {
                message = orders.message() => match message {
                    Ok(Some(orders)) => {
                        heard = Instant::now();
                        self.obey(orders, client.known_members()).await;
                        Ok(())
                    }
                    Ok(None) => return "placement closed it".to_owned(),
                    Err(status) => return status.message().to_owned(),
                },
                () = self.nudge.notify.notified() => {
                    due.get_or_insert(next);
                    Ok(())
                }
                () = sleep_until(due.unwrap_or(next)), if due.is_some() => {
                    due = None;
                    next = tokio::time::Instant::now() + GATHERING;
                    self.report_some(&mut outbox, reporter)
                }
                _ = tick.tick() => {
                    if heard.elapsed() > SILENCE.max(self.interval * 5) {
                        return format!("nothing heard for {:?}", heard.elapsed());
                    }
                    self.report(&mut outbox, reporter)
                }
            };
            if let Err(why) = sent {
                return why;
            }
        }
    }

    /// Everything that changed, in as many messages as it takes; at least one.
    fn report(&self, outbox: &mut Outbox<'_>, reporter: &mut Reporter) -> Result<(), String> {
        self.send_all(outbox, reporter.report(&self.directory, clock::now()))
    }

    /// In as many messages as it takes; at least one.
    fn send_all(&self, outbox: &mut Outbox<'_>, mut regions: Regions) -> Result<(), String> {
        loop {
            let more = regions.reports.split_off(fitting(&regions.reports));
            self.send(outbox, regions)?;
            if more.is_empty() {
                return Ok(());
            }
            regions = Regions { reports: more, ..Regions::default() };
        }
    }

    /// The regions that were nudged.
    fn report_some(&self, outbox: &mut Outbox<'_>, reporter: &mut Reporter) -> Result<(), String> {
        let now = clock::now();
        let mut regions = Regions::default();
        for local in self.nudge.take().into_iter().filter_map(|id| self.directory.get(id)) {
            if waits_for_everybody(&local) {
                // Placement should hear at once when the last replica is there.
                self.nudge.add(local.id());
                if reporter.has_sent(&local) {
                    continue;
                }
            }
            regions.reports.extend(reporter.report_one(&local, now));
            regions.unled.extend(unled(&local));
        }
        let refused = !self.nudge.refusals.lock().is_empty();
        let is_empty = regions == Regions::default();
        if is_empty && !refused && !self.nudge.is_stopping() {
            return Ok(());
        }
        self.send_all(outbox, regions)
    }

    fn send(&self, outbox: &mut Outbox<'_>, regions: Regions) -> Result<(), String> {
        outbox.sequence += 1;
        let sequence = outbox.sequence;
        let Regions { mut reports, full, unled, hosted } = regions;
        let (region_count, leader_count, _) = count(&self.directory);
        let Sample { disk, used } = *outbox.sample.borrow();
        let snapshots = self.orders.raft.snapshots();
        add_snapshots(&mut reports, &snapshots);
        let on_their_way = |sending| {
            snapshots.iter().filter(|one| one.running && one.sending == sending).count() as u32
        };
        let unheard = self.orders.raft.unheard().into_iter().map(|node| node.0);
        let (log_truncations, log_truncated_entries) = self.orders.raft.truncated();
        let report = StoreReport {
            cluster_id: self.identity.cluster_id,
            store_id: self.identity.store.0,
            incarnation: self.joiner.incarnation,
            capacity_bytes: disk.capacity,
            available_bytes: disk.available,
            used_bytes: used,
            region_count: region_count as u32,
            leader_count: leader_count as u32,
            operations: self.metrics.operations(),
            regions: reports,
            full,
            sequence,
            stopping: self.nudge.is_stopping(),
            snapshots_sending: on_their_way(true),
            snapshots_receiving: on_their_way(false),
            unheard_store_ids: unheard.take(UNHEARD).collect(),
            log_truncations,
            log_truncated_entries,
            split_bytes: self.split.max_bytes,
            split_keys: self.split.max_keys,
            known_version: KNOWN_VERSION,
            cpu_us: cpu_us(),
            refusals: self.nudge.refusals(),
            unled,
            hosted,
        };
        self.metrics.reports.fetch_add(1, Ordering::Relaxed);
        self.time.ask(sequence, clock::now());
        outbox.outbox.try_send(report).map_err(|_| "placement does not take reports".to_owned())
    }

    /// Takes over what placement says and carries out its orders.
    async fn obey(&self, orders: StoreOrders, members: Vec<String>) {
        if orders.time_ms > 0 {
            self.time.learn(orders.sequence, orders.time_ms, clock::now());
        }
        let (book, stores) = (Arc::clone(&self.joiner.addresses), orders.stores);
        if !stores.is_empty() || members != book.placement() {
            let learn = move || book.learn(stores).and_then(|()| book.learn_placement(members));
            if let Ok(Err(error)) = tokio::task::spawn_blocking(learn).await {
                self.fatal.engine(&error);
            }
        }
        for order in orders.orders {
            self.orders.carry_out(order);
        }
    }
}

#[cfg(test)]
#[path = "report_tests.rs"]
mod tests;

//! Splitting regions: those that have grown over a bound, and those that placement asks for.
//!
//! One split of a region at a time, few at once over all. Regions are measured on a blocking
//! thread; what comes out of it is never remembered: a split that fails is planned anew later.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;
use quorate_client::PlacementClient;
use quorate_consensus::engine::{Engine, EngineError};
use quorate_consensus::node::clock;
use quorate_proto::RegionId;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

use crate::core::split::{self, SplitOptions};
use crate::core::{Admitted, Directory, LocalRegion};
use crate::fatal::Fatal;
use crate::metrics::Metrics;
use crate::placement::Nudge;
use crate::placement_time::PlacementTime;
use crate::raft::Raft;
use crate::serve::{Serving, Token, Verdict};

/// How long a region is left alone after a split of it failed.
const PAUSE: Duration = Duration::from_secs(3);
/// How long a proposed split may take until its outcome is not waited for any more.
const PATIENCE: Duration = Duration::from_secs(10);

/// Placement asks for a split.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SplitRequest {
    /// Of this region.
    pub(crate) region: RegionId,
    /// At these keys; none: in half by size.
    pub(crate) keys: Vec<Bytes>,
}

/// Splits regions of one store.
#[derive(Clone)]
pub(crate) struct Splitter {
    pub(crate) serving: Arc<Serving>,
    pub(crate) raft: Arc<dyn Raft>,
    pub(crate) engine: Arc<dyn Engine>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) time: Arc<PlacementTime>,
    pub(crate) nudge: Arc<Nudge>,
    pub(crate) fatal: Fatal,
    pub(crate) cluster_id: u64,
    pub(crate) options: SplitOptions,
    pub(crate) interval: Duration,
    pub(crate) concurrent: usize,
}

/// A region and where to cut it.
type Plan = (Arc<LocalRegion>, Vec<Bytes>);

/// What is under way, and what has to wait.
#[derive(Default)]
struct Work {
    splits: JoinSet<(RegionId, bool)>,
    busy: BTreeSet<RegionId>,
    paused: BTreeMap<RegionId, Instant>,
}

impl Splitter {
    /// Splits for as long as the process lives.
    pub(crate) async fn run(
        self,
        client: PlacementClient,
        mut requests: mpsc::Receiver<SplitRequest>,
    ) {
        let mut work = Work::default();
        let mut tick = tokio::time::interval(self.interval);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let room = work.splits.len() < self.concurrent;
            tokio::select! {
                _ = tick.tick(), if room => {
                    let most = self.concurrent - work.splits.len();
                    for (local, keys) in self.plan(&mut work, most).await {
                        self.start(&mut work, &client, local, Some(keys));
                    }
                }
                Some(SplitRequest { region, keys }) = requests.recv(), if room => {
                    let local = self.directory().get(region);
                    // While another split of it runs, the request is for a region of the past.
                    if let Some(local) = local.filter(|_| !work.busy.contains(&region)) {
                        let keys = (!keys.is_empty()).then_some(keys);
                        self.start(&mut work, &client, local, keys);
                    }
                }
                Some(ended) = work.splits.join_next(), if !work.splits.is_empty() => {
                    if let Ok((region, done)) = ended {
                        work.busy.remove(&region);
                        if done {
                            // A region that was far too large has more to split: look again soon.
                            tick.reset_after(self.interval / 10);
                        } else {
                            work.paused.insert(region, Instant::now() + PAUSE);
                        }
                    }
                }
            }
        }
    }

    fn directory(&self) -> &Arc<Directory> {
        self.serving.directory()
    }

    fn start(
        &self,
        work: &mut Work,
        client: &PlacementClient,
        local: Arc<LocalRegion>,
        keys: Option<Vec<Bytes>>,
    ) {
        let region = local.id();
        work.busy.insert(region);
        let (splitter, client) = (self.clone(), client.clone());
        work.splits.spawn(async move {
            let result = splitter.split(&client, local, keys).await;
            if let Err(reason) = &result {
                splitter.metrics.splits_failed.fetch_add(1, Ordering::Relaxed);
                tracing::info!(%region, reason, "the split did not come about");
            }
            (region, result.is_ok())
        });
    }

    /// Measures regions that may have grown, until as many are found that must be split.
    async fn plan(&self, work: &mut Work, most: usize) -> Vec<Plan> {
        let now = Instant::now();
        work.paused.retain(|_, until| *until > now);
        let due: Vec<Arc<LocalRegion>> = self
            .directory()
            .all()
            .into_iter()
            .filter(|local| split::due(local, &self.options))
            .filter(|local| !work.busy.contains(&local.id()))
            .filter(|local| !work.paused.contains_key(&local.id()))
            .collect();
        if due.is_empty() {
            return Vec::new();
        }
        let (engine, options) = (Arc::clone(&self.engine), self.options);
        let measured = tokio::task::spawn_blocking(move || {
            let mut plans = Vec::new();
            for local in due {
                if let Some(plan) = split::check(engine.as_ref(), &local, &options)? {
                    plans.push((local, plan.split_keys));
                }
                if plans.len() == most {
                    break;
                }
            }
            Ok::<_, EngineError>(plans)
        });
        match measured.await {
            Ok(Ok(plans)) => plans,
            Ok(Err(error)) => {
                self.fatal.engine(&error);
                tracing::warn!(%error, "regions cannot be measured");
                Vec::new()
            }
            // The runtime stops.
            Err(_) => Vec::new(),
        }
    }

    /// Splits one region; without keys, in half.
    async fn split(
        &self,
        client: &PlacementClient,
        local: Arc<LocalRegion>,
        keys: Option<Vec<Bytes>>,
    ) -> Result<(), String> {
        let region = local.region().ok_or("it has no data here")?;
        let keys = match keys {
            Some(keys) => keys,
            None => {
                let (engine, region) = (Arc::clone(&self.engine), Arc::clone(&region));
                let half = tokio::task::spawn_blocking(move || {
                    split::plan_half(engine.snapshot().as_ref(), &region)
                });
                let half = half.await.map_err(|error| error.to_string())?;
                half.map_err(|error| error.to_string())?.split_keys
            }
        };
        let keys = split::requested(&region, keys).map_err(|error| error.to_string())?;
        let ask = split::ask(self.cluster_id, &region, keys.len());
        let ids = client.ask_split(ask).await.map_err(|error| error.to_string())?.ids;
        let id = region.id;
        let admitted = Admitted { local, region };
        let parts = keys.len() + 1;
        let command = split::command(&admitted, keys, ids, self.time.at(clock::now()))
            .map_err(|error| error.to_string())?;

        self.metrics.splits_proposed.fetch_add(1, Ordering::Relaxed);
        let (token, answer) = Token::for_call(self.serving.budget().take(command.len()));
        self.raft.propose(id, command, token, true);
        match tokio::time::timeout(PATIENCE, answer).await {
            Ok(Ok(Verdict::Done)) => {
                self.nudge.add(id);
                tracing::info!(region = %id, parts, "split");
                Ok(())
            }
            Ok(Ok(Verdict::Refused(refusal))) => Err(refusal.to_string()),
            Ok(Ok(Verdict::Rejected(error))) => Err(error.to_string()),
            Ok(Ok(
                Verdict::Undetermined | Verdict::Lost | Verdict::Ready(_) | Verdict::Read(_),
            ))
            | Ok(Err(_))
            | Err(_) => Err("nobody can say whether it was applied".to_owned()),
        }
    }
}

//! Stores' streams: reports in, answers and orders out.
//!
//! A report is answered with placement's clock and what the store is to do; what is planned in
//! between is pushed at once (with sequence 0 and no clock). A store has one stream: a newer one
//! replaces the older. A stream ends with the session of the leader that holds it, so that the
//! store looks for the next leader.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use quorate_consensus::node::clock;
use quorate_proto::wire::placement as wire;
use quorate_proto::{StoreId, Term};
use tokio::sync::mpsc;
use tokio_stream::StreamExt as _;
use tonic::{Status, Streaming};

use super::cluster::{Cluster, StoreStream};
use super::{convert, duties};
use crate::core::report::Report;

/// Orders in one message; more follow.
const ORDERS_PER_MESSAGE: usize = 64;
/// Messages that wait for a slow store. What does not fit is sent again later.
const QUEUE: usize = 16;
/// A stream that brings nothing for so long is given up.
const SILENCE: Duration = Duration::from_secs(60);

static STREAMS: AtomicU64 = AtomicU64::new(1);

type Answer = Result<wire::StoreOrders, Status>;

/// Serves a store's stream from its first report on.
///
/// # Errors
/// The stream brought no report, or one that is refused.
pub(crate) async fn serve(
    cluster: Arc<Cluster>,
    mut reports: Streaming<wire::StoreReport>,
) -> Result<mpsc::Receiver<Answer>, Status> {
    let first = tokio::time::timeout(SILENCE, reports.next())
        .await
        .map_err(|_| Status::deadline_exceeded("a stream begins with a report; none came"))?
        .ok_or_else(|| Status::invalid_argument("a stream begins with a report; it ended"))??;
    let store = StoreId(first.store_id);
    let mut stores_sent = 0;
    let answer = report(&cluster, first, &mut stores_sent).await?;
    let (sender, receiver) = mpsc::channel(QUEUE);
    // The queue is empty: there is room.
    let _ = sender.try_send(Ok(answer));
    let number = STREAMS.fetch_add(1, Ordering::Relaxed);
    let stream = StoreStream { number, orders: sender.clone() };
    cluster.streams.lock().insert(store, stream);
    tracing::debug!(%store, "stream opened");
    tokio::spawn(async move {
        let ended = follow(&cluster, reports, &sender, store, number, stores_sent).await;
        let current = {
            let mut streams = cluster.streams.lock();
            let current = streams.get(&store).is_some_and(|stream| stream.number == number);
            if current {
                streams.remove(&store);
            }
            current
        };
        if current {
            let term = *cluster.leading().borrow();
            cluster.with_session(term, |session, _| session.leader.disconnected(store));
        }
        match ended {
            Ok(()) => tracing::debug!(%store, "stream closed"),
            Err(status) => {
                tracing::debug!(%store, reason = status.message(), "stream ended");
                // Nobody may be listening any more.
                let _ = sender.try_send(Err(status));
            }
        }
    });
    Ok(receiver)
}

async fn follow(
    cluster: &Arc<Cluster>,
    mut reports: Streaming<wire::StoreReport>,
    sender: &mpsc::Sender<Answer>,
    store: StoreId,
    number: u64,
    mut stores_sent: u64,
) -> Result<(), Status> {
    let mut leading = cluster.leading();
    let mut stopping = cluster.stopping.subscribe();
    let term = *leading.borrow_and_update();
    loop {
        let next = tokio::select! {
            next = tokio::time::timeout(SILENCE, reports.next()) => next,
            _ = leading.wait_for(|now| *now != term) => return Err(cluster.not_leader()),
            _ = stopping.wait_for(|stopping| *stopping) => return Err(cluster.not_leader()),
            () = sender.closed() => return Ok(()),
        };
        let next = next
            .map_err(|_| Status::deadline_exceeded("no report for a minute; open a new stream"))?;
        let Some(next) = next else { return Ok(()) };
        let next = next?;
        if next.store_id != store.0 {
            return Err(Status::invalid_argument("a stream carries one store's reports"));
        }
        let replaced =
            cluster.streams.lock().get(&store).is_none_or(|stream| stream.number != number);
        if replaced {
            return Err(Status::aborted("the store has opened a newer stream"));
        }
        let answer = report(cluster, next, &mut stores_sent).await?;
        // Waits where the store does not read: its reports wait with it.
        if sender.send(Ok(answer)).await.is_err() {
            return Ok(());
        }
    }
}

/// Takes a report in and answers it.
async fn report(
    cluster: &Arc<Cluster>,
    wire: wire::StoreReport,
    stores_sent: &mut u64,
) -> Result<wire::StoreOrders, Status> {
    let cluster_id = wire.cluster_id;
    let report =
        Report::try_from(wire).map_err(|error| Status::invalid_argument(error.to_string()))?;
    let (store, sequence) = (report.store, report.sequence);
    let mut report = Some(report);
    let mut reported = None;
    let (now, wall) = (clock::now(), Cluster::wall_ms());
    let (mut answer, generation) = cluster
        .read(|session, state| {
            let ours = state.cluster().map_or(0, |cluster| cluster.id);
            if cluster_id != ours {
                return Err(convert::wrong_cluster(cluster_id, ours));
            }
            let known = state.stores().get(&store).ok_or_else(|| {
                Status::not_found(format!("{store} is not known to this cluster; join first"))
            })?;
            if let Some(report) = report.take() {
                if report.incarnation != known.incarnation {
                    return Err(Status::aborted(format!(
                        "{store} has been started anew since this process of it joined; join again"
                    )));
                }
                reported = Some(session.leader.report(known, report, now));
            }
            let time_ms = session.oracle.clock_ms(wall);
            let answer = wire::StoreOrders {
                sequence,
                time_ms,
                cluster_version: state.cluster().map_or(0, |cluster| cluster.version),
                ..wire::StoreOrders::default()
            };
            Ok((answer, state.stores_generation() + 1))
        })
        .await??;
    let term = *cluster.leading().borrow();
    let orders = cluster
        .with_session(term, |session, _| session.leader.orders_for(store, ORDERS_PER_MESSAGE, now));
    answer.orders = orders.unwrap_or_default().into_iter().map(Into::into).collect();
    cluster.metrics.orders.inc_by(answer.orders.len() as u64);
    if *stores_sent != generation {
        *stores_sent = generation;
        let state = cluster.state.read();
        answer.stores = state.stores().values().map(|store| convert::store(store)).collect();
    }
    cluster.metrics.reports.inc();
    if let Some(reported) = reported {
        cluster.metrics.stale_regions.inc_by(reported.stale as u64);
        if reported.routes {
            cluster.routes_changed();
        }
        if reported.activate {
            tokio::spawn(duties::activate(Arc::clone(cluster), store));
        }
    }
    Ok(answer)
}

/// Sends a store what is due to it, if it has a stream and room in it.
pub(crate) fn push(cluster: &Cluster, term: Term, store: StoreId) {
    let streams = cluster.streams.lock();
    let Some(room) = streams.get(&store).and_then(|stream| stream.orders.try_reserve().ok()) else {
        return;
    };
    let orders = cluster.with_session(term, |session, state| {
        let orders = session.leader.orders_for(store, ORDERS_PER_MESSAGE, clock::now());
        (orders, state.cluster().map_or(0, |cluster| cluster.version))
    });
    let (orders, cluster_version) = orders.unwrap_or_default();
    if !orders.is_empty() {
        for order in &orders {
            tracing::debug!(region = %order.region, step = ?order.step, reason = order.reason, "ordered");
        }
        cluster.metrics.orders.inc_by(orders.len() as u64);
        room.send(Ok(wire::StoreOrders {
            orders: orders.into_iter().map(Into::into).collect(),
            cluster_version,
            ..wire::StoreOrders::default()
        }));
    }
}

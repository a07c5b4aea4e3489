//! What an operation learns when it is not answered as it hoped, and when it goes on.
//!
//! All of it is off the hot path, and boxed by its callers so that the future of an operation that
//! succeeds at once stays small.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use quorate_proto::{Peer, Region, StoreId, key};

use crate::{
    Error, Result,
    backoff::Pace,
    client::Inner,
    execute::{Ask, Attempt, MAX_HOPS, Place},
    lane::Outcome,
    refusal::Refusal,
    router::{Advice, Route},
};

/// How long placement may take to say who leads a region that has lost its quorum…
const QUORUM_LOOK: Duration = Duration::from_millis(500);
/// …and how long one waits before the second look, which is the last.
const QUORUM_PAUSE: Duration = Duration::from_millis(300);
/// Regions asked for at once where one is missing.
const PREFETCH: usize = 64;

impl Inner {
    /// The region at `place`, from the cache or from placement.
    pub(crate) async fn route(&self, attempt: &mut Attempt, place: &Place) -> Result<Arc<Route>> {
        match self.cached(place) {
            Some(route) => Ok(route),
            None => Box::pin(self.learn(attempt, place)).await,
        }
    }

    /// The region that holds `key`, and the peer that leads it.
    pub(crate) async fn find_leader(
        &self,
        attempt: &mut Attempt,
        key: Bytes,
    ) -> Result<(Region, Peer)> {
        let place = Place::At(key);
        loop {
            let route = self.route(attempt, &place).await?;
            if let Some(leader) = route.known_leader() {
                return Ok((Region::clone(&route.region), leader));
            }
            attempt.last = format!("{} has no leader at the moment", route.region.id);
            self.refresh(&route.region, attempt.deadline).await;
            attempt.pause(Pace::Election, Duration::ZERO).await?;
        }
    }

    /// Learns from a refusal, and waits where that is due.
    pub(crate) async fn refused(
        &self,
        attempt: &mut Attempt,
        route: &Route,
        peer: Peer,
        ask: Ask,
        refusal: Refusal,
    ) -> Result<()> {
        attempt.last = format!("{} on {}: {}", route.region.id, peer.store, refusal.reason());
        if !attempt.is_read() && !refusal.is_definite() {
            return Err(attempt.undetermined(&attempt.last.clone()));
        }
        let id = route.region.id;
        let advice = match refusal {
            Refusal::NotLeader(hint) if ask != Ask::Leader => {
                // The replica itself found no leader to ask for a read index.
                let _ = hint;
                attempt.replicas_tried += 1;
                Advice::Pause
            }
            Refusal::NotLeader(hint) => {
                // Without a leader, another replica may still be fresh enough.
                attempt.replicas_tried += usize::from(hint.is_none());
                self.router.write().not_leader(id, peer, hint)
            }
            Refusal::TooOld => {
                attempt.replicas_tried += 1;
                let tried = attempt.replicas_tried % (route.region.peers.len() + 1);
                if tried == 0 { Advice::Pause } else { Advice::Now }
            }
            Refusal::EpochNotMatch(current) => {
                self.router.write().epoch_not_match(&route.region, peer.store, current)
            }
            Refusal::WrongRegion(_) => self.router.write().invalidate(&route.region),
            Refusal::WrongStore => {
                self.stores.drop_lanes(peer.store);
                self.router.write().invalidate(&route.region)
            }
            Refusal::Busy(floor) => return attempt.pause(Pace::Ordinary, floor).await,
            Refusal::NoQuorum { reason, silent } => {
                return self.without_quorum(attempt, route, (peer, ask), reason, &silent).await;
            }
            Refusal::NotReady(_) | Refusal::Stale => {
                attempt.replicas_tried += usize::from(ask != Ask::Leader);
                Advice::Pause
            }
            Refusal::Unknown(_) => {
                attempt.replicas_tried += usize::from(ask != Ask::Leader);
                return attempt.pause(Pace::Ordinary, Duration::ZERO).await;
            }
            Refusal::TooLarge(reason) | Refusal::Hopeless(reason) => {
                return Err(Error::Refused { operation: attempt.operation, reason });
            }
        };
        self.follow(attempt, advice, &route.region).await
    }

    /// A store says that the region has lost its quorum. It may be the one that is cut off: so
    /// placement is asked once who leads, and where that is nobody else, or it says the same, the
    /// operation ends.
    async fn without_quorum(
        &self,
        attempt: &mut Attempt,
        route: &Route,
        (peer, ask): (Peer, Ask),
        reason: String,
        silent: &[StoreId],
    ) -> Result<()> {
        attempt.without_quorum += 1;
        attempt.replicas_tried += usize::from(attempt.is_stale_read() || ask != Ask::Leader);
        if attempt.is_stale_read() && attempt.replicas_tried <= route.region.peers.len() + 1 {
            // A replica may be fresh enough; those that have not been asked yet are.
            return self.follow(attempt, Advice::Now, &route.region).await;
        }
        if attempt.without_quorum > 1 {
            return Err(Error::NoQuorum { operation: attempt.operation, reason });
        }
        let until = attempt.deadline.min(Instant::now() + QUORUM_LOOK);
        self.refresh(&route.region, until).await;
        {
            let mut router = self.router.write();
            let leader = router.by_id(route.region.id).and_then(|route| route.known_leader());
            let elsewhere = |leader: &Peer| leader.id != peer.id && !silent.contains(&leader.store);
            if !leader.is_some_and(|leader| elsewhere(&leader)) {
                // Nobody is sent to a store that is known to be silent: there, a write might be
                // lost on its way and its outcome with it.
                router.ask_first(route.region.id, peer.store);
            }
        }
        attempt.pause(Pace::Ordinary, QUORUM_PAUSE).await
    }

    /// Decides about a request that got no answer.
    pub(crate) async fn unanswered(
        &self,
        attempt: &mut Attempt,
        route: &Route,
        peer: Peer,
        ask: Ask,
        outcome: Outcome,
    ) -> Result<()> {
        let (sent, silent, cause) = match outcome {
            Outcome::NotSent(reason) => (false, false, reason.to_string()),
            Outcome::Lost(reason) => (true, false, reason.to_string()),
            Outcome::Expired { sent } => {
                (sent, true, format!("no answer from {} in time", peer.store))
            }
            Outcome::Answer(_) => unreachable!("an answer is no request without one"),
        };
        if sent && !attempt.is_read() {
            return Err(attempt.undetermined(&cause));
        }
        attempt.last = cause;
        if silent {
            if Instant::now() >= attempt.deadline {
                return Err(attempt.timeout());
            }
            self.gone(attempt, route, peer, ask).await?;
            self.refresh(&route.region, attempt.deadline).await;
            return Ok(());
        }
        self.gone(attempt, route, peer, ask).await
    }

    /// `peer`'s store is gone or silent: on to another.
    async fn gone(&self, attempt: &mut Attempt, route: &Route, peer: Peer, ask: Ask) -> Result<()> {
        attempt.replicas_tried += 1;
        let advice = if ask != Ask::Leader {
            match attempt.replicas_tried % route.region.peers.len().max(1) {
                0 => Advice::Pause,
                _ => Advice::Now,
            }
        } else {
            self.router.write().unreachable(route.region.id, peer)
        };
        self.follow(attempt, advice, &route.region).await
    }

    async fn follow(&self, attempt: &mut Attempt, advice: Advice, region: &Region) -> Result<()> {
        attempt.hops += 1;
        match advice {
            Advice::Now if attempt.hops < MAX_HOPS => {
                if Instant::now() >= attempt.deadline {
                    Err(attempt.timeout())
                } else {
                    Ok(())
                }
            }
            Advice::Now | Advice::Pause => attempt.pause(Pace::Election, Duration::ZERO).await,
            Advice::Ask => {
                self.refresh(region, attempt.deadline).await;
                attempt.pause(Pace::Election, Duration::ZERO).await
            }
        }
    }

    /// Asks placement who holds the start of `region` by now. Where somebody else is asking
    /// already, or placement is away, nothing happens: the caller pauses and goes on with what the
    /// stores say.
    async fn refresh(&self, region: &Region, deadline: Instant) {
        let Some(_asking) = self.refreshing.start(region.id) else { return };
        let deadline = deadline.min(Instant::now() + self.options.connect_timeout);
        if let Ok(found) = self.placement.region_until(region.range.start.clone(), deadline).await {
            let leader = found.leader.map(|peer| peer.id);
            self.router.write().insert(found.region, leader);
        }
    }

    /// Asks placement for a region that is not cached, and for some of its neighbours.
    pub(crate) async fn learn(&self, attempt: &mut Attempt, place: &Place) -> Result<Arc<Route>> {
        loop {
            // A few ask at a time; the others find the answer in the cache.
            let _permit = tokio::time::timeout_at(attempt.deadline.into(), self.learning.acquire())
                .await
                .map_err(|_| attempt.timeout())?;
            if let Some(route) = self.cached(place) {
                return Ok(route);
            }
            let found = match place {
                Place::At(key) => {
                    let some = self
                        .placement
                        .regions_until(key.clone(), Bytes::new(), PREFETCH, attempt.deadline)
                        .await?;
                    if some.iter().any(|info| info.region.range.contains(key)) {
                        some
                    } else {
                        vec![self.placement.region_until(key.clone(), attempt.deadline).await?]
                    }
                }
                Place::Below(end) => {
                    vec![self.placement.region_below_until(end.clone(), attempt.deadline).await?]
                }
            };
            {
                let mut router = self.router.write();
                for info in found {
                    router.insert(info.region, info.leader.map(|peer| peer.id));
                }
            }
            if let Some(route) = self.cached(place) {
                return Ok(route);
            }
            // Placement answered with a region that does not hold the key, or that is older than
            // what is cached: it is about to learn of a split.
            attempt.last = match place {
                Place::At(key) => format!("placement knows no region for {}", key::display(key)),
                Place::Below(end) => {
                    format!("placement knows no region below {}", key::display(end))
                }
            };
            attempt.pause(Pace::Ordinary, Duration::ZERO).await?;
        }
    }
}

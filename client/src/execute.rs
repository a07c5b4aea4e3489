//! One operation on one region: route, send, learn from the answer, and decide.
//!
//! The rule for trying again: a **definite** refusal, and whatever was never sent, is tried again
//! on a corrected route until the operation's deadline. A **read** is tried again whatever
//! happened. A **write** that was sent and lost, timed out or was dropped by a leader is
//! [`Error::Undetermined`] and goes back to the caller: sent again it might be applied twice,
//! around somebody else's write.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use quorate_proto::{
    Peer, Region, key,
    wire::{kvrpcpb, tikvpb::batch_commands_request::request::Cmd as Command},
};

use crate::{
    Error, ReadMode, Result,
    backoff::{Backoff, Pace},
    client::Inner,
    command::{self, Answer},
    lane::Outcome,
    refusal::Refusal,
    router::{Advice, Route},
};

/// Whether a lost request may be sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// It changes nothing.
    Read(ReadMode),
    /// It must not be applied twice.
    Write,
}

/// How a region is found.
#[derive(Clone, Debug)]
pub(crate) enum Place {
    /// The region that holds this key.
    At(Bytes),
    /// The region that holds the keys just below this one; empty: the last region.
    Below(Bytes),
}

/// One operation as a whole: its deadline and its memory over all attempts.
pub(crate) struct Attempt {
    pub(crate) operation: &'static str,
    pub(crate) kind: Kind,
    pub(crate) deadline: Instant,
    allowed: Duration,
    /// Made only once it is needed.
    backoff: Option<Backoff>,
    /// Replicas that have refused a follower read.
    replicas_tried: usize,
    /// Moves without a pause since the last one.
    hops: u32,
    last: String,
}

/// Moves without a pause before one is forced: two stores may name each other as the leader.
const MAX_HOPS: u32 = 6;

impl Attempt {
    pub(crate) fn new(operation: &'static str, kind: Kind, allowed: Duration) -> Self {
        Self {
            operation,
            kind,
            deadline: Instant::now() + allowed,
            allowed,
            backoff: None,
            replicas_tried: 0,
            hops: 0,
            last: String::new(),
        }
    }

    /// A part of this operation that goes its own way, under the same deadline.
    pub(crate) fn part(&self) -> Self {
        Self {
            operation: self.operation,
            kind: self.kind,
            deadline: self.deadline,
            allowed: self.allowed,
            backoff: None,
            replicas_tried: 0,
            hops: 0,
            last: String::new(),
        }
    }

    fn timeout(&self) -> Error {
        let last = match self.last.as_str() {
            "" => "no answer",
            last => last,
        };
        Error::Timeout { operation: self.operation, after: self.allowed, last: last.to_owned() }
    }

    fn undetermined(&self, cause: &str) -> Error {
        Error::Undetermined { operation: self.operation, cause: cause.to_owned() }
    }

    /// Waits before the next attempt.
    async fn pause(&mut self, pace: Pace, floor: Duration) -> Result<()> {
        self.hops = 0;
        let backoff = self.backoff.get_or_insert_with(|| Backoff::new(rand::random()));
        let wait = backoff.next(pace, floor);
        if Instant::now() + wait >= self.deadline {
            return Err(self.timeout());
        }
        tokio::time::sleep(wait).await;
        Ok(())
    }

    fn is_read(&self) -> bool {
        match self.kind {
            Kind::Read(_) => true,
            Kind::Write => false,
        }
    }
}

/// What one region had to say.
pub(crate) enum Exchange {
    /// The answer, and the route it came by.
    Answered(Answer, Arc<Route>),
    /// The region at that place does not fit the request any more: cut it anew.
    Moved,
}

impl Inner {
    /// Sends one request to the region at `place`, until it is answered. `make` builds it for a
    /// region, or says that it does not fit that region.
    pub(crate) async fn exchange(
        &self,
        attempt: &mut Attempt,
        place: &Place,
        make: impl Fn(&Region, kvrpcpb::Context) -> Option<Command>,
    ) -> Result<Exchange> {
        loop {
            let route = self.route(attempt, place).await?;
            let Some((peer, replica_read)) = self.choose(attempt, &route) else {
                attempt.last = format!("{} has no peers", route.region.id);
                self.router.write().invalidate(&route.region);
                attempt.pause(Pace::Ordinary, Duration::ZERO).await?;
                continue;
            };
            let context = command::context(&route, peer, replica_read);
            let Some(request) = make(&route.region, context) else { return Ok(Exchange::Moved) };
            let outcome = match self.stores.lane(peer.store) {
                Some(lane) => {
                    let bytes = command::size(&request);
                    let deadline = match attempt.kind {
                        Kind::Write => attempt.deadline,
                        Kind::Read(_) => {
                            attempt.deadline.min(Instant::now() + self.options.read_attempt)
                        }
                    };
                    lane.call(request, bytes, deadline).await
                }
                None => Outcome::NotSent(Arc::clone(&self.resting)),
            };
            match outcome {
                Outcome::Answer(Answer::Refused(refusal)) => {
                    self.refused(attempt, &route, peer, replica_read, *refusal).await?;
                }
                Outcome::Answer(Answer::Failed(words)) => {
                    let (operation, reason) = (attempt.operation, words.into());
                    return Err(Error::Refused { operation, reason });
                }
                Outcome::Answer(answer) => {
                    if !replica_read && route.known_leader() != Some(peer) {
                        self.router.write().answered(route.region.id, peer);
                    }
                    return Ok(Exchange::Answered(answer, route));
                }
                Outcome::NotSent(reason) => {
                    attempt.last = format!("{reason}");
                    self.gone(attempt, &route, peer, replica_read).await?;
                }
                Outcome::Lost(reason) => {
                    if !attempt.is_read() {
                        return Err(attempt.undetermined(&reason));
                    }
                    attempt.last = format!("{reason}");
                    self.gone(attempt, &route, peer, replica_read).await?;
                }
                Outcome::Expired { sent } => {
                    let cause = format!("no answer from {} in time", peer.store);
                    if sent && !attempt.is_read() {
                        return Err(attempt.undetermined(&cause));
                    }
                    attempt.last = cause;
                    if Instant::now() >= attempt.deadline {
                        return Err(attempt.timeout());
                    }
                    self.gone(attempt, &route, peer, replica_read).await?;
                    self.refresh(&route.region, attempt.deadline).await;
                }
            }
        }
    }

    /// The region at `place`, from the cache or from placement.
    pub(crate) async fn route(&self, attempt: &mut Attempt, place: &Place) -> Result<Arc<Route>> {
        match self.cached(place) {
            Some(route) => Ok(route),
            None => self.learn(attempt, place).await,
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

    /// The cached region at `place`.
    fn cached(&self, place: &Place) -> Option<Arc<Route>> {
        let router = self.router.read();
        match place {
            Place::At(key) => router.lookup(key).cloned(),
            Place::Below(end) => router.lookup_below(end).cloned(),
        }
    }

    /// Which peer to ask, and whether as a replica.
    fn choose(&self, attempt: &Attempt, route: &Route) -> Option<(Peer, bool)> {
        let leader = route.target();
        match attempt.kind {
            Kind::Write | Kind::Read(ReadMode::Leader) => leader.map(|peer| (peer, false)),
            Kind::Read(ReadMode::Follower) => {
                let others: Vec<Peer> = route
                    .region
                    .peers
                    .iter()
                    .filter(|peer| Some(peer.id) != leader.map(|leader| leader.id))
                    .copied()
                    .collect();
                // Once all others have refused, the leader is asked, then the others again.
                let turn = attempt.replicas_tried % (others.len() + 1);
                match others.len() {
                    0 => leader.map(|peer| (peer, true)),
                    count if turn < count => {
                        Some((others[(self.replica_turn() + turn) % count], true))
                    }
                    _ => leader.map(|peer| (peer, false)),
                }
            }
        }
    }

    /// Learns from a refusal, and waits where that is due.
    async fn refused(
        &self,
        attempt: &mut Attempt,
        route: &Route,
        peer: Peer,
        replica_read: bool,
        refusal: Refusal,
    ) -> Result<()> {
        attempt.last = format!("{} on {}: {}", route.region.id, peer.store, refusal.reason());
        if !attempt.is_read() && !refusal.is_definite() {
            return Err(attempt.undetermined(&attempt.last.clone()));
        }
        let id = route.region.id;
        let advice = match refusal {
            Refusal::NotLeader(hint) if replica_read => {
                // The replica itself found no leader to ask for a read index.
                let _ = hint;
                attempt.replicas_tried += 1;
                Advice::Pause
            }
            Refusal::NotLeader(hint) => self.router.write().not_leader(id, peer, hint),
            Refusal::EpochNotMatch(current) => {
                self.router.write().epoch_not_match(&route.region, peer.store, current)
            }
            Refusal::WrongRegion(_) => self.router.write().invalidate(&route.region),
            Refusal::WrongStore => {
                self.stores.drop_lanes(peer.store);
                self.router.write().invalidate(&route.region)
            }
            Refusal::Busy(floor) => return attempt.pause(Pace::Ordinary, floor).await,
            Refusal::NotReady(_) | Refusal::Stale => {
                attempt.replicas_tried += usize::from(replica_read);
                Advice::Pause
            }
            Refusal::Unknown(_) => {
                attempt.replicas_tried += usize::from(replica_read);
                return attempt.pause(Pace::Ordinary, Duration::ZERO).await;
            }
            Refusal::Hopeless(reason) => {
                return Err(Error::Refused { operation: attempt.operation, reason });
            }
        };
        self.follow(attempt, advice, &route.region).await
    }

    /// `peer`'s store is gone or silent: on to another.
    async fn gone(
        &self,
        attempt: &mut Attempt,
        route: &Route,
        peer: Peer,
        replica_read: bool,
    ) -> Result<()> {
        let advice = if replica_read {
            attempt.replicas_tried += 1;
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
    async fn learn(&self, attempt: &mut Attempt, place: &Place) -> Result<Arc<Route>> {
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

/// Regions asked for at once where one is missing.
const PREFETCH: usize = 64;

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
    Peer, Region, Role,
    wire::{kvrpcpb, tikvpb::batch_commands_request::request::Cmd as Command},
};

use crate::{
    Error, ReadFrom, Result,
    backoff::{Backoff, Pace},
    client::Inner,
    command::{self, Answer},
    lane::Outcome,
    refusal::Refusal,
    router::Route,
};

/// Whether a lost request may be sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// It changes nothing.
    Read(ReadFrom),
    /// It must not be applied twice.
    Write,
}

/// What a peer is asked as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ask {
    /// The leader.
    Leader,
    /// A replica, which asks its leader up to where to read.
    Replica,
    /// A replica that asks nobody, if it is not older than this.
    Stale(Duration),
}

/// How a region is found.
#[derive(Clone, Debug)]
pub(crate) enum Place {
    /// The region that holds this key.
    At(Bytes),
    /// The region that holds the keys just below this one; empty: the last region.
    Below(Bytes),
}

/// As good as for ever: a clock cannot show a later time than it has numbers for.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 3_600);

/// One operation as a whole: its deadline and its memory over all attempts.
pub(crate) struct Attempt {
    pub(crate) operation: &'static str,
    pub(crate) kind: Kind,
    pub(crate) deadline: Instant,
    allowed: Duration,
    /// Made only once it is needed.
    backoff: Option<Box<Backoff>>,
    /// Peers that could not serve a read which another may serve.
    pub(crate) replicas_tried: usize,
    /// Moves without a pause since the last one.
    pub(crate) hops: u32,
    /// Answers that the region has lost its quorum.
    pub(crate) without_quorum: usize,
    /// Why the last attempt failed.
    pub(crate) last: String,
}

/// Moves without a pause before one is forced: two stores may name each other as the leader.
pub(crate) const MAX_HOPS: u32 = 6;

impl Attempt {
    pub(crate) fn new(operation: &'static str, kind: Kind, allowed: Duration) -> Self {
        Self {
            operation,
            kind,
            deadline: Instant::now() + allowed.min(LONGEST),
            allowed,
            backoff: None,
            replicas_tried: 0,
            hops: 0,
            without_quorum: 0,
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
            without_quorum: 0,
            last: String::new(),
        }
    }

    pub(crate) fn timeout(&self) -> Error {
        let last = match self.last.as_str() {
            "" => "no answer",
            last => last,
        };
        Error::Timeout { operation: self.operation, after: self.allowed, last: last.to_owned() }
    }

    pub(crate) fn undetermined(&self, cause: &str) -> Error {
        Error::Undetermined { operation: self.operation, cause: cause.to_owned() }
    }

    /// Waits before the next attempt.
    pub(crate) async fn pause(&mut self, pace: Pace, floor: Duration) -> Result<()> {
        self.hops = 0;
        let backoff = self.backoff.get_or_insert_with(|| Box::new(Backoff::new(rand::random())));
        let wait = backoff.next(pace, floor);
        if Instant::now() + wait >= self.deadline {
            return Err(self.timeout());
        }
        tokio::time::sleep(wait).await;
        Ok(())
    }

    pub(crate) fn is_stale_read(&self) -> bool {
        match self.kind {
            Kind::Read(ReadFrom::Stale(_)) => true,
            Kind::Read(ReadFrom::Leader | ReadFrom::Follower | ReadFrom::Learner) | Kind::Write => {
                false
            }
        }
    }

    pub(crate) fn is_read(&self) -> bool {
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
    /// The answer to this read would be larger than clients decode, in the store's words: ask for
    /// less.
    TooLarge(String),
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
            let route = match self.cached(place) {
                Some(route) => route,
                None => Box::pin(self.learn(attempt, place)).await?,
            };
            let Some((peer, ask)) = self.choose(attempt, &route) else {
                attempt.last = format!("{} has no peers", route.region.id);
                self.router.write().invalidate(&route.region);
                Box::pin(attempt.pause(Pace::Ordinary, Duration::ZERO)).await?;
                continue;
            };
            let context = command::context(&route, peer, ask);
            let Some(request) = make(&route.region, context) else { return Ok(Exchange::Moved) };
            let timed = (ask != Ask::Leader).then(|| self.nearby.begin(peer.store));
            let outcome = match self.stores.lane(peer.store) {
                Some(lane) => {
                    let bytes = command::size(&request);
                    let deadline = match attempt.kind {
                        Kind::Write => attempt.deadline,
                        Kind::Read(_) => {
                            attempt.deadline.min(Instant::now() + self.options.read_attempt)
                        }
                    };
                    match lane.send(request, bytes, deadline) {
                        Ok(outcome) => outcome.await.unwrap_or_else(|_| Outcome::runtime_ended()),
                        Err(held) => Box::pin(lane.send_later(held)).await,
                    }
                }
                None => Outcome::NotSent(Arc::clone(&self.resting)),
            };
            if let Some(timed) = timed {
                timed.end(matches!(outcome, Outcome::Answer(_)));
            }
            match outcome {
                Outcome::Answer(Answer::Refused(refusal)) => {
                    if let (true, Refusal::TooLarge(words)) = (attempt.is_read(), &*refusal) {
                        return Ok(Exchange::TooLarge(words.clone()));
                    }
                    Box::pin(self.refused(attempt, &route, peer, ask, *refusal)).await?;
                }
                Outcome::Answer(Answer::Failed(words)) => {
                    let (operation, reason) = (attempt.operation, words.into());
                    return Err(Error::Refused { operation, reason });
                }
                Outcome::Answer(answer) => {
                    if ask == Ask::Leader && route.known_leader() != Some(peer) {
                        self.router.write().answered(route.region.id, peer);
                    }
                    return Ok(Exchange::Answered(answer, route));
                }
                Outcome::NotSent(_) | Outcome::Lost(_) | Outcome::Expired { .. } => {
                    Box::pin(self.unanswered(attempt, &route, peer, ask, outcome)).await?;
                }
            }
        }
    }

    /// The cached region at `place`.
    pub(crate) fn cached(&self, place: &Place) -> Option<Arc<Route>> {
        let router = self.router.read();
        match place {
            Place::At(key) => router.lookup(key).cloned(),
            Place::Below(end) => router.lookup_below(end).cloned(),
        }
    }

    /// Which peer to ask, and as what.
    fn choose(&self, attempt: &Attempt, route: &Route) -> Option<(Peer, Ask)> {
        let leader = route.target();
        let as_leader = leader.map(|peer| (peer, Ask::Leader));
        match attempt.kind {
            Kind::Write | Kind::Read(ReadFrom::Leader) => as_leader,
            Kind::Read(ReadFrom::Follower) => self.replica(attempt, route, |_| true),
            Kind::Read(ReadFrom::Learner) => {
                self.replica(attempt, route, |peer| peer.role == Role::Learner)
            }
            // A replica, the leader where that one is too old, then the other replicas.
            Kind::Read(ReadFrom::Stale(bound)) => {
                let order = self.nearby.order(&route.region.peers, self.replica_turn());
                match attempt.replicas_tried % (order.len() + 1) {
                    1 => as_leader,
                    turn => {
                        order.get(turn.saturating_sub(1)).map(|peer| (*peer, Ask::Stale(bound)))
                    }
                }
            }
        }
    }

    /// One of the replicas that count, the quickest first; once all of them have refused, the
    /// leader, then they again. The leader where there is none.
    fn replica(
        &self,
        attempt: &Attempt,
        route: &Route,
        counts: impl Fn(&Peer) -> bool,
    ) -> Option<(Peer, Ask)> {
        let leader = route.target();
        let is_leader = |peer: &Peer| Some(peer.id) == leader.map(|leader| leader.id);
        let peers = route.region.peers.iter();
        let others: Vec<Peer> =
            peers.filter(|peer| !is_leader(peer) && counts(peer)).copied().collect();
        if others.is_empty() {
            return leader.map(|peer| (peer, Ask::Replica));
        }
        let turn = attempt.replicas_tried % (others.len() + 1);
        let order = self.nearby.order(&others, self.replica_turn());
        let as_leader = leader.map(|peer| (peer, Ask::Leader));
        order.get(turn).map(|peer| (*peer, Ask::Replica)).or(as_leader)
    }
}

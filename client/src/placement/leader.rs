//! Finds the leader, and repeats calls until it answers.

use std::{
    collections::BTreeMap,
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use futures::{StreamExt, stream::FuturesUnordered};
use parking_lot::Mutex;
use quorate_proto::wire::pdpb::{self, pd_client::PdClient};
use tokio::runtime::Handle;
use tonic::{Response, Status, transport::Channel};
use tracing::{debug, info};

use super::PlacementOptions;
use super::judge::{Failure, judge};
use crate::{
    Error, Result,
    backoff::{Backoff, Pace},
    lane::words,
    stores::{bare, endpoint},
};

/// How long one attempt of a call may take; a member may be paused, or cut off.
const ATTEMPT: Duration = Duration::from_secs(2);
/// How long a member may take to say who leads.
const GREETING: Duration = Duration::from_millis(1_000);
/// Addresses that are remembered at most.
const MAX_ENDPOINTS: usize = 64;

/// Once the first member has answered a new client, how long the others may take to agree.
const AGREEING: Duration = Duration::from_millis(100);

fn address_of(member: &pdpb::Member) -> Option<String> {
    member.client_urls.first().map(|url| bare(url).to_owned())
}

/// What all clones share.
pub(super) struct Core {
    options: PlacementOptions,
    runtime: Handle,
    channels: Mutex<BTreeMap<Arc<str>, Channel>>,
    leader: Mutex<Option<Arc<str>>>,
    /// As they were last named by a member.
    members: Mutex<Vec<String>>,
    cluster_id: AtomicU64,
}

impl Core {
    pub(super) fn new(endpoints: &[String], options: PlacementOptions) -> Result<Self> {
        let runtime = Handle::try_current().map_err(|_| {
            Error::InvalidArgument("a client has to be connected on a tokio runtime".to_owned())
        })?;
        let core = Self {
            options,
            runtime,
            channels: Mutex::default(),
            leader: Mutex::default(),
            members: Mutex::default(),
            cluster_id: AtomicU64::new(0),
        };
        for address in endpoints {
            core.channel(bare(address.trim()))?;
        }
        Ok(core)
    }

    pub(super) fn options(&self) -> &PlacementOptions {
        &self.options
    }

    pub(super) fn runtime(&self) -> &Handle {
        &self.runtime
    }

    pub(super) fn cluster_id(&self) -> u64 {
        self.cluster_id.load(Ordering::Relaxed)
    }

    pub(super) fn header(&self) -> Option<pdpb::RequestHeader> {
        Some(pdpb::RequestHeader { cluster_id: self.cluster_id() })
    }

    pub(super) fn endpoints(&self) -> Vec<String> {
        self.channels.lock().keys().map(ToString::to_string).collect()
    }

    pub(super) fn members(&self) -> Vec<String> {
        self.members.lock().clone()
    }

    pub(super) fn leader(&self) -> Option<Arc<str>> {
        self.leader.lock().clone()
    }

    /// Repeats `call` at the leader until it answers, is refused for good, or `deadline` passes.
    pub(super) async fn call<T, F, Answer>(
        &self,
        operation: &'static str,
        deadline: Instant,
        call: F,
    ) -> Result<T>
    where
        F: Fn(Channel) -> Answer,
        Answer: Future<Output = Result<Response<T>, Status>>,
    {
        self.call_patiently(operation, ATTEMPT, deadline, call).await
    }

    /// As [`Self::call`], where one attempt may take as long as `patience`: for calls that wait for
    /// something to happen.
    pub(super) async fn call_patiently<T, F, Answer>(
        &self,
        operation: &'static str,
        patience: Duration,
        deadline: Instant,
        call: F,
    ) -> Result<T>
    where
        F: Fn(Channel) -> Answer,
        Answer: Future<Output = Result<Response<T>, Status>>,
    {
        let mut backoff = Backoff::new(rand::random());
        let mut hops = 0;
        loop {
            let failure = match self.leader() {
                Some(leader) => {
                    let channel = self.channel(&leader)?;
                    let attempt = (Instant::now() + patience).min(deadline);
                    match tokio::time::timeout_at(attempt.into(), call(channel)).await {
                        Ok(Ok(answer)) => return Ok(answer.into_inner()),
                        Ok(Err(status)) => judge(operation, &leader, &status),
                        Err(_) => Failure::Lost(format!("{leader}: no answer in time")),
                    }
                }
                None => Failure::Lost("placement has no leader that is known".to_owned()),
            };
            let last = match failure {
                Failure::Final(error) => return Err(error),
                Failure::Elsewhere(leader, last) => {
                    self.set_leader(&leader);
                    hops += 1;
                    // Two members that name each other do not make us spin.
                    if hops % 3 != 0 && Instant::now() < deadline {
                        continue;
                    }
                    last
                }
                Failure::NotReady(last) => last,
                Failure::Lost(last) => match self.discover(deadline).await {
                    Ok(()) => last,
                    Err(error @ Error::WrongCluster { .. }) => return Err(error),
                    Err(error) => format!("{last}; {error}"),
                },
            };
            let wait = backoff.next(Pace::Ordinary, Duration::ZERO);
            if Instant::now() + wait >= deadline {
                return Err(self.unavailable(last));
            }
            tokio::time::sleep(wait).await;
        }
    }

    /// One attempt at the leader. After a failure the leader has been looked up anew.
    pub(super) async fn once<T, F, Answer>(&self, operation: &'static str, call: F) -> Result<T>
    where
        F: FnOnce(Channel) -> Answer,
        Answer: Future<Output = Result<Response<T>, Status>>,
    {
        let deadline = Instant::now() + ATTEMPT;
        if self.leader().is_none() {
            self.discover(deadline).await?;
        }
        let Some(leader) = self.leader() else {
            return Err(self.unavailable("no leader is known".to_owned()));
        };
        let channel = self.channel(&leader)?;
        let failure = match tokio::time::timeout_at(deadline.into(), call(channel)).await {
            Ok(Ok(answer)) => return Ok(answer.into_inner()),
            Ok(Err(status)) => judge(operation, &leader, &status),
            Err(_) => Failure::Lost(format!("{leader}: no answer in time")),
        };
        match failure {
            Failure::Final(error) => Err(error),
            Failure::Elsewhere(leader, last) => {
                self.set_leader(&leader);
                Err(self.unavailable(last))
            }
            Failure::NotReady(last) => Err(self.unavailable(last)),
            Failure::Lost(last) => {
                // Whether it is found or not, the caller comes back.
                let _ = self.discover(Instant::now() + ATTEMPT).await;
                Err(self.unavailable(last))
            }
        }
    }

    /// The first contact: waits for a leader, and for the other members to name the same cluster.
    pub(super) async fn greet(&self, deadline: Instant) -> Result<()> {
        let mut backoff = Backoff::new(rand::random());
        loop {
            let last = match self.ask_all(deadline, AGREEING).await {
                Ok(()) => return Ok(()),
                Err(error @ Error::WrongCluster { .. }) => return Err(error),
                Err(error) => error,
            };
            let wait = backoff.next(Pace::Ordinary, Duration::ZERO);
            if Instant::now() + wait >= deadline {
                return Err(last);
            }
            tokio::time::sleep(wait).await;
        }
    }

    /// Asks all members who leads.
    async fn discover(&self, deadline: Instant) -> Result<()> {
        self.ask_all(deadline, Duration::ZERO).await
    }

    /// Asks all members who leads, and takes the first leader that is not the one believed in so
    /// far; that one again only if nobody names another. Waits `agreeing` for late answers.
    async fn ask_all(&self, deadline: Instant, agreeing: Duration) -> Result<()> {
        let before = self.leader();
        let deadline = deadline.min(Instant::now() + GREETING);
        let channels: Vec<_> =
            self.channels.lock().iter().map(|(a, c)| (Arc::clone(a), c.clone())).collect();
        let mut answers: FuturesUnordered<_> = channels
            .into_iter()
            .map(|(address, channel)| async move {
                let mut client = PdClient::new(channel);
                // Without a header: that is how every client starts.
                let asked = client.get_members(pdpb::GetMembersRequest { header: None });
                match tokio::time::timeout_at(deadline.into(), asked).await {
                    Ok(Ok(answer)) => Ok((address, answer.into_inner())),
                    Ok(Err(status)) => Err(format!("{address}: {}", words(&status))),
                    Err(_) => Err(format!("{address}: no answer in time")),
                }
            })
            .collect();
        let mut failures = Vec::new();
        let mut again = None;
        let mut found: Option<Instant> = None;
        loop {
            let until = found.map_or(deadline + GREETING, |at| at + agreeing);
            let next = tokio::time::timeout_at(until.into(), answers.next()).await;
            let Ok(Some(answer)) = next else { break };
            let (address, members) = match answer {
                Ok(answer) => answer,
                Err(failure) => {
                    failures.push(failure);
                    continue;
                }
            };
            self.check_cluster(&address, &members)?;
            self.meet(&members);
            match members.leader.as_ref().and_then(address_of) {
                Some(leader) if found.is_none() && before.as_deref() != Some(leader.as_str()) => {
                    self.set_leader(&Arc::from(leader));
                    found = Some(Instant::now());
                    if agreeing.is_zero() {
                        break;
                    }
                }
                Some(leader) => again = Some(leader),
                None => failures.push(format!("{address} knows no leader")),
            }
        }
        match (found, again) {
            (Some(_), _) => Ok(()),
            (None, Some(leader)) => {
                self.set_leader(&Arc::from(leader));
                Ok(())
            }
            (None, None) => Err(self.unavailable(failures.join("; "))),
        }
    }

    /// Asks the leader who the members are now: some may have joined since, and whoever is known
    /// today may be gone tomorrow. What cannot be learnt now is learnt later.
    pub(super) async fn learn(&self) {
        let Some(channel) = self.leader().and_then(|leader| self.channel(&leader).ok()) else {
            return;
        };
        let mut client = PdClient::new(channel);
        let asked = client.get_members(pdpb::GetMembersRequest { header: None });
        if let Ok(Ok(answer)) = tokio::time::timeout(GREETING, asked).await {
            let answer = answer.into_inner();
            if self.check_cluster("the leader", &answer).is_ok() {
                self.meet(&answer);
            }
        }
    }

    fn meet(&self, answer: &pdpb::GetMembersResponse) {
        let members: Vec<String> = answer.members.iter().filter_map(address_of).collect();
        if !members.is_empty() {
            members.clone_into(&mut self.members.lock());
        }
        for known in members {
            let is_new = !self.channels.lock().contains_key(known.as_str());
            // An address that cannot be parsed is of no use; the others are.
            if is_new && self.channel(&known).is_ok() {
                info!(address = %known, "learnt of a placement member");
            }
        }
    }

    fn check_cluster(&self, address: &str, answer: &pdpb::GetMembersResponse) -> Result<()> {
        let found = answer.header.as_ref().map_or(0, |header| header.cluster_id);
        if found == 0 {
            return Ok(());
        }
        let swapped =
            self.cluster_id.compare_exchange(0, found, Ordering::Relaxed, Ordering::Relaxed);
        match swapped {
            Ok(_) => Ok(()),
            Err(expected) if expected == found => Ok(()),
            Err(expected) => {
                Err(Error::WrongCluster { address: address.to_owned(), expected, found })
            }
        }
    }

    /// The channel to a member, which connects when it is first used.
    pub(super) fn channel(&self, address: &str) -> Result<Channel> {
        let mut channels = self.channels.lock();
        if let Some(channel) = channels.get(address) {
            return Ok(channel.clone());
        }
        if channels.len() >= MAX_ENDPOINTS {
            return Err(Error::InvalidArgument(format!(
                "more than {MAX_ENDPOINTS} placement addresses; name the members only"
            )));
        }
        let endpoint = endpoint(address, self.options.connect_timeout, self.options.keepalive)
            .ok()
            .filter(|endpoint| endpoint.uri().port_u16().is_some())
            .ok_or_else(|| {
                Error::InvalidArgument(format!("{address} is no address; write HOST:PORT"))
            })?;
        let _runtime = self.runtime.enter();
        let channel = endpoint.connect_lazy();
        channels.insert(Arc::from(address), channel.clone());
        Ok(channel)
    }

    fn set_leader(&self, leader: &Arc<str>) {
        let mut current = self.leader.lock();
        if current.as_ref() != Some(leader) {
            debug!(%leader, "placement leader");
            *current = Some(Arc::clone(leader));
        }
    }

    fn unavailable(&self, last: String) -> Error {
        Error::Unavailable { what: format!("placement at {}", self.endpoints().join(", ")), last }
    }
}

//! What a caller may choose: deadlines, connections, bounds, and where reads go.

use std::time::Duration;

use crate::client::DEFAULT_DEADLINE;

/// How a [`Client`](crate::Client) behaves. Start from [`Default`] and change what matters.
#[derive(Clone, Debug)]
pub struct ClientOptions {
    /// How long one operation may take in all, with its retries. Default: 10 s.
    pub deadline: Duration,
    /// How long one attempt of a **read** may stay unanswered before it is sent again on a fresh
    /// route. Writes are never sent twice. Default: 2 s.
    pub read_attempt: Duration,
    /// Batched streams, and connections, to each store. One is best for a client that shares its
    /// machine with others; more help only when one stream's CPU core is full. 1 to 64. Default: 1.
    pub connections_per_store: usize,
    /// Requests sent on one connection and not yet answered; more wait in the queue. Default: 16,384.
    pub max_in_flight: usize,
    /// Requests that wait to be sent on one connection; when the queue is full, operations wait
    /// for room until their deadline. Default: 16,384.
    pub max_queued: usize,
    /// Most requests put into one message of a stream. Default: 256.
    pub batch_requests: usize,
    /// Parts of one batch operation that run at the same time. Default: 16.
    pub batch_concurrency: usize,
    /// Most pairs asked for in one request of a scan, at most 10,240. Default: 1,024.
    pub scan_page: u32,
    /// How long a connection may take to open. Default: 1 s.
    pub connect_timeout: Duration,
    /// How long a connection may be silent before it is probed; a probe not answered for as long
    /// again closes it. Default: 2 s.
    pub keepalive: Duration,
    /// How long a store's address is believed without asking placement again. Default: 60 s.
    pub address_ttl: Duration,
}

impl Default for ClientOptions {
    fn default() -> Self {
        Self {
            deadline: DEFAULT_DEADLINE,
            read_attempt: Duration::from_secs(2),
            connections_per_store: 1,
            max_in_flight: 16_384,
            max_queued: 16_384,
            batch_requests: 256,
            batch_concurrency: 16,
            scan_page: 1_024,
            connect_timeout: Duration::from_secs(1),
            keepalive: Duration::from_secs(2),
            address_ttl: Duration::from_secs(60),
        }
    }
}

/// Which replica answers a read.
///
/// Other replicas than the leader, learners included, are chosen by how quickly they have answered
/// and by what they are busy with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ReadFrom {
    /// The leader, by its lease or a read index. Linearizable.
    #[default]
    Leader,
    /// Any other replica where there is one, by a read index; the leader where none answers.
    /// Linearizable.
    Follower,
    /// A learner where there is one, by a read index; the leader where none answers. Linearizable.
    /// Voters do not feel it: for scans of much.
    Learner,
    /// Any replica, without asking another: the answer has everything that was acknowledged that
    /// long before the read, and perhaps more. Where the replica is older the leader is asked.
    /// Goes on, within the bound, while a region has lost its quorum.
    Stale(Duration),
}

/// How one read is done.
#[derive(Clone, Copy, Debug, Default)]
pub struct ReadOptions {
    /// Which replica answers.
    pub from: ReadFrom,
    /// Instead of [`ClientOptions::deadline`].
    pub deadline: Option<Duration>,
}

impl ReadOptions {
    /// Reads answered by other replicas than the leader.
    pub fn follower() -> Self {
        Self { from: ReadFrom::Follower, deadline: None }
    }

    /// Reads answered by any replica that is not older than `bound`.
    pub fn stale(bound: Duration) -> Self {
        Self { from: ReadFrom::Stale(bound), deadline: None }
    }

    /// Reads answered by learners.
    pub fn learner() -> Self {
        Self { from: ReadFrom::Learner, deadline: None }
    }
}

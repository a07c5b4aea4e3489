//! The client: what an application holds.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use parking_lot::{Mutex, RwLock};
use quorate_proto::{
    Peer, Region, RegionId, key, limits,
    wire::{kvrpcpb, tikvpb::batch_commands_request::request::Cmd as Command},
};
use tokio::{runtime::Handle, sync::Semaphore};

use crate::{
    ClientOptions, Error, PlacementClient, PlacementOptions, ReadOptions, Result,
    command::Answer,
    execute::{Attempt, Exchange, Kind, Place},
    nearby::Nearby,
    router::Router,
    stores::{Directory, Stores},
};

/// A key and its value.
pub type KvPair = (Bytes, Bytes);

/// Questions to placement about regions that are not cached, at the same time.
const LEARNING: usize = 4;

/// A key-value client of one cluster. Cheap to clone; all clones share connections and caches.
///
/// It runs its connections on the tokio runtime it was connected on and must not outlive that.
///
/// # What a failure means
/// Reads are repeated until their deadline. So are writes that were certainly not applied: refused
/// by a store, or never sent. A write that was sent and whose answer was lost (connection broken,
/// deadline passed, command dropped by a leader that was deposed) is returned as
/// [`Error::Undetermined`] and **never repeated silently**: the first copy may have been applied,
/// or may yet be, and if another client wrote the same key in between, a second copy would undo
/// that write. The caller decides: read the key, or write again where writing twice is harmless.
#[derive(Clone)]
pub struct Client {
    pub(crate) inner: Arc<Inner>,
}

/// Where a key lives.
#[derive(Clone, Debug)]
pub struct RegionRoute {
    /// The region that holds it.
    pub region: Region,
    /// The peer that leads it, as far as is known.
    pub leader: Peer,
    /// HOST:PORT of the leader's store.
    pub address: String,
}

/// What all clones share.
pub(crate) struct Inner {
    pub(crate) options: ClientOptions,
    pub(crate) placement: PlacementClient,
    pub(crate) router: Arc<RwLock<Router>>,
    pub(crate) stores: Stores,
    pub(crate) learning: Semaphore,
    pub(crate) refreshing: Refreshing,
    pub(crate) nearby: Nearby,
    /// The words for a store that is left alone for a moment.
    pub(crate) resting: Arc<str>,
    turn: AtomicUsize,
}

/// Regions that placement is being asked about, so that each is asked about once at a time.
#[derive(Default)]
pub(crate) struct Refreshing(Mutex<BTreeSet<RegionId>>);

/// Ends one question when dropped.
pub(crate) struct Asking<'a>(&'a Refreshing, RegionId);

impl Refreshing {
    /// None where somebody is asking already.
    pub(crate) fn start(&self, region: RegionId) -> Option<Asking<'_>> {
        // Made only once the lock is free again: dropping it takes the lock.
        let first = self.0.lock().insert(region);
        first.then(|| Asking(self, region))
    }
}

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        self.0.0.lock().remove(&self.1);
    }
}

impl Inner {
    /// Spreads follower reads over the replicas.
    pub(crate) fn replica_turn(&self) -> usize {
        self.turn.fetch_add(1, Ordering::Relaxed)
    }

    pub(crate) fn read(&self, operation: &'static str, options: ReadOptions) -> Attempt {
        let allowed = options.deadline.unwrap_or(self.options.deadline);
        Attempt::new(operation, Kind::Read(options.from), allowed)
    }

    pub(crate) fn write(&self, operation: &'static str) -> Attempt {
        Attempt::new(operation, Kind::Write, self.options.deadline)
    }

    /// One request that fits any region which holds `key`.
    async fn single(
        &self,
        attempt: &mut Attempt,
        key: Bytes,
        make: impl Fn(kvrpcpb::Context) -> Command,
    ) -> Result<Answer> {
        let place = Place::At(key);
        match self.exchange(attempt, &place, |_, context| Some(make(context))).await? {
            Exchange::Answered(answer, _) => Ok(answer),
            Exchange::TooLarge(reason) => {
                Err(Error::Refused { operation: attempt.operation, reason })
            }
            Exchange::Moved => unreachable!("a request for one key fits every region"),
        }
    }
}

impl Client {
    /// Connects to the cluster whose placement members listen at `placement` (HOST:PORT each; one
    /// that answers is enough).
    ///
    /// # Errors
    /// [`Error::Unavailable`] where no member answers within the deadline,
    /// [`Error::WrongCluster`] where members of different clusters do, and
    /// [`Error::InvalidArgument`] for an address that is none.
    pub async fn connect(placement: &[String], options: ClientOptions) -> Result<Client> {
        let placement_options = PlacementOptions {
            deadline: options.deadline,
            connect_timeout: options.connect_timeout,
            keepalive: options.keepalive,
        };
        let placement = PlacementClient::connect(placement, placement_options).await?;
        Self::with_placement(placement, options).await
    }

    /// A client on a placement client that is connected already. To be called on a tokio runtime.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] outside a tokio runtime.
    #[allow(clippy::unused_async)]
    pub async fn with_placement(
        placement: PlacementClient,
        options: ClientOptions,
    ) -> Result<Client> {
        let runtime = Handle::try_current().map_err(|_| {
            Error::InvalidArgument("a client has to be connected on a tokio runtime".to_owned())
        })?;
        let router = Arc::new(RwLock::new(Router::default()));
        let directory =
            Directory::new(options.clone(), placement.clone(), Arc::clone(&router), runtime);
        Ok(Self {
            inner: Arc::new(Inner {
                options,
                placement,
                router,
                stores: Stores::new(Arc::new(directory)),
                learning: Semaphore::new(LEARNING),
                refreshing: Refreshing::default(),
                nearby: Nearby::default(),
                resting: Arc::from("the store could not be dialled a moment ago"),
                turn: AtomicUsize::new(0),
            }),
        })
    }

    /// The value of `key`, none where there is none. Linearizable.
    ///
    /// # Errors
    /// [`Error::Timeout`], [`Error::Unavailable`], [`Error::InvalidArgument`].
    pub async fn get(&self, key: impl Into<Bytes>) -> Result<Option<Bytes>> {
        self.get_with(key, ReadOptions::default()).await
    }

    /// As [`Self::get`], from the replica that `options` names.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub async fn get_with(
        &self,
        key: impl Into<Bytes>,
        options: ReadOptions,
    ) -> Result<Option<Bytes>> {
        let key = key.into();
        check_key(&key)?;
        let mut attempt = self.inner.read("get", options);
        let make = |context| {
            let key = key.clone();
            Command::RawGet(kvrpcpb::RawGetRequest {
                context: Some(context),
                key,
                cf: String::new(),
            })
        };
        match self.inner.single(&mut attempt, key.clone(), make).await? {
            Answer::Value(value) => Ok(value),
            other => Err(unexpected(&attempt, &other)),
        }
    }

    /// Sets `key` to `value`.
    ///
    /// # Errors
    /// [`Error::Undetermined`] (see [`Client`]), else as [`Self::get`]; [`Error::Refused`] where
    /// the store has no room.
    pub async fn put(&self, key: impl Into<Bytes>, value: impl Into<Bytes>) -> Result<()> {
        let (key, value) = (key.into(), value.into());
        check_pair(&key, &value)?;
        let mut attempt = self.inner.write("put");
        let make = |context| {
            Command::RawPut(kvrpcpb::RawPutRequest {
                context: Some(context),
                key: key.clone(),
                value: value.clone(),
                cf: String::new(),
                ttl: 0,
                for_cas: false,
            })
        };
        match self.inner.single(&mut attempt, key.clone(), make).await? {
            Answer::Done => Ok(()),
            other => Err(unexpected(&attempt, &other)),
        }
    }

    /// Removes `key`, whether it was there or not.
    ///
    /// # Errors
    /// As [`Self::put`].
    pub async fn delete(&self, key: impl Into<Bytes>) -> Result<()> {
        let key = key.into();
        check_key(&key)?;
        let mut attempt = self.inner.write("delete");
        let make = |context| {
            Command::RawDelete(kvrpcpb::RawDeleteRequest {
                context: Some(context),
                key: key.clone(),
                cf: String::new(),
                for_cas: false,
            })
        };
        match self.inner.single(&mut attempt, key.clone(), make).await? {
            Answer::Done => Ok(()),
            other => Err(unexpected(&attempt, &other)),
        }
    }

    /// Where `key` lives, from the cache where it is there.
    ///
    /// # Errors
    /// As [`Self::get`]; [`Error::Unavailable`] while the region has no leader that is known.
    pub async fn locate(&self, key: impl Into<Bytes>) -> Result<RegionRoute> {
        let key = key.into();
        check_length(&key)?;
        let mut attempt = self.inner.read("locate", ReadOptions::default());
        let (region, leader) = self.inner.find_leader(&mut attempt, key).await?;
        let address = self.inner.stores.directory().address(leader.store).await;
        let address = address
            .map_err(|last| Error::Unavailable { what: leader.store.to_string(), last })?
            .to_string();
        Ok(RegionRoute { region, leader, address })
    }

    /// The client of this cluster's placement.
    pub fn placement(&self) -> &PlacementClient {
        &self.inner.placement
    }

    /// The cluster's id; 0 until the cluster is bootstrapped.
    pub fn cluster_id(&self) -> u64 {
        self.inner.placement.cluster_id()
    }
}

/// How long an operation may take by default.
pub(crate) const DEFAULT_DEADLINE: Duration = Duration::from_secs(10);

pub(crate) fn check_key(key: &[u8]) -> Result<()> {
    if key.is_empty() {
        return Err(Error::InvalidArgument(
            "the empty key cannot hold a value; give a key of at least one byte".to_owned(),
        ));
    }
    check_length(key)
}

/// For the ends of ranges, which may be empty.
pub(crate) fn check_length(key: &[u8]) -> Result<()> {
    if key.len() > limits::MAX_KEY_BYTES {
        return Err(Error::InvalidArgument(format!(
            "a key of {} bytes (it starts with {}) is longer than the limit of {}; shorten it",
            key.len(),
            key::display(&key[..16]),
            limits::MAX_KEY_BYTES
        )));
    }
    Ok(())
}

pub(crate) fn check_pair(key: &[u8], value: &[u8]) -> Result<()> {
    check_key(key)?;
    if value.len() > limits::MAX_VALUE_BYTES {
        return Err(Error::InvalidArgument(format!(
            "the value of {} has {} bytes, the limit is {}; store it in parts",
            key::display(key),
            value.len(),
            limits::MAX_VALUE_BYTES
        )));
    }
    Ok(())
}

/// An answer of another kind than the request: a broken server.
pub(crate) fn unexpected(attempt: &Attempt, answer: &Answer) -> Error {
    let operation = attempt.operation;
    let reason = format!("the store answered as if to a {}; is it a store?", answer.kind());
    match attempt.kind {
        Kind::Read(_) => Error::Refused { operation, reason },
        // Whatever it did with it.
        Kind::Write => Error::Undetermined { operation, cause: reason },
    }
}

#[cfg(test)]
mod refreshing_tests {
    use super::*;

    #[test]
    fn a_region_is_asked_about_once_at_a_time() {
        let refreshing = Refreshing::default();
        let asking = refreshing.start(RegionId(7));
        assert!(asking.is_some());
        assert!(refreshing.start(RegionId(7)).is_none());
        assert!(refreshing.start(RegionId(7)).is_none(), "a refusal does not end the question");
        assert!(refreshing.start(RegionId(8)).is_some());
        drop(asking);
        assert!(refreshing.start(RegionId(7)).is_some());
    }
}

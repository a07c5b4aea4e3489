//! A local cluster in the hands of one command: its processes started, watched and ended.
//!
//! Whoever holds a [`Local`] holds the lock of its data folder, so that no two commands start or
//! end the same processes.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use quorate_client::{PlacementClient, PlacementOptions};
use quorate_proto::wire::placement::StatusResponse;

use super::description::{Cluster, Member, Role};
use super::end;
use super::lock::Lock;
use super::pid::Identity;
use super::spawn::{Bond, Launch};
use super::{ports, probe};
use crate::exit::{Code, Failure, Outcome};
use crate::output;

/// Between two looks at whether a process is ready.
const POLL: Duration = Duration::from_millis(50);
/// After this long without being ready, a line says who is waited for.
const REMARK_AFTER: Duration = Duration::from_secs(5);

/// See the module.
pub(crate) struct Local {
    folder: PathBuf,
    cluster: Cluster,
    bond: Bond,
    _lock: Lock,
}

impl Local {
    /// Takes the cluster of a data folder in hand.
    ///
    /// # Errors
    /// Another command holds it, or there is none.
    pub(crate) fn open(folder: &Path, bond: Bond) -> Outcome<Self> {
        let lock = Lock::take(folder)?;
        match Cluster::load(folder)? {
            Some(cluster) => Ok(Self::new(folder.to_owned(), cluster, bond, lock)),
            None => Err(Failure::error(format!(
                "{} holds no cluster: name the folder that `quorate up` was given",
                folder.display()
            ))),
        }
    }

    /// A cluster whose lock is taken already.
    pub(super) fn new(folder: PathBuf, cluster: Cluster, bond: Bond, lock: Lock) -> Self {
        Self { folder, cluster, bond, _lock: lock }
    }

    /// Its data folder.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }
    /// Which processes it consists of.
    pub(crate) fn cluster(&self) -> &Cluster {
        &self.cluster
    }
    /// A member by its name, such as `store-2`.
    ///
    /// # Errors
    /// There is none of that name.
    pub(crate) fn member(&self, name: &str) -> Outcome<&Member> {
        self.cluster
            .members
            .iter()
            .find(|member| member.name() == name)
            .ok_or_else(|| Failure::error(format!("the cluster has no {name}")))
    }

    fn launch(&self) -> Launch<'_> {
        Launch { folder: &self.folder, cluster: &self.cluster, bond: self.bond }
    }

    /// Starts every member that does not run, and writes down each as soon as it does.
    ///
    /// The stores of a new cluster join one after the other, so that store-1 is s1.
    ///
    /// # Errors
    /// A port in the way, a process that ends, or a store that does not join in time.
    pub(crate) async fn start_missing(&mut self, deadline: Instant) -> Outcome {
        let fresh = self.cluster.members.iter().all(|member| member.process.is_none());
        let missing = |local: &Self, role| -> Vec<Member> {
            let members = local.cluster.of(role);
            members.filter(|member| member.running().is_none()).cloned().collect()
        };
        for member in missing(self, Role::Placement) {
            self.start(&member.name())?;
        }
        if missing(self, Role::Store).is_empty() {
            return Ok(());
        }
        self.ready(|member| member.role == Role::Placement, deadline)?;
        if !fresh {
            self.forget_left(deadline).await?;
        }
        for member in missing(self, Role::Store) {
            self.start(&member.name())?;
            if fresh {
                self.joined(usize::from(member.number), deadline).await?;
            }
        }
        Ok(())
    }

    /// Stores that were taken out of the cluster never come back: ends their processes and forgets
    /// them. Their folders stay.
    ///
    /// # Errors
    /// Placement does not answer, or the folder cannot be written.
    pub(crate) async fn forget_left(&mut self, deadline: Instant) -> Outcome {
        let status = self.status(deadline).await?;
        let has = |member: &Member, left: bool| {
            status.stores.iter().any(|entry| {
                let is_there =
                    entry.store.as_ref().is_some_and(|store| store.address == member.address);
                is_there && (entry.state == "Left") == left
            })
        };
        let gone: Vec<Member> = self
            .cluster
            .of(Role::Store)
            .filter(|member| has(member, true) && !has(member, false))
            .cloned()
            .collect();
        for member in &gone {
            end::stop(&[member], false)?;
            output::note(&format!(
                "{} has left the cluster and is not started any more; {} can be removed",
                member.name(),
                Cluster::folder_of(&self.folder, member).display()
            ));
        }
        self.cluster.members.retain(|member| !gone.contains(member));
        if gone.is_empty() { Ok(()) } else { self.cluster.save(&self.folder) }
    }

    /// Starts one member and writes down its process.
    ///
    /// # Errors
    /// A port in the way, or the process cannot be started.
    pub(crate) fn start(&mut self, name: &str) -> Outcome {
        let member = self.member(name)?;
        free(member)?;
        let process = self.launch().start(member)?;
        for member in &mut self.cluster.members {
            if member.name() == name {
                member.process = Some(process.clone());
            }
        }
        self.cluster.save(&self.folder)
    }

    /// Adds a member to the description, without starting it.
    ///
    /// # Errors
    /// No port is free, or the folder cannot be written.
    pub(crate) fn add(&mut self, role: Role) -> Outcome<String> {
        let number = self.cluster.next_number(&self.folder, role);
        let taken: Vec<u16> = self.cluster.members.iter().flat_map(Member::ports).collect();
        let base = self.cluster.of(role).flat_map(Member::ports).min().unwrap_or(match role {
            Role::Placement => ports::PLACEMENT_PORT,
            Role::Store => ports::STORE_PORT,
        });
        let port = ports::beside(base, &taken).ok_or_else(|| {
            Failure::error(format!("no free port found from {base} up; stop what uses them"))
        })?;
        let member = Member::at(role, number, port);
        let name = member.name();
        self.cluster.members.push(member);
        self.cluster.members.sort_by_key(|member| (member.role, member.number));
        self.cluster.save(&self.folder)?;
        Ok(name)
    }

    /// Waits until placement knows that many stores.
    async fn joined(&self, stores: usize, deadline: Instant) -> Outcome {
        loop {
            self.nobody_ended()?;
            // Until there is a leader, nobody answers.
            let known = match self.status(deadline).await {
                Ok(status) => status.stores.len(),
                Err(_) => 0,
            };
            if known >= stores {
                return Ok(());
            }
            if Instant::now() >= deadline {
                return Err(Failure::unavailable(format!(
                    "store-{stores} has not joined in time; see {}/logs, or wait longer with \
                     --wait SECONDS",
                    self.folder.display()
                )));
            }
            tokio::time::sleep(POLL).await;
        }
    }

    fn nobody_ended(&self) -> Outcome {
        let members = &self.cluster.members;
        match members.iter().find(|member| member.process.is_some() && member.running().is_none()) {
            Some(ended) => Err(self.launch().ended(ended)),
            None => Ok(()),
        }
    }

    /// What placement says of the cluster.
    ///
    /// # Errors
    /// Nobody answers until then.
    pub(crate) async fn status(&self, deadline: Instant) -> Outcome<StatusResponse> {
        let deadline = deadline.saturating_duration_since(Instant::now()).max(POLL);
        let options = PlacementOptions { deadline, ..PlacementOptions::default() };
        let placement = PlacementClient::connect(&self.cluster.placement(), options).await?;
        Ok(placement.status().await?)
    }

    /// The id that placement gave each store: `store-4` → 40.
    ///
    /// # Errors
    /// Nobody answers until then.
    pub(crate) async fn store_ids(&self, deadline: Instant) -> Outcome<BTreeMap<String, u64>> {
        let status = self.status(deadline).await?;
        let stores = status.stores.into_iter().filter_map(|entry| entry.store);
        let name_of = |address: &str| {
            let mut stores = self.cluster.of(Role::Store);
            stores.find(|member| member.address == address).map(Member::name)
        };
        Ok(stores.filter_map(|store| Some((name_of(&store.address)?, store.id))).collect())
    }

    /// Waits until every process of those that count says that it is ready.
    ///
    /// # Errors
    /// One has ended, or is not ready in time.
    pub(crate) fn ready(&self, counts: impl Fn(&Member) -> bool, deadline: Instant) -> Outcome {
        let begun = Instant::now();
        let mut waiting: Vec<&Member> =
            self.cluster.members.iter().filter(|member| counts(member)).collect();
        let mut remarked = false;
        loop {
            if let Some(ended) = waiting.iter().find(|member| member.running().is_none()) {
                return Err(self.launch().ended(ended));
            }
            waiting.retain(|member| {
                !probe::page(&member.status_address, "/ready").is_ok_and(|page| page.status == 200)
            });
            if waiting.is_empty() {
                return Ok(());
            }
            let names =
                || waiting.iter().map(|member| member.name()).collect::<Vec<_>>().join(", ");
            if Instant::now() >= deadline {
                return Err(Failure::unavailable(format!(
                    "not ready in time: {}; see {}/logs, or wait longer with --wait SECONDS",
                    names(),
                    self.folder.display()
                )));
            }
            if !remarked && begun.elapsed() >= REMARK_AFTER {
                remarked = true;
                output::note(&format!("waiting for {}", names()));
            }
            std::thread::sleep(POLL);
        }
    }

    /// Waits until every region has its replicas and a leader, and every store reports.
    ///
    /// # Errors
    /// That is not so in time.
    pub(crate) async fn healthy(&self, deadline: Instant) -> Outcome<StatusResponse> {
        loop {
            let status = self.status(deadline).await?;
            let stores = self.cluster.of(Role::Store).count();
            let health = crate::admin::health::judge(&status);
            if health.is_healthy() && status.stores.len() >= stores {
                return Ok(status);
            }
            if Instant::now() >= deadline {
                return Err(Failure {
                    code: Code::Degraded,
                    words: format!("not healthy in time: {health}; see `quorate status`"),
                });
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// The process of a member, while it runs.
    ///
    /// # Errors
    /// There is no such member, or it does not run.
    pub(crate) fn process(&self, name: &str) -> Outcome<&Identity> {
        let member = self.member(name)?;
        member.running().ok_or_else(|| self.launch().ended(member))
    }
}

/// Nobody else listens where a member is to listen.
fn free(member: &Member) -> Outcome {
    match member.ports().find_map(ports::in_the_way) {
        Some(holder) => Err(Failure::error(format!(
            "{} cannot start: {holder}; stop that process, or start another cluster with --data \
             FOLDER",
            member.name()
        ))),
        None => Ok(()),
    }
}

//! The very first start of a group of several members: told from the start of a member whose disk
//! was lost (see ADR 43).
//!
//! A member with an empty folder must not vote before it knows that it never did. So it draws a
//! number for its folder, writes that down, answers and asks the others, and begins only where
//!
//! * each of the others waits as well: then nobody has begun, and it keeps all their numbers; or
//! * one that has begun counted on this very folder.
//!
//! One that has begun without this folder means that an earlier folder of this member may have
//! voted: the member is refused. Whatever is not heard is waited for, and said.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use parking_lot::RwLock;
use quorate_consensus::engine::Engine;
use quorate_consensus::node::clock;
use quorate_consensus::node::listen::{Bounds, Incoming};
use quorate_consensus::view::GroupView;
use quorate_proto::wire::placement::founding_client::FoundingClient;
use quorate_proto::wire::placement::founding_server::Founding;
use quorate_proto::wire::placement::{FoundingRequest, FoundingResponse};
use quorate_proto::wire::placement_state::FoundingFolder;
use quorate_proto::{NodeId, PeerId};
use tokio::sync::watch;
use tonic::transport::Endpoint;
use tonic::{Code, Request, Response, Status};

use super::cluster::Cluster;
use super::machine::GROUP;
use super::roster::Roster;
use super::{disk, pages, server};
use crate::config::PlacementConfig;
use crate::core::command::Member;
use crate::core::state::State;
use crate::error::PlacementError;

/// How long another member may take to answer.
const PATIENCE: Duration = Duration::from_secs(1);
/// Pause between two rounds of asking.
const PAUSE: Duration = Duration::from_millis(50);
/// How often it is said whom this member waits for.
const SAY: Duration = Duration::from_secs(5);
/// How long calls may take to end before Raft begins.
const GRACE: Duration = Duration::from_millis(300);

/// The folders of founding members, by member.
pub(crate) type Folders = BTreeMap<NodeId, u64>;

/// What one of the others said, or why it said nothing.
type Heard = Result<FoundingResponse, String>;

/// What follows from a round of asking.
#[derive(Debug, PartialEq)]
enum Verdict {
    /// The group is founded with these folders, this one among them.
    Begin(Folders),
    /// This member is one of a group that was founded with another folder of its own.
    Refuse(Member),
    /// Nobody knows yet.
    Wait(String),
}

/// What a member of the group is while it asks.
struct Asker {
    me: NodeId,
    folder: u64,
    fingerprint: u64,
}

impl Asker {
    fn judge(&self, others: &[(Member, Heard)]) -> Verdict {
        let (mut counted_on, mut all) = (None, Folders::from([(self.me, self.folder)]));
        let mut missing = Vec::new();
        for (member, heard) in others {
            let answer = match heard {
                Ok(answer) => answer,
                Err(why) => {
                    missing.push(format!("{} ({}: {why})", member.name, member.address));
                    continue;
                }
            };
            let theirs = read(&answer.folders);
            match answer.founded {
                true if theirs.get(&self.me) == Some(&self.folder) => counted_on = Some(theirs),
                true if answer.fingerprint != self.fingerprint => missing.push(format!(
                    "{} ({}: a member of another group answers there)",
                    member.name, member.address
                )),
                true => return Verdict::Refuse(member.clone()),
                false if answer.fingerprint != self.fingerprint => missing.push(format!(
                    "{} ({}: it was started with another list of members)",
                    member.name, member.address
                )),
                false => match theirs.get(&member.id) {
                    Some(folder) => _ = all.insert(member.id, *folder),
                    None => missing.push(format!(
                        "{} ({}: placement-{} answers there)",
                        member.name, member.address, answer.member_id
                    )),
                },
            }
        }
        match counted_on {
            Some(folders) => Verdict::Begin(folders),
            None if missing.is_empty() => Verdict::Begin(all),
            None => Verdict::Wait(missing.join(", ")),
        }
    }
}

fn read(folders: &[FoundingFolder]) -> Folders {
    folders.iter().map(|one| (NodeId(one.member_id), one.number)).collect()
}

/// Answers the others.
pub(crate) struct FoundingService(FoundingResponse);

impl FoundingService {
    /// Of a member that takes part in Raft.
    pub(crate) fn founded(me: NodeId, fingerprint: u64, folders: &Folders) -> Self {
        Self(response(me, fingerprint, true, folders))
    }
}

fn response(me: NodeId, fingerprint: u64, founded: bool, folders: &Folders) -> FoundingResponse {
    let one =
        |(member, number): (&NodeId, &u64)| FoundingFolder { member_id: member.0, number: *number };
    let folders = folders.iter().map(one).collect();
    FoundingResponse { member_id: me.0, fingerprint, founded, folders }
}

#[tonic::async_trait]
impl Founding for FoundingService {
    async fn compare(
        &self,
        request: Request<FoundingRequest>,
    ) -> Result<Response<FoundingResponse>, Status> {
        tracing::debug!(member = request.get_ref().member_id, "asks whether the group is founded");
        Ok(Response::new(self.0.clone()))
    }
}

/// Where a member listens: clients and members, and the status pages.
pub(crate) struct Sockets {
    pub(crate) serving: TcpListener,
    pub(crate) pages: Option<TcpListener>,
}

/// Waits until the group is founded, and begins this member's folder then. Meanwhile it serves as a
/// member does that knows no leader, but takes no part in Raft.
///
/// # Errors
/// The group was founded with another folder; the folder holds something else; a socket failed.
pub(crate) async fn found(
    config: &PlacementConfig,
    engine: &Arc<dyn Engine>,
    group: &[Member],
    sockets: &Sockets,
) -> Result<(), PlacementError> {
    let folder = disk::waiting(engine.as_ref(), &config.data)?;
    let fingerprint = disk::fingerprint(group);
    let asker = Asker { me: NodeId(config.id), folder, fingerprint };
    let Some(me) = group.iter().find(|member| member.id == asker.me) else { return Ok(()) };
    // Of the services' use only: nobody leads, and nothing is replicated.
    let (_leader, nobody) = watch::channel(None);
    let cluster = Arc::new(Cluster::new(
        me.clone(),
        Arc::new(Roster::new(group.to_vec(), Vec::new())),
        fingerprint,
        Arc::new(RwLock::new(State::load(engine.as_ref())?)),
        GroupView::new(GROUP, PeerId(me.id.0)),
        nobody,
        Duration::from_millis(config.request_timeout_ms),
    ));
    let system = |error| PlacementError::System { what: "watch the listen address", error };
    let incoming = sockets
        .serving
        .try_clone()
        .and_then(|socket| Incoming::new(socket, Bounds::serving(config.limits.connections)));
    let own = Folders::from([(me.id, folder)]);
    let answers = FoundingService(response(me.id, fingerprint, false, &own));
    let server = server::router(config, &cluster, answers)
        .serve_with_incoming_shutdown(incoming.map_err(system)?, server::told_to_stop(&cluster));
    let pages = pages::Pages { cluster: Arc::clone(&cluster), engine: Arc::clone(engine) };
    let pages = async {
        if let Some(socket) = sockets.pages.as_ref().and_then(|socket| socket.try_clone().ok()) {
            let stopping = server::told_to_stop(&cluster);
            if let Err(error) = pages::serve(socket, pages, stopping).await {
                tracing::error!(%error, "there are no status pages while this member waits");
            }
        }
    };
    let served = async { tokio::join!(server, pages).0 };
    let mut served = std::pin::pin!(served);
    let shown = config.data.display().to_string();
    let verdict = tokio::select! {
        verdict = asker.ask(group, &shown) => verdict,
        ended = &mut served => {
            let words = ended.map_or_else(|error| error.to_string(), |()| "it ended".to_owned());
            return Err(PlacementError::Server(words));
        }
    };
    cluster.stopping.send_replace(true);
    // Clients look for the leader again; what does not end by itself is cut off later.
    let _ = tokio::time::timeout(GRACE, served).await;
    disk::begin(engine.as_ref(), me.id, group, &verdict?)?;
    Ok(())
}

impl Asker {
    /// Asks the others, round after round, until they let this member begin.
    async fn ask(&self, group: &[Member], shown: &str) -> Result<Folders, PlacementError> {
        let mut said = clock::now();
        loop {
            let others = group.iter().filter(|member| member.id != self.me);
            let heard = others.map(|member| async move {
                let asked = tokio::time::timeout(PATIENCE, call(member, self.me)).await;
                (member.clone(), asked.unwrap_or_else(|_| Err("no answer in time".to_owned())))
            });
            match self.judge(&join_all(heard).await) {
                Verdict::Begin(folders) => {
                    tracing::info!(members = group.len(), "the placement group is founded");
                    return Ok(folders);
                }
                Verdict::Refuse(by) => {
                    let (member, folder) = (self.me.0, shown.to_owned());
                    let by = format!("{} at {}", by.name, by.address);
                    return Err(PlacementError::FoundedAlready { by, member, folder });
                }
                Verdict::Wait(missing) if clock::now().since(said) >= SAY => {
                    tracing::warn!(
                        %missing,
                        "the first start of a placement group needs all of its members once; waits"
                    );
                    said = clock::now();
                }
                Verdict::Wait(_) => {}
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
}

async fn call(member: &Member, me: NodeId) -> Heard {
    let endpoint = Endpoint::from_shared(format!("http://{}", member.address));
    let endpoint = endpoint.map_err(|error| error.to_string())?.connect_timeout(PATIENCE);
    let channel = endpoint.connect().await.map_err(|_| "nobody answers".to_owned())?;
    let answer = FoundingClient::new(channel).compare(FoundingRequest { member_id: me.0 }).await;
    answer.map(Response::into_inner).map_err(|status| match status.code() {
        Code::Unimplemented => "it runs an older version: restart it with this one".to_owned(),
        _ => status.message().to_owned(),
    })
}

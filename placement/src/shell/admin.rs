//! Between our own processes and placement: joining, heartbeats, ids for splits, and what the
//! command line asks for.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use quorate_consensus::node::clock;
use quorate_proto::wire::placement::{self as wire, placement_server};
use quorate_proto::{NodeId, Region, RegionId, StoreId};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::cluster::Cluster;
use super::{convert, duties, membership, orders, status};
use crate::core::command::{Answer, Command, Joining, labels_from_wire};
use crate::core::operators::{SPLIT_DEADLINE, TRANSFER_DEADLINE};
use crate::core::split;

/// Most children of one split that ids are given for.
const MAX_CHILDREN: u32 = 1_024;
/// Most peers of a region that ids are given for.
const MAX_PEERS: usize = 16;
/// Pause before a look at whether something has changed that nobody tells of.
const GLANCE: Duration = Duration::from_millis(200);

/// The service.
pub(crate) struct PlacementService(pub(crate) Arc<Cluster>);

type Answered<T> = Result<Response<T>, Status>;

impl PlacementService {
    fn check_cluster(&self, theirs: u64) -> Result<(), Status> {
        let ours = self.0.cluster_id();
        if theirs != 0 && theirs != ours {
            return Err(convert::wrong_cluster(theirs, ours));
        }
        Ok(())
    }

    /// Splits until every key begins a region, or nothing helps.
    async fn split_at(&self, keys: &[Bytes]) -> Result<Vec<Region>, Status> {
        let wanted = split::check_keys(keys)?;
        let mut routes = self.0.routes.subscribe();
        loop {
            routes.borrow_and_update();
            let now = clock::now();
            let done = self
                .0
                .read(|session, _| {
                    let drafts = split::plan(session.leader.tree(), &wanted)?;
                    if drafts.is_empty() {
                        let region = |key: &Bytes| session.leader.tree().find(key);
                        let regions = wanted.iter().filter_map(region);
                        return Ok(Some(regions.map(|info| info.region.clone()).collect()));
                    }
                    for draft in drafts {
                        // What a region is busy with ends soon, and then its turn comes.
                        let _ = session.leader.split(draft, now);
                    }
                    Ok::<Option<Vec<Region>>, Status>(None)
                })
                .await??;
            if let Some(regions) = done {
                return Ok(regions);
            }
            // The planner sends what is due; a report that shows it done changes a route.
            let _ = tokio::time::timeout(GLANCE, routes.changed()).await;
        }
    }

    /// Splits one region in half by size.
    async fn halve(&self, region: RegionId) -> Result<Vec<Region>, Status> {
        let mut routes = self.0.routes.subscribe();
        let before = self
            .0
            .read(|session, _| {
                let info = session.leader.tree().get(region);
                let before = info.map(|info| info.region.clone());
                let draft = split::halve(session.leader.tree(), region)?;
                let begun =
                    session.leader.operators().of(region).map(|operator| operator.goal.clone());
                if begun.as_ref() != Some(&draft.goal) {
                    session.leader.split(draft, clock::now())?;
                }
                Ok::<Option<Region>, Status>(before)
            })
            .await??;
        let Some(before) = before else {
            return Err(split::SplitRefusal::UnknownRegion(region).into());
        };
        loop {
            routes.borrow_and_update();
            let parts = self
                .0
                .read(|session, _| {
                    let tree = session.leader.tree();
                    let cut = tree
                        .get(region)
                        .is_none_or(|info| info.region.epoch.version > before.epoch.version);
                    let parts = tree.overlapping(&before.range).map(|info| info.region.clone());
                    cut.then(|| parts.collect::<Vec<_>>())
                })
                .await?;
            if let Some(parts) = parts.filter(|parts| parts.len() > 1) {
                return Ok(parts);
            }
            let _ = tokio::time::timeout(GLANCE, routes.changed()).await;
        }
    }
}

#[tonic::async_trait]
impl placement_server::Placement for PlacementService {
    async fn join(&self, request: Request<wire::JoinRequest>) -> Answered<wire::JoinResponse> {
        let request = request.into_inner();
        let joining = Joining {
            cluster_id: request.cluster_id,
            store: (request.store_id != 0).then_some(StoreId(request.store_id)),
            address: request.address,
            status_address: request.status_address,
            labels: labels_from_wire(request.labels),
            version: request.version,
            incarnation: request.incarnation,
            data_id: request.data_id,
        };
        let now = clock::now();
        let known = self
            .0
            .read(|session, state| {
                state.may_join(&joining)?;
                session.leader.may_use_address(state, &joining, now)?;
                Ok::<_, Status>(state.has_joined(&joining))
            })
            .await??;
        let store = match known {
            Some(store) => store,
            None => match self.0.propose(&Command::JoinStore(joining)).await? {
                Answer::Joined(store) => {
                    tracing::info!(%store, "joined");
                    store
                }
                Answer::JoinRefused(refusal) => return Err(refusal.into()),
                other => return Err(Status::internal(format!("unexpected answer {other:?}"))),
            },
        };
        duties::bootstrap(&self.0).await?;
        let state = self.0.state.read();
        let here = |region: &&Region| region.peer_on(store).is_some();
        let initial = state.initial_regions().unwrap_or_default();
        Ok(Response::new(wire::JoinResponse {
            cluster_id: state.cluster().map_or(0, |cluster| cluster.id),
            store_id: store.0,
            bootstrapped: state.initial_regions().is_some(),
            initial_regions: initial.iter().filter(here).map(Into::into).collect(),
            missing_stores: state.missing_stores(),
            stores: state.stores().values().map(|store| convert::store(store)).collect(),
        }))
    }

    async fn join_placement(
        &self,
        request: Request<wire::JoinPlacementRequest>,
    ) -> Answered<wire::JoinPlacementResponse> {
        Ok(Response::new(membership::join(&self.0, request.into_inner()).await?))
    }

    type HeartbeatStream = ReceiverStream<Result<wire::StoreOrders, Status>>;

    async fn heartbeat(
        &self,
        request: Request<Streaming<wire::StoreReport>>,
    ) -> Answered<Self::HeartbeatStream> {
        if !self.0.view.is_leader() {
            return Err(self.0.not_leader());
        }
        let answers = orders::serve(Arc::clone(&self.0), request.into_inner()).await?;
        Ok(Response::new(ReceiverStream::new(answers)))
    }

    async fn ask_split(
        &self,
        request: Request<wire::AskSplitRequest>,
    ) -> Answered<wire::AskSplitResponse> {
        let request = request.into_inner();
        let region = request.region.ok_or_else(|| Status::invalid_argument("which region?"))?;
        let region = Region::try_from(region)
            .map_err(|error| Status::invalid_argument(error.to_string()))?;
        if request.count == 0 || request.count > MAX_CHILDREN || region.peers.len() > MAX_PEERS {
            return Err(Status::invalid_argument(format!(
                "ids are given for 1 to {MAX_CHILDREN} new regions of at most {MAX_PEERS} peers"
            )));
        }
        let stale = self
            .0
            .read(|session, _| {
                let known = session.leader.tree().get(region.id);
                known.is_some_and(|known| region.epoch.is_stale_against(known.region.epoch))
            })
            .await?;
        self.check_cluster(request.cluster_id)?;
        if stale {
            return Err(Status::failed_precondition(format!(
                "{} is known in a newer epoch: another store leads it by now",
                region.id
            )));
        }
        let each = 1 + region.peers.len() as u64;
        let first = self.0.ids(each * u64::from(request.count)).await?;
        let ids = (0..u64::from(request.count)).map(|child| {
            let region_id = first + child * each;
            wire::SplitIds { region_id, peer_ids: (region_id + 1..region_id + each).collect() }
        });
        Ok(Response::new(wire::AskSplitResponse { ids: ids.collect() }))
    }

    async fn status(
        &self,
        _request: Request<wire::StatusRequest>,
    ) -> Answered<wire::StatusResponse> {
        Ok(Response::new(status::status(&self.0).await?))
    }

    async fn split_region(
        &self,
        request: Request<wire::SplitRegionRequest>,
    ) -> Answered<wire::SplitRegionResponse> {
        let request = request.into_inner();
        let splitting = async {
            if request.keys.is_empty() && request.region_id != 0 {
                self.halve(RegionId(request.region_id)).await
            } else {
                self.split_at(&request.keys).await
            }
        };
        let regions = tokio::time::timeout(SPLIT_DEADLINE, splitting).await.map_err(|_| {
            Status::deadline_exceeded(
                "not all of the splits were reported in time; those that were begun may still \
                 happen: look at `quorate region list`, then try again",
            )
        })??;
        let regions = regions.iter().map(Into::into).collect();
        Ok(Response::new(wire::SplitRegionResponse { regions }))
    }

    async fn transfer_leader(
        &self,
        request: Request<wire::TransferLeaderRequest>,
    ) -> Answered<wire::TransferLeaderResponse> {
        let request = request.into_inner();
        let (region, to) = (RegionId(request.region_id), StoreId(request.to_store));
        let mut routes = self.0.routes.subscribe();
        let mut begun = false;
        let moving = async {
            loop {
                routes.borrow_and_update();
                let there = self
                    .0
                    .read(|session, _| {
                        let led = session.leader.tree().get(region).is_some_and(|info| {
                            info.leader.is_some_and(|leader| leader.store == to) && info.led
                        });
                        if !led && !begun {
                            session.leader.transfer(region, to, clock::now())?;
                            begun = true;
                        }
                        let waiting = session.leader.operators().of(region).is_some();
                        Ok::<_, Status>((led, waiting))
                    })
                    .await??;
                match there {
                    (true, _) => return Ok(()),
                    (false, true) => {}
                    (false, false) => {
                        return Err(Status::aborted(format!(
                            "{region} changed meanwhile, and {to} does not lead it; look, then \
                             try again"
                        )));
                    }
                }
                let _ = tokio::time::timeout(GLANCE, routes.changed()).await;
            }
        };
        tokio::time::timeout(TRANSFER_DEADLINE + GLANCE, moving).await.map_err(|_| {
            Status::deadline_exceeded(format!("{to} was not seen leading {region} in time"))
        })??;
        Ok(Response::new(wire::TransferLeaderResponse {}))
    }

    async fn transfer_placement_leader(
        &self,
        request: Request<wire::TransferPlacementLeaderRequest>,
    ) -> Answered<wire::TransferPlacementLeaderResponse> {
        let to = NodeId(request.into_inner().to_member);
        self.0.read(|_, _| ()).await?;
        let leader = transfer(&self.0, (to.0 != 0).then_some(to)).await?;
        Ok(Response::new(wire::TransferPlacementLeaderResponse { leader: leader.0 }))
    }
}

/// Hands leadership of the placement group over, to any other member where none is named.
///
/// # Errors
/// The member is unknown, or did not take over in time.
pub(crate) async fn transfer(cluster: &Cluster, to: Option<NodeId>) -> Result<NodeId, Status> {
    let group = cluster.roster.list();
    let voters = group.iter().filter(|member| member.votes()).map(|member| member.id);
    let candidates: Vec<NodeId> = match to {
        Some(to) if to == cluster.me.id => return Ok(to),
        Some(to) if voters.clone().any(|id| id == to) => vec![to],
        Some(to) if group.iter().any(|member| member.id == to) => {
            return Err(Status::failed_precondition(format!(
                "placement-{} is a learner, which cannot lead; name a voter",
                to.0
            )));
        }
        Some(to) => {
            return Err(Status::not_found(format!(
                "{} is no member of the placement group; its members are {}",
                to.0,
                super::disk::list(&group)
            )));
        }
        None => {
            let others = group.iter().filter(|member| member.votes() && member.id != cluster.me.id);
            let mut found = Vec::new();
            for other in others {
                // For one that is down everybody would wait in vain.
                if super::status::is_healthy(&other.address).await {
                    found.push(other.id);
                }
            }
            if found.is_empty() && group.iter().filter(|member| member.votes()).count() > 1 {
                return Err(Status::failed_precondition(
                    "no other voter of the placement group is up: start one first",
                ));
            }
            found
        }
    };
    if candidates.is_empty() {
        return Err(Status::failed_precondition("the placement group has no other voter"));
    }
    for candidate in candidates {
        cluster.raft()?.transfer_leader(candidate);
        let mut leader = cluster.leader.clone();
        let elsewhere = leader.wait_for(|change| {
            change.is_some_and(|change| !change.is_local && change.leader.is_some())
        });
        if tokio::time::timeout(Duration::from_secs(2), elsewhere).await.is_ok() {
            let leader = cluster.known_leader().map_or(candidate, |leader| leader.id);
            return Ok(leader);
        }
    }
    Err(Status::deadline_exceeded("no other member took over in time; are they up?"))
}

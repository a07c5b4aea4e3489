//! What people ask of placement while it runs: to explain, to change, to watch.
//!
//! A change is answered once it is replicated, so that it survives this leader.

use std::sync::Arc;
use std::time::Duration;

use quorate_consensus::node::clock;
use quorate_proto::wire::placement::change_member_request::Action;
use quorate_proto::wire::placement::{self as wire, admin_server};
use quorate_proto::{NodeId, RegionId, StoreId};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::cluster::{Cluster, Session};
use super::{explain, follow, membership};
use crate::core::command::{Answer, Command};
use crate::core::leader::{MemberAction, OWN, RemoveRefusal, Replacement};
use crate::core::operators::{Goal, Refused, ReplicaRole};
use crate::core::state::State;

/// Pause before a look at whether something was replicated, or has happened.
const GLANCE: Duration = Duration::from_millis(20);
/// How long an answer waits for its operator to be replicated.
const PATIENCE: Duration = Duration::from_secs(3);
/// Regions that are named in an answer, each with its sentence.
const SENTENCES: usize = 8;
/// Events that wait for a slow reader; it is waited for.
const EVENTS: usize = 256;

/// The service.
pub(crate) struct AdminService(pub(crate) Arc<Cluster>);

type Answered<T> = Result<Response<T>, Status>;

impl AdminService {
    /// Begins an operator, once, and waits until it is replicated or has ended.
    async fn begin(
        &self,
        mut begin: impl FnMut(&mut Session, &State) -> Result<u64, Refused>,
    ) -> Result<u64, Status> {
        let mut begun = None;
        let id = self
            .0
            .read(|session, state| match begun {
                Some(id) => Ok(id),
                None => {
                    let id = begin(session, state)?;
                    begun = Some(id);
                    Ok::<u64, Refused>(id)
                }
            })
            .await?
            .map_err(Status::from)?;
        let replicated = async {
            loop {
                let done = self
                    .0
                    .read(|session, state| {
                        id == 0
                            || state.operators().contains_key(&id)
                            || session.leader.operator(id).is_none()
                    })
                    .await;
                match done {
                    Ok(true) | Err(_) => return,
                    Ok(false) => tokio::time::sleep(GLANCE).await,
                }
            }
        };
        // One that is not replicated yet is under way all the same.
        let _ = tokio::time::timeout(PATIENCE, replicated).await;
        Ok(id)
    }

    async fn change_settings_to(&self, changes: Vec<(String, String)>) -> Result<(), Status> {
        let invalid =
            |error: crate::core::settings::BadSetting| Status::invalid_argument(error.to_string());
        self.0.read(|_, state| state.check_settings(&changes)).await?.map_err(invalid)?;
        match self.0.propose(&Command::ChangeSettings(changes.clone())).await? {
            Answer::BadSetting(bad) => Err(invalid(bad)),
            _ => {
                tracing::info!(?changes, "settings changed");
                Ok(())
            }
        }
    }
}

fn region_of(id: u64) -> Result<RegionId, Status> {
    match id {
        0 => Err(Status::invalid_argument("name a region")),
        id => Ok(RegionId(id)),
    }
}

#[tonic::async_trait]
impl admin_server::Admin for AdminService {
    async fn explain_region(
        &self,
        request: Request<wire::ExplainRegionRequest>,
    ) -> Answered<wire::ExplainRegionResponse> {
        let region = region_of(request.into_inner().region_id)?;
        let now = clock::now();
        let explained = self
            .0
            .read(|session, state| explain::region(&session.leader, state, region, now))
            .await?
            .map_err(Status::from)?;
        Ok(Response::new(explained))
    }

    async fn operators(
        &self,
        request: Request<wire::OperatorsRequest>,
    ) -> Answered<wire::OperatorsResponse> {
        let wire::OperatorsRequest { operator_id, ended } = request.into_inner();
        let operators = self
            .0
            .read(|session, _| explain::operators(&session.leader, operator_id, ended))
            .await?;
        if operator_id != 0 && operators.is_empty() {
            return Err(Status::not_found(format!(
                "operator {operator_id} is not under way, and none of those that ended lately"
            )));
        }
        Ok(Response::new(wire::OperatorsResponse { operators }))
    }

    async fn cancel_operator(
        &self,
        request: Request<wire::CancelOperatorRequest>,
    ) -> Answered<wire::CancelOperatorResponse> {
        let id = request.into_inner().operator_id;
        let mut cancelled = false;
        let now = clock::now();
        self.0
            .read(|session, _| {
                if !cancelled {
                    session.leader.cancel(id, now)?;
                    cancelled = true;
                }
                Ok::<(), Refused>(())
            })
            .await?
            .map_err(Status::from)?;
        Ok(Response::new(wire::CancelOperatorResponse {}))
    }

    async fn schedulers(
        &self,
        _request: Request<wire::SchedulersRequest>,
    ) -> Answered<wire::SchedulersResponse> {
        let schedulers =
            self.0.read(|session, state| explain::schedulers(&session.leader, state)).await?;
        Ok(Response::new(wire::SchedulersResponse { schedulers }))
    }

    async fn set_scheduler(
        &self,
        request: Request<wire::SetSchedulerRequest>,
    ) -> Answered<wire::SetSchedulerResponse> {
        let wire::SetSchedulerRequest { name, paused } = request.into_inner();
        let (known, mut now_paused) = self
            .0
            .read(|session, state| {
                let schedulers = explain::schedulers(&session.leader, state);
                let names: Vec<String> = schedulers.iter().map(|one| one.name.clone()).collect();
                (names, state.settings().paused_schedulers())
            })
            .await?;
        if !known.contains(&name) {
            return Err(Status::not_found(format!(
                "there is no scheduler {name}; there are {}",
                known.join(", ")
            )));
        }
        match paused {
            true => now_paused.insert(name),
            false => now_paused.remove(&name),
        };
        let value = now_paused.into_iter().collect::<Vec<_>>().join(",");
        let change = vec![(crate::core::settings::PAUSED.to_owned(), value)];
        self.change_settings_to(change).await?;
        Ok(Response::new(wire::SetSchedulerResponse {}))
    }

    async fn members(
        &self,
        request: Request<wire::MembersRequest>,
    ) -> Answered<wire::MembersResponse> {
        let wire::MembersRequest { region_id, placement } = request.into_inner();
        let now = clock::now();
        let mut members = Vec::new();
        if region_id == 0 {
            let standing = membership::standing(&self.0);
            members.extend(
                self.0
                    .read(|session, state| {
                        explain::placement_members(&session.leader, state, &standing)
                    })
                    .await?,
            );
        }
        if !placement {
            members.extend(
                self.0
                    .read(|session, state| {
                        explain::members(&session.leader, state, RegionId(region_id), now)
                    })
                    .await?
                    .map_err(Status::from)?,
            );
        }
        Ok(Response::new(wire::MembersResponse { members }))
    }

    async fn change_member(
        &self,
        request: Request<wire::ChangeMemberRequest>,
    ) -> Answered<wire::ChangeMemberResponse> {
        let request = request.into_inner();
        let (region, store) = (RegionId(request.region_id), StoreId(request.node_id));
        let action = match request.action() {
            Action::Promote => MemberAction::Promote,
            Action::Demote => MemberAction::Demote,
            Action::Hold => MemberAction::Hold,
            Action::Release => MemberAction::Release,
            Action::Cancel => MemberAction::Cancel,
            Action::Remove => MemberAction::Remove,
            Action::Replace => MemberAction::Replace { with: StoreId(request.with_node_id) },
        };
        let (force, now) = (request.force, clock::now());
        let node = NodeId(request.node_id);
        if request.preview {
            let standing = membership::standing(&self.0);
            let partners = self.0.read(|session, state| {
                let leader = &session.leader;
                match region {
                    OWN => leader.own_partners(state, &standing, node, action, force, now),
                    region => {
                        let along = leader.go_along(state, (region, store), action, force, now);
                        along.map(|stores| stores.into_iter().map(NodeId::from).collect())
                    }
                }
            });
            let partners = partners.await?.map_err(Status::from)?;
            let partner_ids = partners.iter().map(|partner| partner.0).collect();
            return Ok(Response::new(wire::ChangeMemberResponse { operator_id: 0, partner_ids }));
        }
        if region == OWN {
            membership::change(&self.0, node, action, force).await?;
            return Ok(Response::new(wire::ChangeMemberResponse::default()));
        }
        let operator_id = self
            .begin(|session, state| {
                session.leader.change_member(state, region, store, action, force, now)
            })
            .await?;
        Ok(Response::new(wire::ChangeMemberResponse { operator_id, partner_ids: Vec::new() }))
    }

    async fn change_replica(
        &self,
        request: Request<wire::ChangeReplicaRequest>,
    ) -> Answered<wire::ChangeReplicaResponse> {
        let request = request.into_inner();
        let region = region_of(request.region_id)?;
        let role = match request.analytics {
            true => ReplicaRole::Analytics,
            false => ReplicaRole::Standard,
        };
        let goal = match (request.add_store_id, request.remove_store_id) {
            (0, 0) => {
                return Err(Status::invalid_argument(
                    "name a store to add a replica on, one to remove it from, or both",
                ));
            }
            (to, 0) => Goal::AddReplica { to: StoreId(to), role },
            (0, from) => Goal::RemoveReplica { from: StoreId(from) },
            (to, from) => Goal::MoveReplica { from: StoreId(from), to: StoreId(to) },
        };
        let now = clock::now();
        let operator_id = self
            .begin(|session, state| {
                session.leader.change_replica(state, region, goal.clone(), false, now)
            })
            .await?;
        Ok(Response::new(wire::ChangeReplicaResponse { operator_id }))
    }

    async fn merge_region(
        &self,
        request: Request<wire::MergeRegionRequest>,
    ) -> Answered<wire::MergeRegionResponse> {
        let wire::MergeRegionRequest { source_id, target_id } = request.into_inner();
        let source = region_of(source_id)?;
        let into = (target_id != 0).then_some(RegionId(target_id));
        let now = clock::now();
        let mut target = RegionId(0);
        let operator_id = self
            .begin(|session, state| {
                let (id, chosen) = session.leader.merge(state, source, into, now)?;
                target = chosen;
                Ok(id)
            })
            .await?;
        Ok(Response::new(wire::MergeRegionResponse { operator_id, target_id: target.0 }))
    }

    async fn remove_store(
        &self,
        request: Request<wire::RemoveStoreRequest>,
    ) -> Answered<wire::RemoveStoreResponse> {
        let request = request.into_inner();
        let wire::RemoveStoreRequest { store_id, cancel, dead, with_store_id } = request;
        let (store, with, now) = (StoreId(store_id), StoreId(with_store_id), clock::now());
        if with != StoreId(0) && (cancel || !dead) {
            let words = "with_store_id names who takes the place of a store that is dead: set `dead`, \
                         and not `cancel`";
            return Err(Status::invalid_argument(words));
        }
        let removal = self.0.read(|session, state| match with {
            StoreId(0) => {
                let removed = session.leader.remove_store(state, store, cancel, dead, now)?;
                let (command, replicas) = removed;
                Ok(Replacement { command, replicas, elsewhere: Vec::new() })
            }
            with => session.leader.replace_store(state, store, with, now),
        });
        let removal: Result<Replacement, RemoveRefusal> = removal.await?;
        let Replacement { command, replicas, elsewhere } = removal.map_err(Status::from)?;
        match self.0.propose(&command).await? {
            Answer::Refused(words) => Err(Status::failed_precondition(words)),
            _ => {
                tracing::info!(%store, cancel, dead, with = with.0, replicas, "store changed");
                let not_to_it = elsewhere.len() as u64;
                let why = elsewhere.iter().take(SENTENCES);
                let why = why.map(|(region, why)| format!("{region}: {with} {why}")).collect();
                Ok(Response::new(wire::RemoveStoreResponse { replicas, not_to_it, why }))
            }
        }
    }

    type EventsStream = ReceiverStream<Result<wire::Event, Status>>;

    async fn events(&self, request: Request<wire::EventsRequest>) -> Answered<Self::EventsStream> {
        let wire::EventsRequest { follow, after, limit } = request.into_inner();
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let kept = self.0.read(|_, state| state.events().after(after, limit)).await?;
        let (sender, receiver) = mpsc::channel(EVENTS);
        let cluster = Arc::clone(&self.0);
        tokio::spawn(async move {
            let ended = follow::send_events(&cluster, kept, after, follow, &sender).await;
            if let Err(status) = ended {
                // Nobody may be listening any more.
                let _ = sender.send(Err(status)).await;
            }
        });
        Ok(Response::new(ReceiverStream::new(receiver)))
    }

    async fn settings(
        &self,
        _request: Request<wire::SettingsRequest>,
    ) -> Answered<wire::SettingsResponse> {
        let settings = self.0.read(|_, state| explain::settings(state)).await?;
        Ok(Response::new(wire::SettingsResponse { settings }))
    }

    async fn change_settings(
        &self,
        request: Request<wire::ChangeSettingsRequest>,
    ) -> Answered<wire::SettingsResponse> {
        let changes: Vec<(String, String)> =
            request.into_inner().settings.into_iter().map(|set| (set.name, set.value)).collect();
        if changes.is_empty() {
            return Err(Status::invalid_argument("name a setting and its value"));
        }
        self.change_settings_to(changes).await?;
        let settings = self.0.read(|_, state| explain::settings(state)).await?;
        Ok(Response::new(wire::SettingsResponse { settings }))
    }
}

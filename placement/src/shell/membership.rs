//! The members of the placement group, while it serves: who asks to join is answered, the leader
//! carries out what the lifecycles want, and a member that nobody leads finds out whether it still
//! is one.

use std::sync::Arc;
use std::time::Duration;

use quorate_consensus::node::clock;
use quorate_proto::wire::placement as wire;
use quorate_proto::{NodeId, Term};
use tokio::time::{MissedTickBehavior, interval};
use tonic::{Code, Status};

use super::cluster::Cluster;
use super::joining::{self, Asked};
use super::stalls::Stalls;
use crate::core::command::{Answer, Command, JoiningMember, Member};
use crate::core::leader::{MemberAction, OWN, OwnStep, Standing};
use crate::core::operators::Refused;

/// How often the leader looks at its group.
const LOOK: Duration = Duration::from_millis(200);
/// How long a transfer of leadership may take to show.
const TRANSFER: Duration = Duration::from_secs(2);
/// Pause before a look at whether something was replicated, and how long that is waited for.
const GLANCE: Duration = Duration::from_millis(20);
const REPLICATED: Duration = Duration::from_secs(3);
/// How often a member without a leader asks whether it still is a member.
const ASK: Duration = Duration::from_secs(5);

/// What this member knows of the others, as their Raft leader.
pub(crate) fn standing(cluster: &Cluster) -> Standing {
    let snapshots = cluster.raft().map(|raft| raft.snapshots()).unwrap_or_default();
    let sent = |peer| {
        let on_its_way =
            snapshots.iter().find(|snapshot| snapshot.sending && snapshot.peer == peer);
        on_its_way.map(|snapshot| (snapshot.bytes, snapshot.total_bytes))
    };
    Standing::of(cluster.me.id, &cluster.view, sent, clock::now())
}

/// Takes the group from step to step, in one term of this member's leadership.
pub(crate) async fn drive(cluster: &Arc<Cluster>, term: Term) {
    let mut beat = interval(LOOK);
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut stalls = Stalls::default();
    loop {
        beat.tick().await;
        let (standing, now) = (standing(cluster), clock::now());
        cluster.roster.set_stalled(stalls.look(&standing, now));
        let step = cluster
            .with_session(term, |session, state| session.leader.advance_own(state, &standing, now));
        let (what, refused) = match step.flatten() {
            None => continue,
            Some(OwnStep::Transfer { to, why }) => {
                tracing::info!(to = to.0, %why, "hands placement's leadership over");
                if let Ok(raft) = cluster.raft() {
                    raft.transfer_leader(to);
                }
                tokio::time::sleep(TRANSFER).await;
                (
                    format!("transfer leadership to placement-{}", to.0),
                    "it was not taken".to_owned(),
                )
            }
            Some(OwnStep::Change { members, command, what }) => {
                let peers = members.iter().map(|(id, role)| Member::peer(*id, *role)).collect();
                match cluster.change_members(peers, &command).await {
                    Ok(Answer::Refused(why)) => (what, why),
                    Ok(_) => {
                        tracing::info!(what, "placement's members changed");
                        continue;
                    }
                    Err(status) => (what, status.message().to_owned()),
                }
            }
        };
        tracing::debug!(what, reason = refused, "a step of placement's own group was not taken");
        cluster.with_session(term, |session, _| session.leader.own_refused(&what, &refused, now));
    }
}

/// A process asks to become a member, or whether it still is one.
///
/// # Errors
/// This member does not lead, or the rule that stands in the way.
pub(crate) async fn join(
    cluster: &Cluster,
    request: wire::JoinPlacementRequest,
) -> Result<wire::JoinPlacementResponse, Status> {
    let joining = JoiningMember {
        cluster_id: request.cluster_id,
        id: (request.member_id != 0).then_some(NodeId(request.member_id)),
        name: request.name,
        address: request.address,
        data_id: request.data_id,
    };
    let (standing, now) = (standing(cluster), clock::now());
    // The leader itself, at its new address: it runs, and nowhere else.
    let is_me = joining.id == Some(cluster.me.id) && joining.address == cluster.me.address;
    let known = cluster
        .read(|session, state| {
            let known = state.may_join_group(&joining)?;
            let leader = &mut session.leader;
            if !is_me {
                leader.may_use_member_address(state, &standing, &joining, known)?;
            }
            if let Some(id) = known {
                leader.ask_again(state, id, now);
            }
            Ok::<_, Status>(known)
        })
        .await??;
    let id = match known {
        Some(id) => id,
        None => match cluster.propose(&Command::JoinMember(joining)).await? {
            Answer::MemberJoined(id) => {
                tracing::info!(member = id.0, "asked to join the placement group");
                id
            }
            Answer::MemberRefused(refusal) => return Err(refusal.into()),
            other => return Err(Status::internal(format!("unexpected answer {other:?}"))),
        },
    };
    let members = cluster.roster.list();
    let leader = cluster.known_leader().map(|leader| leader.id);
    let member = |member: &Member| wire::MemberStatus {
        id: member.id.0,
        name: member.name.clone(),
        address: member.address.clone(),
        leader: Some(member.id) == leader,
        healthy: true,
        learner: !member.votes(),
    };
    Ok(wire::JoinPlacementResponse {
        cluster_id: cluster.cluster_id(),
        member_id: id.0,
        fingerprint: cluster.fingerprint,
        members: members.iter().map(member).collect(),
    })
}

/// Wants something of a member, once, and waits until that is replicated.
///
/// # Errors
/// This member does not lead, or the rule that stands in the way.
pub(crate) async fn change(
    cluster: &Cluster,
    node: NodeId,
    action: MemberAction,
    force: bool,
) -> Result<(), Status> {
    let (standing, now) = (standing(cluster), clock::now());
    let mut wanted = false;
    cluster
        .read(|session, state| {
            if !wanted {
                session.leader.change_own(state, &standing, node, action, force, now)?;
                wanted = true;
            }
            Ok::<(), Refused>(())
        })
        .await?
        .map_err(Status::from)?;
    let replicated = async {
        loop {
            let done =
                cluster.read(|session, state| session.leader.members().is_durable(OWN, state));
            match done.await {
                Ok(true) | Err(_) => return,
                Ok(false) => tokio::time::sleep(GLANCE).await,
            }
        }
    };
    // What is not replicated yet goes on all the same.
    let _ = tokio::time::timeout(REPLICATED, replicated).await;
    Ok(())
}

/// Has this member written down where it is now, if it is known elsewhere: a lone member, which had
/// nobody to ask before it began ([`super::start`]). Resolves with the words of a refusal alone.
pub(crate) async fn announce(cluster: &Cluster, data_id: u64) -> String {
    let mut beat = interval(LOOK);
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        beat.tick().await;
        let known = cluster.roster.list().into_iter().find(|member| member.id == cluster.me.id);
        if data_id == 0 || known.is_none_or(|known| known.address == cluster.me.address) {
            std::future::pending::<()>().await;
        }
        if !cluster.view.is_leader() {
            continue;
        }
        match join(cluster, joining::about(&cluster.me, cluster.cluster_id(), data_id)).await {
            Ok(_) => tracing::info!(address = cluster.me.address, "moved to its new address"),
            Err(status) if status.code() == Code::Unavailable => {}
            Err(status) => return status.message().to_owned(),
        }
    }
}

/// While nobody leads this member, asks the others whether it still is one. Resolves with the words
/// of the one that says it is not: a member that was taken out while it was away is told so by
/// nobody else.
pub(crate) async fn taken_out(cluster: &Cluster, data_id: u64) -> String {
    let mut beat = interval(ASK);
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        beat.tick().await;
        if cluster.view.leader().is_some() && cluster.view.silent_since().is_none() {
            continue;
        }
        let others = cluster.roster.list();
        let seeds: Vec<String> = others
            .iter()
            .filter(|member| member.id != cluster.me.id)
            .map(|member| member.address.clone())
            .collect();
        if seeds.is_empty() {
            continue;
        }
        let request = joining::about(&cluster.me, cluster.cluster_id(), data_id);
        if let Asked::Refused(Code::NotFound, words) = joining::ask(&seeds, &request).await {
            return words;
        }
    }
}

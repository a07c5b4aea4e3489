//! What the leader knows, on its way to people.

use quorate_consensus::time::Instant;
use quorate_proto::wire::placement as wire;
use quorate_proto::{Peer, RegionId, StoreId};

use crate::core::events::Event;
use crate::core::leader::{Leader, OWN, Standing};
use crate::core::lifecycle::{MAX_LAG, Record, ReplicaRole};
use crate::core::merge;
use crate::core::operators::{Operator, Refused, story};
use crate::core::schedule::SchedulerStatus;
use crate::core::state::State;
use crate::core::tree::RegionInfo;

/// Why a region is as it is.
pub(crate) fn region(
    leader: &Leader,
    state: &State,
    region: RegionId,
    now: Instant,
) -> Result<wire::ExplainRegionResponse, Refused> {
    let info = leader.tree().get(region).ok_or(Refused::UnknownRegion(region))?;
    let replicas = info.region.peers.iter().map(|peer| replica(leader, state, info, peer, now));
    let decisions = leader.history().of(region).map(|decision| wire::Decision {
        at_ms: decision.at_ms,
        by: decision.by.clone(),
        what: decision.what.clone(),
    });
    let mut decisions: Vec<wire::Decision> = decisions.collect();
    if let Some(what) = leader.merge_advice(state, region, now) {
        let (at_ms, by) = (leader.time_ms(now), "merge-checker".to_owned());
        decisions.push(wire::Decision { at_ms, by, what });
    }
    let records = leader.members().of(region);
    let load = leader.loads().of(region, now);
    let last_index = last_entry(leader, state, info, now);
    Ok(wire::ExplainRegionResponse {
        region: Some((&info.region).into()),
        replicas: replicas.collect(),
        approximate_bytes: info.stats.bytes,
        approximate_keys: info.stats.keys,
        last_index,
        target_voters: u32::try_from(leader.target(info)).unwrap_or(u32::MAX),
        state: leader.health(state, info, now),
        operator: leader.operators().of(region).map(|operator| under_way(leader, operator)),
        lifecycles: records
            .iter()
            .map(|record| lifecycle(state, region, last_index, record))
            .collect(),
        decisions,
        written_bytes_per_second: load.written_bytes as u64,
        written_keys_per_second: load.written_keys as u64,
        read_keys_per_second: load.read_keys as u64,
    })
}

/// The last entry of the leader's log as of its last report; 0 where it is not known. A region in
/// which all is settled is reported when something changes, not when something is written: what was
/// told of its log then is out of date.
fn last_entry(leader: &Leader, state: &State, info: &RegionInfo, now: Instant) -> u64 {
    let is_told = !info.progress.is_empty() && leader.group(state, info, now).leader.is_some();
    if is_told { info.last_index.0.max(info.stats.commit.0) } else { 0 }
}

fn replica(
    leader: &Leader,
    state: &State,
    info: &RegionInfo,
    peer: &Peer,
    now: Instant,
) -> wire::ReplicaStatus {
    let group = leader.group(state, info, now);
    let member = group.peer(peer.id);
    let store = state.stores().get(&peer.store);
    let (sent, total) = member.and_then(|member| member.snapshot).unwrap_or_default();
    let matched = member.and_then(|member| member.matched).map_or(0, |index| index.0);
    wire::ReplicaStatus {
        peer: Some((*peer).into()),
        leader: group.leader == Some(peer.id),
        store_state: store
            .map_or("unknown", |store| leader.stores().state(store, now).name())
            .to_owned(),
        match_index: matched.min(last_entry(leader, state, info, now)),
        snapshot_sent_bytes: sent,
        snapshot_total_bytes: total,
        silent_ms: member.map_or(0, |member| member.silent_ms),
        pending: info.pending.contains(&peer.id),
        unapplied: member.map_or(0, |member| group.unapplied(member)),
    }
}

fn operator_status(leader: &Leader, operator: &Operator) -> wire::OperatorStatus {
    let info = leader.tree().get(operator.region);
    let records = leader.members().of(operator.region);
    let story = merge::story(leader.tree(), operator)
        .or_else(|| info.map(|info| story(&operator.goal, &info.region, records)))
        .unwrap_or_default();
    wire::OperatorStatus {
        id: operator.id,
        region_id: operator.region.0,
        kind: operator.goal.kind().to_owned(),
        reason: format!("{}: {}", operator.by, operator.reason),
        steps: story.steps,
        done: u32::try_from(story.done).unwrap_or(u32::MAX),
        began_ms: operator.began_ms,
        deadline_ms: operator.deadline_ms,
        ended: String::new(),
        waits_for: String::new(),
    }
}

fn under_way(leader: &Leader, operator: &Operator) -> wire::OperatorStatus {
    let waits = leader.operator(operator.id).map(|under_way| under_way.waits_for.clone());
    wire::OperatorStatus {
        waits_for: waits.unwrap_or_default(),
        ..operator_status(leader, operator)
    }
}

/// Operators under way, and those that ended lately where that is asked for; all, or one.
pub(crate) fn operators(leader: &Leader, id: u64, ended: bool) -> Vec<wire::OperatorStatus> {
    let mut all = Vec::new();
    if ended || id != 0 {
        all.extend(leader.operators().ended().map(|over| {
            let status = operator_status(leader, &over.operator);
            wire::OperatorStatus {
                ended: over.end.to_string(),
                done: match over.end {
                    crate::core::operators::End::Done => {
                        u32::try_from(status.steps.len()).unwrap_or(u32::MAX)
                    }
                    crate::core::operators::End::Overtaken
                    | crate::core::operators::End::TimedOut
                    | crate::core::operators::End::Cancelled
                    | crate::core::operators::End::Refused(_)
                    | crate::core::operators::End::Failed(_) => status.done,
                },
                ..status
            }
        }));
    }
    all.extend(leader.operators().iter().map(|operator| under_way(leader, operator)));
    all.retain(|status| id == 0 || status.id == id);
    all
}

fn lifecycle(
    state: &State,
    region: RegionId,
    last_index: u64,
    record: &Record,
) -> wire::MemberLifecycle {
    wire::MemberLifecycle {
        region_id: region.0,
        peer_id: record.peer.0,
        node_id: record.node.0,
        state: record.state.name().to_owned(),
        role: record.role().name().to_owned(),
        since_ms: record.since_ms,
        deadline_ms: record.state.deadline_ms(&state.settings().limits()),
        reason: record.reason.clone(),
        match_index: record.pace.matched().0,
        last_index,
        held: record.held,
    }
}

/// Members on their way, of one region or (0) of all; of one region also those that vote.
pub(crate) fn members(
    leader: &Leader,
    state: &State,
    region: RegionId,
    now: Instant,
) -> Result<Vec<wire::MemberLifecycle>, Refused> {
    if region == RegionId(0) {
        let of = |(region, record): (RegionId, &Record)| {
            let info = leader.tree().get(region)?;
            Some(lifecycle(state, region, last_entry(leader, state, info, now), record))
        };
        return Ok(leader.members().iter().filter_map(of).collect());
    }
    let info = leader.tree().get(region).ok_or(Refused::UnknownRegion(region))?;
    let records = leader.members().of(region);
    let group = leader.group(state, info, now);
    let last_index = last_entry(leader, state, info, now);
    let settled = group
        .members
        .iter()
        .filter(|member| records.iter().all(|record| record.node != member.node));
    let settled = settled.map(|member| wire::MemberLifecycle {
        region_id: region.0,
        peer_id: member.peer.0,
        node_id: member.node.0,
        state: "Active".to_owned(),
        role: ReplicaRole::Standard.name().to_owned(),
        match_index: member.matched.map_or(0, |index| index.0).min(last_index),
        last_index,
        reason: group.lags_in_applying(member, MAX_LAG).unwrap_or_default(),
        ..wire::MemberLifecycle::default()
    });
    let on_their_way = records.iter().map(|record| lifecycle(state, region, last_index, record));
    Ok(settled.chain(on_their_way).collect())
}

/// The members of placement's own group, and those who wait to become some.
pub(crate) fn placement_members(
    leader: &Leader,
    state: &State,
    standing: &Standing,
) -> Vec<wire::MemberLifecycle> {
    let group = leader.own_group(state, standing);
    let records = leader.members().of(OWN);
    let last_index = group.last_index.0;
    let settled = group
        .members
        .iter()
        .filter(|member| records.iter().all(|record| record.node != member.node));
    let settled = settled.map(|member| wire::MemberLifecycle {
        peer_id: member.peer.0,
        node_id: member.node.0,
        state: "Active".to_owned(),
        role: ReplicaRole::Standard.name().to_owned(),
        match_index: member.matched.map_or(last_index, |index| index.0),
        last_index,
        reason: match member.alive {
            true => group.lags_in_applying(member, MAX_LAG).unwrap_or_default(),
            false => format!("not heard of for {} s", member.silent_ms / 1_000),
        },
        ..wire::MemberLifecycle::default()
    });
    let on_their_way = records.iter().map(|record| lifecycle(state, OWN, last_index, record));
    let mut members: Vec<wire::MemberLifecycle> = settled.chain(on_their_way).collect();
    members.sort_by_key(|member| member.node_id);
    members
}

/// The checkers and the schedulers, and whether they are paused.
pub(crate) fn schedulers(leader: &Leader, state: &State) -> Vec<wire::SchedulerStatus> {
    let paused = state.settings().paused_schedulers();
    let status = |status: &SchedulerStatus| wire::SchedulerStatus {
        name: status.name.to_owned(),
        paused: paused.contains(status.name),
        operators_begun: status.begun,
        last: status.last.clone(),
    };
    let checkers = leader.checkers().list().iter();
    checkers.chain(leader.schedulers().list()).map(status).collect()
}

/// All settings, with their defaults and what they are for.
pub(crate) fn settings(state: &State) -> Vec<wire::Setting> {
    let setting = |(known, value): (&crate::core::settings::Known, String)| wire::Setting {
        name: known.name.to_owned(),
        value,
        default_value: known.default.to_owned(),
        help: known.help.to_owned(),
    };
    state.all_settings().into_iter().map(setting).collect()
}

/// An event.
pub(crate) fn event(event: Event) -> wire::Event {
    wire::Event {
        sequence: event.sequence,
        at_ms: event.news.at_ms,
        severity: event.news.severity.name().to_owned(),
        kind: event.news.kind,
        text: event.news.text,
        region_id: event.news.region.0,
        node_id: StoreId::from(event.news.node).0,
    }
}

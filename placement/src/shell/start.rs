//! Which member this process is: a founding one by its settings, one that joins a running group,
//! or whichever its folder says.
//!
//! One that joins draws a data id first and keeps it, so that it gets the same answer whenever it
//! asks again; then it asks for its id and writes that down. It knows nothing of the group's state
//! until the leader has sent it a snapshot.
//!
//! One that joined and is started at another address asks the others to know it there before it takes
//! part in anything: they would send its mail to where it was. Its data id says that it is the one. A
//! lone member has nobody to ask but itself: see [`super::membership::announce`].

use std::net::SocketAddr;
use std::sync::Arc;

use quorate_consensus::engine::Engine;
use quorate_consensus::node::listen;
use quorate_proto::wire::placement::JoinPlacementRequest;
use quorate_proto::{NodeId, Role};

use super::disk::{self, Applied, Identity, Joined, Opened};
use super::founding::{self, Folders, Sockets};
use super::joining;
use crate::config::PlacementConfig;
use crate::core::command::Member;
use crate::core::state::State;
use crate::error::PlacementError;

/// What a member starts from.
pub(crate) struct Start {
    pub(crate) me: Member,
    pub(crate) applied: Applied,
    pub(crate) state: State,
    /// By what the members know each other (see ADR 11).
    pub(crate) fingerprint: u64,
    /// Those it was told of when it joined.
    pub(crate) told: Vec<Member>,
    /// Of its folder; 0 of a founding member.
    pub(crate) data_id: u64,
    /// The folders that its group was founded with, where that is known.
    pub(crate) folders: Folders,
}

/// Finds out; joins where that is wanted, or waits for the others at the first start of a group,
/// for as long as it takes.
///
/// # Errors
/// The folder is another member's, damaged, or not what the settings say; the group refuses.
pub(crate) async fn start(
    config: &PlacementConfig,
    engine: &Arc<dyn Engine>,
    bound: SocketAddr,
    sockets: &Sockets,
) -> Result<Start, PlacementError> {
    let known = disk::identity(engine.as_ref(), &config.data)?;
    match known {
        Some(Identity { joined: Some(mut joined), member, first }) => {
            check_joined(config, member)?;
            let address = listen::advertised(&config.advertise, bound)?;
            match member {
                NodeId(0) => {
                    joined.address = address;
                    join(config, engine, joined).await
                }
                member => joined_before(config, engine, member, joined, first, address).await,
            }
        }
        Some(Identity { joined: None, member, .. }) if !config.join.is_empty() => {
            let folder = config.data.display().to_string();
            Err(PlacementError::NotEmpty { folder, found: member.0 })
        }
        None if !config.join.is_empty() => {
            let joined = Joined {
                data_id: rand::random::<u64>().max(1),
                fingerprint: 0,
                name: config.name.clone(),
                address: listen::advertised(&config.advertise, bound)?,
            };
            disk::begin_joining(engine.as_ref(), &config.data, &joined)?;
            join(config, engine, joined).await
        }
        Some(Identity { joined: None, .. }) => founding_member(config, engine, bound),
        None => {
            let group = group_of(config, engine.as_ref(), bound)?;
            if group.len() > 1 {
                founding::found(config, engine, &group, sockets).await?;
            }
            founding_member(config, engine, bound)
        }
    }
}

async fn join(
    config: &PlacementConfig,
    engine: &Arc<dyn Engine>,
    mut joined: Joined,
) -> Result<Start, PlacementError> {
    if config.join.is_empty() {
        let folder = config.data.display().to_string();
        return Err(PlacementError::JoinBegun { folder });
    }
    let request = JoinPlacementRequest {
        cluster_id: 0,
        member_id: 0,
        name: joined.name.clone(),
        address: joined.address.clone(),
        data_id: joined.data_id,
    };
    tracing::info!(through = %config.join.join(","), "asks to join the placement group");
    let answer =
        joining::join(&config.join, &request).await.map_err(PlacementError::JoinRefused)?;
    let member = NodeId(answer.member_id);
    joined.fingerprint = answer.fingerprint;
    if joined.name.is_empty() {
        joined.name = format!("placement-{}", member.0);
    }
    let told = answer.members.into_iter().map(|told| Member {
        id: NodeId(told.id),
        name: told.name,
        address: told.address,
        role: if told.learner { Role::Learner } else { Role::Voter },
    });
    let told: Vec<Member> = told.collect();
    disk::joined(engine.as_ref(), member, &joined, &told)?;
    tracing::info!(member = member.0, members = told.len(), "waits for the group's state");
    let address = joined.address.clone();
    joined_before(config, engine, member, joined, told, address).await
}

async fn joined_before(
    config: &PlacementConfig,
    engine: &Arc<dyn Engine>,
    member: NodeId,
    mut joined: Joined,
    told: Vec<Member>,
    address: String,
) -> Result<Start, PlacementError> {
    let (applied, state) = disk::load(engine, &config.data)?;
    let me = applied.members.iter().find(|one| one.id == member).cloned();
    let me = match me {
        Some(me) => Member { address: address.clone(), ..me },
        None if applied.index.0 == 0 => {
            let (name, address) = (joined.name.clone(), address.clone());
            Member { id: member, name, address, role: Role::Learner }
        }
        None => return Err(left(config, member)),
    };
    if joined.address != address {
        let known = if applied.members.is_empty() { &told } else { &applied.members };
        let others = known.iter().filter(|one| one.id != member);
        if others.clone().any(Member::votes) {
            let others = others.map(|one| one.address.clone());
            let seeds: Vec<String> = others.chain(config.join.iter().cloned()).collect();
            let cluster_id = state.cluster().map_or(0, |cluster| cluster.id);
            ask_to_move(&seeds, cluster_id, &me, &joined).await?;
        }
        joined.address = address;
        disk::moved(engine.as_ref(), member, &joined, &told)?;
    }
    let Joined { data_id, fingerprint, .. } = joined;
    let folders = Folders::new();
    Ok(Start { me, applied, state, fingerprint, told, data_id, folders })
}

/// Asks until the leader knows this member where it is now.
async fn ask_to_move(
    seeds: &[String],
    cluster_id: u64,
    me: &Member,
    joined: &Joined,
) -> Result<(), PlacementError> {
    let request = joining::about(me, cluster_id, joined.data_id);
    tracing::info!(from = joined.address, to = me.address, "asks the group to know it there");
    joining::join(seeds, &request).await.map_err(PlacementError::MoveRefused)?;
    tracing::info!(to = me.address, "the group knows this member at its new address");
    Ok(())
}

fn check_joined(config: &PlacementConfig, member: NodeId) -> Result<(), PlacementError> {
    let folder = config.data.display().to_string();
    // 1 is what nobody set.
    if config.id != 1 && member.0 != 0 && config.id != member.0 {
        let (found, configured) = (member.0, config.id);
        return Err(PlacementError::OtherMember { folder, found, configured });
    }
    Ok(())
}

fn founding_member(
    config: &PlacementConfig,
    engine: &Arc<dyn Engine>,
    bound: SocketAddr,
) -> Result<Start, PlacementError> {
    let id = NodeId(config.id);
    let group = group_of(config, engine.as_ref(), bound)?;
    let Opened { applied, state, first } = disk::open(engine, &config.data, id, &group)?;
    let me = applied.members.iter().find(|member| member.id == id).cloned();
    let me = me.ok_or_else(|| left(config, id))?;
    if !config.advertise.is_empty() && config.advertise != me.address {
        let (joined, now) = (me.address, config.advertise.clone());
        return Err(PlacementError::AddressMoved { joined, now });
    }
    let folders = disk::folders(engine.as_ref(), &config.data)?;
    let mut fingerprint = disk::fingerprint(&first);
    // Whoever joins the group of one gets its fingerprint from it, so the number can be a part of it:
    // started with an empty folder, the first member is a stranger to the group that grew from it.
    if let ([_], Some(number)) = (first.as_slice(), folders.get(&id)) {
        fingerprint = (fingerprint ^ number).max(1);
    }
    Ok(Start { me, applied, state, fingerprint, told: Vec::new(), data_id: 0, folders })
}

/// The group that a founding member belongs to: as configured, as first started, or itself alone.
fn group_of(
    config: &PlacementConfig,
    engine: &dyn Engine,
    bound: SocketAddr,
) -> Result<Vec<Member>, PlacementError> {
    let configured = config.group().map_err(PlacementError::Config)?;
    if !configured.is_empty() {
        return Ok(configured);
    }
    if let Some(identity) = disk::identity(engine, &config.data)? {
        return Ok(identity.first);
    }
    Ok(vec![Member {
        id: NodeId(config.id),
        name: config.effective_name(),
        address: listen::advertised(&config.advertise, bound)?,
        role: Role::Voter,
    }])
}

fn left(config: &PlacementConfig, member: NodeId) -> PlacementError {
    let folder = config.data.display().to_string();
    PlacementError::Left(format!(
        "placement-{}, whose data folder is {folder}, was taken out of its placement group; start \
         it with an empty data folder and join, and it gets an id of its own",
        member.0
    ))
}

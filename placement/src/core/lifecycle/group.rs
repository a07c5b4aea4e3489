//! A group as its leader reports it.

use quorate_consensus::view::unapplied;
use quorate_proto::{LogIndex, NodeId, PeerId, RegionId, Role};

/// A member of the applied configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its process.
    pub node: NodeId,
    /// Its peer.
    pub peer: PeerId,
    /// What it may do now.
    pub role: Role,
    /// Last entry known to be durable there; `None` where the leader did not say: it is up to date
    /// or was never heard of (see `silent_ms`).
    pub matched: Option<LogIndex>,
    /// Last entry applied there, as it said last; `None` where it does not say (an older version):
    /// then only its log counts.
    pub applied: Option<LogIndex>,
    /// Of a snapshot on its way there, in bytes: sent, and all of it.
    pub snapshot: Option<(u64, u64)>,
    /// Changes whenever the queue moves in which the snapshot waits for its turn.
    pub queue: u64,
    /// Since it was last heard of, by the group's leader or by placement, whichever is longer.
    pub silent_ms: u64,
    /// True where it counts for a quorum now: its process is alive and the leader hears it.
    pub alive: bool,
    /// False where leadership should not go there: behind, stopping, or not alive.
    pub can_lead: bool,
    /// True where leadership would soon have to go elsewhere: its process leaves the cluster.
    pub leaves: bool,
    /// Groups that its process leads, or is about to lead: the fewer, the sooner it gets another.
    pub leaders: usize,
    /// Where it stands, from the widest label to the narrowest.
    pub domain: Vec<String>,
}

/// A group. See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// Which one; 0 is placement's own.
    pub id: RegionId,
    /// The version of its configuration.
    pub conf_ver: u64,
    /// Its leader, if one is known that reports.
    pub leader: Option<PeerId>,
    /// Last entry of the leader's log; 0 where it did not say.
    pub last_index: LogIndex,
    /// Last committed entry, as of the same report.
    pub committed: LogIndex,
    /// Wanted voters.
    pub target: usize,
    /// All members, roles included.
    pub members: Vec<Member>,
}

impl Group {
    /// The member on that node.
    pub fn on(&self, node: NodeId) -> Option<&Member> {
        self.members.iter().find(|member| member.node == node)
    }

    /// The member with that peer.
    pub fn peer(&self, peer: PeerId) -> Option<&Member> {
        self.members.iter().find(|member| member.peer == peer)
    }

    /// Committed entries that the member has not applied yet; 0 where it does not say.
    pub fn unapplied(&self, member: &Member) -> u64 {
        unapplied(self.committed, member.applied)
    }

    /// That the member has the log and lags in applying it by more than `most` entries, in words.
    pub fn lags_in_applying(&self, member: &Member, most: u64) -> Option<String> {
        let unapplied = self.unapplied(member);
        (unapplied > most)
            .then(|| format!("has the log but is {unapplied} entries behind in applying"))
    }

    /// The leader's member.
    pub fn led_by(&self) -> Option<&Member> {
        self.leader.and_then(|leader| self.peer(leader))
    }

    /// True in a joint configuration.
    pub fn is_joint(&self) -> bool {
        self.members.iter().any(|member| match member.role {
            Role::IncomingVoter | Role::DemotingVoter => true,
            Role::Voter | Role::Learner => false,
        })
    }

    /// Those who vote in the newer configuration.
    pub fn voters(&self) -> impl Iterator<Item = &Member> {
        self.members.iter().filter(|member| match member.role {
            Role::Voter | Role::IncomingVoter => true,
            Role::Learner | Role::DemotingVoter => false,
        })
    }

    /// Those who vote in the older configuration.
    pub fn outgoing(&self) -> impl Iterator<Item = &Member> {
        self.members.iter().filter(|member| match member.role {
            Role::Voter | Role::DemotingVoter => true,
            Role::Learner | Role::IncomingVoter => false,
        })
    }

    /// A node as people know it (see [`name`]).
    pub fn name(&self, node: NodeId) -> String {
        name(self.id, node)
    }

    /// A node of this group in a sentence: `r7 s4`, `placement-4`.
    pub fn subject(&self, node: NodeId) -> String {
        self.subjects([node])
    }

    /// Several of them: `r7 s4+s5`, `placement-4+placement-5`.
    pub fn subjects(&self, nodes: impl IntoIterator<Item = NodeId>) -> String {
        match self.id {
            RegionId(0) => self.names(nodes),
            region @ RegionId(_) => format!("{region} {}", self.names(nodes)),
        }
    }

    /// Several nodes that act together: `s4+s5`.
    pub fn names(&self, nodes: impl IntoIterator<Item = NodeId>) -> String {
        nodes.into_iter().map(|node| self.name(node)).collect::<Vec<_>>().join("+")
    }

    /// The group as people know it.
    pub fn title(&self) -> String {
        title(self.id)
    }
}

/// A node as people know it: `s4` in a region, `placement-4` in placement's own group.
pub fn name(group: RegionId, node: NodeId) -> String {
    match group {
        RegionId(0) => format!("placement-{}", node.0),
        RegionId(_) => format!("s{}", node.0),
    }
}

/// A group as people know it.
pub fn title(group: RegionId) -> String {
    match group {
        RegionId(0) => "placement".to_owned(),
        region @ RegionId(_) => region.to_string(),
    }
}

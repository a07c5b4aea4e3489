//! The placement group's own members: who may join, and who is in.
//!
//! Raft's configuration and this list change with one entry of the log. An id comes from the same
//! allocator as all others, skips those that founding members were given by hand, and is never
//! given again: whoever leaves is remembered as a candidate that left. One that joined may move to
//! another address: it says so itself, with the data id that it drew for its folder.

use std::collections::BTreeMap;

use quorate_consensus::engine::WriteBatch;
use quorate_consensus::shard::{self, check_members};
use quorate_proto::{NodeId, Role};

use super::State;
use crate::core::command::{
    Answer, Candidate, JoiningMember, MAX_WAITING, MEMBERS_SINCE, MOVES_SINCE, Member,
    MemberRefusal,
};
use crate::core::record::{self, Record};

impl State {
    /// Whether a process may become a member, or still is one, as far as the replicated state can
    /// tell: its id where nothing has to change for it.
    ///
    /// # Errors
    /// The reason to tell it.
    pub fn may_join_group(&self, joining: &JoiningMember) -> Result<Option<NodeId>, MemberRefusal> {
        let cluster = self.cluster.ok_or(MemberRefusal::NotInitialized)?;
        if joining.cluster_id != 0 && joining.cluster_id != cluster.id {
            let theirs = joining.cluster_id;
            return Err(MemberRefusal::WrongCluster { theirs, ours: cluster.id });
        }
        if joining.data_id == 0 && joining.id.is_none() {
            return Err(MemberRefusal::Incomplete("a data id, drawn once for its data folder"));
        }
        if joining.address.is_empty() {
            return Err(MemberRefusal::Incomplete("an address that others can reach it at"));
        }
        let known = self.candidates.values().find(|candidate| match joining.id {
            Some(id) => candidate.id == id,
            None => candidate.data_id == joining.data_id,
        });
        if let Some(gone) = known.filter(|candidate| candidate.left) {
            return Err(MemberRefusal::Left(gone.id));
        }
        match (joining.id, known) {
            (Some(id), Some(candidate)) if candidate.data_id != joining.data_id => {
                return Err(MemberRefusal::Unknown(id));
            }
            (Some(id), None) => {
                return match self.members.contains_key(&id) {
                    true => Ok(Some(id)),
                    false => Err(MemberRefusal::Unknown(id)),
                };
            }
            (Some(_) | None, Some(_)) | (None, None) => {}
        }
        if cluster.version < MEMBERS_SINCE {
            return Err(MemberRefusal::OldVersion);
        }
        let Some(candidate) = known else {
            return match self.waiting().count() < MAX_WAITING {
                true => Ok(None),
                false => Err(MemberRefusal::TooMany),
            };
        };
        if candidate.address == joining.address {
            return Ok(Some(candidate.id));
        }
        match self.members.get(&candidate.id) {
            Some(Member { id, address, .. }) if cluster.version < MOVES_SINCE => {
                Err(MemberRefusal::Moved { member: *id, address: address.clone() })
            }
            Some(_) | None => Ok(None),
        }
    }

    /// The member that moves with such a request: it joined with that data folder, and the others
    /// know it at another address.
    pub fn moves(&self, joining: &JoiningMember) -> Option<&Member> {
        let is_it = |known: &&Candidate| known.data_id == joining.data_id && !known.left;
        let candidate = self.candidates.values().find(is_it)?;
        self.members.get(&candidate.id).filter(|member| member.address != joining.address)
    }

    /// Processes that asked, and are not members yet.
    pub fn waiting(&self) -> impl Iterator<Item = &Candidate> {
        self.candidates
            .values()
            .filter(|candidate| !candidate.left && !self.members.contains_key(&candidate.id))
    }

    pub(super) fn join_group(
        &mut self,
        joining: JoiningMember,
        batch: &mut WriteBatch,
    ) -> Result<NodeId, MemberRefusal> {
        if let Some(id) = self.may_join_group(&joining)? {
            return Ok(id);
        }
        let known = self.candidates.values().find(|known| known.data_id == joining.data_id);
        let id = match known {
            Some(known) => known.id,
            None => self.take_member_id(batch),
        };
        let name = match joining.name.is_empty() {
            true => format!("placement-{}", id.0),
            false => joining.name,
        };
        let JoiningMember { address, data_id, .. } = joining;
        if let Some(member) = self.members.get_mut(&id) {
            member.address.clone_from(&address);
            Record::Member(member.clone()).put(batch);
        }
        let candidate = Candidate { id, name, address, data_id, left: false };
        Record::Candidate(candidate.clone()).put(batch);
        self.candidates.insert(id, candidate);
        Ok(id)
    }

    fn take_member_id(&mut self, batch: &mut WriteBatch) -> NodeId {
        loop {
            let id = NodeId(self.take_ids(1, batch));
            if !self.members.contains_key(&id) && !self.candidates.contains_key(&id) {
                return id;
            }
        }
    }

    /// One step of the group's configuration: a compare-and-set on its version.
    pub(super) fn change_members(
        &mut self,
        version: u64,
        wanted: &[(NodeId, Role)],
        batch: &mut WriteBatch,
    ) -> Answer {
        if version != self.counters.members_version {
            return Answer::Refused("the members of placement have changed meanwhile".to_owned());
        }
        let mut after = BTreeMap::new();
        for (id, role) in wanted {
            let member = match (self.members.get(id), self.candidates.get(id)) {
                (Some(member), _) => Member { role: *role, ..member.clone() },
                (None, Some(candidate)) if !candidate.left => candidate.member(*role),
                (None, Some(_) | None) => {
                    let words = format!("placement-{} is not known, or was taken out", id.0);
                    return Answer::Refused(words);
                }
            };
            after.insert(*id, member);
        }
        if let Err(rule) = check_members(&raft(&self.members), &raft(&after)) {
            return Answer::Refused(rule.to_string());
        }
        for member in self.members.values().filter(|member| !after.contains_key(&member.id)) {
            record::delete_member(batch, member.id);
            let Member { id, name, address, .. } = member.clone();
            let data_id = self.candidates.get(&id).map_or(0, |candidate| candidate.data_id);
            let gone = Candidate { id, name, address, data_id, left: true };
            Record::Candidate(gone.clone()).put(batch);
            self.candidates.insert(id, gone);
        }
        for member in after.values().filter(|member| self.members.get(&member.id) != Some(member)) {
            Record::Member(member.clone()).put(batch);
        }
        self.members = after;
        self.counters.members_version += 1;
        Record::Counters(self.counters).put(batch);
        Answer::MembersChanged
    }
}

fn raft(members: &BTreeMap<NodeId, Member>) -> Vec<shard::Member> {
    members.values().map(Member::raft).collect()
}

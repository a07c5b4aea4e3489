//! How well a region's replicas fit the rules that govern it.
//!
//! Abstract problem: a bipartite matching. On one side the replicas, on the other the places that
//! the rules offer, each rule as many as its count; a replica can take a place of its own role
//! where its store meets the rule's conditions. A largest matching is found by augmenting paths
//! (Kuhn), so that a replica which fits two rules never keeps another one out. Regions have a
//! handful of replicas; the cost does not matter.
//!
//! Places left over are what the region **lacks**. Voters left over are **misplaced** while a place
//! for voters is empty, and **surplus** where none is. Learners left over are **spare**: a standby
//! learner or a replica on its way is never surplus.

use std::collections::BTreeMap;

use quorate_proto::{Peer, Role, StoreId};

use super::{Rule, RuleRole};

/// The labels of the stores, as far as they are known.
pub trait Labels {
    /// Those of one store.
    fn labels_of(&self, store: StoreId) -> Option<&BTreeMap<String, String>>;
}

impl Labels for BTreeMap<StoreId, BTreeMap<String, String>> {
    fn labels_of(&self, store: StoreId) -> Option<&BTreeMap<String, String>> {
        self.get(&store)
    }
}

/// Which rule each replica serves, and what is left over.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fit<'a> {
    /// The rules in their order, with the replicas that serve them.
    pub served: Vec<(&'a Rule, Vec<Peer>)>,
    /// Voters that no rule wants.
    pub surplus: Vec<Peer>,
    /// Voters on stores where no rule wants them, while it wants one elsewhere.
    pub misplaced: Vec<Peer>,
    /// Learners that no rule asks for.
    pub spare: Vec<Peer>,
}

impl<'a> Fit<'a> {
    /// Rules with fewer replicas than they ask for, and how many they lack.
    pub fn lacking(&self) -> impl Iterator<Item = (&'a Rule, u32)> + '_ {
        self.served.iter().filter_map(|(rule, peers)| {
            let missing = rule.count.saturating_sub(u32::try_from(peers.len()).unwrap_or(u32::MAX));
            (missing > 0).then_some((*rule, missing))
        })
    }

    /// How many voters it lacks.
    pub fn lacking_voters(&self) -> u32 {
        let voters = self.lacking().filter(|(rule, _)| rule.role == RuleRole::Voters);
        voters.map(|(_, missing)| missing).sum()
    }

    /// True where nothing is to be done.
    pub fn is_whole(&self) -> bool {
        self.lacking().next().is_none() && self.surplus.is_empty() && self.misplaced.is_empty()
    }
}

/// What a replica counts as once the joint configuration it may be in is left.
pub fn role_of(peer: &Peer) -> RuleRole {
    match peer.role {
        Role::Voter | Role::IncomingVoter => RuleRole::Voters,
        Role::Learner | Role::DemotingVoter => RuleRole::Learners,
    }
}

/// How the replicas fit the rules. Of several that could be left over, the last ones are.
pub fn fit<'a>(rules: &'a [Rule], peers: &[Peer], labels: &impl Labels) -> Fit<'a> {
    let mut serving: Vec<Vec<usize>> = vec![Vec::new(); rules.len()];
    let mut left = Vec::new();
    for index in 0..peers.len() {
        let mut tried = vec![false; rules.len()];
        if !place(index, rules, peers, labels, &mut serving, &mut tried) {
            left.push(peers[index]);
        }
    }
    let served = rules.iter().zip(serving).map(|(rule, serving)| {
        (rule, serving.into_iter().map(|index| peers[index]).collect::<Vec<_>>())
    });
    let mut fit = Fit { served: served.collect(), ..Fit::default() };
    let lacks_voters = fit.lacking_voters() > 0;
    for peer in left {
        match role_of(&peer) {
            RuleRole::Learners => fit.spare.push(peer),
            RuleRole::Voters if lacks_voters => fit.misplaced.push(peer),
            RuleRole::Voters => fit.surplus.push(peer),
        }
    }
    fit
}

/// Finds a place for a replica, moving others to other places where that helps.
fn place(
    index: usize,
    rules: &[Rule],
    peers: &[Peer],
    labels: &impl Labels,
    serving: &mut Vec<Vec<usize>>,
    tried: &mut [bool],
) -> bool {
    let peer = &peers[index];
    let allowed = |rule: &Rule| {
        rule.role == role_of(peer)
            && labels.labels_of(peer.store).is_some_and(|labels| rule.allows(labels))
    };
    for at in 0..rules.len() {
        if tried[at] || !allowed(&rules[at]) {
            continue;
        }
        tried[at] = true;
        if serving[at].len() < rules[at].count as usize {
            serving[at].push(index);
            return true;
        }
        for seat in 0..serving[at].len() {
            let seated = serving[at][seat];
            if place(seated, rules, peers, labels, serving, tried) {
                serving[at][seat] = index;
                return true;
            }
        }
    }
    false
}

/// True where the rules want one more replica of that role beside `others`, and on that store.
pub fn wants<'a>(
    rules: &[Rule],
    role: RuleRole,
    others: impl Iterator<Item = &'a Peer>,
    store: StoreId,
    labels: &impl Labels,
) -> bool {
    let Some(its_labels) = labels.labels_of(store) else { return false };
    let mut others = others.filter(|peer| role_of(peer) == role);
    let mut mine = rules.iter().filter(|rule| rule.role == role);
    // By far the most common: one rule, any store.
    if let (Some(rule), None) = (mine.next(), mine.next())
        && rule.conditions.is_empty()
    {
        return others.nth(rule.count as usize - 1).is_none();
    }
    if !rules.iter().any(|rule| rule.role == role && rule.allows(its_labels)) {
        return false;
    }
    let raft_role = match role {
        RuleRole::Voters => Role::Voter,
        RuleRole::Learners => Role::Learner,
    };
    let served = |peers: &[Peer]| -> usize {
        fit(rules, peers, labels).served.iter().map(|(_, peers)| peers.len()).sum()
    };
    let mut with: Vec<Peer> = others.copied().collect();
    let before = served(&with);
    with.push(Peer { id: quorate_proto::PeerId(0), store, role: raft_role });
    served(&with) > before
}

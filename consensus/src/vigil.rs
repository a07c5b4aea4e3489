//! How fresh sleeping groups are: what beats say about them.
//!
//! A group that sleeps sends nothing, so its leader's process vouches for it with every beat. Being
//! silent is no proof that nobody else leads, so a beat counts only once a majority has confirmed
//! it:
//!
//! 1. The leader's process reads placement's clock, then the number that stands for the groups
//!    which it leads and which sleep (see [`Sleepers`]), and sends both with a beat.
//! 2. A receiver whose own number is equal had all these groups asleep under that leader, in the
//!    same terms, after the beat was sent. It says so with its next beat.
//! 3. When the processes of a majority of a group's voters have confirmed beats that were sent at
//!    time `t` or later, no other leader had been elected by `t`: one of them would have had to
//!    vote, in a later term. So nothing was written by `t` that the sleeping replicas do not have.
//! 4. The leader's process tells, with its beats, when each other process last confirmed one. Any
//!    replica whose number was equal to that of such a beat computes `t` from its group's voters.
//!
//! What was known of a group when it woke up stays true, as long as no newer beat takes its place.
//!
//! No clock but placement's is compared, and nobody's promise to keep still is relied upon.

use std::collections::{BTreeMap, VecDeque};

use quorate_proto::NodeId;
use quorate_proto::wire::peer::{Beat, Vouch};

use crate::sleepers::Sleepers;
use crate::time::Instant;
use crate::view::Slept;

/// Beats whose confirmation may still come.
const KEPT: usize = 128;

/// What is known of a leader's process and those who follow it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Vouched {
    /// Processes, and the time by placement's clock (ms) up to which each is known to have had the
    /// leader's sleeping groups asleep.
    pub times: Vec<(NodeId, u64)>,
    /// When this was heard, by the local clock.
    pub heard: Instant,
}

/// See the module.
#[derive(Debug)]
pub struct Vigil {
    me: NodeId,
    incarnation: u64,
    sequence: u64,
    /// Beats sent: sequence, placement's time read before, comparison.
    sent: VecDeque<(u64, u64, u64)>,
    /// The newest of our beats that each process has confirmed: placement's time, comparison.
    confirmed: BTreeMap<NodeId, (u64, u64, Instant)>,
    /// The newest beat of each process that we confirm: incarnation, sequence.
    confirms: BTreeMap<NodeId, (u64, u64)>,
    /// The newest beat of each process with an equal number: comparison, what it said.
    heard: BTreeMap<NodeId, (u64, Vouched)>,
}

impl Vigil {
    /// `incarnation` as in the beats.
    pub fn new(me: NodeId, incarnation: u64) -> Self {
        Self {
            me,
            incarnation,
            sequence: 0,
            sent: VecDeque::new(),
            confirmed: BTreeMap::new(),
            confirms: BTreeMap::new(),
            heard: BTreeMap::new(),
        }
    }

    /// The beats of a round, one for each process in `to`. `time_ms`: placement's clock, never
    /// ahead of it and read before this call; 0 where it is not known.
    pub fn beats(
        &mut self,
        to: &[NodeId],
        time_ms: u64,
        now: Instant,
        sleepers: &Sleepers,
    ) -> Vec<(NodeId, Beat)> {
        self.sequence += 1;
        let round = sleepers.round();
        let led: Vec<u64> = to.iter().map(|node| sleepers.led(*node)).collect();
        // One that woke up in between may not have been counted: nothing is claimed this time.
        let time_ms = if sleepers.is_undisturbed(round) { time_ms } else { 0 };
        if self.sent.len() == KEPT {
            self.sent.pop_front();
        }
        self.sent.push_back((self.sequence, time_ms, round));
        if time_ms > 0 {
            self.confirmed.insert(self.me, (time_ms, round, now));
        }
        let vouch = |(node, (time_ms, _, _)): (&NodeId, &(u64, u64, Instant))| Vouch {
            node: node.0,
            time_ms: *time_ms,
        };
        let vouches: Vec<Vouch> = self.confirmed.iter().map(vouch).collect();
        let beat = |(node, sleepers): (&NodeId, u64)| {
            let (echo_incarnation, echo_sequence) =
                self.confirms.get(node).copied().unwrap_or_default();
            let beat = Beat {
                incarnation: self.incarnation,
                sequence: self.sequence,
                sleepers,
                echo_incarnation,
                echo_sequence,
                vouches: vouches.clone(),
            };
            (*node, beat)
        };
        to.iter().zip(led).map(beat).collect()
    }

    /// A beat came.
    pub fn heard(&mut self, from: NodeId, beat: &Beat, now: Instant, sleepers: &Sleepers) {
        if beat.echo_incarnation == self.incarnation
            && let Some((_, time_ms, round)) =
                self.sent.iter().find(|(sequence, _, _)| *sequence == beat.echo_sequence)
            && *time_ms > 0
        {
            self.confirmed.insert(from, (*time_ms, *round, now));
        }
        let round = sleepers.round();
        // One that woke up in between may not have been counted: the next beat will tell.
        if sleepers.followed(from) != beat.sleepers || !sleepers.is_undisturbed(round) {
            return;
        }
        self.confirms.insert(from, (beat.incarnation, beat.sequence));
        let times = beat.vouches.iter().map(|vouch| (NodeId(vouch.node), vouch.time_ms));
        self.heard.insert(from, (round, Vouched { times: times.collect(), heard: now }));
    }

    /// What is known of the groups that a process leads, for one that slept here then.
    pub fn vouched(&self, slept: Slept) -> Option<Vouched> {
        if slept.leader != self.me {
            let (round, vouched) = self.heard.get(&slept.leader)?;
            return slept.was_seen_by(*round).then(|| vouched.clone());
        }
        let seen = self.confirmed.iter().filter(|(_, (_, round, _))| slept.was_seen_by(*round));
        let times: Vec<(NodeId, u64)> = seen.map(|(node, (time, _, _))| (*node, *time)).collect();
        let heard = self.confirmed.get(&self.me).map(|(_, _, heard)| *heard)?;
        Some(Vouched { times, heard })
    }
}

/// The time up to which a majority of `voters` is known to have slept; 0 where none is.
pub fn agreed(times: &[(NodeId, u64)], voters: &[NodeId]) -> u64 {
    let of = |voter: &NodeId| times.iter().find(|(node, _)| node == voter).map_or(0, |(_, t)| *t);
    let mut known: Vec<u64> = voters.iter().map(of).collect();
    known.sort_unstable_by(|a, b| b.cmp(a));
    known.get(voters.len() / 2).copied().unwrap_or(0)
}

#[cfg(test)]
#[path = "vigil_tests.rs"]
#[allow(clippy::unwrap_used)]
mod tests;

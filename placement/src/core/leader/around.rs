//! The look at everything that is worth an event, once a second: stores, regions without a leader
//! or a quorum, the network between stores, and what would be too much to tell one by one.

use std::collections::BTreeMap;

use quorate_consensus::time::Instant;
use quorate_proto::StoreId;

use super::Leader;
use super::look::living_votes;
use crate::core::state::State;
use crate::core::stores::StoreState;

impl Leader {
    /// Tells what changed with stores, leaders and quorums.
    pub(super) fn look_around(&mut self, state: &State, now: Instant) {
        let now_ms = self.time_ms(now);
        let mut news = Vec::new();
        for store in state.stores().values() {
            let doing = self.stores.state(store, now);
            news.extend(self.watch.store(store.id, doing, now_ms));
            if let Some(heard) = self.stores.last(store.id) {
                let process = (heard.incarnation, heard.stats);
                news.extend(self.watch.compacted(store.id, process, now_ms));
            }
        }
        news.extend(self.watch.leaders(now_ms));
        let mut heard_at = BTreeMap::new();
        for store in state.stores().values() {
            let up = match self.stores.state(store, now) {
                StoreState::Up | StoreState::Leaving => self.stores.is_alive(store.id, now),
                StoreState::Joining | StoreState::Suspect | StoreState::Down | StoreState::Left => {
                    false
                }
            };
            if let Some(heard) = self.stores.last(store.id).filter(|_| up) {
                heard_at.insert(store.id, heard.at);
            }
        }
        let heard_at = |store: StoreId| heard_at.get(&store).copied();
        news.extend(self.partitions.look(heard_at, now_ms));
        let serving = self.serving(state, now);
        for info in self.tree.iter() {
            let led = info.led && info.leader.is_some_and(|leader| serving.contains(&leader.store));
            let votes = living_votes(info, &serving);
            news.extend(self.watch.region(info.region.id, led, votes, now_ms));
            news.extend(self.watch.joint(info.region.id, info.is_joint(), now_ms));
            self.watch.stopped(info.region.id, info.merging.is_some(), now_ms);
        }
        news.into_iter().for_each(|news| self.journal.tell(news));
    }
}

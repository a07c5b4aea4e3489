//! The scheduler *evict-leader*: takes the leaders off stores that shall lead nothing.
//!
//! Abstract problem: some stores are marked; every leader on them shall move to an unmarked store
//! that holds an up-to-date voter of its region. Wanted: none left, soon, and spread well.
//!
//! Marked are stores that leave the cluster, that stop, or that somebody has marked. Each leader
//! goes to the eligible store that expects the fewest. Every move lowers the number of leaders on
//! marked stores, and no scheduler ever moves one there, so planning ends.

use quorate_proto::StoreId;

use super::sheet::{MAX_EVICTIONS, Sheet};
use crate::core::operators::Goal;
use crate::core::stores::StoreState;
use crate::core::view::{ClusterView, StoreView};

/// The scheduler's name.
pub const NAME: &str = "evict-leader";

/// Why a store shall lead nothing, where it says so itself.
fn leaves(store: &StoreView) -> Option<&'static str> {
    if store.stopping {
        return Some("stops");
    }
    match store.state {
        StoreState::Leaving => Some("leaves"),
        StoreState::Joining
        | StoreState::Up
        | StoreState::Suspect
        | StoreState::Down
        | StoreState::Left => None,
    }
}

/// Stores that shall lead nothing by what they say of themselves.
pub(super) fn leaving(view: &ClusterView) -> impl Iterator<Item = StoreId> + '_ {
    view.stores.iter().filter(|(_, store)| leaves(store).is_some()).map(|(id, _)| *id)
}

/// Drafts transfers; what it did, or why it did nothing.
pub(super) fn plan(sheet: &mut Sheet<'_>) -> String {
    if sheet.no_leaders.is_empty() {
        return "every store may lead".to_owned();
    }
    let view = sheet.view;
    let (mut moved, mut stuck) = (0, 0);
    for from in sheet.no_leaders {
        let Some(store) = view.stores.get(from) else { continue };
        let why = leaves(store).unwrap_or("shall lead nothing");
        for region in view.led_by(*from) {
            let info = &region.info;
            if !sheet.is_free(info) || sheet.transfers_left(MAX_EVICTIONS) == 0 {
                continue;
            }
            let able = sheet.leading_stores().filter(|id| info.can_lead_on(*id));
            let Some(to) = able.min_by_key(|id| (sheet.tallies.of(*id).leaders, *id)) else {
                stuck += 1;
                continue;
            };
            let goal = Goal::TransferLeader { from: *from, to };
            sheet.draft(NAME, info, goal, format!("{from} {why}"));
            moved += 1;
        }
    }
    let marked: Vec<String> = sheet.no_leaders.iter().map(StoreId::to_string).collect();
    let marked = marked.join(", ");
    match (moved, stuck) {
        (0, 0) => format!("{marked} lead nothing that could be moved now"),
        (0, stuck) => format!(
            "{stuck} regions led by {marked} have no other voter that is up to date on a store \
             that may lead"
        ),
        (moved, _) => format!("moves {moved} leaders off {marked}"),
    }
}

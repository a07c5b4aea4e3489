//! Who goes along: voters leave in pairs.

use quorate_proto::NodeId;

use super::group::Group;
use super::limits::Limits;
use super::{CannotBe, Record, Wish, wish};

/// Who goes, or stops to vote, together with those that the wish names. Nothing is changed.
///
/// # Errors
/// Why the wish cannot be.
pub fn partners(
    group: &Group,
    records: &[Record],
    wanted: &Wish,
    limits: &Limits,
    now_ms: u64,
) -> Result<Vec<NodeId>, CannotBe> {
    let named = match wanted {
        Wish::Remove { node, .. } => vec![*node],
        Wish::Demote { nodes, .. } => nodes.clone(),
        // These name everybody.
        Wish::Add { .. } | Wish::Move { .. } | Wish::Promote { .. } => return Ok(Vec::new()),
    };
    let after = wish(group, records, wanted, 0, limits, now_ms)?;
    let goes = |record: &&Record| {
        let before = records.iter().find(|before| before.node == record.node);
        before.map(|before| before.aim) != Some(record.aim) && !named.contains(&record.node)
    };
    Ok(after.iter().filter(goes).map(|record| record.node).collect())
}

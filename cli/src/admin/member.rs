//! `quorate member …`: how replicas and placement members join, are promoted, wait and leave.

use std::time::SystemTime;

use quorate_proto::RegionId;
use quorate_proto::wire::placement::change_member_request::Action;
use quorate_proto::wire::placement::{
    ChangeMemberRequest, Event, EventsRequest, MemberLifecycle, MembersRequest,
};
use serde_json::{Value, json};

use super::events;
use super::id::{Group, Target, group, target};
use crate::cluster::find::Connection;
use crate::exit::{Failure, Outcome};
use crate::output::{self, Table};

/// Members on their way. A member is written as r7/s4 (the replica of region r7 on store s4) or
/// placement/4 (the placement member 4).
#[derive(Clone, Debug, clap::Subcommand)]
pub(crate) enum MemberCommand {
    /// List lifecycles: state, how far it is, since when, why
    List {
        /// Only those of a group: r7 or placement
        #[arg(value_parser = group)]
        group: Option<Group>,
        #[command(flatten)]
        shape: output::Shape,
        #[command(flatten)]
        connection: Connection,
    },
    /// Tell every transition as it happens
    Watch {
        /// Only those of a group: r7 or placement
        #[arg(value_parser = group)]
        group: Option<Group>,
        #[command(flatten)]
        shape: output::Shape,
        #[command(flatten)]
        connection: Connection,
    },
    /// Make a learner a voter, as soon as the rules allow it
    Promote(Change),
    /// Make a voter a learner
    Demote(Change),
    /// Let it go no further until it is released
    Hold(Change),
    /// Let a held one go on
    Release(Change),
    /// Give up its way: it ends as a learner, or not there at all
    Cancel(Change),
    /// Take it out of its group
    Remove(Change),
    /// Let another one take its place
    Replace {
        #[command(flatten)]
        change: Change,
        /// The store, or the placement member, that takes its place: s5, placement/5 or 5
        #[arg(long, value_name = "ID", value_parser = node)]
        with: u64,
    },
}

/// Which member, and how.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Change {
    /// The member: r7/s4 or placement/4
    #[arg(value_parser = target)]
    member: Target,
    /// Override rules that a person may override; never those that keep data safe
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    shape: output::Shape,
    #[command(flatten)]
    connection: Connection,
}

fn node(text: &str) -> Result<u64, String> {
    let number = text.strip_prefix("placement/").or(text.strip_prefix('s')).unwrap_or(text);
    let number = number.parse();
    number.map_err(|_| "a store is written as s5, a placement member as placement/5".to_owned())
}

/// Runs the command.
///
/// # Errors
/// Nobody answers, or a rule stands in the way.
pub(crate) async fn member(command: MemberCommand) -> Outcome {
    let (action, change, with) = match command {
        MemberCommand::List { group, shape, connection } => {
            let placement = connection.placement_client().await?;
            let members = placement.lifecycles(asked(group)).await?;
            return output::emit(&table(&members, SystemTime::now()).render(shape.format()));
        }
        MemberCommand::Watch { group, shape, connection } => {
            let placement = connection.placement_client().await?;
            let format = shape.format();
            let request = EventsRequest { follow: true, after: 0, limit: 1 };
            let mut first = true;
            return events::follow(&placement, request, |event| {
                // The newest kept one tells from where on to listen.
                let old = std::mem::take(&mut first)
                    && output::ago(event.at_ms, SystemTime::now()).as_secs() > 60;
                if !old && is_about(event, group) {
                    output::emit(&events::line(event, format))?;
                }
                Ok(true)
            })
            .await;
        }
        MemberCommand::Promote(change) => (Action::Promote, change, 0),
        MemberCommand::Demote(change) => (Action::Demote, change, 0),
        MemberCommand::Hold(change) => (Action::Hold, change, 0),
        MemberCommand::Release(change) => (Action::Release, change, 0),
        MemberCommand::Cancel(change) => (Action::Cancel, change, 0),
        MemberCommand::Remove(change) => (Action::Remove, change, 0),
        MemberCommand::Replace { change, with } => (Action::Replace, change, with),
    };
    let (region_id, node_id) = change.member.wire();
    if action == Action::Replace && with == node_id {
        return Err(Failure::error(format!(
            "{} cannot take its own place: name another one with --with",
            change.member
        )));
    }
    let request = ChangeMemberRequest {
        region_id,
        node_id,
        action: action.into(),
        with_node_id: with,
        force: change.force,
        preview: false,
    };
    let placement = change.connection.placement_client().await?;
    let along = placement.member_partners(request).await?;
    if !along.is_empty() {
        output::note(&go_along(region_id, &change.member, &along));
    }
    let operator = placement.change_member(request).await?;
    let words = match action {
        Action::Promote => "is promoted once it is ready",
        Action::Demote => "becomes a learner",
        Action::Hold => "is held",
        Action::Release => "goes on",
        Action::Cancel => "is given up",
        Action::Remove => "is taken out",
        Action::Replace => "is replaced",
    };
    if region_id == 0 && !matches!(action, Action::Hold | Action::Release) {
        // Placement's own group has no operators.
        output::note(&format!("{} {words}; see `quorate member watch placement`", change.member));
        return Ok(());
    }
    super::operator::accepted(
        operator,
        &format!("{} {words}", change.member),
        change.shape.format(),
    )
}

/// Who else is touched, said before it is.
fn go_along(region_id: u64, member: &Target, along: &[u64]) -> String {
    let names: Vec<String> =
        along.iter().map(|node| Target::of(region_id, *node).to_string()).collect();
    format!(
        "{member} takes {} along: voters go in pairs, so that their number stays odd",
        names.join(" and ")
    )
}

fn asked(group: Option<Group>) -> MembersRequest {
    match group {
        None => MembersRequest { region_id: 0, placement: false },
        Some(Group::Placement) => MembersRequest { region_id: 0, placement: true },
        Some(Group::Region(region)) => MembersRequest { region_id: region.get(), placement: false },
    }
}

/// True for a transition of a member of that group.
fn is_about(event: &Event, group: Option<Group>) -> bool {
    let of_group = match group {
        None => true,
        Some(Group::Placement) => event.region_id == 0,
        Some(Group::Region(RegionId(region))) => event.region_id == region,
    };
    of_group && event.kind.starts_with("member-")
}

/// Lifecycles as rows.
pub(super) fn table(members: &[MemberLifecycle], now: SystemTime) -> Table {
    let mut table = Table::new(&[
        "member", "replica", "state", "role", "match", "behind", "since", "held", "reason",
    ]);
    for member in members {
        let (last, reached) = (member.last_index, member.match_index);
        table.push(vec![
            json!(Target::of(member.region_id, member.node_id).to_string()),
            json!(format!("p{}", member.peer_id)),
            json!(member.state),
            json!(member.role),
            if reached == 0 { Value::Null } else { json!(reached) },
            if reached == 0 { Value::Null } else { json!(last.saturating_sub(reached)) },
            match member.since_ms {
                0 => Value::Null,
                since => json!(format!("{} ago", output::time(output::ago(since, now)))),
            },
            json!(if member.held { "held" } else { "" }),
            json!(member.reason),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::Format;

    #[test]
    fn a_lifecycle_is_a_row() {
        let member = MemberLifecycle {
            region_id: 7,
            peer_id: 19,
            node_id: 4,
            state: "Pairing".to_owned(),
            role: "standard".to_owned(),
            reason: "voters 3, target 5".to_owned(),
            match_index: 1_200,
            last_index: 1_250,
            since_ms: 1_000,
            ..MemberLifecycle::default()
        };
        let now = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(4);
        let placement = MemberLifecycle { region_id: 0, held: true, ..member.clone() };
        assert_eq!(
            table(&[member, placement], now).render(Format::Plain),
            "r7/s4\tp19\tPairing\tstandard\t1200\t50\t3.00 s ago\t-\tvoters 3, target 5\n\
             placement/4\tp19\tPairing\tstandard\t1200\t50\t3.00 s ago\theld\tvoters 3, target 5\n"
        );
    }

    #[test]
    fn whoever_goes_along_is_named() {
        let words = go_along(7, &Target::of(7, 4), &[5]);
        assert!(words.starts_with("r7/s4 takes r7/s5 along"), "{words}");
        let words = go_along(0, &Target::of(0, 4), &[5]);
        assert!(words.starts_with("placement/4 takes placement/5 along"), "{words}");
    }

    #[test]
    fn a_watcher_hears_of_members_of_the_group() {
        let event =
            |kind: &str, region_id| Event { kind: kind.to_owned(), region_id, ..Event::default() };
        let seven = Some(Group::Region(RegionId(7)));
        assert!(is_about(&event("member-ready", 7), seven));
        assert!(is_about(&event("member-ready", 7), None));
        assert!(!is_about(&event("member-ready", 8), seven));
        assert!(!is_about(&event("leader-lost", 7), seven));
        assert!(is_about(&event("member-ready", 0), Some(Group::Placement)));
        assert_eq!(node("s5"), Ok(5));
        assert_eq!(node("placement/5"), Ok(5));
    }
}

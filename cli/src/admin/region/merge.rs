//! `quorate region merge`: has one region taken in by its neighbour, and shows what happens.

use std::time::Duration;

use quorate_client::{Error, PlacementClient};
use quorate_proto::RegionId;
use quorate_proto::wire::placement::OperatorStatus;
use serde_json::json;

use super::super::operator;
use super::Common;
use crate::exit::{Failure, Outcome};
use crate::output::{self, Format};

/// Pause between two looks at what has become of it.
const GLANCE: Duration = Duration::from_millis(100);

/// What is asked for.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct MergeArgs {
    /// The region that is taken in: 17 or r17
    #[arg(value_parser = super::region_id)]
    source: RegionId,
    /// The neighbour that takes it in; without it the one that suits best
    #[arg(long, value_name = "REGION", value_parser = super::region_id)]
    into: Option<RegionId>,
    /// Do not wait until it is done
    #[arg(long, conflicts_with = "cancel")]
    no_wait: bool,
    /// Give up the merge of this region that is under way: if it is stopped, it goes on
    #[arg(long, conflicts_with = "into")]
    cancel: bool,
    #[command(flatten)]
    common: Common,
}

/// Runs the command.
///
/// # Errors
/// Nobody answers, placement refuses, or the merge did not come about.
pub(super) async fn merge(args: MergeArgs) -> Outcome {
    let MergeArgs { source, into, no_wait, cancel, common } = args;
    let placement = common.connection.placement_client().await?;
    if cancel {
        return give_up(&placement, source).await;
    }
    let (id, target) = placement.merge_region(source, into).await?;
    let format = common.shape.format();
    if no_wait {
        return operator::accepted(id, &format!("{target} is to take {source} in"), format);
    }
    output::note(&format!("{target} is to take {source} in (operator {id})"));
    let ended = follow(&placement, id, source).await?;
    let came_about = match &ended {
        None => true,
        Some(ended) => match ended.kind.as_str() {
            "merge" => ended.ended == "done",
            // It came too late: the other region has the keys.
            _ => placement.get_region_by_id(source).await?.is_none(),
        },
    };
    if came_about {
        return match format {
            Format::Json => output::emit(&format!(
                "{}\n",
                json!({ "operator": id, "source": source.to_string(), "target": target.to_string() })
            )),
            Format::Table | Format::Plain => {
                output::note(&format!("{target} took {source} in"));
                output::emit(&format!("{target}\n"))
            }
        };
    }
    let why = ended.map(|ended| ended.reason).unwrap_or_default();
    Err(Failure::error(format!(
        "{target} did not take {source} in ({why}); see `quorate region explain {source}`"
    )))
}

/// Tells each step once, until the operator has ended. `None` where another leader of placement does
/// not know it any more and the region is gone.
async fn follow(
    placement: &PlacementClient,
    id: u64,
    source: RegionId,
) -> Outcome<Option<OperatorStatus>> {
    let mut told = String::new();
    loop {
        let status = match placement.operators(id, true).await {
            Ok(operators) => operators.into_iter().find(|operator| operator.id == id),
            Err(Error::Refused { .. }) => None,
            Err(error) => return Err(error.into()),
        };
        let Some(status) = status else {
            return match placement.get_region_by_id(source).await? {
                None => Ok(None),
                Some(_) => Err(Failure::error(format!(
                    "operator {id} has ended, and placement's new leader does not know how; see \
                     `quorate region explain {source}`"
                ))),
            };
        };
        if !status.ended.is_empty() {
            return Ok(Some(status));
        }
        let now = step(&status);
        if now != told {
            output::note(&now);
            told = now;
        }
        tokio::time::sleep(GLANCE).await;
    }
}

fn step(status: &OperatorStatus) -> String {
    let number = status.done as usize;
    let step = status.steps.get(number).map_or("", String::as_str);
    let waits = match status.waits_for.is_empty() {
        true => String::new(),
        false => format!(" (waits for {})", status.waits_for),
    };
    format!("step {} of {}: {step}{waits}", number + 1, status.steps.len())
}

async fn give_up(placement: &PlacementClient, source: RegionId) -> Outcome {
    let operators = placement.operators(0, false).await?;
    let merge = operators
        .iter()
        .find(|operator| operator.region_id == source.get() && operator.kind == "merge");
    let Some(merge) = merge else {
        return Err(Failure::error(format!(
            "no merge of {source} is under way: see `quorate operator list`"
        )));
    };
    placement.cancel_operator(merge.id).await?;
    output::note(&format!("the merge of {source} is given up; if it was stopped, it goes on"));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_is_told_with_what_it_waits_for() {
        let mut status = OperatorStatus {
            steps: vec!["r7 stops".to_owned(), "every replica of r7 has its log".to_owned()],
            done: 1,
            ..OperatorStatus::default()
        };
        assert_eq!(step(&status), "step 2 of 2: every replica of r7 has its log");
        status.waits_for = "s3".to_owned();
        assert_eq!(step(&status), "step 2 of 2: every replica of r7 has its log (waits for s3)");
    }
}

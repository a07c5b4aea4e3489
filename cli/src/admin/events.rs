//! `quorate events`: what happened in the cluster, and what happens now.
//!
//! Placement keeps the last events. A follower that loses the member it listens to asks the next
//! leader for what came after the last event it has seen, so that none is missed or told twice.

use std::time::Duration;

use quorate_client::PlacementClient;
use quorate_proto::wire::placement::{Event, EventsRequest};
use serde_json::{Value, json};

use crate::cluster::find::Connection;
use crate::exit::{Failure, Outcome};
use crate::output::{self, Format, Table};

/// Between two attempts to listen.
const PAUSE: Duration = Duration::from_millis(500);
/// Attempts in a row without an event before a follower gives up.
const ATTEMPTS: u32 = 20;

/// Lists events.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct EventsArgs {
    /// Go on with new ones as they come
    #[arg(short, long)]
    follow: bool,
    /// Most kept ones, the newest of them
    #[arg(long, value_name = "COUNT", default_value_t = 100)]
    limit: u32,
    #[command(flatten)]
    shape: output::Shape,
    #[command(flatten)]
    connection: Connection,
}

/// Runs the command.
///
/// # Errors
/// Nobody answers.
pub(crate) async fn events(args: &EventsArgs) -> Outcome {
    let placement = args.connection.placement_client().await?;
    let mut shown = Shown { format: args.shape.format(), follow: args.follow };
    let request = EventsRequest { follow: args.follow, after: 0, limit: args.limit.max(1) };
    if args.follow {
        return follow(&placement, request, |event| shown.one(event).map(|()| true)).await;
    }
    let mut kept = Vec::new();
    let mut stream = placement.events(request).await?;
    while let Some(event) = stream.message().await.map_err(broken)? {
        kept.push(event);
    }
    shown.all(&kept)
}

fn broken(status: impl std::fmt::Display) -> Failure {
    Failure::unavailable(format!("placement stopped to tell events: {status}; ask again"))
}

/// Hands every event to `take`, until that says false.
///
/// # Errors
/// Nobody answers any more, or `take` fails.
pub(crate) async fn follow(
    placement: &PlacementClient,
    mut request: EventsRequest,
    mut take: impl FnMut(&Event) -> Outcome<bool>,
) -> Outcome {
    let mut attempts = 0;
    loop {
        let mut stream = placement.events(request).await?;
        let ended = loop {
            match stream.message().await {
                Ok(Some(event)) => {
                    // Sequence 0 keeps the stream alive and tells nothing.
                    if event.sequence <= request.after {
                        continue;
                    }
                    attempts = 0;
                    request.after = event.sequence;
                    if !take(&event)? {
                        return Ok(());
                    }
                }
                Ok(None) => break "the member that told them ended".to_owned(),
                Err(status) => break status.message().to_owned(),
            }
        };
        // From here on only what is missing, all of it.
        request.limit = 0;
        attempts += 1;
        if attempts >= ATTEMPTS {
            return Err(broken(ended));
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Events on stdout.
struct Shown {
    format: Format,
    follow: bool,
}

impl Shown {
    fn all(&mut self, events: &[Event]) -> Outcome {
        let mut table = Table::new(&["at", "severity", "event", "what"]);
        events.iter().for_each(|event| table.push(row(event)));
        output::emit(&match self.format {
            Format::Json => {
                format!("{}\n", Value::Array(events.iter().map(object).collect()))
            }
            Format::Table | Format::Plain => table.render(self.format),
        })
    }

    /// One as it comes: a line of its own in every shape.
    fn one(&mut self, event: &Event) -> Outcome {
        debug_assert!(self.follow, "only a follower sees events one by one");
        output::emit(&line(event, self.format))
    }
}

/// One event as a line.
pub(super) fn line(event: &Event, format: Format) -> String {
    match format {
        Format::Json => format!("{}\n", object(event)),
        Format::Plain => {
            let mut table = Table::new(&["at", "severity", "event", "what"]);
            table.push(row(event));
            table.render(Format::Plain)
        }
        Format::Table => {
            let Event { at_ms, severity, kind, text, .. } = event;
            format!("{}  {severity:<8}  {kind:<18}  {text}\n", output::moment(*at_ms))
        }
    }
}

fn row(event: &Event) -> Vec<Value> {
    vec![
        json!(output::moment(event.at_ms)),
        json!(event.severity),
        json!(event.kind),
        json!(event.text),
    ]
}

fn object(event: &Event) -> Value {
    json!({
        "sequence": event.sequence,
        "at": output::moment(event.at_ms),
        "severity": event.severity,
        "event": event.kind,
        "what": event.text,
        "region": if event.region_id == 0 { Value::Null } else { json!(format!("r{}", event.region_id)) },
        "node": if event.node_id == 0 { Value::Null } else { json!(event.node_id) },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_a_line_in_every_shape() {
        let event = Event {
            sequence: 7,
            at_ms: 1_000,
            severity: "info".to_owned(),
            kind: "member-ready".to_owned(),
            text: "r7 s4 ready, waiting for a partner".to_owned(),
            region_id: 7,
            node_id: 4,
        };
        assert_eq!(
            line(&event, Format::Plain),
            "1970-01-01T00:00:01Z\tinfo\tmember-ready\tr7 s4 ready, waiting for a partner\n"
        );
        assert_eq!(
            line(&event, Format::Table),
            "1970-01-01T00:00:01Z  info      member-ready        r7 s4 ready, waiting for a partner\n"
        );
        let parsed: Option<Value> = serde_json::from_str(&line(&event, Format::Json)).ok();
        let field = |name: &str| parsed.as_ref().map(|parsed| parsed[name].clone());
        assert_eq!((field("region"), field("sequence")), (Some(json!("r7")), Some(json!(7))));
    }
}

//! `quorate store remove` and `quorate store replace`.

use quorate_proto::StoreId;
use quorate_proto::wire::placement::{
    RemoveStoreRequest, RemoveStoreResponse, StatusResponse, StoreStatus,
};
use serde_json::json;

use super::super::id::store_id;
use super::watch::watch;
use crate::cluster::find::Connection;
use crate::exit::{Failure, Outcome};
use crate::output::{self, Format};

/// Takes a store out of the cluster.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct RemoveArgs {
    /// The store: 2 or s2
    #[arg(value_parser = store_id)]
    store: StoreId,
    /// Watch until it has left: how far it is, and which region waits and why
    #[arg(long, conflicts_with = "cancel")]
    watch: bool,
    /// Take it back in, before it has left
    #[arg(long)]
    cancel: bool,
    /// It is dead and will not come back: do not wait for it
    #[arg(long, conflicts_with = "cancel")]
    dead: bool,
    #[command(flatten)]
    shape: output::Shape,
    #[command(flatten)]
    connection: Connection,
}

/// Replaces a store that will not come back.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct ReplaceArgs {
    /// The store that is gone: 3 or s3
    #[arg(value_parser = store_id)]
    store: StoreId,
    /// A store that is up and has room for its replicas: 5 or s5
    #[arg(long, value_name = "STORE", value_parser = store_id)]
    with: StoreId,
    /// Watch until it has left
    #[arg(long)]
    watch: bool,
    #[command(flatten)]
    shape: output::Shape,
    #[command(flatten)]
    connection: Connection,
}

/// Runs `store remove`.
///
/// # Errors
/// Nobody answers, or it could never end: refused up front.
pub(crate) async fn remove(args: &RemoveArgs) -> Outcome {
    let RemoveArgs { store, cancel, dead, .. } = args;
    let placement = args.connection.placement_client().await?;
    let (store_id, cancel, dead) = (store.get(), *cancel, *dead);
    let request = RemoveStoreRequest { store_id, cancel, dead, with_store_id: 0 };
    let replicas = placement.remove_store(request).await?;
    let words = if cancel {
        format!("{store} stays: what has not moved yet stays on it")
    } else {
        format!("{store} is leaving: {} to move", output::plural(replicas, "replica"))
    };
    output::note(&words);
    if args.shape.format() == Format::Json {
        output::emit(&format!("{}\n", json!({ "replicas": replicas })))?;
    }
    if args.watch { watch(&placement, *store, replicas).await } else { Ok(()) }
}

/// Runs `store replace`.
///
/// # Errors
/// The old store is alive, the new one is not up, or placement refuses.
pub(crate) async fn replace(args: &ReplaceArgs) -> Outcome {
    let placement = args.connection.placement_client().await?;
    let silent = check(&placement.status().await?, args.store, args.with)?;
    let request = RemoveStoreRequest {
        store_id: args.store.get(),
        cancel: false,
        dead: true,
        with_store_id: args.with.get(),
    };
    let answer = placement.replace_store(request).await?;
    output::note(&words(args.store, &silent, args.with, &answer));
    let RemoveStoreResponse { replicas, not_to_it, why } = answer;
    if args.shape.format() == Format::Json {
        let told = json!({ "replicas": replicas, "not_to_it": not_to_it, "why": why });
        output::emit(&format!("{told}\n"))?;
    }
    if args.watch { watch(&placement, args.store, replicas).await } else { Ok(()) }
}

/// What becomes of the replicas.
fn words(old: StoreId, silent: &str, new: StoreId, answer: &RemoveStoreResponse) -> String {
    let RemoveStoreResponse { replicas, not_to_it, why } = answer;
    let replicas = output::plural(*replicas, "replica");
    let mut words = format!("{old} silent {silent}; {replicas} to make anew, on {new}");
    if *not_to_it > 0 {
        words += &format!(" but for {not_to_it}, which go where it is best: {}", why.join("; "));
        if *not_to_it > why.len() as u64 {
            words += "; …";
        }
    }
    words
}

/// How long the old store has been silent, where both are as a replacement needs them.
fn check(status: &StatusResponse, old: StoreId, new: StoreId) -> Outcome<String> {
    let find = |id: StoreId| {
        let is_it = |entry: &&StoreStatus| entry.store.as_ref().is_some_and(|s| s.id == id.get());
        status.stores.iter().find(is_it).ok_or_else(|| {
            Failure::error(format!("there is no store {id}: see `quorate store list`"))
        })
    };
    if old == new {
        return Err(Failure::error(format!(
            "{old} cannot replace itself: name another with --with"
        )));
    }
    let (gone, fresh) = (find(old)?, find(new)?);
    if fresh.state != "Up" {
        return Err(Failure::error(format!(
            "{new} is {}: start it first, or name a store that is up",
            fresh.state.to_lowercase()
        )));
    }
    if gone.state == "Up" {
        return Err(Failure::error(format!(
            "{old} is up: take it out with `quorate store remove {old}`, which moves its replicas \
             while it still serves"
        )));
    }
    Ok(output::time(std::time::Duration::from_millis(gone.silent_ms)))
}

#[cfg(test)]
mod tests {
    use quorate_proto::wire::metapb::Store;

    use super::*;

    #[test]
    fn only_a_silent_store_is_replaced_and_only_by_one_that_is_up() {
        let store = |id, state: &str| StoreStatus {
            store: Some(Store { id, ..Store::default() }),
            state: state.to_owned(),
            silent_ms: 720_000,
            ..StoreStatus::default()
        };
        let stores = vec![store(1, "Up"), store(3, "Down"), store(5, "Up"), store(6, "Suspect")];
        let status = StatusResponse { stores, ..StatusResponse::default() };
        let ask = |old, new| check(&status, StoreId(old), StoreId(new));
        assert_eq!(ask(3, 5).as_deref(), Ok("12 min 0 s"));
        let refused = |old, new| ask(old, new).err().map_or(String::new(), |error| error.words);
        assert!(refused(1, 5).contains("store remove s1"), "{}", refused(1, 5));
        assert!(refused(3, 6).contains("s6 is suspect"), "{}", refused(3, 6));
        assert!(refused(3, 9).contains("no store s9"), "{}", refused(3, 9));
        assert!(refused(3, 3).contains("itself"), "{}", refused(3, 3));
    }

    #[test]
    fn what_goes_elsewhere_is_told_with_its_reason() {
        let answer = |not_to_it, why: &[&str]| RemoveStoreResponse {
            replicas: 13,
            not_to_it,
            why: why.iter().map(ToString::to_string).collect(),
        };
        let told = |answer: &RemoveStoreResponse| words(StoreId(3), "12 min", StoreId(5), answer);
        assert_eq!(told(&answer(0, &[])), "s3 silent 12 min; 13 replicas to make anew, on s5");
        assert_eq!(
            told(&answer(1, &["r7: s5 has a replica already"])),
            "s3 silent 12 min; 13 replicas to make anew, on s5 but for 1, which go where it is best: \
             r7: s5 has a replica already"
        );
        assert!(told(&answer(9, &["r7: s5 has a replica already"])).ends_with("already; …"));
    }
}

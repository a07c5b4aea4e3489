//! Before a run: the wanted regions, all keys with a value, leaders spread.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::stream::{FuturesUnordered, StreamExt as _};
use quorate_client::PlacementClient;
use quorate_proto::wire::placement::{SplitRegionRequest, StatusResponse};

use super::keys::{Draw, key};
use super::target::Target;
use crate::exit::{Failure, Outcome};
use crate::output;

/// Keys of one split request.
const SPLIT_KEYS: usize = 16;
/// Writes at the same time while loading.
const LOAD_CONCURRENCY: usize = 256;
/// How long leaders may take to spread.
const BALANCE: Duration = Duration::from_secs(120);
const POLL: Duration = Duration::from_millis(200);

/// Splits the key space of the benchmark evenly into that many regions.
///
/// # Errors
/// Placement refuses, or does not answer.
pub(super) async fn split(placement: &PlacementClient, keys: u64, regions: u64) -> Outcome {
    let existing = placement.scan_regions(Bytes::new(), Bytes::new(), 0).await?;
    let starts: BTreeSet<Bytes> =
        existing.into_iter().map(|info| info.region.range.start).collect();
    let wanted: Vec<Bytes> = (1..regions)
        .map(|number| {
            key(u64::try_from(u128::from(number) * u128::from(keys) / u128::from(regions))
                .unwrap_or(0))
        })
        .filter(|key| !starts.contains(key))
        .collect();
    for keys in wanted.chunks(SPLIT_KEYS) {
        let request = SplitRegionRequest { keys: keys.to_vec(), region_id: 0 };
        placement.split_region(request).await?;
    }
    output::note(&format!("{} regions split off", wanted.len()));
    Ok(())
}

/// Writes every key once.
///
/// # Errors
/// A write failed.
pub(super) async fn load(targets: &[Target], draw: &Draw, keys: u64) -> Outcome {
    let begun = Instant::now();
    let mut draw = draw.fork(0);
    let mut writing = FuturesUnordered::new();
    for number in 0..keys {
        if writing.len() >= LOAD_CONCURRENCY {
            written(writing.next().await)?;
        }
        let at = usize::try_from(number).unwrap_or(0) % targets.len();
        let (mut target, value) = (targets[at].clone(), draw.value());
        writing.push(async move { target.put(key(number), value).await });
    }
    while let Some(done) = writing.next().await {
        written(Some(done))?;
    }
    let rate = keys as f64 / begun.elapsed().as_secs_f64();
    output::note(&format!("{keys} keys written, {}/s", output::count(rate)));
    Ok(())
}

fn written(done: Option<Result<(), String>>) -> Outcome {
    done.transpose()
        .map(|_| ())
        .map_err(|words| Failure::error(format!("loading stopped: {words}")))
}

/// Waits until no store leads more than a tenth more regions than another.
///
/// # Errors
/// That does not happen in time.
pub(super) async fn balance(placement: &PlacementClient) -> Outcome {
    let deadline = Instant::now() + BALANCE;
    loop {
        let leaders = leaders(&placement.status().await?);
        if is_balanced(&leaders) {
            output::note(&format!("leaders per store: {leaders:?}"));
            return Ok(());
        }
        if Instant::now() >= deadline {
            return Err(Failure::error(format!(
                "leaders are not spread within {} s: {leaders:?} per store; see `quorate store list`",
                BALANCE.as_secs()
            )));
        }
        tokio::time::sleep(POLL).await;
    }
}

fn leaders(status: &StatusResponse) -> Vec<u32> {
    let reports = status.stores.iter().filter_map(|store| store.last.as_ref());
    reports.map(|report| report.leader_count).collect()
}

fn is_balanced(leaders: &[u32]) -> bool {
    let (Some(least), Some(most)) = (leaders.iter().min(), leaders.iter().max()) else {
        return false;
    };
    let mean = leaders.iter().sum::<u32>() as f64 / leaders.len() as f64;
    f64::from(most - least) <= (mean / 10.0).max(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenth_apart_is_balanced() {
        assert!(is_balanced(&[33, 34, 35]));
        assert!(is_balanced(&[1, 1, 0]));
        assert!(!is_balanced(&[30, 34, 36]));
        assert!(!is_balanced(&[]));
    }
}
